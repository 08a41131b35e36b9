//! A private PostgreSQL for the tests: one server for the whole run, a database for each test.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use mikrotik_backup::adapters::postgres::PostgresStore;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::domain::device::DeviceId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User, chown};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::process::{self, Process};

/// The database that each test's own is copied from.
const TEMPLATE: &str = "migrated";

/// A running server, reachable on a Unix socket, and on a loopback port if it is a private one.
pub struct Postgres {
    directory: PathBuf,
    port: Option<u16>,
    process: Option<Process>,
    _janitor: Janitor,
}

/// A database of one test.
pub struct Database {
    /// For the service: `postgres://…`.
    pub url: String,
    /// For the test itself, as superuser.
    pub pool: PgPool,
}

/// A database with the service's schema; `None` when PostgreSQL is not installed.
pub async fn fresh_database() -> Option<Database> {
    Some(shared().await?.database(TEMPLATE).await)
}

/// A database with nothing in it; `None` when PostgreSQL is not installed.
pub async fn empty_database() -> Option<Database> {
    Some(shared().await?.database("template0").await)
}

/// What the shared server has logged, each line after the application name of its connection.
pub async fn shared_log() -> String {
    let server = shared().await.expect("a test that has a database of it");
    server
        .process
        .as_ref()
        .map(Process::log)
        .unwrap_or_default()
}

async fn shared() -> Option<&'static Postgres> {
    static SHARED: OnceCell<Option<Postgres>> = OnceCell::const_new();
    let start = async || Postgres::start(None).await;
    SHARED.get_or_init(start).await.as_ref()
}

impl Postgres {
    /// A server for one test alone, also on a loopback port, that can be stopped and started.
    pub async fn start_private() -> Option<Self> {
        // Free a moment ago: good enough, and the same port serves the next start.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        Self::start(Some(free.expect("a free loopback port").port())).await
    }

    async fn start(port: Option<u16>) -> Option<Self> {
        let initdb = process::require("initdb")?;
        process::require("postgres")?;
        let directory = tempfile::Builder::new()
            .prefix("mbpg-")
            .permissions(PermissionsExt::from_mode(0o755))
            .tempdir()
            .expect("a directory for PostgreSQL")
            .keep();
        if let Some(user) = unprivileged() {
            chown(&directory, Some(user.uid), Some(user.gid)).expect("give the directory away");
        }
        let mut server = Self {
            _janitor: Janitor::watch(&directory),
            directory,
            port,
            process: None,
        };
        let output = as_unprivileged(&initdb)
            .args([
                "--auth=trust",
                "--no-sync",
                "--username=postgres",
                "--encoding=UTF8",
                "--no-locale",
            ])
            .arg("--pgdata")
            .arg(server.data())
            .current_dir(&server.directory)
            .output()
            .expect("run initdb");
        assert!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        server.launch().await;
        server.prepare_template().await;
        Some(server)
    }

    /// Starts the server again after [`Postgres::stop`].
    pub async fn launch(&mut self) {
        let binary = process::require("postgres").expect("it was there for initdb");
        let mut command = as_unprivileged(&binary);
        command
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(&self.directory);
        let port = self.port.unwrap_or(5432);
        let addresses = if self.port.is_some() { "127.0.0.1" } else { "" };
        for setting in [
            format!("port={port}"),
            format!("listen_addresses={addresses}"),
            "fsync=off".into(),
            "synchronous_commit=off".into(),
            "full_page_writes=off".into(),
            "max_connections=400".into(),
            "log_line_prefix=%a ".into(),
        ] {
            command.arg("-c").arg(setting);
        }
        command.current_dir(&self.directory);
        let process = Process::spawn("postgres", &command, &self.directory.join("log"));
        let options = self.options("postgres");
        process
            .wait_until("answering", || async {
                match PgConnection::connect_with(&options).await {
                    Ok(connection) => connection.close().await.is_ok(),
                    Err(_) => false,
                }
            })
            .await;
        self.process = Some(process);
    }

    /// Stops the server as an operator would, closing every connection.
    pub async fn stop(&mut self) {
        let file =
            std::fs::read_to_string(self.data().join("postmaster.pid")).expect("a running server");
        let pid: i32 = file
            .lines()
            .next()
            .and_then(|line| line.parse().ok())
            .expect("a process id");
        // SIGINT asks for a fast shutdown: running statements end with an error.
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("stop the server");
        let data = self.data();
        let process = self.process.take().expect("a running server");
        process
            .wait_until("stopped", async || !data.join("postmaster.pid").exists())
            .await;
    }

    /// `postgres://…` for a private server, over TCP.
    pub fn tcp_url(&self, database: &str) -> String {
        let port = self.port();
        format!("postgres://postgres@127.0.0.1:{port}/{database}")
    }

    /// The port of a private server.
    pub fn port(&self) -> u16 {
        self.port.expect("only private servers listen on TCP")
    }

