//! What holds for a schedule over any log of events whatsoever.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::domain::attempt::AttemptId;
use crate::domain::backoff::LADDER;
use crate::domain::digest::Digest;

const NOW: Timestamp = datetime!(2026-01-02 03:04:05 UTC);
const POLICY: Policy = Policy {
    interval: Duration::from_secs(6 * 3600),
    jitter_min: Duration::from_secs(30),
    jitter_max: Duration::from_secs(300),
    recheck: Duration::from_secs(300),
};

/// An event, how long after the one before it happens, and the draw that is handed in with it.
#[derive(Clone, Debug)]
struct Entry {
    after: Duration,
    what: What,
    draw: Draw,
}

#[derive(Clone, Debug)]
enum What {
    Event(Event),
    /// The attempt that began last ends.
    Made(Revision, Made),
}

/// One entry as it was played.
struct Step {
    before: Schedule,
    event: Event,
    now: Timestamp,
    after: Schedule,
}

fn revisions() -> impl Strategy<Value = Revision> {
    (0..2u8, 0..3u8, 0..3u8).prop_map(|(endpoint, credentials, pin)| Revision {
        endpoint: Digest::of([endpoint]),
        credentials: Digest::of([credentials]),
        pin: Digest::of([pin]),
    })
}

/// Blocking kinds are as likely as all the others together.
fn kinds() -> impl Strategy<Value = FailureKind> {
    prop_oneof![
        select(vec![FailureKind::AuthFailed, FailureKind::HostKeyMismatch]),
        select(FailureKind::ALL),
    ]
}

fn results() -> impl Strategy<Value = Made> {
    prop_oneof![
        1 => Just(Made::Taken),
        // No attempt ends in this one: it is what a queued one turns out to have come to.
        3 => kinds()
            .prop_filter("of an attempt", |kind| *kind != FailureKind::SnapshotLost)
            .prop_map(Made::Failed),
        1 => Just(Made::Interrupted),
    ]
}

fn draws() -> impl Strategy<Value = Draw> {
    (0.0..1.0).prop_map(Draw::new)
}

fn records() -> impl Strategy<Value = LastAttempt> {
    let times = (-3600..100_000i64, 0..120i64);
    (
        times,
        select(Status::ALL),
        kinds(),
        0..6u32,
        revisions(),
        any::<bool>(),
    )
        .prop_map(
            |((ago, took), status, kind, failures, revision, succeeded)| {
                let started_at = NOW - time::Duration::seconds(ago);
                let failed =
                    status == Status::Failed || (status == Status::Interrupted && failures > 0);
                LastAttempt {
                    id: AttemptId(Uuid::nil()),
                    started_at,
                    finished_at: started_at + time::Duration::seconds(took),
                    status,
                    failure: failed.then_some(kind),
                    consecutive_failures: if failed { failures } else { 0 },
                    revision,
                    last_success_at: succeeded.then_some(started_at),
                    deaths: failures,
                }
            },
        )
}

fn deferrals() -> impl Strategy<Value = Deferral> {
    let away = Deferral::Unavailable {
        reason: "away".into(),
    };
    let wait = Duration::from_secs(3000);
    let until = NOW + wait;
    select(vec![
        Deferral::RateLimited { until, wait },
        Deferral::Offline,
        Deferral::Contended,
        Deferral::Gone,
        Deferral::Stopping,
        away,
    ])
}

fn whats() -> impl Strategy<Value = What> {
    let deferred = |deferral| What::Event(Event::Finished(Finish::Deferred(deferral)));
    prop_oneof![
        30 => Just(What::Event(Event::Began)),
        20 => (revisions(), results()).prop_map(|(revision, result)| What::Made(revision, result)),
        8 => deferrals().prop_map(deferred),
        3 => records().prop_map(move |last| deferred(Deferral::Superseded(Box::new(last)))),
        8 => Just(What::Event(Event::Skipped)),
        15 => revisions().prop_map(|revision| What::Event(Event::Edited(revision))),
        10 => Just(What::Event(Event::Requested)),
        2 => records().prop_map(|last| What::Event(Event::Revised(Box::new(last)))),
        1 => Just(What::Event(Event::Removed)),
    ]
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let after = prop_oneof![0..120u64, 0..50_000u64].prop_map(Duration::from_secs);
    let entry =
        (after, whats(), draws()).prop_map(|(after, what, draw)| Entry { after, what, draw });
    vec(entry, 1..60)
}

fn devices() -> impl Strategy<Value = DeviceId> {
    any::<u128>().prop_map(|id| DeviceId(Uuid::from_u128(id)))
}

fn schedules() -> impl Strategy<Value = Schedule> {
    (devices(), revisions(), option::of(records()), draws()).prop_map(
        |(device, revision, last, draw)| {
            Schedule::resume(POLICY, device, revision, last.as_ref(), NOW, draw)
        },
    )
}

