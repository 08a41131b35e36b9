//! Texts that are too large for one message: kept in a JetStream object store, read from it.
//!
//! The layout is that of every NATS client (ADR-20 of nats-architecture-and-design): a bucket is a
//! stream `OBJ_{bucket}`, a text lies in chunks on `$O.{bucket}.C.{id}`, and one message on
//! `$O.{bucket}.M.{name}` describes it. The name is device and attempt, so that an attempt that is
//! delivered again finds its text, and the id begins with the attempt, so that what an interrupted
//! upload left behind is found and removed.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_ROLLUP;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::event::ConfigRef;
use super::link::Link;
use super::message::Message;
use super::stream::{StreamTrouble, Target, ask};
use super::{JetStreamSink, Trouble};
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::domain::digest::Digest;
use crate::domain::failure::chain;
use crate::domain::snapshot::{ConfigText, Snapshot};

/// The bucket of ours.
pub(super) const BUCKET: &str = "CONFIG_SNAPSHOTS";

/// The size of a chunk where the limits allow it: what other clients use.
const CHUNK: u64 = 128 * 1024;
/// What a chunk may need beside its bytes.
const CHUNK_ROOM: u64 = 512;

/// An object lives so much longer than the stream keeps its event. One that is found there is used
/// again while it is younger than this, so that it never goes before the event that refers to it.
const MARGIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The window in which the server recognises repeated messages: NATS's own default.
const DUPLICATES: Duration = Duration::from_secs(120);

/// Why the text that an event refers to is not there.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// JetStream did not answer: later it may.
    #[error("the object store could not be asked: {0}")]
    Away(String),
    /// It is not there, or not what the event says.
    #[error("{0}")]
    Bad(String),
}

/// What describes an object.
#[derive(Serialize, Deserialize)]
struct Meta {
    name: String,
    bucket: String,
    nuid: String,
    size: u64,
    chunks: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default)]
    deleted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<serde_json::Value>,
    /// For people and other clients.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    mtime: String,
}

/// The answer to `STREAM.MSG.GET`.
#[derive(Deserialize)]
struct Got {
    message: Raw,
}

#[derive(Deserialize)]
struct Raw {
    seq: u64,
    #[serde(default)]
    data: String,
    #[serde(with = "time::serde::rfc3339")]
    time: Timestamp,
}

/// How many messages a stream has on which subject.
#[derive(Deserialize)]
struct Subjects {
    state: SubjectState,
}

#[derive(Deserialize)]
struct SubjectState {
    #[serde(default)]
    subjects: BTreeMap<String, u64>,
}

fn digest_text(digest: &Digest) -> String {
    format!("SHA-256={}", URL_SAFE.encode(digest.as_bytes()))
}

fn stream_of(bucket: &str) -> String {
    format!("OBJ_{bucket}")
}

fn meta_subject(bucket: &str, object: &str) -> String {
    format!("$O.{bucket}.M.{}", URL_SAFE.encode(object))
}

/// A message of a stream, or `None` if there is none. Answered by the stream's leader, so what was
/// acknowledged is found.
async fn message(
    context: &Context,
    bucket: &str,
    which: serde_json::Value,
) -> Result<Option<(Raw, Bytes)>, StreamTrouble> {
    let request = format!("STREAM.MSG.GET.{}", stream_of(bucket));
    match ask::<Got>(context, &request, &which).await? {
        Ok(got) => {
            let data = STANDARD.decode(&got.message.data).unwrap_or_default();
            Ok(Some((got.message, data.into())))
        }
        Err(said) if said.code() == 404 && said.error_code() != ErrorCode::STREAM_NOT_FOUND => {
            Ok(None)
        }
        Err(said) => Err(StreamTrouble::Api {
            request,
            said,
            remedy: String::new(),
        }),
    }
}

async fn meta(
    context: &Context,
    bucket: &str,
    object: &str,
) -> Result<Option<(Meta, Timestamp)>, StreamTrouble> {
    let which = json!({ "last_by_subj": meta_subject(bucket, object) });
    let found = message(context, bucket, which).await?;
    Ok(found.and_then(|(raw, data)| {
        let meta: Meta = serde_json::from_slice(&data).ok()?;
        (!meta.deleted).then_some((meta, raw.time))
    }))
}

