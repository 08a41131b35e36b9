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
/// Of several rows that share a router, each takes up so much time of it.
const EACH: Duration = Duration::from_secs(20 * 60);

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

/// A process that has the device of a row.
#[derive(Debug)]
struct Replica {
    row: usize,
    schedule: Schedule,
    known: Option<AttemptId>,
    running: Option<Running>,
}

/// An attempt in the journal, as far as it matters here.
#[derive(Debug)]
struct Entry {
    id: AttemptId,
    dial: Dial,
    dialled: bool,
}

/// A row of the inventory, and what is stored of its device. All rows say the same address and port.
#[derive(Debug)]
struct Row {
    revision: Revision,
    stored: Option<LastAttempt>,
    mark: Option<(AttemptId, Timestamp)>,
    successes: usize,
}

impl Row {
    /// The attempt that runs, or whose process died.
    fn marked(&self) -> Option<Dial> {
        let (_, permitted) = self.mark?;
        Some(Dial {
            permitted,
            ended: None,
        })
    }
}

fn device(row: usize) -> DeviceId {
    DeviceId(Uuid::from_u128(row as u128 * 7))
}

#[derive(Debug)]
struct World {
    policy: Policy,
    bound: Bound,
    now: Timestamp,
    rows: Vec<Row>,
    journal: Vec<Entry>,
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
    /// `replicas` processes that have `rows` rows each.
    fn new(
        interval: Duration,
        rows: usize,
        replicas: usize,
        fates: Vec<Fate>,
        draws: Vec<f64>,
    ) -> Self {
        let mut world = Self {
            policy: Policy {
                interval,
                jitter_min: Duration::ZERO,
                jitter_max: Duration::from_secs(300),
                recheck: Duration::from_secs(300),
            },
            bound: Bound::for_interval(interval, Duration::from_secs(10)),
            now: START,
            rows: Vec::new(),
            journal: Vec::new(),
            replicas: Vec::new(),
            fates,
            draws,
            ids: 0,
            counts: None,
            recipe: Recipe::default(),
            dials: Vec::new(),
            punished: false,
            longest_wait: Duration::ZERO,
        };
        for row in 0..rows {
            world.rows.push(Row {
                revision: revision(0),
                stored: None,
                mark: None,
                successes: 0,
            });
            for _ in 0..replicas {
                let replica = world.started(row);
                world.replicas.push(replica);
            }
        }
        world
    }

    fn draw(&mut self) -> Draw {
        self.draws.rotate_left(1);
        Draw::new(self.draws[0])
    }

