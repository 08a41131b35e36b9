//! Snapshots out of JetStream: a durable pull consumer that any number of replicas share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{AckKind, Context};
use futures_util::{FutureExt as _, StreamExt as _};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::Settings;
use super::arrival::Received;
use super::choice::{COVERED, NARROW};
use super::event::ConfigRef;
use super::link::{InvalidUrl, Link};
use super::objects::{self, Unresolved};
use super::stream::{self, Target};
use crate::domain::Timestamp;
use crate::domain::failure::chain;
use crate::domain::snapshot::ConfigText;

/// The durable consumer.
pub const CONSUMER: &str = "mikrotik-backup-archive";

/// How long the server waits for a sign of life of a message's holder before it gives the message
/// to another one: what a killed replica costs. Its holder says that it is alive every third of it.
const ACK_WAIT: Duration = Duration::from_secs(15);

/// Messages that all replicas together may be busy with.
const MAX_ACK_PENDING: i64 = 1000;

/// Between two signs of life for one message.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// JetStream could not be asked, or has refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("failed to {operation}: {reason}")]
pub struct SourceError {
    operation: &'static str,
    reason: String,
}

/// Reads what [`super::JetStreamSink`] publishes.
///
/// The user needs the right to publish to `$JS.API.STREAM.NAMES`, `$JS.API.STREAM.INFO.*`,
/// `$JS.API.STREAM.MSG.GET.*`, `$JS.API.CONSUMER.INFO.*.mikrotik-backup-archive`,
/// `$JS.API.CONSUMER.MSG.NEXT.*.mikrotik-backup-archive`, `$JS.ACK.*.mikrotik-backup-archive.>`
/// and, where they are not there yet, `$JS.API.STREAM.CREATE.CONFIG_SNAPSHOTS` and
/// `$JS.API.CONSUMER.>`, and to subscribe to `_INBOX.>`.
pub struct SnapshotSource {
    link: Link,
    context: Context,
    settings: Settings,
    /// The consumer, its stream, and the number of the connection over which it was found.
    known: Mutex<Option<(u64, Target, PullConsumer)>>,
    looking: tokio::sync::Mutex<()>,
}

/// What the consumer has before it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Lag {
    /// Messages that nobody has been given yet.
    pub pending: u64,
    /// Messages that somebody was given and has not settled.
    pub unsettled: u64,
    /// Those of them that were given more than once.
    pub redelivered: u64,
    /// When the oldest message that is not settled was published; `None` when there is none, or it
    /// is not known.
    pub oldest: Option<Timestamp>,
}

/// Messages as they come, until the batch is full or its time is over.
pub struct Batch {
    inner: pull::Batch,
    stream: String,
    first: bool,
}

/// A message and the way to settle it.
pub struct Arrival {
    /// What it says.
    pub received: Received,
    /// The stream that it is in.
    pub stream: String,
    /// Its number there.
    pub sequence: u64,
    /// When it was published.
    pub published: Timestamp,
    /// How often it was delivered, this time included.
    pub deliveries: u64,
    message: async_nats::jetstream::Message,
}

impl SnapshotSource {
    /// Begins to connect and returns at once, like [`super::JetStreamSink::connect`].
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

    /// The largest message that the server takes, in bytes.
    pub fn max_message(&self) -> u64 {
        self.link.client().max_payload() as u64
    }

    /// Whether messages can be had now.
    ///
    /// # Errors
    /// Why not, for an operator.
    pub async fn ready(&self) -> Result<(), SourceError> {
        self.reachable()?;
        self.consumer().await.map(drop)
    }

