//! The JetStream sink against a real nats-server: what is stored and under which name, which
//! stream is used or created, and what happens when the server is away, frozen or full.

mod large;
mod look;

use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use mikrotik_backup::adapters::jetstream::{JetStreamSink, Settings, SnapshotEvent};
use mikrotik_backup::domain::attempt::AttemptId;
use mikrotik_backup::domain::device::{DeviceId, TenantId};
use mikrotik_backup::domain::failure::chain;
use mikrotik_backup::domain::snapshot::{ConfigText, Shape, Snapshot};
use mikrotik_backup::ports::{SinkError, SnapshotSink};
use secrecy::SecretString;
use time::macros::datetime;
use uuid::Uuid;

use crate::services::nats::Nats;

const PATIENCE: Duration = Duration::from_secs(20);
/// What becoming ready may take: a request that a new nats-server leaves unanswered (2.9.10 was seen
/// to) costs a whole timeout before the next one is sent.
const START_PATIENCE: Duration = Duration::from_secs(50);
/// Far below the ack timeout that the tests set: what fails within it did not wait.
const AT_ONCE: Duration = Duration::from_secs(2);

fn settings() -> Settings {
    Settings {
        stream_max_bytes: 64 << 20,
        ack_timeout: PATIENCE,
        ..Settings::default()
    }
}

async fn sink(nats: &Nats) -> JetStreamSink {
    sink_with(&nats.url(), settings()).await
}

async fn sink_with(url: &SecretString, settings: Settings) -> JetStreamSink {
    let connected = JetStreamSink::connect(url, settings).await;
    connected.expect("the URL of the test's server")
}

/// A sink that is connected and has found its stream.
async fn ready_sink(nats: &Nats) -> JetStreamSink {
    let sink = sink(nats).await;
    until_ready(&sink).await;
    sink
}

