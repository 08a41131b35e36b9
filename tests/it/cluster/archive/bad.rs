//! Messages that are no snapshots: set aside once, with their reason, listed, and tried again.

use async_nats::HeaderMap;
use mikrotik_backup::domain::digest::Digest;
use serde_json::{Value, json};
use sqlx::Row as _;
use uuid::Uuid;

use super::{
    archiver, assert_stored_once, count, device, publish, publisher, snapshot, until_drained,
};
use crate::cluster::commands::{Ended, finished};
use crate::cluster::harness::Cluster;
use crate::cluster::poll::until;

const TEXT: &str = "/user\nset admin password=hidden-word\n";

fn event(id: Uuid) -> Value {
    json!({
        "device_id": id,
        "tenant_id": Uuid::from_u128(5),
        "routeros_version": "7.14",
        "collected_at": "2026-01-02T03:04:05Z",
        "sha256_hash": Digest::of(TEXT).to_string(),
        "config_text": TEXT,
        "normalization_version": 2,
    })
}

async fn command(cluster: &Cluster, words: &[&str]) -> Ended {
    let mut command = cluster.command("cli", &[]);
    command.args(words);
    finished(command, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_are_set_aside_once_and_can_be_tried_again() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let sink = publisher(&cluster).await;
    let jetstream = cluster.nats.jetstream().await;
    let id = Uuid::new_v4();
    let with = |field: &str, value: Value| {
        let mut event = event(id);
        event[field] = value;
        event.to_string()
    };
    let mut without_text = event(id);
    without_text
        .as_object_mut()
        .expect("an object")
        .remove("config_text");
    let mut elsewhere = without_text.clone();
    elsewhere["config_ref"] = json!({
        "bucket": "exports", "object": "lost", "size": TEXT.len(),
        "sha256": Digest::of(TEXT).to_string(),
    });
    let subject = format!("config.snapshot.create.{id}");
    let bad = [
        (subject.clone(), "{\"hidden-word\"".to_owned(), "not_json"),
        (
            subject.clone(),
            with("collected_at", json!("hidden-word")),
            "not_an_event",
        ),
        (
            format!("config.snapshot.create.{}", Uuid::new_v4()),
            event(id).to_string(),
            "wrong_device",
        ),
        (
            format!("{subject}.deeper"),
            event(id).to_string(),
            "wrong_device",
        ),
        (subject.clone(), without_text.to_string(), "no_text"),
        (
            subject.clone(),
            with("config_text", json!("other")),
            "hash_mismatch",
        ),
        (subject.clone(), elsewhere.to_string(), "unresolvable"),
    ];
    for (n, (subject, payload, _)) in bad.iter().enumerate() {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", Uuid::from_u128(n as u128 + 100).to_string());
        let sent = jetstream.publish_with_headers(subject.clone(), headers, payload.clone().into());
        sent.await.expect("sent").await.expect("acknowledged");
    }
    let good = snapshot(device(), 1);
    publish(&sink, std::slice::from_ref(&good)).await;

    let role = archiver(&cluster, "first", &[]).await;
    until_drained(&cluster).await;
    assert_stored_once(&cluster, std::slice::from_ref(&good)).await;
    assert_eq!(count(&cluster, "archive_set_aside").await, bad.len() as i64);
    let series = "mikrotik_archive_messages_total{result=\"set_aside\"}";
    assert_eq!(role.metric(series).await, bad.len() as f64);
    until("the gauge", || async {
        let waiting = role.metric("mikrotik_archive_set_aside_messages").await;
        (waiting == bad.len() as f64).then_some(())
    })
    .await;

    // In plain SQL: stream, number, subject and reason; the payload is sealed.
    let rows =
        sqlx::query("SELECT * FROM mikrotik_backup.archive_set_aside ORDER BY stream_sequence")
            .fetch_all(cluster.pool())
            .await
            .expect("read the rows");
    for (row, (subject, payload, flaw)) in rows.iter().zip(&bad) {
        assert_eq!(row.get::<String, _>("flaw"), *flaw);
        assert_eq!(row.get::<String, _>("subject"), *subject);
        assert_eq!(row.get::<i64, _>("bytes"), payload.len() as i64);
        assert!(!row.get::<String, _>("reason").contains("hidden-word"));
        let sealed: Vec<u8> = row.get("sealed");
        assert!(!sealed.windows(11).any(|part| part == b"hidden-word"));
    }
    assert!(!role.log().contains("hidden-word"), "{}", role.log());

    // The list, with nothing secret in it, and one of them as it came.
    let listed = command(&cluster, &["archive", "set-aside", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed.out).expect(&listed.err);
    let flaws: Vec<_> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| &row["flaw"])
        .collect();
    assert_eq!(flaws.len(), bad.len());
    let table = command(&cluster, &["archive", "set-aside"]).await;
    assert_eq!(table.code, 0, "{}", table.err);
    for (subject, _, flaw) in &bad {
        assert!(
            table.out.contains(subject) && table.out.contains(flaw),
            "{}",
            table.out
        );
    }
    assert!(!table.out.contains("hidden-word"), "{}", table.out);
    let rows = listed.as_array().expect("a list");
    let last = rows.iter().find(|row| row["flaw"] == "unresolvable");
    let last = last.expect("the one without its text")["id"].to_string();
    let shown = command(&cluster, &["archive", "show", &last]).await;
    assert_eq!(shown.out, elsewhere.to_string(), "{}", shown.err);

    // In vain, then with the text in its place.
    let retried = command(&cluster, &["archive", "retry", &last]).await;
    assert_eq!(retried.code, 1, "{}", retried.out);
    assert!(retried.out.contains("no such bucket"), "{}", retried.out);
    let store = async_nats::jetstream::object_store::Config {
        bucket: "exports".to_owned(),
        ..Default::default()
    };
    let store = jetstream
        .create_object_store(store)
        .await
        .expect("a bucket");
    store.put("lost", &mut TEXT.as_bytes()).await.expect("put");
    let retried = command(&cluster, &["archive", "retry", "--all"]).await;
    assert_eq!(retried.code, 1, "{}", retried.out);
    let said = format!("1 stored, {} still set aside", bad.len() - 1);
    assert!(
        retried.out.contains(&said),
        "{} {}",
        retried.out,
        retried.err
    );
    assert_eq!(
        count(&cluster, "archive_set_aside").await,
        bad.len() as i64 - 1
    );
    let shown = command(&cluster, &["snapshots", "show", &id.to_string()]).await;
    assert_eq!(shown.out, TEXT, "{}", shown.err);
    let tries: i32 = sqlx::query_scalar("SELECT max(tries) FROM mikrotik_backup.archive_set_aside")
        .fetch_one(cluster.pool())
        .await
        .expect("count tries");
    assert_eq!(tries, 2);

    // Nothing of it comes again.
    drop(role);
    let again = archiver(&cluster, "again", &[]).await;
    publish(&sink, &[snapshot(good.device, 2)]).await;
    until("the next snapshot", || async {
        (count(&cluster, "archive_versions").await == 3).then_some(())
    })
    .await;
    assert_eq!(again.metric(series).await, 0.0);
    assert_eq!(
        count(&cluster, "archive_set_aside").await,
        bad.len() as i64 - 1
    );
}
