//! Texts that are too large for one message: an object and a small event that refers to it.

use async_nats::jetstream::Context;
use async_nats::jetstream::object_store::ObjectStore;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use futures_util::StreamExt as _;
use mikrotik_backup::adapters::jetstream::{SnapshotSource, Unresolved};
use mikrotik_backup::domain::digest::Digest;
use tokio::io::AsyncReadExt as _;

use super::*;

const BUCKET: &str = "CONFIG_SNAPSHOTS";
const OBJECTS: &str = "OBJ_CONFIG_SNAPSHOTS";

fn with_text(text: &str) -> Snapshot {
    let text = ConfigText::new(text);
    Snapshot {
        hash: text.digest(),
        text,
        ..snapshot()
    }
}

/// The last event, and the payload's size.
async fn last_event(jetstream: &Context) -> (SnapshotEvent, usize) {
    let stream = jetstream.get_stream("CONFIG_SNAPSHOTS").await;
    let stream = stream.expect("the stream");
    let last = stream.cached_info().state.last_sequence;
    let message = stream.get_raw_message(last).await.expect("a message");
    let event = serde_json::from_slice(&message.payload).expect("an event");
    (event, message.payload.len())
}

async fn bucket(jetstream: &Context) -> ObjectStore {
    jetstream
        .get_object_store(BUCKET)
        .await
        .expect("the bucket")
}

/// Names and sizes of the objects, as any client of NATS sees them.
async fn objects(jetstream: &Context) -> Vec<(String, usize)> {
    let store = bucket(jetstream).await;
    let list = store.list().await.expect("a list");
    let mut found: Vec<_> = list
        .map(|object| {
            let object = object.expect("an object");
            (object.name, object.size)
        })
        .collect()
        .await;
    found.sort();
    found
}

