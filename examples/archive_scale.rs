//! Shows that the archive answers in a time that does not grow with it: the same questions to an
//! archive of a thousand versions and to a full one, in SQLite or PostgreSQL.
//!
//! ```text
//! cargo run --release --example archive_scale                                # SQLite, in a temporary folder
//! cargo run --release --example archive_scale -- postgres://user@host/empty  # PostgreSQL, an empty database
//! VERSIONS=10000000 cargo run --release --example archive_scale
//! ```
//!
//! One device has 100,000 versions, a thousand share the rest up to `VERSIONS` (default 1,000,000).
//! Texts of about 10 KB are stored through the archive itself, 1,000 of them, and the rest of the
//! versions refer to these by rows that SQL copies: what is measured is the way to a row.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mikrotik_backup::adapters::archive::SealedArchive;
use mikrotik_backup::adapters::postgres::PostgresStore;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::credentials::Key;
use mikrotik_backup::domain::archive::{Lines, Position, Version};
use mikrotik_backup::domain::attempt::AttemptId;
use mikrotik_backup::domain::device::{DeviceId, TenantId};
use mikrotik_backup::domain::snapshot::{ConfigText, Shape, Snapshot};
use mikrotik_backup::ports::{Archive, VersionPage};
use mikrotik_backup::routeros;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

const START: OffsetDateTime = datetime!(2020-01-01 0:00 UTC);
const BUSY: DeviceId = DeviceId(Uuid::from_u128(0xB));
const OF_BUSY: u64 = 100_000;
const TEXTS: u64 = 1_000;
const DEVICES: u64 = 1_000;
const ROUNDS: u32 = 200;
/// What a copy has of its own; `COPIED` is as it was.
const OWN: &str = "id, device_id, attempt_id, collected_at, last_seen_attempt_id, last_seen_at";
const COPIED: &str = "tenant_id, routeros_version, last_routeros_version, sha256_hash, \
     last_sha256_hash, normalization_version, normalization_rules, last_normalization_version, \
     last_normalization_rules, bytes, lines_added, lines_removed, incomplete_menus, ledger, \
     last_ledger, machine, content_id";

enum Database {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Database {
    async fn sql(&self, statement: String) -> anyhow::Result<()> {
        match self {
            Self::Postgres(pool) => {
                let statement = AssertSqlSafe(statement.replace('~', "mikrotik_backup."));
                sqlx::raw_sql(statement).execute(pool).await?;
            }
            Self::Sqlite(pool) => {
                let statement = AssertSqlSafe(statement.replace('~', ""));
                sqlx::raw_sql(statement).execute(pool).await?;
            }
        }
        Ok(())
    }

    /// Copies `count` versions of the busy device, numbered from `from`: to itself, or to others.
    async fn copy(&self, from: u64, count: u64, others: bool) -> anyhow::Result<()> {
        let until = from + count;
        // The n-th copy is n minutes later, with the text of the (n mod 1000)-th version.
        let statement = match self {
            Self::Postgres(_) => {
                let device = if others {
                    format!(
                        "('00000000-0000-0000-0001-' || lpad(to_hex(n % {DEVICES}), 12, '0'))::uuid"
                    )
                } else {
                    "device_id".to_owned()
                };
                let time = "timestamptz '2020-01-01 00:00Z' + n * interval '1 minute'";
                format!(
                    "INSERT INTO ~archive_versions ({OWN}, {COPIED}) \
                     SELECT gen_random_uuid(), {device}, gen_random_uuid(), {time}, \
                     gen_random_uuid(), {time}, {COPIED} \
                     FROM generate_series({from}, {until} - 1) AS n \
                     JOIN texts ON texts.number = n % {TEXTS}"
                )
            }
            Self::Sqlite(_) => {
                let device = if others {
                    format!("printf('00000000-0000-0000-0001-%012x', n % {DEVICES})")
                } else {
                    "device_id".to_owned()
                };
                let uuid = "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-' || \
                     hex(randomblob(2)) || '-' || hex(randomblob(2)) || '-' || hex(randomblob(6)))";
                let time = "strftime('%Y-%m-%dT%H:%M:%S.000000Z', '2020-01-01', n || ' minutes')";
                format!(
                    "WITH RECURSIVE numbers (n) AS (SELECT {from} UNION ALL \
                     SELECT n + 1 FROM numbers WHERE n < {until} - 1) \
                     INSERT INTO ~archive_versions ({OWN}, {COPIED}) \
                     SELECT {uuid}, {device}, {uuid}, {time}, {uuid}, {time}, {COPIED} \
                     FROM numbers JOIN texts ON texts.number = n % {TEXTS}"
                )
            }
        };
        self.sql(statement).await
    }
}

fn text(number: u64) -> ConfigText {
    use std::fmt::Write;

    let mut text = String::from("/ip firewall address-list\n");
    for n in 0..230 {
        // Half of it is common to all, as it is among the versions of a device.
        let own = if n % 2 == 0 { number } else { 0 };
        let _ = writeln!(
            text,
            "add address=198.51.100.{n} comment=\"entry {own}\" list=lan"
        );
    }
    ConfigText::new(text)
}

fn snapshot(number: u64) -> Snapshot {
    let text = text(number);
    let minutes = i64::try_from(number).unwrap_or(i64::MAX);
    Snapshot {
        attempt: AttemptId::generate(),
        device: BUSY,
        tenant: TenantId(Uuid::from_u128(1)),
        routeros_version: "7.18.2".into(),
        machine: Default::default(),
        collected_at: START + time::Duration::minutes(minutes),
        hash: text.digest(),
        text,
        normalization_version: routeros::NORMALIZATION_VERSION,
        normalization_rules: routeros::rules_fingerprint(),
        incomplete_menus: Vec::new(),
        ledger: BTreeMap::new(),
        shape: Shape::default(),
    }
}

/// Asks `question` many times, of evenly spread numbers, and prints the median and the slowest.
async fn ask<F>(name: &str, versions: u64, question: F) -> anyhow::Result<()>
where
    F: AsyncFn(u64) -> anyhow::Result<()>,
{
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        // A prime step, so that neighbouring questions are far apart.
        let number = u64::from(round) * 7_919 % versions;
        let begun = Instant::now();
        question(number).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let show = |time: Duration| time.as_secs_f64() * 1e3;
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "  {name:<34} median {:7.3} ms  slowest {:8.3} ms",
        show(median),
        show(slowest)
    );
    Ok(())
}

