//! The commands beside `run`, as somebody at a shell sees them: output, exit codes, no secrets.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use mikrotik_backup::sim::{Fault, Router, RouterOptions};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

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

impl Ended {
    /// The line of `check` about `step`, and that no line holds a secret.
    fn step(&self, verdict: &str, step: &str) -> &str {
        assert!(!self.out.contains(PASSWORD) && !self.err.contains(PASSWORD));
        let begin = format!("  {verdict:<4}  {step}");
        let line = self.out.lines().find(|line| line.starts_with(&begin));
        line.unwrap_or_else(|| panic!("no {verdict} {step} in:\n{}{}", self.out, self.err))
    }
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

/// `check` with the cluster's environment, and the log level that an operator has.
async fn check(cluster: &Cluster, arguments: &[&str], input: &str) -> Ended {
    let mut command = cluster.command("doctor", &[("LOG_LEVEL", "warn")]);
    command.arg("check").args(arguments);
    finished(command, input).await
}

/// `check` without any server.
async fn check_alone(arguments: &[&str], input: &str) -> Ended {
    let mut command = Command::new(binary());
    command.arg("check").args(arguments);
    finished(command, input).await
}

#[tokio::test(flavor = "multi_thread")]
async fn check_examines_a_device_of_the_inventory_and_leaves_no_trace() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("doctor-1", [127, 62, 0, 1]);
    let device = cluster.insert(&router).await;
    let key = router.fingerprint().to_string();
    let id = device.to_string();
    for target in ["doctor-1", id.as_str(), "127.62.0.1"] {
        let ended = check(&cluster, &[target], "").await;
        assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
        assert!(
            ended
                .out
                .starts_with(&format!("doctor-1 ({})\n", router.address()))
        );
        assert!(ended.step("ok", "resolve").contains(" ms  "));
        ended.step("ok", "connect");
        assert!(
            ended
                .step("ok", "key exchange")
                .contains("simulated-router")
        );
        assert!(ended.step("note", "algorithms").contains("kex"));
        let host_key = ended.step("note", "host key");
        assert!(
            host_key.contains(&key) && host_key.contains("nothing is pinned"),
            "{host_key}"
        );
        assert!(ended.step("ok", "login").contains("user backup"));
        assert!(ended.step("ok", "version").contains("RouterOS 7.16.2"));
        assert!(ended.step("ok", "export").contains("whole"));
        assert!(
            ended.out.ends_with("A backup would succeed.\n"),
            "{}",
            ended.out
        );
        assert_eq!(ended.err, "");
    }
    assert_eq!(router.stats().exports_whole, 3);
    assert_eq!(cluster.attempts("true").await, 0);
    assert!(cluster.state(device).await.is_none());
    assert!(cluster.messages().await.is_empty());
    let pinned: Option<String> =
        sqlx::query_scalar("SELECT ssh_host_key_fingerprint FROM devices WHERE id = $1")
            .bind(device)
            .fetch_one(cluster.pool())
            .await
            .expect("read the pin");
    assert_eq!(pinned, None, "a doctor does not pin");

    pin(&cluster, device, &key).await;
    let ended = check(&cluster, &["doctor-1"], "").await;
    assert!(ended.step("note", "host key").contains("as pinned"));
}