async fn until_ready(sink: &JetStreamSink) {
    let begun = Instant::now();
    while let Err(error) = sink.ready().await {
        assert!(begun.elapsed() < START_PATIENCE, "{}", chain(&error));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Polls until the sink is not ready, and returns why.
async fn until_not_ready(sink: &JetStreamSink) -> String {
    let begun = Instant::now();
    loop {
        if let Err(error) = sink.ready().await {
            return chain(&error);
        }
        assert!(begun.elapsed() < PATIENCE, "still ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn snapshot_of(size: usize) -> Snapshot {
    let mut text = String::from("# software id = TEST-0001\n/system identity\nset name=edge\n");
    while text.len() < size {
        text.push_str("/ip address add address=192.0.2.1/24 interface=ether1\n");
    }
    let text = ConfigText::new(text);
    Snapshot {
        attempt: AttemptId::generate(),
        device: DeviceId(Uuid::new_v4()),
        tenant: TenantId(Uuid::new_v4()),
        routeros_version: "7.14".to_owned(),
        machine: Default::default(),
        collected_at: datetime!(2026-01-02 03:04:05 UTC),
        hash: text.digest(),
        text,
        normalization_version: 2,
        normalization_rules: "n2-test".to_owned(),
        incomplete_menus: Vec::new(),
        ledger: Default::default(),
        shape: Shape::default(),
    }
}

fn snapshot() -> Snapshot {
    snapshot_of(0)
}

async fn stored(jetstream: &Context, stream: &str) -> u64 {
    let stream = jetstream.get_stream(stream).await.expect("the stream");
    stream.cached_info().state.messages
}

fn unavailable(outcome: Result<(), SinkError>) -> String {
    match outcome {
        Err(error @ SinkError::Unavailable { .. }) => chain(&error),
        other => panic!("expected unavailable, got {other:?}"),
    }
}

#[tokio::test]
async fn a_snapshot_is_stored_once_as_agreed() {
    let Some(nats) = Nats::start_private("").await else {
        return;
    };
    let sink = ready_sink(&nats).await;
    let snapshot = snapshot();
    sink.deliver(&snapshot).await.expect("delivered");
    sink.deliver(&snapshot).await.expect("delivered again");

    let jetstream = nats.jetstream().await;
    assert_eq!(stored(&jetstream, "CONFIG_SNAPSHOTS").await, 1);
    let stream = jetstream.get_stream("CONFIG_SNAPSHOTS").await;
    let message = stream.expect("the stream").get_raw_message(1).await;
    let message = message.expect("the first message");
    let subject = format!("config.snapshot.create.{}", snapshot.device);
    assert_eq!(message.subject.as_str(), subject);
    let id = message.headers.get("Nats-Msg-Id").expect("an id");
    assert_eq!(id.as_str(), snapshot.attempt.to_string());
    let event: SnapshotEvent = serde_json::from_slice(&message.payload).expect("an event");
    assert_eq!(event, SnapshotEvent::from(&snapshot));

    // The same configuration, taken by another attempt, is another event.
    let unchanged = Snapshot {
        attempt: AttemptId::generate(),
        ..snapshot
    };
    sink.deliver(&unchanged).await.expect("delivered");
    assert_eq!(stored(&jetstream, "CONFIG_SNAPSHOTS").await, 2);
    sink.close().await;
    unavailable(sink.deliver(&unchanged).await);
}

#[tokio::test]
async fn a_stream_is_created_with_the_agreed_limits_by_two_at_once() {
    let Some(nats) = Nats::start_private("").await else {
        return;
    };
    let (one, other) = tokio::join!(sink(&nats), sink(&nats));
    tokio::join!(until_ready(&one), until_ready(&other));
    // Set differently, and still content with what is there.
    let different = Settings {
        stream_max_bytes: 32 << 20,
        ..settings()
    };
    let third = sink_with(&nats.url(), different).await;
    until_ready(&third).await;
    for sink in [&one, &other, &third] {
        sink.deliver(&snapshot()).await.expect("delivered");
    }

    let jetstream = nats.jetstream().await;
    let stream = jetstream.get_stream("CONFIG_SNAPSHOTS").await;
    let info = stream.expect("the stream").cached_info().clone();
    assert_eq!(info.state.messages, 3);
    assert_eq!(info.config.subjects, ["config.snapshot.>"]);
    assert_eq!(info.config.storage, StorageType::File);
    assert_eq!(info.config.discard, DiscardPolicy::New);
    assert_eq!(info.config.max_bytes, 64 << 20);
    assert_eq!(info.config.num_replicas, 1);
    assert_eq!(info.config.max_age, Duration::from_secs(90 * 86_400));
    assert_eq!(info.config.duplicate_window, Duration::from_secs(86_400));
}

#[tokio::test]
async fn a_stream_that_covers_the_subject_is_used_untouched() {
    let Some(nats) = Nats::start_private("").await else {
        return;
    };
    let jetstream = nats.jetstream().await;
    let config = Config {
        name: "PLATFORM".to_owned(),
        subjects: vec!["config.>".to_owned()],
        max_bytes: 1 << 20,
        max_age: Duration::from_secs(3600),
        storage: StorageType::Memory,
        ..Config::default()
    };
    let created = jetstream.create_stream(config).await.expect("created");
    let before = created.cached_info().config.clone();

    let sink = ready_sink(&nats).await;
    sink.deliver(&snapshot()).await.expect("delivered");
    assert_eq!(stored(&jetstream, "PLATFORM").await, 1);
    let after = jetstream.get_stream("PLATFORM").await.expect("the stream");
    assert_eq!(after.cached_info().config, before);
    let ours = jetstream.get_stream("CONFIG_SNAPSHOTS").await;
    ours.expect_err("no stream of ours beside one that covers the subject");
}

#[tokio::test]
async fn beside_an_overlapping_stream_ours_is_narrower() {
    let Some(nats) = Nats::start_private("").await else {
        return;
    };
    let jetstream = nats.jetstream().await;
    let config = Config {
        name: "DELETIONS".to_owned(),
        subjects: vec!["config.snapshot.delete.*".to_owned()],
        ..Config::default()
    };
    jetstream.create_stream(config).await.expect("created");

    let sink = ready_sink(&nats).await;
    sink.deliver(&snapshot()).await.expect("delivered");
    let ours = jetstream.get_stream("CONFIG_SNAPSHOTS").await;
    let ours = ours.expect("a stream of ours").cached_info().clone();
    assert_eq!(ours.config.subjects, ["config.snapshot.create.>"]);
    assert_eq!(ours.state.messages, 1);
}

#[tokio::test]
async fn a_stream_that_takes_single_devices_is_named() {
    let Some(nats) = Nats::start_private("").await else {
        return;
    };
    let jetstream = nats.jetstream().await;
    let config = Config {
        name: "ONE_DEVICE".to_owned(),
        subjects: vec!["config.snapshot.create.one".to_owned()],
        ..Config::default()
    };
    jetstream.create_stream(config).await.expect("created");
    let sink = sink(&nats).await;
    let begun = Instant::now();
    loop {
        let reason = until_not_ready(&sink).await;
        if reason.contains("ONE_DEVICE") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{reason}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_removed_stream_is_created_again() {
    let Some(nats) = Nats::start_private("").await else {
        return;
    };
    let sink = ready_sink(&nats).await;
    let jetstream = nats.jetstream().await;
    let removed = jetstream.delete_stream("CONFIG_SNAPSHOTS").await;
    removed.expect("removed");
    sink.deliver(&snapshot()).await.expect("delivered");
    assert_eq!(stored(&jetstream, "CONFIG_SNAPSHOTS").await, 1);
}

#[tokio::test]
async fn a_full_stream_counts_as_away_until_there_is_room() {
    let Some(nats) = Nats::start_private("").await else {
        return;
    };
    let small = Settings {
        stream_max_bytes: 4096,
        ..settings()
    };
    let sink = sink_with(&nats.url(), small).await;
    until_ready(&sink).await;
    sink.deliver(&snapshot_of(2500)).await.expect("delivered");
    let large = snapshot_of(2500);
    let error = unavailable(sink.deliver(&large).await);
    assert!(error.contains("maximum bytes exceeded"), "{error}");
    let reason = unavailable(sink.ready().await);
    assert!(reason.contains("4096 bytes"), "{reason}");

    let jetstream = nats.jetstream().await;
    let stream = jetstream.get_stream("CONFIG_SNAPSHOTS").await;
    stream.expect("the stream").purge().await.expect("purged");
    sink.ready().await.expect("there is room again");
    sink.deliver(&large).await.expect("delivered");
}

#[tokio::test]
async fn limits_beyond_the_server_s_are_explained() {
    let Some(nats) = Nats::start_limited("max_file_store: 10MB").await else {
        return;
    };
    for (settings, variable) in [
        (settings(), "NATS_STREAM_MAX_BYTES"),
        (
            Settings {
                stream_max_bytes: 1 << 20,
                stream_replicas: 3,
                ..settings()
            },
            "NATS_STREAM_REPLICAS",
        ),
    ] {
        let sink = sink_with(&nats.url(), settings).await;
        let begun = Instant::now();
        loop {
            let error = unavailable(sink.deliver(&snapshot()).await);
            if error.contains(variable) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{variable}: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_found_when_it_comes() {
    let Some(mut nats) = Nats::prepare_private("") else {
        return;
    };
    let sink = sink(&nats).await;
    let begun = Instant::now();
    unavailable(sink.ready().await);
    let early = snapshot();
    unavailable(sink.deliver(&early).await);
    assert!(begun.elapsed() < AT_ONCE);

    nats.start().await;
    until_ready(&sink).await;
    sink.deliver(&snapshot()).await.expect("delivered");
    // What failed is not sent behind our back.
    let jetstream = nats.jetstream().await;
    assert_eq!(stored(&jetstream, "CONFIG_SNAPSHOTS").await, 1);
    sink.deliver(&early).await.expect("delivered");
    assert_eq!(stored(&jetstream, "CONFIG_SNAPSHOTS").await, 2);
}

#[tokio::test]
async fn a_stopped_server_fails_deliveries_at_once_and_gets_none_of_them_later() {
    let Some(mut nats) = Nats::start_private("").await else {
        return;
    };
    let sink = ready_sink(&nats).await;
    sink.deliver(&snapshot()).await.expect("delivered");
    nats.stop();
    until_not_ready(&sink).await;
    let begun = Instant::now();
    for _ in 0..20 {
        unavailable(sink.deliver(&snapshot()).await);
    }
    assert!(begun.elapsed() < AT_ONCE);

    nats.start().await;
    until_ready(&sink).await;
    let last = snapshot();
    sink.deliver(&last).await.expect("delivered");
    // Messages of one connection arrive in order: had the client kept any, they would be before
    // the last one.
    let jetstream = nats.jetstream().await;
    assert_eq!(stored(&jetstream, "CONFIG_SNAPSHOTS").await, 2);
}

#[tokio::test]
async fn a_connection_lost_while_waiting_for_the_ack_ends_the_wait() {
    let Some(mut nats) = Nats::start_private("").await else {
        return;
    };
    let sink = ready_sink(&nats).await;
    nats.freeze();
    let snapshot = snapshot();
    let (outcome, took) = tokio::join!(
        async {
            let begun = Instant::now();
            (sink.deliver(&snapshot).await, begun.elapsed())
        },
        async {
            // The delivery has been polled first and waits; this lets the message leave, though
            // the outcome would be the same without.
            tokio::time::sleep(Duration::from_millis(300)).await;
            nats.stop();
        }
    )
    .0;
    let error = unavailable(outcome);
    assert!(error.contains("lost"), "{error}");
    assert!(took < PATIENCE / 2, "waited {took:?}");
}

#[tokio::test]
async fn a_frozen_server_costs_the_ack_timeout_and_no_more() {
    let Some(nats) = Nats::start_private("").await else {
        return;
    };
    let hasty = Settings {
        ack_timeout: Duration::from_millis(500),
        ..settings()
    };
    let sink = sink_with(&nats.url(), hasty).await;
    until_ready(&sink).await;
    nats.freeze();
    let begun = Instant::now();
    let snapshot = snapshot();
    let error = unavailable(sink.deliver(&snapshot).await);
    assert!(error.contains("no acknowledgement within 500ms"), "{error}");
    assert!(begun.elapsed() < AT_ONCE, "waited {:?}", begun.elapsed());

    // It is not known whether that one was stored, and delivering it again settles it.
    nats.thaw();
    let begun = Instant::now();
    while let Err(error) = sink.deliver(&snapshot).await {
        assert!(begun.elapsed() < PATIENCE, "{}", chain(&error));
    }
    let jetstream = nats.jetstream().await;
    assert_eq!(stored(&jetstream, "CONFIG_SNAPSHOTS").await, 1);
}

#[tokio::test]
async fn credentials_of_the_url_are_used_and_never_shown() {
    for (config, right) in [
        (
            "authorization { user: backup, password: \"Right/Marker\" }",
            "backup:Right%2FMarker@",
        ),
        (
            "authorization { token: \"Right/Marker\" }",
            "Right%2FMarker@",
        ),
    ] {
        let Some(nats) = Nats::start_private(config).await else {
            return;
        };
        let sink = sink_with(&nats.url_as(right), settings()).await;
        until_ready(&sink).await;
        sink.deliver(&snapshot()).await.expect("delivered");

        let wrong = sink_with(&nats.url_as("backup:Wrong-Marker@"), settings()).await;
        let begun = Instant::now();
        loop {
            let error = wrong.ready().await.expect_err("the password is wrong");
            let text = format!("{} {error:?} {wrong:?}", chain(&error));
            assert!(!text.contains("Marker"), "{text}");
            if text.contains("authorization violation") {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_server_without_jetstream_is_explained() {
    let Some(nats) = Nats::start_private("jetstream: false").await else {
        return;
    };
    let sink = sink(&nats).await;
    let begun = Instant::now();
    loop {
        let reason = until_not_ready(&sink).await;
        if reason.contains("switch JetStream on") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{reason}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
