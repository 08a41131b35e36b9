//! One attempt against a simulated router over a real socket, with store, sink and locks in memory.

mod turns;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;

use super::super::backlog;
use super::super::fakes::{
    Lines, POLICY, START, World, device, id, sealed, snapshot, succeeded, told,
};
use super::*;
use crate::domain::attempt::{AttemptRecord, Status};
use crate::domain::device::CredentialSource;
use crate::domain::host_key::Pin;
use crate::domain::schedule::{Event, Made};
use crate::ports::Coordinator as _;
use crate::sim::{Fault, Router, RouterOptions};

/// What no test takes unless it fails.
pub(super) const GENEROUS: Duration = Duration::from_secs(20);

pub(super) fn router() -> Router {
    Router::start_one(RouterOptions::default()).expect("a free port")
}

/// Device 1 as the row of `router`.
pub(super) fn device_at(router: &Router) -> Device {
    let mut device = device(1);
    device.endpoint.host = router.address().ip().to_string();
    device.endpoint.port = router.address().port().into();
    device
}

/// A world with one row.
pub(super) fn world(device: &Device) -> World {
    let world = World::new(1);
    world.store.state().put(device.clone());
    world
}

pub(super) fn ask(world: &World, device: &Device, known_last: Option<AttemptId>) -> Ask {
    let now = world.context.clock.now();
    let revision = device.revision();
    let mut schedule = Schedule::resume(POLICY, device.id, revision, None, now, Draw::ZERO);
    schedule.handle(Event::Began, now, Draw::ZERO);
    Ask {
        id: AttemptId::generate(),
        device: device.id,
        name: device.name.clone(),
        settings: device.settings,
        cause: Cause::Scheduled,
        known_last,
        schedule,
        slot_held: Arc::default(),
    }
}

pub(super) async fn attempt(world: &World, device: &Device) -> Report {
    let ask = ask(world, device, None);
    let attempt = timeout(GENEROUS, world.context.attempt(ask)).await;
    attempt.expect("an attempt ends by itself")
}

/// Polls until `holds`.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(GENEROUS, waiting).await.expect(what);
}

/// Slot, lease and connection are free again.
async fn assert_all_free(world: &World, router: &Router) {
    assert_eq!(world.context.slots.in_use(), 0);
    assert_eq!(world.metric("mikrotik_config_backup_active"), 0.0);
    let lease = world.coordinator.try_lease(id(1), GENEROUS).await;
    let lease = lease.expect("locks in memory").expect("the lease is free");
    world.coordinator.release(lease).await;
    until("the connection is closed", || {
        router.stats().open_connections == 0
    })
    .await;
}

fn deferral(report: &Report) -> &Deferral {
    match &report.finish {
        Finish::Deferred(deferral) => deferral,
        made => panic!("{made:?}"),
    }
}

/// What the only record says: kind of failure, or status.
pub(super) fn only_record(world: &World) -> (AttemptRecord, &'static str) {
    let records = world.store.state().records.clone();
    let [record] = records.as_slice() else {
        panic!("{} records", records.len());
    };
    (record.clone(), told(record))
}

