//! Leases and presence in Redis, Valkey or Dragonfly.
//!
//! One multiplexed connection, made when it is first needed and again after any trouble with it.
//! Every step is bounded, so that a Redis which is gone, unreachable or frozen costs an attempt
//! about [`Timeouts::connect`] plus [`Timeouts::response`] and never hangs it.

mod link;
mod outbox;

use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError};
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::domain::device::DeviceId;
use crate::ports::{Coordinator, CoordinatorError, Lease, Presence};

pub use link::Timeouts;
use link::{Link, Numbered, Request, Trouble, TroubleKind};
pub use outbox::RedisOutbox;

/// Deletes `KEYS[1]` if it still holds `ARGV[1]`. Sent whole (`EVAL`) and not by its digest: it is
/// shorter than the round trip that a forgotten script would cost, and needs no second try.
const RELEASE: &str =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0";

/// The coordinator of a cluster.
#[derive(Debug)]
pub struct RedisCoordinator {
    link: Link,
}

impl RedisCoordinator {
    /// Prepares to talk to the server at `url` (`redis://`, `rediss://` for TLS, `unix://`) and
    /// returns at once: the connection is made when it is first needed, so that a start while
    /// Redis is away is no different from Redis going away later.
    ///
    /// # Errors
    /// When `url` does not parse. The error does not repeat it.
    pub fn connect(url: &SecretString, timeouts: Timeouts) -> Result<Self, CoordinatorError> {
        let link = Link::new(url, timeouts);
        let link = link.map_err(|error| {
            let (operation, source) = invalid_url(&error);
            CoordinatorError { operation, source }
        })?;
        Ok(Self { link })
    }

    async fn take(&self, device: DeviceId, ttl: Duration) -> Result<Option<Lease>, Trouble> {
        let key = lease_key(device);
        let token = hex::encode(rand::random::<[u8; 16]>());
        let mut set = redis::cmd("SET");
        set.arg(&key)
            .arg(&token)
            .arg("NX")
            .arg("PX")
            .arg(milliseconds(ttl));

        let link = self.link.connection().await?;
        let mut abandoned = Abandoned::new(&link, &key, &token, self.link.timeouts().response);
        let mut sent = Instant::now();
        let mut answer: Result<Option<String>, _> =
            self.link.ask(&link, Request::One(set.clone())).await;
        if answer
            .as_ref()
            .is_err_and(|trouble| trouble.kind == TroubleKind::Broken)
        {
            // The lost request may have taken the lease: give that one back in the same breath,
            // or it would stand in our own way.
            abandoned.disarm();
            let link = self.link.connection().await?;
            abandoned = Abandoned::new(&link, &key, &token, self.link.timeouts().response);
            let mut pipeline = redis::pipe();
            pipeline.add_command(release_command(&key, &token)).ignore();
            pipeline.add_command(set);
            sent = Instant::now();
            answer = self
                .link
                .ask::<(Option<String>,)>(&link, Request::Many(pipeline))
                .await
                .map(|(taken,)| taken);
        }
        if !matches!(&answer, Err(trouble) if trouble.kind == TroubleKind::TimedOut) {
            abandoned.disarm();
        }
        Ok(answer?.map(|_| Lease {
            device,
            token,
            expires: sent + certain(ttl),
        }))
    }
}

#[async_trait]
impl Coordinator for RedisCoordinator {
    async fn presence(&self, device: DeviceId) -> Presence {
        let mut get = redis::cmd("GET");
        get.arg(presence_key(device));
        let answer: Result<Option<Vec<u8>>, _> = self.link.ask_again(&get).await;
        self.link.note(&answer);
        match answer {
            Ok(Some(status)) if status == b"online" => Presence::Online,
            Ok(Some(_)) => Presence::Offline,
            Ok(None) | Err(_) => Presence::Unknown,
        }
    }

