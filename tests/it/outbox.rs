//! The outbox's lists in a real Redis beside a model of plain vectors: whatever is done to them, by
//! whom, and wherever a relay dies or an answer gets lost.

mod large;
mod lossy;
mod model;
mod world;

use std::cell::Cell;
use std::time::{Duration, Instant};

use mikrotik_backup::adapters::redis::RedisOutbox;
use mikrotik_backup::domain::attempt::AttemptId;
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::ports::{Letter, Next, Outbox as _};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::aio::MultiplexedConnection;
use time::macros::datetime;
use uuid::Uuid;

use self::lossy::Lossy;
use self::world::{DEVICES, Op, REPLICAS, World};
use crate::services::redis::Redis;
use crate::services::stopwatch::Stopwatch;

/// How long new courses are begun.
const ENOUGH: Duration = Duration::from_secs(10);
/// So many are lived through also where the machine is slow.
const AT_LEAST: u32 = 5;

fn op() -> impl Strategy<Value = Op> {
    let (replica, device) = (0..REPLICAS, 0..DEVICES);
    // Two of them relay, so that a course comes to something.
    let (relay, lane, letter) = (0..2_usize, 0..3_usize, 0..8_usize);
    prop_oneof![
        5 => (replica.clone(), device).prop_map(|(replica, device)| Op::Append { replica, device }),
        1 => (replica, letter.clone())
            .prop_map(|(replica, letter)| Op::AppendedLate { replica, letter }),
        9 => relay.clone().prop_map(|replica| Op::Work { replica }),
        1 => relay.clone().prop_map(|replica| Op::Renew { replica }),
        1 => relay.clone().prop_map(|replica| Op::PutBack { replica }),
        1 => relay.clone().prop_map(|replica| Op::Release { replica }),
        5 => (relay.clone(), lane.clone()).prop_map(|(replica, lane)| Op::Publish { replica, lane }),
        5 => (relay.clone(), lane.clone()).prop_map(|(replica, lane)| Op::Remove { replica, lane }),
        2 => (relay.clone(), lane.clone()).prop_map(|(replica, lane)| Op::Refuse { replica, lane }),
        1 => (relay.clone(), lane).prop_map(|(replica, lane)| Op::Bury { replica, lane }),
        1 => letter.prop_map(|letter| Op::Revive { letter }),
        2 => Just(Op::Expire),
        1 => relay.prop_map(|replica| Op::Crash { replica }),
    ]
}

/// Operations, and which answer to each gets lost.
fn course() -> impl Strategy<Value = Vec<(Op, u32)>> {
    let lost = prop_oneof![5 => Just(0_u32), 1 => Just(1), 1 => Just(2)];
    prop::collection::vec((op(), lost), 1..30)
}

/// Lives through `course`; after the `crash`th operation the replica that did it is killed.
async fn live(
    way: &Lossy,
    redis: &MultiplexedConnection,
    observer: &RedisOutbox,
    course: &[(Op, u32)],
    crash: Option<usize>,
) {
    let mut world = World::new(way, redis.clone(), observer).await;
    for (number, (op, lost)) in course.iter().enumerate() {
        world.step(*op, *lost).await;
        if crash == Some(number) {
            let replica = op.replica();
            world.step(Op::Crash { replica }, 0).await;
        }
    }
    world.finish().await;
}

