//! One folder, the real binary on it, simulated routers.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mikrotik_backup::adapters::archive::SealedArchive;
use mikrotik_backup::adapters::sqlite::{NewDevice, SqliteStore};
use mikrotik_backup::clock::Clock;
use mikrotik_backup::credentials::Login;
use mikrotik_backup::domain::archive::Version;
use mikrotik_backup::domain::device::{DeviceId, TenantId};
use mikrotik_backup::ports::{Archive as _, JournalEntry, JournalPage, Store as _, VersionPage};
use mikrotik_backup::routeros;
use mikrotik_backup::sim::{Router, RouterOptions};
use nix::sys::signal::{Signal, kill};
use uuid::Uuid;

use crate::cluster::harness::{binary, get};
use crate::cluster::poll::until;
use crate::services::process::Process;
use crate::services::redis::free_port;

/// An export with a state comment that no rule knows.
pub const UNKNOWN_COMMENT: &str = "# 2026-01-02 03:04:05 by RouterOS 7.16.2\n\
    # model = RB5009UPr+S+\n/interface wifi\n# radar detected\nset [ find ] disabled=no\n\
    /system identity\nset name=doctor\n";

/// A `DATA_DIR` and where the logs of its processes go.
pub struct Folder {
    place: tempfile::TempDir,
}

/// A running service.
pub struct Service {
    pub http: String,
    process: Process,
}

