//! One writing process per `DATA_DIR`: a lock that ends with its process, whatever ends it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file in `DATA_DIR` that is locked; it holds the process id of the last holder.
pub const LOCK_FILE: &str = "lock";

/// The right to write in a `DATA_DIR`, until it is dropped or the process ends. The kernel keeps
/// it (`flock`), so a killed process leaves none behind.
#[derive(Debug)]
pub struct DataDirLock {
    directory: PathBuf,
    file: File,
}

impl DataDirLock {
    /// Takes the lock, making the directory (0700) where there is none.
    ///
    /// # Errors
    /// [`LockError::Held`] names the process that has it.
    pub fn acquire(data_dir: &Path) -> Result<Self, LockError> {
        let directory = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| LockError::Directory {
                directory: directory.clone(),
                source,
            })?;
        let path = directory.join(LOCK_FILE);
        let failed = |source| LockError::File {
            file: path.clone(),
            source,
        };
        // Not truncated when opened: until the lock is ours, the text is its holder's.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    directory,
                    holder: Holder(holder(&mut file)),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Only a hint for whoever finds the lock taken: a full disk must not keep us from starting.
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        Ok(Self { directory, file })
    }

    /// The locked directory, as an absolute path.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // The file stays: removing it would let two processes lock two files of one name.
        let _ = self.file.set_len(0);
        // Closing it is not enough: a program that is just being started still has it, too.
        let _ = self.file.unlock();
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that holds a lock, if it has written its id already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder(pub Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

/// A `DATA_DIR` could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{directory} is in use by {holder}, and only one process may write there; ask the running \
         service, stop it, or set another DATA_DIR",
        directory = directory.display()
    )]
    Held {
        /// The directory.
        directory: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The directory could not be made.
    #[error(
        "failed to create the data directory {}; create it, or set DATA_DIR to a directory that \
         this user may write",
        directory.display()
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The lock file could not be made, opened or locked.
    #[error(
        "failed to lock {}; DATA_DIR must be a directory that this user may write, on a file \
         system with locks",
        file.display()
    )]
    File {
        /// The lock file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_in_a_program_that_is_being_started_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let lock = DataDirLock::acquire(folder.path()).unwrap();
        // As between fork and exec.
        let _copy = lock.file.try_clone().unwrap();
        assert!(DataDirLock::acquire(folder.path()).is_err());
        drop(lock);
        DataDirLock::acquire(folder.path()).unwrap();
    }
}
