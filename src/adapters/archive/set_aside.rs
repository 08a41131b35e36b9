//! Messages that could not be archived, kept with their reason in PostgreSQL: payloads sealed like
//! the texts of versions, for they may hold passwords.

use std::sync::Arc;

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{FromRow as _, PgPool, Row as _};

use super::error::classify;
use super::postgres::{place, run};
use super::seal::{Sealed, Sealer, Unopened};
use crate::credentials::Key;
use crate::domain::Timestamp;
use crate::ports::ArchiveError;

/// Identifies a message that is set aside.
pub type AsideId = i64;

/// A message that is set aside, without its payload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, sqlx::FromRow)]
pub struct Aside {
    /// Names it for `archive retry`; given by the database.
    pub id: AsideId,
    /// The stream that it came from.
    pub stream: String,
    /// Its number there.
    pub stream_sequence: i64,
    /// When the stream took it.
    #[serde(with = "time::serde::rfc3339")]
    pub published_at: Timestamp,
    /// What it was published to.
    pub subject: String,
    /// Its `Nats-Msg-Id`.
    pub message_id: Option<String>,
    /// The reason in one word.
    pub flaw: String,
    /// The reason in a sentence.
    pub reason: String,
    /// When it was set aside, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub set_aside_at: Timestamp,
    /// How often it was tried.
    pub tries: i32,
    /// The size of its payload in bytes.
    pub bytes: i64,
}

/// The table of what is set aside.
#[derive(Clone)]
pub struct SetAside {
    pool: PgPool,
    sealer: Arc<Sealer>,
}

const PUT: &str = "INSERT INTO mikrotik_backup.archive_set_aside \
     (stream, stream_sequence, published_at, subject, message_id, flaw, reason, bytes, key_id, sealed) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, stream, stream_sequence, published_at, subject, message_id, flaw, reason, \
             set_aside_at, tries, bytes FROM mikrotik_backup.archive_set_aside ",
            $rest
        )
    };
}

const COUNT: &str = "SELECT count(*) FROM mikrotik_backup.archive_set_aside";

const PAGE: &str = select!("WHERE id > $1 ORDER BY id LIMIT $2");

const OPEN: &str = "SELECT id, stream, stream_sequence, published_at, subject, message_id, flaw, \
     reason, set_aside_at, tries, bytes, key_id, sealed FROM mikrotik_backup.archive_set_aside \
     WHERE id = $1";

const TRIED: &str = "UPDATE mikrotik_backup.archive_set_aside SET tries = tries + 1, \
     last_tried_at = now(), flaw = $2, reason = $3 WHERE id = $1";

const REMOVE: &str = "DELETE FROM mikrotik_backup.archive_set_aside WHERE id = $1";

impl SetAside {
    /// What is set aside in schema `mikrotik_backup` of a migrated PostgreSQL, sealed under `key`.
    pub fn new(pool: PgPool, key: Key) -> Self {
        Self {
            pool,
            sealer: Arc::new(Sealer::new(key)),
        }
    }

    fn failed(&self, operation: impl Into<String>) -> impl FnOnce(sqlx::Error) -> ArchiveError {
        let (operation, place) = (operation.into(), place(&self.pool));
        move |error| classify(operation, &place, error)
    }

    /// Sets a message aside; `false` when it is already. `id`, `set_aside_at` and `tries` of
    /// `message` do not count.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`] or [`ArchiveError::Failed`].
    pub async fn put(&self, message: &Aside, payload: bytes::Bytes) -> Result<bool, ArchiveError> {
        let operation = || {
            format!(
                "set message {} of stream {} aside",
                message.stream_sequence, message.stream
            )
        };
        let sealer = Arc::clone(&self.sealer);
        // Off the runtime's threads: messages can be large.
        let sealing =
            tokio::task::spawn_blocking(move || sealer.seal_bytes(rand::random(), &payload));
        let sealed = sealing.await.unwrap_or_else(|error| Err(error.into()));
        let sealed = sealed.map_err(|error| ArchiveError::Failed {
            operation: operation(),
            source: error.into(),
        })?;
        let done = run(&self.pool, async |connection| {
            sqlx::query(PUT)
                .bind(&message.stream)
                .bind(message.stream_sequence)
                .bind(message.published_at)
                .bind(plain(&message.subject))
                .bind(message.message_id.as_deref().map(plain))
                .bind(&message.flaw)
                .bind(plain(&message.reason))
                .bind(message.bytes)
                .bind(&sealed.key_id)
                .bind(&sealed.bytes)
                .execute(connection)
                .await
        });
        let done = done.await.map_err(self.failed(operation()))?;
        Ok(done.rows_affected() > 0)
    }

