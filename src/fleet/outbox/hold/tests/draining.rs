//! The way out of the hold: in order, said in the database meanwhile, and what is lost on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::*;
use crate::credentials::Key;
use crate::domain::failure::{Failure, FailureKind};
use crate::fleet::Context;
use crate::fleet::fakes::World;
use crate::fleet::outbox::Limits;
use crate::ports::{
    Delivered, GivenUp, HELD_FOR, Large, Next, Outbox, OutboxError, OutboxState, RelayLease,
    Settlements, StoreError,
};

/// An outbox that only takes letters in, or nothing at all.
#[derive(Default)]
struct Letters {
    away: AtomicBool,
    taken: Mutex<Vec<AttemptId>>,
}

fn away() -> OutboxError {
    OutboxError {
        operation: "do anything".to_owned(),
        source: "it is not there".into(),
    }
}

#[async_trait]
impl Outbox for Letters {
    async fn append(&self, letter: &Letter) -> Result<(), OutboxError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(away());
        }
        self.taken.lock().expect("whole").push(letter.id);
        Ok(())
    }

    async fn waits(&self, _device: DeviceId) -> Result<bool, OutboxError> {
        Err(away())
    }

    async fn state(&self) -> Result<OutboxState, OutboxError> {
        Err(away())
    }

    async fn missing(&self, _attempts: &[AttemptId]) -> Result<Vec<AttemptId>, OutboxError> {
        Err(away())
    }

    async fn try_lease(&self, _ttl: Duration) -> Result<Option<RelayLease>, OutboxError> {
        Err(away())
    }

    async fn renew(
        &self,
        _lease: &RelayLease,
        _ttl: Duration,
    ) -> Result<Option<RelayLease>, OutboxError> {
        Err(away())
    }

    async fn release(&self, _lease: &RelayLease) {}

    async fn recover(&self, _lease: &RelayLease) -> Result<u64, OutboxError> {
        Err(away())
    }

    async fn take(&self, _lease: &RelayLease) -> Result<Next, OutboxError> {
        Err(away())
    }

    async fn fetch(
        &self,
        _lease: &RelayLease,
        _large: &Large,
    ) -> Result<Option<Vec<u8>>, OutboxError> {
        Err(away())
    }

    async fn remove(&self, _letter: &Letter) -> Result<(), OutboxError> {
        Err(away())
    }

    async fn replace(&self, _letter: &Letter, _text: &[u8]) -> Result<(), OutboxError> {
        Err(away())
    }

    async fn bury(
        &self,
        _from: &[u8],
        _letter: Option<&Letter>,
        _text: &[u8],
    ) -> Result<(), OutboxError> {
        Err(away())
    }

    async fn dead(&self, _place: u64) -> Result<Option<Vec<u8>>, OutboxError> {
        Err(away())
    }

    async fn revive(&self, _from: &[u8], _letter: &Letter) -> Result<bool, OutboxError> {
        Err(away())
    }
}

/// What the database was told, and when.
#[derive(Default)]
struct Told {
    held: Mutex<Vec<(Instant, Vec<AttemptId>)>>,
    let_go: Mutex<Vec<AttemptId>>,
    given_up: Mutex<Vec<(AttemptId, FailureKind)>>,
}

#[async_trait]
impl Settlements for Told {
    async fn delivered(&self, _delivered: &Delivered) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn give_up(
        &self,
        attempt: AttemptId,
        _device: DeviceId,
        failure: &Failure,
    ) -> Result<GivenUp, StoreError> {
        let mut given_up = self.given_up.lock().expect("whole");
        given_up.push((attempt, failure.kind));
        Ok(GivenUp::Older)
    }

    async fn still_held(&self, attempts: &[AttemptId]) -> Result<(), StoreError> {
        let mut held = self.held.lock().expect("whole");
        held.push((Instant::now(), attempts.to_vec()));
        Ok(())
    }

    async fn let_go(&self, attempts: &[AttemptId]) -> Result<(), StoreError> {
        self.let_go.lock().expect("whole").extend(attempts);
        Ok(())
    }

    async fn queued(
        &self,
        _after: Option<AttemptId>,
        _limit: u32,
    ) -> Result<Vec<(AttemptId, DeviceId)>, StoreError> {
        Ok(Vec::new())
    }
}

struct Scene {
    context: Arc<Context>,
    letters: Arc<Letters>,
    told: Arc<Told>,
}

