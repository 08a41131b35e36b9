//! Why a store could not be opened, and what its operator can do.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{self, code};
use super::key_file::KeyFileError;
use super::lock::LockError;

type Source = Box<dyn StdError + Send + Sync>;

/// Where a key came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyOrigin {
    /// `CREDENTIAL_ENCRYPTION_KEY` or its file.
    Given,
    /// The file in `DATA_DIR`.
    File(PathBuf),
}

impl fmt::Display for KeyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("CREDENTIAL_ENCRYPTION_KEY"),
            Self::File(file) => file.display().fmt(f),
        }
    }
}

/// The store of a `DATA_DIR` could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none, and reading makes none.
    #[error(
        "there is no store in {}; set DATA_DIR to the directory of the running service, or \
         DATABASE_URL to its database",
        directory.display()
    )]
    Missing {
        /// The directory that was looked in.
        directory: PathBuf,
    },
    /// The directory cannot be made, written, or another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The key file cannot be read or made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The database was sealed with a key that is not there.
    #[error(
        "{file} is sealed with a key, and {key_file} is not there; restore the key file from a \
         backup, or set CREDENTIAL_ENCRYPTION_KEY (nothing was changed)",
        file = file.display(), key_file = key_file.display()
    )]
    KeyMissing {
        /// The database.
        file: PathBuf,
        /// Where the key should be.
        key_file: PathBuf,
    },
    /// The database was sealed with another key.
    #[error(
        "{origin} is not the key that {file} is sealed with; give it the key that it was made with \
         (nothing was changed)",
        file = file.display()
    )]
    WrongKey {
        /// The database.
        file: PathBuf,
        /// Where the wrong key came from.
        origin: KeyOrigin,
    },
    /// The file could not be opened or read.
    #[error("failed to read {}; it must be a file that this user may read", file.display())]
    Unreadable {
        /// The database.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be made or written.
    #[error("failed to open {} for writing; it must be a file that this user may write", file.display())]
    NotWritable {
        /// The database.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no SQLite database.
    #[error(
        "{} is no SQLite database, or its beginning is damaged; move it away, or restore it from a \
         backup (nothing was changed)",
        file.display()
    )]
    NoDatabase {
        /// The file.
        file: PathBuf,
    },
    /// The database belongs to another program.
    #[error(
        "{} is the database of another program; move it away, or set another DATA_DIR (nothing was \
         changed)",
        file.display()
    )]
    Foreign {
        /// The database.
        file: PathBuf,
    },
    /// The database is damaged.
    #[error(
        "{} is damaged; keep a copy of it, and restore it from a backup or with sqlite3's .recover \
         (nothing was changed)",
        file.display()
    )]
    Damaged {
        /// The database.
        file: PathBuf,
        /// What was found.
        source: Source,
    },
    /// A newer program was here.
    #[error(
        "the schema of {} is at version {applied}, but this program only knows {known}; run the \
         newer program (nothing was changed)",
        file.display()
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// The newest migration that has been applied.
        applied: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// Only reading was asked for, and the schema is an older one.
    #[error(
        "the schema of {} is at version {applied} of {known}; start `mikrotik-backup run`, or run \
         `mikrotik-backup migrate`, which bring it up to date",
        file.display()
    )]
    Behind {
        /// The database.
        file: PathBuf,
        /// The newest migration that has been applied.
        applied: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// The file system does not do what a write-ahead log needs.
    #[error(
        "the file system of {} has no shared memory, as SQLite's write-ahead log needs it (a network \
         file system?); set DATA_DIR to a directory on a local disk",
        file.display()
    )]
    NoSharedMemory {
        /// The database.
        file: PathBuf,
    },
    /// The disk is full.
    #[error("no space is left for {}; free some on its disk and start again", file.display())]
    Full {
        /// The database.
        file: PathBuf,
        /// What SQLite said.
        source: Source,
    },
    /// Anything else.
    #[error("failed to open {}", file.display())]
    Failed {
        /// The database.
        file: PathBuf,
        /// What SQLite said, and what to do about it.
        source: Source,
    },
}

impl OpenError {
    pub(super) fn of(error: sqlx::Error, file: &Path) -> Self {
        let at = file.to_owned();
        match error::primary_code(&error) {
            Some(code::FULL) => Self::Full {
                file: at,
                source: error.into(),
            },
            Some(code::CORRUPT | code::NOTADB) => Self::Damaged {
                file: at,
                source: error.into(),
            },
            _ => Self::Failed {
                source: error::explained(error, file),
                file: at,
            },
        }
    }

    pub(super) fn of_migration(error: sqlx::migrate::MigrateError, file: &Path) -> Self {
        use sqlx::migrate::MigrateError;
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                Self::of(error, file)
            }
            other => Self::Failed {
                file: file.to_owned(),
                source: other.into(),
            },
        }
    }
}
