//! The contract of a coordinator, held by both; and how the Redis one lives with a server that
//! is gone, frozen or back again.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mikrotik_backup::adapters::in_process::InProcess;
use mikrotik_backup::adapters::redis::{RedisCoordinator, Timeouts};
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::domain::failure::chain;
use mikrotik_backup::ports::{Coordinator, Presence};
use secrecy::SecretString;
use uuid::Uuid;

use crate::services::redis::{Redis, free_port};

const LONG: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(20);
const QUICK: Timeouts = Timeouts {
    connect: Duration::from_millis(500),
    response: Duration::from_millis(250),
};

fn device() -> DeviceId {
    DeviceId(Uuid::new_v4())
}

fn coordinator(redis: &Redis, timeouts: Timeouts) -> RedisCoordinator {
    RedisCoordinator::connect(&redis.url(), timeouts).expect("the URL of the test's server")
}

/// What every coordinator promises.
async fn suite(coordinator: &dyn Coordinator) {
    is_exclusive_until_released(coordinator).await;
    is_released_by_its_holder_only(coordinator).await;
    expires_by_itself(coordinator).await;
    lets_exactly_one_of_many_win(coordinator).await;
    coordinator.ping().await.expect("it is there");
    assert_eq!(coordinator.presence(device()).await, Presence::Unknown);
}

async fn is_exclusive_until_released(coordinator: &dyn Coordinator) {
    let (one, other) = (device(), device());
    let before = tokio::time::Instant::now();
    let lease = coordinator.try_lease(one, LONG).await.expect("asked");
    let lease = lease.expect("nobody had it");
    assert_eq!(lease.device, one);
    assert!(lease.expires > before + LONG / 2);
    assert!(lease.expires <= tokio::time::Instant::now() + LONG);
    assert_eq!(coordinator.try_lease(one, LONG).await.expect("asked"), None);
    let independent = coordinator.try_lease(other, LONG).await.expect("asked");
    assert!(independent.is_some(), "another device is another lease");
    coordinator.release(lease).await;
    let again = coordinator.try_lease(one, LONG).await.expect("asked");
    assert!(again.is_some(), "it was released");
}

async fn is_released_by_its_holder_only(coordinator: &dyn Coordinator) {
    let device = device();
    let first = coordinator.try_lease(device, LONG).await.expect("asked");
    let first = first.expect("nobody had it");
    coordinator.release(first.clone()).await;
    let second = coordinator.try_lease(device, LONG).await.expect("asked");
    let second = second.expect("it was released");
    assert_ne!(first.token, second.token);
    coordinator.release(first).await;
    let third = coordinator.try_lease(device, LONG).await.expect("asked");
    assert_eq!(third, None, "a stale token must not release a newer lease");
    coordinator.release(second).await;
}

