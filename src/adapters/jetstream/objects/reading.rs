//! A text out of an object store: bounded, whole, and the one that the event means.

use async_nats::jetstream::{Context, ErrorCode};
use serde_json::json;

use super::super::event::ConfigRef;
use super::super::link::Link;
use super::super::stream::StreamTrouble;
use super::{message, meta};
use crate::domain::digest::Digest;
use crate::domain::failure::chain;
use crate::domain::snapshot::ConfigText;

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

/// Reads the text that `reference` names; one of more than `limit` bytes is refused unread.
pub(in super::super) async fn read(
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
