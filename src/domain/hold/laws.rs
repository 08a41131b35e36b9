//! The laws of the shelf: bounds hold, sums agree, order per device, nobody starves.

use proptest::prelude::*;
use time::macros::datetime;
use uuid::Uuid;

use super::*;

const BOUNDS: Bounds = Bounds {
    disk: 60,
    memory: 25,
};

#[derive(Clone, Debug)]
enum Deed {
    Take {
        device: u8,
        written: i64,
        bytes: u64,
        disk: bool,
    },
    Adopt {
        device: u8,
        written: i64,
        bytes: u64,
    },
    /// The disk refused the letter that was taken last.
    DiskFailed,
    DiskWorksAgain,
    /// The letter whose turn it is goes on.
    Goes,
    /// It does not.
    Stays,
}

fn deed() -> impl Strategy<Value = Deed> {
    let letter = || (0..4_u8, 0..50_i64, 1..30_u64);
    prop_oneof![
        4 => (letter(), any::<bool>()).prop_map(|((device, written, bytes), disk)| Deed::Take {
            device, written, bytes, disk
        }),
        1 => letter().prop_map(|(device, written, bytes)| Deed::Adopt { device, written, bytes }),
        1 => Just(Deed::DiskFailed),
        1 => Just(Deed::DiskWorksAgain),
        2 => Just(Deed::Goes),
        2 => Just(Deed::Stays),
    ]
}

fn letter(number: u128, device: u8, written: i64, bytes: u64) -> Held {
    Held {
        attempt: AttemptId(Uuid::from_u128(number)),
        device: DeviceId(Uuid::from_u128(device.into())),
        written: datetime!(2026-01-02 03:04:05 UTC) + time::Duration::seconds(written),
        bytes,
    }
}

fn order(letter: &Held) -> (Timestamp, AttemptId) {
    (letter.written, letter.attempt)
}

/// A shelf that has lived through `deeds`, beside a plain list of what must be on it.
struct Played {
    shelf: Shelf,
    list: Vec<Held>,
}

impl Played {
    fn new() -> Self {
        Self {
            shelf: Shelf::new(BOUNDS),
            list: Vec::new(),
        }
    }

    fn first_of_its_device(&self, letter: &Held) -> bool {
        let of_device = self.list.iter().filter(|it| it.device == letter.device);
        of_device.map(order).min() == Some(order(letter))
    }

    fn play(&mut self, number: u128, deed: &Deed) -> Result<(), TestCaseError> {
        match deed {
            Deed::Take {
                device,
                written,
                bytes,
                disk,
            } => {
                let letter = letter(number, *device, *written, *bytes);
                let before = Place::ALL.map(|place| self.shelf.amount(place));
                match self.shelf.take(letter, *disk) {
                    Some(place) => {
                        prop_assert!(*disk || place == Place::Memory);
                        prop_assert_eq!(self.shelf.place_of(letter.attempt), Some(place));
                        self.list.push(letter);
                    }
                    None => {
                        let [on_disk, in_memory] = before;
                        prop_assert!(in_memory.bytes + bytes > BOUNDS.memory);
                        prop_assert!(!disk || on_disk.bytes + bytes > BOUNDS.disk);
                        let after = Place::ALL.map(|place| self.shelf.amount(place));
                        prop_assert_eq!(before, after);
                    }
                }
                prop_assert!(self.shelf.amount(Place::Memory).bytes <= BOUNDS.memory);
            }
            Deed::Adopt {
                device,
                written,
                bytes,
            } => {
                let letter = letter(number, *device, *written, *bytes);
                prop_assert!(self.shelf.adopt(letter));
                prop_assert!(!self.shelf.adopt(letter), "twice is once");
                self.list.push(letter);
            }
            Deed::DiskFailed => {
                let Some(letter) = self.list.last() else {
                    return Ok(());
                };
                let in_memory = self.shelf.amount(Place::Memory).bytes;
                let was_on_disk = self.shelf.place_of(letter.attempt) == Some(Place::Disk);
                let kept = self.shelf.keep_in_memory(letter.attempt);
                let room = in_memory + letter.bytes <= BOUNDS.memory;
                prop_assert_eq!(kept, !was_on_disk || room);
                if !kept {
                    self.shelf.remove(letter.attempt);
                    self.list.pop();
                }
                prop_assert!(self.shelf.amount(Place::Memory).bytes <= BOUNDS.memory);
            }
            Deed::DiskWorksAgain => {
                for letter in self.shelf.held_in(Place::Memory) {
                    let kept = self.shelf.keep_on_disk(letter.attempt);
                    let place = self.shelf.place_of(letter.attempt);
                    prop_assert_eq!(kept, place == Some(Place::Disk));
                }
            }
            Deed::Goes => {
                let Some(next) = self.shelf.next() else {
                    return Ok(());
                };
                prop_assert!(self.first_of_its_device(&next));
                let removed = self.shelf.remove(next.attempt);
                prop_assert_eq!(removed.map(|(letter, _)| letter), Some(next));
                self.list.retain(|letter| letter.attempt != next.attempt);
            }
            Deed::Stays => {
                let Some(next) = self.shelf.next() else {
                    return Ok(());
                };
                prop_assert!(self.first_of_its_device(&next));
                self.shelf.is_stuck(next.device);
            }
        }
        Ok(())
    }