#[tokio::test]
async fn a_backup_takes_every_step_in_order() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    let report = attempt(&world, &device).await;
    let (record, told) = only_record(&world);
    assert_eq!(told, "success");
    assert_eq!(report.made, Some(record.id));
    let steps: Vec<_> = record.steps.iter().map(|step| step.step).collect();
    assert_eq!(steps, Step::ALL);
    let [snapshot] = &world.sink.taken()[..] else {
        panic!("one snapshot");
    };
    assert_eq!(snapshot.attempt, record.id);
    assert_eq!(snapshot.hash, snapshot.text.digest());
    let pinned = world.store.state().devices[&id(1)].pin.clone();
    assert_eq!(pinned, Pin::Pinned(router.fingerprint()));
    assert_eq!(record.offered_key, Some(router.fingerprint()));
    assert_eq!(
        world.metric("mikrotik_config_backup_total{status=\"success\"}"),
        1.0
    );
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn another_host_key_gets_no_password() {
    let router = router();
    let mut device = device_at(&router);
    device.pin = Pin::Pinned(Fingerprint::of_key_blob(b"the key of before"));
    let world = world(&device);
    attempt(&world, &device).await;
    let (record, told) = only_record(&world);
    assert_eq!(told, "host_key_mismatch");
    assert_eq!(record.offered_key, Some(router.fingerprint()));
    assert_eq!(router.stats().login_attempts, 0);
    assert!(world.sink.taken().is_empty());
    let blocked = world.store.state().last[&id(1)].failure;
    assert_eq!(blocked, Some(FailureKind::HostKeyMismatch));
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_first_pin_that_somebody_else_set_binds_us() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    let other = Fingerprint::of_key_blob(b"what the other replica saw");
    world.store.state().other_pins = Some(other.clone());
    attempt(&world, &device).await;
    assert_eq!(only_record(&world).1, "host_key_mismatch");
    assert_eq!(router.stats().exports_begun, 0);
    assert_eq!(world.store.state().devices[&id(1)].pin, Pin::Pinned(other));
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn credentials_that_cannot_be_opened_cost_no_connection() {
    let router = router();
    let mut device = device_at(&router);
    device.credentials = CredentialSource::DeviceSealed(vec![0; 64]);
    let world = world(&device);
    attempt(&world, &device).await;
    let (record, told) = only_record(&world);
    assert_eq!(told, "credentials_unreadable");
    assert_eq!(record.steps.last().map(|step| step.step), Some(Step::Lock));
    assert_eq!(router.stats().connections, 0);
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_sink_that_is_away_costs_no_connection() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    world.sink.away.store(true, Ordering::Relaxed);
    let report = attempt(&world, &device).await;
    assert!(matches!(deferral(&report), Deferral::Unavailable { .. }));
    assert_eq!(router.stats().connections, 0);
    assert_eq!(world.store.state().records, []);
    assert!(world.store.state().running.is_empty());
    assert_eq!(
        world.metric("mikrotik_config_backup_deferrals_total{reason=\"unavailable\"}"),
        1.0
    );
}

#[tokio::test]
async fn what_puts_attempts_off_is_said_once_and_not_for_each_device() {
    let device = device(1);
    let world = world(&device);
    world.sink.away.store(true, Ordering::Relaxed);
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone());
    let subscriber = Dispatch::new(subscriber.finish());
    for _ in 0..3 {
        let report = attempt(&world, &device).with_subscriber(subscriber.clone());
        assert!(matches!(
            deferral(&report.await),
            Deferral::Unavailable { .. }
        ));
    }
    assert_eq!(lines.count("WARN"), 1);
    assert_eq!(lines.count("Backups are put off"), 1);
}

#[tokio::test]
async fn a_lease_that_ran_out_ends_the_attempt_before_the_router_is_dialled() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    world.coordinator.expired.store(true, Ordering::Relaxed);
    attempt(&world, &device).await;
    assert_eq!(only_record(&world).1, "interrupted");
    assert_eq!(router.stats().connections, 0);
}

#[tokio::test]
async fn nothing_is_delivered_once_the_lease_may_have_run_out() {
    let device = device(1);
    let world = world(&device);
    let mut snapshot = None;
    {
        let router = router();
        let device = device_at(&router);
        let source = self::world(&device);
        attempt(&source, &device).await;
        snapshot.replace(source.sink.taken().remove(0));
    }
    let snapshot = snapshot.expect("one was taken");
    let mut lease = Lease {
        device: id(1),
        token: String::new(),
        expires: Instant::now(),
    };
    let late = world.context.deliver(&snapshot, &lease).await;
    assert!(matches!(late, Err(Stop::Interrupted(_))));
    assert!(world.sink.taken().is_empty());
    lease.expires += GENEROUS;
    assert!(world.context.deliver(&snapshot, &lease).await.is_ok());
}

#[tokio::test]
async fn a_hard_stop_in_the_middle_of_an_export_is_recorded() {
    let router = router();
    router.set_fault(Fault::StallMidOutput);
    let device = device_at(&router);
    let world = world(&device);
    let context = world.context.clone();
    let ask = ask(&world, &device, None);
    let running = tokio::spawn(async move { context.attempt(ask).await });
    until("the export has begun", || router.stats().exports_begun == 1).await;
    world.context.shutdown.soft().cancel();
    sleep(Duration::from_millis(50)).await;
    assert!(!running.is_finished(), "a soft stop lets it finish");
    world.context.shutdown.hard().cancel();
    timeout(GENEROUS, running).await.expect("it ends").unwrap();
    assert_eq!(only_record(&world).1, "interrupted");
    assert!(world.store.state().running.is_empty());
    assert!(world.sink.taken().is_empty());
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_hard_stop_does_not_wait_for_a_database_that_hangs() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    world.store.state().record_hangs = true;
    let context = world.context.clone();
    let ask = ask(&world, &device, None);
    let running = tokio::spawn(async move { context.attempt(ask).await });
    until("the snapshot is delivered", || {
        !world.sink.taken().is_empty()
    })
    .await;
    until("the slot is free while the record waits", || {
        world.context.slots.in_use() == 0
    })
    .await;
    world.context.shutdown.hard().cancel();
    let ended = timeout(crate::lifecycle::HARD_LIMIT, running).await;
    ended.expect("it ends within the hard limit").unwrap();
    assert_eq!(world.context.backlog.len(), 1);
    assert_all_free(&world, &router).await;
    // And so does the last try, which tells what is lost.
    let flushed = timeout(Duration::from_secs(1), backlog::flush(&world.context)).await;
    flushed.expect("it gives up");
    assert!(world.context.backlog.is_empty());
}

