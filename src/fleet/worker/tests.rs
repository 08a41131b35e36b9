//! The loop of one device in simulated time, with attempts that come to what a test wants.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::fakes::{HOUR, MINUTE, POLICY, START, World, device, id, sealed, succeeded};
use super::*;
use crate::domain::device::Device;
use crate::domain::schedule::Condition;

const SECOND: Duration = Duration::from_secs(1);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// A worker whose attempts take two seconds and come to what `script` says of the n-th.
struct Bench {
    world: World,
    mail: mpsc::UnboundedSender<Mail>,
    worker: JoinHandle<()>,
    made: Arc<Mutex<Vec<(Duration, Cause)>>>,
}

fn bench(last: Option<LastAttempt>, script: fn(usize) -> Finished) -> Bench {
    bench_taking(2 * SECOND, last, script)
}

enum Finished {
    Made(Made),
    Deferred(Deferral),
}

fn bench_taking(
    takes: Duration,
    last: Option<LastAttempt>,
    script: fn(usize) -> Finished,
) -> Bench {
    let world = World::new(1);
    let (mail, mailbox) = mpsc::unbounded_channel();
    let listed = Listed {
        bucket: 0,
        device: device(1),
        last,
        first_seen: None,
    };
    let context = world.context.clone();
    let worker = Worker::new(context.clone(), POLICY, &listed, mailbox);
    let made = Arc::new(Mutex::new(Vec::new()));
    let notes = made.clone();
    let row = Arc::new(Mutex::new(device(1)));
    let attempt = move |ask: Ask| {
        let (context, notes, row) = (context.clone(), notes.clone(), row.clone());
        async move {
            let started_at = context.clock.now();
            let n = {
                let mut notes = notes.lock().unwrap();
                notes.push(((started_at - START).unsigned_abs(), ask.cause));
                notes.len() - 1
            };
            unhurried(sleep(takes / 2)).await;
            ask.slot_held.store(true, Ordering::Relaxed);
            unhurried(sleep(takes / 2)).await;
            let revision = row.lock().unwrap().revision();
            let finish = match script(n) {
                Finished::Deferred(deferral) => Finish::Deferred(deferral),
                Finished::Made(result) => Finish::Made {
                    started_at,
                    revision,
                    result,
                },
            };
            let reply = match &finish {
                Finish::Deferred(deferral) => Reply::of_deferral(deferral),
                Finish::Made { .. } => Reply {
                    message: Some(format!("attempt {n}")),
                    ..Reply::of_deferral(&Deferral::Stopping)
                },
            };
            Report {
                reply,
                made: matches!(finish, Finish::Made { .. }).then(AttemptId::generate),
                finish,
                at: context.clock.now(),
                draw: draw(),
            }
        }
    };
    let worker = tokio::spawn(worker.run_with(attempt));
    Bench {
        world,
        mail,
        worker,
        made,
    }
}

/// `work`, unless it is polled again and again without a reason.
async fn unhurried<T>(work: impl Future<Output = T>) -> T {
    let mut work = Box::pin(work);
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        assert!(polls < 100, "the worker spins");
        work.as_mut().poll(context)
    })
    .await
}

impl Bench {
    fn attempts(&self) -> Vec<(Duration, Cause)> {
        self.made.lock().unwrap().clone()
    }

    fn edit(&self, edited: &Device) {
        let mail = Mail::Edited(Box::new(Edit {
            name: edited.name.clone(),
            revision: edited.revision(),
            settings: Default::default(),
        }));
        self.mail.send(mail).expect("the worker is there");
    }

    fn shown(&self) -> Vec<Condition> {
        let counts = self.world.context.view.counts();
        let shown = counts.into_iter().filter(|(_, count)| *count > 0);
        shown.map(|(state, _)| state).collect()
    }
}

fn taken(_: usize) -> Finished {
    Finished::Made(Made::Taken)
}

