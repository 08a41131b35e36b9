//! The reconciler in simulated time, over an inventory in memory.

use std::sync::atomic::Ordering;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::fakes::{HOUR, Lines, MINUTE, POLICY, START, World, device, id, succeeded};
use super::*;
use crate::config::{Log, LogFormat};
use crate::domain::schedule::Condition;
use crate::ports::Presence;

const PERIOD: Duration = MINUTE;
const SECOND: Duration = Duration::from_secs(1);

fn run(world: &World) -> JoinHandle<()> {
    tokio::spawn(Reconciler::new(world.context.clone(), POLICY, PERIOD).run())
}

fn shown(world: &World) -> usize {
    world.context.view.counts().values().sum()
}

#[tokio::test(start_paused = true)]
async fn twenty_thousand_devices_start_and_a_quiet_look_reads_nothing() {
    const FLEET: u32 = 20_000;
    let world = World::new(10);
    for n in 0..FLEET {
        let device = device(n);
        let last = succeeded(&device, START, HOUR);
        let mut state = world.store.state();
        state.last.insert(device.id, last);
        state.put(device);
    }
    let mut reconciler = Reconciler::new(world.context.clone(), POLICY, PERIOD);
    let changes = reconciler.reconcile().await.expect("the store is there");
    assert_eq!(changes.started, FLEET as usize);
    // The workers get to run.
    sleep(SECOND).await;
    assert_eq!(world.context.view.counts()[&Condition::Ok], FLEET as usize);
    let reads = world.store.state().reads.len();
    assert_eq!(reads, 256 / BUCKETS_PER_READ);

    let quiet = reconciler.reconcile().await.expect("the store is there");
    assert_eq!(quiet, Changes::default());
    assert_eq!(world.store.state().reads.len(), reads);

    let mut edited = device(7);
    edited.name = "core-7".into();
    world.store.state().put(edited);
    world.store.state().delete(id(8));
    let changes = reconciler.reconcile().await.expect("the store is there");
    assert_eq!(
        (changes.started, changes.edited, changes.stopped),
        (0, 1, 1)
    );
    assert_eq!(
        world.store.state().reads.len(),
        reads + 1,
        "two buckets at once"
    );
    sleep(SECOND).await;
    assert_eq!(shown(&world), FLEET as usize - 1);
}

