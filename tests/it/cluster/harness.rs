//! One cluster for one test: a database, a Redis and a NATS of its own, any number of replicas of
//! the real binary, simulated routers.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::pull::OrderedConfig};
use futures_util::StreamExt as _;
use mikrotik_backup::adapters::jetstream::SnapshotEvent;
use mikrotik_backup::credentials::Key;
use mikrotik_backup::sim::Router;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use tokio::io::AsyncReadExt as _;
use uuid::Uuid;

use super::poll::until;
use crate::services::nats::Nats;
use crate::services::postgres::{self, Database, NewDevice};
use crate::services::process::Process;
use crate::services::redis::{self, Redis};
use crate::services::stopwatch::Stopwatch;

/// What the poller publishes to.
const SUBJECTS: &str = "config.snapshot.create.>";

/// A recognisable credential key.
pub const KEY: [u8; 32] = *b"k3y-0f-the-cluster-tests-9f2a7c!";

/// The servers of one test.
pub struct Cluster {
    pub database: Database,
    pub redis: Redis,
    pub nats: Nats,
    directory: tempfile::TempDir,
    _stopwatch: Stopwatch,
}

/// A running process of the service.
pub struct Replica {
    pub name: String,
    pub http: String,
    pid: Pid,
    process: Process,
}

