//! Inventories as text: reading and writing our CSV, and reading Oxidized's `router.db` and `config`.
//!
//! Everything here is pure: bytes in, an [`Import`] out. Reading the files, expanding `~`, opening
//! private keys and storing devices is the caller's. An import is all or nothing: with one problem
//! there are no devices, and every problem is listed at once with its line.
//!
//! No finding repeats a value that could be a secret. A password that slipped into a neighbouring
//! column is the commonest fault of such files, so ports, addresses and users are not quoted.

mod check;
mod csv;
mod export;
mod oxidized;
mod records;

use std::fmt;

use secrecy::SecretString;

use crate::domain::host_key::Fingerprint;
use crate::domain::session::DeviceSettings;

pub use csv::{CSV_FORMAT, from_csv};
pub use export::{Secrets, to_csv};
pub use oxidized::{from_oxidized, router_db_path};

/// What an inventory file holds.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// The devices, in the order of the file; none if there is a problem.
    pub devices: Vec<ImportedDevice>,
    /// Entries that are fine but not ours, such as switches of another vendor.
    pub skipped: Vec<Skipped>,
    /// What must be corrected before anything is imported, by file and line.
    pub problems: Vec<Finding>,
    /// What is imported in another way than it stands there, by file and line.
    pub notes: Vec<Finding>,
}

/// A device as an inventory file describes it. `Debug` shows which secrets are there, not what
/// they are.
#[derive(Clone, Debug)]
pub struct ImportedDevice {
    /// The line of the file where it begins, counted from 1.
    pub line: usize,
    /// Its display name; unique within tenant (CSV) or group (Oxidized).
    pub name: String,
    /// IPv4 address, IPv6 address or DNS name.
    pub address: String,
    /// TCP port of SSH, 1 to 65535.
    pub port: u16,
    /// The user on the router.
    pub username: Option<String>,
    /// The password; the empty one is a password too, and RouterOS ships with it.
    pub password: Option<SecretString>,
    /// The private key, or where it is.
    pub private_key: Option<PrivateKey>,
    /// What the private key is encrypted with.
    pub private_key_passphrase: Option<SecretString>,
    /// Its owner, as the file names it.
    pub tenant: Option<String>,
    /// A label that the other tool sorts by.
    pub group: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The host key to trust; `None` trusts the next one seen.
    pub host_key: Option<Fingerprint>,
    /// What differs for it from the service's own settings.
    pub settings: DeviceSettings,
}

impl ImportedDevice {
    /// Whether there is a user and something to prove it with. Without, the caller has to ask for
    /// credentials, or the device will not be backed up.
    pub fn has_login(&self) -> bool {
        self.username.is_some() && (self.password.is_some() || self.private_key.is_some())
    }
}

/// A private key of an inventory.
#[derive(Clone, Debug)]
pub enum PrivateKey {
    /// Its path as the file gives it; a leading `~` is not expanded yet.
    File(String),
    /// The key itself, in OpenSSH or PEM form.
    Text(SecretString),
}

/// An entry that is not imported, through no fault of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// Its line, counted from 1.
    pub line: usize,
    /// Its name as it stands there.
    pub name: String,
    /// Why, and what to change if it should be imported.
    pub why: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.escape_debug();
        write!(f, "line {}: {name} is skipped: {}", self.line, self.why)
    }
}

/// Which of the given files a finding is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum InputFile {
    /// The CSV file.
    Csv,
    /// Oxidized's `config`.
    Config,
    /// Oxidized's `router.db`.
    RouterDb,
}

/// Something to tell about one place of a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// The file.
    pub file: InputFile,
    /// The line, counted from 1; `None` is the file as a whole.
    pub line: Option<usize>,
    /// What is wrong and what to do; holds no value that could be a secret.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = match self.file {
            InputFile::Csv => "",
            InputFile::Config => "config",
            InputFile::RouterDb => "router.db",
        };
        match (file, self.line) {
            ("", Some(line)) => write!(f, "line {line}: {}", self.text),
            ("", None) => f.write_str(&self.text),
            (file, Some(line)) => write!(f, "{file}, line {line}: {}", self.text),
            (file, None) => write!(f, "{file}: {}", self.text),
        }
    }
}

/// Gathers what a file holds, and forgets the devices if there is a problem.
#[derive(Default)]
struct Collector {
    import: Import,
    names: check::Names,
}

impl Collector {
    fn problem(&mut self, file: InputFile, line: Option<usize>, text: impl Into<String>) {
        let text = text.into();
        self.import.problems.push(Finding { file, line, text });
    }

    fn note(&mut self, file: InputFile, line: Option<usize>, text: impl Into<String>) {
        let text = text.into();
        self.import.notes.push(Finding { file, line, text });
    }

    /// Checks a device and keeps it.
    fn device(&mut self, file: InputFile, device: ImportedDevice) {
        let line = Some(device.line);
        for text in check::faults(&device) {
            self.problem(file, line, text);
        }
        if let Some(first) = self.names.taken(file, &device) {
            let name = device.name.escape_debug();
            self.problem(file, line, format!("{name} is already in line {first}"));
        }
        self.import.devices.push(device);
    }

    fn finish(mut self) -> Import {
        for findings in [&mut self.import.problems, &mut self.import.notes] {
            findings.sort();
            findings.dedup();
        }
        if !self.import.problems.is_empty() {
            self.import.devices.clear();
        }
        self.import
    }
}

/// The text of a file without its byte order mark.
fn decode(file: InputFile, bytes: &[u8]) -> Result<&str, Finding> {
    let problem = |line, text: &str| Finding {
        file,
        line,
        text: text.to_owned(),
    };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(problem(None, "the file is UTF-16; save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        problem(
            Some(line),
            "the text is not UTF-8 from here on; save the file as UTF-8",
        )
    })
}
