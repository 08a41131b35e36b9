//! What a process holds by itself while neither sink nor outbox takes it: where there is room, and
//! which letter goes first.
//!
//! Letters of one device are a lane: they go on in the order in which they were written. A letter
//! that could not go on sends its lane to the end of the line, so that no letter holds up another
//! device's.

use std::collections::{BTreeMap, BTreeSet};

use super::Timestamp;
use super::attempt::AttemptId;
use super::device::DeviceId;

/// Where a letter is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a file: it outlives the process.
    Disk,
    /// In memory only.
    Memory,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 2] = [Self::Disk, Self::Memory];

    /// A stable name for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

/// The most that is held in each place, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// On disk.
    pub disk: u64,
    /// In memory.
    pub memory: u64,
}

/// How much is held in one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Amount {
    /// Letters.
    pub letters: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// A letter that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The attempt that took the snapshot.
    pub attempt: AttemptId,
    /// Its device.
    pub device: DeviceId,
    /// When it was written.
    pub written: Timestamp,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What is held.
#[derive(Clone, Debug)]
pub struct Shelf {
    bounds: Bounds,
    held: BTreeMap<AttemptId, (Held, Place)>,
    lanes: BTreeMap<DeviceId, Lane>,
    /// The lanes, the one whose turn it is first.
    line: BTreeSet<(Turn, DeviceId)>,
    /// How many times a letter could not go on.
    stuck: u64,
    disk: Amount,
    memory: Amount,
}

/// When a letter was written, and its attempt: what letters of one device are ordered by.
type Order = (Timestamp, AttemptId);

/// After what could not go on comes what was tried less lately; the oldest first.
type Turn = (u64, Order);

#[derive(Clone, Debug, Default)]
struct Lane {
    letters: BTreeSet<Order>,
    /// The value of [`Shelf::stuck`] when its first letter could not go on.
    stuck: u64,
}

impl Lane {
    fn turn(&self) -> Option<Turn> {
        Some((self.stuck, *self.letters.first()?))
    }
}

impl Shelf {
    /// Nothing is held.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            held: BTreeMap::new(),
            lanes: BTreeMap::new(),
            line: BTreeSet::new(),
            stuck: 0,
            disk: Amount::default(),
            memory: Amount::default(),
        }
    }

    /// Takes a letter: to disk if `disk` can be written and has room, else to memory. `None` when
    /// there is room in neither: nothing was changed. One that is held already stays where it is.
    pub fn take(&mut self, letter: Held, disk: bool) -> Option<Place> {
        if let Some((_, place)) = self.held.get(&letter.attempt) {
            return Some(*place);
        }
        let place = [Place::Disk, Place::Memory]
            .into_iter()
            .find(|place| (*place != Place::Disk || disk) && self.has_room(*place, letter.bytes))?;
        self.put(letter, place);
        Some(place)
    }

    /// Takes a letter that lies on disk already, however much does. False when it is held.
    pub fn adopt(&mut self, letter: Held) -> bool {
        let news = !self.held.contains_key(&letter.attempt);
        if news {
            self.put(letter, Place::Disk);
        }
        news
    }

    /// A letter that was to go to disk did not: it stays in memory, if there is room. False, and
    /// nothing is changed, when there is none.
    pub fn keep_in_memory(&mut self, attempt: AttemptId) -> bool {
        let Some((letter, Place::Disk)) = self.held.get(&attempt).copied() else {
            return true;
        };
        let room = self.has_room(Place::Memory, letter.bytes);
        if room {
            self.move_to(letter, Place::Memory);
        }
        room
    }

    /// A letter that was in memory is on disk now. It had its chance of a place there before: the
    /// bound is looked at again.
    pub fn keep_on_disk(&mut self, attempt: AttemptId) -> bool {
        let Some((letter, Place::Memory)) = self.held.get(&attempt).copied() else {
            return true;
        };
        let room = self.has_room(Place::Disk, letter.bytes);
        if room {
            self.move_to(letter, Place::Disk);
        }
        room
    }

    /// The letter whose turn it is to go on: the oldest of those that are first of their device.
    pub fn next(&self) -> Option<Held> {
        let ((_, (_, attempt)), _) = self.line.first()?;
        self.held.get(attempt).map(|(letter, _)| *letter)
    }

    /// The first letter of `device` could not go on.
    pub fn is_stuck(&mut self, device: DeviceId) {
        self.stuck += 1;
        let stuck = self.stuck;
        self.change(device, |lane| lane.stuck = stuck);
    }

    /// The letter is not held any more.
    pub fn remove(&mut self, attempt: AttemptId) -> Option<(Held, Place)> {
        let (letter, place) = self.held.remove(&attempt)?;
        let amount = self.amount_mut(place);
        amount.letters -= 1;
        amount.bytes -= letter.bytes;
        self.change(letter.device, |lane| {
            lane.letters.remove(&(letter.written, letter.attempt));
            lane.stuck = 0;
        });
        Some((letter, place))
    }

    /// Whether anything of `device` is held: what is newer must queue up behind it.
    pub fn waits(&self, device: DeviceId) -> bool {
        self.lanes.contains_key(&device)
    }

    /// Where the letter of `attempt` is held.
    pub fn place_of(&self, attempt: AttemptId) -> Option<Place> {
        self.held.get(&attempt).map(|(_, place)| *place)
    }

    /// How much is held in `place`.
    pub fn amount(&self, place: Place) -> Amount {
        match place {
            Place::Disk => self.disk,
            Place::Memory => self.memory,
        }
    }

    /// All attempts whose letters are held.
    pub fn attempts(&self) -> Vec<AttemptId> {
        self.held.keys().copied().collect()
    }

    /// The letters that are held in `place`.
    pub fn held_in(&self, place: Place) -> Vec<Held> {
        let held = self.held.values();
        held.filter(|(_, at)| *at == place)
            .map(|(letter, _)| *letter)
            .collect()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn has_room(&self, place: Place, bytes: u64) -> bool {
        let bound = match place {
            Place::Disk => self.bounds.disk,
            Place::Memory => self.bounds.memory,
        };
        self.amount(place).bytes.saturating_add(bytes) <= bound
    }

    fn amount_mut(&mut self, place: Place) -> &mut Amount {
        match place {
            Place::Disk => &mut self.disk,
            Place::Memory => &mut self.memory,
        }
    }

    fn put(&mut self, letter: Held, place: Place) {
        self.held.insert(letter.attempt, (letter, place));
        let amount = self.amount_mut(place);
        amount.letters += 1;
        amount.bytes += letter.bytes;
        self.change(letter.device, |lane| {
            lane.letters.insert((letter.written, letter.attempt));
        });
    }

    fn move_to(&mut self, letter: Held, place: Place) {
        self.remove(letter.attempt);
        self.put(letter, place);
    }

    /// Changes a lane and finds its new place in the line.
    fn change(&mut self, device: DeviceId, change: impl FnOnce(&mut Lane)) {
        let lane = self.lanes.entry(device).or_default();
        if let Some(turn) = lane.turn() {
            self.line.remove(&(turn, device));
        }
        change(lane);
        match lane.turn() {
            Some(turn) => {
                self.line.insert((turn, device));
            }
            None => {
                self.lanes.remove(&device);
            }
        }
    }
}

#[cfg(test)]
mod laws;