#[tokio::test(start_paused = true)]
async fn rows_are_followed_by_the_period_and_by_hints() {
    let world = World::new(1);
    let running = run(&world);
    sleep(SECOND).await;
    world.store.state().put(device(1));
    sleep(PERIOD).await;
    assert_eq!(shown(&world), 1, "found by the period");

    world.store.state().put(device(2));
    world.store.hint.notify_one();
    sleep(SECOND).await;
    assert_eq!(shown(&world), 2, "found by the hint");

    world.store.state().delete(id(1));
    world.store.hint.notify_one();
    sleep(SECOND).await;
    assert_eq!(shown(&world), 1);

    world.context.shutdown.soft().cancel();
    running.await.expect("no panic");
    assert_eq!(shown(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn the_age_of_a_device_without_a_success_survives_a_restart() {
    let world = World::new(1);
    world.store.state().put(device(1));
    world.store.state().unreadable = 2;
    let age = || {
        let now = world.context.clock.now();
        world.context.view.oldest_success_age(now)
    };
    let first = run(&world);
    sleep(SECOND).await;
    assert!(age().is_some_and(|age| age <= SECOND), "{:?}", age());
    first.abort();
    while age().is_some() {
        sleep(SECOND).await;
    }
    sleep(HOUR).await;
    let second = run(&world);
    sleep(SECOND).await;
    assert!(age().is_some_and(|age| age >= HOUR), "{:?}", age());
    let unreadable = world.metric("mikrotik_config_backup_unreadable_rows");
    assert_eq!(unreadable, 2.0);
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn an_import_with_many_hints_does_not_become_as_many_looks() {
    let world = World::new(1);
    let running = run(&world);
    sleep(SECOND).await;
    let before = world.store.state().looks;
    for n in 0..1_000 {
        world.store.state().put(device(n));
        world.store.hint.notify_one();
        sleep(Duration::from_millis(1)).await;
    }
    sleep(SECOND).await;
    assert_eq!(shown(&world), 1_000);
    let looks = world.store.state().looks - before;
    assert!((2..=6).contains(&looks), "{looks}");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn hints_leave_a_busy_database_most_of_its_time() {
    let world = World::new(1);
    world.store.state().inventory_takes = Duration::from_millis(500);
    let running = run(&world);
    sleep(SECOND).await;
    let before = world.store.state().looks;
    for _ in 0..600 {
        world.store.hint.notify_one();
        sleep(Duration::from_millis(100)).await;
    }
    let looks = world.store.state().looks - before;
    // Half a second each, then two seconds of rest.
    assert!((20..=25).contains(&looks), "{looks} in a minute");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_hint_during_a_look_is_answered_by_another_look() {
    let world = World::new(1);
    world.store.state().inventory_takes = SECOND;
    let running = run(&world);
    sleep(SECOND / 2).await;
    world.store.hint.notify_one();
    sleep(SECOND).await;
    // After the digests were read.
    world.store.state().put(device(1));
    sleep(10 * SECOND).await;
    assert_eq!(shown(&world), 1);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_is_logged_once_each_way_and_stops_no_worker() {
    let lines = Lines::default();
    let log = Log {
        level: tracing::Level::INFO,
        format: LogFormat::Json,
        color: false,
    };
    let subscriber = crate::telemetry::subscriber(log, lines.clone());
    let _logging = tracing::subscriber::set_default(subscriber);

    let world = World::new(1);
    let locks = &world.coordinator.inner;
    locks.set_presence(id(1), Presence::Offline);
    world.store.state().put(device(1));
    let running = run(&world);
    sleep(SECOND).await;
    assert_eq!(lines.count("Reconciled the inventory"), 1);
    world.store.state().away = true;
    sleep(HOUR).await;
    assert_eq!(lines.count("the inventory cannot be read"), 1);
    let offline = || world.metric("mikrotik_config_backup_total{status=\"skipped_offline\"}");
    let meanwhile = offline();
    assert!(meanwhile >= 9.0, "the worker went on: {meanwhile}");
    world.store.state().away = false;
    sleep(HOUR).await;
    assert_eq!(lines.count("the inventory cannot be read"), 1);
    assert_eq!(lines.count("the database is back"), 1);
    assert!(offline() > meanwhile);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_panics_is_counted_and_started_again() {
    let world = World::new(1);
    let locks = &world.coordinator;
    locks.inner.set_presence(id(1), Presence::Offline);
    locks.panics.store(1, Ordering::Relaxed);
    world.store.state().put(device(1));
    world.store.state().put(device(257));
    let running = run(&world);
    let restarts = || world.metric("mikrotik_config_backup_worker_restarts_total");
    while restarts() == 0.0 {
        sleep(SECOND).await;
    }
    assert_eq!(shown(&world), 1, "its neighbour in the bucket goes on");
    sleep(PERIOD + SECOND).await;
    assert_eq!(shown(&world), 2, "it is back");
    sleep(HOUR).await;
    assert_eq!(restarts(), 1.0);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_database_that_hangs() {
    let world = World::new(1);
    world.store.state().inventory_hangs = true;
    let running = run(&world);
    sleep(SECOND).await;
    world.context.shutdown.soft().cancel();
    let ended = tokio::time::timeout(SECOND, running).await;
    ended.expect("it ends at once").expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_comes_back_at_once_is_worked_on_again() {
    let world = World::new(1);
    let mut reconciler = Reconciler::new(world.context.clone(), POLICY, PERIOD);
    for present in [true, false, true] {
        if present {
            world.store.state().put(device(1));
        } else {
            world.store.state().delete(id(1));
        }
        reconciler.reconcile().await.expect("the store is there");
    }
    sleep(SECOND).await;
    assert_eq!(shown(&world), 1);
    assert_eq!(reconciler.workers.len(), 2, "one of them has ended");
    assert!(reconciler.workers.try_join_next().is_some());
    assert!(reconciler.workers.try_join_next().is_none());
}
