//! Backups that are asked for over HTTP, of a cluster and of embedded mode.

use std::time::Duration;

use mikrotik_backup::domain::device::DeviceId;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use super::client::{Answer, tcp, unix};
use crate::cluster::harness::Cluster;
use crate::cluster::poll::until;
use crate::embedded::harness::{Folder, router};

const STILL: (&str, &str) = ("CONFIG_BACKUP_INTERVAL", "86400");
const TOKEN: (&str, &str) = ("API_TOKEN", "t0ken-of-the-api-tests-1b2c3d4e");
const RIGHT: &str = "Authorization: Bearer t0ken-of-the-api-tests-1b2c3d4e";

async fn ask(address: &str, method: &str, path: &str) -> Answer {
    tcp(address, method, path, &[RIGHT]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_answers_with_the_attempt_and_then_with_what_came_of_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let routers = [
        router("edge-1", [127, 93, 0, 1]),
        router("edge-2", [127, 93, 0, 2]),
    ];
    let mut devices = Vec::new();
    for router in &routers {
        devices.push(cluster.insert(router).await);
    }
    let replica = cluster.replica("http", &[STILL, TOKEN]).await;
    for device in &devices {
        cluster
            .state_when(*device, "a success", |state| state.status == "success")
            .await;
    }
    devices.sort();

    // Two pages of one, in the order of the ids.
    let first = ask(&replica.http, "GET", "/api/v1/devices?limit=1")
        .await
        .json();
    assert_eq!(first["devices"][0]["id"], devices[0].to_string(), "{first}");
    assert_eq!(first["devices"][0]["condition"], "ok", "{first}");
    let cursor = first["next"].as_str().expect("a cursor");
    let path = format!("/api/v1/devices?limit=5&cursor={cursor}");
    let second = ask(&replica.http, "GET", &path).await.json();
    assert_eq!(second["devices"].as_array().map(Vec::len), Some(1));
    assert_eq!(second["devices"][0]["id"], devices[1].to_string());
    assert_eq!(second["next"], Value::Null);
    ask(&replica.http, "GET", "/api/v1/devices?limit=1001")
        .await
        .problem(400);

    let device = devices[0];
    let backup = format!("/api/v1/devices/{device}/backup");
    let slow = routers.iter().find(|router| {
        let name = router.name();
        first["devices"][0]["name"] == name
    });
    let slow = slow.expect("the router of the first device");
    slow.set_delay(Duration::from_secs(2));
    let taken = ask(&replica.http, "POST", &backup).await;
    assert_eq!(taken.status, 202, "{taken:?}");
    let url = taken.json()["url"].as_str().expect("a URL").to_owned();
    assert!(
        taken.head.contains(&format!("location: {url}\r\n")),
        "{taken:?}"
    );
    let shared = ask(&replica.http, "POST", &backup).await.json();
    assert_eq!(shared["url"], url.as_str(), "one attempt for both");
    let early = ask(&replica.http, "GET", &url).await.json();
    assert_eq!(early["status"], "pending", "{early}");
    let done = until("the attempt to end", || async {
        let attempt = ask(&replica.http, "GET", &url).await.json();
        (attempt["status"] != "pending").then_some(attempt)
    })
    .await;
    assert_eq!(done["status"], "success", "{done}");
    assert_eq!(done["cause"], "manual", "{done}");
    assert_eq!(done["replica"], "http", "{done}");
    assert!(
        done["steps"]
            .as_array()
            .is_some_and(|steps| steps.len() > 3),
        "{done}"
    );
    let messages = cluster.messages_of(device).await;
    let id = done["id"].as_str().expect("an id");
    assert!(
        messages.iter().any(|(message, _)| message == id),
        "the same id: {id}"
    );
    assert_eq!(cluster.attempts("cause = 'manual'").await, 1);

    // Locked: told at once, and the id stays unused.
    let mut redis = cluster.redis.client().await;
    redis::cmd("SET")
        .arg(format!("backup:device:{device}"))
        .arg("somebody else")
        .exec_async(&mut redis)
        .await
        .expect("lock the device");
    let locked = ask(&replica.http, "POST", &format!("{backup}?wait=true")).await;
    assert_eq!(
        (locked.status, &locked.json()["status"]),
        (200, &"locked".into())
    );
    let taken = ask(&replica.http, "POST", &backup).await.json();
    let url = taken["url"].as_str().expect("a URL").to_owned();
    let answered = until("the request to be answered", || async {
        let attempt = ask(&replica.http, "GET", &url).await.json();
        (attempt["status"] != "pending").then_some(attempt)
    })
    .await;
    assert_eq!(answered["status"], "not_made", "{answered}");
    assert!(
        answered["error"]
            .as_str()
            .is_some_and(|text| text.contains("another process"))
    );

    let unknown = format!("/api/v1/devices/{}/backup", Uuid::from_u128(7));
    ask(&replica.http, "POST", &unknown).await.problem(404);
    let stranger = format!("/api/v1/attempts/{}", Uuid::now_v7());
    let recent = ask(&replica.http, "GET", &stranger).await;
    assert!(recent.problem(404).contains("another one"), "{recent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_gives_up_while_the_device_queues_costs_it_nothing() {
    let folder = Folder::new();
    let routers = [
        router("busy", [127, 94, 0, 1]),
        router("idle", [127, 94, 0, 2]),
    ];
    let mut ids: Vec<DeviceId> = Vec::new();
    for router in &routers {
        ids.push(folder.insert(router).await);
    }
    let one = ("CONFIG_BACKUP_MAX_CONCURRENT", "1");
    let service = folder.run("service", &[STILL, one]).await;
    for id in &ids {
        folder.backed_up(*id, 1).await;
    }
    let socket = folder.data().join("control.sock");
    // The one slot is taken for a while …
    routers[0].set_delay(Duration::from_secs(3));
    let sessions = routers[0].stats().connections;
    let taken = unix(
        &socket,
        "POST",
        &format!("/api/v1/devices/{}/backup", ids[0]),
    )
    .await;
    assert_eq!(taken.status, 202, "{taken:?}");
    until("the slot to be taken", || async {
        (routers[0].stats().connections > sessions).then_some(())
    })
    .await;
    // … and meanwhile somebody asks for the other device, and hangs up.
    let sessions = routers[1].stats().connections;
    let path = format!("/api/v1/devices/{}/backup?wait=true", ids[1]);
    let mut stream = tokio::net::UnixStream::connect(&socket)
        .await
        .expect("connect");
    let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("ask");
    let queues = || async {
        let page = crate::cluster::harness::get(&service.http, "/metrics")
            .await
            .ok()?;
        let line = r#"mikrotik_config_backup_waiting{lane="requested"} 1"#;
        page.contains(line).then_some(())
    };
    until("the request to queue", queues).await;
    drop(stream);
    let gave_up = || async {
        let page = crate::cluster::harness::get(&service.http, "/metrics")
            .await
            .ok()?;
        let line = r#"requests_total{result="gave_up",source="http"} 1"#;
        page.contains(line).then_some(())
    };
    until("the request to be taken back", gave_up).await;
    folder.backed_up(ids[0], 2).await;
    // Answered at once: nothing of the other request is left in the way.
    let again = unix(&socket, "POST", &path).await;
    assert_eq!(again.json()["status"], "success", "{again:?}");
    assert_eq!(routers[1].stats().connections, sessions + 1);
}