impl Cluster {
    /// Starts the servers; `None` when one is not installed.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[], "").await
    }

    /// Like [`Self::start`], with further options of Redis and lines in the configuration of NATS.
    pub async fn start_with(redis: &[&str], nats: &str) -> Option<Self> {
        let stopwatch = Stopwatch::start();
        let database = postgres::fresh_database().await?;
        let redis = Redis::start_private(redis).await?;
        let nats = Nats::start_private(nats).await?;
        let directory = tempfile::tempdir().expect("a temporary folder");
        Some(Self {
            database,
            redis,
            nats,
            directory,
            _stopwatch: stopwatch,
        })
    }

    /// The environment of a replica: short times, everything that the servers need.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let key = base64(&KEY);
        [
            ("DATABASE_URL", self.database.url.clone()),
            ("REDIS_URL", self.redis.url().expose_secret().to_owned()),
            ("NATS_URL", self.nats.url().expose_secret().to_owned()),
            ("CREDENTIAL_ENCRYPTION_KEY", key),
            ("CONFIG_BACKUP_JITTER_MIN", "0".into()),
            ("CONFIG_BACKUP_JITTER_MAX", "0".into()),
            ("CONFIG_BACKUP_OFFLINE_RECHECK", "1".into()),
            ("CONFIG_BACKUP_COMMAND_TIMEOUT", "10".into()),
            ("DEVICE_REFRESH_SECONDS", "1".into()),
            ("LOG_FORMAT", "json".into()),
            ("LOG_LEVEL", "debug".into()),
            // JetStream sets all of it aside: the default asks for more than some disks have.
            ("NATS_STREAM_MAX_BYTES", (256_u64 << 20).to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Starts a replica with `overrides` of the environment, and waits until it answers.
    pub async fn replica(&self, name: &str, overrides: &[(&str, &str)]) -> Replica {
        let replica = self.spawn(name, overrides);
        let http = replica.http.clone();
        let livez = replica
            .process
            .wait_until("answering", || async { get(&http, "/livez").await.is_ok() });
        livez.await;
        replica
    }

    /// Starts a replica and returns at once.
    pub fn spawn(&self, name: &str, overrides: &[(&str, &str)]) -> Replica {
        self.spawn_role("run", name, overrides)
    }

    /// Starts a process of the subcommand `role` and returns at once.
    pub fn spawn_role(&self, role: &str, name: &str, overrides: &[(&str, &str)]) -> Replica {
        let http = format!("127.0.0.1:{}", redis::free_port());
        let mut command = self.command(name, overrides);
        command.arg(role).env("HTTP_ADDR", &http);
        let process = Process::spawn(
            name,
            &command,
            &self.directory.path().join(format!("{name}.log")),
        );
        Replica {
            name: name.to_owned(),
            http,
            pid: process.pid(),
            process,
        }
    }

    /// The binary with the cluster's environment and nothing else of ours.
    pub fn command(&self, name: &str, overrides: &[(&str, &str)]) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.directory.path());
        command.envs(self.environment()).env("HOSTNAME", name);
        command.envs(overrides.iter().copied());
        command
    }

    /// Inserts a row for `router` with its own credentials.
    pub async fn insert(&self, router: &Router) -> Uuid {
        self.insert_with(router, &router.username(), &router.password())
            .await
    }

    /// Inserts a row for `router` with these credentials.
    pub async fn insert_with(&self, router: &Router, user: &str, password: &str) -> Uuid {
        let address = router.address();
        let device = NewDevice {
            hostname: router.name().to_owned(),
            ip_address: address.ip().to_string(),
            ssh_port: Some(address.port().into()),
            encrypted_credentials: Some(sealed(user, password)),
            ..NewDevice::default()
        };
        postgres::insert_device(&self.database.pool, device).await.0
    }

    /// The state of a device, once there is one that `wanted` accepts.
    pub async fn state_when(
        &self,
        device: Uuid,
        what: &str,
        wanted: impl Fn(&State) -> bool,
    ) -> State {
        until(what, || async {
            self.state(device).await.filter(|state| wanted(state))
        })
        .await
    }

    /// The state of a device now.
    pub async fn state(&self, device: Uuid) -> Option<State> {
        let row = sqlx::query(
            "SELECT status, error_kind, error, consecutive_failures, blocked_since IS NOT NULL AS \
             blocked, offered_fingerprint, last_hash, routeros_version, last_attempt_id, \
             extract(epoch FROM next_due - now())::float8 AS due_in \
             FROM mikrotik_backup.device_state WHERE device_id = $1 AND status IS NOT NULL",
        )
        .bind(device)
        .fetch_optional(&self.database.pool)
        .await
        .expect("read the state")?;
        Some(State {
            status: row.get("status"),
            error_kind: row.get("error_kind"),
            error: row.get("error"),
            failures: row.get("consecutive_failures"),
            blocked: row.get("blocked"),
            offered: row.get("offered_fingerprint"),
            hash: row.get("last_hash"),
            routeros_version: row.get("routeros_version"),
            last_attempt: row.get("last_attempt_id"),
            due_in: row.get("due_in"),
        })
    }

    /// How many rows of the journal `condition` (SQL) selects.
    pub async fn attempts(&self, condition: &str) -> i64 {
        let statement = format!("SELECT count(*) FROM mikrotik_backup.attempts WHERE {condition}");
        sqlx::query_scalar(AssertSqlSafe(statement))
            .fetch_one(&self.database.pool)
            .await
            .expect("count attempts")
    }

    /// Creates the stream before the service does, with a duplicate window so short that what is
    /// published twice is there twice.
    pub async fn create_stream(&self) {
        let stream = jetstream::stream::Config {
            name: "PLATFORM".to_owned(),
            subjects: vec!["config.snapshot.>".to_owned()],
            // The shortest that the server allows.
            duplicate_window: std::time::Duration::from_millis(100),
            ..jetstream::stream::Config::default()
        };
        let js = self.nats.jetstream().await;
        js.create_stream(stream).await.expect("create the stream");
    }

    /// Waits until the stream of [`Self::create_stream`] has forgotten the ids of all that it has:
    /// until it has forgotten one that came later. The marks are taken out again.
    pub async fn ids_are_forgotten(&self) {
        let js = self.nats.jetstream().await;
        let mark = format!("config.snapshot.mark.{}", Uuid::new_v4());
        let sent = std::cell::Cell::new(0);
        until("the stream to forget an id", || async {
            let message = jetstream::message::PublishMessage::build();
            let message = message.header("Nats-Msg-Id", mark.as_str());
            let ack = js.send_publish(mark.clone(), message).await;
            let ack = ack.expect("send a mark").await.expect("its ack");
            sent.set(sent.get() + 1);
            (sent.get() > 1 && !ack.duplicate).then_some(())
        })
        .await;
        let stream = js.get_stream("PLATFORM").await.expect("the stream");
        let purged = stream.purge().filter(mark).await;
        purged.expect("take the marks out");
    }

    /// Every message that is in the stream now, with its `Nats-Msg-Id`.
    pub async fn messages(&self) -> Vec<(String, SnapshotEvent)> {
        let client = async_nats::connect(self.nats.url().expose_secret())
            .await
            .expect("connect to NATS");
        let js = jetstream::new(client);
        let Ok(name) = js.stream_by_subject(SUBJECTS).await else {
            return Vec::new();
        };
        let mut stream = js.get_stream(name).await.expect("open the stream");
        let count = stream.info().await.expect("stream info").state.messages;
        let config = OrderedConfig {
            filter_subject: SUBJECTS.to_owned(),
            deliver_policy: DeliverPolicy::All,
            ..OrderedConfig::default()
        };
        let consumer = stream
            .create_consumer(config)
            .await
            .expect("create a consumer");
        let messages = consumer.messages().await.expect("read messages");
        let count = usize::try_from(count).expect("a small stream");
        messages
            .take(count)
            .map(|message| {
                let message = message.expect("a message");
                let headers = message.headers.clone().expect("headers");
                let id = headers.get("Nats-Msg-Id").expect("an id").to_string();
                let event = serde_json::from_slice(&message.payload).expect("a snapshot event");
                (id, event)
            })
            .collect()
            .await
    }

    /// The configuration of `event`, from the object store where it is not in the event itself.
    pub async fn text_of(&self, event: &SnapshotEvent) -> String {
        if let Some(text) = &event.config_text {
            return text.expose().to_owned();
        }
        let reference = event.config_ref.as_ref().expect("a text or a reference");
        let jetstream = self.nats.jetstream().await;
        let bucket = jetstream.get_object_store(&reference.bucket).await;
        let object = bucket.expect("the bucket").get(&reference.object).await;
        let mut text = String::new();
        let mut object = object.expect("the object");
        object.read_to_string(&mut text).await.expect("read it");
        text
    }

    /// The messages of one device.
    pub async fn messages_of(&self, device: Uuid) -> Vec<(String, SnapshotEvent)> {
        let mut messages = self.messages().await;
        messages.retain(|(_, event)| event.device_id.0 == device);
        messages
    }

    /// Sets what the platform's status poller would.
    pub async fn presence(&self, device: Uuid, status: &str) {
        let mut client = self.redis.client().await;
        ::redis::cmd("SET")
            .arg(format!("device:{device}:status"))
            .arg(status)
            .exec_async(&mut client)
            .await
            .expect("set the presence");
    }

    pub fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }
}

