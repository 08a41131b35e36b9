//! What a relay does for as long as its lease is renewed, and not any more once it may be another's.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::timeout;

use super::*;
use crate::domain::digest::Digest;
use crate::domain::snapshot::{ConfigText, Snapshot};
use crate::fleet::fakes::{START, World, id, snapshot};

const RELAYED: &str = "mikrotik_config_backup_outbox_relayed_total";
const PUBLISHED: &str =
    "mikrotik_nats_publish_total{status=\"success\",subject=\"config_snapshot\"}";
const STUCK: &str = "mikrotik_config_backup_outbox_stuck_snapshots";
const SUCCESS: &str = "mikrotik_config_backup_total{status=\"success\"}";

/// The snapshot of the attempt and the device with this number.
fn snapshot_of(number: u32) -> Snapshot {
    snapshot(number.into(), id(number))
}

/// Redis goes away while the sink looks or publishes, so that the lease cannot be renewed; the sink
/// answers behind its end, and before the relay has noticed by its renewals.
#[tokio::test(start_paused = true)]
async fn a_sink_that_answers_behind_the_end_of_the_lease_is_not_listened_to() {
    let second = Duration::from_secs(1);
    let late = LEASE + second;
    for (looks, takes) in [(late, Duration::ZERO), (Duration::ZERO, late)] {
        let (world, post) = World::with_outbox();
        let queue = world.context.outbox.as_ref().expect("there is one");
        let letter = queue.write(&snapshot_of(1), START).await.expect("memory");
        queue.put(&letter).await.expect("it is there");
        *world.sink.looks.lock().expect("whole") = looks;
        *world.sink.takes.lock().expect("whole") = takes;
        let context = Arc::clone(&world.context);
        let relay = tokio::spawn(async move { run(&context).await });
        sleep(second).await;
        post.letters.away.store(true, Ordering::Relaxed);
        sleep(6 * LEASE).await;
        assert_eq!(world.sink.taken(), [], "published by nobody's right");
        for counter in [PUBLISHED, RELAYED, SUCCESS] {
            assert_eq!(world.metric(counter), 0.0, "{counter}");
        }
        assert_eq!(post.letters.ids(), [letter.id], "the letter stays");

        // Whoever has the lease next finds it.
        *world.sink.looks.lock().expect("whole") = Duration::ZERO;
        *world.sink.takes.lock().expect("whole") = Duration::ZERO;
        post.letters.away.store(false, Ordering::Relaxed);
        let settled = async {
            while post.settlements.delivered.lock().expect("whole").is_empty() {
                sleep(second).await;
            }
        };
        timeout(60 * LEASE, settled).await.expect("it is relayed");
        sleep(second).await;
        assert_eq!(world.sink.taken(), [snapshot_of(1)]);
        assert_eq!(post.letters.ids(), []);
        for counter in [PUBLISHED, RELAYED, SUCCESS] {
            assert_eq!(world.metric(counter), 1.0, "{counter}");
        }
        world.context.shutdown.soft().cancel();
        timeout(LEASE, relay)
            .await
            .expect("it ends")
            .expect("whole");
    }
}

/// Puts the snapshots of these devices into the outbox, and begins to relay.
async fn relaying(world: &World, devices: &[u32]) {
    let queue = world.context.outbox.as_ref().expect("there is one");
    for device in devices {
        let letter = queue.write(&snapshot_of(*device), START).await;
        let put = queue.put(&letter.expect("memory")).await;
        put.expect("it is there");
    }
    let context = Arc::clone(&world.context);
    tokio::spawn(async move { run(&context).await });
}

