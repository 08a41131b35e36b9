//! Replicas that put letters in and relay them, one operation at a time, beside the model of what
//! they do.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use mikrotik_backup::adapters::redis::RedisOutbox;
use mikrotik_backup::domain::attempt::AttemptId;
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::ports::{Letter, Next, Outbox as _, RelayLease};
use redis::aio::MultiplexedConnection;
use time::macros::datetime;
use uuid::Uuid;

use super::lossy::Lossy;
use super::model::Model;

/// Longer than any test: leases end when the course says so.
const LONG: Duration = Duration::from_secs(600);
pub const REPLICAS: usize = 3;
pub const DEVICES: u8 = 3;

/// What happens. Replicas, lanes and letters are counted around.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A replica puts a new letter of a device in.
    Append { replica: usize, device: u8 },
    /// A request to put an earlier letter in is executed a second time, this late.
    AppendedLate { replica: usize, letter: usize },
    /// A replica takes the next step towards a letter: the lease, what others left behind, a
    /// letter.
    Work { replica: usize },
    /// It renews its lease, and gives up where it is lost.
    Renew { replica: usize },
    /// It puts back what it has in its hands.
    PutBack { replica: usize },
    /// It gives the lease back.
    Release { replica: usize },
    /// The stream acknowledges the first letter of a lane.
    Publish { replica: usize, lane: usize },
    /// What was acknowledged is removed.
    Remove { replica: usize, lane: usize },
    /// The stream refuses a letter, and that is counted.
    Refuse { replica: usize, lane: usize },
    /// It is given up.
    Bury { replica: usize, lane: usize },
    /// An operator puts a dead letter back.
    Revive { letter: usize },
    /// The lease of whoever has it expires.
    Expire,
    /// A replica is killed and started again.
    Crash { replica: usize },
}

impl Op {
    /// Whose work it is.
    pub fn replica(self) -> usize {
        match self {
            Self::Append { replica, .. }
            | Self::AppendedLate { replica, .. }
            | Self::Work { replica }
            | Self::Renew { replica }
            | Self::PutBack { replica }
            | Self::Release { replica }
            | Self::Publish { replica, .. }
            | Self::Remove { replica, .. }
            | Self::Refuse { replica, .. }
            | Self::Bury { replica, .. }
            | Self::Crash { replica } => replica,
            Self::Revive { .. } | Self::Expire => 0,
        }
    }
}

/// A replica as it sees itself, which may be wrong.
struct Replica {
    name: String,
    outbox: RedisOutbox,
    lease: Option<RelayLease>,
    recovered: bool,
    hands: Vec<Letter>,
    published: BTreeSet<AttemptId>,
}

impl Replica {
    /// The first letter of one of the devices in its hands.
    fn first(&self, lane: usize) -> Option<Letter> {
        let devices: BTreeSet<_> = self.hands.iter().map(|letter| letter.device).collect();
        let device = devices.iter().nth(lane % devices.len().max(1))?;
        self.hands
            .iter()
            .find(|held| held.device == *device)
            .cloned()
    }

    fn drop_from_hands(&mut self, letter: &Letter) {
        self.hands.retain(|held| held.id != letter.id);
    }

    /// What it had in mind is gone.
    fn lay_down(&mut self) {
        self.hands.clear();
        self.published.clear();
        self.recovered = false;
    }
}

/// All of it.
pub struct World<'a> {
    way: &'a Lossy,
    redis: MultiplexedConnection,
    observer: &'a RedisOutbox,
    model: Model,
    replicas: Vec<Replica>,
    born: usize,
    /// The token of the lease that holds.
    lease: Option<String>,
    appended: Vec<Letter>,
    published: Vec<AttemptId>,
    buried: BTreeSet<AttemptId>,
}

impl<'a> World<'a> {
    /// Begins with an empty server.
    pub async fn new(
        way: &'a Lossy,
        mut redis: MultiplexedConnection,
        observer: &'a RedisOutbox,
    ) -> Self {
        // One that failed has left it as it was.
        way.give_back();
        let flushed = redis::cmd("FLUSHALL").exec_async(&mut redis).await;
        flushed.expect("empty the server");
        let mut world = Self {
            way,
            redis,
            observer,
            model: Model::default(),
            replicas: Vec::new(),
            born: 0,
            lease: None,
            appended: Vec::new(),
            published: Vec::new(),
            buried: BTreeSet::new(),
        };
        for _ in 0..REPLICAS {
            let replica = world.replica().await;
            world.replicas.push(replica);
        }
        world
    }

    /// A replica of a name that none had before, connected.
    async fn replica(&mut self) -> Replica {
        self.born += 1;
        let name = format!("relay-{}", self.born);
        let outbox = RedisOutbox::connect(&self.way.url(), &name).expect("a URL");
        outbox.state().await.expect("connected");
        Replica {
            name,
            outbox,
            lease: None,
            recovered: false,
            hands: Vec::new(),
            published: BTreeSet::new(),
        }
    }