/// Reads the text that `reference` names; one of more than `limit` bytes is refused unread.
pub(super) async fn read(
    link: &Link,
    context: &Context,
    reference: &ConfigRef,
    limit: u64,
) -> Result<ConfigText, Unresolved> {
    let ConfigRef {
        bucket,
        object,
        size,
        sha256,
    } = reference;
    let bad = |text: String| Unresolved::Bad(text);
    let here = format!("object {object:?} of bucket {bucket:?}");
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if bucket.is_empty() || !bucket.chars().all(plain) || object.len() > 1024 {
        return Err(bad(format!("{here}: there can be no such names")));
    }
    if *size > limit {
        return Err(bad(format!(
            "{here} is said to have {size} bytes, and at most {limit} are taken; raise \
             CONFIG_BACKUP_MAX_EXPORT_BYTES and try it again"
        )));
    }
    let found = link.while_connected(meta(context, bucket, object)).await;
    let found = found.map_err(|away| Unresolved::Away(away.to_string()))?;
    let Some((meta, _)) = found.map_err(unresolved)? else {
        return Err(bad(format!(
            "{here} is not there: it has expired, or was deleted, or never arrived"
        )));
    };
    if meta.size != *size {
        return Err(bad(format!(
            "{here} has {} bytes, and the event says {size}",
            meta.size
        )));
    }
    let mut text = Vec::with_capacity(usize::try_from(*size).unwrap_or_default());
    let mut next = 1;
    while (text.len() as u64) < *size {
        let subject = format!("$O.{bucket}.C.{}", meta.nuid);
        let which = json!({ "seq": next, "next_by_subj": subject });
        let chunk = link.while_connected(message(context, bucket, which)).await;
        let chunk = chunk.map_err(|away| Unresolved::Away(away.to_string()))?;
        let Some((raw, data)) = chunk.map_err(unresolved)? else {
            let there = text.len();
            return Err(bad(format!("{here}: {there} of {size} bytes are there")));
        };
        next = raw.seq + 1;
        text.extend_from_slice(&data);
    }
    let (size, sha256) = (*size, *sha256);
    // Hashing a large text takes long: off the runtime's threads.
    let checked = tokio::task::spawn_blocking(move || {
        if text.len() as u64 != size || Digest::of(&text) != sha256 {
            return Err("its SHA-256 is not the one of the event");
        }
        String::from_utf8(text)
            .map(ConfigText::new)
            .map_err(|_| "it is not UTF-8")
    });
    match checked.await {
        Ok(checked) => checked.map_err(|why| bad(format!("{here}: {why}"))),
        Err(error) => Err(Unresolved::Away(error.to_string())),
    }
}

fn unresolved(trouble: StreamTrouble) -> Unresolved {
    match &trouble {
        StreamTrouble::Api { said, .. } if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            Unresolved::Bad(format!("there is no such bucket ({})", chain(&trouble)))
        }
        _ => Unresolved::Away(chain(&trouble)),
    }
}

impl JetStreamSink {
    /// Keeps the text of `snapshot` in the bucket, and tells where. A text of this attempt that is
    /// there already is used.
    pub(super) async fn keep_text(
        &self,
        snapshot: &Snapshot,
        target: &Target,
    ) -> Result<ConfigRef, Trouble> {
        let bucket = self.bucket(target).await?;
        let object = format!("{}/{}", snapshot.device, snapshot.attempt);
        let reference = ConfigRef {
            bucket: BUCKET.to_owned(),
            object: object.clone(),
            size: snapshot.text.expose().len() as u64,
            sha256: snapshot.hash,
        };
        let (context, link) = (&self.context, &self.link);
        let present = link.while_connected(meta(context, BUCKET, &object)).await?;
        if let Some((meta, at)) = present?
            && meta.size == reference.size
            && meta.digest.as_deref() == Some(digest_text(&snapshot.hash).as_str())
            && Clock::System.now() - at < MARGIN
            && self.chunks(snapshot).await?.get(&chunk_subject(&meta.nuid)) == Some(&meta.chunks)
        {
            return Ok(reference);
        }
        let nuid = format!("{}.{}", snapshot.attempt, Uuid::new_v4().simple());
        let upload = Upload {
            context: context.clone(),
            subject: Some(chunk_subject(&nuid)),
        };
        let size = self.chunk_size(&bucket);
        let meta = self.upload(snapshot, &object, &nuid, size).await?;
        self.settle(snapshot, &meta).await?;
        upload.done();
        tracing::debug!(
            device.id = %snapshot.device,
            size_bytes = reference.size,
            chunks = meta.chunks,
            object,
            "The text is in the object store"
        );
        Ok(reference)
    }

    /// Publishes the chunks and what describes them.
    async fn upload(
        &self,
        snapshot: &Snapshot,
        object: &str,
        nuid: &str,
        chunk: usize,
    ) -> Result<Meta, Trouble> {
        let subject = chunk_subject(nuid);
        let mut chunks = 0;
        for part in snapshot.text.expose().as_bytes().chunks(chunk.max(1)) {
            let payload = Bytes::copy_from_slice(part);
            self.publish(&plain(subject.clone(), None, payload)).await?;
            chunks += 1;
        }
        let meta = Meta {
            name: object.to_owned(),
            bucket: BUCKET.to_owned(),
            nuid: nuid.to_owned(),
            size: snapshot.text.expose().len() as u64,
            chunks,
            digest: Some(digest_text(&snapshot.hash)),
            deleted: false,
            options: Some(json!({ "max_chunk_size": chunk })),
            mtime: Clock::System.now().format(&Rfc3339).unwrap_or_default(),
        };
        let payload = serde_json::to_vec(&meta);
        let payload = payload.map_err(|error| Trouble::Unintelligible(error.to_string()))?;
        let mut headers = HeaderMap::new();
        // Takes the place of what described an earlier upload.
        headers.insert(NATS_ROLLUP, "sub");
        let subject = meta_subject(BUCKET, object);
        self.publish(&plain(subject, Some(headers), payload.into()))
            .await?;
        Ok(meta)
    }

