//! Which stream takes the snapshots: one that covers the subject is used as it is, else one is
//! created.

use std::time::Duration;

use async_nats::jetstream::context::{RequestError, RequestErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, RetentionPolicy, State, StorageType,
};
use async_nats::jetstream::{Context, ErrorCode};
use serde::Deserialize;
use serde_json::json;

use super::Settings;
use super::choice::{COVERED, Choice, NARROW, WHOLE, choose, takes_all};

/// The name of a stream of ours.
pub(super) const OURS: &str = "CONFIG_SNAPSHOTS";

const MAX_AGE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
const DUPLICATE_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// The stream that takes the snapshots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    /// Its name.
    pub(super) name: String,
    /// The largest message that it takes, in bytes, headers included; `None` is unlimited.
    pub(super) max_message_size: Option<u64>,
    /// How long it keeps a message; zero is for ever.
    pub(super) max_age: Duration,
    /// Whether it also takes subjects with more tokens than a device's.
    pub(super) deep: bool,
}

/// Why there is no stream to publish to.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamTrouble {
    /// JetStream did not answer, or not usefully.
    #[error("asking JetStream ({request}) failed: {source}{hint}")]
    Request {
        request: String,
        source: RequestError,
        hint: &'static str,
    },
    /// JetStream answered with an error.
    #[error("JetStream refused {request}: {said}{remedy}")]
    Api {
        request: String,
        said: async_nats::jetstream::Error,
        remedy: String,
    },
    /// Streams take single devices, which can neither be used for all nor be overlapped.
    #[error(
        "the streams {streams} take a part of {COVERED}, but none takes all of it; extend one of \
         them to {NARROW}, or remove that part"
    )]
    Partial { streams: String },
    /// A covering stream that never acknowledges.
    #[error(
        "the stream {name} has no_ack set, so no snapshot would ever count as delivered; switch it \
         off (nats stream edit {name})"
    )]
    NoAck { name: String },
}

/// Finds the stream, or creates it. Never changes one that exists.
pub(super) async fn find_or_create(
    context: &Context,
    settings: &Settings,
) -> Result<Target, StreamTrouble> {
    let mut rounds = 0;
    loop {
        rounds += 1;
        let present = overlapping(context).await?;
        let subject = match choose(&present) {
            Choice::Use(config) if config.no_ack => {
                let name = config.name.clone();
                return Err(StreamTrouble::NoAck { name });
            }
            Choice::Use(config) => return Ok(target(config)),
            Choice::Create(subject) => subject,
            Choice::Partial(names) => {
                let streams = names.join(", ");
                return Err(StreamTrouble::Partial { streams });
            }
        };
        let config = ours(subject, settings);
        let request = format!("STREAM.CREATE.{OURS}");
        match ask::<Info>(context, &request, &config).await? {
            Ok(info) => {
                tracing::info!(
                    stream = OURS,
                    subject,
                    max_bytes = settings.stream_max_bytes,
                    replicas = settings.stream_replicas,
                    "Created the stream {OURS}"
                );
                return Ok(target(&info.config));
            }
            // Another replica, or an operator, was faster: look again at what is there now.
            Err(said) if rounds == 1 && collides(said.error_code()) => {}
            Err(said) => {
                let remedy = remedy(&said, settings);
                return Err(StreamTrouble::Api {
                    request,
                    said,
                    remedy,
                });
            }
        }
    }
}

/// What the stream holds now, and its limits.
pub(super) async fn state(context: &Context, name: &str) -> Result<(Config, State), StreamTrouble> {
    let request = format!("STREAM.INFO.{name}");
    let remedy = String::new();
    match ask::<Info>(context, &request, &()).await? {
        Ok(info) => Ok((info.config, info.state)),
        Err(said) => Err(StreamTrouble::Api {
            request,
            said,
            remedy,
        }),
    }
}

/// Why a message of `size` bytes finds no room, or `None` if there is some.
pub(super) fn fullness(config: &Config, state: &State, size: u64) -> Option<String> {
    let name = &config.name;
    if config.discard != DiscardPolicy::New {
        return None;
    }
    let limit = u64::try_from(config.max_bytes)
        .ok()
        .filter(|limit| *limit > 0);
    if let Some(limit) = limit
        && state.bytes.saturating_add(size) > limit
    {
        let bytes = state.bytes;
        return Some(format!(
            "the stream {name} is full: {bytes} of {limit} bytes, {size} needed; raise its \
             max_bytes (nats stream edit {name} --max-bytes …) or purge it"
        ));
    }
    let limit = u64::try_from(config.max_messages)
        .ok()
        .filter(|limit| *limit > 0);
    if let Some(limit) = limit
        && state.messages >= limit
    {
        return Some(format!(
            "the stream {name} is full: it holds {limit} messages; raise its max_msgs (nats \
             stream edit {name} --max-msgs …) or purge it"
        ));
    }
    None
}

