//! Leases and presence in Redis, Valkey or Dragonfly.
//!
//! One multiplexed connection, made when it is first needed and again after any trouble with it.
//! Every step is bounded, so that a Redis which is gone, unreachable or frozen costs an attempt
//! about [`Timeouts::connect`] plus [`Timeouts::response`] and never hangs it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisError, RedisResult, ServerErrorKind,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::domain::device::DeviceId;
use crate::domain::failure::chain;
use crate::ports::{Coordinator, CoordinatorError, Lease, Presence};

/// Deletes `KEYS[1]` if it still holds `ARGV[1]`. Sent whole (`EVAL`) and not by its digest: it is
/// shorter than the round trip that a forgotten script would cost, and needs no second try.
const RELEASE: &str =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0";

/// After a connection could not be made, requests fail at once for so long. Without it every
/// waiting device would pay the connect timeout in turn, one after the other.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How long to wait for Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Name resolution, TCP, TLS and login together.
    pub connect: Duration,
    /// From sending a request to its answer.
    pub response: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            response: Duration::from_secs(1),
        }
    }
}

/// The coordinator of a cluster.
pub struct RedisCoordinator {
    client: Client,
    config: AsyncConnectionConfig,
    timeouts: Timeouts,
    /// Host and port or socket path, without credentials.
    address: String,
    password: Option<SecretString>,
    link: Mutex<Link>,
    /// Held while connecting, so that one connects for all.
    connecting: tokio::sync::Mutex<()>,
    away: AtomicBool,
    refused: AtomicBool,
}

#[derive(Default)]
struct Link {
    connection: Option<Numbered>,
    made: u64,
    failed: Option<(Instant, Trouble)>,
}

/// A connection and its number, so that the trouble of an old one does not close a newer one.
#[derive(Clone)]
struct Numbered {
    connection: MultiplexedConnection,
    number: u64,
}

/// Why a request got no usable answer. The text is free of the password.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
struct Trouble {
    text: String,
    kind: TroubleKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TroubleKind {
    /// The request was surely not executed: there was no connection.
    NoConnection,
    /// The connection broke; the request may have been executed.
    Broken,
    /// No answer in time; the request may have been executed, or may yet be.
    TimedOut,
    /// The server answered with an error.
    Answered,
}

impl RedisCoordinator {
    /// Prepares to talk to the server at `url` (`redis://`, `rediss://` for TLS, `unix://`) and
    /// returns at once: the connection is made when it is first needed, so that a start while
    /// Redis is away is no different from Redis going away later.
    ///
    /// # Errors
    /// When `url` does not parse. The error does not repeat it.
    pub fn connect(url: &SecretString, timeouts: Timeouts) -> Result<Self, CoordinatorError> {
        let unusable = |error: RedisError| CoordinatorError {
            operation: "read REDIS_URL; it must look like redis://[user:password@]host:6379[/db], \
                        or rediss://… for TLS"
                .to_owned(),
            // The detail may quote a part of the URL; the category never does.
            source: error.category().to_owned().into(),
        };
        let info = url.expose_secret().into_connection_info();
        let info = info.map_err(unusable)?;
        let address = info.addr().to_string();
        let password = info.redis_settings().password().map(SecretString::from);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeouts.connect))
            .set_response_timeout(Some(timeouts.response));
        Ok(Self {
            client: Client::open(info).map_err(unusable)?,
            config,
            timeouts,
            address,
            password,
            link: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            away: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        })
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        // Only plain assignments happen under the lock: it cannot be left half changed.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known without waiting: a connection, or that there was none a moment ago.
    fn known(&self) -> Option<Result<Numbered, Trouble>> {
        let link = self.link();
        if let Some(connection) = &link.connection {
            return Some(Ok(connection.clone()));
        }
        match &link.failed {
            Some((at, trouble)) if at.elapsed() < RETRY_PAUSE => Some(Err(trouble.clone())),
            _ => None,
        }
    }

