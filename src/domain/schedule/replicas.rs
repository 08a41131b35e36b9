//! Replicas that share one device through a lease and a stored record, and are restarted at will.

use proptest::collection::vec;
use proptest::prelude::*;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::domain::attempt::AttemptId;
use crate::domain::digest::Digest;

const NOW: Timestamp = datetime!(2026-01-02 03:04:05 UTC);
const POLICY: Policy = Policy {
    interval: Duration::from_secs(6 * 3600),
    jitter_min: Duration::from_secs(30),
    jitter_max: Duration::from_secs(300),
    recheck: Duration::from_secs(300),
};
const ATTEMPT: Duration = Duration::from_secs(60);
const DEVICE: DeviceId = DeviceId(Uuid::from_u128(1));

/// One process: its schedule, the record it knows of, and the attempt that it makes.
struct Replica {
    schedule: Schedule,
    known: Option<AttemptId>,
    running: Option<Running>,
}

#[derive(Clone, Copy)]
struct Running {
    revision: Revision,
    began: Timestamp,
    ends: Timestamp,
}

struct World {
    now: Timestamp,
    row: Revision,
    accepted: bool,
    stored: Option<LastAttempt>,
    replicas: Vec<Replica>,
    began: Vec<(Timestamp, Revision, Cause)>,
    draws: Vec<f64>,
}

fn with_password(n: usize) -> Revision {
    Revision {
        endpoint: Digest::of("address"),
        credentials: Digest::of(n.to_be_bytes()),
        pin: Digest::of("pin"),
    }
}

