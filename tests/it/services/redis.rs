//! A private redis-server: one shared by the tests of a run, or one of its own for a test that
//! stops it, freezes it or wants TLS.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::process::{Process, require};

/// A redis-server.
pub struct Redis {
    program: PathBuf,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// The server that tests share: each uses device ids of its own. It listens on a socket only.
    /// `None` when redis-server is not installed.
    pub async fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Redis>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            let mut redis = Self::prepare(0, &[])?;
            redis.spawn();
            Some(redis)
        });
        let redis = shared.as_ref()?;
        redis.wait_until_ready().await;
        Some(redis)
    }

    /// A server of one's own on a loopback port, with further `options` (as on the command line).
    pub async fn start_private(options: &[&str]) -> Option<Self> {
        let mut redis = Self::prepare(free_port(), options)?;
        redis.start().await;
        Some(redis)
    }

    /// Like [`Self::start_private`], but not started yet.
    pub fn prepare_private(options: &[&str]) -> Option<Self> {
        Self::prepare(free_port(), options)
    }

    fn prepare(port: u16, options: &[&str]) -> Option<Self> {
        Some(Self {
            program: require("redis-server")?,
            directory: tempfile::Builder::new()
                .prefix("redis-")
                .tempdir()
                .expect("create a directory for redis-server"),
            port,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            process: None,
        })
    }

    /// Starts it, on the same port as before.
    pub async fn start(&mut self) {
        self.spawn();
        self.wait_until_ready().await;
    }

    /// Kills it. What it knew is gone: nothing is saved.
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

    /// The URL to connect to: the port where it has one, else the socket.
    pub fn url(&self) -> SecretString {
        if self.port == 0 {
            format!("redis+unix://{}", self.socket().display()).into()
        } else {
            format!("redis://127.0.0.1:{}", self.port).into()
        }
    }

    /// Its port, 0 when it listens on a socket only.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client for the test itself.
    pub async fn client(&self) -> redis::aio::MultiplexedConnection {
        let path = self.socket().display().to_string();
        let client = redis::Client::open(format!("redis+unix://{path}")).expect("a socket URL");
        client
            .get_multiplexed_async_connection()
            .await
            .expect("connect to the socket of redis-server")
    }

    fn spawn(&mut self) {
        let _ = std::fs::remove_file(self.pid_file());
        let mut command = Command::new(&self.program);
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &self.port.to_string()])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.directory.path())
            .arg("--pidfile")
            .arg(self.pid_file())
            .args(&self.options);
        let log = self.directory.path().join("log");
        self.process = Some(Process::spawn("redis-server", &command, &log));
    }

    async fn wait_until_ready(&self) {
        let process = self.process.as_ref().expect("redis-server was started");
        let socket = self.socket();
        process
            .wait_until("answering PING", || pongs(&socket))
            .await;
        if self.port != 0 {
            process
                .wait_until("listening", || async {
                    TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
                })
                .await;
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.path().join("pid")
    }
}

async fn pongs(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket).await else {
        return false;
    };
    let mut answer = [0; 5];
    stream.write_all(b"PING\r\n").await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        // One that wants a password first is ready too.
        && matches!(&answer, b"+PONG" | b"-NOAU")
}

/// Freezes the process whose id is in `pid_file`, and returns when its last thread stands still:
/// the signal alone leaves them a moment in which one more request is answered.
pub fn freeze(pid_file: &Path) {
    freeze_process(read_pid(pid_file));
}

/// Freezes a process, and returns when its last thread stands still.
pub fn freeze_process(pid: Pid) {
    kill(pid, Signal::SIGSTOP).expect("signal a process");
    let give_up = Instant::now() + Duration::from_secs(20);
    while !stands_still(pid) {
        assert!(Instant::now() < give_up, "process {pid} does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets a frozen process go on.
pub fn thaw(pid_file: &Path) {
    kill(read_pid(pid_file), Signal::SIGCONT).expect("signal the server");
}

fn read_pid(pid_file: &Path) -> Pid {
    let pid = std::fs::read_to_string(pid_file).expect("read the server's pid");
    Pid::from_raw(pid.trim().parse().expect("the server's pid is a number"))
}

/// Whether every thread is in state `T`, the first field after the name (proc_pid_stat(5)).
fn stands_still(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("list the threads");
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('T'))
    })
}

/// A loopback port that is free, and below those that the kernel gives to outgoing connections
/// (from 32768, ip(7)), so that none of the many that tests open takes it before the server does.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let process = std::process::id().wrapping_mul(97);
        let turn = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + process.wrapping_add(turn) % 12_000;
        let port = u16::try_from(port).expect("below 32000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