    fn started(&mut self, row: usize) -> Replica {
        let (draw, last) = (self.draw(), self.rows[row].stored.as_ref());
        let (policy, revision, now) = (self.policy, self.rows[row].revision, self.now);
        Replica {
            row,
            schedule: Schedule::resume(policy, device(row), revision, last, now, draw),
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
        let row = self.replicas[n].row;
        let running = |replica: &Replica| {
            replica.row == row && replica.running.is_some_and(|running| running.leased)
        };
        if self.replicas.iter().any(running) {
            return Err(Deferral::Contended);
        }
        if let Some(last) = &self.rows[row].stored
            && Some(last.id) != self.replicas[n].known
            && cause != Cause::Manual
        {
            let last = last.clone();
            self.replicas[n].known = Some(last.id);
            return Err(Deferral::Superseded(Box::new(last)));
        }
        self.ids += 1;
        let id = AttemptId(Uuid::from_u128(self.ids));
        if let Some((id, permitted)) = self.rows[row].mark.take() {
            let ended = None;
            let dial = Dial { permitted, ended };
            self.journal.push(Entry {
                id,
                dial,
                dialled: true,
            });
        }
        let room = Room::of(cause, self.counts);
        if let Some(until) = self.bound.not_before(&self.counted(), room, self.now) {
            let wait = Duration::try_from(until - self.now).expect("it lies ahead");
            self.longest_wait = self.longest_wait.max(wait);
            return Err(Deferral::RateLimited { until, wait });
        }
        self.rows[row].mark = Some((id, self.now));
        self.fates.rotate_left(1);
        let fate = self.fates[0];
        let slack = |part| later(self.now, self.bound.slack.mul_f64(part));
        let dials = fate.dials_after.map(slack);
        Ok(Running {
            id,
            revision: self.rows[row].revision,
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

    /// What is stored of connections, whichever row they were for.
    fn counted(&self) -> Vec<Dial> {
        let dialled = self.journal.iter().filter(|entry| entry.dialled);
        let marked = self.rows.iter().filter_map(Row::marked);
        dialled.map(|entry| entry.dial).chain(marked).collect()
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
        let row = self.replicas[n].row;
        self.journal.retain(|entry| entry.id != id);
        let dial = Dial {
            permitted: claimed,
            ended: Some(self.now),
        };
        self.journal.push(Entry { id, dial, dialled });
        self.rows[row].mark.take_if(|(marked, _)| *marked == id);
        let schedule = &self.replicas[n].schedule;
        let standing = schedule.standing_failure();
        let (status, failed) = match result {
            Made::Taken => (Status::Success, None),
            Made::Failed(kind) => (Status::Failed, Some(kind)),
            Made::Interrupted => (Status::Interrupted, None),
        };
        let succeeded = (result == Made::Taken).then_some(claimed);
        let stored = &mut self.rows[row];
        stored.successes += usize::from(succeeded.is_some());
        let before = stored.stored.as_ref().and_then(|last| last.last_success_at);
        stored.stored = Some(LastAttempt {
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
            let row = self.replicas[n].row;
            self.rows[row]
                .mark
                .take_if(|(marked, _)| *marked == running.id);
            let reason = "the credentials could not be opened in time".to_owned();
            let away = Finish::Deferred(Deferral::Unavailable { reason });
            self.tell(n, Event::Finished(away));
        }
    }

    /// The snapshot of the last attempt at a row's device, which was to be published later, is lost.
    fn lose_the_snapshot(&mut self, row: usize) {
        let Some(last) = &mut self.rows[row].stored else {
            return;
        };
        if last.status != Status::Success {
            return;
        }
        last.status = Status::Failed;
        last.failure = Some(FailureKind::SnapshotLost);
        last.consecutive_failures = 1;
        let last = last.clone();
        for n in self.replicas_of(row) {
            self.replicas[n].known = Some(last.id);
            self.tell(n, Event::Revised(Box::new(last.clone())));
        }
    }

    fn replicas_of(&self, row: usize) -> Vec<usize> {
        let all = 0..self.replicas.len();
        all.filter(|n| self.replicas[*n].row == row).collect()
    }

    fn edit(&mut self, row: usize, edition: usize) {
        let revision = revision(edition);
        self.rows[row].revision = revision;
        for n in self.replicas_of(row) {
            self.tell(n, Event::Edited(revision));
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
            Do::Edit(n) => self.edit(n % self.rows.len(), edition),
            Do::Kill(n) => {
                let n = n % replicas;
                self.replicas[n] = self.started(self.replicas[n].row);
            }
            Do::Stop(n) => {
                let n = n % replicas;
                self.end(n, Made::Interrupted);
                self.replicas[n] = self.started(self.replicas[n].row);
            }
            Do::GiveBack(n) => self.give_back(n % replicas),
            Do::LoseLease => {
                for replica in &mut self.replicas {
                    if let Some(running) = &mut replica.running {
                        running.leased = false;
                    }
                }
            }
            Do::LoseSnapshot(n) => self.lose_the_snapshot(n % self.rows.len()),
        }
    }
}

/// What happens to the service, the device and the people around it.
#[derive(Clone, Debug)]
enum Do {
    Wait(Duration),
    /// A request: over NATS, over HTTP, by hand.
    Ask(usize),
    /// An edit of a row that answers any failure: credentials, a host key reset.
    Edit(usize),
    /// The process is killed in the middle of whatever it does, and started again.
    Kill(usize),
    /// It is told to stop and not to wait, and started again.
    Stop(usize),
    /// What an attempt needs is away before it dials.
    GiveBack(usize),
    /// Redis is emptied: two may work on the device at once.
    LoseLease,
    /// So is the outbox.
    LoseSnapshot(usize),
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
        1 => any::<usize>().prop_map(Do::LoseSnapshot),
    ];
    let somebody = prop_oneof![
        any::<usize>().prop_map(Do::Ask),
        any::<usize>().prop_map(Do::Edit)
    ];
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

fn shortest() -> u64 {
    Bound::new(Duration::from_secs(10))
        .shortest_interval()
        .as_secs()
}

fn intervals() -> impl Strategy<Value = Duration> {
    prop_oneof![shortest()..3600, 3600..48 * 3600u64].prop_map(Duration::from_secs)
}

fn short_intervals() -> impl Strategy<Value = Duration> {
    (1..shortest()).prop_map(Duration::from_secs)
}

fn played(
    intervals: impl Strategy<Value = Duration>,
    rows: std::ops::Range<usize>,
    operators: bool,
) -> impl Strategy<Value = (World, Vec<Do>)> {
    let parts = (
        (intervals, rows),
        1..4usize,
        fates(),
        vec(0.0..1.0, 7),
        doings(operators),
    );
    parts.prop_map(|((interval, rows), replicas, fates, draws, doings)| {
        let world = World::new(interval, rows, replicas, fates, draws);
        (world, doings)
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
    fn whatever_happens_the_recipe_punishes_nobody((mut world, doings) in played(intervals(), 1..4, true)) {
        for (n, doing) in doings.iter().enumerate() {
            world.does(doing, n + 1);
            prop_assert!(!world.punished, "{:?}", world.dials);
        }
        prop_assert!(most_within(&world.dials, 5 * MINUTE) <= 3);
        // One every five minutes, and two more that an operator asked for.
        prop_assert!(most_within(&world.dials, HOUR) <= 14);
    }

    #[test]
    fn where_nobody_counts_the_hour_is_bounded_all_the_same((mut world, doings) in played(intervals(), 1..4, true)) {
        world.counts = Some(false);
        for (n, doing) in doings.iter().enumerate() {
            world.does(doing, n + 1);
        }
        // An operator's, and after them what the service does by itself.
        let most = UNCOUNTED + 12;
        prop_assert!(most_within(&world.dials, HOUR) <= most, "{:?}", world.dials);
    }

    #[test]
    fn a_place_is_always_left_for_an_operator((mut world, doings) in played(intervals(), 1..4, false)) {
        for (n, doing) in doings.iter().enumerate() {
            world.does(doing, n + 1);
            prop_assert!(!world.recipe.saw_a_third(), "{:?}", world.dials);
            prop_assert_eq!(world.bound.not_before(&world.counted(), Room::Asked, world.now), None);
        }
    }

    #[test]
    fn nobody_waits_for_ever((mut world, doings) in played(intervals(), 1..4, true)) {
        // Rows that share a router can be too many for what it tolerates within an interval.
        let shared = if world.rows.len() > 1 { world.rows.len() as u32 * EACH } else { Duration::ZERO };
        prop_assume!(world.policy.interval >= shared);
        for (n, doing) in doings.iter().enumerate() {
            world.does(doing, n + 1);
        }
        let hour_and_slack = STAYS[2] + MARGIN + world.bound.slack;
        prop_assert!(world.longest_wait <= hour_and_slack, "{:?}", world.longest_wait);
        // All is well from now on, and somebody says so.
        let takes = Duration::from_secs(10);
        world.fates = vec![Fate { result: Made::Taken, dials_after: Some(0.0), takes }];
        world.run_for(5 * MINUTE);
        let rows = 0..world.rows.len();
        rows.clone().for_each(|row| world.edit(row, doings.len() + 1));
        let before: Vec<_> = world.rows.iter().map(|row| row.successes).collect();
        // A device that is well may have just been backed up; and those that share a router may have
        // to wait for each other.
        let interval = world.policy.interval.mul_f64(1.0 + PHASE);
        world.run_for(interval + hour_and_slack + rows.len() as u32 * EACH);
        let after: Vec<_> = world.rows.iter().map(|row| row.successes).collect();
        prop_assert!(rows.into_iter().all(|row| after[row] > before[row]), "{before:?} {after:?}");
    }

    #[test]
    fn with_a_short_interval_everything_on_top_is_bounded_too(
        (mut world, doings) in played(short_intervals(), 1..2, true)
    ) {
        for (n, doing) in doings.iter().enumerate() {
            let doing = match doing {
                // So many backups would take long to play.
                Do::Wait(time) => Do::Wait((*time).min(10 * world.policy.interval)),
                other => other.clone(),
            };
            world.does(&doing, n + 1);
        }
        let window = world.policy.interval * INTERVALS;
        prop_assert!(most_within(&world.dials, window.min(HOUR)) <= OFTEN, "{:?}", world.dials);
    }
}
