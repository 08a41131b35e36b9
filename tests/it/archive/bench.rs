//! A database with an archive in it, and what arrives there.

use std::collections::BTreeMap;
use std::sync::Arc;

use mikrotik_backup::adapters::archive::SealedArchive;
use mikrotik_backup::credentials::Key;
use mikrotik_backup::domain::archive::{Lines, Normalization, Renormalize, Version};
use mikrotik_backup::domain::attempt::AttemptId;
use mikrotik_backup::domain::device::{DeviceId, TenantId};
use mikrotik_backup::domain::snapshot::{ConfigText, Machine, Snapshot};
use mikrotik_backup::ports::{Archive, VersionPage};
use mikrotik_backup::routeros;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};
use tempfile::TempDir;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::services::postgres::fresh_database;

pub const START: OffsetDateTime = datetime!(2026-03-02 04:05:06.123456 UTC);

pub enum Bench {
    Postgres(PgPool),
    /// With the folder that the file is in, which lives as long.
    Sqlite(
        SqlitePool,
        #[expect(dead_code, reason = "held for its drop")] TempDir,
    ),
}

/// A normalisation that drops lines which the ones before it kept.
pub fn renormalize(version: u32) -> Renormalize {
    Renormalize {
        to: normalization(version),
        apply: match version {
            2 => Arc::new(str::to_owned),
            _ => Arc::new(|text| {
                let kept = text.lines().filter(|line| !line.starts_with("# seen"));
                kept.map(|line| format!("{line}\n")).collect()
            }),
        },
        lines: routeros::renormalize().lines,
    }
}

fn normalization(version: u32) -> Normalization {
    Normalization {
        version,
        rules: format!("rules-{version}"),
    }
}

impl Bench {
    pub async fn postgres() -> Option<Self> {
        Some(Self::Postgres(fresh_database().await?.pool))
    }

    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("archive.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(std::time::Duration::from_secs(30));
        let pool = SqlitePoolOptions::new().connect_with(options).await;
        let pool = pool.expect("open a new file");
        let migrator = sqlx::migrate!("./migrations/sqlite");
        migrator.run(&pool).await.expect("migrate");
        Self::Sqlite(pool, folder)
    }

    /// An archive under a key of `byte`s, in a program with normalisation `version`.
    pub fn archive_with(&self, byte: u8, version: u32) -> SealedArchive {
        self.archive_of(byte, renormalize(version))
    }

    pub fn archive_of(&self, byte: u8, renormalize: Renormalize) -> SealedArchive {
        let key = Key::from_bytes([byte; 32]);
        match self {
            Self::Postgres(pool) => SealedArchive::postgres(pool.clone(), key, renormalize),
            Self::Sqlite(pool, _) => SealedArchive::sqlite(pool.clone(), key, renormalize),
        }
    }

    pub fn archive(&self) -> SealedArchive {
        self.archive_with(7, 2)
    }

    /// Runs a statement that both dialects know; `~` stands before the name of a table.
    pub async fn sql(&self, statement: &str) -> u64 {
        match self {
            Self::Postgres(pool) => {
                let statement = statement.replace('~', "mikrotik_backup.");
                let done = sqlx::query(AssertSqlSafe(statement)).execute(pool).await;
                done.expect("a statement").rows_affected()
            }
            Self::Sqlite(pool, _) => {
                let statement = statement.replace('~', "");
                let done = sqlx::query(AssertSqlSafe(statement)).execute(pool).await;
                done.expect("a statement").rows_affected()
            }
        }
    }

    pub async fn count(&self, table: &str) -> i64 {
        let statement = format!("SELECT count(*) FROM ~{table}");
        match self {
            Self::Postgres(pool) => {
                let statement = AssertSqlSafe(statement.replace('~', "mikrotik_backup."));
                sqlx::query_scalar(statement).fetch_one(pool).await
            }
            Self::Sqlite(pool, _) => {
                let statement = AssertSqlSafe(statement.replace('~', ""));
                sqlx::query_scalar(statement).fetch_one(pool).await
            }
        }
        .expect("count rows")
    }

    /// Every sealed text.
    pub async fn sealed(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Postgres(pool) => {
                let rows =
                    sqlx::query_scalar("SELECT sealed FROM mikrotik_backup.archive_contents");
                rows.fetch_all(pool).await
            }
            Self::Sqlite(pool, _) => {
                let rows = sqlx::query_scalar("SELECT sealed FROM archive_contents");
                rows.fetch_all(pool).await
            }
        }
        .expect("read contents")
    }
}

pub fn device() -> DeviceId {
    DeviceId(Uuid::new_v4())
}

/// What `device` had `hours` after the start, normalised by version 2.
pub fn snapshot(device: DeviceId, hours: i64, text: &str) -> Snapshot {
    let text = ConfigText::new(text);
    Snapshot {
        attempt: AttemptId(Uuid::new_v4()),
        device,
        tenant: TenantId(Uuid::from_u128(5)),
        routeros_version: "7.18.2".into(),
        machine: Machine {
            model: Some("RB5009UPr+S+".into()),
            serial_number: Some("A1B2C3D4E5F6".into()),
            ..Machine::default()
        },
        collected_at: START + Duration::hours(hours),
        hash: text.digest(),
        text,
        normalization_version: 2,
        normalization_rules: "rules-2".into(),
        incomplete_menus: Vec::new(),
        ledger: BTreeMap::new(),
        shape: Default::default(),
    }
}

/// The same, as normalisation `version` would have made it.
pub fn made_by(version: u32, mut snapshot: Snapshot) -> Snapshot {
    let renormalize = renormalize(version);
    snapshot.text = ConfigText::new((renormalize.apply)(snapshot.text.expose()));
    snapshot.hash = snapshot.text.digest();
    snapshot.normalization_version = renormalize.to.version;
    snapshot.normalization_rules = renormalize.to.rules;
    snapshot
}

/// A configuration whose DNS server has this number.
pub fn config(number: u8) -> String {
    format!("/ip dns\nset servers=192.0.2.{number}\n/user\nset admin password=hidden-word\n")
}

/// The versions of a device, oldest first.
pub async fn history(archive: &dyn Archive, device: DeviceId) -> Vec<Version> {
    let page = VersionPage::first(VersionPage::MAX);
    let mut versions = archive.versions(device, page).await.expect("list");
    versions.reverse();
    versions
}

/// The hours of first and last sighting, and the text, of each version; checks on the way what is
/// true of any history: neighbours differ, and lines are those of their texts.
pub async fn told(archive: &dyn Archive, device: DeviceId) -> Vec<(i64, i64, String)> {
    let mut told = Vec::new();
    let mut last: Option<ConfigText> = None;
    for version in history(archive, device).await {
        let opened = archive.open(version.id).await.expect("open");
        assert_eq!(opened.version, version, "listed as it is opened");
        assert_eq!(opened.text.digest(), version.first.hash);
        assert_eq!(opened.text.expose().len() as u64, version.bytes);
        let between = |last: &ConfigText| Lines::between(last.expose(), opened.text.expose());
        assert_eq!(version.lines, last.as_ref().map(between), "{version:?}");
        assert_ne!(last.as_ref(), Some(&opened.text), "neighbours differ");
        let hours = |at: OffsetDateTime| (at - START).whole_hours();
        told.push((
            hours(version.first.position.at),
            hours(version.last.position.at),
            opened.text.expose().to_owned(),
        ));
        last = Some(opened.text);
    }
    told
}
