//! `status` and `failed`.

use std::process::Stdio;

use mikrotik_backup::domain::attempt::{Outcome, Taken};
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::domain::digest::Digest;
use mikrotik_backup::domain::failure::{Failure, FailureKind};
use mikrotik_backup::domain::session::{Observed, SshPart, WeakAlgorithm};
use secrecy::ExposeSecret as _;

use super::fleet::{Fleet, PASSWORD, bare, finished};
use crate::services::postgres::empty_database;
use crate::services::redis::Redis;

on_both!(
    an_empty_fleet_is_no_error,
    the_screen_and_the_list_tell_of_every_device,
    a_reader_that_goes_away_is_no_panic,
    what_is_odd_about_good_backups_is_on_every_screen,
);

fn taken() -> Outcome {
    Outcome::Delivered(Taken {
        hash: Digest::of("a"),
        bytes: 1,
        routeros_version: "7.18.2".into(),
        shape: Default::default(),
        incomplete_menus: vec![],
        warning: None,
    })
}

fn failed(kind: FailureKind) -> Outcome {
    Outcome::Failed(Failure::new(kind, "an invented \u{1b}[2Jfailure"))
}

async fn an_empty_fleet_is_no_error(fleet: &Fleet) {
    let screen = fleet.run(&["status"]).await.done();
    assert!(
        screen.starts_with("0 devices, backed up every 6 h\n"),
        "{screen}"
    );
    assert_eq!(fleet.run(&["failed"]).await.done(), "nothing has failed\n");
    assert_eq!(
        fleet.run(&["failed", "--json"]).await.json(),
        serde_json::json!([])
    );
}

async fn the_screen_and_the_list_tell_of_every_device(fleet: &Fleet) {
    for (name, hours, outcome) in [
        ("edge-ok", 1, taken()),
        ("edge-stale", 13, taken()),
        ("edge-away", 3, failed(FailureKind::Unreachable)),
        ("edge-key", 2, failed(FailureKind::HostKeyMismatch)),
    ] {
        let id = fleet.add(name).await;
        fleet.tried(id, hours, outcome).await;
    }
    fleet.add("edge-new").await;

    let screen = fleet.run(&["status"]).await.done();
    for line in [
        "5 devices, backed up every 6 h",
        "  ok       1",
        "  stale    1  no success for more than 12 h, and no failure either",
        "  offline  1  not reached, or reported offline",
        "  failing  0",
        "  blocked  1  waiting for an operator",
        "  never    1  not tried yet",
        "  1  host_key_mismatch",
    ] {
        assert!(
            screen.lines().any(|shown| shown == line),
            "{line:?} in {screen}"
        );
    }
    assert!(
        screen.contains("Oldest success: edge-stale, 13 h ago"),
        "{screen}"
    );
    let json = fleet.run(&["status", "--json"]).await.json();
    assert_eq!(json["devices"], 5);
    assert_eq!(json["conditions"]["blocked"], 1);
    assert_eq!(json["oldest_success"]["device"]["name"], "edge-stale");

    let list = fleet.run(&["list-failed"]).await.done();
    let blocks: Vec<_> = list.lines().filter(|line| !line.starts_with(' ')).collect();
    assert!(
        blocks[0].starts_with("edge-key (192.0.2.1:22)  host_key_mismatch"),
        "{list}"
    );
    assert!(
        blocks[0].ends_with("blocked until an operator acts"),
        "{list}"
    );
    assert!(blocks[1].starts_with("edge-away (192.0.2.1:22)  unreachable  for 3 h"));
    assert!(
        blocks[1].contains("1 failure  next try in 29 min"),
        "{list}"
    );
    assert!(list.contains("an invented \\u{1b}[2Jfailure"), "{list}");
    let remedy = match fleet.is_embedded() {
        true => "mikrotik-backup host-key show edge-key",
        false => "UPDATE devices SET ssh_host_key_fingerprint = NULL",
    };
    assert!(list.contains(remedy), "{list}");

    let json = fleet.run(&["failed", "--json"]).await.json();
    let names: Vec<_> = json
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| &it["device"]["name"])
        .collect();
    assert_eq!(names, ["edge-key", "edge-away"], "the newest first");
    assert_eq!(json[0]["blocked"], true);
    assert_eq!(json[1]["kind"], "unreachable");
    let one = fleet.run(&["failed", "--limit", "1"]).await.done();
    assert!(
        one.ends_with("and 1 more, which --limit leaves out\n"),
        "{one}"
    );
    for limit in ["0", "1001"] {
        assert_eq!(fleet.run(&["failed", "--limit", limit]).await.code, 2);
    }
    for text in [screen, list, json.to_string()] {
        assert!(!text.contains(PASSWORD) && !text.contains('\u{1b}'));
    }
}

