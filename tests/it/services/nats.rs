//! A private nats-server with JetStream: it starts in milliseconds, so each test has its own.

use std::path::PathBuf;
use std::process::Command;

use async_nats::ConnectOptions;
use async_nats::jetstream::{self, Context};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::process::{Process, require};
use super::redis::{free_port, freeze, thaw};

/// A nats-server on a loopback port of its own.
pub struct Nats {
    program: PathBuf,
    directory: TempDir,
    port: u16,
    process: Option<Process>,
}

impl Nats {
    /// Starts one; `config` is added to its configuration file. `None` when nats-server is not
    /// installed.
    pub async fn start_private(config: &str) -> Option<Self> {
        let mut nats = Self::prepare_private(config)?;
        nats.start().await;
        Some(nats)
    }

    /// Starts one whose JetStream has `limits` (lines of the `jetstream` block).
    pub async fn start_limited(limits: &str) -> Option<Self> {
        Self::start_limited_with(limits, "").await
    }

    /// Both.
    pub async fn start_limited_with(limits: &str, config: &str) -> Option<Self> {
        let mut nats = Self::prepare(limits, config)?;
        nats.start().await;
        Some(nats)
    }

    /// Like [`Self::start_private`], but not started yet.
    pub fn prepare_private(config: &str) -> Option<Self> {
        Self::prepare("", config)
    }

    fn prepare(limits: &str, config: &str) -> Option<Self> {
        let program = require("nats-server")?;
        let directory = tempfile::Builder::new()
            .prefix("nats-")
            .tempdir()
            .expect("create a directory for nats-server");
        let store = directory.path().join("store");
        let config = format!("jetstream {{\nstore_dir: {store:?}\n{limits}\n}}\n{config}\n");
        std::fs::write(directory.path().join("config"), config).expect("write the configuration");
        Some(Self {
            program,
            directory,
            port: free_port(),
            process: None,
        })
    }

    /// Starts it, on the same port and with the same streams as before.
    pub async fn start(&mut self) {
        let mut command = Command::new(&self.program);
        command
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string()])
            .arg("--pid")
            .arg(self.pid_file())
            .arg("--config")
            .arg(self.directory.path().join("config"));
        let log = self.directory.path().join("log");
        let process = Process::spawn("nats-server", &command, &log);
        let port = self.port;
        process
            .wait_until("greeting", || async move {
                let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
                    return false;
                };
                let mut greeting = [0; 5];
                stream.read_exact(&mut greeting).await.is_ok() && &greeting == b"INFO "
            })
            .await;
        self.process = Some(process);
    }

    /// Kills it. What it stored stays.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Stops it from answering without closing anything, until [`Self::thaw`].
    pub fn freeze(&self) {
        freeze(&self.pid_file());
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        thaw(&self.pid_file());
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL to connect to, without credentials.
    pub fn url(&self) -> SecretString {
        self.url_as("")
    }

    /// The URL with `login` (`user:password@`) in it.
    pub fn url_as(&self, login: &str) -> SecretString {
        format!("nats://{login}127.0.0.1:{}", self.port).into()
    }

    /// JetStream as the test itself sees it, without credentials.
    pub async fn jetstream(&self) -> Context {
        self.jetstream_as("").await
    }

    /// JetStream as the test itself sees it, with `login` (`user:password@`).
    pub async fn jetstream_as(&self, login: &str) -> Context {
        // The client knows nothing of credentials in a URL.
        let (user, password) = login
            .trim_end_matches('@')
            .split_once(':')
            .unwrap_or_default();
        let options = match user {
            "" => ConnectOptions::new(),
            user => ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned()),
        };
        let address = format!("nats://127.0.0.1:{}", self.port);
        let client = async_nats::connect_with_options(address, options).await;
        jetstream::new(client.expect("connect to the test's nats-server"))
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.path().join("pid")
    }
}
