//! Whether the stream has a snapshot already: asked before one is published that was tried so long
//! ago that the stream may have forgotten its id.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use futures_util::StreamExt as _;

use super::message::subject;
use super::{BoxedError, JetStreamSink, stream};
use crate::domain::failure::chain;
use crate::domain::outbox::must_look;
use crate::domain::snapshot::Snapshot;
use crate::ports::SinkError;

/// Our clock may be off from the server's by this much.
const CLOCKS: Duration = Duration::from_secs(600);
/// How many messages of the device are looked at, from the snapshot's time on. Only their headers
/// are read. At an interval of an hour these are 40 days.
const MOST: u64 = 1000;
/// How long the server keeps the consumer when we vanish.
const FORGET: Duration = Duration::from_secs(30);

impl JetStreamSink {
    /// Whether `snapshot` is in the stream, looked for only where its age makes that necessary.
    pub(super) async fn look_for(
        &self,
        snapshot: &Snapshot,
        age: Duration,
    ) -> Result<bool, SinkError> {
        let operation = || format!("look for attempt {} in the stream", snapshot.attempt);
        let unavailable = |error: BoxedError| Self::unavailable(operation(), error);
        if self.blind.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let target = self.target().await;
        let target = target.map_err(|error| unavailable(error.into()))?;
        let work = async {
            let (config, _) = stream::state(&self.context, &target.name).await?;
            if !must_look(age, config.duplicate_window) {
                return Ok(false);
            }
            self.find(&target.name, snapshot).await
        };
        let found = self.link.while_connected(work).await;
        let found: Result<bool, BoxedError> = found.map_err(|away| unavailable(away.into()))?;
        Ok(found.unwrap_or_else(|error| {
            // Twice is allowed, and never is not. Where a right is missing each look would cost a
            // timeout: there is none until the next connection.
            self.blind.store(true, Ordering::Relaxed);
            tracing::warn!(
                error = chain(error.as_ref()),
                "old snapshots from the outbox cannot be looked for in the stream: they are \
                 published, and may come twice; README of deploy/ lists the rights"
            );
            false
        }))
    }

    async fn find(&self, stream: &str, snapshot: &Snapshot) -> Result<bool, BoxedError> {
        let config = Config {
            deliver_policy: DeliverPolicy::ByStartTime {
                start_time: snapshot.collected_at - CLOCKS,
            },
            filter_subject: subject(snapshot.device),
            headers_only: true,
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGET,
            memory_storage: true,
            ..Config::default()
        };
        let consumer = self
            .context
            .create_consumer_on_stream(config, stream)
            .await?;
        let count = consumer.cached_info().num_pending.min(MOST);
        let wanted = snapshot.attempt.to_string();
        let batch = usize::try_from(count)?;
        if batch == 0 {
            return Ok(false);
        }
        let mut messages = consumer.fetch().max_messages(batch).messages().await?;
        while let Some(message) = messages.next().await {
            let message = message?;
            let id = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(NATS_MESSAGE_ID));
            if id.is_some_and(|id| id.as_str() == wanted) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
