//! Whether the folders that the settings name can be used, and whether the key fits what is in them.
//! Everything is looked at and nothing is changed.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Uid, eaccess};
use serde::Serialize;

use crate::adapters::git::GitMirror;
use crate::adapters::sqlite::{DATABASE_FILE, Inspected, KEY_FILE, Schema, SqliteStore};
use crate::config::{Config, Mode, Need};
use crate::credentials::Key;
use crate::domain::failure::chain;

/// A folder, or what is in one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Place {
    /// The setting that names it.
    pub(super) setting: &'static str,
    /// The folder.
    pub(super) path: PathBuf,
    /// What was found that is as it should be.
    pub(super) found: Vec<String>,
    /// What works but is doubtful.
    pub(super) warnings: Vec<String>,
    /// What is wrong, and what to do.
    pub(super) problems: Vec<String>,
}

/// The folders that a command with `need` uses.
pub(super) async fn inspect(config: &Config, need: Need) -> Vec<Place> {
    let mut places = Vec::new();
    if let Mode::Embedded { data_dir, key } = &config.mode
        && matches!(need, Need::Run | Need::Read)
    {
        places.push(data(data_dir, key.clone(), need).await);
    }
    let mirrors = matches!(
        (&config.mode, need),
        (Mode::Embedded { .. }, Need::Run) | (_, Need::Archive)
    );
    if mirrors && let Some(folder) = &config.git_archive_dir {
        places.push(mirror(folder));
    }
    places
}

/// `DATA_DIR`.
async fn data(data_dir: &Path, key: Option<Key>, need: Need) -> Place {
    let mut place = Place::of("DATA_DIR", data_dir);
    let writes = need == Need::Run;
    if !place.folder(writes) {
        return place;
    }
    if !place.path.is_dir() {
        if !writes {
            place
                .found
                .push("holds no store: there is nothing to read".to_owned());
        }
        return place;
    }
    match SqliteStore::inspect(&place.path, key).await {
        Ok(inspected) => place.store(inspected, writes),
        Err(error) => place.problems.push(chain(&error)),
    }
    place
}

/// `GIT_ARCHIVE_DIR`.
fn mirror(folder: &Path) -> Place {
    let mut place = Place::of("GIT_ARCHIVE_DIR", folder);
    if !place.folder(true) || !place.path.is_dir() {
        return place;
    }
    match GitMirror::new(place.path.clone(), "").inspect() {
        Ok(true) => place.found.push("holds a mirror".to_owned()),
        Ok(false) => place.found.push("empty: a mirror is begun".to_owned()),
        Err(error) => place.problems.push(chain(&error)),
    }
    place
}

impl Place {
    fn of(setting: &'static str, path: &Path) -> Self {
        Self {
            setting,
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            found: Vec::new(),
            warnings: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Whether the folder can be used, or made.
    fn folder(&mut self, writes: bool) -> bool {
        let path = self.path.clone();
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                let mode = metadata.mode() & 0o7777;
                let owner = metadata.uid();
                self.found.push(format!("mode {mode:04o}, owner {owner}"));
                if owner != Uid::effective().as_raw() {
                    let us = Uid::effective();
                    self.warnings.push(format!(
                        "{} belongs to user {owner}, and this is user {us}; run this as the \
                         service's user",
                        path.display()
                    ));
                }
                if mode & 0o077 != 0 {
                    self.warnings.push(format!(
                        "{0} is open to others (mode {mode:04o}); run: chmod 700 {0}",
                        path.display()
                    ));
                }
                self.may(&path, writes)
            }
            Ok(_) => {
                let is = "is a file, and must be a directory";
                self.problems.push(format!("{} {is}", path.display()));
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.can_be_made(writes),
            Err(error) => {
                let path = path.display();
                self.problems
                    .push(format!("failed to look at {path}: {error}"));
                false
            }
        }
    }

    /// Whether a folder that is not there can be made.
    fn can_be_made(&mut self, writes: bool) -> bool {
        if !writes {
            self.found.push("not there".to_owned());
            return true;
        }
        let there = self.path.ancestors().find(|ancestor| ancestor.exists());
        let there = there.unwrap_or(Path::new("/")).to_owned();
        if !there.is_dir() {
            self.problems.push(format!(
                "{} cannot be made: {} is a file",
                self.path.display(),
                there.display()
            ));
            return false;
        }
        self.found
            .push("not there yet: it is made, with mode 0700".to_owned());
        self.may(&there, true)
    }

    /// Whether this user may work in `folder`.
    fn may(&mut self, folder: &Path, writes: bool) -> bool {
        let mut flags = AccessFlags::R_OK | AccessFlags::X_OK;
        let mut what = "read";
        if writes {
            flags |= AccessFlags::W_OK;
            what = "write in";
        }
        match eaccess(folder, flags) {
            Ok(()) => true,
            Err(error) => {
                self.refused(what, folder, error);
                false
            }
        }
    }

    fn refused(&mut self, what: &str, path: &Path, error: Errno) {
        let (us, path) = (Uid::effective(), path.display());
        self.problems.push(format!(
            "user {us} may not {what} {path} ({}); change its owner or mode, or set {} to another \
             directory",
            error.desc(),
            self.setting
        ));
    }

    /// What is in the folder of embedded mode.
    fn store(&mut self, inspected: Inspected, writes: bool) {
        let Inspected { schema, has_key } = inspected;
        match schema {
            Some(Schema { applied, known }) if applied < known => self.found.push(format!(
                "a database of an older version (schema {applied} of {known}), which `run` brings up \
                 to date"
            )),
            Some(_) => self.found.push("a database".to_owned()),
            None if writes => self.found.push("no database yet: it is made".to_owned()),
            None => self.found.push("no database".to_owned()),
        }
        self.found.push(match (schema, has_key) {
            (Some(_), _) => "the key fits it".to_owned(),
            (None, true) => "a key".to_owned(),
            (None, false) => "no key yet: it is made".to_owned(),
        });
        if !writes {
            return;
        }
        for file in [DATABASE_FILE, KEY_FILE] {
            let path = self.path.join(file);
            let flags = match file {
                KEY_FILE => AccessFlags::R_OK,
                _ => AccessFlags::R_OK | AccessFlags::W_OK,
            };
            match eaccess(&path, flags) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => self.refused("use", &path, error),
            }
        }
    }
}
