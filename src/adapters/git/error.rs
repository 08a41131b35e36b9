//! What can be wrong with a mirror, and what the operator does then.

use std::path::{Path, PathBuf};

/// The mirror was not written. Nothing is lost: the archive has every version, and the mirror is
/// brought up to date once it can be written.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The folder holds something else.
    #[error(
        "{} is not empty, and mikrotik-backup has not made it; name an empty or new folder in \
         GIT_ARCHIVE_DIR",
        .folder.display()
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder cannot be made or looked at.
    #[error("failed to {operation} {}", .path.display())]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another git process holds the branch.
    #[error(
        "failed to {operation} in the git mirror {}: {} is there; a git process that is still \
         running will remove it, one that died has left it behind, and then you may",
        .folder.display(), .lock.display()
    )]
    Locked {
        /// What was to be done.
        operation: String,
        /// The mirror.
        folder: PathBuf,
        /// The lock's file.
        lock: PathBuf,
        /// What the library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The repository does not answer as it should.
    #[error(
        "failed to {operation} in the git mirror {}; `git -C {} fsck` tells whether it is damaged. \
         A damaged one may be moved away: the mirror then begins anew from the archive",
        .folder.display(), .folder.display()
    )]
    Repository {
        /// What was to be done.
        operation: String,
        /// The mirror.
        folder: PathBuf,
        /// What the library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl GitError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    pub(super) fn of(
        operation: impl Into<String>,
        folder: &Path,
    ) -> impl FnOnce(gix::Error) -> Self {
        let (operation, folder) = (operation.into(), folder.to_owned());
        move |source| Self::Repository {
            operation,
            folder,
            source: source.into(),
        }
    }
}