impl World {
    fn new(replicas: usize, accepted: bool, draws: Vec<f64>) -> Self {
        let mut world = Self {
            now: NOW,
            row: with_password(0),
            accepted,
            stored: None,
            replicas: Vec::new(),
            began: Vec::new(),
            draws,
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
        Replica {
            schedule: Schedule::resume(POLICY, DEVICE, self.row, last, self.now, draw),
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
        match (self.replicas[n].running, self.replicas[n].schedule.next()) {
            (Some(running), _) => running.ends,
            (None, Next::Attempt { at, .. } | Next::Skip { at, .. }) => at,
            (None, Next::Wait | Next::Done) => unreachable!("nothing runs and nothing is removed"),
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = later(self.now, time);
        loop {
            let all = 0..self.replicas.len();
            let next = all
                .min_by_key(|n| self.due(*n))
                .expect("there are replicas");
            if self.due(next) > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(self.due(next));
            self.act(next);
        }
    }

    fn act(&mut self, n: usize) {
        if let Some(running) = self.replicas[n].running.take() {
            return self.end(n, running);
        }
        let Next::Attempt { cause, .. } = self.replicas[n].schedule.next() else {
            return self.tell(n, Event::Skipped);
        };
        self.tell(n, Event::Began);
        let leased = self
            .replicas
            .iter()
            .any(|replica| replica.running.is_some());
        let last = self.stored.clone();
        let last_id = last.as_ref().map(|last| last.id);
        let deferral = match last {
            _ if leased => Deferral::Contended,
            Some(last) if last_id != self.replicas[n].known && cause != Cause::Manual => {
                self.replicas[n].known = last_id;
                Deferral::Superseded(Box::new(last))
            }
            _ => {
                self.began.push((self.now, self.row, cause));
                self.replicas[n].running = Some(Running {
                    revision: self.row,
                    began: self.now,
                    ends: later(self.now, ATTEMPT),
                });
                return;
            }
        };
        self.tell(n, Event::Finished(Finish::Deferred(deferral)));
    }

    fn end(&mut self, n: usize, running: Running) {
        let Running {
            revision, began, ..
        } = running;
        let failed = (!self.accepted).then_some(FailureKind::AuthFailed);
        let result = failed.map_or(Made::Taken, Made::Failed);
        let finish = Finish::Made {
            started_at: began,
            revision,
            result,
        };
        self.tell(n, Event::Finished(finish));
        let schedule = &self.replicas[n].schedule;
        let standing = schedule.standing_failure();
        let id = AttemptId(Uuid::from_u128(self.began.len() as u128));
        self.stored = Some(LastAttempt {
            id,
            started_at: began,
            finished_at: self.now,
            status: if failed.is_some() {
                Status::Failed
            } else {
                Status::Success
            },
            failure: standing.map(|(kind, _)| kind).or(failed),
            consecutive_failures: schedule.consecutive_failures(),
            revision: standing.map_or(revision, |(_, revision)| revision),
            last_success_at: failed.is_none().then_some(began),
            deaths: 0,
        });
        self.replicas[n].known = Some(id);
    }
}

#[derive(Clone, Debug)]
enum Do {
    Wait(u64),
    NewPassword,
    /// A reconciler compares with the database.
    Reconcile(usize),
    Request(usize),
    /// The process is killed, and another one starts in its place.
    Restart(usize),
}

fn doings() -> impl Strategy<Value = Vec<Do>> {
    vec(
        prop_oneof![
            5 => (0..300u64).prop_map(Do::Wait),
            4 => (0..50_000u64).prop_map(Do::Wait),
            3 => Just(Do::NewPassword),
            4 => any::<usize>().prop_map(Do::Reconcile),
            2 => any::<usize>().prop_map(Do::Request),
            2 => any::<usize>().prop_map(Do::Restart),
        ],
        1..60,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_wrong_password_is_tried_once_unless_somebody_asks(
        replicas in 1..4usize,
        doings in doings(),
        draws in vec(0.0..1.0, 7),
    ) {
        let mut world = World::new(replicas, false, draws);
        let (mut passwords, mut lost) = (0, Vec::new());
        for doing in doings {
            match doing {
                Do::Wait(seconds) => world.run_for(Duration::from_secs(seconds)),
                Do::NewPassword => {
                    passwords += 1;
                    world.row = with_password(passwords);
                }
                Do::Reconcile(n) => {
                    let n = n % replicas;
                    if world.replicas[n].schedule.revision != world.row {
                        world.tell(n, Event::Edited(world.row));
                    }
                }
                Do::Request(n) => {
                    world.tell(n % replicas, Event::Requested);
                }
                Do::Restart(n) => {
                    let n = n % replicas;
                    // A refusal that was never stored is not known to anybody.
                    lost.extend(world.replicas[n].running.map(|running| running.revision));
                    world.replicas[n] = world.started();
                }
            }
        }
        // The record of another replica may have been made with a password that we have not been
        // told of yet; `take_over` says why that costs one try for each of the others.
        for row in (0..=passwords).map(with_password) {
            let by_itself = |(_, tried, cause): &&_| *tried == row && *cause != Cause::Manual;
            let tries = world.began.iter().filter(by_itself).count();
            let unknown = lost.iter().filter(|revision| **revision == row).count();
            prop_assert!(tries <= replicas + unknown, "{tries} tries");
        }
    }

    #[test]
    fn a_device_is_backed_up_once_per_interval_between_all_replicas(
        replicas in 1..4usize,
        restarts in vec((0..100_000u64, any::<usize>()), 0..10),
        draws in vec(0.0..1.0, 7),
    ) {
        let mut world = World::new(replicas, true, draws);
        for (after, n) in restarts {
            world.run_for(Duration::from_secs(after));
            // One that is killed at work leaves a gap of its own.
            if world.replicas[n % replicas].running.is_none() {
                world.replicas[n % replicas] = world.started();
            }
        }
        world.run_for(10 * POLICY.interval);
        prop_assert!(world.began.len() >= 9);
        for pair in world.began.windows(2) {
            let gap = Duration::try_from(pair[1].0 - pair[0].0).expect("time passes forwards");
            let intervals = gap.div_duration_f64(POLICY.interval);
            prop_assert!((0.9..=1.2).contains(&intervals), "{intervals} intervals");
        }
    }
}
