//! Snapshots out of JetStream: a durable pull consumer that any number of replicas share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::ContextBuilder;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::Settings;
use super::choice::{COVERED, NARROW};
use super::delivery::Batch;
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
    pub(super) operation: &'static str,
    pub(super) reason: String,
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
