//! Opening Transit ciphertexts with OpenBao or Vault: what is cached, who is asked when, and what
//! its silence means.

mod answer;
mod cache;
mod circuit;
mod server;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::domain::device::{DeviceId, TenantId};
use crate::domain::digest::Digest;
use crate::metrics::{Decrypted, Metrics};

use answer::Fault;
use cache::Cache;
use circuit::{Circuit, Turn};
use server::{Server, Token};

/// Requests at once; more wait here rather than there.
const AT_ONCE: usize = 16;

/// A connection that fails within this time is tried once more: a server that was restarted closes
/// those that are kept.
const AT_ONCE_AGAIN: Duration = Duration::from_millis(500);
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Between two looks at the token, and the first and the longest pause after one that failed.
const TOKEN_LOOK: Duration = Duration::from_secs(3600);
const TOKEN_RETRY_FIRST: Duration = Duration::from_secs(5);
const TOKEN_RETRY_MAX: Duration = Duration::from_secs(60);

/// A token is renewed when this part of its time is over, but not more often than so.
const RENEW_AFTER: u32 = 2;
const RENEW_PAUSE: Duration = Duration::from_secs(1);

/// How often plaintexts that are too old leave the memory.
const SWEEP: Duration = Duration::from_secs(60);

/// `OPENBAO_ADDR` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "OPENBAO_ADDR={address} cannot be used; for https its certificate authority must be one of the \
     system's, or in the file that SSL_CERT_FILE names"
)]
pub struct TransitConfigError {
    address: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A Transit ciphertext was not opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransitError {
    /// OpenBao is away, sealed, or does not accept the token: the same for every device.
    #[error("OpenBao cannot decrypt now: {reason}")]
    Away {
        /// What it said, or that it did not.
        reason: String,
    },
    /// The key does not fit the ciphertext, or may not be used.
    #[error(
        "OpenBao did not decrypt them with key {key} at transit/ ({said}); store them again, \
         encrypted with this key, or let the token's policy update transit/decrypt/{key}"
    )]
    Refused {
        /// The name of the key.
        key: String,
        /// The server's words.
        said: String,
    },
}

/// Opens Transit ciphertexts.
pub struct Transit {
    server: Server,
    cache: Mutex<Cache>,
    circuit: Mutex<Circuit>,
    at_once: Semaphore,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Transit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transit").finish_non_exhaustive()
    }
}

impl Transit {
    /// Asks nobody yet: a start while OpenBao is away is no different from its going away later.
    ///
    /// # Errors
    /// When `address` is no address, or there is no certificate authority to trust.
    pub fn new(
        address: &str,
        token: &SecretString,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TransitConfigError> {
        Ok(Self {
            server: Server::new(address, token)?,
            cache: Mutex::default(),
            circuit: Mutex::default(),
            at_once: Semaphore::new(AT_ONCE),
            metrics,
        })
    }

    /// Decrypts what is stored for `device` with the key of `tenant`. Cancel safe.
    ///
    /// # Errors
    /// [`TransitError`] tells an outage from a ciphertext that cannot be opened.
    pub async fn decrypt(
        &self,
        device: DeviceId,
        tenant: TenantId,
        ciphertext: &str,
    ) -> Result<Zeroizing<Vec<u8>>, TransitError> {
        let key = format!("tenant_{tenant}");
        let digest = Digest::of_fields([key.as_bytes(), ciphertext.as_bytes()]);
        if let Some(plaintext) = self.cached(digest, device) {
            self.metrics.credential_cache(true);
            return Ok(plaintext);
        }
        if let Some(reason) = self.why_not() {
            return self.away(reason);
        }
        let Ok(_place) = self.at_once.acquire().await else {
            return self.away("the process stops".to_owned());
        };
        // Somebody may have brought it meanwhile, or found out that it cannot be had.
        if let Some(plaintext) = self.cached(digest, device) {
            self.metrics.credential_cache(true);
            return Ok(plaintext);
        }
        if let Err(reason) = self.circuit().admit(Instant::now()) {
            return self.away(reason);
        }
        self.metrics.credential_cache(false);
        let epoch = self.cache().epoch();
        let began = Instant::now();
        let plaintext = match self.ask(&key, ciphertext).await {
            Ok(plaintext) => plaintext,
            Err(Fault::Refused(said)) => {
                self.works(began);
                return self.refused(key, said);
            }
            Err(Fault::Forbidden) => match self.server.token().await {
                Ok(_) => {
                    self.works(began);
                    return self.refused(key, "the token's policy does not allow it".to_owned());
                }
                Err(fault) => return self.fails(began, fault),
            },
            Err(fault) => return self.fails(began, fault),
        };
        self.works(began);
        self.metrics.decrypted(Decrypted::Success);
        let now = Instant::now();
        let kept = plaintext.clone();
        let mut cache = self.cache();
        cache.put(digest, device, kept, epoch, now);
        self.metrics.set_cached_credentials(cache.len());
        Ok(plaintext)
    }

    /// Forgets what `device` is logged in to with.
    pub fn forget(&self, device: DeviceId) {
        let mut cache = self.cache();
        cache.forget(device);
        self.metrics.set_cached_credentials(cache.len());
    }

    /// One round trip, to tell whether it is there and accepts the token.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn ping(&self) -> Result<(), String> {
        if let Some(reason) = self.why_not() {
            return Err(reason);
        }
        match self.server.token().await {
            Ok(_) => Ok(()),
            Err(fault) => Err(reason(fault)),
        }
    }

