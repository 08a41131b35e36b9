//! The bucket for texts that are too large for one message: found, or created within bounds.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};

use super::super::stream::{StreamTrouble, Target, ask, remedy};
use super::super::{JetStreamSink, Settings, Trouble};
use super::{BUCKET, CHUNK, CHUNK_ROOM, MARGIN, stream_of};

/// The window in which the server recognises repeated messages: NATS's own default.
const DUPLICATES: Duration = Duration::from_secs(120);

impl JetStreamSink {
    /// The bucket's stream; ours is made at the first need of it, one that exists is used as it is.
    pub(super) async fn bucket(&self, target: &Target) -> Result<Config, Trouble> {
        let name = stream_of(BUCKET);
        let request = format!("STREAM.INFO.{name}");
        let mut rounds = 0;
        let mut max_bytes = self.settings.stream_max_bytes;
        let config = loop {
            rounds += 1;
            let asked = ask::<Info>(&self.context, &request, &());
            match self.link.while_connected(asked).await?? {
                Ok(info) => break info.config,
                Err(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
                Err(said) => return Err(Trouble::Unavailable(said)),
            }
            let request = format!("STREAM.CREATE.{name}");
            let config = ours(&self.settings, max_bytes, target.max_age);
            let asked = ask::<Info>(&self.context, &request, &config);
            match self.link.while_connected(asked).await?? {
                Ok(info) => {
                    tracing::info!(
                        bucket = BUCKET,
                        max_bytes,
                        max_age_s = info.config.max_age.as_secs(),
                        "Created the object store {BUCKET} for texts that are too large for one \
                         message"
                    );
                    break info.config;
                }
                // The server sets aside what a stream may need, and has done so for the events.
                Err(said) if lacks_room(&said) && max_bytes > self.smallest_bucket() => {
                    max_bytes /= 2;
                }
                // Another replica was faster.
                Err(said) if rounds <= 2 && said.error_code() == ErrorCode::STREAM_NAME_EXIST => {}
                Err(said) => {
                    return Err(Trouble::Stream(StreamTrouble::Api {
                        remedy: remedy(&said, &self.settings),
                        request,
                        said,
                    }));
                }
            }
        };
        if let Some(doubt) = doubt(&config, target.max_age) {
            tracing::warn!(bucket = BUCKET, "The object store {BUCKET} {doubt}");
        }
        Ok(config)
    }

    /// The size, in bytes, below which a bucket is not created.
    fn smallest_bucket(&self) -> u64 {
        self.settings.stream_max_bytes / 16
    }

    /// The size of a chunk under the limits of server and bucket.
    pub(super) fn chunk_size(&self, bucket: &Config) -> usize {
        let server = self.link.client().max_payload() as u64;
        let stream = u64::try_from(bucket.max_message_size).ok();
        let limit = stream.filter(|limit| *limit > 0).unwrap_or(u64::MAX);
        let limit = limit.min(server);
        let room = CHUNK_ROOM.min(limit / 4);
        usize::try_from(CHUNK.min(limit - room)).unwrap_or(1)
    }
}

/// What an operator should know of a bucket that is used as it is.
fn doubt(config: &Config, stream_age: Duration) -> Option<&'static str> {
    let forever = Duration::ZERO;
    if config.max_age != forever && (stream_age == forever || config.max_age < stream_age) {
        Some(
            "keeps objects for less time than the stream keeps the events that refer to them; \
             raise its max_age (nats stream edit OBJ_CONFIG_SNAPSHOTS --max-age …)",
        )
    } else if config.discard != DiscardPolicy::New {
        Some(
            "drops old objects when it is full, while events still refer to them; let it refuse \
             new ones (nats stream edit OBJ_CONFIG_SNAPSHOTS --discard new)",
        )
    } else {
        None
    }
}

fn lacks_room(said: &async_nats::jetstream::Error) -> bool {
    let code = said.error_code();
    code == ErrorCode::STORAGE_RESOURCES_EXCEEDED
        || code == ErrorCode::INSUFFICIENT_RESOURCES
        || code == ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
}

fn ours(settings: &Settings, max_bytes: u64, stream_age: Duration) -> Config {
    let max_age = match stream_age {
        Duration::ZERO => Duration::ZERO,
        age => age + MARGIN,
    };
    Config {
        name: stream_of(BUCKET),
        description: Some("RouterOS configurations too large for one message".to_owned()),
        subjects: vec![format!("$O.{BUCKET}.C.>"), format!("$O.{BUCKET}.M.>")],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_age,
        max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        num_replicas: settings.stream_replicas,
        duplicate_window: DUPLICATES,
        allow_rollup: true,
        allow_direct: true,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_outlives_its_event() {
        let settings = Settings::default();
        let day = Duration::from_secs(86_400);
        assert!(ours(&settings, 1, day * 90).max_age > day * 90);
        assert_eq!(ours(&settings, 1, Duration::ZERO).max_age, Duration::ZERO);
        for (age, stream, fine) in [
            (0, 0, true),
            (0, 90, true),
            (90, 90, true),
            (91, 90, true),
            (89, 90, false),
            (91, 0, false),
        ] {
            let config = Config {
                max_age: day * age,
                discard: DiscardPolicy::New,
                ..Config::default()
            };
            assert_eq!(
                doubt(&config, day * stream).is_none(),
                fine,
                "{age} {stream}"
            );
        }
    }
}
