//! The files of the hold: one per letter, in a folder that this process has locked.
//!
//! `DATA_DIR/held/{number}/{attempt}.letter`. Who holds the lock of `{number}/lock` owns the letters
//! beside it; it ends with its process, however that ends, and then whoever takes it adopts them.
//! Numbered folders are used again and never removed, so a lock cannot be one of a file that is not
//! there any more. Letters are sealed; the files are readable for their owner only all the same.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::letter::Filed;
use crate::domain::attempt::AttemptId;
use crate::domain::failure::chain;
use crate::ports::Letter;

/// Below `DATA_DIR`.
const FOLDER: &str = "held";
/// What was found and is no letter.
const SET_ASIDE: &str = "set-aside";
const LOCK: &str = "lock";
const WHOLE: &str = "letter";
const DRAFT: &str = "draft";

/// So many processes may have the same `DATA_DIR` at once.
const MOST_PROCESSES: u32 = 1000;

/// Where letters are held on disk.
#[derive(Debug)]
pub(super) struct Folder {
    place: PathBuf,
    /// The folders that are locked by this process, each with its lock.
    owned: Mutex<Vec<(PathBuf, File)>>,
}

/// A letter that an earlier process left behind: whole, and ours from now on.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) filed: Filed,
    pub(super) bytes: u64,
    pub(super) file: PathBuf,
}

/// What was found in folders that nobody owns.
#[derive(Debug, Default)]
pub(super) struct Finds {
    pub(super) letters: Vec<Found>,
    /// What is no letter, or cannot be read: where it is now, and what is wrong with it.
    pub(super) strange: Vec<(PathBuf, String)>,
}

/// Why a letter cannot be read back.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadBack {
    /// Perhaps later.
    #[error("failed to read {}", file.display())]
    Io { file: PathBuf, source: io::Error },
    /// It is not there any more.
    #[error("{} was deleted", file.display())]
    Gone { file: PathBuf },
    /// It is not the letter that was written.
    #[error("{} is not what was written there: {reason}", file.display())]
    Damaged { file: PathBuf, reason: String },
}

/// A letter was not written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} {}", path.display())]
pub(super) struct Unwritten {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Folder {
    /// Files below `data_dir`. Nothing is made before the first letter is written.
    pub(super) fn new(data_dir: &Path) -> Self {
        Self {
            place: data_dir.join(FOLDER),
            owned: Mutex::default(),
        }
    }

    /// Where it is.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    fn owned(&self) -> MutexGuard<'_, Vec<(PathBuf, File)>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a letter so that it survives the machine, and tells where. Blocks.
    pub(super) fn write(&self, letter: &Letter) -> Result<PathBuf, Unwritten> {
        let folder = self.own()?;
        let file = folder.join(format!("{}.{WHOLE}", letter.id));
        let draft = folder.join(format!("{}.{DRAFT}", letter.id));
        let written = write_draft(&draft, &letter.text);
        let written =
            written.and_then(|()| step("rename", &draft, |draft| fs::rename(draft, &file)));
        let written = written.and_then(|()| step("sync the folder", &folder, sync_folder));
        if let Err(error) = written {
            // What is half there is of no use, and its space perhaps of some.
            let _ = fs::remove_file(&draft);
            let _ = fs::remove_file(&file);
            return Err(error);
        }
        Ok(file)
    }

    /// Reads a letter back. Blocks.
    pub(super) fn read(file: &Path, id: AttemptId) -> Result<Letter, ReadBack> {
        let text = fs::read(file).map_err(|source| {
            let file = file.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound => ReadBack::Gone { file },
                _ => ReadBack::Io { file, source },
            }
        })?;
        let damaged = |reason: String| ReadBack::Damaged {
            file: file.to_owned(),
            reason,
        };
        let filed = Filed::read(&text).map_err(|error| damaged(chain(&error)))?;
        if filed.id != id {
            return Err(damaged(format!("it is the letter of attempt {}", filed.id)));
        }
        Ok(Letter {
            text,
            ..filed.letter()
        })
    }

