//! Requests in simulated time: whole workers and a reconciler over a world in memory, against
//! addresses that nobody answers at, so that an attempt takes as long as a connect may.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::super::fakes::{HOUR, MINUTE, POLICY, World, device, id, sealed, succeeded};
use super::super::reconciler::Reconciler;
use super::*;
use crate::domain::attempt::Cause;
use crate::domain::device::{CredentialSource, Device};
use crate::domain::request::ReplyStatus;
use crate::domain::schedule::Condition;
use crate::ports::{Coordinator as _, Presence};

/// A device whose attempt fails at once, after the claim: its credentials cannot be opened.
fn unreadable(n: u32) -> Device {
    Device {
        credentials: CredentialSource::DeviceSealed(vec![1; 40]),
        ..device(n)
    }
}

fn run(world: &World) -> JoinHandle<()> {
    tokio::spawn(Reconciler::new(world.context.clone(), POLICY, MINUTE).run())
}

/// A world with `device`, which is not due for hours.
async fn resting(device: &Device) -> (World, JoinHandle<()>) {
    let world = World::new(1);
    let last = succeeded(device, world.context.clock.now(), HOUR);
    world.store.state().put(device.clone());
    world.store.state().last.insert(device.id, last);
    let running = run(&world);
    world.context.requests.appears(device.id).await;
    (world, running)
}

fn ask(world: &World, n: u32) -> JoinHandle<Result<Reply, RequestError>> {
    let requests = world.context.requests.clone();
    tokio::spawn(async move { requests.backup(id(n)).await })
}

