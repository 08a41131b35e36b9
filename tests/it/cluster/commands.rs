//! The commands beside `run`, as somebody at a shell sees them: output, exit codes, no secrets.

mod check;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use mikrotik_backup::sim::{Router, RouterOptions};
use tokio::io::AsyncWriteExt as _;

use super::harness::{Cluster, binary};
use crate::services::redis::free_port;

/// The password of every router here: recognisable wherever it should not be.
const PASSWORD: &str = "c0mmands-pa55-7e1";

/// What a command left behind.
pub(super) struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs a command to its end with `input` on its standard input.
pub(super) async fn finished(command: Command, input: &str) -> Ended {
    let mut command = tokio::process::Command::from(command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("start the command");
    let mut stdin = child.stdin.take().expect("piped");
    // One that does not read its input may have ended already.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    let output = output.expect("it ends").expect("read its output");
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The binary with these words as arguments, and nothing of ours in its environment.
async fn plain(words: &str) -> Ended {
    let mut command = Command::new(binary());
    command.args(words.split_whitespace());
    finished(command, "").await
}

fn router(name: &str, address: [u8; 4]) -> Router {
    let options = RouterOptions {
        name: name.to_owned(),
        address: SocketAddr::from((Ipv4Addr::from(address), 0)),
        seed: u64::from(Ipv4Addr::from(address).to_bits()),
        password: PASSWORD.to_owned(),
        ..RouterOptions::default()
    };
    Router::start_one(options).expect("start a router")
}

#[tokio::test(flavor = "multi_thread")]
async fn events_prints_what_is_in_the_stream_and_waits_for_more() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let events = |arguments: &[&str]| {
        let mut command = cluster.command("reader", &[("LOG_LEVEL", "warn")]);
        command
            .env_remove("DATABASE_URL")
            .arg("events")
            .args(arguments);
        command
    };
    let ended = finished(events(&["--all", "--count", "1", "--timeout", "1"]), "").await;
    assert_eq!(ended.code, 1);
    assert!(
        ended
            .err
            .contains("no stream covers config.snapshot.create.>"),
        "{}",
        ended.err
    );
    assert!(
        ended.err.contains("0 of 1 events came within 1 s"),
        "{}",
        ended.err
    );

    // Started before there is anything to read.
    let early = tokio::spawn(finished(
        events(&["--all", "--count", "2", "--timeout", "50"]),
        "",
    ));
    let routers = [
        router("event-1", [127, 62, 0, 6]),
        router("event-2", [127, 62, 0, 7]),
    ];
    let mut devices = Vec::new();
    for router in &routers {
        devices.push(cluster.insert(router).await);
    }
    let _replica = cluster.replica("publisher", &[]).await;
    let ended = early.await.expect("no panic");
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(ended.out.lines().count(), 2, "{}", ended.out);
    for (_, event) in cluster.messages().await {
        let device = event.device_id.to_string();
        assert!(devices.contains(&event.device_id.0));
        let line = ended
            .out
            .lines()
            .find(|line| line.contains(&device))
            .expect("its line");
        assert!(line.contains("RouterOS 7.16.2"), "{line}");
        assert!(
            line.ends_with(&format!("sha256 {}", event.sha256_hash)),
            "{line}"
        );
    }
    assert!(
        !ended.out.contains("/ip"),
        "never the configuration: {}",
        ended.out
    );

    let ended = finished(events(&["--all", "--count", "3", "--timeout", "1"]), "").await;
    assert_eq!(ended.code, 1);
    assert!(
        ended.err.contains("2 of 3 events came within 1 s"),
        "{}",
        ended.err
    );
    assert_eq!(ended.out.lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn simulate_prints_an_inventory() {
    let ended = plain(
        "simulate --routers 3 --port 0 --base-address 127.62.1.1 --inventory csv --inventory-only",
    )
    .await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(ended.out.lines().count(), 4, "{}", ended.out);
    assert!(ended.out.contains("sim-0003,127.62.1.3,"), "{}", ended.out);

    let sql = "simulate --port 0 --base-address 127.62.1.9 --inventory sql --inventory-only";
    let ended = plain(sql).await;
    assert_eq!(ended.code, 1);
    assert!(
        ended.err.contains("set CREDENTIAL_ENCRYPTION_KEY"),
        "{}",
        ended.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_left_is_neither_a_panic_nor_a_failure() {
    let router = router("doctor-unread", [127, 62, 0, 8]);
    let check = format!("check 127.62.0.8 --port {}", router.address().port());
    let simulate = "simulate --routers 3 --port 0 --base-address 127.62.2.1 --inventory csv \
                    --inventory-only";
    for words in ["--help", "check --help", &check, simulate] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let child = tokio::process::Command::new(binary())
            .args(words.split_whitespace())
            .stdout(writer)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("start the command");
        let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
        let output = output.expect("it ends").expect("read its output");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words}");
        assert_eq!(output.status.code(), Some(0), "{words}");
    }
    assert_eq!(router.stats().connections, 1, "check went on to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_tells_a_live_service_from_none() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let replica = cluster.replica("alive", &[]).await;
    let healthcheck = async |address: &str| {
        let mut command = Command::new(binary());
        command.arg("healthcheck").env("HTTP_ADDR", address);
        finished(command, "").await
    };
    let ended = healthcheck(&replica.http).await;
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    // As in a container, where it listens everywhere.
    let everywhere = replica.http.replace("127.0.0.1", "0.0.0.0");
    assert_eq!(healthcheck(&everywhere).await.code, 0);
    let nobody = format!("127.0.0.1:{}", free_port());
    let ended = healthcheck(&nobody).await;
    assert_eq!(ended.code, 1);
    assert!(
        ended.err.contains(&nobody) && ended.err.contains("HTTP_ADDR"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn help_says_what_each_command_needs() {
    for (words, mentions) in [
        (
            "--help",
            &[
                "DATABASE_URL",
                "CONFIG_BACKUP_INTERVAL",
                "X_FILE",
                "Exit codes: 0",
            ][..],
        ),
        (
            "-h",
            &[
                "run",
                "migrate",
                "check",
                "simulate",
                "events",
                "healthcheck",
                "Exit codes: 0",
            ],
        ),
        (
            "run --help",
            &[
                "REDIS_URL",
                "CREDENTIAL_ENCRYPTION_KEY",
                "/readyz",
                "SIGTERM",
            ],
        ),
        ("migrate --help", &["owner", "DATABASE_URL"]),
        (
            "check --help",
            &["--user", "--password-stdin", "DATABASE_URL", "Exit code 0"],
        ),
        (
            "simulate --help",
            &["--routers", "--fault", "--inventory", "127.0.0.0/8"],
        ),
        (
            "events --help",
            &["--all", "--count", "--timeout", "NATS_URL"],
        ),
        (
            "healthcheck --help",
            &["/livez", "HTTP_ADDR", "HEALTHCHECK"],
        ),
    ] {
        let ended = plain(words).await;
        assert_eq!(ended.code, 0, "{words}: {}", ended.err);
        for mention in mentions {
            assert!(
                ended.out.contains(mention),
                "{words} does not mention {mention}:\n{}",
                ended.out
            );
        }
        assert_eq!(ended.err, "");
    }
    let version = plain("--version").await;
    assert_eq!(
        version.out,
        format!("mikrotik-backup {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test]
async fn wrong_usage_ends_with_two_and_wrong_configuration_with_three() {
    for words in [
        "frobnicate",
        "check",
        "check a --port 0",
        "check a --password-stdin",
        "check a --user u --password-file f --password-stdin",
        "events --timeout 3",
        "simulate --fault none",
        "migrate extra",
    ] {
        let ended = plain(words).await;
        assert_eq!(ended.code, 2, "{words}: {}{}", ended.out, ended.err);
        assert!(ended.err.contains("error:"), "{words}: {}", ended.err);
    }
    let ended = plain("migrate").await;
    assert_eq!(ended.code, 3);
    assert!(
        ended.err.contains("DATABASE_URL is not set"),
        "{}",
        ended.err
    );
    let ended = plain("events").await;
    assert_eq!(ended.code, 3);
    assert!(ended.err.contains("NATS_URL is not set"), "{}", ended.err);
}