    /// Removes a letter that is safe elsewhere. Blocks.
    pub(super) fn remove(file: &Path) -> io::Result<()> {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            // A file that comes back after a power failure is put in once more, which does no harm.
            _ => Ok(()),
        }
    }

    /// Locks every folder that nobody owns and that holds anything, and tells what is in it.
    /// Blocks.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub(super) fn adopt(&self) -> io::Result<Finds> {
        let mut finds = Finds::default();
        let entries = match fs::read_dir(&self.place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(finds),
            entries => entries?,
        };
        for entry in entries {
            let folder = entry?.path();
            let is_ours = self.owned().iter().any(|(owned, _)| *owned == folder);
            if is_ours || number_of(&folder).is_none() || holds_nothing(&folder)? {
                continue;
            }
            match lock(&folder) {
                Ok(Some(lock)) => {
                    self.owned().push((folder.clone(), lock));
                    self.look_through(&folder, &mut finds);
                }
                Ok(None) => {}
                Err(error) => finds.strange.push((folder, error.to_string())),
            }
        }
        Ok(finds)
    }

    fn look_through(&self, folder: &Path, finds: &mut Finds) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return finds.strange.push((folder.to_owned(), error.to_string())),
        };
        for file in entries.flatten().map(|entry| entry.path()) {
            if file.ends_with(LOCK) {
                continue;
            }
            match recognise(&file) {
                Ok(found) => finds.letters.push(found),
                Err(reason) => {
                    let (place, reason) = self.set_aside(&file, reason);
                    finds.strange.push((place, reason));
                }
            }
        }
    }

    /// Moves what is no letter out of the way: where it is then, and what is wrong with it.
    pub(super) fn set_aside(&self, file: &Path, reason: String) -> (PathBuf, String) {
        let aside = self.place.join(SET_ASIDE);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // Never in the place of another one.
        let free = (0..=u32::MAX)
            .map(|number| aside.join(format!("{name}.{number}")))
            .find(|path| !path.exists());
        let moved = make_folder(&aside).and_then(|()| match free {
            Some(free) => fs::rename(file, &free).map(|()| free),
            None => Err(io::ErrorKind::AlreadyExists.into()),
        });
        match moved {
            Ok(place) => (place, reason),
            Err(error) => {
                let reason = format!("{reason}; it could not be moved out of the way: {error}");
                (file.to_owned(), reason)
            }
        }
    }

    /// A folder that this process has locked, made and locked now if there is none.
    fn own(&self) -> Result<PathBuf, Unwritten> {
        let mut owned = self.owned();
        if let Some((folder, _)) = owned.first() {
            return Ok(folder.clone());
        }
        step("create the folder", &self.place, make_folder)?;
        for number in 0..MOST_PROCESSES {
            let folder = self.place.join(number.to_string());
            step("create the folder", &folder, make_folder)?;
            if let Some(lock) = step("lock", &folder, lock)? {
                owned.push((folder.clone(), lock));
                return Ok(folder);
            }
        }
        Err(Unwritten {
            operation: "find a folder of our own in",
            path: self.place.clone(),
            source: io::Error::other("every one of them belongs to another process"),
        })
    }
}

fn step<T>(
    operation: &'static str,
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T>,
) -> Result<T, Unwritten> {
    work(path).map_err(|source| Unwritten {
        operation,
        path: path.to_owned(),
        source,
    })
}

fn write_draft(draft: &Path, text: &[u8]) -> Result<(), Unwritten> {
    step("write", draft, |draft| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(draft)?;
        file.write_all(text)?;
        file.sync_all()
    })
}

/// A letter, or what is wrong with it. A draft that is whole was only not renamed any more.
fn recognise(file: &Path) -> Result<Found, String> {
    let extension = file.extension().and_then(|extension| extension.to_str());
    let draft = match extension {
        Some(WHOLE) => false,
        Some(DRAFT) => true,
        _ => return Err("nothing that this program writes is called so".to_owned()),
    };
    let text = fs::read(file).map_err(|error| error.to_string())?;
    let filed = Filed::read(&text).map_err(|error| chain(&error))?;
    let whole = file.with_file_name(format!("{}.{WHOLE}", filed.id));
    if !draft && file != whole {
        return Err(format!("it is the letter of attempt {}", filed.id));
    }
    if draft {
        fs::rename(file, &whole).map_err(|error| error.to_string())?;
    }
    Ok(Found {
        filed,
        bytes: text.len() as u64,
        file: whole,
    })
}

/// Locks a folder for this process; `None` when another one has it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn number_of(folder: &Path) -> Option<u32> {
    folder.file_name()?.to_str()?.parse().ok()
}

fn holds_nothing(folder: &Path) -> io::Result<bool> {
    let mut entries = fs::read_dir(folder)?;
    Ok(entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK)))
}

#[cfg(test)]
mod tests;
