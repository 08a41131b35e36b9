//! Whatever happens, MikroTik's recipe punishes nobody: schedules, the claim and the journal played
//! against the firewall itself.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use time::macros::datetime;
use uuid::Uuid;

use super::recipe::Recipe;
use super::*;
use crate::domain::attempt::{AttemptId, Deferral, LastAttempt, Status};
use crate::domain::device::{DeviceId, Revision};
use crate::domain::digest::Digest;
use crate::domain::failure::FailureKind;
use crate::domain::schedule::{Condition, Draw, Event, Finish, Made, Next, Policy, Schedule};

const START: Timestamp = datetime!(2026-01-02 03:04:05 UTC);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DEVICE: DeviceId = DeviceId(Uuid::from_u128(7));

/// What comes of an attempt, if nothing comes in between.
#[derive(Clone, Copy, Debug)]
struct Fate {
    result: Made,
    /// How far into its permit it dials; `None`: it ends before (credentials that do not open).
    dials_after: Option<f64>,
    /// From there to its end.
    takes: Duration,
}

/// An attempt that runs in a process.
#[derive(Clone, Copy, Debug)]
struct Running {
    id: AttemptId,
    revision: Revision,
    claimed: Timestamp,
    dials: Option<Timestamp>,
    dialled: bool,
    ends: Timestamp,
    result: Made,
    leased: bool,
}

/// A process that has the device.
#[derive(Debug)]
struct Replica {
    schedule: Schedule,
    known: Option<AttemptId>,
    running: Option<Running>,
}

/// A row of the journal, as far as it matters here.
#[derive(Debug)]
struct Row {
    id: AttemptId,
    dial: Dial,
    dialled: bool,
}

#[derive(Debug)]
struct World {
    policy: Policy,
    bound: Bound,
    now: Timestamp,
    row: Revision,
    stored: Option<LastAttempt>,
    journal: Vec<Row>,
    mark: Option<(AttemptId, Timestamp)>,
    replicas: Vec<Replica>,
    fates: Vec<Fate>,
    draws: Vec<f64>,
    ids: u128,
    /// What an export showed of the firewall.
    counts: Option<bool>,
    /// The router's firewall, and what it has seen.
    recipe: Recipe,
    dials: Vec<Timestamp>,
    punished: bool,
    successes: usize,
    longest_wait: Duration,
}

fn revision(n: usize) -> Revision {
    Revision {
        endpoint: Digest::of(n.to_be_bytes()),
        credentials: Digest::of(n.to_be_bytes()),
        pin: Digest::of(n.to_be_bytes()),
    }
}

impl World {
    fn new(interval: Duration, replicas: usize, fates: Vec<Fate>, draws: Vec<f64>) -> Self {
        let mut world = Self {
            policy: Policy {
                interval,
                jitter_min: Duration::ZERO,
                jitter_max: Duration::from_secs(300),
                recheck: Duration::from_secs(300),
            },
            bound: Bound::new(Duration::from_secs(10)),
            now: START,
            row: revision(0),
            stored: None,
            journal: Vec::new(),
            mark: None,
            replicas: Vec::new(),
            fates,
            draws,
            ids: 0,
            counts: None,
            recipe: Recipe::default(),
            dials: Vec::new(),
            punished: false,
            successes: 0,
            longest_wait: Duration::ZERO,
        };
        for _ in 0..replicas {
            let replica = world.started();
            world.replicas.push(replica);
        }
        world
    }

    fn draw(&mut self) -> Draw {
        self.draws.rotate_left(1);
        Draw::new(self.draws[0])
    }

    fn started(&mut self) -> Replica {
        let (draw, last) = (self.draw(), self.stored.as_ref());
        let (policy, row, now) = (self.policy, self.row, self.now);
        Replica {
            schedule: Schedule::resume(policy, DEVICE, row, last, now, draw),
            known: last.map(|last| last.id),
            running: None,
        }
    }

    fn tell(&mut self, n: usize, event: Event) {
        let (draw, now) = (self.draw(), self.now);
        self.replicas[n].schedule.handle(event, now, draw);
    }