async fn source(nats: &Nats) -> SnapshotSource {
    let source = SnapshotSource::connect(&nats.url(), settings()).await;
    let source = source.expect("the URL of the test's server");
    let begun = Instant::now();
    while source.reachable().is_err() {
        assert!(begun.elapsed() < PATIENCE, "no connection");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    source
}

#[tokio::test]
async fn a_text_too_large_for_the_server_or_the_stream_goes_to_the_object_store() {
    let Some(nats) = Nats::start_private("max_payload: 8192").await else {
        return;
    };
    let sink = ready_sink(&nats).await;
    let jetstream = nats.jetstream().await;
    let large = snapshot_of(100_000);
    sink.deliver(&large).await.expect("delivered");
    let (event, size) = last_event(&jetstream).await;
    assert!(size < 1024, "{size} bytes");
    assert_eq!(event.config_text, None);
    assert_eq!(event.sha256_hash, large.hash);
    let reference = event.config_ref.expect("a reference");
    assert_eq!(reference.bucket, BUCKET);
    assert_eq!(reference.size, large.text.expose().len() as u64);
    assert_eq!(reference.sha256, large.hash);

    // Another client of NATS reads it, too, and finds it whole.
    let mut object = bucket(&jetstream).await.get(&reference.object).await;
    let object = object.as_mut().expect("the object");
    let mut text = String::new();
    object.read_to_string(&mut text).await.expect("read");
    assert_eq!(text, large.text.expose());
    let ours = source(&nats).await.resolve(&reference, 1 << 20).await;
    assert_eq!(ours.expect("read"), large.text);

    // Within the limits nothing changes.
    sink.deliver(&snapshot_of(6000)).await.expect("delivered");
    assert!(last_event(&jetstream).await.0.config_text.is_some());
    let stream = jetstream.get_stream("CONFIG_SNAPSHOTS").await;
    let mut config = stream.expect("the stream").cached_info().config.clone();
    config.max_message_size = 4096;
    jetstream.update_stream(&config).await.expect("edited");
    // One has found the stream before, the other finds it as it is now.
    for sink in [&sink, &ready_sink(&nats).await] {
        sink.deliver(&snapshot_of(6000)).await.expect("delivered");
        let (event, _) = last_event(&jetstream).await;
        assert!(event.config_ref.is_some(), "4096 bytes are the limit now");
    }
    config.max_message_size = -1;
    jetstream.update_stream(&config).await.expect("edited");
    sink.deliver(&snapshot_of(6000)).await.expect("delivered");
    let (event, _) = last_event(&jetstream).await;
    assert!(event.config_text.is_some(), "a raised limit is seen");
}

/// The limit is counted as the server counts it, escapes included: one byte more is one too many.
#[tokio::test]
async fn the_largest_message_that_fits_is_one() {
    let Some(nats) = Nats::start_private("max_payload: 8192").await else {
        return;
    };
    let sink = ready_sink(&nats).await;
    let jetstream = nats.jetstream().await;
    let empty = serde_json::to_vec(&SnapshotEvent::from(&with_text(""))).expect("an event");
    let header = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", Uuid::nil());
    let room = 8192 - empty.len() - header.len();
    for (unit, escaped) in [("x", 1), ("\n", 2), ("\u{1}", 6)] {
        let fill = |bytes: usize| unit.repeat(bytes / escaped) + &"x".repeat(bytes % escaped);
        sink.deliver(&with_text(&fill(room)))
            .await
            .expect("delivered");
        let (event, _) = last_event(&jetstream).await;
        assert!(event.config_text.is_some(), "{unit:?} just fits");
        sink.deliver(&with_text(&fill(room + 1)))
            .await
            .expect("delivered");
        let (event, _) = last_event(&jetstream).await;
        assert!(event.config_ref.is_some(), "{unit:?} is one too large");
    }
}

#[tokio::test]
async fn delivering_an_attempt_again_leaves_one_object() {
    let Some(nats) = Nats::start_private("max_payload: 65536").await else {
        return;
    };
    let sink = ready_sink(&nats).await;
    let jetstream = nats.jetstream().await;
    let large = snapshot_of(300_000);
    sink.deliver(&large).await.expect("delivered");
    let used = stored(&jetstream, OBJECTS).await;
    for sink in [&sink, &ready_sink(&nats).await] {
        sink.deliver(&large).await.expect("delivered again");
    }
    assert_eq!(objects(&jetstream).await.len(), 1);
    assert_eq!(stored(&jetstream, OBJECTS).await, used, "no chunk more");
    assert_eq!(stored(&jetstream, "CONFIG_SNAPSHOTS").await, 1);

    // What an upload left that was cut off is removed by the next one of the same attempt.
    let other = snapshot_of(200_000);
    let left = format!("$O.{BUCKET}.C.{}.leftover", other.attempt);
    let chunk = jetstream.publish(left, vec![7; 1000].into()).await;
    chunk.expect("sent").await.expect("acknowledged");
    sink.deliver(&other).await.expect("delivered");
    let chunks = 1 + 200_000_u64.div_ceil(65_536 - 512);
    assert_eq!(stored(&jetstream, OBJECTS).await, used + chunks);

    // An object whose chunks are gone is made anew.
    let stream = jetstream.get_stream(OBJECTS).await.expect("the bucket");
    let chunks = format!("$O.{BUCKET}.C.{}.*", large.attempt);
    stream.purge().filter(chunks).await.expect("purged");
    sink.deliver(&large).await.expect("delivered");
    let (name, _) = &objects(&jetstream).await[0];
    assert!(name.contains('/'), "{name}");
    for (name, size) in objects(&jetstream).await {
        let mut object = bucket(&jetstream)
            .await
            .get(&name)
            .await
            .expect("an object");
        let mut text = Vec::new();
        object.read_to_end(&mut text).await.expect("whole");
        assert_eq!(text.len(), size);
    }
}

/// Dropped midway, an upload removes what it had sent.
#[tokio::test]
async fn a_dropped_delivery_leaves_no_chunks() {
    let Some(nats) = Nats::start_private("max_payload: 8192").await else {
        return;
    };
    let sink = ready_sink(&nats).await;
    let jetstream = nats.jetstream().await;
    sink.deliver(&snapshot_of(10_000)).await.expect("delivered");
    let before = stored(&jetstream, OBJECTS).await;
    let large = snapshot_of(8_000_000);
    let uploading = async {
        while stored(&jetstream, OBJECTS).await < before + 20 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        done = sink.deliver(&large) => panic!("too fast: {done:?}"),
        () = uploading => {}
    }
    let begun = Instant::now();
    while stored(&jetstream, OBJECTS).await != before {
        assert!(begun.elapsed() < PATIENCE, "chunks are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_bucket_is_bounded_and_one_that_is_full_has_no_room_for_large_ones_alone() {
    let Some(nats) = Nats::start_private("max_payload: 8192").await else {
        return;
    };
    let small = Settings {
        stream_max_bytes: 100_000,
        ..settings()
    };
    let sink = sink_with(&nats.url(), small).await;
    until_ready(&sink).await;
    let jetstream = nats.jetstream().await;
    sink.deliver(&snapshot_of(50_000)).await.expect("delivered");
    let info = jetstream.get_stream(OBJECTS).await.expect("the bucket");
    let config = info.cached_info().config.clone();
    assert_eq!(config.max_bytes, 100_000);
    assert_eq!(config.discard, DiscardPolicy::New);
    let stream = jetstream.get_stream("CONFIG_SNAPSHOTS").await;
    let events = stream.expect("the stream").cached_info().config.max_age;
    assert!(config.max_age >= events, "{:?}", config.max_age);

    let used = stored(&jetstream, OBJECTS).await;
    let large = snapshot_of(80_000);
    let error = match sink.deliver(&large).await {
        Err(error @ SinkError::NoRoom { .. }) => chain(&error),
        other => panic!("{other:?}"),
    };
    assert!(
        error.contains("object store") && error.contains("maximum bytes"),
        "{error}"
    );
    assert_eq!(
        stored(&jetstream, "CONFIG_SNAPSHOTS").await,
        1,
        "no event without its text"
    );
    let begun = Instant::now();
    while stored(&jetstream, OBJECTS).await != used {
        assert!(begun.elapsed() < PATIENCE, "half of it is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Small ones go on.
    sink.ready().await.expect("ready");
    sink.deliver(&snapshot()).await.expect("delivered");
    let stream = jetstream.get_stream(OBJECTS).await.expect("the bucket");
    stream.purge().await.expect("purged");
    sink.deliver(&large).await.expect("there is room again");
}

/// The server sets the whole size of a stream aside: what the stream of events left is used.
#[tokio::test]
async fn a_bucket_is_as_large_as_there_is_room_for() {
    let started = Nats::start_limited_with("max_file_store: 100MB", "max_payload: 8192");
    let Some(nats) = started.await else {
        return;
    };
    let sink = ready_sink(&nats).await;
    sink.deliver(&snapshot_of(30_000)).await.expect("delivered");
    let jetstream = nats.jetstream().await;
    let bucket = jetstream.get_stream(OBJECTS).await.expect("the bucket");
    assert_eq!(bucket.cached_info().config.max_bytes, 32 << 20);
}

#[tokio::test]
async fn a_bucket_that_is_there_is_used_untouched() {
    let Some(nats) = Nats::start_private("max_payload: 8192").await else {
        return;
    };
    let jetstream = nats.jetstream().await;
    let foreign = Config {
        name: OBJECTS.to_owned(),
        subjects: vec![format!("$O.{BUCKET}.>")],
        max_age: Duration::from_secs(3600),
        max_message_size: 2048,
        allow_rollup: true,
        ..Config::default()
    };
    let created = jetstream.create_stream(foreign).await.expect("created");
    let before = created.cached_info().config.clone();
    let sink = ready_sink(&nats).await;
    let large = snapshot_of(30_000);
    sink.deliver(&large).await.expect("delivered");
    let after = jetstream.get_stream(OBJECTS).await.expect("the bucket");
    assert_eq!(after.cached_info().config, before);
    let reference = last_event(&jetstream)
        .await
        .0
        .config_ref
        .expect("a reference");
    let text = source(&nats).await.resolve(&reference, 1 << 20).await;
    assert_eq!(text.expect("read"), large.text);
}

#[tokio::test]
async fn a_text_that_is_not_what_the_event_says_is_not_taken() {
    let Some(nats) = Nats::start_private("max_payload: 8192").await else {
        return;
    };
    let sink = ready_sink(&nats).await;
    let jetstream = nats.jetstream().await;
    sink.deliver(&snapshot_of(30_000)).await.expect("delivered");
    let right = last_event(&jetstream)
        .await
        .0
        .config_ref
        .expect("a reference");
    let source = source(&nats).await;
    let mut wrong = Vec::new();
    for change in 0..5 {
        let mut reference = right.clone();
        match change {
            0 => reference.sha256 = Digest::of("other"),
            1 => reference.size += 1,
            2 => reference.object.push('x'),
            3 => reference.bucket = "NOWHERE".to_owned(),
            _ => reference.bucket = "a.>".to_owned(),
        }
        wrong.push((reference, 1 << 20));
    }
    wrong.push((right.clone(), 10_000));
    for (reference, limit) in wrong {
        match source.resolve(&reference, limit).await {
            Err(Unresolved::Bad(_)) => {}
            other => panic!("{reference:?}: {other:?}"),
        }
    }
    let stream = jetstream.get_stream(OBJECTS).await.expect("the bucket");
    let chunks = format!("$O.{BUCKET}.C.>");
    stream.purge().filter(chunks).keep(1).await.expect("purged");
    match source.resolve(&right, 1 << 20).await {
        Err(Unresolved::Bad(reason)) => assert!(reason.contains("of 30"), "{reason}"),
        other => panic!("most of it is gone: {other:?}"),
    }
}

/// The rights that the documentation names suffice, for whoever delivers and whoever reads.
#[tokio::test]
async fn the_documented_rights_suffice() {
    let users = "max_payload: 8192\nauthorization { users: [
      { user: test, password: test }
      { user: poller, password: poller, permissions: { publish: [
          \"config.snapshot.create.>\", \"$JS.API.STREAM.NAMES\", \"$JS.API.STREAM.INFO.*\",
          \"$JS.API.STREAM.CREATE.*\", \"$O.CONFIG_SNAPSHOTS.>\",
          \"$JS.API.STREAM.MSG.GET.OBJ_CONFIG_SNAPSHOTS\",
          \"$JS.API.STREAM.PURGE.OBJ_CONFIG_SNAPSHOTS\" ], subscribe: \"_INBOX.>\" } }
      { user: archive, password: archive, permissions: { publish: [
          \"$JS.API.STREAM.NAMES\", \"$JS.API.STREAM.INFO.*\", \"$JS.API.STREAM.MSG.GET.*\",
          \"$JS.API.CONSUMER.INFO.*.mikrotik-backup-archive\",
          \"$JS.API.CONSUMER.CREATE.*.mikrotik-backup-archive.>\",
          \"$JS.API.CONSUMER.DURABLE.CREATE.*.mikrotik-backup-archive\",
          \"$JS.API.CONSUMER.MSG.NEXT.*.mikrotik-backup-archive\",
          \"$JS.ACK.*.mikrotik-backup-archive.>\" ], subscribe: \"_INBOX.>\" } }
    ] }";
    let Some(nats) = Nats::start_private(users).await else {
        return;
    };
    let sink = sink_with(&nats.url_as("poller:poller@"), settings()).await;
    until_ready(&sink).await;
    let large = snapshot_of(30_000);
    sink.deliver(&large).await.expect("delivered");
    sink.deliver(&large).await.expect("delivered again");
    let source = SnapshotSource::connect(&nats.url_as("archive:archive@"), settings()).await;
    let source = source.expect("a URL");
    let begun = Instant::now();
    while let Err(error) = source.ready().await {
        assert!(begun.elapsed() < START_PATIENCE, "{}", chain(&error));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut batch = source.fetch(5, Some(1 << 20), Duration::from_secs(5)).await;
    let batch = batch.as_mut().expect("a batch");
    let arrival = batch.next().await.expect("one").expect("a message");
    let event: SnapshotEvent = serde_json::from_slice(&arrival.received.payload).expect("an event");
    let reference = event.config_ref.expect("a reference");
    let text = source.resolve(&reference, 1 << 20).await.expect("read");
    assert_eq!(text, large.text);
    arrival.done().await;
    let begun = Instant::now();
    while source.lag().await.expect("the consumer").unsettled > 0 {
        assert!(begun.elapsed() < PATIENCE, "not acknowledged");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
