//! Where a snapshot goes when sink, outbox or the process itself stand still: always before the
//! lease may have run out, and nowhere after that.

use std::sync::atomic::Ordering;

use tokio::time::{sleep, timeout};

use super::*;
use crate::domain::device::DeviceId;
use crate::fleet::fakes::{Post, START, World, id, snapshot};

/// As long as the device's lock lives where an SSH session may take ten seconds.
const LEASE: Duration = Duration::from_secs(40);
/// Longer than any lease.
const LONG: Duration = Duration::from_secs(300);

fn lease(device: DeviceId) -> Lease {
    Lease {
        device,
        token: String::new(),
        expires: Instant::now() + LEASE,
    }
}

/// What came of a delivery.
#[derive(PartialEq, Eq, Debug)]
enum Came {
    To(Place),
    /// The attempt is interrupted.
    TooLate,
}

/// Delivers snapshot number `attempt` of `device` under a fresh lease; how long that took.
async fn deliver(world: &World, attempt: u128, device: DeviceId) -> (Came, Duration) {
    let (snapshot, lease) = (snapshot(attempt, device), lease(device));
    let began = Instant::now();
    let ended = timeout(2 * LONG, world.context.deliver(&snapshot, &lease)).await;
    let came = match ended.expect("it ends by itself") {
        Ok(place) => Came::To(place),
        Err(Stop::Interrupted(_)) => Came::TooLate,
        Err(Stop::Failed(failure)) => panic!("{failure:?}"),
        Err(Stop::Deferred(deferral)) => panic!("{deferral:?}"),
    };
    (came, began.elapsed())
}

fn holds(world: &World, device: DeviceId) -> bool {
    let outbox = world.context.outbox.as_ref().expect("there is one");
    outbox.holds_of(device)
}

/// Numbers of the attempts that the sink took.
fn published(world: &World) -> Vec<u128> {
    let taken = world.sink.taken();
    taken
        .iter()
        .map(|taken| taken.attempt.0.as_u128())
        .collect()
}

/// Numbers of the attempts whose letters are in the outbox.
fn letters(post: &Post) -> Vec<u128> {
    let ids = post.letters.ids();
    ids.iter().map(|id| id.0.as_u128()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_never_answers_leaves_time_to_put_the_snapshot_into_a_slow_outbox() {
    let (world, post) = World::with_outbox();
    *world.sink.takes.lock().expect("whole") = LONG;
    *post.letters.takes.lock().expect("whole") = Duration::from_secs(3);
    let (came, took) = deliver(&world, 1, id(1)).await;
    assert_eq!(came, Came::To(Place::Outbox));
    assert!(took < LEASE, "{took:?}");
    assert_eq!(letters(&post), [1]);
    // Its answer comes to nothing: the letter is what will be published.
    sleep(LONG).await;
    assert_eq!(published(&world), [] as [u128; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_sink_has_most_of_the_lease() {
    let (world, post) = World::with_outbox();
    *world.sink.takes.lock().expect("whole") = LEASE * 3 / 4;
    let (came, _) = deliver(&world, 1, id(1)).await;
    assert_eq!(came, Came::To(Place::Sink));
    assert_eq!((published(&world), letters(&post)), (vec![1], vec![]));
}

#[tokio::test(start_paused = true)]
async fn with_a_silent_outbox_too_the_snapshot_is_held_before_the_lease_ends() {
    // Away at once, or not heard of either.
    for sink_takes in [Duration::ZERO, LONG] {
        let (world, post) = World::with_outbox();
        *world.sink.takes.lock().expect("whole") = sink_takes;
        let away = sink_takes.is_zero();
        world.sink.away.store(away, Ordering::Relaxed);
        *post.letters.takes.lock().expect("whole") = LONG;
        let (came, took) = deliver(&world, 1, id(1)).await;
        assert_eq!(came, Came::To(Place::Held));
        assert!(took < LEASE, "{took:?}");
        assert!(holds(&world, id(1)));
        sleep(LONG).await;
        assert_eq!(letters(&post), [] as [u128; 0], "nothing is put afterwards");
        assert_eq!(published(&world), [] as [u128; 0]);
    }
}

/// Whoever has the lease by now may have put a newer one, or published it.
#[tokio::test(start_paused = true)]
async fn a_process_that_slept_through_its_lease_puts_and_holds_nothing() {
    for outbox_answers in [true, false] {
        let (world, post) = World::with_outbox();
        world.sink.away.store(true, Ordering::Relaxed);
        *post.letters.stopped_for.lock().expect("whole") = LONG;
        post.letters.away.store(!outbox_answers, Ordering::Relaxed);
        let (came, _) = deliver(&world, 1, id(1)).await;
        assert_eq!(came, Came::TooLate);
        sleep(LONG).await;
        assert_eq!(letters(&post), [] as [u128; 0]);
        assert!(!holds(&world, id(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_snapshot_does_not_overtake_an_older_one_in_the_outbox() {
    let (world, post) = World::with_outbox();
    world.sink.away.store(true, Ordering::Relaxed);
    assert_eq!(deliver(&world, 1, id(1)).await.0, Came::To(Place::Outbox));
    world.sink.away.store(false, Ordering::Relaxed);
    assert_eq!(deliver(&world, 2, id(1)).await.0, Came::To(Place::Outbox));
    assert_eq!(letters(&post), [1, 2]);
    assert_eq!(deliver(&world, 3, id(2)).await.0, Came::To(Place::Sink));
    assert_eq!(
        published(&world),
        [3],
        "another device has nothing to wait for"
    );
}

#[tokio::test(start_paused = true)]
async fn a_newer_snapshot_does_not_overtake_an_older_one_that_is_held() {
    let (world, post) = World::with_outbox();
    world.sink.away.store(true, Ordering::Relaxed);
    post.letters.away.store(true, Ordering::Relaxed);
    assert_eq!(deliver(&world, 1, id(1)).await.0, Came::To(Place::Held));
    // Both are back, and nobody has come to empty the hold.
    world.sink.away.store(false, Ordering::Relaxed);
    post.letters.away.store(false, Ordering::Relaxed);
    assert_eq!(deliver(&world, 2, id(1)).await.0, Came::To(Place::Held));
    assert_eq!(letters(&post), [] as [u128; 0]);
    assert_eq!(deliver(&world, 3, id(2)).await.0, Came::To(Place::Sink));
    assert_eq!(published(&world), [3]);
}

#[tokio::test(start_paused = true)]
async fn what_must_queue_up_is_not_taken_while_the_outbox_is_full() {
    let (world, post) = World::with_outbox();
    let queue = world.context.outbox.as_ref().expect("there is one");
    let older = queue.write(&snapshot(1, id(1)), START).await;
    let put = queue.put(&older.expect("memory")).await;
    put.expect("it is there");
    let place = async |device| world.context.has_a_place(Some(device)).await;
    assert!(place(id(1)).await.is_ok());
    post.letters.full.store(true, Ordering::Relaxed);
    match place(id(1)).await {
        Err(crate::domain::attempt::Deferral::Unavailable { reason }) => {
            assert!(reason.contains("outbox is full"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(place(id(2)).await.is_ok(), "published past the outbox");
}
