//! Real SSH servers for the tests: OpenSSH's sshd and dropbear, each on a loopback port of its own,
//! with a forced command that prints what is asked for.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mikrotik_backup::credentials::Login;
use mikrotik_backup::domain::device::Endpoint;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use super::process::{Process, require};

/// About five megabytes of lines, as a large export has them.
pub fn large_export() -> Vec<u8> {
    let mut text = Vec::with_capacity(5_300_000);
    for number in 0..100_000 {
        writeln!(
            text,
            "add address=192.0.2.1 comment=\"entry number {number}\"\r"
        )
        .expect("writing to memory");
    }
    text
}

/// A running server.
pub struct Sshd {
    process: Process,
    directory: TempDir,
    port: u16,
    user: String,
    /// The throw-away account that it lets in, where it is not our own.
    account: Option<Account>,
}

impl Sshd {
    /// OpenSSH's sshd that lets in our own user with a key. The keys are described by arguments of
    /// ssh-keygen, and `config` is added to its configuration. `None`: it is not installed.
    pub async fn start(host_key: &[&str], user_key: &[&str], config: &str) -> Option<Self> {
        Self::openssh(host_key, user_key, config, None).await
    }

    /// Like [`Sshd::start`], for a throw-away account with a password.
    pub async fn start_for(account: Account, config: &str) -> Option<Self> {
        let ed25519 = &["-t", "ed25519"];
        Self::openssh(ed25519, ed25519, config, Some(account)).await
    }

    async fn openssh(
        host_key: &[&str],
        user_key: &[&str],
        config: &str,
        account: Option<Account>,
    ) -> Option<Self> {
        let sshd = require("sshd")?;
        let directory = prepare();
        let at = |name: &str| directory.path().join(name);
        keygen(host_key, &at("host"));
        keygen(user_key, &at("user"));
        if nix::unistd::geteuid().is_root() {
            // Where sshd confines its unprivileged half; a package's service file makes it.
            fs::create_dir_all("/run/sshd").expect("create /run/sshd");
        }
        let (process, port) = on_a_free_port("sshd", &at("log"), |port| {
            let text = format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {host}\nPidFile none\n\
                 StrictModes no\nAuthorizedKeysFile {user}.pub\nPermitRootLogin yes\n\
                 ForceCommand /bin/sh {command}\nLogLevel VERBOSE\n{config}\n",
                host = at("host").display(),
                user = at("user").display(),
                command = at("command").display(),
            );
            fs::write(at("config"), text).expect("write the configuration of sshd");
            let mut command = Command::new(&sshd);
            command.args(["-D", "-e", "-f"]).arg(at("config"));
            command
        })
        .await;
        let user = account.as_ref().map_or_else(own_user, Account::name);
        Some(Self {
            process,
            directory,
            port,
            user,
            account,
        })
    }

    /// Dropbear that lets in a throw-away account with key or password. `None`: it is not
    /// installed.
    pub async fn dropbear(account: Account, host_key_type: &str) -> Option<Self> {
        let dropbear = require("dropbear")?;
        let directory = prepare();
        let at = |name: &str| directory.path().join(name);
        run(Command::new(require("dropbearkey")?)
            .args(["-t", host_key_type, "-f"])
            .arg(at("host")));
        keygen(&["-t", "ed25519"], &at("user"));
        account.authorize(&at("user.pub"));
        let (process, port) = on_a_free_port("dropbear", &at("log"), |port| {
            let mut command = Command::new(&dropbear);
            command
                .args(["-F", "-E", "-m", "-p", &format!("127.0.0.1:{port}"), "-c"])
                .arg(format!("/bin/sh {}", at("command").display()))
                .arg("-r")
                .arg(at("host"))
                .arg("-P")
                .arg(at("pid"));
            command
        })
        .await;
        Some(Self {
            process,
            directory,
            port,
            user: account.name(),
            account: Some(account),
        })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: "127.0.0.1".into(),
            port: self.port.into(),
        }
    }

    /// The fingerprint of its host key, as `ssh-keygen -lf` prints it.
    pub fn fingerprint(&self) -> String {
        let output = Command::new("ssh-keygen")
            .args(["-l", "-f"])
            .arg(self.directory.path().join("host.pub"))
            .output()
            .expect("run ssh-keygen");
        let text = String::from_utf8(output.stdout).expect("a line of text");
        let word = text.split(' ').nth(1).expect("bits, fingerprint, comment");
        word.to_owned()
    }

    /// A login with the key that it knows.
    pub fn key_login(&self) -> Login {
        let key = fs::read_to_string(self.directory.path().join("user")).expect("the user's key");
        Login {
            private_key: Some(SecretString::from(key)),
            ..self.password_login(None)
        }
    }

    /// A login with this password.
    pub fn password_login(&self, password: Option<&str>) -> Login {
        Login {
            username: self.user.clone(),
            password: password.map(SecretString::from),
            private_key: None,
            private_key_passphrase: None,
        }
    }

    /// The password of its throw-away account.
    pub fn password(&self) -> &str {
        let account = self.account.as_ref();
        &account.expect("a server with an account").password
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// A directory that any user may read, with the forced command in it.
fn prepare() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    readable(path, 0o755);
    fs::write(path.join("large"), large_export()).expect("write the export");
    readable(&path.join("large"), 0o644);
    let script = format!(
        "case \"$SSH_ORIGINAL_COMMAND\" in\n\
         large) cat {large};;\n\
         both) echo out; echo err >&2; exit 3;;\n\
         killed) echo begun; kill -9 $$;;\n\
         hang) echo begun; exec cat;;\n\
         *) printf 'ran %s\\n' \"$SSH_ORIGINAL_COMMAND\";;\n\
         esac\n",
        large = path.join("large").display(),
    );
    fs::write(path.join("command"), script).expect("write the forced command");
    readable(&path.join("command"), 0o755);
    directory
}

