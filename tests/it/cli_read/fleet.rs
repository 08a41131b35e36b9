//! A store with devices, attempts and versions in it, and the binary that reads it.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use mikrotik_backup::adapters::archive::SealedArchive;
use mikrotik_backup::adapters::postgres::PostgresStore;
use mikrotik_backup::adapters::sqlite::{self, SqliteStore};
use mikrotik_backup::clock::Clock;
use mikrotik_backup::credentials::{Key, Login};
use mikrotik_backup::domain::archive::Renormalize;
use mikrotik_backup::domain::attempt::{AttemptId, AttemptRecord, Cause, Outcome};
use mikrotik_backup::domain::device::{Device, DeviceId, TenantId};
use mikrotik_backup::domain::session::Observed;
use mikrotik_backup::domain::snapshot::{ConfigText, Snapshot};
use mikrotik_backup::ports::{Archive, Store};
use mikrotik_backup::routeros;
use secrecy::SecretString;
use tempfile::TempDir;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::services::postgres::{Database, NewDevice, fresh_database, insert_device};

/// The password of every router here: recognisable wherever it should not be.
pub const PASSWORD: &str = "r3ad-pa55-9f4";
const KEY: [u8; 32] = *b"q7Zk!v3N0x_pL9mR2tY5wB8cD1eF4gH6";

pub struct Fleet {
    place: Place,
    archive: SealedArchive,
}

enum Place {
    Shared(Database, Box<PostgresStore>),
    /// The store is open for writing, as `run` has it.
    Embedded(SqliteStore, TempDir),
    /// Nobody has it open.
    Stopped(TempDir),
}

/// What a command left behind.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Its output, after it did well.
    pub fn done(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// Its output as JSON.
    pub fn json(self) -> serde_json::Value {
        let out = self.done();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error} in {out}"))
    }
}

