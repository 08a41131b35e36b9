//! What an attempt waits for, and what it finds when its turn comes.

use super::*;

#[tokio::test]
async fn no_more_sessions_than_slots() {
    let router = router();
    router.set_delay(Duration::from_millis(100));
    let world = World::new(2);
    let mut running = Vec::new();
    for n in 1..=8 {
        let mut device = device_at(&router);
        device.id = id(n);
        world.store.state().put(device.clone());
        let ask = ask(&world, &device, None);
        let context = Arc::clone(&world.context);
        running.push(tokio::spawn(async move { context.attempt(ask).await }));
    }
    for attempt in running {
        timeout(GENEROUS, attempt).await.expect("it ends").unwrap();
    }
    assert_eq!(world.sink.taken().len(), 8);
    assert_eq!(router.stats().max_open_connections, 2);
}

/// An attempt that waits for the only slot, and the slot.
async fn waiting(
    world: &World,
    device: &Device,
) -> (tokio::task::JoinHandle<Report>, crate::fleet::slots::Slot) {
    let slot = world.context.slots.acquire(Lane::Scheduled).await;
    let ask = ask(world, device, None);
    let context = Arc::clone(&world.context);
    let running = tokio::spawn(async move { context.attempt(ask).await });
    until("it waits for the slot", || {
        world.context.slots.waiting(Lane::Scheduled) == 1
    })
    .await;
    (running, slot)
}

#[tokio::test]
async fn a_sink_that_goes_away_during_the_wait_for_a_slot_costs_no_connection() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    let (running, slot) = waiting(&world, &device).await;
    world.sink.away.store(true, Ordering::Relaxed);
    drop(slot);
    let report = timeout(GENEROUS, running).await.expect("it ends").unwrap();
    assert!(matches!(deferral(&report), Deferral::Unavailable { .. }));
    assert_eq!(router.stats().connections, 0);
    assert_eq!(world.store.state().records, []);
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn what_waits_of_a_device_is_asked_once_and_only_under_its_lease() {
    let router = router();
    let device = device_at(&router);
    let (world, post) = World::with_outbox();
    world.store.state().put(device.clone());
    let asked = || post.letters.asked.load(Ordering::Relaxed);
    // Somebody else has the lease: Redis is not asked for more.
    let lease = world.coordinator.try_lease(device.id, GENEROUS).await;
    let lease = lease.expect("locks in memory").expect("it is free");
    let report = attempt(&world, &device).await;
    assert_eq!(*deferral(&report), Deferral::Contended);
    assert_eq!(asked(), 0);
    world.coordinator.release(lease).await;

    // An older one waits, and there is no room behind it.
    let queue = world.context.outbox.as_ref().expect("there is one");
    let older = queue.write(&snapshot(1, device.id), START).await;
    let put = queue.put(&older.expect("memory")).await;
    put.expect("it is there");
    post.letters.full.store(true, Ordering::Relaxed);
    let report = attempt(&world, &device).await;
    assert!(matches!(deferral(&report), Deferral::Unavailable { .. }));
    assert_eq!(asked(), 1);
    assert_eq!(router.stats().connections, 0);
    assert_all_free(&world, &router).await;

    // Once before the router is troubled, and once before the snapshot is published.
    post.letters.full.store(false, Ordering::Relaxed);
    let report = attempt(&world, &device).await;
    assert!(report.made.is_some(), "{report:?}");
    assert_eq!(asked(), 3);
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_taken_back_before_the_next_one() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    world.store.state().claim_answer_lost = true;
    let report = attempt(&world, &device).await;
    assert!(
        matches!(deferral(&report), Deferral::Unavailable { .. }),
        "{report:?}"
    );
    assert_eq!(router.stats().connections, 0);
    let report = attempt(&world, &device).await;
    assert!(report.made.is_some(), "{report:?}");
    assert_eq!(world.store.state().marks_found, 0, "no process has died");
    assert_eq!(world.store.state().records.len(), 1);
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_router_that_was_connected_to_too_often_is_left_alone_and_whoever_asked_is_told() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    let wait = Duration::from_secs(3000);
    world.store.state().too_soon = Some(wait);
    let report = attempt(&world, &device).await;
    let until = world.context.clock.now() + wait;
    let Deferral::RateLimited { until: told, .. } = deferral(&report) else {
        panic!("{report:?}");
    };
    assert!(until - *told < GENEROUS, "{told}");
    assert_eq!(report.reply.retry_after, Some(wait));
    assert_eq!(router.stats().connections, 0);
    assert_eq!(world.store.state().records, []);
    let deferrals = "mikrotik_config_backup_deferrals_total{reason=\"rate_limited\"}";
    assert_eq!(world.metric(deferrals), 1.0);
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_soft_stop_ends_the_wait_for_a_slot() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    let (running, slot) = waiting(&world, &device).await;
    world.context.shutdown.soft().cancel();
    let report = timeout(GENEROUS, running).await.expect("it ends").unwrap();
    assert_eq!(deferral(&report), &Deferral::Stopping);
    drop(slot);
    let late = attempt(&world, &device).await;
    assert_eq!(deferral(&late), &Deferral::Stopping);
    assert_eq!(router.stats().connections, 0);
    assert_all_free(&world, &router).await;
}

#[tokio::test]
async fn a_request_skips_presence_and_freshness() {
    let router = router();
    let device = device_at(&router);
    let world = world(&device);
    let locks = &world.coordinator.inner;
    locks.set_presence(id(1), crate::ports::Presence::Offline);
    let last = succeeded(&device, world.context.clock.now(), Duration::from_secs(5));
    world.store.state().last.insert(id(1), last);

    let scheduled = attempt(&world, &device).await;
    assert_eq!(deferral(&scheduled), &Deferral::Offline);
    let skipped = "mikrotik_config_backup_total{status=\"skipped_offline\"}";
    assert_eq!(world.metric(skipped), 1.0);
    assert_eq!(router.stats().connections, 0);

    let mut requested = ask(&world, &device, None);
    requested.cause = Cause::Manual;
    world.context.attempt(requested).await;
    let (record, told) = only_record(&world);
    assert_eq!((record.cause, told), (Cause::Manual, "success"));
}
