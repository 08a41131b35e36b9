//! Messages as the consumer delivers them, and the ways to settle one.

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::pull;
use futures_util::{FutureExt as _, StreamExt as _};
use std::time::Duration;

use super::arrival::Received;
use super::source::SourceError;
use crate::domain::Timestamp;

/// Messages as they come, until the batch is full or its time is over.
pub struct Batch {
    pub(super) inner: pull::Batch,
    pub(super) stream: String,
    pub(super) first: bool,
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