    /// How many there are.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`] or [`ArchiveError::Failed`].
    pub async fn count(&self) -> Result<u64, ArchiveError> {
        let count = run(&self.pool, async |connection| {
            sqlx::query_scalar::<_, i64>(COUNT)
                .fetch_one(connection)
                .await
        });
        let failed = self.failed("count the messages that are set aside");
        Ok(u64::try_from(count.await.map_err(failed)?).unwrap_or_default())
    }

    /// A page of them, oldest first, beginning after `after`.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`] or [`ArchiveError::Failed`].
    pub async fn page(&self, after: AsideId, limit: u16) -> Result<Vec<Aside>, ArchiveError> {
        let page = run(&self.pool, async |connection| {
            sqlx::query_as(PAGE)
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(connection)
                .await
        });
        page.await
            .map_err(self.failed("list the messages that are set aside"))
    }

    /// One of them with its payload; `None` when there is none.
    ///
    /// # Errors
    /// [`ArchiveError::Failed`] also when it was sealed under another key, or is damaged.
    pub async fn open(&self, id: AsideId) -> Result<Option<(Aside, Vec<u8>)>, ArchiveError> {
        let operation = || format!("open message {id} that is set aside");
        let row = run(&self.pool, async |connection| {
            sqlx::query(OPEN).bind(id).fetch_optional(connection).await
        });
        let row = row.await.map_err(self.failed(operation()))?;
        let Some(row) = row else { return Ok(None) };
        let read = |row: &PgRow| -> sqlx::Result<(Aside, Sealed)> {
            let sealed = Sealed {
                key_id: row.try_get("key_id")?,
                bytes: row.try_get("sealed")?,
            };
            Ok((Aside::from_row(row)?, sealed))
        };
        let (aside, sealed) = read(&row).map_err(self.failed(operation()))?;
        let size = u64::try_from(aside.bytes).unwrap_or_default();
        let opened = self.sealer.open_bytes(&sealed, size);
        let payload = opened.map_err(|unopened| ArchiveError::Failed {
            operation: operation(),
            source: match unopened {
                Unopened::OtherKey(key) => format!(
                    "it was sealed under the key with fingerprint {key}, and \
                     CREDENTIAL_ENCRYPTION_KEY is the one with fingerprint {}",
                    self.sealer.key_id()
                )
                .into(),
                Unopened::Damaged(reason) => reason.into(),
            },
        })?;
        Ok(Some((aside, payload)))
    }

    /// Notes that it was tried again in vain.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`] or [`ArchiveError::Failed`].
    pub async fn tried(&self, id: AsideId, flaw: &str, reason: &str) -> Result<(), ArchiveError> {
        let noted = run(&self.pool, async |connection| {
            sqlx::query(TRIED)
                .bind(id)
                .bind(flaw)
                .bind(plain(reason))
                .execute(connection)
                .await
        });
        noted
            .await
            .map(drop)
            .map_err(self.failed(format!("note the new reason of message {id}")))
    }

    /// Forgets one that is stored.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`] or [`ArchiveError::Failed`].
    pub async fn remove(&self, id: AsideId) -> Result<(), ArchiveError> {
        let removed = run(&self.pool, async |connection| {
            sqlx::query(REMOVE).bind(id).execute(connection).await
        });
        removed
            .await
            .map(drop)
            .map_err(self.failed(format!("remove message {id} from what is set aside")))
    }
}

/// PostgreSQL has no NUL in its texts.
fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
