//! Owns how the repository of the mirror comes to be, and how one that is not ours is told.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use super::{GitError, GitMirror};

/// In `.git`: tells that the repository is ours.
const MARK: &str = "mikrotik-backup";
/// A repository that is being made.
const UNFINISHED: &str = ".git.new";

impl GitMirror {
    /// Tells whether there is a mirror in the folder; changes nothing.
    ///
    /// # Errors
    /// [`GitError::Foreign`] when the folder holds something that is not ours, and what keeps the
    /// repository from being read.
    pub fn inspect(&self) -> Result<bool, GitError> {
        if self.folder.join(".git").join(MARK).exists() {
            self.open()?;
            return Ok(true);
        }
        match fs::read_dir(&self.folder) {
            Ok(entries) => self.is_free(entries).map(|()| false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(GitError::io(
                "read the folder of the git mirror",
                &self.folder,
            )(error)),
        }
    }

    /// A folder with anything in it that is not ours is somebody else's.
    fn is_free(&self, entries: fs::ReadDir) -> Result<(), GitError> {
        let ours = |name: &std::ffi::OsStr| name == UNFINISHED || name == "lost+found";
        let mut names = entries.flatten().map(|entry| entry.file_name());
        if names.any(|name| !ours(&name)) {
            let folder = self.folder.clone();
            return Err(GitError::Foreign { folder });
        }
        Ok(())
    }

    /// Makes the repository if the folder is not there or empty, and tells whether it did.
    ///
    /// # Errors
    /// [`GitError::Foreign`] when the folder holds something that is not ours.
    pub fn prepare(&self) -> Result<bool, GitError> {
        let git = self.folder.join(".git");
        if git.join(MARK).exists() {
            return Ok(false);
        }
        match fs::read_dir(&self.folder) {
            Ok(entries) => self.is_free(entries)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut folder = fs::DirBuilder::new();
                let made = folder.recursive(true).mode(0o700).create(&self.folder);
                made.map_err(GitError::io(
                    "make the folder of the git mirror",
                    &self.folder,
                ))?;
            }
            Err(error) => {
                return Err(GitError::io(
                    "read the folder of the git mirror",
                    &self.folder,
                )(error));
            }
        }
        self.create(&git)?;
        Ok(true)
    }

    /// Makes the repository aside, so that one that is there is whole.
    fn create(&self, git: &Path) -> Result<(), GitError> {
        let new = self.folder.join(UNFINISHED);
        let failed = |source| GitError::io("make the git mirror", &new)(source);
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        gix::ThreadSafeRepository::init_opts(
            &new,
            gix::create::Kind::Bare,
            gix::create::Options::default(),
            gix::open::Options::isolated(),
        )
        .map_err(GitError::of("make a repository", &self.folder))?;
        // Git's own files should be as closed as ours, and examples of hooks are no use here.
        let config = new.join("config");
        let mut text = fs::read_to_string(&config).map_err(failed)?;
        text.push_str("[core]\n\tsharedRepository = 0600\n");
        fs::write(&config, text).map_err(failed)?;
        let about = "Plain configurations of MikroTik routers, with their passwords\n";
        fs::write(new.join("description"), about).map_err(failed)?;
        fs::write(new.join(MARK), "This mirror was made by mikrotik-backup.\n").map_err(failed)?;
        for example in fs::read_dir(new.join("hooks")).map_err(failed)?.flatten() {
            fs::remove_file(example.path()).map_err(failed)?;
        }
        close_to_others(&new).map_err(failed)?;
        fs::rename(&new, git).map_err(failed)
    }
}

/// Takes every right from everybody else.
fn close_to_others(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            close_to_others(&entry.path())?;
        } else {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}
