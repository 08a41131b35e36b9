//! Whatever happens, MikroTik's recipe punishes nobody: schedules, the claim and the journal played
//! against the firewall itself.

mod world;

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
