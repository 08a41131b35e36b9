//! Starting and stopping: bad configuration, dependencies that are away, signals, and who may
//! change the schema.

mod dependencies;
mod schema;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mikrotik_backup::sim::{Router, RouterOptions};
use nix::sys::signal::Signal;

use super::commands::finished;
use super::harness::{Cluster, Replica, get};
use super::poll::until;

fn router(address: [u8; 4]) -> Router {
    let options = RouterOptions {
        name: format!("life-{}", address[3]),
        address: SocketAddr::from((Ipv4Addr::from(address), 0)),
        seed: u64::from(Ipv4Addr::from(address).to_bits()),
        ..RouterOptions::default()
    };
    Router::start_one(options).expect("start a router")
}

/// Waits for a line of the log that contains `text`.
async fn logged(replica: &Replica, text: &str) -> String {
    until(text, || async {
        let log = replica.log();
        log.lines()
            .find(|line| line.contains(text))
            .map(str::to_owned)
    })
    .await
}

fn count(replica: &Replica, text: &str) -> usize {
    replica.log().matches(text).count()
}

/// The exit code and the log of a replica that is expected to end by itself.
async fn refused(cluster: &Cluster, name: &str, overrides: &[(&str, &str)]) -> (i32, String) {
    let mut replica = cluster.spawn(name, overrides);
    let code = replica.exit_code().await;
    (code, replica.log())
}

/// Whether some device is locked in Redis.
async fn locked(cluster: &Cluster) -> bool {
    let mut client = cluster.redis.client().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("backup:device:*")
        .query_async(&mut client)
        .await
        .expect("list keys");
    !keys.is_empty()
}

/// Which dependencies `/readyz` names, once it names `name`.
async fn not_ready(replica: &Replica, name: &str) -> serde_json::Value {
    until(&format!("/readyz to name {name}"), || async {
        let body = get(&replica.http, "/readyz").await.ok()?;
        let body: serde_json::Value = serde_json::from_str(&body).ok()?;
        body["failing"].get(name)?;
        Some(body["failing"].clone())
    })
    .await
}

async fn ready(replica: &Replica) {
    until("/readyz to be happy", || async {
        let body = get(&replica.http, "/readyz").await.ok()?;
        body.contains(r#""ready""#).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_of_the_configuration_is_listed_at_once() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let secret = "recognisable-pa55";
    let (code, log) = refused(
        &cluster,
        "misconfigured",
        &[
            ("CONFIG_BACKUP_INTERVAL", "0"),
            ("DEVICE_REFRESH_SECONDS", "soon"),
            ("CONFIG_BACKUP_JITTER_MIN", "90"),
            ("CONFIG_BACKUP_JITTER_MAX", "60"),
            ("REDIS_URL", &format!("http://u:{secret}@127.0.0.1")),
            ("CREDENTIAL_ENCRYPTION_KEY", secret),
            ("MIGRATE_ON_START", "perhaps"),
            ("LOG_LEVEL", "loud"),
        ],
    )
    .await;
    assert_eq!(code, 3, "{log}");
    for (variable, value) in [
        ("CONFIG_BACKUP_INTERVAL", "0"),
        ("DEVICE_REFRESH_SECONDS", "soon"),
        ("CONFIG_BACKUP_JITTER_MIN", "90"),
        ("REDIS_URL", "redis://"),
        ("CREDENTIAL_ENCRYPTION_KEY", "32 bytes"),
        ("MIGRATE_ON_START", "perhaps"),
        ("LOG_LEVEL", "loud"),
    ] {
        let named = log
            .lines()
            .any(|line| line.contains(variable) && line.contains(value));
        assert!(named, "{variable} with {value} is not in:\n{log}");
    }
    assert!(!log.contains(secret), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_stops_the_start() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = taken.local_addr().expect("an address").to_string();
    let mut command = cluster.command("taken", &[("HTTP_ADDR", &address)]);
    command.arg("run");
    let ended = finished(command, "").await;
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(
        ended.err.contains(&format!("HTTP_ADDR={address}")),
        "{}",
        ended.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_lets_the_running_export_finish_and_starts_nothing() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let routers = [
        router([127, 61, 0, 1]),
        router([127, 61, 0, 2]),
        router([127, 61, 0, 3]),
    ];
    for router in &routers {
        router.set_delay(Duration::from_secs(3));
        cluster.insert(router).await;
    }
    let sessions = || {
        routers
            .iter()
            .map(|router| router.stats().open_sessions)
            .sum::<u64>()
    };
    // The second is a slip that is warned about.
    let one = &[
        ("CONFIG_BACKUP_MAX_CONCURRENT", "1"),
        ("CONFIG_BACKUP_INTERVALL", "1"),
    ];
    let mut replica = cluster.replica("term", one).await;
    logged(&replica, "did you mean CONFIG_BACKUP_INTERVAL?").await;
    let log = replica.log();
    let first = log.lines().next().expect("a first line");
    for part in [
        "Starting mikrotik-backup",
        r#""mode":"cluster""#,
        r#""replica":"term""#,
        r#""interval_s":"#,
        r#""max_concurrent":1"#,
        r#""command_timeout_s":"#,
    ] {
        assert!(first.contains(part), "{part} is not in {first}");
    }
    until("an export", || async { (sessions() == 1).then_some(()) }).await;

    replica.signal(Signal::SIGTERM);
    let failing = not_ready(&replica, "process").await;
    assert_eq!(failing["process"], "stopping");
    assert_eq!(replica.exit_code().await, 0, "{}", replica.log());
    let connections: u64 = routers
        .iter()
        .map(|router| router.stats().connections)
        .sum();
    assert_eq!(connections, 1, "nothing new was started");
    assert_eq!(
        cluster.messages().await.len(),
        1,
        "the running one was published"
    );
    assert_eq!(cluster.attempts("status = 'success'").await, 1);
    assert_eq!(cluster.attempts("true").await, 1);
    assert!(!locked(&cluster).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router([127, 61, 0, 4]);
    router.set_delay(Duration::from_secs(50));
    let device = cluster.insert(&router).await;
    let mut replica = cluster
        .replica("twice", &[("CONFIG_BACKUP_COMMAND_TIMEOUT", "60")])
        .await;
    until("an export", || async {
        (router.stats().open_sessions == 1).then_some(())
    })
    .await;
    replica.signal(Signal::SIGINT);
    logged(&replica, "Stopping: no new work").await;
    let began = Instant::now();
    replica.signal(Signal::SIGTERM);
    replica.exit_code().await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{}",
        replica.log()
    );
    let state = cluster
        .state(device)
        .await
        .expect("the attempt is recorded");
    assert_eq!(state.status, "interrupted");
    assert_eq!(state.failures, 0, "not the router's fault");
    assert_eq!(
        cluster
            .attempts("status = 'interrupted' AND error LIKE '%told to stop%'")
            .await,
        1
    );
    assert!(!locked(&cluster).await);
    assert!(cluster.messages().await.is_empty());
    until("the connection to end", || async {
        (router.stats().open_connections == 0).then_some(())
    })
    .await;

    // The next process goes on soon: an interruption is no failure to be spaced out.
    router.set_delay(Duration::ZERO);
    let _next = cluster.replica("after", &[]).await;
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
}
