//! What the archive asks of a database: reads that are index look-ups, and changes of one device's
//! timeline that happen whole or not at all.

use async_trait::async_trait;

use super::seal::Sealed;
use crate::domain::Timestamp;
use crate::domain::archive::{Around, Edit, Moment, Position, Version, VersionId};
use crate::domain::device::DeviceId;
use crate::ports::Collected;

/// The surroundings of an arrival, as they were at one generation of the device's timeline.
pub(super) struct Seen {
    /// The generation; `None` before the first version.
    pub(super) generation: Option<i64>,
    /// The device that has the arriving attempt as a version.
    pub(super) holder: Option<DeviceId>,
    /// The neighbours.
    pub(super) around: Around,
}

/// A change of one device's timeline.
pub(super) struct Change<'a> {
    pub(super) device: DeviceId,
    /// The generation that the edits were made for.
    pub(super) generation: Option<i64>,
    pub(super) edits: &'a [Edit],
    /// The text of the version that has [`crate::domain::archive::Content::Arrived`].
    pub(super) sealed: Option<&'a Sealed>,
}

/// One database with the archive's tables.
#[async_trait]
pub(super) trait Tables: Send + Sync {
    /// Where the database is, for messages.
    fn place(&self) -> &str;

    /// The timeline around `position`, at one generation.
    async fn around(&self, device: DeviceId, position: Position) -> sqlx::Result<Seen>;

