//! `devices list`, `show` and `export`.

use std::os::unix::fs::PermissionsExt as _;

use mikrotik_backup::domain::attempt::Outcome;
use mikrotik_backup::domain::failure::{Failure, FailureKind};
use mikrotik_backup::import::from_csv;
use secrecy::ExposeSecret as _;

use super::fleet::{Fleet, PASSWORD};

on_both!(
    devices_are_listed_by_name_with_their_state,
    an_export_can_be_imported_again,
);

async fn devices_are_listed_by_name_with_their_state(fleet: &Fleet) {
    assert_eq!(fleet.run(&["devices", "list"]).await.done(), "no devices\n");
    for name in ["edge-b", "edge-c", "edge-a"] {
        let id = fleet.add(name).await;
        if name == "edge-b" {
            let failure = Failure::new(FailureKind::AuthFailed, "an invented failure");
            fleet.tried(id, 1, Outcome::Failed(failure)).await;
        }
    }
    let text = fleet.run(&["devices", "list"]).await.done();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    for (line, start) in lines.iter().zip(["NAME ", "edge-a ", "edge-b ", "edge-c "]) {
        assert!(line.starts_with(start), "{text}");
    }
    assert!(
        lines[2].contains("192.0.2.1:22") && lines[2].contains("blocked"),
        "{text}"
    );
    assert!(lines[1].contains("never"), "{text}");
    let page = fleet
        .run(&["devices", "list", "--limit", "1", "--after", "edge-a"])
        .await
        .done();
    assert!(
        page.contains("edge-b ") && !page.contains("edge-c"),
        "{page}"
    );
    assert!(
        page.ends_with("and 1 more: --limit, or --after edge-b\n"),
        "{page}"
    );
    let json = fleet.run(&["devices", "list", "--json"]).await.json();
    assert_eq!(json[1]["condition"], "blocked");
    assert_eq!(json[0]["address"], "192.0.2.1:22");
    let group = fleet
        .run(&["devices", "list", "--group", "core", "--json"])
        .await
        .json();
    let members = if fleet.is_embedded() { 3 } else { 0 };
    assert_eq!(group.as_array().map(Vec::len), Some(members));

    let shown = fleet.run(&["devices", "show", "edge-b"]).await.done();
    for part in [
        "name",
        "edge-b",
        "192.0.2.1:22",
        "blocked until an operator acts",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let id = json[1]["id"].as_str().expect("an id");
    let one = fleet.run(&["devices", "show", id, "--json"]).await.json();
    assert_eq!(one["name"], "edge-b");
    assert_eq!(fleet.run(&["devices", "show", "edge-x"]).await.code, 1);
    for text in [text, shown, json.to_string()] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
}

async fn an_export_can_be_imported_again(fleet: &Fleet) {
    fleet.add("edge-a").await;
    let csv = fleet.run(&["devices", "export"]).await.done();
    assert!(!csv.contains(PASSWORD), "{csv}");
    let imported = from_csv(csv.as_bytes());
    assert_eq!(imported.devices.len(), 1, "{:?}", imported.problems);
    assert_eq!(imported.devices[0].username.as_deref(), Some("backup"));

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("devices.csv");
    let output = path.to_str().expect("UTF-8");
    let export = ["devices", "export", "--secrets", "--output", output];
    assert_eq!(fleet.run(&export).await.done(), "");
    let mode = std::fs::metadata(&path)
        .expect("metadata")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let imported = from_csv(&std::fs::read(&path).expect("the file"));
    let password = imported.devices[0].password.as_ref().expect("a password");
    assert_eq!(password.expose_secret(), PASSWORD);
    assert_eq!(fleet.run(&export).await.code, 1, "it is not overwritten");
    assert_eq!(fleet.run(&["devices", "export", "--secrets"]).await.code, 2);
}