    /// When replica `n` has something to do.
    fn due(&self, n: usize) -> Timestamp {
        let replica = &self.replicas[n];
        match (replica.running, replica.schedule.next()) {
            (Some(running), _) => match running.dials {
                Some(dials) if !running.dialled => dials,
                _ => running.ends,
            },
            (None, Next::Attempt { at, .. } | Next::Skip { at, .. }) => at,
            (None, Next::Wait | Next::Done) => unreachable!("nothing runs and nothing is removed"),
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = later(self.now, time);
        loop {
            let all = 0..self.replicas.len();
            let next = all.min_by_key(|n| self.due(*n)).expect("a replica");
            if self.due(next) > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(self.due(next));
            self.act(next);
        }
    }

    fn act(&mut self, n: usize) {
        if let Some(mut running) = self.replicas[n].running {
            if running.dialled || running.dials.is_none() {
                return self.end(n, running.result);
            }
            running.dialled = true;
            self.replicas[n].running = Some(running);
            self.dials.push(self.now);
            self.punished |= self.recipe.connection(self.now);
            return;
        }
        let Next::Attempt { cause, .. } = self.replicas[n].schedule.next() else {
            return self.tell(n, Event::Skipped);
        };
        self.tell(n, Event::Began);
        match self.claim(n, cause) {
            Ok(running) => self.replicas[n].running = Some(running),
            Err(deferral) => self.tell(n, Event::Finished(Finish::Deferred(deferral))),
        }
    }

    /// What lease and store say.
    fn claim(&mut self, n: usize, cause: Cause) -> Result<Running, Deferral> {
        let running = |replica: &Replica| replica.running.is_some_and(|running| running.leased);
        if self.replicas.iter().any(running) {
            return Err(Deferral::Contended);
        }
        if let Some(last) = &self.stored
            && Some(last.id) != self.replicas[n].known
            && cause != Cause::Manual
        {
            let last = last.clone();
            self.replicas[n].known = Some(last.id);
            return Err(Deferral::Superseded(Box::new(last)));
        }
        self.ids += 1;
        let id = AttemptId(Uuid::from_u128(self.ids));
        if let Some((id, permitted)) = self.mark.replace((id, self.now)) {
            let ended = None;
            let dial = Dial { permitted, ended };
            self.journal.push(Row {
                id,
                dial,
                dialled: true,
            });
        }
        let room = Room::of(cause, self.counts);
        let dialled = self.journal.iter().filter(|row| row.dialled);
        let dials: Vec<_> = dialled.map(|row| row.dial).collect();
        if let Some(until) = self.bound.not_before(&dials, room, self.now) {
            self.mark = None;
            let wait = Duration::try_from(until - self.now).expect("it lies ahead");
            self.longest_wait = self.longest_wait.max(wait);
            return Err(Deferral::RateLimited { until, wait });
        }
        self.fates.rotate_left(1);
        let fate = self.fates[0];
        let slack = |part| later(self.now, self.bound.slack.mul_f64(part));
        let dials = fate.dials_after.map(slack);
        Ok(Running {
            id,
            revision: self.row,
            claimed: self.now,
            dials,
            dialled: false,
            ends: later(dials.unwrap_or(self.now), fate.takes),
            result: match fate.dials_after {
                Some(_) => fate.result,
                None => Made::Failed(FailureKind::CredentialsUnreadable),
            },
            leased: true,
        })
    }

    /// The attempt of replica `n` ends and is recorded.
    fn end(&mut self, n: usize, result: Made) {
        let Some(running) = self.replicas[n].running.take() else {
            return;
        };
        let Running {
            id,
            revision,
            claimed,
            dialled,
            ..
        } = running;
        let finish = Finish::Made {
            started_at: claimed,
            revision,
            result,
        };
        self.tell(n, Event::Finished(finish));
        self.journal.retain(|row| row.id != id);
        let dial = Dial {
            permitted: claimed,
            ended: Some(self.now),
        };
        self.journal.push(Row { id, dial, dialled });
        self.mark = self.mark.filter(|(marked, _)| *marked != id);
        let schedule = &self.replicas[n].schedule;
        let standing = schedule.standing_failure();
        let (status, failed) = match result {
            Made::Taken => (Status::Success, None),
            Made::Failed(kind) => (Status::Failed, Some(kind)),
            Made::Interrupted => (Status::Interrupted, None),
        };
        let succeeded = (result == Made::Taken).then_some(claimed);
        self.successes += usize::from(succeeded.is_some());
        let before = self.stored.as_ref().and_then(|last| last.last_success_at);
        self.stored = Some(LastAttempt {
            id,
            started_at: claimed,
            finished_at: self.now,
            status,
            failure: standing.map(|(kind, _)| kind).or(failed),
            consecutive_failures: schedule.consecutive_failures(),
            revision: standing.map_or(revision, |(_, revision)| revision),
            last_success_at: succeeded.or(before),
            deaths: 0,
        });
        self.replicas[n].known = Some(id);
    }

    /// Replica `n` gives back a claim under which it has not dialled.
    fn give_back(&mut self, n: usize) {
        if let Some(running) = self.replicas[n].running.take_if(|running| !running.dialled) {
            self.mark = self.mark.filter(|(marked, _)| *marked != running.id);
            let reason = "the credentials could not be opened in time".to_owned();
            let away = Finish::Deferred(Deferral::Unavailable { reason });
            self.tell(n, Event::Finished(away));
        }
    }

    /// The snapshot of the last attempt, which was to be published later, is lost.
    fn lose_the_snapshot(&mut self) {
        let Some(last) = &mut self.stored else { return };
        if last.status != Status::Success {
            return;
        }
        last.status = Status::Failed;
        last.failure = Some(FailureKind::SnapshotLost);
        last.consecutive_failures = 1;
        let last = last.clone();
        for n in 0..self.replicas.len() {
            self.replicas[n].known = Some(last.id);
            self.tell(n, Event::Revised(Box::new(last.clone())));
        }
    }

    fn edit(&mut self, n: usize) {
        self.row = revision(n);
        for n in 0..self.replicas.len() {
            self.tell(n, Event::Edited(self.row));
        }
    }

    fn does(&mut self, doing: &Do, edition: usize) {
        let replicas = self.replicas.len();
        match *doing {
            Do::Wait(time) => self.run_for(time),
            Do::Ask(n) => {
                let n = n % replicas;
                // What runs already is shared.
                if self.replicas[n].schedule.condition() != Some(Condition::Running) {
                    self.tell(n, Event::Requested);
                    self.run_for(Duration::ZERO);
                }
            }
            Do::Edit => self.edit(edition),
            Do::Kill(n) => {
                let n = n % replicas;
                self.replicas[n] = self.started();
            }
            Do::Stop(n) => {
                let n = n % replicas;
                self.end(n, Made::Interrupted);
                self.replicas[n] = self.started();
            }
            Do::GiveBack(n) => self.give_back(n % replicas),
            Do::LoseLease => {
                for replica in &mut self.replicas {
                    if let Some(running) = &mut replica.running {
                        running.leased = false;
                    }
                }
            }
            Do::LoseSnapshot => self.lose_the_snapshot(),
        }
    }
}

/// What happens to the service, the device and the people around it.
#[derive(Clone, Debug)]
enum Do {
    Wait(Duration),
    /// A request: over NATS, over HTTP, by hand.
    Ask(usize),
    /// An edit of the row that answers any failure: address, credentials, a host key reset.
    Edit,
    /// The process is killed in the middle of whatever it does, and started again.
    Kill(usize),
    /// It is told to stop and not to wait, and started again.
    Stop(usize),
    /// What an attempt needs is away before it dials.
    GiveBack(usize),
    /// Redis is emptied: two may work on the device at once.
    LoseLease,
    /// So is the outbox.
    LoseSnapshot,
}

fn waits() -> impl Strategy<Value = Do> {
    let seconds = prop_oneof![6 => 0..90u64, 3 => 0..1200u64, 1 => 0..30_000u64];
    seconds.prop_map(|seconds| Do::Wait(Duration::from_secs(seconds)))
}

/// With operators, who ask and edit, or without.
fn doings(operators: bool) -> impl Strategy<Value = Vec<Do>> {
    let nobody = prop_oneof![
        8 => waits(),
        3 => any::<usize>().prop_map(Do::Kill),
        1 => any::<usize>().prop_map(Do::Stop),
        1 => any::<usize>().prop_map(Do::GiveBack),
        1 => Just(Do::LoseLease),
        1 => Just(Do::LoseSnapshot),
    ];
    let somebody = prop_oneof![any::<usize>().prop_map(Do::Ask), Just(Do::Edit)];
    let share = if operators { 8 } else { 0 };
    vec(prop_oneof![15 => nobody, share => somebody], 1..150)
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let result = prop_oneof![
        2 => Just(Made::Taken),
        3 => select(FailureKind::ALL)
            .prop_filter("of an attempt", |kind| *kind != FailureKind::SnapshotLost)
            .prop_map(Made::Failed),
    ];
    let dials_after = option::weighted(0.9, 0.0..=1.0f64);
    let fate = (result, dials_after, 0..150u64).prop_map(|(result, dials_after, takes)| Fate {
        result,
        dials_after,
        takes: Duration::from_secs(takes),
    });
    vec(fate, 1..20)
}

fn intervals() -> impl Strategy<Value = Duration> {
    let shortest = Bound::new(Duration::from_secs(10)).shortest_interval();
    prop_oneof![shortest.as_secs()..3600, 3600..48 * 3600u64].prop_map(Duration::from_secs)
}

fn played(operators: bool) -> impl Strategy<Value = (World, Vec<Do>)> {
    let parts = (
        intervals(),
        1..4usize,
        fates(),
        vec(0.0..1.0, 7),
        doings(operators),
    );
    parts.prop_map(|(interval, replicas, fates, draws, doings)| {
        (World::new(interval, replicas, fates, draws), doings)
    })
}

/// So many of `dials` lie within some `window`.
fn most_within(dials: &[Timestamp], window: Duration) -> usize {
    let within = |from: &Timestamp| {
        let in_it = |at: &&Timestamp| *at >= from && **at < later(*from, window);
        dials.iter().filter(in_it).count()
    };
    dials.iter().map(within).max().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_happens_the_recipe_punishes_nobody((mut world, doings) in played(true)) {
        for (n, doing) in doings.iter().enumerate() {
            world.does(doing, n + 1);
            prop_assert!(!world.punished, "{:?}", world.dials);
        }
        prop_assert!(most_within(&world.dials, 5 * MINUTE) <= 3);
        // One every five minutes, and two more that an operator asked for.
        prop_assert!(most_within(&world.dials, HOUR) <= 14);
    }

    #[test]
    fn where_nobody_counts_the_hour_is_bounded_all_the_same((mut world, doings) in played(true)) {
        world.counts = Some(false);
        for (n, doing) in doings.iter().enumerate() {
            world.does(doing, n + 1);
        }
        // An operator's, and after them what the service does by itself.
        let most = UNCOUNTED + 12;
        prop_assert!(most_within(&world.dials, HOUR) <= most, "{:?}", world.dials);
    }

    #[test]
    fn a_place_is_always_left_for_an_operator((mut world, doings) in played(false)) {
        for (n, doing) in doings.iter().enumerate() {
            world.does(doing, n + 1);
            prop_assert!(!world.recipe.saw_a_third(), "{:?}", world.dials);
            let dials: Vec<_> = world.journal.iter().filter(|row| row.dialled).map(|row| row.dial).collect();
            let marked = world.mark.map(|(_, permitted)| Dial { permitted, ended: None });
            let dials: Vec<_> = dials.into_iter().chain(marked).collect();
            prop_assert_eq!(world.bound.not_before(&dials, Room::Asked, world.now), None);
        }
    }

    #[test]
    fn nobody_waits_for_ever((mut world, doings) in played(true)) {
        for (n, doing) in doings.iter().enumerate() {
            world.does(doing, n + 1);
        }
        let hour_and_slack = STAYS[2] + MARGIN + world.bound.slack;
        prop_assert!(world.longest_wait <= hour_and_slack, "{:?}", world.longest_wait);
        // All is well from now on, and somebody says so.
        let takes = Duration::from_secs(10);
        world.fates = vec![Fate { result: Made::Taken, dials_after: Some(0.0), takes }];
        world.run_for(5 * MINUTE);
        world.edit(doings.len() + 1);
        let successes = world.successes;
        // A device that is well may have just been backed up.
        let interval = world.policy.interval.mul_f64(1.0 + PHASE);
        world.run_for(interval + hour_and_slack + 10 * MINUTE);
        prop_assert!(world.successes > successes);
    }
}