async fn expires_by_itself(coordinator: &dyn Coordinator) {
    let device = device();
    let ttl = Duration::from_millis(200);
    let begun = Instant::now();
    let first = coordinator.try_lease(device, ttl).await.expect("asked");
    assert!(first.is_some());
    while coordinator
        .try_lease(device, ttl)
        .await
        .expect("asked")
        .is_none()
    {
        assert!(begun.elapsed() < PATIENCE, "the lease never expired");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Redis counts whole milliseconds of its own clock.
    let held = begun.elapsed();
    assert!(
        held >= ttl - Duration::from_millis(5),
        "expired after {held:?}"
    );
}

async fn lets_exactly_one_of_many_win(coordinator: &dyn Coordinator) {
    let device = device();
    let takers = (0..50).map(|_| coordinator.try_lease(device, LONG));
    let won = join_all(takers).await.into_iter();
    let won = won.filter(|taken| taken.as_ref().expect("asked").is_some());
    assert_eq!(won.count(), 1);
}

#[tokio::test]
async fn in_process_keeps_the_contract() {
    let coordinator = InProcess::new();
    suite(&coordinator).await;
    let device = device();
    for presence in [Presence::Offline, Presence::Online, Presence::Unknown] {
        coordinator.set_presence(device, presence);
        assert_eq!(coordinator.presence(device).await, presence);
    }
}

#[tokio::test(start_paused = true)]
async fn in_process_leases_follow_a_paused_clock() {
    let coordinator = InProcess::new();
    let device = device();
    let taken = coordinator.try_lease(device, LONG).await.expect("asked");
    assert!(taken.is_some());
    tokio::time::advance(LONG - Duration::from_millis(1)).await;
    assert_eq!(
        coordinator.try_lease(device, LONG).await.expect("asked"),
        None
    );
    tokio::time::advance(Duration::from_millis(1)).await;
    let taken = coordinator.try_lease(device, LONG).await.expect("asked");
    assert!(taken.is_some());
}

#[tokio::test]
async fn redis_keeps_the_contract() {
    let Some(redis) = Redis::shared().await else {
        return;
    };
    suite(&coordinator(redis, Timeouts::default())).await;
}

#[tokio::test]
async fn redis_replicas_exclude_each_other() {
    let Some(redis) = Redis::shared().await else {
        return;
    };
    let replicas = [
        coordinator(redis, Timeouts::default()),
        coordinator(redis, Timeouts::default()),
    ];
    let device = device();
    let takers = replicas
        .iter()
        .cycle()
        .take(40)
        .map(|replica| replica.try_lease(device, LONG));
    let won = join_all(takers).await.into_iter();
    let won: Vec<_> = won.filter_map(|taken| taken.expect("asked")).collect();
    assert_eq!(won.len(), 1);
}

#[tokio::test]
async fn redis_presence_and_lock_use_the_agreed_keys() {
    let Some(redis) = Redis::shared().await else {
        return;
    };
    let coordinator = coordinator(redis, Timeouts::default());
    let mut client = redis.client().await;
    let device = device();
    for (status, presence) in [
        ("online", Presence::Online),
        ("offline", Presence::Offline),
        ("ONLINE", Presence::Offline),
        ("", Presence::Offline),
    ] {
        let key = format!("device:{device}:status");
        let set = redis::cmd("SET").arg(key).arg(status).to_owned();
        set.exec_async(&mut client).await.expect("set the status");
        assert_eq!(coordinator.presence(device).await, presence, "{status:?}");
    }

    // A key of another type is an error of one device's presence and of nothing else.
    let odd = self::device();
    let push = redis::cmd("RPUSH")
        .arg(format!("device:{odd}:status"))
        .arg("online")
        .to_owned();
    push.exec_async(&mut client).await.expect("push a list");
    assert_eq!(coordinator.presence(odd).await, Presence::Unknown);
    assert_eq!(coordinator.presence(device).await, Presence::Offline);

    let lease = coordinator.try_lease(device, LONG).await.expect("asked");
    let lease = lease.expect("nobody had it");
    let key = format!("backup:device:{device}");
    let get = redis::cmd("GET").arg(&key).to_owned();
    let stored: Option<String> = get.query_async(&mut client).await.expect("read the lock");
    assert_eq!(stored.as_deref(), Some(lease.token.as_str()));
    assert_eq!(lease.token.len(), 32, "128 bits in hexadecimal");
    let ttl = redis::cmd("PTTL").arg(&key).to_owned();
    let ttl: i64 = ttl
        .query_async(&mut client)
        .await
        .expect("read the time to live");
    assert!((50_000..=60_000).contains(&ttl), "{ttl} ms");
    coordinator.release(lease).await;
    let stored: Option<String> = get.query_async(&mut client).await.expect("read the lock");
    assert_eq!(stored, None);
}

/// Polls until `device` is reported online.
async fn until_online(coordinator: &RedisCoordinator, device: DeviceId) {
    let begun = Instant::now();
    while coordinator.presence(device).await != Presence::Online {
        assert!(begun.elapsed() < PATIENCE, "Redis is back, unnoticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn report_online(redis: &Redis, device: DeviceId) {
    let mut client = redis.client().await;
    let mut set = redis::cmd("SET");
    set.arg(format!("device:{device}:status")).arg("online");
    set.exec_async(&mut client).await.expect("set the status");
}

#[tokio::test]
async fn redis_that_is_away_at_the_start_is_found_when_it_comes() {
    let Some(mut redis) = Redis::prepare_private(&[]) else {
        return;
    };
    let coordinator = coordinator(&redis, QUICK);
    let device = device();
    assert_eq!(coordinator.presence(device).await, Presence::Unknown);
    let error = coordinator.try_lease(device, LONG).await;
    let error = chain(&error.expect_err("no Redis, no lease"));
    assert!(
        error.contains(&format!("127.0.0.1:{}", redis.port())),
        "{error}"
    );
    coordinator.ping().await.expect_err("no Redis");

    redis.start().await;
    report_online(&redis, device).await;
    until_online(&coordinator, device).await;
    coordinator.ping().await.expect("Redis is there");
}

#[tokio::test]
async fn a_restart_of_redis_costs_no_request() {
    let Some(mut redis) = Redis::start_private(&[]).await else {
        return;
    };
    let coordinator = coordinator(&redis, Timeouts::default());
    let device = device();
    for round in 0..3 {
        report_online(&redis, device).await;
        assert_eq!(coordinator.presence(device).await, Presence::Online);
        redis.stop();
        redis.start().await;
        let lease = coordinator.try_lease(device, LONG).await;
        let lease = lease.unwrap_or_else(|error| panic!("round {round}: {}", chain(&error)));
        coordinator
            .release(lease.expect("a fresh server knows no lock"))
            .await;
    }
}

#[tokio::test]
async fn a_frozen_redis_hangs_nothing_and_keeps_no_lock_of_ours() {
    let Some(redis) = Redis::start_private(&[]).await else {
        return;
    };
    let coordinator = coordinator(&redis, QUICK);
    let (asked, online) = (device(), device());
    report_online(&redis, online).await;
    assert_eq!(coordinator.presence(online).await, Presence::Online);

    redis.freeze();
    let begun = Instant::now();
    coordinator
        .try_lease(asked, LONG)
        .await
        .expect_err("nobody answers");
    // A hundred devices at once wait no longer than one: they share the attempt to connect.
    let presences = join_all((0..100).map(|_| coordinator.presence(online))).await;
    let took = begun.elapsed();
    assert!(
        presences
            .iter()
            .all(|presence| *presence == Presence::Unknown)
    );
    let bound = QUICK.response + QUICK.connect + QUICK.response + Duration::from_secs(2);
    assert!(took < bound, "took {took:?}");

    redis.thaw();
    until_online(&coordinator, online).await;
    // The request that timed out was executed when the server woke up, and taken back.
    let begun = Instant::now();
    while coordinator
        .try_lease(asked, LONG)
        .await
        .expect("Redis is back")
        .is_none()
    {
        assert!(begun.elapsed() < PATIENCE, "an abandoned lock stayed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_cancelled_request_leaves_no_lock() {
    let Some(redis) = Redis::start_private(&[]).await else {
        return;
    };
    let patient = Timeouts {
        connect: PATIENCE,
        response: PATIENCE,
    };
    let coordinator = coordinator(&redis, patient);
    let device = device();
    coordinator.ping().await.expect("connected");
    redis.freeze();
    let cancelled = tokio::time::timeout(
        Duration::from_millis(200),
        coordinator.try_lease(device, LONG),
    );
    cancelled
        .await
        .expect_err("a frozen server does not answer");
    redis.thaw();
    let begun = Instant::now();
    while coordinator
        .try_lease(device, LONG)
        .await
        .expect("asked")
        .is_none()
    {
        assert!(begun.elapsed() < PATIENCE, "an abandoned lock stayed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_reported_without_it() {
    let Some(redis) = Redis::start_private(&["--requirepass", "Right-Marker-1"]).await else {
        return;
    };
    let url = |password: &str| {
        SecretString::from(format!("redis://:{password}@127.0.0.1:{}", redis.port()))
    };
    let wrong = RedisCoordinator::connect(&url("Wrong-Marker-2"), QUICK).expect("a good URL");
    let error = wrong.try_lease(device(), LONG).await;
    let error = error.expect_err("the password is wrong");
    let text = format!("{} {error:?}", chain(&error));
    assert!(!text.contains("Marker"), "{text}");
    assert!(
        text.to_lowercase().contains("auth") || text.contains("WRONGPASS"),
        "{text}"
    );

    let right = RedisCoordinator::connect(&url("Right-Marker-1"), QUICK).expect("a good URL");
    suite(&right).await;
}

#[tokio::test]
async fn tls_is_spoken_and_certificates_are_checked() {
    let Some(openssl) = crate::services::process::require("openssl") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let (key, certificate) = (
        directory.path().join("key.pem"),
        directory.path().join("certificate.pem"),
    );
    let made = std::process::Command::new(openssl)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=redis.example", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("run openssl");
    assert!(made.status.success(), "{made:?}");
    let port = free_port().to_string();
    let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
    let options = [
        "--tls-port",
        &port,
        "--tls-key-file",
        &key,
        "--tls-cert-file",
        &certificate,
        "--tls-auth-clients",
        "no",
        "--tls-ca-cert-file",
        &certificate,
    ];
    let Some(_redis) = Redis::start_private(&options).await else {
        return;
    };
    let url = SecretString::from(format!("rediss://127.0.0.1:{port}"));
    let coordinator = RedisCoordinator::connect(&url, Timeouts::default()).expect("a good URL");
    let error = coordinator.ping().await.expect_err("nobody vouches for it");
    let text = chain(&error);
    assert!(text.contains("certificate"), "{text}");
}
