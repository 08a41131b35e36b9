//! Versions of configurations in PostgreSQL or SQLite, by one design: texts are compressed, sealed
//! and shared where equal; each device's timeline changes by whole steps.
//!
//! What a snapshot changes is decided by `domain::archive` on what was read before, outside any
//! transaction: opening, comparing and sealing a large text takes long. The change is made only if
//! the device's generation is still the one that was read; otherwise everything is looked at again.

mod error;
mod postgres;
mod seal;
mod set_aside;
mod sqlite;
mod tables;

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{PgPool, SqlitePool};
use tracing::warn;

use crate::credentials::Key;
use crate::domain::Timestamp;
use crate::domain::archive::{
    Comparison, Content, Edit, Moment, Part, Renormalize, Settled, Version, VersionId, settle,
};
use crate::domain::device::DeviceId;
use crate::domain::snapshot::{ConfigText, Snapshot};
use crate::ports::{
    Archive, ArchiveError, Collected, Opened, SinkError, SnapshotSink, Stored, VersionPage,
};

pub use set_aside::{Aside, AsideId, SetAside};

use seal::{Sealed, Sealer, Unopened};
use tables::{Change, Seen, Tables};

/// How often a change is decided anew because another one of the same device came first. Each
/// time, one of the contenders has succeeded.
const MAX_ROUNDS: u32 = 32;

/// An archive on one database.
pub struct SealedArchive {
    tables: Box<dyn Tables>,
    sealer: Arc<Sealer>,
    renormalize: Renormalize,
}

impl SealedArchive {
    /// An archive in schema `mikrotik_backup` of a migrated PostgreSQL. Texts are sealed under
    /// `key`; `renormalize` is this program's normalisation.
    pub fn postgres(pool: PgPool, key: Key, renormalize: Renormalize) -> Self {
        Self::new(
            Box::new(postgres::PostgresTables::new(pool)),
            key,
            renormalize,
        )
    }

    /// An archive in a migrated SQLite file; the connections must enforce foreign keys, as they do
    /// by sqlx's default.
    pub fn sqlite(pool: SqlitePool, key: Key, renormalize: Renormalize) -> Self {
        Self::new(Box::new(sqlite::SqliteTables::new(pool)), key, renormalize)
    }

    fn new(tables: Box<dyn Tables>, key: Key, renormalize: Renormalize) -> Self {
        Self {
            tables,
            sealer: Arc::new(Sealer::new(key)),
            renormalize,
        }
    }

    fn failed(&self, operation: String) -> impl FnOnce(sqlx::Error) -> ArchiveError {
        move |error| error::classify(operation, self.tables.place(), error)
    }

    /// One round of [`Archive::store`]; `None` when the timeline changed meanwhile.
    async fn try_store(&self, snapshot: &Snapshot) -> Result<Option<Stored>, ArchiveError> {
        let operation = || {
            format!(
                "store the snapshot of attempt {} at device {} in the archive",
                snapshot.attempt, snapshot.device
            )
        };
        let arrival = Version::of(snapshot);
        let seen = self
            .tables
            .around(arrival.device, arrival.first.position)
            .await
            .map_err(self.failed(operation()))?;
        if let Some(holder) = seen.holder.filter(|holder| *holder != arrival.device) {
            return Err(ArchiveError::ForeignAttempt {
                attempt: snapshot.attempt,
                device: arrival.device,
                holder,
            });
        }
        let generation = seen.generation;
        let work = self.work(arrival, seen, snapshot.text.clone()).await?;
        // Off the runtime's threads: texts can be large.
        let prepared = tokio::task::spawn_blocking(move || work.prepare()).await;
        let prepared = prepared
            .unwrap_or_else(|error| Err(Trouble::Io(error.into())))
            .map_err(|trouble| trouble.into_error(operation()))?;
        let Settled {
            arrived,
            version,
            edits,
        } = &prepared.settled;
        if !edits.is_empty() {
            let change = Change {
                device: snapshot.device,
                generation,
                edits,
                sealed: prepared.sealed.as_ref(),
            };
            let made = self.tables.change(change).await;
            if !made.map_err(self.failed(operation()))? {
                return Ok(None);
            }
        }
        Ok(Some(Stored {
            arrived: *arrived,
            version: *version,
        }))
    }