async fn questions(archive: &dyn Archive, of_busy: u64) -> anyhow::Result<()> {
    let at = |number: u64| {
        let minutes = i64::try_from(number).unwrap_or(i64::MAX);
        START + time::Duration::minutes(minutes)
    };
    let version = async |number: u64| -> anyhow::Result<Version> {
        let found = archive.version_at(BUSY, at(number)).await?;
        found.ok_or_else(|| anyhow::anyhow!("no version {number}"))
    };
    ask("list 50 from anywhere", of_busy, async |number| {
        let before = Position {
            at: at(number),
            ..Position::END
        };
        archive
            .versions(BUSY, VersionPage { before, limit: 50 })
            .await?;
        Ok(())
    })
    .await?;
    ask("find the version of a time", of_busy, async |number| {
        version(number).await.map(drop)
    })
    .await?;
    // The ids are looked up beforehand: opening is by id.
    let mut ids = BTreeMap::new();
    for round in 0..ROUNDS {
        let number = u64::from(round) * 7_919 % of_busy;
        ids.insert(number, version(number).await?.id);
    }
    ask("open one", of_busy, async |number| {
        archive.open(ids[&number]).await?;
        Ok(())
    })
    .await?;
    ask("open two and diff them", of_busy, async |number| {
        let (a, b) = (
            archive.open(ids[&number]).await?,
            archive.open(ids[&0]).await?,
        );
        Lines::between(a.text.expose(), b.text.expose());
        Ok(())
    })
    .await?;
    // Goes on where the last round ended.
    let newest = archive.versions(BUSY, VersionPage::first(1)).await?;
    let newest = newest
        .first()
        .map_or(START, |newest| newest.first.position.at);
    let mut hours = 0;
    let mut arrivals = Vec::new();
    for round in 0..ROUNDS {
        hours += 1;
        let mut arrival = snapshot(u64::from(round) % 3);
        arrival.collected_at = newest + time::Duration::hours(hours);
        arrivals.push(arrival);
    }
    let arrivals = std::sync::Mutex::new(arrivals.into_iter());
    ask("store a change", of_busy, async |_| {
        let next = arrivals
            .lock()
            .ok()
            .and_then(|mut arrivals| arrivals.next());
        if let Some(arrival) = next {
            archive.store(&arrival).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "an example has no configuration")]
    let wanted = std::env::var("VERSIONS").ok();
    let wanted: u64 = wanted.map_or(Ok(1_000_000), |text| text.parse())?;
    let key = Key::from_bytes(rand::random());
    let renormalize = routeros::renormalize();
    let folder;
    let (archive, database) = if let Some(url) = std::env::args().nth(1) {
        let store = PostgresStore::connect(&url.clone().into(), Clock::System, "scale")?;
        store.migrate().await?;
        let pool = PgPool::connect(&url).await?;
        println!("PostgreSQL");
        (
            SealedArchive::postgres(pool.clone(), key, renormalize),
            Database::Postgres(pool),
        )
    } else {
        folder = tempfile::tempdir()?;
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("archive.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().connect_with(options).await?;
        sqlx::migrate!("./migrations/sqlite").run(&pool).await?;
        println!("SQLite, WAL, synchronous=FULL");
        (
            SealedArchive::sqlite(pool.clone(), key, renormalize),
            Database::Sqlite(pool),
        )
    };

    let begun = Instant::now();
    for number in 0..TEXTS {
        archive.store(&snapshot(number)).await?;
    }
    let rate = TEXTS as f64 / begun.elapsed().as_secs_f64();
    let size = text(1).expose().len();
    println!("stored {TEXTS} changes of {size} bytes: {rate:.0} per second");
    database
        .sql(
            "CREATE TABLE texts AS SELECT row_number() OVER (ORDER BY collected_at) - 1 AS number, \
             v.* FROM ~archive_versions AS v; CREATE UNIQUE INDEX texts_number ON texts (number)"
                .to_owned(),
        )
        .await?;
    println!("{TEXTS} versions in all:");
    questions(&archive, TEXTS).await?;

    // After what the questions have stored.
    database.copy(20_000, OF_BUSY - TEXTS, false).await?;
    let mut filled = OF_BUSY;
    while filled < wanted {
        let count = 100_000.min(wanted - filled);
        database.copy(filled, count, true).await?;
        filled += count;
    }
    database
        .sql(
            "INSERT INTO ~archive_devices SELECT DISTINCT device_id, 1 FROM ~archive_versions \
             WHERE device_id NOT IN (SELECT device_id FROM ~archive_devices); ANALYZE"
                .to_owned(),
        )
        .await?;
    println!(
        "{filled} versions in all, {OF_BUSY} of one device, filled in {:?}:",
        begun.elapsed()
    );
    questions(&archive, OF_BUSY).await?;
    ask("list the newest of 100 devices", OF_BUSY, async |_| {
        archive.newest(None, 100).await?;
        Ok(())
    })
    .await
}
