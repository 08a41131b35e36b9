//! The commands that act, with a service on the folder and without one.

use std::os::unix::fs::PermissionsExt as _;

use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::sim::Router;
use nix::sys::signal::Signal;

use super::harness::{Done, Folder, router};
use crate::cluster::poll::until;

/// One attempt per device and then silence for the rest of a test.
const STILL: &[(&str, &str)] = &[("CONFIG_BACKUP_INTERVAL", "86400")];

/// Adds `router` with the command line, and returns its id as the command printed it.
async fn add(folder: &Folder, router: &Router, password: &str) -> DeviceId {
    let address = router.address();
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let arguments = [
        "devices",
        "add",
        router.name(),
        &ip,
        "--port",
        &port,
        "--user",
        &router.username(),
        "--password-stdin",
    ];
    let done = folder
        .cli(&arguments, &format!("{password}\n"))
        .await
        .exits(0);
    let id = done.stdout.trim().rsplit_once('(').expect("an id").1;
    DeviceId(id.trim_end_matches(')').parse().expect("an id"))
}

fn change(router: &Router, comment: &str) {
    router.change(|configuration| configuration.add_firewall_rule(comment));
}

#[track_caller]
fn says(done: &Done, text: &str) {
    assert!(done.stdout.contains(text), "no {text:?} in {done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_is_asked() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 81, 0, 1]);
    let service = folder.run("service", STILL).await;
    let socket = folder.data().join("control.sock");
    let mode = std::fs::metadata(&socket)
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let device = add(&folder, &router, &router.password()).await;
    folder.backed_up(device, 1).await;
    let again = folder.cli(&["backup", "edge-1"], "").await.exits(0);
    says(&again, "edge-1: unchanged");
    change(&router, "a new rule");
    let changed = folder.cli(&["backup", "--all"], "").await.exits(0);
    says(&changed, "edge-1: changed, +1 -0 lines");
    assert!(folder.newest_text(device).await.contains("a new rule"));
    assert_eq!(folder.versions(device).await.len(), 2);

    folder
        .cli(&["devices", "remove", "edge-1"], "")
        .await
        .exits(0);
    let gone = folder.cli(&["backup", "edge-1"], "").await.exits(1);
    assert!(gone.stderr.contains("no device has"), "{gone:?}");
    assert!(!service.log().contains(&router.password()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_for_one_router_cause_one_session() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 81, 0, 2]);
    let _service = folder.run("service", STILL).await;
    let device = add(&folder, &router, &router.password()).await;
    folder.backed_up(device, 1).await;
    router.set_delay(std::time::Duration::from_secs(2));
    let asked = futures_util::future::join_all((0..8).map(async |_| {
        let done = folder.cli(&["backup", "edge-1", "--json"], "").await;
        let rows: serde_json::Value = serde_json::from_str(&done.exits(0).stdout).expect("JSON");
        rows[0]["attempt"].as_str().expect("an attempt").to_owned()
    }));
    let attempts = asked.await;
    assert!(attempts.iter().all(|id| *id == attempts[0]), "{attempts:?}");
    assert_eq!(router.stats().connections, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_service_the_command_does_it_itself() {
    let folder = Folder::new();
    let good = router("edge-good", [127, 81, 0, 3]);
    let bad = router("edge-bad", [127, 81, 0, 4]);
    let device = add(&folder, &good, &good.password()).await;
    add(&folder, &bad, "not-the-password").await;

    let done = folder.cli(&["backup", "--all"], "").await.exits(1);
    says(&done, "edge-good: backed up for the first time");
    says(&done, "edge-bad: failed: auth_failed");
    says(&done, "2 devices: 1 new, 1 failed");
    assert_eq!(folder.versions(device).await.len(), 1);
    assert_eq!(bad.stats().connections, 1);

    // The same password is refused again; a new one is not.
    folder.cli(&["retry", "--all-failed"], "").await.exits(1);
    let edit = [
        "devices",
        "edit",
        "edge-bad",
        "--user",
        &bad.username(),
        "--password-stdin",
    ];
    folder.cli(&edit, &bad.password()).await.exits(0);
    let retried = folder.cli(&["retry", "--all-failed"], "").await.exits(0);
    says(&retried, "edge-bad: backed up for the first time");
    let nothing = folder.cli(&["retry", "--all-failed"], "").await.exits(0);
    says(&nothing, "nothing has failed");
    assert_eq!(good.stats().connections, 1);

    // A service that starts then knows of it all.
    let _service = folder.run("service", STILL).await;
    let done = folder.cli(&["backup", "--all"], "").await.exits(0);
    says(&done, "2 devices: 2 unchanged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_a_killed_service_left_behind_misleads_nobody() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 81, 0, 5]);
    let mut service = folder.run("killed", STILL).await;
    service.signal(Signal::SIGKILL);
    service.exit_code().await;
    let socket = folder.data().join("control.sock");
    assert!(socket.exists());
    let device = add(&folder, &router, &router.password()).await;
    folder.cli(&["backup", "edge-1"], "").await.exits(0);
    assert_eq!(folder.versions(device).await.len(), 1);
    let mut service = folder.run("next", STILL).await;
    let done = folder.cli(&["backup", "edge-1"], "").await.exits(0);
    says(&done, "unchanged");
    service.signal(Signal::SIGTERM);
    assert_eq!(service.exit_code().await, 0);
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_host_key_waits_until_it_is_accepted() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 81, 0, 6]);
    let service = folder.run("service", STILL).await;
    let device = add(&folder, &router, &router.password()).await;
    folder.backed_up(device, 1).await;
    let old = router.fingerprint();
    let new = router.rotate_host_key();
    let logins = router.logins().len();
    let refused = folder.cli(&["backup", "edge-1"], "").await.exits(1);
    says(&refused, "host_key_mismatch");
    says(&refused, "mikrotik-backup host-key show edge-1");
    assert!(!refused.stdout.contains("UPDATE"), "{refused:?}");
    assert_eq!(router.logins().len(), logins, "no password was sent");
    // The journal and the service's log say the same, in commands.
    let told = folder.journal().await[0].error.clone().expect("a reason");
    assert!(
        told.contains("`mikrotik-backup host-key show edge-1`"),
        "{told}"
    );
    let log = service.log();
    assert!(
        log.contains("`mikrotik-backup host-key show edge-1`"),
        "{log}"
    );
    assert!(!log.contains("UPDATE") && !told.contains("UPDATE"), "{log}");

    let show = folder
        .cli(&["host-key", "show", "edge-1"], "")
        .await
        .exits(0);
    says(&show, &format!("trusted  {old}"));
    says(&show, &format!("offered  {new}"));
    let accept = ["host-key", "accept", "edge-1", new.as_str()];
    folder.cli(&accept, "").await.exits(0);
    folder.cli(&["backup", "edge-1"], "").await.exits(0);

    router.rotate_host_key();
    folder.cli(&["backup", "edge-1"], "").await.exits(1);
    folder
        .cli(&["host-key", "reset", "edge-1"], "")
        .await
        .exits(0);
    folder.cli(&["backup", "edge-1"], "").await.exits(0);
    folder
        .cli(&["host-key", "accept", "edge-1", "SHA256:short"], "")
        .await
        .exits(2);

    // Both are on record, with what was trusted before.
    let store = folder.reading().await;
    let noted: Vec<(String, Option<String>, Option<String>)> =
        sqlx::query_as("SELECT action, before, after FROM operator_actions ORDER BY id")
            .fetch_all(store.readers())
            .await
            .expect("read the actions");
    let (old, new) = (old.as_str().to_owned(), new.as_str().to_owned());
    let accepted = ("host_key_accepted".into(), Some(old), Some(new.clone()));
    assert_eq!(
        noted,
        [accepted, ("host_key_reset".into(), Some(new), None)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_keeps_its_routers_to_itself() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 81, 0, 8]);
    let _service = folder.run("service", STILL).await;
    let device = add(&folder, &router, &router.password()).await;
    folder.backed_up(device, 1).await;
    let address = router.address();
    let target = format!("{}@{}", router.username(), address.ip());
    let port = address.port().to_string();
    let ask = ["backup", &target, "--port", &port, "--password-stdin"];
    let refused = folder.cli(&ask, &router.password()).await.exits(1);
    assert!(
        refused.stderr.contains("mikrotik-backup backup edge-1"),
        "{refused:?}"
    );
    assert_eq!(router.stats().connections, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_all_or_nothing_and_names_the_line() {
    let folder = Folder::new();
    let csv = folder.path().join("routers.csv");
    let path = csv.to_str().expect("a path");
    let good = "name,address,username,password\nedge-1,192.0.2.1,backup,x\n";
    std::fs::write(&csv, format!("{good}edge-2,not an address,backup,x\n")).expect("write");
    let refused = folder.cli(&["devices", "import", path], "").await.exits(1);
    assert!(refused.stderr.contains("line 3"), "{refused:?}");
    assert!(!folder.data().exists(), "nothing was made");
    std::fs::write(&csv, format!("{good}edge-2,192.0.2.2,backup,y\n")).expect("write");
    let done = folder.cli(&["devices", "import", path], "").await.exits(0);
    says(&done, "imported 2 devices");
    let again = folder.cli(&["devices", "import", path], "").await.exits(1);
    assert!(again.stderr.contains("line 2"), "{again:?}");

    let key = folder.path().join("no-key");
    std::fs::write(&key, "this is none").expect("write");
    let add = [
        "devices",
        "add",
        "edge-9",
        "192.0.2.9",
        "--key-file",
        key.to_str().expect("a path"),
    ];
    let unreadable = folder.cli(&add, "").await.exits(1);
    assert!(
        unreadable.stderr.contains("is no private key"),
        "{unreadable:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_needs_a_store_makes_none() {
    let folder = Folder::new();
    let done = folder.cli(&["backup", "--all"], "").await.exits(3);
    assert!(done.stderr.contains("there is no store in"), "{done:?}");
    assert!(!folder.data().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_are_added_while_it_runs_are_backed_up_soon() {
    let folder = Folder::new();
    let refresh = [("DEVICE_REFRESH_SECONDS", "600"), STILL[0]];
    let _service = folder.run("service", &refresh).await;
    let router = router("edge-1", [127, 81, 0, 9]);
    let device = add(&folder, &router, &router.password()).await;
    // Long before the service would look by itself.
    until("backed up", || async {
        (!folder.versions(device).await.is_empty()).then_some(())
    })
    .await;
}