    /// Makes sure that every chunk is there, and removes what other tries of the attempt left.
    async fn settle(&self, snapshot: &Snapshot, meta: &Meta) -> Result<(), Trouble> {
        let ours = chunk_subject(&meta.nuid);
        let there = self.chunks(snapshot).await?;
        if there.get(&ours) != Some(&meta.chunks) {
            return Err(Trouble::Unintelligible(
                "another delivery of the same attempt has removed the text meanwhile".to_owned(),
            ));
        }
        for left in there.into_keys().filter(|subject| *subject != ours) {
            purge(&self.context, &left).await;
        }
        Ok(())
    }

    /// The chunks of all tries of an attempt.
    async fn chunks(&self, snapshot: &Snapshot) -> Result<BTreeMap<String, u64>, Trouble> {
        let request = format!("STREAM.INFO.{}", stream_of(BUCKET));
        let filter = format!("{}.*", chunk_subject(&snapshot.attempt.to_string()));
        let filter = json!({ "subjects_filter": filter });
        let asked = ask::<Subjects>(&self.context, &request, &filter);
        match self.link.while_connected(asked).await?? {
            Ok(found) => Ok(found.state.subjects),
            Err(said) => Err(Trouble::Unavailable(said)),
        }
    }

    /// The bucket's stream; ours is made at the first need of it, one that exists is used as it is.
    async fn bucket(&self, target: &Target) -> Result<Config, Trouble> {
        let name = stream_of(BUCKET);
        let request = format!("STREAM.INFO.{name}");
        let mut rounds = 0;
        let config = loop {
            rounds += 1;
            let asked = ask::<Info>(&self.context, &request, &());
            match self.link.while_connected(asked).await?? {
                Ok(info) => break info.config,
                Err(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
                Err(said) => return Err(Trouble::Unavailable(said)),
            }
            let request = format!("STREAM.CREATE.{name}");
            let config = ours(&self.settings, target.max_age);
            let asked = ask::<Info>(&self.context, &request, &config);
            match self.link.while_connected(asked).await?? {
                Ok(info) => {
                    tracing::info!(
                        bucket = BUCKET,
                        max_bytes = self.settings.stream_max_bytes,
                        max_age_s = info.config.max_age.as_secs(),
                        "Created the object store {BUCKET} for texts that are too large for one \
                         message"
                    );
                    break info.config;
                }
                // Another replica was faster.
                Err(said) if rounds == 1 && said.error_code() == ErrorCode::STREAM_NAME_EXIST => {}
                Err(said) => {
                    return Err(Trouble::Stream(StreamTrouble::Api {
                        remedy: super::stream::remedy(&said, &self.settings),
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

    /// The size of a chunk under the limits of server and bucket.
    fn chunk_size(&self, bucket: &Config) -> usize {
        let server = self.link.client().max_payload() as u64;
        let stream = u64::try_from(bucket.max_message_size).ok();
        let limit = stream.filter(|limit| *limit > 0).unwrap_or(u64::MAX);
        let limit = limit.min(server);
        let room = CHUNK_ROOM.min(limit / 4);
        usize::try_from(CHUNK.min(limit - room)).unwrap_or(1)
    }
}

fn chunk_subject(nuid: &str) -> String {
    format!("$O.{BUCKET}.C.{nuid}")
}

fn plain(subject: String, headers: Option<HeaderMap>, payload: Bytes) -> Message {
    Message {
        subject,
        headers,
        size: payload.len() as u64,
        payload,
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

fn ours(settings: &super::Settings, stream_age: Duration) -> Config {
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
        max_bytes: i64::try_from(settings.stream_max_bytes).unwrap_or(i64::MAX),
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

/// Chunks that are removed again unless the upload came to its end; it may be dropped anywhere.
struct Upload {
    context: Context,
    subject: Option<String>,
}

impl Upload {
    fn done(mut self) {
        self.subject = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(subject), Ok(runtime)) =
            (self.subject.take(), tokio::runtime::Handle::try_current())
        {
            let context = self.context.clone();
            runtime.spawn(async move { purge(&context, &subject).await });
        }
    }
}

/// Best effort: what is left is removed by the next delivery of the attempt, or by its age.
async fn purge(context: &Context, subject: &str) {
    let request = format!("STREAM.PURGE.{}", stream_of(BUCKET));
    let purged = ask::<serde_json::Value>(context, &request, &json!({ "filter": subject })).await;
    match purged {
        Ok(Ok(_)) => {}
        Ok(Err(said)) => tracing::debug!(error = %said, "Chunks were not removed"),
        Err(error) => tracing::debug!(error = chain(&error), "Chunks were not removed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_outlives_its_event() {
        let settings = super::super::Settings::default();
        let day = Duration::from_secs(86_400);
        assert!(ours(&settings, day * 90).max_age > day * 90);
        assert_eq!(ours(&settings, Duration::ZERO).max_age, Duration::ZERO);
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