/// The binary with nothing of ours in its environment.
pub fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mikrotik-backup"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// Runs a command to its end. Whatever it prints, no password is in it.
pub async fn finished(command: Command) -> Ended {
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    let output = output.expect("it ends").expect("start the command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

fn renormalize() -> Renormalize {
    routeros::renormalize()
}

impl Fleet {
    pub async fn shared() -> Option<Self> {
        let database = fresh_database().await?;
        let store = database.store("writer");
        let key = Key::from_bytes(KEY);
        Some(Self {
            archive: SealedArchive::postgres(database.pool.clone(), key, renormalize()),
            place: Place::Shared(database, Box::new(store)),
        })
    }

    pub async fn embedded() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(folder.path(), None, Clock::System).await;
        let store = store.expect("open the store");
        let pool = store.writer().expect("for writing").clone();
        let key = store.key().expect("for writing").clone();
        Self {
            archive: SealedArchive::sqlite(pool, key, renormalize()),
            place: Place::Embedded(store, folder),
        }
    }

    pub fn store(&self) -> &dyn Store {
        match &self.place {
            Place::Shared(_, store) => store.as_ref(),
            Place::Embedded(store, _) => store,
            Place::Stopped(_) => panic!("it was stopped"),
        }
    }

    /// The same without the process that has the store of embedded mode open.
    pub async fn stopped(self) -> Self {
        let place = match self.place {
            Place::Embedded(store, folder) => {
                store.close().await;
                Place::Stopped(folder)
            }
            other => other,
        };
        Self { place, ..self }
    }

    pub fn is_embedded(&self) -> bool {
        matches!(self.place, Place::Embedded(..))
    }

    pub async fn add(&self, name: &str) -> DeviceId {
        match &self.place {
            Place::Shared(database, _) => {
                let json = format!(r#"{{"username":"backup","password":"{PASSWORD}"}}"#);
                let device = NewDevice {
                    hostname: name.into(),
                    encrypted_credentials: Some(
                        Key::from_bytes(KEY).seal(rand::random(), json.as_bytes()),
                    ),
                    ..NewDevice::default()
                };
                insert_device(&database.pool, device).await
            }
            Place::Embedded(store, _) => {
                let device = sqlite::NewDevice {
                    tenant: sqlite::DEFAULT_TENANT,
                    name: name.into(),
                    address: "192.0.2.1".into(),
                    port: None,
                    group: Some("core".into()),
                    tags: vec![],
                    settings: Default::default(),
                    host_key: None,
                    login: Login {
                        username: "backup".into(),
                        password: Some(SecretString::from(PASSWORD)),
                        private_key: None,
                        private_key_passphrase: None,
                    },
                };
                store.add_device(&device).await.expect("add a device")
            }
            Place::Stopped(_) => panic!("it was stopped"),
        }
    }

    pub async fn device(&self, id: DeviceId) -> Device {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let listed = self.store().devices(&all).await.expect("list devices");
        let found = listed.into_iter().find(|listed| listed.device.id == id);
        found.expect("listed").device
    }

    /// Records an attempt that was made `hours` ago.
    pub async fn tried(&self, id: DeviceId, hours: u64, outcome: Outcome) {
        self.tried_showing(id, hours, outcome, Observed::default())
            .await;
    }

    /// The same, with what the session showed beside it.
    pub async fn tried_showing(
        &self,
        id: DeviceId,
        hours: u64,
        outcome: Outcome,
        observed: Observed,
    ) {
        let device = self.device(id).await;
        let failure = outcome.failure().map(|failure| failure.kind);
        let record = AttemptRecord {
            id: AttemptId::generate(),
            device: id,
            tenant: device.tenant,
            cause: Cause::Scheduled,
            elapsed: Duration::from_secs(hours * 3600),
            ended_ago: Duration::ZERO,
            revision: device.revision(),
            consecutive_failures: u32::from(failure.is_some()),
            standing: failure.map(|kind| (kind, device.revision())),
            outcome,
            offered_key: None,
            steps: vec![],
            ledger: BTreeMap::new(),
            next_due_in: Duration::from_secs(1800),
            observed,
            held: false,
        };
        self.store().record(&record, "one").await.expect("record");
    }

    /// Archives what `id` had at `at`.
    pub async fn archived(&self, id: DeviceId, at: OffsetDateTime, text: &str) {
        self.archived_lacking(id, at, text, &[]).await;
    }

    /// The same, of an export without these menus.
    pub async fn archived_lacking(
        &self,
        id: DeviceId,
        at: OffsetDateTime,
        text: &str,
        menus: &[&str],
    ) {
        self.archived_with(id, at, text, menus, &[]).await;
    }

    /// The same, with what the normalisation dropped; `ignored: PATTERN` was ignored by its operator.
    pub async fn archived_with(
        &self,
        id: DeviceId,
        at: OffsetDateTime,
        text: &str,
        menus: &[&str],
        ledger: &[(&str, u64)],
    ) {
        let text = ConfigText::new(text);
        let snapshot = Snapshot {
            attempt: AttemptId(Uuid::now_v7()),
            device: id,
            tenant: TenantId(Uuid::from_u128(5)),
            routeros_version: "7.18.2".into(),
            machine: Default::default(),
            collected_at: at,
            hash: text.digest(),
            text,
            normalization_version: routeros::NORMALIZATION_VERSION,
            normalization_rules: routeros::Normalizer::default()
                .and_recorded(ledger.iter().map(|(rule, _)| *rule))
                .fingerprint(),
            incomplete_menus: menus.iter().map(|menu| (*menu).to_owned()).collect(),
            ledger: ledger
                .iter()
                .map(|(rule, times)| ((*rule).to_owned(), *times))
                .collect(),
            shape: Default::default(),
        };
        self.archive.store(&snapshot).await.expect("archive");
    }

    /// Makes the archive's rows those of a program that did not keep what the last sighting left out.
    pub async fn forget_last_ledgers(&self) {
        match &self.place {
            Place::Shared(database, _) => {
                let all = "UPDATE mikrotik_backup.archive_versions SET last_ledger = NULL";
                database.sql(all).await;
            }
            Place::Embedded(store, _) => {
                let pool = store.writer().expect("for writing");
                let forgotten = sqlx::query("UPDATE archive_versions SET last_ledger = NULL")
                    .execute(pool)
                    .await;
                forgotten.expect("forget");
            }
            Place::Stopped(_) => panic!("nobody has it open"),
        }
    }

    /// The binary with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare();
        command.args(arguments);
        match &self.place {
            Place::Shared(database, _) => {
                let key = base64::engine::general_purpose::STANDARD.encode(KEY);
                command.env("DATABASE_URL", &database.url);
                command.env("CREDENTIAL_ENCRYPTION_KEY", key);
            }
            Place::Embedded(_, folder) | Place::Stopped(folder) => {
                command.env("DATA_DIR", folder.path());
            }
        }
        command
    }

    /// Runs it to its end, with these arguments.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        finished(self.command(arguments)).await
    }
}
