//! Letters that are too large to come along: how long they may take, and what is touched for them.

use std::time::{Duration, Instant};

use mikrotik_backup::adapters::redis::RedisOutbox;
use mikrotik_backup::domain::attempt::AttemptId;
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::ports::{Fetched, Large, Letter, Next, Outbox as _, OutboxState, RelayLease};
use redis::aio::MultiplexedConnection;
use time::macros::datetime;
use uuid::Uuid;

use crate::services::proxy::Proxy;
use crate::services::redis::Redis;
use crate::services::stopwatch::Stopwatch;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

/// A letter of `bytes`, which begins with its number.
fn letter(number: u32, bytes: usize) -> Letter {
    let mut text = format!("letter {number} ").into_bytes();
    text.resize(bytes, b'x');
    Letter {
        id: AttemptId(Uuid::from_u128(number.into())),
        device: DeviceId(Uuid::from_u128(number.into())),
        created_at: datetime!(2026-01-02 03:04:05 UTC),
        text,
    }
}

async fn lease_of(outbox: &RedisOutbox) -> RelayLease {
    let lease = outbox.try_lease(LONG).await.expect("asked");
    lease.expect("nobody has it")
}

async fn take(outbox: &RedisOutbox, lease: &RelayLease) -> Large {
    match outbox.take(lease).await.expect("asked") {
        Next::Large(large) => large,
        other => panic!("it came along: {other:?}"),
    }
}

/// How often `LINDEX` was called, by scripts too: each call copies a whole letter.
async fn copied(client: &mut MultiplexedConnection) -> u64 {
    let mut info = redis::cmd("INFO");
    info.arg("commandstats");
    let info: String = info.query_async(client).await.expect("asked");
    let calls = info
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_lindex:calls="));
    let calls = calls.and_then(|calls| calls.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

/// While one is fetched the relay goes on taking, and any of them may have to rest: so the oldest is
/// asked for first, and then one in the middle of many.
#[tokio::test]
async fn for_one_of_many_large_letters_no_other_is_touched() {
    let Some(redis) = Redis::start_private(&[]).await else {
        return;
    };
    let mut client = redis.client().await;
    let outbox = RedisOutbox::connect(&redis.url(), "relay").expect("a URL");
    let lease = lease_of(&outbox).await;
    let mut taken = Vec::new();
    for number in 0..20 {
        let letter = letter(number, 2 << 20);
        outbox.append(&letter).await.expect("put in");
        taken.push((take(&outbox, &lease).await, letter));
    }
    for place in [0, 0, 9, 16, 3, 0] {
        let (large, letter) = taken.remove(place);
        let before = copied(&mut client).await;
        let text = outbox.fetch(&lease, &large, place).await.expect("fetched");
        assert!(text == Fetched::Text(letter.text.clone()), "{}", letter.id);
        assert_eq!(copied(&mut client).await - before, 1, "fetched");
        outbox.remove(&letter, place).await.expect("removed");
        assert_eq!(copied(&mut client).await - before, 2, "removed");
    }
    // What is said of their places saves time, and nothing else.
    for said in [1, 100] {
        let (large, letter) = taken.remove(0);
        let text = outbox.fetch(&lease, &large, said).await.expect("fetched");
        assert!(text == Fetched::Text(letter.text.clone()), "{}", letter.id);
        outbox.remove(&letter, said).await.expect("removed");
        let text = outbox.fetch(&lease, &large, said).await.expect("asked");
        assert!(text == Fetched::Gone, "{}", letter.id);
    }
    for (_, letter) in &taken {
        outbox.remove(letter, 0).await.expect("removed");
    }
    let state = outbox.state().await.expect("a state");
    assert_eq!(state, OutboxState::default());
}

/// To look into the hands of a relay that lost its lease says nothing of the letter.
#[tokio::test]
async fn a_relay_that_was_taken_over_fetches_nothing() {
    let Some(redis) = Redis::start_private(&[]).await else {
        return;
    };
    let connect = |name| RedisOutbox::connect(&redis.url(), name).expect("a URL");
    let (old, new) = (connect("old"), connect("new"));
    let lost = lease_of(&old).await;
    let letter = letter(1, 2 << 20);
    old.append(&letter).await.expect("put in");
    let large = take(&old, &lost).await;
    let mut expired = redis::cmd("DEL");
    expired.arg("backup:outbox:relay");
    let mut client = redis.client().await;
    expired.exec_async(&mut client).await.expect("delete");
    let fetched = old.fetch(&lost, &large, 0).await.expect("asked");
    assert_eq!(fetched, Fetched::LeaseLost, "also before another takes it");

    let lease = lease_of(&new).await;
    assert_eq!(new.recover(&lease).await.expect("put back"), 1);
    let fetched = old.fetch(&lost, &large, 0).await.expect("asked");
    assert_eq!(fetched, Fetched::LeaseLost);
    let large = take(&new, &lease).await;
    let fetched = new.fetch(&lease, &large, 0).await.expect("asked");
    assert!(fetched == Fetched::Text(letter.text));
}

#[tokio::test]
async fn the_removal_of_a_large_letter_has_time_too() {
    let _stopwatch = Stopwatch::start();
    let Some(redis) = Redis::start_private(&[]).await else {
        return;
    };
    let outbox = RedisOutbox::connect(&redis.url(), "relay").expect("a URL");
    let lease = lease_of(&outbox).await;
    let letter = letter(1, 16 << 20);
    outbox.append(&letter).await.expect("put in");
    take(&outbox, &lease).await;
    redis.freeze();
    let busy = async {
        // Longer than a question may take.
        tokio::time::sleep(Duration::from_secs(6)).await;
        redis.thaw();
    };
    let (removed, ()) = tokio::join!(outbox.remove(&letter, 0), busy);
    removed.expect("removed");
    let state = outbox.state().await.expect("a state");
    assert_eq!(state, OutboxState::default());
}

#[tokio::test]
async fn a_large_letter_has_time_to_travel_and_holds_no_question_up() {
    let _stopwatch = Stopwatch::start();
    let Some(redis) = Redis::start_private(&[]).await else {
        return;
    };
    let proxy = Proxy::start(redis.port()).await;
    // It takes longer than a question may, and less than such a letter may.
    const SIZE: usize = 7 << 20;
    proxy.slow_down(1 << 20);
    let url = format!("redis://127.0.0.1:{}", proxy.port()).into();
    let outbox = RedisOutbox::connect(&url, "far-away").expect("a URL");
    let letter = letter(1, SIZE);
    let lease = lease_of(&outbox).await;
    let began = Instant::now();
    let work = async {
        outbox.append(&letter).await.expect("put in");
        let large = take(&outbox, &lease).await;
        assert_eq!(large.bytes, SIZE);
        let text = outbox.fetch(&lease, &large, 0).await.expect("fetched");
        assert!(text == Fetched::Text(letter.text.clone()));
        outbox.remove(&letter, 0).await.expect("removed");
        let text = outbox.fetch(&lease, &large, 0).await.expect("asked");
        assert_eq!(text, Fetched::Gone, "not in its hands any more");
    };
    let renewing = async {
        loop {
            let asked = Instant::now();
            let lease = outbox.renew(&lease, LONG).await.expect("asked");
            assert!(lease.is_some(), "nobody else has it");
            assert!(asked.elapsed() < Duration::from_secs(2), "held up");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = renewing => {}
    }
    assert!(began.elapsed() > Duration::from_secs(12), "it was not slow");
    assert_eq!(
        outbox.state().await.expect("a state"),
        OutboxState::default()
    );
}
