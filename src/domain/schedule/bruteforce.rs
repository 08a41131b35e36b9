//! What a schedule by itself makes of MikroTik's own recipe against brute force: it does not come near
//! it, so that the bound of [`crate::domain::contact`] is there for everything else.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::domain::attempt::AttemptId;
use crate::domain::contact::recipe::Recipe;
use crate::domain::digest::Digest;

const START: Timestamp = datetime!(2026-01-02 03:04:05 UTC);
const HOUR: Duration = Duration::from_secs(3600);

/// What comes of an attempt, how long it takes, and what happens around it.
#[derive(Clone, Debug)]
struct Turn {
    result: Made,
    took: Duration,
    /// Somebody asks for a backup so long before it would come due.
    asked: Option<Duration>,
    /// The process is started again afterwards, or another replica takes over.
    restart: bool,
    draw: Draw,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    // A queued snapshot that got lost is the one failure that is made good at once, so that Redis
    // emptied within minutes of a backup is worth one connection more. No attempt ends in it.
    let mut kinds: Vec<_> = FailureKind::ALL.to_vec();
    kinds.retain(|kind| *kind != FailureKind::SnapshotLost);
    let result = prop_oneof![
        1 => Just(Made::Taken),
        4 => select(kinds).prop_map(Made::Failed),
    ];
    let asked = prop::option::weighted(0.3, (0..20_000u64).prop_map(Duration::from_secs));
    let turn = (result, 0..60u64, asked, any::<bool>(), 0.0..1.0f64);
    let turn = turn.prop_map(|(result, took, asked, restart, draw)| Turn {
        result,
        took: Duration::from_secs(took),
        asked,
        restart,
        draw: Draw::new(draw),
    });
    vec(turn, 1..60)
}

fn revision() -> Revision {
    let digest = Digest::of("unedited");
    Revision {
        endpoint: digest,
        credentials: digest,
        pin: digest,
    }
}

/// A connection, and whether somebody asked for it.
struct Connection {
    at: Timestamp,
    asked: bool,
}

/// Plays `turns`, with or without requests.
fn play(interval: Duration, turns: &[Turn], with_requests: bool) -> Vec<Connection> {
    let policy = Policy {
        interval,
        jitter_min: Duration::ZERO,
        jitter_max: Duration::from_secs(300),
        recheck: Duration::from_secs(300),
    };
    let device = DeviceId(Uuid::from_u128(7));
    let resume = |last: Option<&LastAttempt>, now, draw| {
        Schedule::resume(policy, device, revision(), last, now, draw)
    };
    let (mut now, mut connections) = (START, Vec::new());
    let mut schedule = resume(None, now, Draw::ZERO);
    let mut succeeded = None;
    for turn in turns {
        let due = match schedule.next() {
            Next::Attempt { at, .. } => at.max(now),
            Next::Skip { at, .. } if turn.asked.is_none() || !with_requests => {
                now = at.max(now);
                schedule.handle(Event::Skipped, now, turn.draw);
                continue;
            }
            Next::Skip { at, .. } => at.max(now),
            Next::Wait | Next::Done => unreachable!("nothing runs, and the device stays"),
        };
        let asked = turn.asked.filter(|_| with_requests);
        now = asked.map_or(due, |early| (due - early).max(now));
        if asked.is_some() {
            schedule.handle(Event::Requested, now, turn.draw);
        }
        schedule.handle(Event::Began, now, turn.draw);
        let started_at = now;
        connections.push(Connection {
            at: now,
            asked: asked.is_some(),
        });
        now += turn.took;
        let made = Finish::Made {
            started_at,
            revision: revision(),
            result: turn.result,
        };
        schedule.handle(Event::Finished(made), now, turn.draw);
        if turn.result == Made::Taken {
            succeeded = Some(started_at);
        }
        if turn.restart {
            let standing = schedule.standing_failure();
            let last = LastAttempt {
                id: AttemptId(Uuid::nil()),
                started_at,
                finished_at: now,
                status: match turn.result {
                    Made::Taken => Status::Success,
                    Made::Failed(_) | Made::Interrupted => Status::Failed,
                },
                failure: standing.map(|(kind, _)| kind),
                consecutive_failures: schedule.consecutive_failures(),
                revision: revision(),
                last_success_at: succeeded,
                deaths: 0,
            };
            schedule = resume(Some(&last), now, turn.draw);
        }
    }
    connections
}

fn intervals() -> impl Strategy<Value = Duration> {
    // The phase takes at most a twentieth of an interval off.
    (6 * 60..48 * 3600u64).prop_map(Duration::from_secs)
}

proptest! {
    /// By itself a schedule never comes near it, whatever fails: it never even makes two
    /// connections within the five minutes of the first list.
    #[test]
    fn whatever_fails_the_recipe_never_punishes_a_schedule(
        interval in intervals(), turns in turns()
    ) {
        let mut recipe = Recipe::default();
        for connection in play(interval, &turns, false) {
            prop_assert!(!recipe.connection(connection.at));
            prop_assert!(!recipe.saw_a_pair(), "two within five minutes");
        }
    }

    /// Each request is one connection, and brings no others with it.
    #[test]
    fn connections_per_hour_are_bounded_by_the_requests(
        interval in intervals(), turns in turns()
    ) {
        let connections = play(interval, &turns, true);
        for first in &connections {
            let hour = connections
                .iter()
                .filter(|it| it.at >= first.at && it.at < first.at + HOUR);
            let (asked, own): (Vec<_>, Vec<_>) = hour.partition(|it| it.asked);
            // Five minutes apart at least, but for one that follows a request.
            prop_assert!(own.len() <= 12 + asked.len(), "{} and {}", own.len(), asked.len());
        }
    }
}