    /// Does `op`. `lost` says which of its answers gets lost, counted from 1, so that its request
    /// is sent again.
    pub async fn step(&mut self, op: Op, lost: u32) {
        let number = op.replica() % REPLICAS;
        // What connecting is answered with is not what gets lost.
        if lost > 0 && !matches!(op, Op::Crash { .. }) {
            self.replicas[number].outbox.state().await.expect("asked");
            self.way.lose(lost);
        }
        match op {
            Op::Append { replica: _, device } => {
                let letter = self.letter(device);
                self.appended.push(letter.clone());
                self.append(number, &letter).await;
            }
            Op::AppendedLate { replica: _, letter } => {
                let index = letter % self.appended.len().max(1);
                if let Some(letter) = self.appended.get(index).cloned() {
                    self.append(number, &letter).await;
                }
            }
            Op::Work { .. } => self.work(number, lost > 0).await,
            Op::Renew { .. } => self.renew(number).await,
            Op::PutBack { .. } => self.recover(number, lost > 0).await,
            Op::Release { .. } => {
                let replica = &mut self.replicas[number];
                if let Some(lease) = replica.lease.take() {
                    replica.outbox.release(&lease).await;
                    replica.lay_down();
                    self.lease.take_if(|held| *held == lease.token);
                }
            }
            Op::Publish { lane, .. } => self.publish(number, lane),
            Op::Remove { lane, .. } => self.remove(number, lane).await,
            Op::Refuse { lane, .. } => self.refuse(number, lane).await,
            Op::Bury { lane, .. } => self.bury(number, lane).await,
            Op::Revive { letter } => self.revive(letter, lost > 0).await,
            Op::Expire => {
                let mut gone = redis::cmd("DEL");
                gone.arg("backup:outbox:relay");
                gone.exec_async(&mut self.redis).await.expect("delete");
                self.lease = None;
            }
            Op::Crash { .. } => self.replicas[number] = self.replica().await,
        }
        self.way.lose(0);
        self.check(&format!("{op:?}, answer {lost} lost")).await;
    }

    fn letter(&self, device: u8) -> Letter {
        let number = self.appended.len();
        let device = DeviceId(Uuid::from_u128((device % DEVICES).into()));
        Letter {
            id: AttemptId(Uuid::from_u128(number as u128)),
            device,
            created_at: datetime!(2026-01-02 03:04:05 UTC) + Duration::from_secs(number as u64),
            text: format!("letter {number} of {device}").into_bytes(),
        }
    }

    async fn append(&mut self, number: usize, letter: &Letter) {
        let put = self.replicas[number].outbox.append(letter).await;
        put.expect("put in");
        self.model.append(letter);
    }

    fn holds(&self, number: usize) -> bool {
        let lease = &self.replicas[number].lease;
        lease.as_ref().map(|lease| &lease.token) == self.lease.as_ref() && lease.is_some()
    }

    async fn work(&mut self, number: usize, lost: bool) {
        let holds = self.holds(number);
        let replica = &mut self.replicas[number];
        let Some(lease) = replica.lease.clone() else {
            let taken = replica.outbox.try_lease(LONG).await.expect("asked");
            assert_eq!(taken.is_some(), self.lease.is_none(), "one holds the lease");
            if let Some(taken) = taken {
                self.lease = Some(taken.token.clone());
                replica.lease = Some(taken);
            }
            return;
        };
        if !replica.recovered {
            return self.recover(number, lost).await;
        }
        let taken = replica.outbox.take(&lease).await;
        let expected = holds.then(|| self.model.take(&replica.name));
        match (taken, expected) {
            // Not known what was taken: as if nothing had ever been.
            (Err(_), _) if lost => replica.lay_down(),
            (Ok(Next::Letter(text)), Some(Some(letter))) => {
                assert_eq!(text, letter.text, "the one that waited longest");
                replica.hands.push(letter);
            }
            (Ok(Next::Empty), Some(None)) | (Ok(Next::LeaseLost), None) => {}
            (taken, expected) => panic!("took {taken:?} and not {expected:?}"),
        }
    }

    async fn recover(&mut self, number: usize, lost: bool) {
        let holds = self.holds(number);
        let replica = &mut self.replicas[number];
        let Some(lease) = &replica.lease else { return };
        let recovered = replica.outbox.recover(lease).await.expect("asked");
        replica.lay_down();
        replica.recovered = true;
        let others = self.model.hands.len();
        assert!(others <= 1, "{others} relays have something in their hands");
        let moved = if holds { self.model.recover() } else { 0 };
        // Sent again, only what was moved then is counted.
        assert!(recovered == moved as u64 || lost, "{recovered} recovered");
    }

