//! Where settings come from: the variables of the process, and the files that they name.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;

/// The surroundings of the process, as far as they configure it.
#[derive(Clone, Default)]
pub struct Environment {
    vars: BTreeMap<OsString, OsString>,
    terminal: bool,
    hostname: Option<String>,
}

impl Environment {
    /// That of this process: its variables, whether standard error (where the log goes) is a
    /// terminal, and the machine's name.
    pub fn of_process() -> Self {
        Self {
            vars: std::env::vars_os().collect(),
            terminal: io::stderr().is_terminal(),
            hostname: std::fs::read_to_string("/etc/hostname")
                .ok()
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty()),
        }
    }

    /// An invented one: these variables, no terminal, no machine name.
    pub fn from_pairs<K: Into<OsString>, V: Into<OsString>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self {
            vars: pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            ..Self::default()
        }
    }

    /// The same, with standard error on a terminal.
    pub fn on_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// The same, on a machine of this name.
    pub fn on_machine(mut self, name: &str) -> Self {
        self.hostname = Some(name.to_owned());
        self
    }

    /// The value of a variable, if it is set.
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The names of all variables that are set and are valid UTF-8.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.vars.keys().filter_map(|name| name.to_str())
    }

    /// Whether standard error is a terminal.
    pub(super) fn terminal(&self) -> bool {
        self.terminal
    }

    /// The machine's name.
    pub(super) fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref()
    }
}

/// The longest secret that a file may hold, in bytes.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// A secret read from a file.
pub(super) struct SecretFile {
    /// Its text without the line break at the end, which editors and `echo` leave there.
    pub(super) text: String,
    /// Whether everybody on the machine may read or change it.
    pub(super) exposed: bool,
}

/// Reads the secret in the file at `path`.
///
/// # Errors
/// A fragment for the operator that says what is wrong with the file, never what is in it.
pub(super) fn read_secret(path: &Path) -> Result<SecretFile, String> {
    let describe = |error: io::Error| format!("cannot be read ({error})");
    let file = File::open(path).map_err(describe)?;
    let metadata = file.metadata().map_err(describe)?;
    let mut bytes = Vec::new();
    file.take(MAX_SECRET_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(describe)?;
    if bytes.len() as u64 > MAX_SECRET_FILE {
        return Err(format!("is longer than {MAX_SECRET_FILE} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(SecretFile {
        text,
        exposed: exposed(&metadata),
    })
}

/// Whether the last three permission bits say anything: the group is left out because mounted
/// secrets are readable by a group of their own (`fsGroup`).
#[cfg(unix)]
fn exposed(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.is_file() && metadata.permissions().mode() & 0o007 != 0
}

#[cfg(not(unix))]
fn exposed(_: &std::fs::Metadata) -> bool {
    false
}