    /// Fetches the texts that the decision needs: none when a hash tells that the device was seen
    /// again.
    async fn work(
        &self,
        arrival: Version,
        seen: Seen,
        text: ConfigText,
    ) -> Result<Work, ArchiveError> {
        let again = seen
            .around
            .before
            .as_ref()
            .is_some_and(|before| before.compare(&arrival.first) == Comparison::Same);
        let mut neighbours = Vec::new();
        if !again && !seen.around.known {
            for version in [&seen.around.before, &seen.around.after] {
                let Some(version) = version else { continue };
                // Deleted since: the generation has moved, and the change will not be made.
                let Some((_, sealed)) = self.fetch(version.id).await? else {
                    continue;
                };
                neighbours.push((version.clone(), sealed));
            }
        }
        Ok(Work {
            arrival,
            seen,
            text,
            neighbours,
            sealer: Arc::clone(&self.sealer),
            renormalize: self.renormalize.clone(),
        })
    }

    async fn fetch(&self, id: VersionId) -> Result<Option<(Version, Sealed)>, ArchiveError> {
        let found = self.tables.sealed(id).await;
        found.map_err(self.failed(format!("read version {id} of the archive")))
    }
}

/// Everything that a decision needs, to be made on a thread of its own.
struct Work {
    arrival: Version,
    seen: Seen,
    text: ConfigText,
    neighbours: Vec<(Version, Sealed)>,
    sealer: Arc<Sealer>,
    renormalize: Renormalize,
}

struct Prepared {
    settled: Settled,
    sealed: Option<Sealed>,
}

enum Trouble {
    Version(ArchiveError),
    Io(std::io::Error),
}

impl Trouble {
    fn into_error(self, operation: String) -> ArchiveError {
        match self {
            Self::Version(error) => error,
            Self::Io(source) => ArchiveError::Failed {
                operation,
                source: source.into(),
            },
        }
    }
}

impl Work {
    fn prepare(self) -> Result<Prepared, Trouble> {
        let arrived = self.arrival.first.clone();
        let mut texts = Vec::new();
        for (version, sealed) in &self.neighbours {
            match open(&self.sealer, version, sealed) {
                Ok(text) => texts.push((version.id, text)),
                // What is left of a damaged version must not keep new ones out.
                Err(error @ ArchiveError::Damaged { .. }) => {
                    warn!(error = %error, "A version cannot be compared with");
                }
                Err(error) => return Err(Trouble::Version(error)),
            }
        }
        let both = |version: &Version| -> Option<(ConfigText, ConfigText)> {
            let (_, text) = texts.iter().find(|(id, _)| *id == version.id)?;
            Some(self.renormalize.comparable(
                (&version.first.normalization, text),
                (&arrived.normalization, &self.text),
            ))
        };
        let settled = settle(
            self.arrival.clone(),
            &self.seen.around,
            |version| match version.compare(&arrived) {
                Comparison::Same => true,
                Comparison::Differs => false,
                Comparison::Unclear => both(version).is_some_and(|(kept, new)| kept == new),
            },
            |version| {
                let (kept, new) = both(version)?;
                Some(self.renormalize.lines(
                    Part {
                        text: kept.expose(),
                        incomplete_menus: &version.incomplete_menus,
                    },
                    Part {
                        text: new.expose(),
                        incomplete_menus: &self.arrival.incomplete_menus,
                    },
                ))
            },
        );
        let needs_text = settled.edits.iter().any(|edit| {
            matches!(
                edit,
                Edit::Insert {
                    content: Content::Arrived,
                    ..
                }
            )
        });
        let sealed = needs_text
            .then(|| self.sealer.seal(rand::random(), &self.text))
            .transpose()
            .map_err(Trouble::Io)?;
        Ok(Prepared { settled, sealed })
    }
}

/// Opens the text of `version`, or says why not.
fn open(sealer: &Sealer, version: &Version, sealed: &Sealed) -> Result<ConfigText, ArchiveError> {
    let opened = sealer.open(sealed, &version.first.hash, version.bytes);
    opened.map_err(|unopened| match unopened {
        Unopened::OtherKey(sealed_under) => ArchiveError::OtherKey {
            version: version.id,
            device: version.device,
            sealed_under,
            ours: sealer.key_id().to_owned(),
        },
        Unopened::Damaged(reason) => ArchiveError::Damaged {
            version: version.id,
            device: version.device,
            reason,
        },
    })
}