#[tokio::test(start_paused = true)]
async fn a_publication_may_take_longer_than_the_lease_lives_unless_renewed() {
    let (world, post) = World::with_outbox();
    *world.sink.takes.lock().expect("whole") = 5 * LEASE;
    relaying(&world, &[1]).await;
    sleep(6 * LEASE).await;
    assert_eq!(world.sink.taken(), [snapshot_of(1)]);
    assert_eq!(world.metric(PUBLISHED), 1.0, "at the first try");
    assert_eq!(post.letters.ids(), []);
    world.context.shutdown.soft().cancel();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_without_room_waits_for_it_and_holds_no_other_up() {
    let (world, post) = World::with_outbox();
    *world.sink.no_room.lock().expect("whole") = Some(id(1));
    relaying(&world, &[1, 2]).await;
    sleep(LEASE).await;
    assert_eq!(world.sink.taken(), [snapshot_of(2)]);
    assert_eq!(post.letters.ids(), [snapshot_of(1).attempt]);
    *world.sink.no_room.lock().expect("whole") = None;
    sleep(60 * LEASE).await;
    assert_eq!(world.sink.taken(), [snapshot_of(2), snapshot_of(1)]);
    world.context.shutdown.soft().cancel();
}

/// A snapshot whose letter is larger than that of [`snapshot_of`].
fn large_snapshot_of(attempt: u32, device: u32) -> Snapshot {
    let mut snapshot = snapshot(attempt.into(), id(device));
    let noise: Vec<_> = (0..400)
        .map(|number| Digest::of([number as u8]).to_string())
        .collect();
    snapshot.text = ConfigText::new(noise.concat());
    snapshot.hash = snapshot.text.digest();
    snapshot
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_cannot_be_handed_out_holds_up_its_own_device_only() {
    let (world, post) = World::with_outbox();
    let queue = world.context.outbox.as_ref().expect("there is one");
    let large = large_snapshot_of(1, 1);
    let behind = snapshot(2, id(1));
    let others = [snapshot(3, id(2)), snapshot(4, id(3))];
    let mut sizes = Vec::new();
    for snapshot in [&large, &behind, &others[0], &others[1]] {
        let letter = queue.write(snapshot, START).await.expect("memory");
        sizes.push(letter.text.len());
        queue.put(&letter).await.expect("it is there");
    }
    *post.letters.large.lock().expect("whole") = Some(sizes[0]);
    assert!(sizes[1..].iter().all(|size| *size < sizes[0]), "{sizes:?}");
    // Longer than everything else here takes.
    let travels = 60 * LEASE;
    *post.letters.stuck_for.lock().expect("whole") = Some(travels);
    let context = Arc::clone(&world.context);
    tokio::spawn(async move { run(&context).await });
    sleep(LEASE).await;
    assert_eq!(
        world.sink.taken(),
        others,
        "at once, while it is being fetched"
    );
    assert_eq!(world.metric(STUCK), 0.0, "it is on its way");
    sleep(travels).await;
    assert_eq!(world.metric(STUCK), 1.0);
    assert_eq!(post.letters.fetched.load(Ordering::Relaxed), 1);

    // What comes meanwhile goes past it as well.
    let newer = [snapshot(5, id(4)), snapshot(6, id(1))];
    for snapshot in &newer {
        let letter = queue.write(snapshot, START).await.expect("memory");
        queue.put(&letter).await.expect("it is there");
    }
    sleep(4 * travels).await;
    let [first, second] = others;
    let mut expected = vec![first, second, newer[0].clone()];
    assert_eq!(world.sink.taken(), expected);
    let fetched = post.letters.fetched.load(Ordering::Relaxed);
    assert!(
        (4..=5).contains(&fetched),
        "tried again, with pauses: {fetched}"
    );

    *post.letters.stuck_for.lock().expect("whole") = None;
    sleep(3 * travels).await;
    expected.extend([large, behind, newer[1].clone()]);
    assert_eq!(
        world.sink.taken(),
        expected,
        "then its device, in its order"
    );
    assert_eq!(world.metric(STUCK), 0.0);
    assert_eq!(post.letters.ids(), []);
    world.context.shutdown.soft().cancel();
}

/// The renewals have not noticed yet that the lease is another's when a fetch is told so.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_finds_the_lease_lost_lets_nothing_go_past_its_letter() {
    let (world, post) = World::with_outbox();
    let queue = world.context.outbox.as_ref().expect("there is one");
    let course = [large_snapshot_of(1, 1), snapshot(2, id(1))];
    let mut sizes = Vec::new();
    for snapshot in &course {
        let letter = queue.write(snapshot, START).await.expect("memory");
        sizes.push(letter.text.len());
        queue.put(&letter).await.expect("it is there");
    }
    *post.letters.large.lock().expect("whole") = Some(sizes[0]);
    post.letters
        .taken_over_at_fetch
        .store(true, Ordering::Relaxed);
    let context = Arc::clone(&world.context);
    tokio::spawn(async move { run(&context).await });
    sleep(2 * LEASE).await;
    assert_eq!(post.letters.fetched.load(Ordering::Relaxed), 1);
    assert_eq!(world.sink.taken(), [], "the other relay publishes");

    post.letters.taken_over.store(false, Ordering::Relaxed);
    sleep(2 * LEASE).await;
    assert_eq!(world.sink.taken(), course, "in their order");
    assert_eq!(post.letters.ids(), []);
    world.context.shutdown.soft().cancel();
}