    /// The connection, made now if there is none.
    async fn connection(&self) -> Result<Numbered, Trouble> {
        if let Some(known) = self.known() {
            return known;
        }
        let _turn = self.connecting.lock().await;
        if let Some(known) = self.known() {
            return known;
        }
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&self.config);
        let outcome = timeout(self.timeouts.connect, connecting).await;
        let mut link = self.link();
        let error = match outcome {
            Ok(Ok(connection)) => {
                link.made += 1;
                let numbered = Numbered {
                    connection,
                    number: link.made,
                };
                link.connection = Some(numbered.clone());
                link.failed = None;
                return Ok(numbered);
            }
            Ok(Err(error)) => self.redact(&chain(&error)),
            Err(_) => format!("no connection within {:?}", self.timeouts.connect),
        };
        let trouble = Trouble {
            text: format!("{}: {error}", self.address),
            kind: TroubleKind::NoConnection,
        };
        link.failed = Some((Instant::now(), trouble.clone()));
        Err(trouble)
    }

    /// Sends `request` on `link` and reads the answer.
    async fn ask<T: FromRedisValue>(
        &self,
        link: &Numbered,
        request: Request,
    ) -> Result<T, Trouble> {
        let mut connection = link.connection.clone();
        let asked = timeout(self.timeouts.response, request.send::<T>(&mut connection)).await;
        let (text, kind, usable) = match asked {
            Ok(Ok(answer)) => return Ok(answer),
            Err(_) => self.no_answer(),
            Ok(Err(error)) if error.is_timeout() => self.no_answer(),
            Ok(Err(error)) => {
                let kind = match error.kind() {
                    ErrorKind::Io | ErrorKind::Parse => TroubleKind::Broken,
                    _ => TroubleKind::Answered,
                };
                (chain(&error), kind, leaves_connection_usable(error.kind()))
            }
        };
        if !usable {
            let mut current = self.link();
            if current.made == link.number {
                current.connection = None;
            }
        }
        Err(Trouble {
            text: format!("{}: {}", self.address, self.redact(&text)),
            kind,
        })
    }

    fn no_answer(&self) -> (String, TroubleKind, bool) {
        let text = format!("no answer within {:?}", self.timeouts.response);
        (text, TroubleKind::TimedOut, false)
    }

    /// Sends a request that may safely be executed twice. A connection that turns out to be
    /// broken (the server was restarted since the last request) is replaced once.
    async fn ask_again<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, Trouble> {
        let first = self.connection().await?;
        match self.ask(&first, Request::One(cmd.clone())).await {
            Err(trouble) if trouble.kind == TroubleKind::Broken => {
                let second = self.connection().await?;
                self.ask(&second, Request::One(cmd.clone())).await
            }
            answer => answer,
        }
    }

    /// Takes the lease, or says who failed. `expires` starts before the request is sent.
    async fn take(&self, device: DeviceId, ttl: Duration) -> Result<Option<Lease>, Trouble> {
        let key = lease_key(device);
        let token = hex::encode(rand::random::<[u8; 16]>());
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(&token).arg("NX").arg("PX").arg(millis);

        let link = self.connection().await?;
        let mut abandoned = Abandoned::new(&link, &key, &token, self.timeouts.response);
        let mut sent = Instant::now();
        let mut answer: Result<Option<String>, _> =
            self.ask(&link, Request::One(set.clone())).await;
        if answer
            .as_ref()
            .is_err_and(|trouble| trouble.kind == TroubleKind::Broken)
        {
            // The lost request may have taken the lease: give that one back in the same breath,
            // or it would stand in our own way.
            let link = self.connection().await?;
            abandoned = Abandoned::new(&link, &key, &token, self.timeouts.response);
            let mut pipeline = redis::pipe();
            pipeline.add_command(release_command(&key, &token)).ignore();
            pipeline.add_command(set);
            sent = Instant::now();
            answer = self
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

    fn redact(&self, text: &str) -> String {
        match &self.password {
            Some(password) if !password.expose_secret().is_empty() => {
                text.replace(password.expose_secret(), "***")
            }
            _ => text.to_owned(),
        }
    }

    /// Logs once when Redis goes and once when it is back, however many devices notice.
    fn note<T>(&self, outcome: &Result<T, Trouble>) {
        match outcome {
            Ok(_) => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("Redis at {} answers again", self.address);
                }
            }
            Err(trouble) if trouble.kind == TroubleKind::Answered => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        error = %trouble,
                        "Redis refuses a request; check the user's rights and the types of the keys"
                    );
                }
            }
            Err(trouble) => {
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        error = %trouble,
                        "Redis is away: every device counts as possibly online, and no backup can \
                         begin until it is back"
                    );
                }
            }
        }
    }
}

impl fmt::Debug for RedisCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCoordinator")
            .field("address", &self.address)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Coordinator for RedisCoordinator {
    async fn presence(&self, device: DeviceId) -> Presence {
        let mut get = redis::cmd("GET");
        get.arg(presence_key(device));
        let answer: Result<Option<Vec<u8>>, _> = self.ask_again(&get).await;
        self.note(&answer);
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
        self.note(&taken);
        taken.map_err(|trouble| CoordinatorError {
            operation: format!("take the lock {} in Redis", lease_key(device)),
            source: Box::new(trouble),
        })
    }

    async fn release(&self, lease: Lease) {
        let command = release_command(&lease_key(lease.device), &lease.token);
        let released: Result<i64, _> = self.ask_again(&command).await;
        self.note(&released);
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
        let answer = self.ask_again::<String>(&redis::cmd("PING")).await;
        self.note(&answer);
        answer.map(drop).map_err(|trouble| CoordinatorError {
            operation: "reach Redis".to_owned(),
            source: Box::new(trouble),
        })
    }
}

/// What is sent in one go.
enum Request {
    One(Cmd),
    Many(Pipeline),
}

impl Request {
    async fn send<T: FromRedisValue>(&self, to: &mut MultiplexedConnection) -> RedisResult<T> {
        match self {
            Self::One(cmd) => cmd.query_async(to).await,
            Self::Many(pipeline) => pipeline.query_async(to).await,
        }
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

/// The key that the platform's poller sets.
fn presence_key(device: DeviceId) -> String {
    format!("device:{device}:status")
}

/// The key of the per-device lock.
fn lease_key(device: DeviceId) -> String {
    format!("backup:device:{device}")
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

/// Whether the server answered in order, so that the same connection serves the next request.
/// Not so for a server that is loading, was demoted or lost its master: the name may lead to
/// another one by now.
fn leaves_connection_usable(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoPerm)
            | ErrorKind::Extension
            | ErrorKind::UnexpectedReturnType
    )
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn neither_debug_nor_a_server_error_shows_the_password() {
        let url = SecretString::from("redis://user:Marker%2F123@192.0.2.1:6379/3");
        let redis = RedisCoordinator::connect(&url, Timeouts::default()).expect("good URL");
        assert_eq!(redis.address, "192.0.2.1:6379");
        assert_eq!(redis.redact("bad AUTH Marker/123"), "bad AUTH ***");
        assert!(!format!("{redis:?}").contains("Marker"));
    }

    #[test]
    fn a_lease_is_certain_for_less_than_its_time_to_live() {
        assert_eq!(
            certain(Duration::from_secs(90)),
            Duration::from_millis(89_100)
        );
    }
}