impl Scene {
    fn new(data_dir: Option<&Path>) -> Self {
        let (letters, told) = (Arc::new(Letters::default()), Arc::new(Told::default()));
        let limits = Limits {
            retry_interval: Duration::from_secs(30),
            max_attempts: 5,
            max_bytes: 1 << 20,
        };
        let key = Key::from_bytes([1; 32]);
        let queue = Queue::new(letters.clone(), told.clone(), key, limits, data_dir);
        let mut context = World::new(1).context;
        Arc::get_mut(&mut context).expect("ours alone").outbox = Some(queue);
        Self {
            context,
            letters,
            told,
        }
    }

    fn hold(&self) -> &Arc<Hold> {
        &self.context.outbox.as_ref().expect("there is one").hold
    }

    async fn hold_some(&self, letters: &[Letter]) {
        for letter in letters {
            kept(self.hold(), letter.clone()).await.expect("room");
        }
    }
}

fn ids(letters: &[Letter]) -> Vec<AttemptId> {
    letters.iter().map(|letter| letter.id).collect()
}

#[tokio::test(start_paused = true)]
async fn while_redis_is_away_the_database_knows_who_holds_what_and_then_it_goes_on_in_order() {
    let scene = Scene::new(None);
    scene.letters.away.store(true, Ordering::Relaxed);
    // Of three devices, written one after the other, held in another order.
    let letters: Vec<_> = (1..=6)
        .map(|number| Letter {
            created_at: letter(0, 0).created_at + Duration::from_secs(number),
            ..letter(number.into(), 10)
        })
        .collect();
    let reversed: Vec<_> = letters.iter().rev().cloned().collect();
    scene.hold_some(&reversed).await;
    let context = scene.context.clone();
    let running = tokio::spawn(async move { run(&context).await });
    let began = Instant::now();
    sleep(Duration::from_secs(600)).await;
    {
        let held = scene.told.held.lock().expect("whole");
        assert!(held.iter().all(|(_, attempts)| *attempts == ids(&letters)));
        let mut last = began;
        for (at, _) in held.iter() {
            // Twice may fail before anybody takes it for dead.
            assert!(*at - last <= HELD_FOR / 2, "{:?}", *at - last);
            last = *at;
        }
        assert!(
            last.elapsed() <= HELD_FOR / 2 && held.len() < 30,
            "{}",
            held.len()
        );
    }
    scene.letters.away.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(30)).await;
    let taken = scene.letters.taken.lock().expect("whole").clone();
    for device in 0..3 {
        let of_device = |id: &&AttemptId| id.0.as_u128() % 3 == device;
        assert!(taken.iter().filter(of_device).is_sorted(), "{taken:?}");
    }
    let mut all = taken.clone();
    all.sort();
    assert_eq!(all, ids(&letters), "each once");
    assert_eq!(*scene.told.let_go.lock().expect("whole"), taken);
    assert_eq!(scene.hold().holding().memory, amount(0, 0));
    running.abort();
}

#[tokio::test]
async fn a_file_that_somebody_deleted_or_changed_is_given_up_and_holds_up_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    let scene = Scene::new(Some(data.path()));
    let letters: Vec<_> = (1..=2).map(|number| letter(number, 10)).collect();
    scene.hold_some(&letters).await;
    let file = |id: AttemptId| data.path().join(format!("held/0/{id}.letter"));
    std::fs::remove_file(file(letters[0].id)).expect("delete it");
    // The second one is no letter at all: ten times the same byte.
    drain(&scene.context).await;
    assert_eq!(*scene.letters.taken.lock().expect("whole"), []);
    let lost = ids(&letters).into_iter();
    let lost: Vec<_> = lost.map(|id| (id, FailureKind::SnapshotLost)).collect();
    assert_eq!(*scene.told.given_up.lock().expect("whole"), lost);
    let aside = format!("held/set-aside/{}.letter.0", letters[1].id);
    let kept = std::fs::read(data.path().join(aside));
    assert_eq!(kept.expect("never deleted"), letters[1].text);
    assert_eq!(scene.hold().holding().disk, amount(0, 0));
}

#[tokio::test]
async fn at_the_end_what_is_in_memory_is_given_up_and_what_is_on_disk_stays() {
    let data = tempfile::tempdir().expect("a folder");
    for data_dir in [None, Some(data.path())] {
        let scene = Scene::new(data_dir);
        scene.letters.away.store(true, Ordering::Relaxed);
        scene.hold_some(&[letter(1, 10)]).await;
        scene.context.shutdown.hard().cancel();
        drain(&scene.context).await;
        leave(&scene.context).await;
        let lost = match data_dir {
            None => vec![(letter(1, 0).id, FailureKind::SnapshotLost)],
            Some(_) => Vec::new(),
        };
        assert_eq!(*scene.told.given_up.lock().expect("whole"), lost);
    }
}