fn target(config: &Config) -> Target {
    let limit = u64::try_from(config.max_message_size).ok();
    Target {
        name: config.name.clone(),
        max_message_size: limit.filter(|limit| *limit > 0),
        max_age: config.max_age,
        deep: takes_all(config),
    }
}

fn ours(subject: &str, settings: &Settings) -> Config {
    Config {
        name: OURS.to_owned(),
        description: Some("RouterOS configuration snapshots".to_owned()),
        subjects: vec![subject.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_age: MAX_AGE,
        max_bytes: i64::try_from(settings.stream_max_bytes).unwrap_or(i64::MAX),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        num_replicas: settings.stream_replicas,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    }
}

fn collides(code: ErrorCode) -> bool {
    code == ErrorCode::STREAM_NAME_EXIST || code == ErrorCode::STREAM_SUBJECT_OVERLAP
}

pub(super) fn remedy(said: &async_nats::jetstream::Error, settings: &Settings) -> String {
    match said.error_code() {
        ErrorCode::STREAM_NAME_EXIST => format!(
            "; a stream of that name exists but does not take {COVERED}: add {NARROW} to it"
        ),
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED | ErrorCode::CLUSTER_NO_PEERS => format!(
            "; NATS_STREAM_REPLICAS is {}: lower it to what the cluster can place",
            settings.stream_replicas
        ),
        ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => too_much(settings),
        // "maximum bytes" limits of the account come under a generic code.
        _ if said.to_string().contains("bytes") || said.to_string().contains("storage") => {
            too_much(settings)
        }
        _ => String::new(),
    }
}

fn too_much(settings: &Settings) -> String {
    format!(
        "; NATS_STREAM_MAX_BYTES is {}: lower it, or raise what the server (max_file_store) or \
         the account allows",
        settings.stream_max_bytes
    )
}

#[derive(Deserialize)]
struct Names {
    total: usize,
    streams: Option<Vec<String>>,
}

/// Every stream that takes a part of [`WHOLE`].
async fn overlapping(context: &Context) -> Result<Vec<Config>, StreamTrouble> {
    let mut configs = Vec::new();
    let mut seen = 0;
    loop {
        let request = "STREAM.NAMES".to_owned();
        let page = json!({ "subject": WHOLE, "offset": seen });
        let names = match ask::<Names>(context, &request, &page).await? {
            Ok(names) => names,
            Err(said) => {
                let remedy = String::new();
                return Err(StreamTrouble::Api {
                    request,
                    said,
                    remedy,
                });
            }
        };
        let page = names.streams.unwrap_or_default();
        seen += page.len();
        let last = page.is_empty() || seen >= names.total;
        for name in page {
            match state(context, &name).await {
                Ok((config, _)) => configs.push(config),
                // Deleted since it was listed.
                Err(StreamTrouble::Api { said, .. })
                    if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
                Err(trouble) => return Err(trouble),
            }
        }
        if last {
            return Ok(configs);
        }
    }
}

pub(super) async fn ask<T: serde::de::DeserializeOwned>(
    context: &Context,
    request: &str,
    body: &impl serde::Serialize,
) -> Result<Result<T, async_nats::jetstream::Error>, StreamTrouble> {
    let answer = context.request(request.to_owned(), body).await;
    let answer = answer.map_err(|source| StreamTrouble::Request {
        request: request.to_owned(),
        hint: match source.kind() {
            RequestErrorKind::NoResponders => {
                "; switch JetStream on in the server and for this account"
            }
            RequestErrorKind::TimedOut => {
                "; the server is slow, or this user may not use $JS.API.STREAM.NAMES, .INFO and \
                 .CREATE"
            }
            _ => "",
        },
        source,
    })?;
    Ok(match answer {
        Response::Ok(value) => Ok(value),
        Response::Err { error } => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fullness_counts_bytes_and_messages_of_a_stream_that_refuses() {
        let state = |messages: u64, bytes: u64| -> State {
            serde_json::from_value(json!({
                "messages": messages, "bytes": bytes, "first_seq": 1, "last_seq": messages,
                "first_ts": "2026-01-02T03:04:05Z", "last_ts": "2026-01-02T03:04:05Z",
                "consumer_count": 0
            }))
            .expect("a state")
        };
        let mut config = ours(WHOLE, &Settings::default());
        (config.max_bytes, config.max_messages) = (1000, 3);
        assert_eq!(fullness(&config, &state(2, 900), 100), None);
        assert!(fullness(&config, &state(2, 900), 101).is_some());
        assert!(fullness(&config, &state(3, 0), 1).is_some());
        config.discard = DiscardPolicy::Old;
        assert_eq!(fullness(&config, &state(3, 900), 101), None);
    }
}