    /// A database of its own, copied from `template`.
    pub async fn database(&self, template: &str) -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.administer(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await;
        let pool = PgPoolOptions::new()
            .max_connections(5)
            .connect_lazy_with(self.options(&name));
        Database {
            url: self.url("postgres", &name),
            pool,
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn url(&self, role: &str, database: &str) -> String {
        let socket = self.directory.display().to_string().replace('/', "%2F");
        let port = self.port.unwrap_or(5432);
        format!("postgres://{role}@{socket}:{port}/{database}")
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.directory)
            .port(self.port.unwrap_or(5432))
            .username("postgres")
            .database(database)
            .application_name("a test")
    }

    async fn administer(&self, statement: &str) {
        let connection = PgConnection::connect_with(&self.options("postgres")).await;
        let mut connection = connection.expect("connect as superuser");
        let result = connection.execute(AssertSqlSafe(statement)).await;
        result.unwrap_or_else(|error| panic!("{statement}: {error}"));
        connection.close().await.expect("close the connection");
    }

    async fn prepare_template(&self) {
        self.administer(&format!("CREATE DATABASE {TEMPLATE}"))
            .await;
        let url = self.url("postgres", TEMPLATE).into();
        let store = PostgresStore::connect(&url, Clock::System, "template").expect("a valid URL");
        store.migrate().await.expect("migrate the template");
        store.close().await;
    }
}

impl Database {
    /// The same database for another role, which must be able to log in.
    pub fn url_as(&self, role: &str) -> String {
        self.url.replacen("//postgres@", &format!("//{role}@"), 1)
    }

    /// Runs statements as superuser.
    pub async fn sql(&self, statements: &str) {
        let result = self.pool.execute(AssertSqlSafe(statements)).await;
        result.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// A store on this database.
    pub fn store(&self, replica: &str) -> PostgresStore {
        open(&self.url, replica)
    }
}

/// A store on `url`.
pub fn open(url: &str, replica: &str) -> PostgresStore {
    PostgresStore::connect(&url.into(), Clock::System, replica).expect("a valid URL")
}

/// A row of `devices`.
#[derive(Clone, Debug)]
pub struct NewDevice {
    pub id: Uuid,
    pub tenant: Uuid,
    pub hostname: String,
    pub ip_address: String,
    pub ssh_port: Option<i32>,
    pub device_type: Option<String>,
    pub routeros_version: Option<String>,
    pub encrypted_credentials: Option<Vec<u8>>,
    pub encrypted_credentials_transit: Option<String>,
    pub credential_profile_id: Option<Uuid>,
    pub ssh_host_key_fingerprint: Option<String>,
}

impl Default for NewDevice {
    fn default() -> Self {
        let id = Uuid::new_v4();
        Self {
            id,
            tenant: Uuid::new_v4(),
            hostname: format!("router-{}", id.simple()),
            ip_address: "192.0.2.1".into(),
            ssh_port: None,
            device_type: None,
            routeros_version: None,
            encrypted_credentials: Some(b"sealed".to_vec()),
            encrypted_credentials_transit: None,
            credential_profile_id: None,
            ssh_host_key_fingerprint: None,
        }
    }
}

/// Inserts `device` as an operator would.
pub async fn insert_device(pool: &PgPool, device: NewDevice) -> DeviceId {
    sqlx::query(
        "INSERT INTO devices (id, tenant_id, hostname, ip_address, ssh_port, device_type, \
         routeros_version, encrypted_credentials, encrypted_credentials_transit, \
         credential_profile_id, ssh_host_key_fingerprint) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(device.id)
    .bind(device.tenant)
    .bind(device.hostname)
    .bind(device.ip_address)
    .bind(device.ssh_port)
    .bind(device.device_type)
    .bind(device.routeros_version)
    .bind(device.encrypted_credentials)
    .bind(device.encrypted_credentials_transit)
    .bind(device.credential_profile_id)
    .bind(device.ssh_host_key_fingerprint)
    .execute(pool)
    .await
    .expect("insert a device");
    DeviceId(device.id)
}

/// The user that servers run as: PostgreSQL refuses root.
fn unprivileged() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    let user = ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| User::from_name(name).ok().flatten());
    Some(user.expect("a user for PostgreSQL to run as"))
}

fn as_unprivileged(program: &Path) -> Command {
    match unprivileged() {
        None => Command::new(program),
        Some(User { uid, gid, .. }) => {
            let mut command = Command::new("setpriv");
            let Gid { .. } = gid;
            command
                .arg(format!("--reuid={uid}"))
                .arg(format!("--regid={gid}"))
                .arg("--clear-groups")
                .arg(program);
            command
        }
    }
}

/// Removes the directory of a server, and the one shared memory segment that a killed server
/// leaves behind, once the server is gone: when this is dropped, and also when the test process
/// ends in any way at all.
struct Janitor(Child);

impl Janitor {
    fn watch(directory: &Path) -> Self {
        // The pid file names the server in its first line and the segment in its seventh.
        const SCRIPT: &str = r#"cat >/dev/null; file="$1/data/postmaster.pid"
            if pid=$(head -n 1 "$file" 2>/dev/null); then
                segment=$(sed -n 7p "$file" | awk '{print $2}')
                kill -INT "$pid" 2>/dev/null
                while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
                if [ -e "$file" ] && [ -n "$segment" ]; then ipcrm -m "$segment" 2>/dev/null; fi
            fi
            rm -rf "$1""#;
        let child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "janitor"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("start the janitor of PostgreSQL"))
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