async fn what_is_odd_about_good_backups_is_on_every_screen(fleet: &Fleet) {
    let Outcome::Delivered(good) = taken() else {
        unreachable!("a success")
    };
    let weak = || Observed {
        weak_ssh: Some(vec![WeakAlgorithm {
            part: SshPart::Mac,
            name: "hmac-sha1".into(),
        }]),
        ..Observed::default()
    };
    let incomplete = Taken {
        incomplete_menus: vec!["/ipv6/route".into(), "/ip/pool".into()],
        ..good.clone()
    };
    let suspected = Taken {
        warning: Some("it shrank from 9 to 1 bytes".into()),
        ..good.clone()
    };
    for (name, taken, observed) in [
        ("edge-a", incomplete, weak()),
        ("edge-b", suspected, Observed::default()),
        ("edge-c", good, Observed::default()),
    ] {
        let id = fleet.add(name).await;
        let outcome = Outcome::Delivered(taken);
        fleet.tried_showing(id, 1, outcome, observed).await;
    }
    let screen = fleet.run(&["status"]).await.done();
    let remarks = "\
Remarks (devices show NAME tells more):
  1  the last export lacks menus that the router could not export: edge-a
  1  an export looked cut, was read more than once, and was believed; the same since: see its warning: edge-b
  1  weak SSH algorithms in the last session (check NAME says what helps): edge-a
";
    assert!(screen.ends_with(remarks), "{screen}");
    let json = fleet.run(&["status", "--json"]).await.json();
    let kinds: Vec<_> = (0..3).map(|at| &json["remarks"][at]["kind"]).collect();
    assert_eq!(kinds, ["incomplete", "suspected", "weak_ssh"]);

    let list = fleet.run(&["devices", "list"]).await.done();
    let ends: Vec<_> = ["edge-a", "edge-b", "edge-c"]
        .iter()
        .map(|name| {
            let line = list.lines().find(|line| line.starts_with(name));
            let at = list.find("REMARKS").expect("a column");
            line.expect("a line").get(at..).unwrap_or_default()
        })
        .collect();
    assert_eq!(ends, ["incomplete, weak SSH", "suspected", ""], "{list}");
    let json = fleet.run(&["devices", "list", "--json"]).await.json();
    let menus = serde_json::json!(["/ipv6/route", "/ip/pool"]);
    assert_eq!(json[0]["incomplete_menus"], menus);
    assert_eq!(json[0]["weak_ssh"], serde_json::json!(["hmac-sha1"]));
    assert_eq!(json[1]["warning"], "it shrank from 9 to 1 bytes");
    assert_eq!(json[2]["incomplete_menus"], serde_json::json!([]));

    let show = async |name| fleet.run(&["devices", "show", name]).await.done();
    let shown = show("edge-a").await;
    let has = |shown: &str, label: &str, value: &str| {
        let line = shown.lines().find(|line| line.starts_with(label));
        assert!(line.is_some_and(|line| line.ends_with(value)), "{shown}");
    };
    has(&shown, "incomplete", "/ipv6/route, /ip/pool");
    has(&shown, "weak SSH", "hmac-sha1, in the last session");
    has(
        &show("edge-b").await,
        "warning",
        "it shrank from 9 to 1 bytes",
    );
    let plain = show("edge-c").await;
    assert!(!plain.contains("incomplete") && !plain.contains("weak"));
}

async fn a_reader_that_goes_away_is_no_panic(fleet: &Fleet) {
    for arguments in [&["status"][..], &["failed", "--json"]] {
        let mut command = fleet.command(arguments);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        command.stdout(writer).stderr(Stdio::piped());
        let child = command.spawn().expect("start");
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.as_ref()), (Some(0), ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_reported_offline_is_not_stale() {
    let Some(fleet) = Fleet::shared().await else {
        return;
    };
    let Some(mut redis) = Redis::start_private(&[]).await else {
        return;
    };
    let away = fleet.add("edge-away").await;
    let idle = fleet.add("edge-idle").await;
    fleet.tried(away, 13, taken()).await;
    let set = async |id: DeviceId, status: &str| {
        let mut client = redis.client().await;
        let mut set = redis::cmd("SET");
        set.arg(format!("device:{id}:status")).arg(status);
        set.query_async::<()>(&mut client).await.expect("SET");
    };
    set(away, "offline").await;
    set(idle, "online").await;
    let url = redis.url().expose_secret().to_owned();
    let status = async || {
        let mut command = fleet.command(&["status", "--json"]);
        command.env("REDIS_URL", &url);
        finished(command).await
    };
    let conditions = status().await.json()["conditions"].clone();
    assert_eq!(
        (&conditions["offline"], &conditions["stale"]),
        (&1.into(), &0.into())
    );
    assert_eq!(conditions["never"], 1);

    redis.stop();
    let ended = status().await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let said = "devices that are offline count as stale";
    assert!(ended.err.contains(said), "{}", ended.err);
    let json: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(json["conditions"]["stale"], 1);
}

#[tokio::test]
async fn without_a_store_nothing_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    for arguments in [&["status"][..], &["failed", "--json"]] {
        let mut command = bare();
        command.args(arguments).env("DATA_DIR", &data);
        let ended = finished(command).await;
        assert_eq!((ended.code, ended.out.as_str()), (3, ""), "{}", ended.err);
        assert!(ended.err.contains("there is no store in"), "{}", ended.err);
        assert!(!data.exists());
    }
}

#[tokio::test]
async fn a_database_without_our_schema_is_left_alone() {
    let Some(database) = empty_database().await else {
        return;
    };
    for arguments in [&["status"][..], &["snapshots", "list", "edge-1"]] {
        let mut command = bare();
        command.args(arguments).env("DATABASE_URL", &database.url);
        let ended = finished(command).await;
        assert_eq!((ended.code, ended.out.as_str()), (3, ""), "{}", ended.err);
        assert!(
            ended.err.contains("run `mikrotik-backup migrate`"),
            "{}",
            ended.err
        );
    }
    let schemas: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_namespace WHERE nspname = 'mikrotik_backup'")
            .fetch_one(&database.pool)
            .await
            .expect("look");
    assert_eq!(schemas, 0, "nothing was made");
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_a_reason() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let mut command = bare();
    command.arg("failed").env(
        "DATABASE_URL",
        format!("postgres://somebody:{PASSWORD}@{address}/fleet"),
    );
    let ended = finished(command).await;
    assert_eq!((ended.code, ended.out.as_str()), (3, ""));
    assert!(ended.err.contains("the database is away"), "{}", ended.err);
    assert!(!ended.err.contains(PASSWORD), "{}", ended.err);
}