fn play(mut schedule: Schedule, log: &[Entry]) -> Vec<Step> {
    let (mut now, mut began) = (NOW, NOW);
    let step = |entry: &Entry| {
        now = later(now, entry.after);
        let event = match entry.what.clone() {
            What::Event(event) => event,
            What::Made(revision, result) => Event::Finished(Finish::Made {
                started_at: began,
                revision,
                result,
            }),
        };
        if event == Event::Began && schedule.next() != Next::Wait {
            began = now;
        }
        let before = schedule.clone();
        schedule.handle(event.clone(), now, entry.draw);
        let after = schedule.clone();
        Step {
            before,
            event,
            now,
            after,
        }
    };
    log.iter().map(step).collect()
}

impl Step {
    /// Ended an attempt that was running.
    fn finished(&self) -> Option<&Finish> {
        match &self.event {
            Event::Finished(finish) if self.before.next() == Next::Wait => Some(finish),
            _ => None,
        }
    }
}

fn due(schedule: &Schedule) -> Option<Timestamp> {
    match schedule.next() {
        Next::Attempt { at, .. } | Next::Skip { at, .. } => Some(at),
        Next::Wait | Next::Done => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn time_alone_leaves_a_blocked_device_blocked(schedule in schedules(), log in entries()) {
        for step in play(schedule, &log) {
            let harmless = match &step.event {
                Event::Skipped | Event::Began | Event::Requested => true,
                Event::Finished(Finish::Deferred(deferral)) => {
                    !matches!(deferral, Deferral::Superseded(_))
                }
                Event::Finished(_) | Event::Edited(_) | Event::Revised(_) | Event::Removed => false,
            };
            if harmless {
                prop_assert_eq!(step.after.blocked(), step.before.blocked());
            }
            if matches!(step.before.next(), Next::Skip { .. }) && step.event == Event::Skipped {
                let at = later(step.now, step.after.period);
                let kind = step.before.blocked().expect("a skipped device is blocked");
                prop_assert_eq!(step.after.next(), Next::Skip { at, kind });
            }
        }
    }

    #[test]
    fn one_attempt_runs_at_a_time(schedule in schedules(), log in entries()) {
        for step in play(schedule, &log) {
            let runs = match (&step.event, step.before.next()) {
                (_, Next::Done) | (Event::Removed | Event::Finished(_), _) => false,
                (Event::Began, _) | (_, Next::Wait) => true,
                _ => false,
            };
            prop_assert_eq!(step.after.next() == Next::Wait, runs, "{:?}", step.event);
        }
    }

    #[test]
    fn a_request_is_honoured(schedule in schedules(), log in entries()) {
        let mut wanted = false;
        for step in play(schedule, &log) {
            let ran = step.before.next() == Next::Wait;
            match step.event {
                Event::Requested => wanted = true,
                Event::Began if !ran => wanted = false,
                _ => {}
            }
            match step.after.next() {
                Next::Attempt { at, cause } if wanted => {
                    prop_assert_eq!(cause, Cause::Manual);
                    prop_assert!(at <= step.now);
                }
                Next::Skip { .. } => prop_assert!(!wanted),
                Next::Attempt { .. } | Next::Wait | Next::Done => {}
            }
        }
    }

    #[test]
    fn a_deferral_leaves_failures_alone(schedule in schedules(), log in entries()) {
        for step in play(schedule, &log) {
            if let Some(Finish::Deferred(deferral)) = step.finished()
                && !matches!(deferral, Deferral::Superseded(_))
            {
                prop_assert_eq!(step.after.failures, step.before.failures);
                prop_assert_eq!(step.after.verdict, step.before.verdict);
            }
        }
    }

    #[test]
    fn only_a_failed_attempt_adds_a_failure(schedule in schedules(), log in entries()) {
        for step in play(schedule, &log) {
            let (before, after) = (step.before.failures, step.after.failures);
            match step.finished() {
                Some(Finish::Made { result: Made::Failed(_), .. }) => {
                    prop_assert!(after == 0 || after == 1 || after == before || after == before + 1);
                }
                Some(Finish::Made { result: Made::Taken, .. }) => prop_assert_eq!(after, 0),
                Some(Finish::Deferred(Deferral::Superseded(_))) => {}
                // What another replica found out.
                None if matches!(step.event, Event::Revised(_)) => {}
                _ => prop_assert!(after == before || after == 0),
            }
            if step.after.verdict == Verdict::Unknown || step.after.verdict == Verdict::Good {
                prop_assert_eq!(after, 0);
            } else {
                prop_assert!(after > 0);
            }
        }
    }

    #[test]
    fn an_answered_failure_leaves_the_device_unblocked(schedule in schedules(), log in entries()) {
        let mut edited = None;
        for step in play(schedule, &log) {
            let standing = step.before.standing_failure();
            let answered = |new: &Revision| {
                standing.is_some_and(|(kind, old)| kind.answered_by(&old, new))
            };
            match &step.event {
                Event::Began if step.before.next() != Next::Wait => edited = None,
                Event::Edited(new) => {
                    edited = Some(*new);
                    if answered(new) && step.before.next() != Next::Done {
                        prop_assert_eq!(step.after.blocked(), None);
                        prop_assert_eq!(step.after.failures, 0);
                    }
                }
                _ => {}
            }
            if let Some(Finish::Made { revision, result: Made::Failed(kind), .. }) = step.finished() {
                let block_stands = step.before.blocked().is_some() && !answered(revision);
                let cured = edited.is_some_and(|new| kind.answered_by(revision, &new));
                let blocks = block_stands || (kind.blocks() && !cured);
                prop_assert_eq!(step.after.blocked().is_some(), blocks);
            }
        }
    }

    #[test]
    fn every_due_time_lies_within_the_longest_delay(schedule in schedules(), log in entries()) {
        let longest = schedule.period.max(POLICY.jitter_max);
        for step in play(schedule, &log) {
            let Some(at) = due(&step.after) else { continue };
            prop_assert!(at <= later(step.now, longest));
            if step.finished().is_some() {
                prop_assert!(at >= step.now, "what was just done is not overdue");
            }
        }
    }

    #[test]
    fn retired_is_final(schedule in schedules(), log in entries()) {
        for step in play(schedule, &log) {
            if step.before.next() == Next::Done {
                prop_assert_eq!(step.after.next(), Next::Done);
                prop_assert_eq!(step.after.condition(), None);
            }
        }
    }

    #[test]
    fn replaying_a_log_gives_the_same_state(schedule in schedules(), log in entries()) {
        let once = play(schedule.clone(), &log);
        let again = play(schedule, &log);
        for (a, b) in once.iter().zip(&again) {
            prop_assert_eq!(&a.after, &b.after);
        }
    }

    #[test]
    fn a_restart_agrees_with_the_schedule_that_ran(
        device in devices(),
        revision in revisions(),
        last in option::of(records()),
        log in entries(),
        draw in draws(),
    ) {
        let schedule = Schedule::resume(POLICY, device, revision, last.as_ref(), NOW, draw);
        for step in play(schedule, &log) {
            let Some(Finish::Made { started_at, revision, result }) = step.finished() else {
                continue;
            };
            let live = &step.after;
            let (status, kind) = match result {
                Made::Taken => (Status::Success, None),
                Made::Failed(kind) => (Status::Failed, Some(*kind)),
                Made::Interrupted => (Status::Interrupted, None),
            };
            let standing = live.standing_failure();
            let stored = LastAttempt {
                id: AttemptId(Uuid::nil()),
                started_at: *started_at,
                finished_at: step.now,
                status,
                failure: standing.map(|(kind, _)| kind).or(kind),
                consecutive_failures: live.failures,
                revision: standing.map_or(*revision, |(_, revision)| revision),
                last_success_at: None,
                deaths: 0,
            };
            let resumed = Schedule::resume(POLICY, device, live.revision, Some(&stored), step.now, draw);
            prop_assert_eq!(resumed.blocked(), live.blocked());
            prop_assert_eq!(resumed.failures, live.failures);
            if let State::Resting(rest) = live.state {
                let at = due(&resumed).expect("a resumed device rests");
                // A tenth of the longest rung: no other jitter is wider under this policy.
                prop_assert!((at - rest.due).abs() <= LADDER[2] / 10, "{:?}", rest);
            }
        }
    }

    #[test]
    fn nothing_panics_whatever_the_clock_says(
        device in devices(),
        policy: (u64, u64, u64, u64),
        times in vec(any::<i64>(), 8),
        record in records(),
        log in vec((whats(), draws()), 1..40),
    ) {
        let moment = |n: usize| {
            let seconds = times[n % times.len()];
            // Half of them cover all that can be represented, half its very ends.
            let within = time::OffsetDateTime::from_unix_timestamp(seconds % 377_705_116_800);
            let end = if seconds < 0 { time::PlainDateTime::MIN } else { time::PlainDateTime::MAX };
            within.ok().filter(|_| seconds % 2 == 0).unwrap_or(end.assume_utc())
        };
        let [interval, jitter_min, jitter_max, recheck] =
            <[u64; 4]>::from(policy).map(Duration::from_secs);
        let policy = Policy { interval, jitter_min, jitter_max, recheck };
        let record = LastAttempt { started_at: moment(0), finished_at: moment(1), ..record };
        let (revision, draw) = (record.revision, Draw::ZERO);
        let mut schedule =
            Schedule::resume(policy, device, revision, Some(&record), moment(2), draw);
        for (n, (what, draw)) in log.into_iter().enumerate() {
            let event = match what {
                What::Event(event) => event,
                What::Made(revision, result) => {
                    Event::Finished(Finish::Made { started_at: moment(n), revision, result })
                }
            };
            schedule.handle(event, moment(n + 3), draw);
            schedule.due_in(moment(n + 1));
        }
    }
}
