//! Tells whether a `DATA_DIR` would be accepted, and changes nothing in it.

use std::path::Path;

use super::SqliteStore;
use super::key_file;
use super::look::look_apart;
use super::open::{DATABASE_FILE, newest_known, read_key, verified};
use super::open_error::{KeyOrigin, OpenError};
use crate::credentials::Key;

/// What is in a `DATA_DIR`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inspected {
    /// The database, if there is one.
    pub schema: Option<Schema>,
    /// Whether there is a key, given or in the directory; it is the database's, if that has one.
    pub has_key: bool,
}

/// The schema of a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schema {
    /// The newest migration that has been applied.
    pub applied: i64,
    /// The newest one that this program knows.
    pub known: i64,
}

impl SqliteStore {
    /// Looks at the database and the key of `data_dir` as [`SqliteStore::open`] would; `given` is the
    /// key of the configuration, if there is one. Also beside a running service.
    ///
    /// # Errors
    /// What [`SqliteStore::open`] would say of them.
    pub async fn inspect(data_dir: &Path, given: Option<Key>) -> Result<Inspected, OpenError> {
        let directory = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let file = directory.join(DATABASE_FILE);
        let found = look_apart(&file).await?;
        let known = newest_known();
        if let Some(found) = &found {
            found.not_newer(&file, known)?;
        }
        let schema = found.as_ref().map(|found| Schema {
            applied: found.applied,
            known,
        });
        let check = found.and_then(|found| found.key_check);
        let has_key = match (given, &check) {
            (Some(key), check) => {
                verified(key, check.as_deref(), &file, KeyOrigin::Given)?;
                true
            }
            (None, Some(check)) => {
                read_key(&directory, Some(check), &file)?;
                true
            }
            (None, None) => key_file::read(&directory)?.is_some(),
        };
        Ok(Inspected { schema, has_key })
    }
}
