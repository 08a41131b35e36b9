//! A child process that cannot outlive the test run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// Starts the rest of the arguments, reports its process id, and kills it when our pipe ends; its
/// own end is the end of the watchdog, with its exit code.
const WATCHDOG: &str = r#"
exec 3<&0
pidfile=$1
shift
"$@" </dev/null 3<&- &
pid=$!
echo $pid >"$pidfile.new" && mv "$pidfile.new" "$pidfile"
(cat <&3; kill -9 $pid) >/dev/null 2>&1 &
wait $pid
"#;

/// A running server. It is killed when this is dropped, and also when the test process ends in any
/// way at all (statics are never dropped): a shell beside it waits for the end of our pipe.
pub struct Process {
    watchdog: Child,
    name: String,
    log: PathBuf,
    pid_file: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `log`.
    pub fn spawn(name: &str, command: &Command, log: &Path) -> Self {
        let output = File::create(log).expect("create the log file of a service");
        let pid_file = log.with_extension("pid");
        let _ = std::fs::remove_file(&pid_file);
        let mut wrapped = Command::new("/bin/sh");
        wrapped
            .arg("-c")
            .arg(WATCHDOG)
            .arg("watchdog")
            .arg(&pid_file)
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("share the log file"))
            .stderr(output);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        let watchdog = wrapped
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        Self {
            watchdog,
            name: name.to_owned(),
            log: log.to_owned(),
            pid_file,
        }
    }

    /// Polls `ready` until it answers, and panics with the service's log when it does not.
    pub async fn wait_until<F, Fut>(&self, what: &str, mut ready: F)
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = bool>,
    {
        let give_up = Instant::now() + Duration::from_secs(60);
        while !ready().await {
            let log = self.log();
            assert!(
                Instant::now() < give_up,
                "{} is not {what} after 60 s:\n{log}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The process id of the server itself.
    pub fn pid(&self) -> Pid {
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            let text = std::fs::read_to_string(&self.pid_file).unwrap_or_default();
            if let Ok(pid) = text.trim().parse() {
                return Pid::from_raw(pid);
            }
            assert!(Instant::now() < give_up, "{} has no process id", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end; the exit code, or 128 and the signal's number.
    pub async fn exit_code(&mut self) -> i32 {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.watchdog.try_wait().expect("look at a service") {
                return status.code().unwrap_or(-1);
            }
            let log = self.log();
            assert!(
                Instant::now() < give_up,
                "{} does not end:\n{log}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// A variable of the environment; empty where it is not set.
#[expect(
    clippy::disallowed_methods,
    reason = "which programs there are is the environment's to say"
)]
pub fn variable(name: &str) -> std::ffi::OsString {
    std::env::var_os(name).unwrap_or_default()
}

/// The full path of `program`, looked for on PATH and where Debian hides server binaries.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = variable("PATH");
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend([
        "/usr/sbin".into(),
        "/usr/local/sbin".into(),
        "/usr/local/bin".into(),
    ]);
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    places
        .into_iter()
        .map(|place| place.join(program))
        .find(|candidate| candidate.is_file())
}

/// Like [`find`]; a missing program skips the test with a printed reason (`None`), or fails it
/// when `REQUIRE_SERVICES=1`.
pub fn require(program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        let required = variable("REQUIRE_SERVICES") == "1";
        assert!(
            !required,
            "{program} is not installed, and REQUIRE_SERVICES=1"
        );
        eprintln!("skipped: {program} is not installed (scripts/test installs it)");
    }
    found
}
