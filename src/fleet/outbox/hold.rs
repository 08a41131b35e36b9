//! The hold: letters that the outbox could not take, kept by this process until it can. On disk
//! where `DATA_DIR` can be written, else in memory, both bounded.

mod drain;
mod folder;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tracing::{Instrument as _, info, warn};

use super::super::attempt::on_a_thread;
use super::Queue;
use super::letter::Filed;
use crate::domain::attempt::AttemptId;
use crate::domain::device::DeviceId;
use crate::domain::failure::chain;
use crate::domain::hold::{Amount, Bounds, Held, Place, Shelf};
use crate::ports::Letter;

pub use drain::{drain, leave, run};

use folder::{Folder, Found};

/// The most that is held in memory, in bytes. Held are the exports that were running when Redis
/// went away, so it is CONFIG_BACKUP_MAX_CONCURRENT compressed texts: rarely a megabyte.
const MEMORY: u64 = 64 << 20;

/// What this process holds.
pub struct Hold {
    folder: Option<Folder>,
    bounds: Bounds,
    state: Mutex<State>,
    /// Something is held since, or Redis has just answered.
    changed: Notify,
}

struct State {
    shelf: Shelf,
    /// Those that are in no file, or not yet.
    texts: HashMap<AttemptId, Arc<Letter>>,
    files: HashMap<AttemptId, PathBuf>,
    /// Why the last letter could not be written.
    disk_trouble: Option<String>,
    /// Why the adoption of an earlier process's letters failed last.
    adoption_trouble: Option<String>,
    /// It was said that letters are held. So many have gone on since.
    announced: Option<u64>,
}

/// How much is held, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holding {
    /// On disk.
    pub disk: Amount,
    /// In memory.
    pub memory: Amount,
    /// Where letters on disk are.
    pub folder: Option<PathBuf>,
}

/// There is no room for one more letter.
#[derive(Debug, thiserror::Error)]
#[error(
    "no more can be held by this process: {} of {} bytes in {disk}, {} of {} bytes in memory; bring \
     Redis or NATS back, or give DATA_DIR a disk that can be written and raise OUTBOX_MAX_BYTES",
    .used.0, .bounds.disk, .used.1, .bounds.memory
)]
pub struct Full {
    bounds: Bounds,
    /// On disk, and in memory.
    used: (u64, u64),
    /// Which folder, and what is wrong with it.
    disk: String,
}

/// A letter as it is held.
enum Text {
    Memory(Arc<Letter>),
    File(PathBuf),
}