fn refused(_: usize) -> Finished {
    Finished::Made(Made::Failed(FailureKind::AuthFailed))
}

fn timed_out(_: usize) -> Finished {
    Finished::Made(Made::Failed(FailureKind::Timeout))
}

#[tokio::test(start_paused = true)]
async fn a_week_of_successes_is_one_attempt_per_interval() {
    let bench = bench(None, taken);
    sleep(WEEK).await;
    let attempts = bench.attempts();
    // 28 intervals; the device's own is up to a twentieth shorter or longer.
    assert!((26..=30).contains(&attempts.len()), "{}", attempts.len());
    let (first, _) = attempts[0];
    assert!((30..=300).contains(&first.as_secs()), "{first:?}");
    for pair in attempts.windows(2) {
        let gap = (pair[1].0 - pair[0].0).as_secs_f64() / POLICY.interval.as_secs_f64();
        assert!((0.95..=1.051).contains(&gap), "{gap}");
    }
    assert!(attempts.iter().all(|(_, cause)| *cause == Cause::Scheduled));
    assert_eq!(bench.shown(), [Condition::Ok]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_after_5_then_15_then_60_minutes() {
    let bench = bench(None, |n| {
        if n < 5 {
            timed_out(n)
        } else {
            Finished::Made(Made::Taken)
        }
    });
    sleep(12 * HOUR).await;
    let attempts = bench.attempts();
    let ended = |n: usize| attempts[n].0 + 2 * SECOND;
    for (n, wait) in [5, 15, 60, 60, 60].into_iter().enumerate() {
        let wait = wait * MINUTE;
        let waited = attempts[n + 1].0 - ended(n);
        assert!(waited >= wait, "retry {n} after {waited:?}");
        assert!(
            waited <= wait.mul_f64(1.1) + SECOND,
            "retry {n}: {waited:?}"
        );
        assert_eq!(attempts[n + 1].1, Cause::Retry);
    }
    assert_eq!(bench.shown(), [Condition::Ok]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_repeated_after_a_restart_that_is_not_due() {
    let last = succeeded(&device(1), START, HOUR);
    let bench = bench(Some(last), taken);
    sleep(4 * HOUR).await;
    assert_eq!(bench.attempts(), []);
    sleep(2 * HOUR).await;
    assert_eq!(bench.attempts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn time_never_unblocks_but_new_credentials_do() {
    let bench = bench(None, |n| if n == 0 { refused(n) } else { taken(n) });
    sleep(WEEK).await;
    assert_eq!(bench.attempts().len(), 1);
    assert_eq!(bench.shown(), [Condition::Blocked]);
    let skipped = bench
        .world
        .metric("mikrotik_config_backup_total{status=\"skipped_auth_blocked\"}");
    assert!((25.0..=30.0).contains(&skipped), "{skipped} in a week");

    let mut renamed = device(1);
    renamed.name = "core-1".into();
    bench.edit(&renamed);
    sleep(HOUR).await;
    assert_eq!(bench.attempts().len(), 1, "a new name answers nothing");

    let mut edited = renamed;
    edited.credentials = sealed("another password");
    bench.edit(&edited);
    sleep(MINUTE).await;
    assert_eq!(
        bench.attempts().last().map(|(_, cause)| *cause),
        Some(Cause::Edited)
    );
    assert_eq!(bench.shown(), [Condition::Ok]);
}

#[tokio::test(start_paused = true)]
async fn an_offline_blocked_device_counts_as_offline() {
    let bench = bench(None, refused);
    sleep(HOUR).await;
    let locks = &bench.world.coordinator.inner;
    locks.set_presence(id(1), Presence::Offline);
    sleep(6 * HOUR).await;
    let count = |status: &str| {
        bench.world.metric(&format!(
            "mikrotik_config_backup_total{{status=\"{status}\"}}"
        ))
    };
    assert_eq!(count("skipped_offline"), 1.0);
    assert_eq!(count("skipped_auth_blocked"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_deferral_is_looked_at_again_after_the_recheck() {
    let bench = bench(None, |n| {
        if n < 3 {
            Finished::Deferred(Deferral::Offline)
        } else {
            taken(n)
        }
    });
    sleep(HOUR).await;
    let attempts = bench.attempts();
    assert_eq!(attempts.len(), 4);
    for pair in attempts.windows(2) {
        let waited = pair[1].0 - pair[0].0;
        assert!((302..=363).contains(&waited.as_secs()), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_waits_for_a_slot_is_not_shown_as_running() {
    let bench = bench_taking(2 * MINUTE, None, taken);
    while bench.attempts().is_empty() {
        sleep(SECOND).await;
    }
    sleep(30 * SECOND).await;
    assert_eq!(bench.shown(), [Condition::New], "it waits");
    sleep(MINUTE).await;
    assert_eq!(bench.shown(), [Condition::Running]);
    sleep(MINUTE).await;
    assert_eq!(bench.shown(), [Condition::Ok]);
}

#[tokio::test(start_paused = true)]
async fn another_replicas_record_is_adopted() {
    let bench = bench(None, |_| {
        let last = succeeded(&device(1), START, Duration::ZERO);
        Finished::Deferred(Deferral::Superseded(Box::new(last)))
    });
    sleep(5 * HOUR).await;
    assert_eq!(bench.attempts().len(), 1);
    assert_eq!(bench.shown(), [Condition::Ok]);
    let age = bench
        .world
        .context
        .view
        .oldest_success_age(bench.world.context.clock.now());
    assert_eq!(age, Some(5 * HOUR));
}

#[tokio::test(start_paused = true)]
async fn removal_ends_a_worker_that_sleeps() {
    let Bench {
        mail, worker, made, ..
    } = bench(None, taken);
    sleep(HOUR).await;
    mail.send(Mail::Removed).unwrap();
    worker.await.expect("no panic");
    assert_eq!(made.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn removal_lets_a_running_attempt_end_without_spinning() {
    let Bench {
        world,
        mail,
        worker,
        made,
    } = bench_taking(MINUTE, None, taken);
    while made.lock().unwrap().is_empty() {
        sleep(SECOND).await;
    }
    let began = Instant::now();
    mail.send(Mail::Removed).unwrap();
    // The reconciler forgets the mailbox, too.
    drop(mail);
    worker.await.expect("no panic");
    assert!(began.elapsed() >= 58 * SECOND, "{:?}", began.elapsed());
    assert_eq!(world.context.view.counts().values().sum::<usize>(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_soft_stop_ends_a_worker_after_the_attempt_that_it_is_in() {
    let bench = bench_taking(MINUTE, None, taken);
    while bench.attempts().is_empty() {
        sleep(SECOND).await;
    }
    bench.world.context.shutdown.soft().cancel();
    let began = Instant::now();
    bench.worker.await.expect("no panic");
    assert!(began.elapsed() >= 58 * SECOND);

    let idle = self::bench(None, taken);
    sleep(HOUR).await;
    idle.world.context.shutdown.soft().cancel();
    let began = Instant::now();
    idle.worker.await.expect("no panic");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_newer_of_two_workers_of_a_device_is_the_one_that_is_shown() {
    let world = World::new(1);
    let view = &world.context.view;
    let seen = |state| DeviceView {
        at_rest: state,
        slot_held: None,
        last_success_at: None,
        known_since: START,
    };
    let old = view.enter(id(1));
    old.show(seen(Condition::Running));
    let new = view.enter(id(1));
    new.show(seen(Condition::New));
    old.show(seen(Condition::Ok));
    assert_eq!(view.counts()[&Condition::New], 1);
    drop(old);
    assert_eq!(view.counts()[&Condition::New], 1);
    drop(new);
    assert_eq!(view.counts().values().sum::<usize>(), 0);
}