    /// Makes a change and the next generation; `false`, and nothing is changed, when the generation
    /// is another one by now.
    async fn change(&self, change: Change<'_>) -> sqlx::Result<bool>;

    /// A version with its sealed text.
    async fn sealed(&self, id: VersionId) -> sqlx::Result<Option<(Version, Sealed)>>;

    async fn page(
        &self,
        device: DeviceId,
        before: Position,
        limit: u32,
    ) -> sqlx::Result<Vec<Version>>;

    async fn at(&self, device: DeviceId, at: Timestamp) -> sqlx::Result<Option<Version>>;

    async fn newest(&self, after: Option<DeviceId>, limit: u32) -> sqlx::Result<Vec<Version>>;

    async fn moments(&self, device: DeviceId) -> sqlx::Result<Vec<Moment>>;

    async fn delete(&self, device: DeviceId, versions: &[VersionId]) -> sqlx::Result<u64>;

    async fn collect(&self, batch: u32) -> sqlx::Result<Collected>;

    /// A version whose text is the one stored last, and the fingerprint of that text's key.
    async fn last_key(&self) -> sqlx::Result<Option<(VersionId, DeviceId, String)>>;
}

/// The columns of a version, as both databases call them and in the order in which they are
/// bound.
macro_rules! version_columns {
    () => {
        "id, device_id, tenant_id, attempt_id, collected_at, last_seen_attempt_id, last_seen_at, \
         routeros_version, last_routeros_version, sha256_hash, last_sha256_hash, \
         normalization_version, normalization_rules, last_normalization_version, \
         last_normalization_rules, bytes, lines_added, lines_removed, incomplete_menus, ledger, machine, \
         last_ledger"
    };
}

/// Binds the values of [`version_columns`]; `$id` and `$time` make the database's own of them.
macro_rules! bind_version {
    ($query:expr, $version:expr, $id:expr, $time:expr) => {{
        let version: &Version = $version;
        let lines = |count: fn(Lines) -> u32| version.lines.map(|lines| i64::from(count(lines)));
        $query
            .bind($id(version.id.0))
            .bind($id(version.device.0))
            .bind($id(version.tenant.0))
            .bind($id(version.first.position.attempt.0))
            .bind($time(version.first.position.at))
            .bind($id(version.last.position.attempt.0))
            .bind($time(version.last.position.at))
            .bind(&version.first.routeros_version)
            .bind(&version.last.routeros_version)
            .bind(version.first.hash.to_string())
            .bind(version.last.hash.to_string())
            .bind(i64::from(version.first.normalization.version))
            .bind(&version.first.normalization.rules)
            .bind(i64::from(version.last.normalization.version))
            .bind(&version.last.normalization.rules)
            .bind(i64::try_from(version.bytes).unwrap_or(i64::MAX))
            .bind(lines(|lines| lines.added))
            .bind(lines(|lines| lines.removed))
            .bind(Json(&version.incomplete_menus))
            .bind(Json(version.first.ledger.clone().unwrap_or_default()))
            .bind(Json(&version.machine))
            .bind(version.last.ledger.as_ref().map(Json))
    }};
}

/// Reads the columns of [`version_columns`]; `$id` and `$time` read the database's own.
macro_rules! read_version {
    ($row:expr, $id:expr, $time:expr) => {{
        let row = $row;
        let hash = |column: &'static str| -> sqlx::Result<Digest> {
            let text: &str = row.try_get(column)?;
            Digest::parse(text).ok_or_else(|| tables::unreadable(column))
        };
        let count = |column: &'static str| -> sqlx::Result<u32> {
            let number: i64 = row.try_get(column)?;
            u32::try_from(number).map_err(|_| tables::unreadable(column))
        };
        let added: Option<i64> = row.try_get("lines_added")?;
        let bytes: i64 = row.try_get("bytes")?;
        let ledger: Json<std::collections::BTreeMap<String, u64>> = row.try_get("ledger")?;
        // None of a version that nobody has seen since it has the column.
        let last_ledger: Option<Json<_>> = row.try_get("last_ledger")?;
        let machine: Json<_> = row.try_get("machine")?;
        let menus: Json<_> = row.try_get("incomplete_menus")?;
        let mut version = Version {
            id: VersionId($id(row, "id")?),
            device: DeviceId($id(row, "device_id")?),
            tenant: TenantId($id(row, "tenant_id")?),
            first: Sighting {
                position: Position {
                    at: $time(row, "collected_at")?,
                    attempt: AttemptId($id(row, "attempt_id")?),
                },
                hash: hash("sha256_hash")?,
                normalization: Normalization {
                    version: count("normalization_version")?,
                    rules: row.try_get("normalization_rules")?,
                },
                routeros_version: row.try_get("routeros_version")?,
                ledger: Some(ledger.0),
            },
            last: Sighting {
                position: Position {
                    at: $time(row, "last_seen_at")?,
                    attempt: AttemptId($id(row, "last_seen_attempt_id")?),
                },
                hash: hash("last_sha256_hash")?,
                normalization: Normalization {
                    version: count("last_normalization_version")?,
                    rules: row.try_get("last_normalization_rules")?,
                },
                routeros_version: row.try_get("last_routeros_version")?,
                ledger: last_ledger.map(|last| last.0),
            },
            bytes: u64::try_from(bytes).map_err(|_| tables::unreadable("bytes"))?,
            lines: match added {
                Some(_) => Some(Lines {
                    added: count("lines_added")?,
                    removed: count("lines_removed")?,
                }),
                None => None,
            },
            incomplete_menus: menus.0,
            machine: machine.0,
        };
        let (first, last) = (&version.first, &version.last);
        if last.ledger.is_none()
            && (first.position, &first.normalization) == (last.position, &last.normalization)
        {
            // Seen once.
            version.last.ledger = version.first.ledger.clone();
        }
        version
    }};
}

pub(super) use {bind_version, read_version, version_columns};

/// A stored value that no version of this program has written.
pub(super) fn unreadable(column: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: format!("archive_versions.{column}"),
        source: "a value that this service does not write".into(),
    }
}

/// A change that inserts the arrival without its text. The decision and the text are made together,
/// so this does not happen; should it, nothing is stored and the error says so.
pub(super) fn no_text() -> sqlx::Error {
    sqlx::Error::Protocol("a version was to be stored without its text".into())
}