impl Hold {
    /// Holds up to `max_bytes` on disk below `data_dir`, and less than that in memory.
    pub(super) fn new(data_dir: Option<&Path>, max_bytes: u64) -> Self {
        let bounds = Bounds {
            disk: max_bytes,
            memory: max_bytes.min(MEMORY),
        };
        Self {
            folder: data_dir.map(Folder::new),
            bounds,
            state: Mutex::new(State {
                shelf: Shelf::new(bounds),
                texts: HashMap::new(),
                files: HashMap::new(),
                disk_trouble: None,
                adoption_trouble: None,
                announced: None,
            }),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything of `device` is held.
    pub(super) fn waits(&self, device: DeviceId) -> bool {
        self.state().shelf.waits(device)
    }

    /// Whether the letter of `attempt` is held.
    pub(super) fn has(&self, attempt: AttemptId) -> bool {
        self.state().shelf.place_of(attempt).is_some()
    }

    /// How much is held, and where.
    pub(super) fn holding(&self) -> Holding {
        let state = self.state();
        Holding {
            disk: state.shelf.amount(Place::Disk),
            memory: state.shelf.amount(Place::Memory),
            folder: self.folder.as_ref().map(|folder| folder.place().to_owned()),
        }
    }

    /// Redis has just taken something: it may take what is held.
    pub(super) fn redis_answers(&self) {
        if !self.state().shelf.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Holds a letter, because of `why`. It is held from the first poll on; what takes time is
    /// writing it, and that goes on if the caller does not wait for it.
    ///
    /// # Errors
    /// [`Full`] when there is room for it neither on disk nor in memory.
    pub(super) async fn keep(self: &Arc<Self>, letter: Letter, why: &str) -> Result<Place, Full> {
        let letter = Arc::new(letter);
        let place = {
            let mut state = self.state();
            let held = Held {
                attempt: letter.id,
                device: letter.device,
                written: letter.created_at,
                bytes: letter.text.len() as u64,
            };
            let place = state.shelf.take(held, self.folder.is_some());
            let place = place.ok_or_else(|| self.full(&state))?;
            state.texts.insert(letter.id, Arc::clone(&letter));
            place
        };
        let place = match place {
            Place::Memory => Place::Memory,
            Place::Disk => {
                let hold = Arc::clone(self);
                let writing = async move { hold.write(letter).await }.in_current_span();
                match tokio::spawn(writing).await {
                    Ok(written) => written?,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    // Only the end of the runtime cancels it.
                    Err(_) => std::future::pending().await,
                }
            }
        };
        self.announce(place, why);
        self.changed.notify_one();
        Ok(place)
    }

    async fn write(self: Arc<Self>, letter: Arc<Letter>) -> Result<Place, Full> {
        let id = letter.id;
        let written = {
            let hold = Arc::clone(&self);
            on_a_thread(move || hold.folder.as_ref().map(|folder| folder.write(&letter))).await
        };
        let file = match written {
            Some(Ok(file)) => file,
            Some(Err(error)) => return self.stays_in_memory(id, &chain(&error)),
            None => return self.stays_in_memory(id, "there is no DATA_DIR"),
        };
        if !self.is_on_disk(id, &file) {
            // It went on from memory meanwhile.
            remove(file).await;
        }
        Ok(Place::Disk)
    }

    /// Notes where the letter was written; false when it is not held any more.
    fn is_on_disk(&self, id: AttemptId, file: &Path) -> bool {
        let mut state = self.state();
        if state.disk_trouble.take().is_some() {
            info!("DATA_DIR can be written again");
        }
        let held = state.shelf.place_of(id).is_some();
        if held {
            state.texts.remove(&id);
            state.files.insert(id, file.to_owned());
        }
        held
    }

    fn stays_in_memory(&self, id: AttemptId, error: &str) -> Result<Place, Full> {
        let mut state = self.state();
        if state.disk_trouble.replace(error.to_owned()).is_none() {
            warn!(
                error,
                "Snapshots cannot be held on disk, only in memory: those would be lost with this \
                 process. Give DATA_DIR a folder that this user may write, with space left"
            );
        }
        if state.shelf.keep_in_memory(id) {
            return Ok(Place::Memory);
        }
        state.shelf.remove(id);
        state.texts.remove(&id);
        Err(self.full(&state))
    }

    fn full(&self, state: &State) -> Full {
        let folder = self.folder.as_ref().map(|folder| folder.place().display());
        let folder = folder.map_or("no folder".to_owned(), |folder| folder.to_string());
        Full {
            bounds: self.bounds,
            used: (
                state.shelf.amount(Place::Disk).bytes,
                state.shelf.amount(Place::Memory).bytes,
            ),
            disk: match &state.disk_trouble {
                Some(trouble) => format!("{folder} ({trouble})"),
                None => folder,
            },
        }
    }

    /// Says once that letters are held.
    fn announce(&self, place: Place, why: &str) {
        {
            let mut state = self.state();
            if state.announced.is_some() {
                return;
            }
            state.announced = Some(0);
        }
        let folder = self.folder.as_ref().map(|folder| folder.place().display());
        warn!(
            place = place.as_str(),
            folder = folder.map(tracing::field::display),
            why,
            "Snapshots can neither be published nor put into the outbox: this process holds them \
             until Redis answers"
        );
    }

    /// Says once that nothing is held any more.
    fn announce_end(&self) {
        let mut state = self.state();
        if state.shelf.is_empty()
            && let Some(snapshots) = state.announced.take()
        {
            info!(
                snapshots,
                "Every snapshot that was held is in the outbox now"
            );
        }
    }

    /// Takes over what processes that are gone have left on disk.
    pub(super) async fn adopt(self: &Arc<Self>) {
        let finds = {
            let hold = Arc::clone(self);
            on_a_thread(move || hold.folder.as_ref().map(Folder::adopt)).await
        };
        let finds = match finds {
            None => return,
            Some(Ok(finds)) => finds,
            Some(Err(error)) => {
                let error = error.to_string();
                let last = self.state().adoption_trouble.replace(error.clone());
                if last.as_ref() != Some(&error) {
                    warn!(
                        error,
                        "what earlier processes held in DATA_DIR cannot be looked at"
                    );
                }
                return;
            }
        };
        self.state().adoption_trouble = None;
        for (file, reason) in &finds.strange {
            report_strange(file, reason);
        }
        let mut adopted = 0_u64;
        for found in finds.letters {
            adopted += u64::from(self.take_over(found));
        }
        if adopted > 0 {
            info!(
                snapshots = adopted,
                "took over snapshots that an earlier process held on disk"
            );
            self.state().announced.get_or_insert(0);
            self.changed.notify_one();
        }
    }

    fn take_over(&self, found: Found) -> bool {
        let Found { filed, bytes, file } = found;
        let Filed {
            id,
            device_id: device,
            created_at: written,
            ..
        } = filed;
        let mut state = self.state();
        let held = Held {
            attempt: id,
            device,
            written,
            bytes,
        };
        let news = state.shelf.adopt(held);
        if news {
            state.files.insert(id, file);
        } else {
            report_strange(&file, "this process holds the same one already");
        }
        news
    }

    /// The letter whose turn it is, and where its text is.
    fn next(&self) -> Option<(Held, Text)> {
        let state = self.state();
        let held = state.shelf.next()?;
        let text = state.texts.get(&held.attempt).cloned().map(Text::Memory);
        let file = || state.files.get(&held.attempt).cloned().map(Text::File);
        Some((held, text.or_else(file)?))
    }

    fn is_stuck(&self, device: DeviceId) {
        self.state().shelf.is_stuck(device);
    }

    /// The letter is safe elsewhere.
    async fn went_on(&self, id: AttemptId) {
        let file = self.state().files.get(&id).cloned();
        if let Some(file) = file {
            remove(file).await;
        }
        let mut state = self.state();
        state.forget(id);
        if let Some(gone_on) = &mut state.announced {
            *gone_on += 1;
        }
    }

    /// The letter is lost: its file is gone, or not what was written.
    fn forget(&self, id: AttemptId) {
        self.state().forget(id);
    }

    /// Moves what is only in memory to disk, as far as there is room.
    async fn to_disk(self: &Arc<Self>) {
        let in_memory = self.state().shelf.held_in(Place::Memory);
        for held in in_memory {
            let id = held.attempt;
            let Some(letter) = self.state().texts.get(&id).cloned() else {
                continue;
            };
            let hold = Arc::clone(self);
            let write = move || hold.folder.as_ref().map(|folder| folder.write(&letter));
            let Some(Ok(file)) = on_a_thread(write).await else {
                return;
            };
            if !self.state().shelf.keep_on_disk(id) || !self.is_on_disk(id, &file) {
                remove(file).await;
            }
        }
    }
}

impl State {
    fn forget(&mut self, id: AttemptId) {
        self.shelf.remove(id);
        self.texts.remove(&id);
        self.files.remove(&id);
    }
}

async fn remove(file: PathBuf) {
    let shown = file.display().to_string();
    if let Err(error) = on_a_thread(move || Folder::remove(&file)).await {
        warn!(
            %error, file = shown,
            "the file of a snapshot that is in the outbox could not be removed; the next start puts \
             it in again, which does no harm"
        );
    }
}

fn report_strange(file: &Path, reason: &str) {
    warn!(
        file = %file.display(), reason,
        "a file among the snapshots that are held is none, or not whole; it is left there for \
         somebody to look at"
    );
}

#[cfg(test)]
mod tests;