/// Each course without a crash, and then as often as it has operations: killed after each of them.
#[test]
fn lists_are_as_the_model_says_wherever_a_relay_dies() {
    let _stopwatch = Stopwatch::start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let Some(redis) = runtime.block_on(Redis::start_private(&[])) else {
        return;
    };
    let way = runtime.block_on(Lossy::start(redis.port()));
    let client = runtime.block_on(redis.client());
    let observer = RedisOutbox::connect(&redis.url(), "observer").expect("a URL");
    let begun = Instant::now();
    let (courses, lives) = (Cell::new(0), Cell::new(0));
    let config = Config {
        cases: 1000,
        failure_persistence: None,
        max_shrink_time: 10_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&course(), |course| {
        if courses.get() >= AT_LEAST && begun.elapsed() > ENOUGH {
            return Ok(());
        }
        courses.set(courses.get() + 1);
        for crash in std::iter::once(None).chain((0..course.len()).map(Some)) {
            lives.set(lives.get() + 1);
            runtime.block_on(live(&way, &client, &observer, &course, crash));
        }
        Ok(())
    });
    let (courses, lives) = (courses.get(), lives.get());
    eprintln!("{courses} courses, lived through {lives} times");
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// The lease expires while its holder has letters in its hands; another one takes over, and the
/// first goes on with everything that it could have had in mind.
#[tokio::test]
async fn a_relay_that_was_taken_over_changes_nothing_any_more() {
    let _stopwatch = Stopwatch::start();
    let Some(redis) = Redis::start_private(&[]).await else {
        return;
    };
    let way = Lossy::start(redis.port()).await;
    let client = redis.client().await;
    let observer = RedisOutbox::connect(&redis.url(), "observer").expect("a URL");
    let (old, new, lane) = (0, 1, 0);
    let append = |device| Op::Append { replica: 2, device };
    let work = |replica| Op::Work { replica };
    let mut course = vec![append(0), append(0), append(1)];
    // The lease, what others left, two letters.
    course.extend([work(old); 4]);
    let publish = |replica| Op::Publish { replica, lane };
    course.extend([publish(old), Op::Expire]);
    course.extend([work(new); 4]);
    course.extend([
        Op::Remove { replica: old, lane },
        Op::Refuse { replica: old, lane },
        Op::Bury { replica: old, lane },
        work(old),
        publish(old),
        Op::PutBack { replica: old },
        work(old),
        Op::Renew { replica: old },
        work(old),
        publish(new),
        Op::Release { replica: old },
        Op::Remove { replica: new, lane },
        work(new),
    ]);
    let course: Vec<_> = course.into_iter().map(|op| (op, 0)).collect();
    live(&way, &client, &observer, &course, None).await;
    for release in 0..course.len() {
        // Anywhere in between it gives back what is not its own any more.
        let mut course = course.clone();
        course.insert(release, (Op::Release { replica: old }, 0));
        live(&way, &client, &observer, &course, Some(release)).await;
    }
}

/// More letters than are put back at once, and a relay that dies in the middle of it.
#[tokio::test]
async fn many_letters_are_put_back_in_order_also_by_several_relays() {
    let Some(redis) = Redis::start_private(&[]).await else {
        return;
    };
    let way = Lossy::start(redis.port()).await;
    let connect = |name| RedisOutbox::connect(&way.url(), name).expect("a URL");
    let lease_of = async |outbox: &RedisOutbox| {
        let mut client = redis.client().await;
        let mut expired = redis::cmd("DEL");
        expired.arg("backup:outbox:relay");
        expired.exec_async(&mut client).await.expect("delete");
        let lease = outbox.try_lease(Duration::from_secs(600)).await;
        lease.expect("asked").expect("nobody has it")
    };
    let first = connect("first");
    let lease = lease_of(&first).await;
    let letters: Vec<_> = (0..250_u32)
        .map(|number| Letter {
            id: AttemptId(Uuid::from_u128(number.into())),
            device: DeviceId(Uuid::from_u128(1)),
            created_at: datetime!(2026-01-02 03:04:05 UTC),
            text: format!("letter {number}").into_bytes(),
        })
        .collect();
    for letter in &letters {
        first.append(letter).await.expect("put in");
        let taken = first.take(&lease).await.expect("asked");
        assert!(matches!(taken, Next::Letter(_)), "{taken:?}");
    }

    // The names of the lists are the first answer, a hundred letters each of the others.
    for (name, answer) in [("second", 2), ("third", 3)] {
        let relay = connect(name);
        let lease = lease_of(&relay).await;
        way.cut_at(answer);
        relay.recover(&lease).await.expect_err("it was cut off");
        way.give_back();
    }
    let last = connect("last");
    let lease = lease_of(&last).await;
    last.recover(&lease).await.expect("put back");
    for letter in &letters {
        let taken = last.take(&lease).await.expect("asked");
        assert_eq!(taken, Next::Letter(letter.text.clone()));
        last.remove(letter, 0).await.expect("removed");
    }
    assert_eq!(last.take(&lease).await.expect("asked"), Next::Empty);
    assert_eq!(last.state().await.expect("a state").letters, 0);
}
