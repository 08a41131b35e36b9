//! Texts that are too large for one message: kept in a JetStream object store, read from it.
//!
//! The layout is that of every NATS client (ADR-20 of nats-architecture-and-design): a bucket is a
//! stream `OBJ_{bucket}`, a text lies in chunks on `$O.{bucket}.C.{id}`, and one message on
//! `$O.{bucket}.M.{name}` describes it. The name is device and attempt, so that an attempt that is
//! delivered again finds its text, and the id begins with the attempt, so that what an interrupted
//! upload left behind is found and removed.

mod bucket;
mod reading;

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_ROLLUP;
use async_nats::jetstream::{Context, ErrorCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::event::ConfigRef;
use super::message::Message;
use super::stream::{StreamTrouble, Target, ask};
use super::{JetStreamSink, Trouble};
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::domain::digest::Digest;
use crate::domain::failure::chain;
use crate::domain::snapshot::Snapshot;

pub use reading::Unresolved;
pub(super) use reading::read;

/// The bucket of ours.
pub(super) const BUCKET: &str = "CONFIG_SNAPSHOTS";

/// The size of a chunk where the limits allow it: what other clients use.
const CHUNK: u64 = 128 * 1024;
/// What a chunk may need beside its bytes.
const CHUNK_ROOM: u64 = 512;

/// An object lives so much longer than the stream keeps its event. One that is found there is used
/// again while it is younger than this, so that it never goes before the event that refers to it.
const MARGIN: Duration = Duration::from_secs(24 * 60 * 60);

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
