//! The requests to OpenBao, and nothing else: decrypt, look at the token, renew it.
//!
//! The client's own errors are read, not kept: their `Debug` may hold an answer, and an answer
//! holds a plaintext. (Its log is switched off for the same reason, in `telemetry`.)

use std::error::Error as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::ring;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;

use super::TransitConfigError;
use super::answer::{Fault, fault};
use crate::domain::failure::chain;

/// How long one request may take, from connecting to the last byte.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// Where the Transit engine is mounted.
const MOUNT: &str = "transit";

/// What the client says when nothing came back.
const NOT_SENT: &str = "Error sending HTTP request";

/// A server and the token for it.
pub(super) struct Server {
    client: VaultClient,
}

/// What the server says of the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token {
    /// How long it is still good for; `None` without an end.
    pub(super) left: Option<Duration>,
    /// Whether that can be made longer.
    pub(super) renewable: bool,
}

impl Server {
    pub(super) fn new(address: &str, token: &SecretString) -> Result<Self, TransitConfigError> {
        // The client takes what the process has, and panics where it has none. One that is there
        // already is as good.
        let _ = ring::default_provider().install_default();
        // The client's builder panics at what is no URL.
        Url::parse(address).map_err(|source| TransitConfigError {
            address: address.to_owned(),
            source: source.into(),
        })?;
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| TransitConfigError {
            address: address.to_owned(),
            source,
        };
        // Every setting that the client would else take from variables of its own (VAULT_…).
        let settings = VaultClientSettingsBuilder::default()
            .address(address.trim_end_matches('/'))
            .token(token.expose_secret())
            .timeout(Some(REQUEST_LIMIT))
            .ca_certs(Vec::new())
            .identity(None)
            .namespace(None)
            .verify(true)
            .build()
            .map_err(|error| unusable(error.to_string().into()))?;
        let client = VaultClient::new(settings).map_err(|error| unusable(error.into()))?;
        Ok(Self { client })
    }

    pub(super) async fn decrypt(
        &self,
        key: &str,
        ciphertext: &str,
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let answer = vaultrs::transit::data::decrypt(&self.client, MOUNT, key, ciphertext, None);
        let answer = answer.await.map_err(|error| read(&error))?;
        let plaintext = Zeroizing::new(answer.plaintext);
        let decoded = STANDARD.decode(plaintext.as_bytes());
        let unintelligible = |_| Fault::Away("the plaintext in its answer is not base64".into());
        decoded.map(Zeroizing::new).map_err(unintelligible)
    }

    pub(super) async fn token(&self) -> Result<Token, Fault> {
        let found = vaultrs::token::lookup_self(&self.client).await;
        let found = found.map_err(|error| read(&error))?;
        Ok(Token {
            left: (found.ttl > 0).then(|| Duration::from_secs(found.ttl)),
            renewable: found.renewable.unwrap_or(false),
        })
    }

    /// Renews the token, and tells how long it is good for then.
    pub(super) async fn renew(&self) -> Result<Duration, Fault> {
        let renewed = vaultrs::token::renew_self(&self.client, None).await;
        let renewed = renewed.map_err(|error| read(&error))?;
        Ok(Duration::from_secs(renewed.lease_duration))
    }
}

/// The client's error in words that hold no answer of the server.
fn read(error: &ClientError) -> Fault {
    match error {
        ClientError::APIError { code, errors } => fault(*code, errors),
        ClientError::RestClientError { source } if source.to_string() == NOT_SENT => {
            let reason = source.source().map(chain);
            Fault::NoConnection(advised(reason.unwrap_or_else(|| NOT_SENT.to_owned())))
        }
        // What was answered is not shown: it may be a plaintext after all.
        _ => Fault::Away("its answer is not what its API says; is it behind a proxy?".to_owned()),
    }
}

/// With what to do about it, where the connection came about and its certificate is not trusted.
fn advised(reason: String) -> String {
    if !reason.contains("certificate") {
        return reason;
    }
    format!(
        "{reason}; if it comes from a private authority, name the file with that one's certificate \
         (PEM) in SSL_CERT_FILE and restart"
    )
}
