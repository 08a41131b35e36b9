//! The control socket as any HTTP client sees it, and the folder's lock where nobody can be asked.

use mikrotik_backup::adapters::sqlite::SqliteStore;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::sim::Router;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use uuid::Uuid;

use super::harness::{Folder, router};
use crate::cluster::poll::until;

const STILL: &[(&str, &str)] = &[("CONFIG_BACKUP_INTERVAL", "86400")];

/// Sends one request; the status and the body.
async fn ask(folder: &Folder, method: &str, path: &str, body: &Value) -> (u16, String) {
    let socket = folder.data().join("control.sock");
    let mut stream = UnixStream::connect(socket).await.expect("connect");
    let body = body.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

fn row(router: &Router, password: &str) -> Value {
    let address = router.address();
    json!({ "devices": [{
        "name": router.name(),
        "address": address.ip().to_string(),
        "port": address.port(),
        "login": { "username": router.username(), "password": password },
    }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_with_what_came_of_them() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 82, 0, 1]);
    let _service = folder.run("service", STILL).await;
    let (status, body) = ask(&folder, "POST", "/api/v1/devices", &row(&router, "wrong")).await;
    assert_eq!(status, 201, "{body}");
    let added: Value = serde_json::from_str(&body).expect("JSON");
    let id = added["ids"][0].as_str().expect("an id").to_owned();
    let again = ask(&folder, "POST", "/api/v1/devices", &row(&router, "wrong")).await;
    assert_eq!(again.0, 409, "{again:?}");

    let backup = format!("/api/v1/devices/{id}/backup?wait=true");
    let (status, body) = ask(&folder, "POST", &backup, &Value::Null).await;
    assert_eq!(status, 200, "{body}");
    let reply: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(reply["status"], "failed", "{body}");
    assert_eq!(reply["error_kind"], "auth_failed", "{body}");

    let login = json!({ "username": router.username(), "password": router.password() });
    let device = format!("/api/v1/devices/{id}");
    let edited = ask(&folder, "PATCH", &device, &json!({ "login": login })).await;
    assert_eq!(edited.0, 204, "{edited:?}");
    let accepted = ask(
        &folder,
        "POST",
        &format!("/api/v1/devices/{id}/backup"),
        &Value::Null,
    )
    .await;
    assert_eq!(accepted.0, 202, "{accepted:?}");
    until("backed up", || async {
        let (_, body) = ask(&folder, "GET", "/api/v1/status", &Value::Null).await;
        let status: Value = serde_json::from_str(&body).expect("JSON");
        (status["devices"]["ok"] == 1).then_some(())
    })
    .await;
    let (_, body) = ask(&folder, "POST", &backup, &Value::Null).await;
    let reply: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(reply["change"]["kind"], "unchanged", "{body}");
    assert_eq!(reply["sha256_hash"].as_str().map(str::len), Some(64));

    assert_eq!(ask(&folder, "DELETE", &device, &Value::Null).await.0, 204);
    assert_eq!(ask(&folder, "DELETE", &device, &Value::Null).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_a_reason() {
    let folder = Folder::new();
    let _service = folder.run("service", STILL).await;
    let unknown = format!("/api/v1/devices/{}", Uuid::from_u128(7));
    for (method, path, body, status, reason) in [
        (
            "POST",
            format!("{unknown}/backup?wait=true"),
            Value::Null,
            404,
            "no device",
        ),
        (
            "PATCH",
            unknown.clone(),
            json!({ "name": "x" }),
            404,
            "no device",
        ),
        (
            "PATCH",
            unknown.clone(),
            json!({ "adress": "x" }),
            422,
            "adress",
        ),
        (
            "PUT",
            format!("{unknown}/host-key"),
            json!({ "fingerprint": "MD5:1" }),
            422,
            "SHA256",
        ),
        (
            "DELETE",
            format!("{unknown}/host-key"),
            Value::Null,
            404,
            "no device",
        ),
        (
            "POST",
            "/api/v1/devices".into(),
            json!({ "devices": [{}] }),
            422,
            "name",
        ),
        (
            "GET",
            "/api/v1/nothing".into(),
            Value::Null,
            404,
            "no such route",
        ),
    ] {
        let answer = ask(&folder, method, &path, &body).await;
        assert_eq!(answer.0, status, "{method} {path}: {answer:?}");
        assert!(answer.1.contains(reason), "{method} {path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_somebody_else_works_on_is_left_alone() {
    let folder = Folder::new();
    let held = SqliteStore::open(&folder.data(), None, Clock::System).await;
    let held = held.expect("open the store");
    let refused = folder.cli(&["backup", "--all"], "").await.exits(3);
    let who = format!("is in use by process {}", std::process::id());
    assert!(refused.stderr.contains(&who), "{refused:?}");
    // What only reads needs nobody's leave.
    let unknown = folder
        .cli(&["host-key", "show", "edge-1"], "")
        .await
        .exits(1);
    assert!(unknown.stderr.contains("no device has"), "{unknown:?}");
    held.close().await;
    drop(held);
    folder.cli(&["backup", "--all"], "").await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_a_service_that_is_starting() {
    let folder = Folder::new();
    let held = SqliteStore::open(&folder.data(), None, Clock::System).await;
    let held = held.expect("open the store");
    let asking = folder.cli(&["backup", "--all"], "");
    let letting_go = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        held.close().await;
        drop(held);
    };
    let (done, ()) = tokio::join!(asking, letting_go);
    done.exits(0);
}
