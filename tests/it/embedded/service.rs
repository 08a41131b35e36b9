//! `run` without a server: backs up, goes on after a kill, keeps others out, says what is wrong.

use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;

use super::harness::{Folder, router};
use crate::cluster::harness::{get, metric};

/// One attempt per device and then silence for the rest of a test.
const STILL: &[(&str, &str)] = &[("CONFIG_BACKUP_INTERVAL", "86400")];

#[tokio::test(flavor = "multi_thread")]
async fn a_router_is_backed_up_into_the_archive_without_any_server() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 80, 0, 1]);
    let device = folder.insert(&router).await;
    let mut service = folder.run("first", STILL).await;
    folder.backed_up(device, 1).await;

    let versions = folder.versions(device).await;
    assert_eq!(versions.len(), 1);
    let text = folder.newest_text(device).await;
    assert!(text.contains("/ip address"), "{text}");
    assert!(text.contains(&format!("name={}", router.name())), "{text}");
    let page = get(&service.http, "/readyz").await.expect("readyz");
    assert!(page.contains("ready"), "{page}");
    let mode = |path| {
        std::fs::metadata(path)
            .expect("a file")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(folder.data()), 0o700);
    assert_eq!(mode(folder.data().join("key")), 0o600);

    service.signal(Signal::SIGTERM);
    assert_eq!(service.exit_code().await, 0, "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn comments_are_counted_by_whether_they_are_known() {
    const KNOWN: &str = "mikrotik_config_backup_comments_total{known=\"true\"}";
    const UNKNOWN: &str = "mikrotik_config_backup_comments_total{known=\"false\"}";
    let folder = Folder::new();
    let idle = folder.run("idle", STILL).await;
    for series in [KNOWN, UNKNOWN] {
        assert_eq!(
            metric(&idle.http, series).await,
            0.0,
            "{series} from the start"
        );
    }
    drop(idle);

    let router = router("edge-1", [127, 80, 0, 4]);
    let device = folder.insert(&router).await;
    // Dropped by rules, and ignored, the last one wrapped; two nobody knows, one of them twice.
    let export = "# 2026-01-02 03:04:05 by RouterOS 7.30\r\n# software id = ABCD-EF12\r\n#\r\n\
        /interface bridge vlan\r\n\
        # duplicate vlan ids are not allowed within the same bridge\r\nadd bridge=a vlan-ids=2\r\n\
        # wan not ready\r\n# mine\r\nadd bridge=b vlan-ids=2\r\n\
        # mine\r\n# yours\r\nadd bridge=c vlan-ids=2\r\n\
        # radar was detect\r\ned here\r\nadd bridge=d vlan-ids=2\r\n\
        #error exporting /interface bridge calea\r\n";
    router.answer_exports_with([export.as_bytes().to_vec()]);
    let ignore = (
        "CONFIG_BACKUP_IGNORE_COMMENTS",
        "^# radar was detected here$",
    );
    let service = folder.run("service", &[STILL, &[ignore]].concat()).await;
    folder.backed_up(device, 1).await;
    assert_eq!(metric(&service.http, KNOWN).await, 3.0);
    assert_eq!(metric(&service.http, UNKNOWN).await, 3.0);
    let text = folder.newest_text(device).await;
    for (comment, kept) in [
        ("duplicate", false),
        ("mine", true),
        ("yours", true),
        ("wan", false),
        ("radar", false),
        ("ed here", false),
    ] {
        assert_eq!(text.contains(comment), kept, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_told_who_has_the_folder() {
    let folder = Folder::new();
    let first = folder.run("first", STILL).await;
    let mut second = folder.spawn("second", STILL);
    assert_eq!(second.exit_code().await, 3);
    let log = second.log();
    assert!(log.contains("is in use by process"), "{log}");
    assert!(!first.log().contains("ERROR"), "{}", first.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_goes_on_where_it_was() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 80, 0, 2]);
    let device = folder.insert(&router).await;
    let mut service = folder.run("first", STILL).await;
    folder.backed_up(device, 1).await;
    service.signal(Signal::SIGKILL);
    assert_eq!(service.exit_code().await, 128 + 9);

    let other = super::harness::router("edge-2", [127, 80, 0, 3]);
    let second = folder.insert(&other).await;
    let _service = folder.run("second", STILL).await;
    folder.backed_up(second, 1).await;
    // The first one is not due for a day: the schedule was not begun anew.
    assert_eq!(router.stats().connections, 1);
    assert_eq!(folder.versions(device).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_folder_is_said_and_nothing_is_changed() {
    let folder = Folder::new();
    let mut service = folder.run("first", STILL).await;
    service.signal(Signal::SIGTERM);
    assert_eq!(service.exit_code().await, 0, "{}", service.log());
    let other = "b3RoZXIga2V5IG9mIDMyIGJ5dGVzLCBub3QgdGhpcyE=";
    let mut wrong = folder.spawn("wrong", &[("CREDENTIAL_ENCRYPTION_KEY", other)]);
    assert_eq!(wrong.exit_code().await, 3, "{}", wrong.log());
    assert!(
        wrong.log().contains("is not the key that"),
        "{}",
        wrong.log()
    );

    let database = folder.data().join("mikrotik-backup.db");
    let good = std::fs::read(&database).expect("the database");
    std::fs::write(&database, b"no database at all, by any means").expect("spoil it");
    let mut damaged = folder.spawn("damaged", STILL);
    assert_eq!(damaged.exit_code().await, 3, "{}", damaged.log());
    assert!(
        damaged.log().contains("is no SQLite database"),
        "{}",
        damaged.log()
    );
    std::fs::write(&database, good).expect("mend it");
    folder.run("mended", STILL).await;
}