#[tokio::test(start_paused = true)]
async fn a_hundred_requests_are_one_attempt() {
    let (world, _running) = resting(&unreadable(1)).await;
    let asked: Vec<_> = (0..100).map(|_| ask(&world, 1)).collect();
    for answer in asked {
        let reply = answer.await.unwrap().expect("an answer");
        assert_eq!(reply.status, ReplyStatus::Failed);
        assert_eq!(
            reply.kind.map(|kind| kind.as_str()),
            Some("credentials_unreadable")
        );
        assert_eq!(reply.attempt, Some(world.store.state().records[0].id));
    }
    let state = world.store.state();
    assert_eq!(state.records.len(), 1);
    assert_eq!(state.records[0].cause, Cause::Manual);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_is_told_at_once_which_attempt_it_will_be() {
    let (world, _running) = resting(&unreadable(1)).await;
    let requests = world.context.requests.clone();
    let scheduled = crate::fleet::slots::Lane::Scheduled;
    let slot = world.context.slots.acquire(scheduled).await;
    let first = requests.accept(id(1), None).await.expect("taken");
    let second = requests.accept(id(1), Some(device(1).tenant)).await;
    let second = second.expect("taken");
    assert_eq!(first.attempt, second.attempt);
    drop(slot);
    let told = first.attempt;
    assert_eq!(first.reply().await.expect("an answer").attempt, Some(told));
    assert_eq!(second.reply().await.expect("an answer").attempt, Some(told));
    // The next one is another.
    let third = requests.accept(id(1), None).await.expect("taken");
    assert_ne!(third.attempt, told);
    // One that is put off was not made, and its id is never used.
    let lease = world.coordinator.try_lease(id(1), HOUR).await.unwrap();
    let _ = third.reply().await;
    let locked = requests.accept(id(1), None).await.expect("taken");
    let unused = locked.attempt;
    let reply = locked.reply().await.expect("an answer");
    assert_eq!((reply.status, reply.attempt), (ReplyStatus::Locked, None));
    world.coordinator.release(lease.expect("a lease")).await;
    let after = requests.accept(id(1), None).await.expect("taken");
    assert_ne!(after.attempt, unused);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_nobody_waits_for_any_more_is_not_made() {
    use crate::fleet::slots::Lane::{Requested, Scheduled};
    let (world, _running) = resting(&unreadable(1)).await;
    let slot = world.context.slots.acquire(Scheduled).await;
    let requests = world.context.requests.clone();
    let stays = requests.accept(id(1), None).await.expect("taken");
    let goes = requests.accept(id(1), None).await.expect("taken");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.context.slots.waiting(Requested), 1);
    drop(goes);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        world.context.slots.waiting(Requested),
        1,
        "somebody still waits"
    );
    drop(stays);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.context.slots.waiting(Requested), 0);
    drop(slot);
    sleep(MINUTE).await;
    assert!(world.store.state().records.is_empty());
    assert_eq!(world.context.view.counts()[&Condition::Ok], 1);
    assert!(
        ask(&world, 1)
            .await
            .unwrap()
            .expect("an answer")
            .attempt
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn so_many_wait_and_the_next_is_refused() {
    let (world, _running) = resting(&unreadable(1)).await;
    let _slot = world
        .context
        .slots
        .acquire(crate::fleet::slots::Lane::Scheduled)
        .await;
    let requests = &world.context.requests;
    let mut waiting = Vec::new();
    for _ in 0..MOST_WAITING {
        waiting.push(requests.accept(id(1), None).await.expect("taken"));
    }
    let refused = requests.accept(id(1), None).await.err();
    assert_eq!(refused, Some(RequestError::TooMany(id(1))));
    // Whoever gives up makes room.
    waiting.pop();
    assert!(requests.accept(id(1), None).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_device_is_its_owners_as_the_inventory_says_now() {
    let (world, _running) = resting(&unreadable(1)).await;
    let requests = &world.context.requests;
    let (old, new) = (device(1).tenant, TenantId(uuid::Uuid::from_u128(7)));
    let refused = requests.accept(id(1), Some(new)).await.err();
    assert_eq!(refused, Some(RequestError::OtherTenant(id(1))));
    world.store.state().put(Device {
        tenant: new,
        ..unreadable(1)
    });
    world.store.hint.notify_one();
    sleep(MINUTE / 2).await;
    assert!(requests.accept(id(1), Some(new)).await.is_ok());
    let refused = requests.accept(id(1), Some(old)).await.err();
    assert_eq!(refused, Some(RequestError::OtherTenant(id(1))));
}

#[tokio::test(start_paused = true)]
async fn before_the_inventory_was_read_no_device_is_called_unknown() {
    let world = World::new(1);
    let refused = world.context.requests.accept(id(1), None).await.err();
    assert_eq!(refused, Some(RequestError::NotLoaded(id(1))));
    let _running = run(&world);
    let loaded = timeout(MINUTE, world.context.requests.loaded());
    loaded.await.expect("soon");
    let refused = world.context.requests.accept(id(1), None).await.err();
    assert_eq!(refused, Some(RequestError::Unknown(id(1))));
}

#[tokio::test(start_paused = true)]
async fn a_request_skips_presence() {
    let (world, _running) = resting(&unreadable(1)).await;
    let locks = &world.coordinator.inner;
    locks.set_presence(id(1), Presence::Offline);
    let reply = ask(&world, 1).await.unwrap().expect("an answer");
    assert!(reply.attempt.is_some(), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_another_process_holds_is_locked_and_stays_as_it_was() {
    let (world, _running) = resting(&unreadable(1)).await;
    let lease = world.coordinator.try_lease(id(1), HOUR).await.unwrap();
    let reply = ask(&world, 1).await.unwrap().expect("an answer");
    assert_eq!(reply.status, ReplyStatus::Locked);
    assert_eq!(reply.attempt, None);
    assert_eq!(world.context.view.counts()[&Condition::Ok], 1);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_an_unknown_device_is_told_at_once() {
    let (world, _running) = resting(&device(1)).await;
    let reply = ask(&world, 2).await.unwrap();
    assert_eq!(reply, Err(RequestError::Unknown(id(2))));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_added_appears_and_one_that_is_removed_is_unknown_again() {
    let (world, _running) = resting(&device(1)).await;
    world.store.state().put(unreadable(2));
    world.store.hint.notify_one();
    let requests = world.context.requests.clone();
    let appears = timeout(MINUTE / 2, requests.appears(id(2)));
    appears.await.expect("a hint starts the worker soon");
    assert!(ask(&world, 2).await.unwrap().is_ok());
    world.store.state().delete(id(2));
    world.store.hint.notify_one();
    sleep(MINUTE / 2).await;
    let reply = ask(&world, 2).await.unwrap();
    assert_eq!(reply, Err(RequestError::Unknown(id(2))));
}

#[tokio::test(start_paused = true)]
async fn a_request_takes_the_place_of_the_devices_own_attempt_that_queues() {
    let world = World::new(1);
    world.store.state().put(unreadable(1));
    let slot = world
        .context
        .slots
        .acquire(crate::fleet::slots::Lane::Scheduled);
    let slot = slot.await;
    let _running = run(&world);
    // Its first attempt has come due, and queues.
    sleep(10 * MINUTE).await;
    let lanes = |world: &World| {
        use crate::fleet::slots::Lane::{Requested, Scheduled};
        let slots = &world.context.slots;
        (slots.waiting(Scheduled), slots.waiting(Requested))
    };
    assert_eq!(lanes(&world), (1, 0));
    let answer = ask(&world, 1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(lanes(&world), (0, 1));
    drop(slot);
    let reply = answer.await.unwrap().expect("an answer");
    assert!(reply.attempt.is_some(), "{reply:?}");
    let state = world.store.state();
    assert_eq!(state.records.len(), 1);
    assert_eq!(state.records[0].cause, Cause::Manual);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_when_the_process_stops_is_told() {
    let (world, _running) = resting(&unreadable(1)).await;
    let _slot = world
        .context
        .slots
        .acquire(crate::fleet::slots::Lane::Scheduled)
        .await;
    let answer = ask(&world, 1);
    sleep(Duration::from_secs(1)).await;
    world.context.shutdown.soft().cancel();
    let answer = timeout(MINUTE, answer).await.expect("soon").unwrap();
    match answer {
        Ok(reply) => assert_eq!(reply.status, ReplyStatus::Failed),
        Err(error) => assert_eq!(error, RequestError::Dropped(id(1))),
    }
}

/// Requests that arrive while an attempt runs get what comes of it: no second one follows.
#[tokio::test]
async fn a_request_shares_what_runs_already() {
    let router = crate::sim::Router::start_one(crate::sim::RouterOptions {
        delay: Duration::from_millis(300),
        ..crate::sim::RouterOptions::default()
    })
    .expect("a free port");
    let mut row = device(1);
    row.credentials = sealed(crate::sim::PASSWORD);
    row.endpoint.host = router.address().ip().to_string();
    row.endpoint.port = router.address().port().into();
    let (world, _running) = resting(&row).await;
    let first = ask(&world, 1);
    while router.stats().connections == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    let second = ask(&world, 1);
    let first = first.await.unwrap().expect("an answer");
    let second = second.await.unwrap().expect("an answer");
    assert_eq!(first.status, ReplyStatus::Success, "{first:?}");
    assert_eq!(first, second);
    assert_eq!(first.hash, Some(world.sink.taken()[0].hash));
    assert_eq!(router.stats().connections, 1);
}