    async fn try_lease(
        &self,
        device: DeviceId,
        ttl: Duration,
    ) -> Result<Option<Lease>, CoordinatorError> {
        let taken = self.take(device, ttl).await;
        self.link.note(&taken);
        taken.map_err(|trouble| CoordinatorError {
            operation: format!("take the lock {} in Redis", lease_key(device)),
            source: Box::new(trouble),
        })
    }

    async fn release(&self, lease: Lease) {
        let command = release_command(&lease_key(lease.device), &lease.token);
        let released: Result<i64, _> = self.link.ask_again(&command).await;
        self.link.note(&released);
        match released {
            Ok(0) => tracing::debug!(device.id = %lease.device, "the lock had expired already"),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(
                    device.id = %lease.device, %error,
                    "the lock could not be released and stays until it expires"
                );
            }
        }
    }

    async fn ping(&self) -> Result<(), CoordinatorError> {
        let answer = self.link.ask_again::<String>(&redis::cmd("PING")).await;
        self.link.note(&answer);
        answer.map(drop).map_err(|trouble| CoordinatorError {
            operation: "reach Redis".to_owned(),
            source: Box::new(trouble),
        })
    }
}

/// Gives a lease back that was asked for and whose answer nobody waited for: it timed out, or
/// the attempt was cancelled. Sent on the same connection, hence executed after the request that
/// it takes back even if the server was frozen in between. Expiry is the backstop.
struct Abandoned {
    armed: Option<(MultiplexedConnection, Cmd)>,
    patience: Duration,
}

impl Abandoned {
    fn new(link: &Numbered, key: &str, token: &str, patience: Duration) -> Self {
        Self {
            armed: Some((link.connection.clone(), release_command(key, token))),
            patience,
        }
    }

    fn disarm(&mut self) {
        self.armed = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some((mut connection, command)) = self.armed.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let patience = self.patience;
            runtime.spawn(async move {
                let sent = command.query_async::<i64>(&mut connection);
                let _ = timeout(patience, sent).await;
            });
        }
    }
}

/// What was to be done, and why it could not: `error` comes from a URL that does not parse.
fn invalid_url(error: &RedisError) -> (String, Box<dyn std::error::Error + Send + Sync>) {
    let operation = "read REDIS_URL; it must look like redis://[user:password@]host:6379[/db], or \
                     rediss://… for TLS";
    // The detail may quote a part of the URL; the category never does.
    (operation.to_owned(), error.category().to_owned().into())
}

/// The key that the platform's poller sets.
fn presence_key(device: DeviceId) -> String {
    format!("device:{device}:status")
}

/// The key of the per-device lock.
fn lease_key(device: DeviceId) -> String {
    format!("backup:device:{device}")
}

/// A time to live as Redis takes it: in milliseconds, at least one.
fn milliseconds(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn release_command(key: &str, token: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(RELEASE).arg(1).arg(key).arg(token);
    command
}

/// The part of `ttl` during which the key exists for certain: the server's clock may run a little
/// faster than ours. A hundredth is twenty times what NTP may slew (500 ppm, RFC 5905).
fn certain(ttl: Duration) -> Duration {
    ttl - ttl / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::chain;

    #[test]
    fn an_unusable_url_is_refused_without_repeating_it() {
        for url in [
            "http://user:Marker-123@192.0.2.1:6379",
            "redis://user:Marker-123@:6379",
            "redis://user:Marker-123@192.0.2.1:6379/Marker-123",
            "Marker-123",
        ] {
            let url = SecretString::from(url);
            let error = RedisCoordinator::connect(&url, Timeouts::default()).expect_err("bad URL");
            let text = format!("{} {error:?}", chain(&error));
            assert!(text.contains("REDIS_URL"), "{text}");
            assert!(!text.contains("Marker-123"), "{text}");
        }
    }

    #[test]
    fn a_lease_is_certain_for_less_than_its_time_to_live() {
        assert_eq!(
            certain(Duration::from_secs(90)),
            Duration::from_millis(89_100)
        );
    }
}