fn readable(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set permissions");
}

fn keygen(arguments: &[&str], file: &Path) {
    run(Command::new("ssh-keygen")
        .args(["-q", "-N", ""])
        .args(arguments)
        .arg("-f")
        .arg(file));
}

fn run(command: &mut Command) {
    let output = command.output().expect("start a helper program");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn own_user() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    user.expect("read the user database")
        .expect("a user with a name")
        .name
}

/// Starts what `command` makes for a port until one comes up: another process may have taken the
/// port in between.
async fn on_a_free_port(
    name: &str,
    log: &Path,
    command: impl Fn(u16) -> Command,
) -> (Process, u16) {
    for _ in 0..20 {
        // Below the range from which the kernel takes ports for outgoing connections.
        let port = rand::random_range(15_000..30_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        let process = Process::spawn(name, &command(port), log);
        let taken = || {
            let log = process.log();
            ["ind to port", "Address already in use", "ailed listening"]
                .iter()
                .any(|complaint| log.contains(complaint) && !log.contains("Server listening"))
        };
        process
            .wait_until("up", || async { taken() || greets(port).await })
            .await;
        if !taken() {
            return (process, port);
        }
    }
    panic!("no free port for {name}");
}

async fn greets(port: u16) -> bool {
    let Ok(mut stream) = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        return false;
    };
    let mut greeting = [0; 4];
    let read = stream.read_exact(&mut greeting);
    let read = tokio::time::timeout(Duration::from_secs(5), read).await;
    matches!(read, Ok(Ok(_))) && greeting == *b"SSH-"
}

/// A system user that exists for one test.
pub struct Account {
    name: String,
    password: String,
    home: TempDir,
}

impl Account {
    /// Creates one; `None`, with the reason printed, where the tests do not run as root.
    pub fn create() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can create an account to log in to with a password");
            return None;
        }
        let number: u32 = rand::random();
        let account = Self {
            name: format!("mbtest{number:08x}"),
            password: format!("Pa55-{number}"),
            home: tempfile::tempdir().expect("a home directory"),
        };
        readable(account.home.path(), 0o755);
        admin(
            Command::new("useradd")
                .args(["--system", "--no-create-home", "--shell", "/bin/sh"])
                .args(["--no-user-group", "--gid", "nogroup", "--home-dir"])
                .arg(account.home.path())
                .arg(&account.name),
            "",
        );
        let line = format!("{}:{}\n", account.name, account.password);
        admin(&mut Command::new("chpasswd"), &line);
        Some(account)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn authorize(&self, public_key: &Path) {
        let directory: PathBuf = self.home.path().join(".ssh");
        fs::create_dir(&directory).expect("create .ssh");
        fs::copy(public_key, directory.join("authorized_keys")).expect("authorize the key");
        readable(&directory, 0o755);
        readable(&directory.join("authorized_keys"), 0o644);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        admin(Command::new("userdel").args(["--force", &self.name]), "");
    }
}

/// Runs a program that edits the user database, waiting while another one holds its lock.
fn admin(command: &mut Command, input: &str) {
    let mut complaint = String::new();
    for _ in 0..100 {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start a program of the passwd package");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("write its input");
        drop(stdin);
        let output = child.wait_with_output().expect("wait for it");
        if output.status.success() {
            return;
        }
        complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("{command:?}: {complaint}");
    assert!(std::thread::panicking(), "{command:?}: {complaint}");
}
