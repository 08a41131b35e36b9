//! What is odd about a device that is backed up all the same, as everybody is told who looks: menus
//! that the router cannot export, and weak SSH.

use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::sim::{Configuration, Fault, Router};
use serde_json::{Value, json};

use super::client::{Answer, unix};
use super::document::conforms;
use crate::cluster::harness::get;
use crate::cluster::poll::until;
use crate::embedded::harness::{Folder, router};
use crate::mirror::{git_is_there, subjects};

const HEAD: &str = "# 2026-01-02 03:04:05 by RouterOS 7.16.2\n# model = RB5009UPr+S+\n/ip pool\n\
    add name=a ranges=192.0.2.10-192.0.2.20\n";
const ROUTES: &str = "/ipv6 route\nadd gateway=2001:db8::1\nadd gateway=2001:db8::2\n";
const GAP: &str = "#error exporting \"/ipv6/route\" (timeout)\n";
const TAIL: &str = "/system identity\nset name=edge-1\n";

/// The router's configuration, with the menu or without.
fn shows(router: &Router, routes: &str) {
    let text = format!("{HEAD}{routes}{TAIL}");
    router.change(|configuration| *configuration = Configuration::fixture(&text));
}

struct Stage {
    folder: Folder,
    device: DeviceId,
}

impl Stage {
    async fn asks(&self, method: &str, path: &str) -> Answer {
        let socket = self.folder.data().join("control.sock");
        unix(&socket, method, path).await
    }

    async fn backup(&self) -> Value {
        let path = format!("/api/v1/devices/{}/backup?wait=true", self.device);
        self.asks("POST", &path).await.json()
    }

    /// What is answered on `path`, which is the documented `operation`'s.
    async fn told(&self, path: &str, operation: &str) -> Value {
        let answer = self.asks("GET", path).await;
        let document = mikrotik_backup::api::document();
        let operation = &document["paths"][operation]["get"];
        conforms(document, operation, &answer, path);
        answer.json()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_incomplete_or_weak_is_told_everywhere_and_deletes_nothing() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 95, 1, 1]);
    shows(&router, ROUTES);
    router.set_fault(Fault::LegacyAlgorithmsOnly);
    let device = folder.insert(&router).await;
    let mirror = folder.path().join("mirror");
    let mirror_is = mirror.to_str().expect("a path").to_owned();
    let settings = [
        ("CONFIG_BACKUP_INTERVAL", "86400"),
        ("GIT_ARCHIVE_DIR", &mirror_is),
    ];
    let service = folder.run("service", &settings).await;
    folder.backed_up(device, 1).await;
    let stage = Stage { folder, device };
    let path = format!("/api/v1/devices/{device}");
    let whole = stage.told(&path, "/api/v1/devices/{id}").await;
    assert_eq!(whole["incomplete_menus"], json!([]), "{whole}");
    assert_eq!(whole["warning"], Value::Null, "{whole}");
    let weak = whole["weak_ssh"].as_array().expect("a list");
    assert!(weak.contains(&json!("hmac-sha1")), "{whole}");

    shows(&router, GAP);
    for _ in 0..2 {
        let refused = stage.backup().await;
        assert_eq!(refused["error_kind"], "truncated_output", "{refused}");
    }
    let taken = stage.backup().await;
    let remark = "incomplete: the router could not export /ipv6/route";
    assert_eq!(taken["status"], "success", "{taken}");
    assert_eq!(taken["message"], remark, "{taken}");
    let nothing = json!({ "kind": "changed", "added": 0, "removed": 0 });
    assert_eq!(taken["change"], nothing, "{taken}");

    let menus = json!(["/ipv6/route"]);
    let told = stage.told(&path, "/api/v1/devices/{id}").await;
    assert_eq!(told["incomplete_menus"], menus, "{told}");
    let list = stage.told("/api/v1/devices", "/api/v1/devices").await;
    assert_eq!(list["devices"][0], told);
    let attempt = taken["attempt"].as_str().expect("an id");
    let attempt = format!("/api/v1/attempts/{attempt}");
    let told = stage.told(&attempt, "/api/v1/attempts/{id}").await;
    assert_eq!(told["incomplete_menus"], menus, "{told}");
    assert_eq!(told["error"], Value::Null, "{told}");
    let metrics = get(&service.http, "/metrics").await.expect("the page");
    for sample in [
        "mikrotik_config_backup_incomplete_total 1\n",
        "mikrotik_config_backup_weak_ssh_total{part=\"kex\"} 4\n",
    ] {
        assert!(metrics.contains(sample), "no {sample:?} in {metrics}");
    }

    let done = stage.folder.cli(&["backup", "edge-1"], "").await.exits(0);
    let said = format!("edge-1: unchanged; {remark}\n");
    assert_eq!(done.stdout, said);
    shows(&router, ROUTES);
    let done = stage.folder.cli(&["backup", "edge-1"], "").await.exits(0);
    assert_eq!(done.stdout, "edge-1: changed, +0 -0 lines\n");
    if git_is_there() {
        let unknown = "not exported by one side: /ipv6 route";
        let wanted = [
            "edge-1: first version, 8 lines".to_owned(),
            format!("edge-1: no change; {unknown}, incomplete: no /ipv6/route"),
            format!("edge-1: no change; {unknown}"),
        ];
        until("the mirror has all", || async {
            (subjects(&mirror).len() == wanted.len()).then_some(())
        })
        .await;
        assert_eq!(subjects(&mirror), wanted);
    }
}
