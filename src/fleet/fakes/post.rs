//! An outbox in memory and the settling of what is in it, late or silent on demand.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{START, World};
use crate::credentials::Key;
use crate::domain::attempt::AttemptId;
use crate::domain::device::{DeviceId, TenantId};
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::snapshot::{ConfigText, Machine, Snapshot};
use crate::fleet::outbox::{Limits, Queue};
use crate::ports::{
    Delivered, Fetched, GivenUp, Large, Letter, Next, Outbox, OutboxError, OutboxState, RelayLease,
    Settlements, StoreError,
};

/// The snapshot of the attempt with this number.
pub fn snapshot(attempt: u128, device: DeviceId) -> Snapshot {
    let text = ConfigText::new(format!("# snapshot {attempt}\n"));
    Snapshot {
        attempt: AttemptId(Uuid::from_u128(attempt)),
        device,
        tenant: TenantId(Uuid::from_u128(99)),
        routeros_version: "7.14".to_owned(),
        machine: Machine::default(),
        collected_at: START,
        hash: text.digest(),
        text,
        normalization_version: 2,
        normalization_rules: "n2-0011".to_owned(),
        incomplete_menus: Vec::new(),
        ledger: Default::default(),
        shape: Default::default(),
    }
}

/// Letters in memory, for a single relay.
#[derive(Default)]
pub struct MemoryOutbox {
    letters: Mutex<Letters>,
    /// Nothing is answered.
    pub away: AtomicBool,
    /// There is more in it than is allowed.
    pub full: AtomicBool,
    /// How long it takes to put a letter in.
    pub takes: Mutex<Duration>,
    /// So long the process stands still while a letter is put in.
    pub stopped_for: Mutex<Duration>,
    /// How often it was asked whether anything of a device waits.
    pub asked: AtomicUsize,
    /// What is as large or larger is to be fetched by itself.
    pub large: Mutex<Option<usize>>,
    /// A fetch takes so long, and then comes to nothing.
    pub stuck_for: Mutex<Option<Duration>>,
    /// Another relay takes the lease over while a text is fetched.
    pub taken_over_at_fetch: AtomicBool,
    /// Another relay has the lease.
    pub taken_over: AtomicBool,
    /// How often a text was fetched or asked for.
    pub fetched: AtomicUsize,
}

#[derive(Default)]
struct Letters {
    waiting: Vec<Letter>,
    /// In the hands of the relay.
    taken: Vec<Letter>,
}

impl MemoryOutbox {
    /// The attempts whose letters are there, the oldest first.
    pub fn ids(&self) -> Vec<AttemptId> {
        let letters = self.letters();
        let all = letters.taken.iter().chain(&letters.waiting);
        all.map(|letter| letter.id).collect()
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_taken_over(&self) -> bool {
        self.taken_over.load(Ordering::Relaxed)
    }

    /// The letters, unless Redis is away.
    fn here(&self) -> Result<MutexGuard<'_, Letters>, OutboxError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(OutboxError {
                operation: "do anything".to_owned(),
                source: "it is not there".into(),
            });
        }
        Ok(self.letters())
    }
}

fn leased(ttl: Duration) -> RelayLease {
    RelayLease {
        token: String::new(),
        expires: Instant::now() + ttl,
    }
}

#[async_trait]
impl Outbox for MemoryOutbox {
    async fn append(&self, letter: &Letter) -> Result<(), OutboxError> {
        let stopped_for = *self.stopped_for.lock().expect("whole");
        if !stopped_for.is_zero() {
            tokio::time::advance(stopped_for).await;
        }
        let takes = *self.takes.lock().expect("whole");
        sleep(takes).await;
        self.here()?.waiting.push(letter.clone());
        Ok(())
    }

