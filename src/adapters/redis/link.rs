//! The connection to Redis: made when it is first needed, replaced after any trouble with it, and
//! never waited for longer than agreed.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisResult, ServerErrorKind,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout};

use crate::domain::failure::chain;

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

/// A server, and the connection to it if there is one.
pub(super) struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    timeouts: Timeouts,
    /// Host and port or socket path, without credentials.
    address: String,
    password: Option<SecretString>,
    state: Mutex<State>,
    /// Held while connecting, so that one connects for all.
    connecting: tokio::sync::Mutex<()>,
    away: AtomicBool,
    refused: AtomicBool,
}

#[derive(Default)]
struct State {
    connection: Option<Numbered>,
    made: u64,
    failed: Option<(Instant, Trouble)>,
}

/// A connection and its number, so that the trouble of an old one does not close a newer one.
#[derive(Clone)]
pub(super) struct Numbered {
    pub(super) connection: MultiplexedConnection,
    number: u64,
}

/// Why a request got no usable answer. The text is free of the password.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Trouble {
    text: String,
    pub(super) kind: TroubleKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TroubleKind {
    /// The request was surely not executed: there was no connection.
    NoConnection,
    /// The connection broke; the request may have been executed.
    Broken,
    /// No answer in time; the request may have been executed, or may yet be.
    TimedOut,
    /// The server answered with an error.
    Answered,
}

impl Link {
    /// Prepares to talk to the server at `url`; makes no connection yet.
    pub(super) fn new(url: &SecretString, timeouts: Timeouts) -> RedisResult<Self> {
        let info = url.expose_secret().into_connection_info()?;
        let address = info.addr().to_string();
        let password = info.redis_settings().password().map(SecretString::from);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeouts.connect))
            .set_response_timeout(Some(timeouts.response));
        Ok(Self {
            client: Client::open(info)?,
            config,
            timeouts,
            address,
            password,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            away: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        })
    }

    /// How long it waits.
    pub(super) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Only plain assignments happen under the lock: it cannot be left half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known without waiting: a connection, or that there was none a moment ago.
    fn known(&self) -> Option<Result<Numbered, Trouble>> {
        let state = self.state();
        if let Some(connection) = &state.connection {
            return Some(Ok(connection.clone()));
        }
        match &state.failed {
            Some((at, trouble)) if at.elapsed() < RETRY_PAUSE => Some(Err(trouble.clone())),
            _ => None,
        }
    }

    /// The connection, made now if there is none.
    pub(super) async fn connection(&self) -> Result<Numbered, Trouble> {
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
        let mut state = self.state();
        let error = match outcome {
            Ok(Ok(connection)) => {
                state.made += 1;
                let numbered = Numbered {
                    connection,
                    number: state.made,
                };
                state.connection = Some(numbered.clone());
                state.failed = None;
                return Ok(numbered);
            }
            Ok(Err(error)) => self.redact(&chain(&error)),
            Err(_) => format!("no connection within {:?}", self.timeouts.connect),
        };
        let trouble = Trouble {
            text: format!("{}: {error}", self.address),
            kind: TroubleKind::NoConnection,
        };
        state.failed = Some((Instant::now(), trouble.clone()));
        Err(trouble)
    }

    /// Sends `request` on the connection `on` and reads the answer.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        on: &Numbered,
        request: Request,
    ) -> Result<T, Trouble> {
        self.ask_within(on, request, self.timeouts.response).await
    }

    /// The same, where the answer may take another time, at most that of [`Timeouts::response`].
    pub(super) async fn ask_within<T: FromRedisValue>(
        &self,
        on: &Numbered,
        request: Request,
        within: Duration,
    ) -> Result<T, Trouble> {
        let mut connection = on.connection.clone();
        let asked = timeout(within, request.send::<T>(&mut connection)).await;
        let (text, kind, usable) = match asked {
            Ok(Ok(answer)) => return Ok(answer),
            Err(_) => no_answer(within),
            Ok(Err(error)) if error.is_timeout() => no_answer(within),
            Ok(Err(error)) => {
                let kind = match error.kind() {
                    ErrorKind::Io | ErrorKind::Parse => TroubleKind::Broken,
                    _ => TroubleKind::Answered,
                };
                (chain(&error), kind, leaves_connection_usable(error.kind()))
            }
        };
        if !usable {
            let mut current = self.state();
            if current.made == on.number {
                current.connection = None;
            }
        }
        Err(Trouble {
            text: format!("{}: {}", self.address, self.redact(&text)),
            kind,
        })
    }

    /// Sends a request that may safely be executed twice. A connection that turns out to be
    /// broken (the server was restarted since the last request) is replaced once.
    pub(super) async fn ask_again<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, Trouble> {
        self.ask_again_within(cmd, self.timeouts.response).await
    }

    /// The same, where the answer may take another time, at most that of [`Timeouts::response`].
    pub(super) async fn ask_again_within<T: FromRedisValue>(
        &self,
        cmd: &Cmd,
        within: Duration,
    ) -> Result<T, Trouble> {
        let ask = |on: Numbered| async move {
            self.ask_within(&on, Request::One(cmd.clone()), within)
                .await
        };
        match ask(self.connection().await?).await {
            Err(trouble) if trouble.kind == TroubleKind::Broken => {
                ask(self.connection().await?).await
            }
            answer => answer,
        }
    }

    /// `text` without the password: a server may repeat what it was sent.
    fn redact(&self, text: &str) -> String {
        match &self.password {
            Some(password) if !password.expose_secret().is_empty() => {
                text.replace(password.expose_secret(), "***")
            }
            _ => text.to_owned(),
        }
    }

    /// Logs once when Redis goes and once when it is back, however many devices notice.
    pub(super) fn note<T>(&self, outcome: &Result<T, Trouble>) {
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

fn no_answer(within: Duration) -> (String, TroubleKind, bool) {
    let text = format!("no answer within {within:?}");
    (text, TroubleKind::TimedOut, false)
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("address", &self.address)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

/// What is sent in one go.
pub(super) enum Request {
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
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    fn link() -> Link {
        let url = SecretString::from("redis://user:Marker%2F123@192.0.2.1:6379/3");
        Link::new(&url, Timeouts::default()).expect("a good URL")
    }

    #[test]
    fn neither_debug_nor_a_server_error_shows_the_password() {
        let link = link();
        assert_eq!(link.address, "192.0.2.1:6379");
        assert_eq!(link.redact("bad AUTH Marker/123"), "bad AUTH ***");
        assert!(!format!("{link:?}").contains("Marker"));
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("whole").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn going_and_coming_back_are_logged_once_each() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let link = link();
        let trouble = |kind| {
            let text = "192.0.2.1:6379: no".to_owned();
            Err::<(), _>(Trouble { text, kind })
        };
        tracing::subscriber::with_default(subscriber, || {
            link.note(&Ok(()));
            for _ in 0..2 {
                for _device in 0..3 {
                    link.note(&trouble(TroubleKind::TimedOut));
                }
                link.note(&Ok(()));
                link.note(&Ok(()));
            }
            link.note(&trouble(TroubleKind::Answered));
            link.note(&trouble(TroubleKind::Answered));
        });
        let log = String::from_utf8(lines.0.lock().expect("whole").clone()).expect("text");
        let count = |what: &str| log.matches(what).count();
        assert_eq!(count("Redis is away"), 2, "{log}");
        assert_eq!(count("answers again"), 2, "{log}");
        assert_eq!(count("refuses a request"), 1, "{log}");
    }
}
