//! `check`: each step on a line, what is wrong, what to do, and no trace left.

use std::process::Command;

use mikrotik_backup::domain::digest::Digest;
use mikrotik_backup::sim::{Configuration, Fault};
use uuid::Uuid;

use super::{Ended, PASSWORD, finished, router};
use crate::cluster::harness::{Cluster, binary};
use crate::embedded::harness::UNKNOWN_COMMENT;

impl Ended {
    /// The line of `check` about `step`, and that no line holds a secret.
    fn step(&self, verdict: &str, step: &str) -> &str {
        assert!(!self.out.contains(PASSWORD) && !self.err.contains(PASSWORD));
        let begin = format!("  {verdict:<4}  {step}");
        let line = self.out.lines().find(|line| line.starts_with(&begin));
        line.unwrap_or_else(|| panic!("no {verdict} {step} in:\n{}{}", self.out, self.err))
    }
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
async fn check_normalises_as_the_service_does() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("doctor-3", [127, 62, 0, 6]);
    router.change(|configuration| *configuration = Configuration::fixture(UNKNOWN_COMMENT));
    cluster.insert(&router).await;
    let ended = check(&cluster, &["doctor-3"], "").await;
    let with_comment = ended.step("ok", "export").to_owned();
    let line = ended.step("note", "export");
    assert!(line.contains("no rule knows, kept: # radar"), "{line}");

    let ignoring = [("CONFIG_BACKUP_IGNORE_COMMENTS", "^# radar")];
    let mut command = cluster.command("doctor", &ignoring);
    command.args(["check", "doctor-3"]);
    let ended = finished(command, "").await;
    let text = UNKNOWN_COMMENT.split_once('\n').expect("a header").1;
    let kept = text.replace("# radar detected\n", "");
    let hash = Digest::of(&kept);
    let line = ended.step("ok", "export");
    assert!(line.ends_with(&format!("sha256 {hash}")), "{line}");
    assert_ne!(line, with_comment);
    assert!(!ended.out.contains("radar"), "{}", ended.out);
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
