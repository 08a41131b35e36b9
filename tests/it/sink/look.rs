//! What is older than the stream's duplicate window is looked for in the stream before it is
//! published: the stream itself would take it a second time.

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::PublishMessage;
use futures_util::StreamExt as _;

use super::*;

/// The shortest that the server allows.
const WINDOW: Duration = Duration::from_millis(100);
/// How old a letter is when it is relayed late.
const OLD: Duration = Duration::from_secs(60);

/// A stream that forgets ids after [`WINDOW`].
async fn forgetful(nats: &Nats) -> Context {
    let jetstream = nats.jetstream_as("test:test@").await;
    let config = Config {
        name: "PLATFORM".to_owned(),
        subjects: vec!["config.snapshot.>".to_owned()],
        duplicate_window: WINDOW,
        ..Config::default()
    };
    jetstream.create_stream(config).await.expect("created");
    jetstream
}

/// Waits until the stream has forgotten the ids of everything that it has now: until it has
/// forgotten one that is newer.
async fn until_forgotten(jetstream: &Context) {
    let marker = Uuid::new_v4().to_string();
    let begun = Instant::now();
    let mut sent = 0;
    loop {
        let message = PublishMessage::build().header(NATS_MESSAGE_ID, marker.as_str());
        let subject = format!("config.snapshot.create.{}", Uuid::new_v4());
        let ack = jetstream.send_publish(subject, message).await;
        let ack = ack.expect("sent").await.expect("acknowledged");
        sent += 1;
        if sent > 1 && !ack.duplicate {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "the stream forgets nothing");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many messages of the device the stream has.
async fn messages_of(jetstream: &Context, snapshot: &Snapshot) -> usize {
    let stream = jetstream.get_stream("PLATFORM").await.expect("the stream");
    let subject = format!("config.snapshot.create.{}", snapshot.device);
    let subjects = stream.info_with_subjects(subject).await.expect("counted");
    let counts: Vec<_> = subjects
        .map(|each| each.expect("a count").1)
        .collect()
        .await;
    counts.into_iter().sum()
}

/// What the relay does with a letter.
async fn relay(sink: &JetStreamSink, snapshot: &Snapshot, age: Duration) {
    if !sink.has(snapshot, age).await.expect("looked") {
        sink.deliver(snapshot).await.expect("delivered");
    }
}

fn next_of(snapshot: &Snapshot) -> Snapshot {
    Snapshot {
        attempt: AttemptId::generate(),
        ..snapshot.clone()
    }
}

async fn comes_once(config: &str, size: usize) {
    let Some(nats) = Nats::start_private(config).await else {
        return;
    };
    let jetstream = forgetful(&nats).await;
    let sink = sink_with(&nats.url_as("test:test@"), settings()).await;
    until_ready(&sink).await;
    let first = snapshot_of(size);
    let (second, third) = (next_of(&first), next_of(&first));
    relay(&sink, &first, OLD).await;
    assert_eq!(messages_of(&jetstream, &first).await, 1, "it was not there");
    until_forgotten(&jetstream).await;

    // The same device's next ones do not hide it, nor does it answer for them.
    relay(&sink, &second, OLD).await;
    until_forgotten(&jetstream).await;
    assert_eq!(messages_of(&jetstream, &first).await, 2);
    for snapshot in [&first, &second] {
        assert!(sink.has(snapshot, OLD).await.expect("looked"));
        relay(&sink, snapshot, OLD).await;
    }
    assert!(!sink.has(&third, OLD).await.expect("looked"));
    assert_eq!(messages_of(&jetstream, &first).await, 2, "each came once");

    // So it would have been without looking.
    sink.deliver(&first).await.expect("delivered");
    assert_eq!(messages_of(&jetstream, &first).await, 3);
    // One that is young is not looked for: the stream knows its id.
    assert!(!sink.has(&first, Duration::ZERO).await.expect("not looked"));
}

#[tokio::test]
async fn a_message_that_the_stream_has_forgotten_is_found_and_comes_once() {
    comes_once(
        "authorization { users: [{ user: test, password: test }] }",
        0,
    )
    .await;
}

#[tokio::test]
async fn an_event_with_a_reference_is_found_and_comes_once() {
    let config = "max_payload: 8192\nauthorization { users: [{ user: test, password: test }] }";
    comes_once(config, 100_000).await;
}

/// Without the right to look it is published: twice is allowed, and never is not.
#[tokio::test]
async fn what_may_not_be_looked_for_is_published_and_waits_once_only() {
    let config = "authorization { users: [
      { user: test, password: test }
      { user: poller, password: poller, permissions: { publish: [
          \"config.snapshot.create.>\", \"$JS.API.STREAM.NAMES\", \"$JS.API.STREAM.INFO.*\" ],
        subscribe: \"_INBOX.>\" } } ] }";
    let Some(nats) = Nats::start_private(config).await else {
        return;
    };
    let jetstream = forgetful(&nats).await;
    let impatient = Settings {
        ack_timeout: AT_ONCE,
        ..settings()
    };
    let sink = sink_with(&nats.url_as("poller:poller@"), impatient).await;
    until_ready(&sink).await;
    let first = snapshot();
    relay(&sink, &first, OLD).await;
    until_forgotten(&jetstream).await;
    let begun = Instant::now();
    for _ in 0..10 {
        assert!(!sink.has(&first, OLD).await.expect("not looked"));
    }
    let took = begun.elapsed();
    assert!(took < 2 * AT_ONCE, "only the first look waits: {took:?}");
    relay(&sink, &first, OLD).await;
    assert_eq!(messages_of(&jetstream, &first).await, 2);
}
