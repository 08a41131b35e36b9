//! Where the login of a router comes from on the command line: a file, standard input or a prompt,
//! never the arguments, which every user of the machine can read.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use secrecy::{ExposeSecret as _, SecretString};

use crate::credentials::Login;

/// Longest file that is read as a password or a key, in bytes: what is longer is something else.
const LONGEST: u64 = 64 * 1024;

/// The options that name where the secrets are.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct SecretArgs {
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub(super) password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input
    #[arg(long)]
    pub(super) password_stdin: bool,
    /// Private key file (OpenSSH or PEM), instead of a password
    #[arg(long, value_name = "FILE", conflicts_with_all = ["password_file", "password_stdin"])]
    pub(super) key_file: Option<PathBuf>,
    /// File whose first line is what the private key is encrypted with
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub(super) key_passphrase_file: Option<PathBuf>,
}

impl SecretArgs {
    /// Whether any of them was given.
    pub(super) fn given(&self) -> bool {
        self.password_file.is_some() || self.password_stdin || self.key_file.is_some()
    }

    /// Whether a password has to be typed, by somebody who may want to see the host key first.
    pub(super) fn is_asked_for(&self) -> bool {
        !self.given()
    }

    /// The login of `user`; the password is asked for, unless an option says where it is.
    pub(super) fn read(&self, user: &str) -> anyhow::Result<Login> {
        let mut login = Login {
            username: user.to_owned(),
            password: None,
            private_key: None,
            private_key_passphrase: None,
        };
        if let Some(file) = &self.key_file {
            login.private_key = Some(read_key(file)?);
            if let Some(file) = &self.key_passphrase_file {
                login.private_key_passphrase = Some(first_line_of(file, "passphrase")?);
            }
            return Ok(login);
        }
        login.password = Some(if let Some(file) = &self.password_file {
            first_line_of(file, "password")?
        } else if self.password_stdin {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line);
            anyhow::ensure!(
                read.context("failed to read the password")? > 0,
                "standard input is empty; its first line is the password with --password-stdin"
            );
            first_line(line)
        } else {
            prompt(user)?
        });
        Ok(login)
    }
}

fn prompt(user: &str) -> anyhow::Result<SecretString> {
    let _silence = Silence::begin();
    let asked = rpassword::prompt_password(format!("Password of {user}: "));
    let password = asked.context(
        "failed to ask for the password; use --password-file, --password-stdin or --key-file",
    )?;
    Ok(SecretString::from(password))
}

/// Keeps the terminal from showing what is typed, until it is dropped. `rpassword` begins with that
/// only after its prompt: too late for a script that answers the prompt at once.
struct Silence {
    terminal: File,
    before: Termios,
}

impl Silence {
    /// Begins; `None` where there is no terminal, which whoever asks for a password finds out itself.
    fn begin() -> Option<Self> {
        let terminal = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        let before = termios::tcgetattr(&terminal).ok()?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        termios::tcsetattr(&terminal, SetArg::TCSANOW, &silent).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// The text of a private key; whether it is one is found out by using it.
pub(super) fn read_key(file: &Path) -> anyhow::Result<SecretString> {
    let key = read(file).with_context(|| {
        let file = file.display();
        format!("failed to read the private key {file}; it must be a text file this user may read")
    })?;
    anyhow::ensure!(
        key.expose_secret().trim_start().starts_with("-----BEGIN"),
        "{} is no private key in OpenSSH or PEM form",
        file.display()
    );
    Ok(key)
}

fn first_line_of(file: &Path, what: &str) -> anyhow::Result<SecretString> {
    let text = read(file).with_context(|| {
        let file = file.display();
        format!("failed to read the {what} file {file}; it must be a text file this user may read")
    })?;
    Ok(first_line(text.expose_secret().to_owned()))
}

fn read(file: &Path) -> anyhow::Result<SecretString> {
    let size = std::fs::metadata(file)?.len();
    anyhow::ensure!(size <= LONGEST, "it is larger than {LONGEST} bytes");
    Ok(SecretString::from(std::fs::read_to_string(file)?))
}

fn first_line(text: String) -> SecretString {
    SecretString::from(text.lines().next().unwrap_or_default().to_owned())
}