    /// Whether there is a connection now.
    ///
    /// # Errors
    /// Why not, for an operator.
    pub fn reachable(&self) -> Result<(), SourceError> {
        self.link.require().map_err(|away| SourceError {
            operation: "read config.snapshot.create.>",
            reason: away.to_string(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Option<(u64, Target, PullConsumer)>> {
        // Only plain assignments happen under the lock: it cannot be left half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> Option<(Target, PullConsumer)> {
        let known = self.known();
        let (number, target, consumer) = known.as_ref()?;
        (*number == self.link.connects()).then(|| (target.clone(), consumer.clone()))
    }

    /// Forgets what was found: something there has gone.
    pub fn look_again(&self) {
        *self.known() = None;
    }

    /// The consumer, looked for once per connection, created where it is not there, and otherwise
    /// used as it is.
    async fn consumer(&self) -> Result<(Target, PullConsumer), SourceError> {
        if let Some(known) = self.remembered() {
            return Ok(known);
        }
        let _turn = self.looking.lock().await;
        if let Some(known) = self.remembered() {
            return Ok(known);
        }
        let failed = |reason: String| SourceError {
            operation: "find the stream and the consumer of snapshots",
            reason,
        };
        let connection = self.link.connects();
        let looking = async {
            let target = stream::find_or_create(&self.context, &self.settings).await;
            let target = target.map_err(|trouble| failed(chain(&trouble)))?;
            let stream = self.context.get_stream_no_info(&target.name).await;
            let stream = stream.map_err(|error| failed(chain(&error)))?;
            let consumer = stream.get_or_create_consumer(CONSUMER, ours(&target)).await;
            let consumer: PullConsumer = consumer.map_err(|error| {
                failed(format!(
                    "the consumer {CONSUMER} of the stream {}: {}",
                    target.name,
                    chain(&error)
                ))
            })?;
            if consumer.cached_info().config.ack_policy != AckPolicy::Explicit {
                return Err(failed(format!(
                    "the consumer {CONSUMER} of the stream {} does not ask for each message to be \
                     acknowledged, so some would be lost; delete it (nats consumer rm {} \
                     {CONSUMER}), and it is made anew",
                    target.name, target.name
                )));
            }
            Ok((target, consumer))
        };
        let found = self.link.while_connected(looking).await;
        let (target, consumer) = found.map_err(|away| failed(away.to_string()))??;
        tracing::info!(
            stream = target.name,
            consumer = CONSUMER,
            "Reading snapshots from the stream {}",
            target.name
        );
        *self.known() = Some((connection, target.clone(), consumer.clone()));
        Ok((target, consumer))
    }

    /// Asks for at most `messages`, of at most `bytes` in all where that is given, that come within
    /// `patience`. Where the next message alone is larger the batch fails with
    /// [`Batch::next`]'s `None` at once; one of `bytes: None` takes it.
    ///
    /// # Errors
    /// When there is no connection, stream or consumer.
    pub async fn fetch(
        &self,
        messages: usize,
        bytes: Option<usize>,
        patience: Duration,
    ) -> Result<Batch, SourceError> {
        let (target, consumer) = self.consumer().await?;
        let failed = |reason: String| SourceError {
            operation: "ask for snapshots",
            reason,
        };
        let mut batch = consumer.batch().max_messages(messages).expires(patience);
        if let Some(bytes) = bytes {
            batch = batch.max_bytes(bytes);
        }
        let asked = self.link.while_connected(batch.messages()).await;
        let inner = asked.map_err(|away| failed(away.to_string()))?;
        Ok(Batch {
            inner: inner.map_err(|error| failed(chain(&error)))?,
            stream: target.name,
            first: true,
        })
    }

    /// Resolves when the connection is lost, at once if there is none.
    pub async fn lost(&self) {
        let _ = self
            .link
            .while_connected(std::future::pending::<()>())
            .await;
    }

    /// What is before the consumer.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn lag(&self) -> Result<Lag, SourceError> {
        let failed = |reason: String| SourceError {
            operation: "ask how many snapshots wait",
            reason,
        };
        let (target, consumer) = self.consumer().await?;
        let asked = self.link.while_connected(consumer.get_info()).await;
        let info = asked.map_err(|away| failed(away.to_string()))?;
        let info = info.map_err(|error| {
            self.look_again();
            failed(chain(&error))
        })?;
        let unsettled = info.num_ack_pending as u64;
        let oldest = match info.num_pending + unsettled {
            0 => None,
            _ => {
                let after = info.ack_floor.stream_sequence;
                self.published_after(&target, after).await
            }
        };
        Ok(Lag {
            pending: info.num_pending,
            unsettled,
            redelivered: info.num_redelivered as u64,
            oldest,
        })
    }

    /// When the first snapshot after a sequence number was published.
    async fn published_after(&self, target: &Target, sequence: u64) -> Option<Timestamp> {
        #[derive(Deserialize)]
        struct Got {
            message: When,
        }
        #[derive(Deserialize)]
        struct When {
            #[serde(with = "time::serde::rfc3339")]
            time: Timestamp,
        }
        let request = format!("STREAM.MSG.GET.{}", target.name);
        let which = json!({ "seq": sequence + 1, "next_by_subj": filter(target) });
        let asked = stream::ask::<Got>(&self.context, &request, &which);
        match self.link.while_connected(asked).await {
            Ok(Ok(Ok(got))) => Some(got.message.time),
            // Only a number for a graph.
            _ => None,
        }
    }

    /// Reads a text from an object store; one of more than `limit` bytes is refused.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub async fn resolve(
        &self,
        reference: &ConfigRef,
        limit: u64,
    ) -> Result<ConfigText, Unresolved> {
        objects::read(&self.link, &self.context, reference, limit).await
    }
}

impl Batch {
    /// The next message; `None` when the batch is over. Cancel safe.
    ///
    /// # Errors
    /// When the batch ended early, before its first message: that one is larger than was asked
    /// for, or the consumer is gone.
    pub async fn next(&mut self) -> Option<Result<Arrival, SourceError>> {
        loop {
            let next = self.inner.next().await?;
            match next {
                Ok(message) => {
                    self.first = false;
                    if let Some(arrival) = arrival(message, &self.stream) {
                        return Some(Ok(arrival));
                    }
                }
                // Once there were some, the rest did not fit, or the server goes away: both show
                // with the next batch.
                Err(_) if !self.first => return None,
                Err(error) => {
                    return Some(Err(SourceError {
                        operation: "receive snapshots",
                        reason: error.to_string(),
                    }));
                }
            }
        }
    }

    /// What has been received and nobody has looked at yet.
    pub fn rest(&mut self) -> Vec<Arrival> {
        let mut rest = Vec::new();
        while let Some(Some(Ok(arrival))) = self.next().now_or_never() {
            rest.push(arrival);
        }
        rest
    }
}

fn arrival(message: async_nats::jetstream::Message, stream: &str) -> Option<Arrival> {
    let info = match message.info() {
        Ok(info) => info,
        Err(error) => {
            // Cannot be acknowledged either.
            tracing::warn!(%error, "Ignored a message that JetStream did not deliver");
            return None;
        }
    };
    let (sequence, published) = (info.stream_sequence, info.published);
    let deliveries = u64::try_from(info.delivered).unwrap_or_default();
    let id = message.headers.as_ref().and_then(|headers| {
        let id = headers.get(async_nats::header::NATS_MESSAGE_ID);
        id.map(|id| id.as_str().to_owned())
    });
    Some(Arrival {
        received: Received {
            subject: message.subject.to_string(),
            message_id: id,
            payload: message.payload.clone(),
        },
        stream: stream.to_owned(),
        sequence,
        published,
        deliveries,
        message,
    })
}

impl Arrival {
    /// Says that it is stored.
    pub async fn done(&self) {
        self.say(AckKind::Ack).await;
    }

    /// Says that it is being worked on.
    pub async fn alive(&self) {
        self.say(AckKind::Progress).await;
    }

    /// Gives it back, to be delivered again after `delay`.
    pub async fn later(&self, delay: Duration) {
        self.say(AckKind::Nak(Some(delay))).await;
    }

    /// Says that it is never to be delivered again.
    pub async fn never(&self) {
        self.say(AckKind::Term).await;
    }

    /// An answer that is lost costs a delivery more, nothing else.
    async fn say(&self, kind: AckKind) {
        if let Err(error) = self.message.ack_with(kind).await {
            tracing::debug!(%error, sequence = self.sequence, "Could not settle a message");
        }
    }
}

/// Everything below the subjects of snapshots, as far as the stream takes it.
fn filter(target: &Target) -> &'static str {
    if target.deep { NARROW } else { COVERED }
}

fn ours(target: &Target) -> pull::Config {
    pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        description: Some("the archive role of mikrotik-backup".to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        // For ever: what cannot be stored is set aside by us, with its reason.
        max_deliver: -1,
        filter_subject: filter(target).to_owned(),
        max_ack_pending: MAX_ACK_PENDING,
        ..pull::Config::default()
    }
}
