//! Snapshots into NATS JetStream, and out of it again: one acknowledged message each, under the
//! attempt's id; texts too large for one are kept in an object store.
//!
//! Who delivers needs the right to publish to `config.snapshot.create.>` and to
//! `$JS.API.STREAM.NAMES`, `$JS.API.STREAM.INFO.*` and, where no stream covers the subject yet,
//! `$JS.API.STREAM.CREATE.*`. For large texts also to `$O.CONFIG_SNAPSHOTS.>` and to
//! `$JS.API.STREAM.MSG.GET.OBJ_CONFIG_SNAPSHOTS`, `$JS.API.STREAM.PURGE.OBJ_CONFIG_SNAPSHOTS` and,
//! where there is no such bucket yet, `$JS.API.STREAM.CREATE.OBJ_CONFIG_SNAPSHOTS`. What reading
//! takes is said in [`SnapshotSource`].

mod arrival;
mod choice;
mod delivery;
mod event;
mod link;
mod look;
mod message;
mod objects;
mod source;
mod stream;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Client;
use async_nats::client::{Request, RequestErrorKind};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{Context, ErrorCode};
use async_trait::async_trait;
use secrecy::SecretString;
use tokio::time::Instant;

pub use arrival::{Flaw, Received, Rejection, Text};
pub use delivery::{Arrival, Batch};
pub use event::{ConfigRef, SnapshotEvent};
pub use link::InvalidUrl;
pub use objects::Unresolved;
pub use source::{CONSUMER, Lag, SIGN_OF_LIFE, SnapshotSource, SourceError};

use crate::domain::failure::chain;
use crate::domain::snapshot::Snapshot;
use crate::ports::{SinkError, SnapshotSink};

use link::Link;
use message::{Fit, Message};
use stream::{StreamTrouble, Target};

const SINK: &str = "JetStream";

/// After the stream could not be found or created, deliveries fail at once for so long, so that
/// many of them do not each wait for a server that does not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How to deliver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Largest size in bytes of a stream that we create.
    pub stream_max_bytes: u64,
    /// Copies in a stream that we create, 1 to 5.
    pub stream_replicas: usize,
    /// How long to wait for an acknowledgement, and for JetStream's other answers.
    pub ack_timeout: Duration,
    /// The name of the connection, as the server's monitoring shows it.
    pub client_name: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_max_bytes: 10 << 30,
            stream_replicas: 1,
            ack_timeout: Duration::from_secs(10),
            client_name: "mikrotik-backup".to_owned(),
        }
    }
}

/// The sink of a cluster.
pub struct JetStreamSink {
    link: Link,
    context: Context,
    settings: Settings,
    known: Mutex<Known>,
    /// Held while looking for the stream, so that one looks for all.
    looking: tokio::sync::Mutex<()>,
    /// The last connection that [`SnapshotSink::came_back`] told of.
    told: AtomicU64,
    /// The stream cannot be looked into over this connection.
    blind: AtomicBool,
}

/// What was found out about the stream.
#[derive(Default)]
struct Known {
    /// The stream, and the number of the connection over which it was found.
    target: Option<(u64, Target)>,
    /// When and why it was not found.
    failed: Option<(Instant, String)>,
    /// The size of the message that found it full.
    full: Option<u64>,
}

/// Why a message was not stored.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Away(#[from] link::Away),
    #[error(
        "no acknowledgement within {timeout:?}{complaint}; it may have been stored all the same"
    )]
    NoAck {
        timeout: Duration,
        complaint: String,
    },
    #[error("no stream takes the subject")]
    NoStream,
    /// Full, or JetStream itself is not well.
    #[error("{0}")]
    Unavailable(async_nats::jetstream::Error),
    #[error("{0}")]
    Refused(async_nats::jetstream::Error),
    #[error("the answer cannot be understood: {0}")]
    Unintelligible(String),
    #[error(transparent)]
    Stream(#[from] StreamTrouble),
}

impl JetStreamSink {
    /// Begins to connect to `url` (`nats://` or `tls://`, with user and password or a token, or a
    /// list of them separated by commas) and returns at once: a start while NATS is away is no
    /// different from NATS going away later. Needs a tokio runtime.
    ///
    /// # Errors
    /// When `url` does not parse. The error does not repeat it.
    pub async fn connect(url: &SecretString, settings: Settings) -> Result<Self, InvalidUrl> {
        let link = Link::connect(url, &settings.client_name, settings.ack_timeout).await?;
        let context = ContextBuilder::new()
            .timeout(settings.ack_timeout)
            .build(link.client().clone());
        Ok(Self {
            link,
            context,
            settings,
            known: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            told: AtomicU64::new(0),
            blind: AtomicBool::new(false),
        })
    }