    async fn waits(&self, device: DeviceId) -> Result<bool, OutboxError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let letters = self.here()?;
        let mut all = letters.taken.iter().chain(&letters.waiting);
        Ok(all.any(|letter| letter.device == device))
    }

    async fn state(&self) -> Result<OutboxState, OutboxError> {
        let full = self.full.load(Ordering::Relaxed);
        self.here().map(|_| OutboxState {
            bytes: if full { u64::MAX } else { 0 },
            ..OutboxState::default()
        })
    }

    async fn missing(&self, _attempts: &[AttemptId]) -> Result<Vec<AttemptId>, OutboxError> {
        self.here().map(|_| Vec::new())
    }

    async fn try_lease(&self, ttl: Duration) -> Result<Option<RelayLease>, OutboxError> {
        let leased = (!self.is_taken_over()).then(|| leased(ttl));
        self.here().map(|_| leased)
    }

    async fn renew(
        &self,
        _lease: &RelayLease,
        ttl: Duration,
    ) -> Result<Option<RelayLease>, OutboxError> {
        let leased = (!self.is_taken_over()).then(|| leased(ttl));
        self.here().map(|_| leased)
    }

    async fn release(&self, _lease: &RelayLease) {}

    async fn recover(&self, _lease: &RelayLease) -> Result<u64, OutboxError> {
        let mut letters = self.here()?;
        if self.is_taken_over() {
            return Ok(0);
        }
        let recovered = std::mem::take(&mut letters.taken);
        let moved = recovered.len() as u64;
        letters.waiting.splice(..0, recovered);
        Ok(moved)
    }

    async fn take(&self, _lease: &RelayLease) -> Result<Next, OutboxError> {
        let mut letters = self.here()?;
        if self.is_taken_over() {
            return Ok(Next::LeaseLost);
        }
        if letters.waiting.is_empty() {
            return Ok(Next::Empty);
        }
        let letter = letters.waiting.remove(0);
        letters.taken.push(letter.clone());
        let bytes = letter.text.len();
        let large = self.large.lock().expect("whole");
        if large.is_some_and(|large| bytes >= large) {
            let mut head = letter.text;
            head.truncate(512);
            return Ok(Next::Large(Large { head, bytes }));
        }
        Ok(Next::Letter(letter.text))
    }

    async fn fetch(
        &self,
        _lease: &RelayLease,
        large: &Large,
        before: usize,
    ) -> Result<Fetched, OutboxError> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let stuck_for = *self.stuck_for.lock().expect("whole");
        if let Some(stuck_for) = stuck_for {
            sleep(stuck_for).await;
            return Err(OutboxError {
                operation: "hand it out".to_owned(),
                source: "it is too large".into(),
            });
        }
        if self.taken_over_at_fetch.swap(false, Ordering::Relaxed) {
            self.taken_over.store(true, Ordering::Relaxed);
        }
        let letters = self.here()?;
        if self.is_taken_over() {
            return Ok(Fetched::LeaseLost);
        }
        let mut taken = letters.taken.iter();
        let place = taken.position(|letter| letter.text.starts_with(&large.head));
        let Some(place) = place else {
            return Ok(Fetched::Gone);
        };
        assert_eq!(place, before, "where it was said to be");
        Ok(Fetched::Text(letters.taken[place].text.clone()))
    }

    async fn remove(&self, letter: &Letter, before: usize) -> Result<(), OutboxError> {
        let mut letters = self.here()?;
        let mut taken = letters.taken.iter();
        let place = taken.position(|taken| taken.text == letter.text);
        assert_eq!(place, Some(before), "where it was said to be");
        letters.taken.remove(before);
        Ok(())
    }

    async fn replace(&self, letter: &Letter, text: &[u8]) -> Result<(), OutboxError> {
        let mut letters = self.here()?;
        let mut taken = letters.taken.iter_mut();
        if let Some(taken) = taken.find(|taken| taken.text == letter.text) {
            taken.text = text.to_vec();
        }
        Ok(())
    }

    async fn bury(
        &self,
        from: &[u8],
        _letter: Option<&Letter>,
        _text: &[u8],
    ) -> Result<(), OutboxError> {
        let mut letters = self.here()?;
        letters.taken.retain(|taken| taken.text != from);
        Ok(())
    }

    async fn dead(&self, _place: u64) -> Result<Option<Vec<u8>>, OutboxError> {
        self.here().map(|_| None)
    }

    async fn revive(&self, _from: &[u8], _letter: &Letter) -> Result<bool, OutboxError> {
        self.here().map(|_| false)
    }
}

/// What became of queued attempts.
#[derive(Default)]
pub struct MemorySettlements {
    /// Those that were told to be in the stream.
    pub delivered: Mutex<Vec<AttemptId>>,
    /// Those that were told to be held, and when.
    pub held: Mutex<Vec<(Instant, Vec<AttemptId>)>>,
    /// Those that were told to be held no more.
    pub let_go: Mutex<Vec<AttemptId>>,
    /// Those that were given up, and why.
    pub given_up: Mutex<Vec<(AttemptId, FailureKind)>>,
}

#[async_trait]
impl Settlements for MemorySettlements {
    async fn delivered(&self, delivered: &Delivered) -> Result<bool, StoreError> {
        let mut all = self.delivered.lock().expect("whole");
        all.push(delivered.attempt);
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

/// An outbox and what it comes to.
#[derive(Default)]
pub struct Post {
    pub letters: Arc<MemoryOutbox>,
    pub settlements: Arc<MemorySettlements>,
}

impl World {
    /// A world with an outbox; what that cannot take is held in memory.
    pub fn with_outbox() -> (Self, Post) {
        Self::with_outbox_in(None)
    }

    /// The same; what the outbox cannot take is held below `data_dir`, if there is one.
    pub fn with_outbox_in(data_dir: Option<&Path>) -> (Self, Post) {
        let (mut world, post) = (Self::new(1), Post::default());
        let limits = Limits {
            retry_interval: Duration::from_secs(30),
            max_attempts: 5,
            max_bytes: 1 << 20,
        };
        let key = Key::from_bytes([1; 32]);
        let (letters, settlements) = (post.letters.clone(), post.settlements.clone());
        let queue = Queue::new(letters, settlements, key, limits, data_dir);
        let context = Arc::get_mut(&mut world.context).expect("nobody else has it yet");
        context.outbox = Some(queue);
        (world, post)
    }
}