/// A row of `device_state`.
#[derive(Clone, Debug)]
pub struct State {
    pub status: String,
    pub error_kind: Option<String>,
    pub error: Option<String>,
    pub failures: i32,
    pub blocked: bool,
    pub offered: Option<String>,
    pub hash: Option<String>,
    pub routeros_version: Option<String>,
    pub last_attempt: Option<Uuid>,
    pub due_in: Option<f64>,
}

impl Replica {
    /// The process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("send a signal");
    }

    /// Waits for its end and returns its exit code.
    pub async fn exit_code(&mut self) -> i32 {
        self.process.exit_code().await
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The log lines as JSON.
    pub fn events(&self) -> Vec<serde_json::Value> {
        let log = self.log();
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// One series of the metrics page.
    pub async fn metric(&self, series: &str) -> f64 {
        metric(&self.http, series).await
    }
}

/// One series of the metrics page at `address`.
pub async fn metric(address: &str, series: &str) -> f64 {
    let page = get(address, "/metrics").await.expect("the metrics page");
    page.lines()
        .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
        .unwrap_or_else(|| panic!("no series {series} in:\n{page}"))
}

/// GETs a page and returns its body, whatever the status.
pub async fn get(address: &str, path: &str) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok(body.to_owned())
}

/// The binary under test.
pub fn binary() -> PathBuf {
    env!("CARGO_BIN_EXE_mikrotik-backup").into()
}

/// The column `encrypted_credentials` for a user and password.
pub fn sealed(user: &str, password: &str) -> Vec<u8> {
    let json = serde_json::json!({ "username": user, "password": password }).to_string();
    Key::from_bytes(KEY).seal(rand::random(), json.as_bytes())
}

pub fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}