#[tokio::test]
async fn a_record_that_the_database_cannot_take_waits_for_it() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    world.store.state().record_away = true;
    let first = attempt(&world, &device).await;
    assert!(matches!(
        first.finish,
        Finish::Made {
            result: Made::Taken,
            ..
        }
    ));
    assert_eq!(world.context.backlog.len(), 1);
    assert_all_free(&world, &router).await;

    // The claim would compare with the attempt before: no new one until it is recorded.
    let ask = ask(&world, &device, first.made);
    let second = world.context.attempt(ask).await;
    assert!(matches!(deferral(&second), Deferral::Unavailable { .. }));
    assert_eq!(router.stats().connections, 1);

    let context = world.context.clone();
    let recorder = tokio::spawn(async move { backlog::run(&context).await });
    sleep(Duration::from_millis(50)).await;
    assert_eq!(world.context.backlog.len(), 1, "it is still away");
    world.store.state().record_away = false;
    until("it is recorded", || world.context.backlog.is_empty()).await;
    let (record, told) = only_record(&world);
    assert_eq!((Some(record.id), told), (first.made, "success"));
    assert!(record.ended_ago >= Duration::from_millis(50), "it waited");
    recorder.abort();
}

#[tokio::test]
async fn another_replicas_attempt_is_found_under_the_lock() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    let now = world.context.clock.now();
    let last = succeeded(&device, now, Duration::from_secs(5));
    world.store.state().last.insert(id(1), last.clone());
    let report = attempt(&world, &device).await;
    assert_eq!(deferral(&report), &Deferral::Superseded(Box::new(last)));
    assert_eq!(router.stats().connections, 0);
    assert!(world.store.state().running.is_empty());
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_device_without_a_row_or_behind_anothers_lock_is_left_alone() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    let lease = world.coordinator.try_lease(id(1), GENEROUS).await;
    let lease = lease.expect("locks in memory").expect("it is free");
    let report = attempt(&world, &device).await;
    assert_eq!(deferral(&report), &Deferral::Contended);
    assert_eq!(
        world.metric("mikrotik_config_backup_total{status=\"skipped\"}"),
        1.0
    );
    world.coordinator.release(lease).await;

    world.store.state().delete(id(1));
    let report = attempt(&world, &device).await;
    assert_eq!(deferral(&report), &Deferral::Gone);
    assert_eq!(router.stats().connections, 0);
    assert_eq!(world.store.state().records, []);
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_panic_is_a_failure_of_this_attempt_only() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    world.sink.panics.store(true, Ordering::Relaxed);
    attempt(&world, &device).await;
    let (record, told) = only_record(&world);
    assert_eq!(told, "internal");
    assert_eq!(record.consecutive_failures, 1);
    let wait = record.next_due_in.as_secs();
    assert!((299..=330).contains(&wait), "{wait} s of back-off");
    assert_eq!(
        world.metric("mikrotik_config_backup_worker_restarts_total"),
        1.0
    );
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_pin_that_cannot_be_written_backs_off() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    world.store.state().pin_refused = true;
    attempt(&world, &device).await;
    let (record, told) = only_record(&world);
    assert_eq!(told, "unknown");
    let wait = record.next_due_in.as_secs();
    assert!(wait >= 299, "logs in again after {wait} s");
    assert_eq!(router.stats().exports_begun, 0);
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_refused_password_blocks_after_one_try() {
    let router = router();
    let mut device = device_at(&router);
    device.credentials = sealed("another password");
    let world = world(&device);
    attempt(&world, &device).await;
    let (record, told) = only_record(&world);
    assert_eq!((told, router.stats().password_attempts), ("auth_failed", 1));
    assert_eq!(
        record.standing.map(|(kind, _)| kind),
        Some(FailureKind::AuthFailed)
    );
    assert_eq!(world.store.state().last[&id(1)].status, Status::Failed);
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_large_export_does_not_hold_up_the_thread_that_serves_sockets() {
    // The router computes on threads of its own.
    let elsewhere = tokio::runtime::Runtime::new().expect("a runtime");
    let router = {
        let _inside = elsewhere.enter();
        router()
    };
    router.set_fault(Fault::Size(8 << 20));
    let device = device_at(&router);
    let world = world(&device);
    let context = Arc::clone(&world.context);
    let ask = ask(&world, &device, None);
    let running = tokio::spawn(async move { context.attempt(ask).await });
    let mut longest = Duration::ZERO;
    while !running.is_finished() {
        let began = Instant::now();
        sleep(Duration::from_millis(5)).await;
        longest = longest.max(began.elapsed());
    }
    let (record, told) = only_record(&world);
    assert_eq!(told, "success");
    let normalising = record
        .steps
        .iter()
        .find(|step| step.step == Step::Normalise);
    let normalising = normalising.expect("the step was taken").took;
    // On this thread it would be one long wait for everybody else.
    assert!(longest < normalising, "{longest:?} of {normalising:?}");
    elsewhere.shutdown_background();
}