#[async_trait]
impl Archive for SealedArchive {
    async fn store(&self, snapshot: &Snapshot) -> Result<Stored, ArchiveError> {
        for _ in 0..MAX_ROUNDS {
            if let Some(stored) = self.try_store(snapshot).await? {
                return Ok(stored);
            }
        }
        Err(ArchiveError::Unavailable {
            operation: format!("store a snapshot of device {}", snapshot.device),
            source: format!("others changed its versions {MAX_ROUNDS} times meanwhile").into(),
        })
    }

    async fn versions(
        &self,
        device: DeviceId,
        page: VersionPage,
    ) -> Result<Vec<Version>, ArchiveError> {
        let limit = page.limit.min(VersionPage::MAX);
        let found = self.tables.page(device, page.before, limit).await;
        found.map_err(self.failed(format!("list the versions of device {device}")))
    }

    async fn version_at(
        &self,
        device: DeviceId,
        at: Timestamp,
    ) -> Result<Option<Version>, ArchiveError> {
        let found = self.tables.at(device, at).await;
        found.map_err(self.failed(format!("find the version of device {device} at {at}")))
    }

    async fn open(&self, id: VersionId) -> Result<Opened, ArchiveError> {
        let found = self.fetch(id).await?;
        let (version, sealed) = found.ok_or(ArchiveError::NotFound(id))?;
        let sealer = Arc::clone(&self.sealer);
        let opened = tokio::task::spawn_blocking(move || {
            let text = open(&sealer, &version, &sealed)?;
            Ok(Opened { version, text })
        });
        opened.await.unwrap_or_else(|error| {
            Err(ArchiveError::Failed {
                operation: format!("open version {id}"),
                source: error.into(),
            })
        })
    }

    async fn newest(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<Version>, ArchiveError> {
        let found = self.tables.newest(after, limit.min(VersionPage::MAX)).await;
        found.map_err(self.failed("list the newest versions".into()))
    }

    async fn moments(&self, device: DeviceId) -> Result<Vec<Moment>, ArchiveError> {
        let found = self.tables.moments(device).await;
        found.map_err(self.failed(format!("list the versions of device {device}")))
    }

    async fn delete(&self, device: DeviceId, versions: &[VersionId]) -> Result<u64, ArchiveError> {
        let deleted = self.tables.delete(device, versions).await;
        deleted.map_err(self.failed(format!("delete versions of device {device}")))
    }

    async fn collect_garbage(&self, batch: u32) -> Result<Collected, ArchiveError> {
        let collected = self.tables.collect(batch).await;
        collected.map_err(self.failed("delete texts that no version has any more".into()))
    }

    async fn check_key(&self) -> Result<(), ArchiveError> {
        let last = self.tables.last_key().await;
        let last = last.map_err(self.failed("ask the archive under which key it is".into()))?;
        match last {
            Some((version, device, key)) if key != self.sealer.key_id() => {
                Err(ArchiveError::OtherKey {
                    version,
                    device,
                    sealed_under: key,
                    ours: self.sealer.key_id().to_owned(),
                })
            }
            _ => Ok(()),
        }
    }
}

const SINK: &str = "the archive";

#[async_trait]
impl SnapshotSink for SealedArchive {
    async fn ready(&self) -> Result<(), SinkError> {
        self.check_key()
            .await
            .map_err(|error| unavailable("ask the archive whether it is ready".into(), error))
    }

    async fn deliver(&self, snapshot: &Snapshot) -> Result<(), SinkError> {
        let operation = format!("archive the snapshot of device {}", snapshot.device);
        match self.store(snapshot).await {
            Ok(_) => Ok(()),
            // With the right key, or another moment, it works: nothing is wrong with the snapshot.
            Err(error @ (ArchiveError::Unavailable { .. } | ArchiveError::OtherKey { .. })) => {
                Err(unavailable(operation, error))
            }
            Err(error) => Err(SinkError::Refused {
                sink: SINK,
                operation,
                source: error.into(),
            }),
        }
    }
}

fn unavailable(operation: String, error: ArchiveError) -> SinkError {
    SinkError::Unavailable {
        sink: SINK,
        operation,
        source: error.into(),
    }
}