    fn agrees(&self) -> Result<(), TestCaseError> {
        for place in Place::ALL {
            let held = self.shelf.held_in(place);
            let amount = Amount {
                letters: held.len() as u64,
                bytes: held.iter().map(|letter| letter.bytes).sum(),
            };
            prop_assert_eq!(self.shelf.amount(place), amount);
        }
        let mut attempts: Vec<_> = self.list.iter().map(|letter| letter.attempt).collect();
        attempts.sort();
        prop_assert_eq!(self.shelf.attempts(), attempts);
        prop_assert_eq!(self.shelf.is_empty(), self.list.is_empty());
        for device in 0..4_u8 {
            let device = DeviceId(Uuid::from_u128(device.into()));
            let waits = self.list.iter().any(|letter| letter.device == device);
            prop_assert_eq!(self.shelf.waits(device), waits);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_shelf_holds_what_it_took_within_its_bounds_and_offers_the_oldest_of_a_device(
        deeds in proptest::collection::vec(deed(), 0..60),
    ) {
        let mut played = Played::new();
        for (number, deed) in deeds.iter().enumerate() {
            played.play(number as u128 + 1, deed)?;
            played.agrees()?;
        }
        // Whatever happened before, everything goes on in the end, each device in its order.
        let mut gone: Vec<Held> = Vec::new();
        while let Some(next) = played.shelf.next() {
            played.shelf.remove(next.attempt);
            gone.push(next);
        }
        prop_assert_eq!(gone.len(), played.list.len());
        for device in gone.iter().map(|letter| letter.device) {
            let of_device = gone.iter().filter(|letter| letter.device == device);
            prop_assert!(of_device.map(order).is_sorted());
        }
    }

    #[test]
    fn a_letter_that_never_goes_on_holds_up_no_other_device(
        deeds in proptest::collection::vec(deed(), 0..60),
    ) {
        let mut played = Played::new();
        for (number, deed) in deeds.iter().enumerate() {
            played.play(number as u128 + 1, deed)?;
        }
        let devices: BTreeSet<_> = played.list.iter().map(|letter| letter.device).collect();
        let mut offered = BTreeSet::new();
        for _ in 0..devices.len() {
            let next = played.shelf.next().expect("something is held");
            offered.insert(next.device);
            played.shelf.is_stuck(next.device);
        }
        prop_assert_eq!(offered, devices);
    }
}

#[test]
fn the_oldest_goes_first_across_devices() {
    let mut shelf = Shelf::new(BOUNDS);
    let (old, new) = (letter(9, 1, 0, 1), letter(2, 2, 5, 1));
    shelf.take(new, true);
    shelf.adopt(old);
    assert_eq!(shelf.next(), Some(old));
}