    async fn renew(&mut self, number: usize) {
        let holds = self.holds(number);
        let replica = &mut self.replicas[number];
        let Some(lease) = &replica.lease else { return };
        let renewed = replica.outbox.renew(lease, LONG).await.expect("asked");
        assert_eq!(renewed.is_some(), holds);
        if renewed.is_none() {
            replica.lay_down();
        }
        replica.lease = renewed;
    }

    /// Only who surely holds the lease publishes: `fleet/fence.rs` has tests of its own.
    fn publish(&mut self, number: usize, lane: usize) {
        if !self.holds(number) {
            return;
        }
        let Some(letter) = self.replicas[number].first(lane) else {
            return;
        };
        let older = self
            .appended
            .iter()
            .take_while(|older| older.id != letter.id);
        for older in older.filter(|older| older.device == letter.device) {
            let had_its_turn =
                self.published.contains(&older.id) || self.buried.contains(&older.id);
            let again = self.published.contains(&letter.id) || self.buried.contains(&letter.id);
            assert!(had_its_turn || again, "{} overtook {}", letter.id, older.id);
        }
        self.replicas[number].published.insert(letter.id);
        self.published.push(letter.id);
    }

    async fn remove(&mut self, number: usize, lane: usize) {
        let replica = &mut self.replicas[number];
        let letter = replica.first(lane);
        let Some(letter) = letter.filter(|letter| replica.published.contains(&letter.id)) else {
            return;
        };
        // Small ones are compared as a whole, wherever they are said to be.
        replica.outbox.remove(&letter, 0).await.expect("removed");
        replica.drop_from_hands(&letter);
        self.model.remove(&replica.name, &letter);
    }

    async fn refuse(&mut self, number: usize, lane: usize) {
        let replica = &mut self.replicas[number];
        let Some(letter) = replica.first(lane) else {
            return;
        };
        let text = [&letter.text[..], b", refused"].concat();
        replica
            .outbox
            .replace(&letter, &text)
            .await
            .expect("changed");
        self.model.replace(&replica.name, &letter, &text);
        for held in replica.hands.iter_mut().filter(|held| held.id == letter.id) {
            held.text.clone_from(&text);
        }
    }

    async fn bury(&mut self, number: usize, lane: usize) {
        let replica = &mut self.replicas[number];
        let Some(letter) = replica.first(lane) else {
            return;
        };
        let text = [&letter.text[..], b", dead"].concat();
        let buried = replica.outbox.bury(&letter.text, Some(&letter), &text);
        buried.await.expect("buried");
        replica.drop_from_hands(&letter);
        self.model.bury(&replica.name, &letter, &text);
        self.buried.insert(letter.id);
    }

    async fn revive(&mut self, index: usize, lost: bool) {
        let dead = &self.model.dead;
        let Some(dead) = dead.get(index % dead.len().max(1)).cloned() else {
            return;
        };
        let alive = self.appended.iter().find(|letter| letter.id == dead.id);
        let alive = alive.expect("it was put in once").clone();
        let revived = self.replicas[0].outbox.revive(&dead.text, &alive).await;
        assert!(revived.expect("asked") || lost);
        self.model.revive(&dead.text, &alive);
    }

    /// Redis holds what the model says, and the outbox tells the same.
    async fn check(&mut self, after: &str) {
        let devices = (0..DEVICES).map(|number| DeviceId(Uuid::from_u128(number.into())));
        let ids: Vec<_> = self.appended.iter().map(|letter| letter.id).collect();
        let ((), state, waits, missing) = tokio::join!(
            self.model.assert_is_in(&mut self.redis, after),
            self.observer.state(),
            join_all(devices.clone().map(|device| self.observer.waits(device))),
            self.observer.missing(&ids),
        );
        assert_eq!(state.expect("asked"), self.model.state(), "after {after}");
        for (device, waits) in devices.zip(waits) {
            let expected = self.model.waits(device);
            assert_eq!(waits.expect("asked"), expected, "after {after}: {device}");
        }
        for id in missing.expect("asked") {
            let ended = self.published.contains(&id) || self.buried.contains(&id);
            assert!(ended, "after {after}: {id} is gone and nobody has it");
        }
    }

    /// Everybody is killed; one that is started then finishes what there is.
    pub async fn finish(mut self) {
        for number in 0..REPLICAS {
            self.step(Op::Crash { replica: number }, 0).await;
        }
        self.step(Op::Expire, 0).await;
        let (replica, lane) = (0, 0);
        // The lease, what was left behind, then each letter.
        for _ in 0..2 {
            self.step(Op::Work { replica }, 0).await;
        }
        while !self.model.waiting.is_empty() {
            self.step(Op::Work { replica }, 0).await;
            self.step(Op::Publish { replica, lane }, 0).await;
            self.step(Op::Remove { replica, lane }, 0).await;
        }
        assert!(self.model.hands.is_empty());
        for letter in &self.appended {
            let dead = self.model.dead.iter().any(|dead| dead.id == letter.id);
            let published = self.published.contains(&letter.id);
            assert!(published || dead, "{} is lost", letter.id);
        }
    }
}