    /// The connection, for whatever else is done over it.
    pub fn client(&self) -> Client {
        self.link.client().clone()
    }

    /// Sends what is on its way and closes the connection; waits 2 s at most.
    pub async fn close(&self) {
        self.link.close().await;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Only plain assignments happen under the lock: it cannot be left half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the stream without asking.
    fn remembered(&self, connection: u64) -> Option<Result<Target, String>> {
        let known = self.known();
        if let Some((number, target)) = &known.target
            && *number == connection
        {
            return Some(Ok(target.clone()));
        }
        match &known.failed {
            Some((at, error)) if at.elapsed() < RETRY_PAUSE => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// The stream that takes the snapshots, looked for once per connection.
    async fn target(&self) -> Result<Target, String> {
        let connection = self.link.connects();
        if let Some(remembered) = self.remembered(connection) {
            return remembered;
        }
        let _turn = self.looking.lock().await;
        if let Some(remembered) = self.remembered(connection) {
            return remembered;
        }
        let looking = stream::find_or_create(&self.context, &self.settings);
        let found = match self.link.while_connected(looking).await {
            Ok(found) => found.map_err(|trouble| chain(&trouble)),
            // The connection says so itself the next time; there is nothing to remember.
            Err(away) => return Err(away.to_string()),
        };
        let mut known = self.known();
        match found {
            Ok(target) => {
                known.target = Some((connection, target.clone()));
                known.failed = None;
                Ok(target)
            }
            Err(error) => {
                known.target = None;
                known.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn unavailable(operation: impl Into<String>, source: impl Into<BoxedError>) -> SinkError {
        SinkError::Unavailable {
            sink: SINK,
            operation: operation.into(),
            source: source.into(),
        }
    }

    fn refused(operation: impl Into<String>, source: impl Into<BoxedError>) -> SinkError {
        SinkError::Refused {
            sink: SINK,
            operation: operation.into(),
            source: source.into(),
        }
    }

    /// Publishes, and waits for the acknowledgement that it is stored (a second time is stored).
    async fn publish(&self, message: &Message) -> Result<PublishAck, Trouble> {
        let mut request = Request::new()
            .payload(message.payload.clone())
            .timeout(Some(self.settings.ack_timeout));
        if let Some(headers) = &message.headers {
            request = request.headers(headers.clone());
        }
        let sent = self
            .link
            .client()
            .send_request(message.subject.clone(), request);
        let answer = self.link.while_connected(sent).await?;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => {
                let complaint = self.link.complaint();
                Trouble::NoAck {
                    timeout: self.settings.ack_timeout,
                    complaint: complaint.map_or_else(String::new, |said| format!(" ({said})")),
                }
            }
            RequestErrorKind::NoResponders => Trouble::NoStream,
            _ => Trouble::Unintelligible(chain(&error)),
        })?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Response::Ok(ack)) => Ok(ack),
            Ok(Response::Err { error }) if is_passing(&error) => Err(Trouble::Unavailable(error)),
            Ok(Response::Err { error }) => Err(Trouble::Refused(error)),
            Err(error) => Err(Trouble::Unintelligible(error.to_string())),
        }
    }

    /// The snapshot as one message, if that fits: measured and made off the runtime's threads,
    /// for exports can be large.
    async fn measured(snapshot: &Snapshot, limit: u64) -> Result<Fit, BoxedError> {
        let snapshot = snapshot.clone();
        let made = tokio::task::spawn_blocking(move || Message::whole(&snapshot, limit));
        Ok(made.await??)
    }

    /// The size limit in force and whose it is.
    fn limit(&self, target: &Target) -> (u64, String) {
        let server = self.link.client().max_payload() as u64;
        match target.max_message_size {
            Some(stream) if stream < server => {
                (stream, format!("the stream {} (max_msg_size)", target.name))
            }
            _ => (server, "the NATS server (max_payload)".to_owned()),
        }
    }
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

impl fmt::Debug for JetStreamSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStreamSink")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SnapshotSink for JetStreamSink {
    /// The chain of the error is the reason to show to an operator.
    async fn ready(&self) -> Result<(), SinkError> {
        let operation = "prepare publishing to config.snapshot.create.*";
        let away = |away| Self::unavailable(operation, away);
        self.link.require().map_err(away)?;
        let target = self.target().await;
        let target = target.map_err(|error| Self::unavailable(operation, error))?;
        let Some(size) = self.known().full else {
            return Ok(());
        };
        // It was full the last time; somebody may have made room.
        let state = stream::state(&self.context, &target.name);
        let state = self.link.while_connected(state).await.map_err(away)?;
        let state = state.map_err(|trouble| Self::unavailable(operation, chain(&trouble)));
        let (config, state) = state?;
        if let Some(full) = stream::fullness(&config, &state, size) {
            return Err(Self::unavailable(operation, full));
        }
        self.known().full = None;
        Ok(())
    }

    async fn deliver(&self, snapshot: &Snapshot) -> Result<(), SinkError> {
        let operation = || format!("publish the snapshot of device {}", snapshot.device);
        let unavailable = |error: BoxedError| Self::unavailable(operation(), error);
        self.link
            .require()
            .map_err(|away| unavailable(away.into()))?;
        let (mut tries, mut looked) = (0, false);
        loop {
            tries += 1;
            let target = self.target().await;
            let target = target.map_err(|error| unavailable(error.into()))?;
            let (limit, whose) = self.limit(&target);
            let fit = Self::measured(snapshot, limit).await;
            let message = match fit.map_err(|error| Self::refused(operation(), error))? {
                Fit::Whole(message) => message,
                // Somebody may have raised the limit since it was asked for.
                Fit::TooLarge(_) if !std::mem::replace(&mut looked, true) => {
                    self.known().target = None;
                    continue;
                }
                Fit::TooLarge(size) => {
                    tracing::debug!(size_bytes = size, limit, "Too large for {whose}");
                    let kept = self.keep_text(snapshot, &target).await;
                    let reference = kept.map_err(|trouble| {
                        let operation = format!(
                            "keep the text of device {} in the object store, for it is too large \
                             for one message",
                            snapshot.device
                        );
                        match trouble {
                            Trouble::Away(away) => Self::unavailable(operation, away),
                            // Small ones need no object store.
                            trouble => SinkError::NoRoom {
                                sink: SINK,
                                operation,
                                source: chain(&trouble).into(),
                            },
                        }
                    })?;
                    let message = Message::referring(snapshot, reference);
                    message.map_err(|error| Self::refused(operation(), error))?
                }
            };
            if message.size > limit {
                let size = message.size;
                return Err(Self::refused(
                    operation(),
                    format!(
                        "even without its text the message has {size} bytes, and {whose} allows \
                         {limit}; raise it above {size}"
                    ),
                ));
            }
            match self.publish(&message).await {
                Ok(ack) => {
                    self.known().full = None;
                    tracing::debug!(
                        stream = ack.stream,
                        sequence = ack.sequence,
                        duplicate = ack.duplicate,
                        size_bytes = message.size,
                        "JetStream has the snapshot"
                    );
                    return Ok(());
                }
                // The stream was removed since it was found: look, or create it, once more.
                Err(Trouble::NoStream) if tries <= 2 => self.known().target = None,
                // Its limit was lowered since: look once more, to keep to it.
                Err(Trouble::Refused(error))
                    if error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
                        && !std::mem::replace(&mut looked, true) =>
                {
                    self.known().target = None;
                }
                Err(Trouble::Refused(error)) => return Err(Self::refused(operation(), error)),
                Err(trouble) => {
                    if let Trouble::Unavailable(error) = &trouble
                        && error.error_code() == ErrorCode::STREAM_STORE_FAILED
                    {
                        self.known().full = Some(message.size);
                    }
                    return Err(unavailable(trouble.into()));
                }
            }
        }
    }

    async fn has(&self, snapshot: &Snapshot, age: Duration) -> Result<bool, SinkError> {
        self.look_for(snapshot, age).await
    }

    async fn came_back(&self) {
        let connection = self
            .link
            .newer_than(self.told.load(Ordering::Relaxed))
            .await;
        self.told.store(connection, Ordering::Relaxed);
        self.blind.store(false, Ordering::Relaxed);
    }
}

/// Whether the error says something about the moment (full, no leader, out of resources) and
/// not about the message. Codes: `nats-server/server/errors.json`.
fn is_passing(error: &async_nats::jetstream::Error) -> bool {
    match error.error_code() {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => false,
        ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES => true,
        _ => error.code() >= 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_moment_and_errors_of_the_message_are_told_apart() {
        for (code, err_code, passing) in [
            (503, 10077, true),  // maximum bytes exceeded
            (503, 10008, true),  // system temporarily unavailable
            (500, 10047, true),  // insufficient storage resources
            (400, 10002, true),  // account limit
            (400, 10054, false), // message size exceeds maximum allowed
            (400, 10060, false), // expected stream does not match
        ] {
            let error = serde_json::json!({ "code": code, "err_code": err_code });
            let error = serde_json::from_value(error).expect("an error");
            assert_eq!(is_passing(&error), passing, "{error}");
        }
    }
}
