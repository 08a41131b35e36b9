//! The key of embedded mode: made once, kept beside the database, and never overwritten.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::TryRng;
use rand::rngs::SysRng;
use secrecy::zeroize::Zeroizing;

use crate::credentials::{Key, KeyError};

/// The file in `DATA_DIR` that holds the key: base64 of 32 bytes, readable by its owner only.
pub const KEY_FILE: &str = "key";

/// A key file is 45 bytes long; what is longer is something else.
const LONGEST: u64 = 4096;

/// Reads the key of `directory`; `None` when there is no key file.
pub(super) fn read(directory: &Path) -> Result<Option<Key>, KeyFileError> {
    let file = directory.join(KEY_FILE);
    let unreadable = |source| KeyFileError::Unreadable {
        file: file.clone(),
        source,
    };
    let opened = match File::open(&file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = opened.metadata().map_err(unreadable)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(KeyFileError::Open {
            file,
            mode: metadata.mode() & 0o777,
        });
    }
    let mut text = Zeroizing::new(String::with_capacity(64));
    opened
        .take(LONGEST)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    match Key::from_base64(&text) {
        Ok(key) => Ok(Some(key)),
        Err(source) => Err(KeyFileError::NoKey { file, source }),
    }
}

/// Makes a key file in `directory`: whole or not there, and never in the place of another.
pub(super) fn create(directory: &Path) -> Result<Key, KeyFileError> {
    let file = directory.join(KEY_FILE);
    let failed = |source| KeyFileError::NotMade {
        file: file.clone(),
        source,
    };
    let mut bytes = Zeroizing::new([0; 32]);
    SysRng
        .try_fill_bytes(bytes.as_mut_slice())
        .map_err(|error| failed(io::Error::other(error)))?;
    let draft = directory.join(format!("{KEY_FILE}.new"));
    // A draft that a killed process left behind; nothing was ever sealed with it.
    let _ = std::fs::remove_file(&draft);
    let linked = write_draft(&draft, &bytes).and_then(|()| std::fs::hard_link(&draft, &file));
    let _ = std::fs::remove_file(&draft);
    linked.map_err(failed)?;
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed)?;
    Ok(Key::from_bytes(*bytes))
}

fn write_draft(draft: &Path, bytes: &[u8; 32]) -> io::Result<()> {
    let text = Zeroizing::new(format!("{}\n", STANDARD.encode(bytes)));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The key file cannot be used, or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It could not be read.
    #[error("failed to read the encryption key {}; it must be a file of this user", file.display())]
    Unreadable {
        /// The key file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error(
        "the encryption key {file} is open to others (mode {mode:o}): whoever reads it can read \
         every stored password; run: chmod 600 {file}",
        file = file.display()
    )]
    Open {
        /// The key file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error(
        "{} holds no encryption key; restore the file from a backup (without it, stored \
         credentials and configurations cannot be read)",
        file.display()
    )]
    NoKey {
        /// The key file.
        file: PathBuf,
        /// What is wrong with the text.
        source: KeyError,
    },
    /// It could not be made.
    #[error(
        "failed to create the encryption key {}; DATA_DIR must be a directory that this user may \
         write, with space left",
        file.display()
    )]
    NotMade {
        /// The key file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