impl Folder {
    pub fn new() -> Self {
        Self {
            place: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// One that lies in `place`.
    pub fn within(place: &Path) -> Self {
        Self {
            place: tempfile::tempdir_in(place).expect("a temporary folder"),
        }
    }

    pub fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// The binary with short times and nothing else of ours.
    pub fn command(&self, overrides: &[(&str, &str)]) -> Command {
        let mut command = Command::new(binary());
        command
            .current_dir(self.place.path())
            .env("DATA_DIR", self.data())
            .env("CONFIG_BACKUP_JITTER_MIN", "0")
            .env("CONFIG_BACKUP_JITTER_MAX", "0")
            .env("CONFIG_BACKUP_COMMAND_TIMEOUT", "10")
            .env("DEVICE_REFRESH_SECONDS", "1")
            .env("LOG_FORMAT", "json")
            .envs(overrides.iter().copied());
        command
    }

    /// Starts `run` and returns at once.
    pub fn spawn(&self, name: &str, overrides: &[(&str, &str)]) -> Service {
        let http = format!("127.0.0.1:{}", free_port());
        let mut command = self.command(overrides);
        command.arg("run").env("HTTP_ADDR", &http);
        let log = self.place.path().join(format!("{name}.log"));
        Service {
            http,
            process: Process::spawn(name, &command, &log),
        }
    }

    /// Starts `run` and waits until it is ready.
    pub async fn run(&self, name: &str, overrides: &[(&str, &str)]) -> Service {
        let service = self.spawn(name, overrides);
        let ready = async || {
            let page = get(&service.http, "/readyz").await;
            page.is_ok_and(|page| page.contains(r#""ready""#))
        };
        service.process.wait_until("ready", ready).await;
        service
    }

    /// Starts `run` on every address of the machine, and waits until it is ready.
    pub async fn run_open(&self, name: &str, overrides: &[(&str, &str)]) -> Service {
        let port = free_port();
        let mut command = self.command(overrides);
        command
            .arg("run")
            .env("HTTP_ADDR", format!("0.0.0.0:{port}"));
        let log = self.place.path().join(format!("{name}.log"));
        let service = Service {
            http: format!("127.0.0.1:{port}"),
            process: Process::spawn(name, &command, &log),
        };
        let ready = async || {
            let page = get(&service.http, "/readyz").await;
            page.is_ok_and(|page| page.contains(r#""ready""#))
        };
        service.process.wait_until("ready", ready).await;
        service
    }

    /// Runs a subcommand to its end, with `input` on its standard input.
    pub async fn cli(&self, arguments: &[&str], input: &str) -> Done {
        self.cli_with(&[], arguments, input).await
    }

    /// The same with other settings.
    pub async fn cli_with(
        &self,
        overrides: &[(&str, &str)],
        arguments: &[&str],
        input: &str,
    ) -> Done {
        let mut command = tokio::process::Command::from(self.command(overrides));
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("start the binary");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A command that reads no input may have ended already.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await;
        drop(stdin);
        let ended =
            tokio::time::timeout(std::time::Duration::from_secs(60), child.wait_with_output());
        let ended = ended.await.expect("the command ends").expect("its output");
        Done::of(ended)
    }

    /// Adds `router` through the store, with nothing running.
    pub async fn insert(&self, router: &Router) -> DeviceId {
        let store = SqliteStore::open(&self.data(), None, Clock::System)
            .await
            .expect("open the store");
        let address = router.address();
        let device = NewDevice {
            tenant: TenantId(Uuid::nil()),
            name: router.name().to_owned(),
            address: address.ip().to_string(),
            port: Some(address.port()),
            group: None,
            tags: Vec::new(),
            settings: Default::default(),
            host_key: None,
            login: Login {
                username: router.username(),
                password: Some(router.password().into()),
                private_key: None,
                private_key_passphrase: None,
            },
        };
        let id = store.add_device(&device).await.expect("add a device");
        store.close().await;
        id
    }

    /// The store as a reading command opens it.
    pub async fn reading(&self) -> SqliteStore {
        SqliteStore::open_reading(&self.data(), Clock::System)
            .await
            .expect("open the store for reading")
    }

    /// The versions of a device, newest first.
    pub async fn versions(&self, device: DeviceId) -> Vec<Version> {
        let archive = self.archive().await;
        let page = archive.versions(device, VersionPage::first(100)).await;
        page.expect("list the versions")
    }

    /// The newest configuration of a device.
    pub async fn newest_text(&self, device: DeviceId) -> String {
        let newest = self.versions(device).await;
        let opened = self.archive().await.open(newest[0].id).await;
        opened.expect("open a version").text.expose().to_owned()
    }

    /// Opens the text of each version, which proves it by its hash.
    pub async fn every_version_opens(&self, device: DeviceId) {
        let archive = self.archive().await;
        for version in self.versions(device).await {
            archive.open(version.id).await.expect("open a version");
        }
    }

    async fn archive(&self) -> SealedArchive {
        let store = self.reading().await;
        let key = store.unlock(None).await.expect("the key of the folder");
        SealedArchive::sqlite(store.readers().clone(), key, routeros::renormalize())
    }

    /// The journal, newest first.
    pub async fn journal(&self) -> Vec<JournalEntry> {
        let store = self.reading().await;
        let mut entries: Vec<JournalEntry> = Vec::new();
        loop {
            let page = JournalPage {
                device: None,
                before: entries.last().map(|entry| entry.id),
                limit: JournalPage::MAX,
            };
            let page = store.attempts(page).await.expect("read the journal");
            if page.is_empty() {
                return entries;
            }
            entries.extend(page);
        }
    }

    /// Waits until the journal of `device` has `count` successes.
    pub async fn backed_up(&self, device: DeviceId, count: usize) {
        until("backed up", || async {
            let journal = self.journal().await;
            let good = journal
                .iter()
                .filter(|row| row.device == device && row.status.as_str() == "success");
            (good.count() >= count).then_some(())
        })
        .await;
    }
}

impl Service {
    pub fn signal(&self, signal: Signal) {
        kill(self.process.pid(), signal).expect("send a signal");
    }

    pub async fn exit_code(&mut self) -> i32 {
        self.process.exit_code().await
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// How a subcommand ended.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Panics with the output unless the exit code is `code`.
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// A router on `address`.
pub fn router(name: &str, address: [u8; 4]) -> Router {
    Router::start_one(RouterOptions {
        name: name.to_owned(),
        address: (address, 0).into(),
        seed: u64::from(u32::from_be_bytes(address)),
        ..RouterOptions::default()
    })
    .expect("start a router")
}