async fn pin(cluster: &Cluster, device: Uuid, fingerprint: &str) {
    sqlx::query("UPDATE devices SET ssh_host_key_fingerprint = $2 WHERE id = $1")
        .bind(device)
        .bind(fingerprint)
        .execute(cluster.pool())
        .await
        .expect("pin a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_is_wrong_and_what_to_do() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("doctor-2", [127, 62, 0, 2]);
    let device = cluster.insert(&router).await;

    router.set_fault(Fault::Refuse);
    let ended = check(&cluster, &["doctor-2"], "").await;
    assert_eq!(ended.code, 1);
    assert!(ended.step("FAIL", "connect").contains("connection_refused"));
    assert!(
        ended
            .out
            .contains("A backup would fail with connection_refused"),
        "{}",
        ended.out
    );

    router.set_fault(Fault::ErrorText);
    let ended = check(&cluster, &["doctor-2"], "").await;
    assert_eq!(ended.code, 1);
    ended.step("ok", "login");
    assert!(ended.step("FAIL", "export").contains("not_an_export"));

    router.set_fault(Fault::WrongPassword);
    let ended = check(&cluster, &["doctor-2"], "").await;
    assert_eq!(ended.code, 1);
    assert!(ended.step("FAIL", "login").contains("auth_failed"));
    assert!(
        ended
            .out
            .contains("UPDATE devices SET encrypted_credentials"),
        "{}",
        ended.out
    );
    router.clear_fault();

    let pinned = router.fingerprint().to_string();
    pin(&cluster, device, &pinned).await;
    let offered = router.rotate_host_key().to_string();
    let before = router.stats().login_attempts;
    // A login that is named here must not reach a router whose key is not the pinned one, either.
    for (arguments, input) in [
        (&["doctor-2"][..], ""),
        (
            &["doctor-2", "--user", "backup", "--password-stdin"],
            PASSWORD,
        ),
    ] {
        let ended = check(&cluster, arguments, input).await;
        assert_eq!(ended.code, 1);
        let line = ended.step("FAIL", "host key");
        assert!(line.contains("host_key_mismatch"), "{line}");
        assert!(line.contains(&pinned) && line.contains(&offered), "{line}");
        let remedy =
            format!("UPDATE devices SET ssh_host_key_fingerprint = NULL WHERE id = '{device}'");
        assert!(ended.out.contains(&remedy), "{}", ended.out);
    }
    assert_eq!(
        router.stats().login_attempts,
        before,
        "no credential was sent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_its_way_in_the_inventory() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (one, two) = (
        router("doctor-twin", [127, 62, 0, 3]),
        router("doctor-twin", [127, 62, 0, 4]),
    );
    let ids = [cluster.insert(&one).await, cluster.insert(&two).await];
    let ended = check(&cluster, &["doctor-twin"], "").await;
    assert_eq!(ended.code, 1);
    for id in ids {
        assert!(ended.err.contains(&id.to_string()), "{}", ended.err);
    }
    assert!(
        ended.err.starts_with("mikrotik-backup: 2 devices match"),
        "{}",
        ended.err
    );

    // Credentials that another key sealed: the rest is examined all the same.
    let mut command = cluster.command(
        "doctor",
        &[(
            "CREDENTIAL_ENCRYPTION_KEY",
            "b3RoZXIta2V5LW90aGVyLWtleS1vdGhlci1rZXktMDE=",
        )],
    );
    command.arg("check").arg(ids[0].to_string());
    let ended = finished(command, "").await;
    assert_eq!(ended.code, 1);
    ended.step("ok", "key exchange");
    let line = ended.step("FAIL", "credentials");
    assert!(line.contains("credentials_unreadable"), "{line}");
    assert_eq!(one.stats().login_attempts, 0);

    let ended = check(&cluster, &["no-such-router.invalid"], "").await;
    assert_eq!(ended.code, 1);
    assert!(
        ended
            .step("note", "inventory")
            .contains("no device has this id, name or address")
    );
    assert!(ended.step("FAIL", "resolve").contains("name_not_resolved"));

    let away = [("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")];
    let mut command = cluster.command("doctor", &away);
    command.args(["check", "doctor-twin"]);
    let ended = finished(command, "").await;
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains("127.0.0.1:1"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_examines_any_host_with_a_login_from_a_file_or_standard_input() {
    let router = router("doctor-alone", [127, 62, 0, 5]);
    let port = router.address().port().to_string();
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).expect("write a password");
    let file = file.to_str().expect("a path of text");
    let host = ["127.62.0.5", "--port", &port];

    let with_file = [&host[..], &["--user", "backup", "--password-file", file]].concat();
    let with_stdin = [&host[..], &["--user", "backup", "--password-stdin"]].concat();
    let input = format!("{PASSWORD}\n");
    for (arguments, input) in [(&with_file, ""), (&with_stdin, input.as_str())] {
        let ended = check_alone(arguments, input).await;
        assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
        ended.step("ok", "login");
        ended.step("ok", "export");
        assert!(
            !ended.out.contains("inventory"),
            "there is none: {}",
            ended.out
        );
    }
    let ended = check_alone(&with_stdin, "not-it").await;
    assert_eq!(ended.code, 1);
    assert!(ended.step("FAIL", "login").contains("auth_failed"));
    assert!(!ended.out.contains("not-it"), "{}", ended.out);

    let ended = check_alone(&host, "").await;
    assert_eq!(ended.code, 0);
    assert!(ended.step("note", "login").contains("--user"));
    assert!(
        ended.out.ends_with("as far as it was tried.\n"),
        "{}",
        ended.out
    );

    let missing = [
        &host[..],
        &["--user", "backup", "--password-file", "/none/there"],
    ]
    .concat();
    let ended = check_alone(&missing, "").await;
    assert_eq!(ended.code, 1);
    assert!(
        ended
            .err
            .starts_with("mikrotik-backup: failed to read the password file /none/there")
    );
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