    /// Keeps the token alive, and the cache free of what is too old; never returns.
    pub async fn run(&self) {
        tokio::join!(self.keep_token(), self.keep_swept());
    }

    async fn keep_swept(&self) {
        loop {
            sleep(SWEEP).await;
            let mut cache = self.cache();
            cache.sweep(Instant::now());
            self.metrics.set_cached_credentials(cache.len());
        }
    }

    /// Renews a token that can be renewed, when half of its time is over; says when one ends that
    /// cannot.
    async fn keep_token(&self) {
        let mut retry = TOKEN_RETRY_FIRST;
        let mut said_end = false;
        loop {
            let looked = match self.server.token().await {
                Ok(token) if token.renewable && token.left.is_some() => {
                    let renewed = self.server.renew().await;
                    renewed.map(|left| Token {
                        left: Some(left),
                        ..token
                    })
                }
                looked => looked,
            };
            let pause = match looked {
                Ok(token) => {
                    retry = TOKEN_RETRY_FIRST;
                    said_end = say_end(token, said_end);
                    look_after(token)
                }
                Err(fault) => {
                    let reason = reason(fault);
                    warn!(
                        reason,
                        "the token of OPENBAO_TOKEN could not be renewed or looked at"
                    );
                    let pause = retry;
                    retry = (retry * 2).min(TOKEN_RETRY_MAX);
                    pause
                }
            };
            sleep(pause).await;
        }
    }

    async fn ask(&self, key: &str, ciphertext: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let began = Instant::now();
        match self.server.decrypt(key, ciphertext).await {
            Err(Fault::NoConnection(reason)) if began.elapsed() < AT_ONCE_AGAIN => {
                debug!(reason, "no connection to OpenBao; tried once more");
                sleep(AGAIN_AFTER).await;
                self.server.decrypt(key, ciphertext).await
            }
            answer => answer,
        }
    }

    fn cached(&self, digest: Digest, device: DeviceId) -> Option<Zeroizing<Vec<u8>>> {
        self.cache().get(digest, device, Instant::now())
    }

    fn why_not(&self) -> Option<String> {
        self.circuit().reason(Instant::now()).map(ToOwned::to_owned)
    }

    fn works(&self, began: Instant) {
        if self.circuit().worked(began) == Turn::Back {
            info!("OpenBao is back");
        }
    }

    fn fails<T>(&self, began: Instant, fault: Fault) -> Result<T, TransitError> {
        let reason = reason(fault);
        let sample = rand::random();
        let now = Instant::now();
        let turn = self.circuit().failed(began, now, reason.clone(), sample);
        if turn == Turn::Gone {
            warn!(
                reason,
                "OpenBao is away: devices whose credentials it opens are put off until it is back"
            );
        }
        self.away(reason)
    }

    fn away<T>(&self, reason: String) -> Result<T, TransitError> {
        self.metrics.decrypted(Decrypted::Unavailable);
        Err(TransitError::Away { reason })
    }

    fn refused<T>(&self, key: String, said: String) -> Result<T, TransitError> {
        self.metrics.decrypted(Decrypted::Refused);
        Err(TransitError::Refused { key, said })
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Nothing that could panic runs under the lock.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        // Nothing that could panic runs under the lock.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why it is away, for whoever reads the log or `/readyz`.
fn reason(fault: Fault) -> String {
    match fault {
        Fault::Refused(said) => format!("its answer makes no sense here ({said})"),
        Fault::Away(reason) | Fault::NoConnection(reason) => reason,
        Fault::Forbidden => "it does not accept the token of OPENBAO_TOKEN: it has expired, was \
                             revoked, or may not look at itself (auth/token/lookup-self); put \
                             another one in its place and restart"
            .to_owned(),
    }
}

/// When to look at the token again.
fn look_after(token: Token) -> Duration {
    match token.left {
        Some(left) => (left / RENEW_AFTER).clamp(RENEW_PAUSE, TOKEN_LOOK),
        None => TOKEN_LOOK,
    }
}

/// Says once when the token ends, if nothing can be done about it here.
fn say_end(token: Token, said: bool) -> bool {
    let Some(left) = token.left.filter(|_| !token.renewable) else {
        return false;
    };
    if !said {
        warn!(
            ends_in_s = left.as_secs(),
            "the token of OPENBAO_TOKEN cannot be renewed and ends in {} s: put another one in its \
             place before, and restart",
            left.as_secs()
        );
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_looked_at_before_half_of_it_is_over() {
        let token = |left: Option<u64>| Token {
            left: left.map(Duration::from_secs),
            renewable: true,
        };
        for (left, after) in [
            (None, TOKEN_LOOK.as_secs()),
            (Some(600), 300),
            (Some(1), 1),
            (Some(86_400), TOKEN_LOOK.as_secs()),
        ] {
            assert_eq!(look_after(token(left)).as_secs(), after, "{left:?}");
        }
    }

    #[test]
    fn the_end_of_a_token_is_said_once() {
        let ends = Token {
            left: Some(Duration::from_secs(60)),
            renewable: false,
        };
        assert!(say_end(ends, false) && say_end(ends, true));
        let renewable = Token {
            renewable: true,
            ..ends
        };
        assert!(!say_end(renewable, true));
    }
}
