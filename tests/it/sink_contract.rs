//! What every sink of snapshots promises, asked of the archive on both databases and of JetStream.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mikrotik_backup::adapters::jetstream::{JetStreamSink, Settings, SnapshotEvent};
use mikrotik_backup::domain::attempt::AttemptId;
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::domain::failure::chain;
use mikrotik_backup::domain::snapshot::{ConfigText, Snapshot};
use mikrotik_backup::ports::{Archive as _, SinkError, SnapshotSink, VersionPage};
use uuid::Uuid;

use crate::archive::bench::{Bench, config, device, snapshot};
use crate::services::nats::Nats;

/// A sink, and how to see what it keeps and take it away.
enum Place {
    Archive(Bench),
    JetStream(Box<Nats>, Box<JetStreamSink>),
}

impl Place {
    async fn jetstream() -> Option<Self> {
        let nats = Nats::start_private("").await?;
        let settings = Settings {
            stream_max_bytes: 64 << 20,
            ..Settings::default()
        };
        let sink = JetStreamSink::connect(&nats.url(), settings).await;
        let sink = sink.expect("the URL of the test's server");
        Some(Self::JetStream(Box::new(nats), Box::new(sink)))
    }

    /// The sink as another process would have it, or the same one.
    fn sink(&self) -> Box<dyn SnapshotSink + '_> {
        match self {
            Self::Archive(bench) => Box::new(bench.archive()),
            Self::JetStream(_, sink) => Box::new(Shared(sink)),
        }
    }

    async fn ready_sink(&self) -> Box<dyn SnapshotSink + '_> {
        let sink = self.sink();
        let begun = Instant::now();
        while let Err(error) = sink.ready().await {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{}",
                chain(&error)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sink
    }

    /// Every text that is kept, by device and attempt.
    async fn kept(&self, devices: &[DeviceId]) -> BTreeMap<(DeviceId, AttemptId), ConfigText> {
        let mut kept = BTreeMap::new();
        match self {
            Self::Archive(bench) => {
                let archive = bench.archive();
                for device in devices {
                    let page = VersionPage::first(1000);
                    for version in archive.versions(*device, page).await.expect("list") {
                        let opened = archive.open(version.id).await.expect("open");
                        let attempt = version.first.position.attempt;
                        assert_eq!(kept.insert((*device, attempt), opened.text), None);
                    }
                }
            }
            Self::JetStream(nats, _) => {
                let jetstream = nats.jetstream().await;
                let stream = jetstream.get_stream("CONFIG_SNAPSHOTS").await;
                let stream = stream.expect("the stream");
                for sequence in 1..=stream.cached_info().state.last_sequence {
                    let message = stream.get_raw_message(sequence).await.expect("a message");
                    let id = message.headers.get("Nats-Msg-Id").expect("an id").as_str();
                    let attempt = AttemptId(Uuid::try_parse(id).expect("an attempt"));
                    let event: SnapshotEvent =
                        serde_json::from_slice(&message.payload).expect("an event");
                    let text = event.config_text.expect("a text");
                    assert_eq!(text.digest(), event.sha256_hash);
                    if devices.contains(&event.device_id) {
                        assert_eq!(kept.insert((event.device_id, attempt), text), None);
                    }
                }
            }
        }
        kept
    }

    async fn go_away(&mut self) {
        match self {
            Self::Archive(Bench::Postgres(pool)) => pool.close().await,
            Self::Archive(Bench::Sqlite(pool, _)) => pool.close().await,
            Self::JetStream(nats, _) => nats.stop(),
        }
    }
}

struct Shared<'a>(&'a JetStreamSink);

#[async_trait::async_trait]
impl SnapshotSink for Shared<'_> {
    async fn ready(&self) -> Result<(), SinkError> {
        self.0.ready().await
    }

    async fn deliver(&self, snapshot: &Snapshot) -> Result<(), SinkError> {
        self.0.deliver(snapshot).await
    }
}

fn texts(snapshots: &[Snapshot]) -> BTreeMap<(DeviceId, AttemptId), ConfigText> {
    let text = |one: &Snapshot| ((one.device, one.attempt), one.text.clone());
    snapshots.iter().map(text).collect()
}

async fn what_is_delivered_can_be_read_back(place: &mut Place) {
    let device = device();
    let snapshots = [
        snapshot(device, 0, &config(1)),
        snapshot(device, 1, &config(2)),
    ];
    let sink = place.ready_sink().await;
    for snapshot in &snapshots {
        sink.deliver(snapshot).await.expect("delivered");
        // At once: what is delivered is durable.
        assert!(
            place
                .kept(&[device])
                .await
                .contains_key(&(device, snapshot.attempt))
        );
    }
    assert_eq!(place.kept(&[device]).await, texts(&snapshots));
}

async fn an_attempt_delivered_twice_is_there_once(place: &mut Place) {
    let device = device();
    let first = snapshot(device, 0, &config(1));
    let second = snapshot(device, 1, &config(2));
    let sink = place.ready_sink().await;
    for snapshot in [&first, &first, &second, &first, &second] {
        sink.deliver(snapshot).await.expect("delivered");
    }
    let again = place.ready_sink().await;
    again.deliver(&second).await.expect("delivered");
    assert_eq!(place.kept(&[device]).await, texts(&[first, second]));
}

async fn many_at_once_are_all_there(place: &mut Place) {
    let devices: Vec<DeviceId> = std::iter::repeat_with(device).take(6).collect();
    let snapshots: Vec<Snapshot> = devices
        .iter()
        .flat_map(|device| (1..=5).map(|number| snapshot(*device, number.into(), &config(number))))
        .collect();
    let sink = place.ready_sink().await;
    // Each twice, at the same time.
    let both = snapshots.iter().chain(&snapshots);
    for delivered in join_all(both.map(|snapshot| sink.deliver(snapshot))).await {
        delivered.expect("delivered");
    }
    assert_eq!(place.kept(&devices).await, texts(&snapshots));
}

async fn a_sink_that_is_away_says_so(place: &mut Place) {
    let before = snapshot(device(), 0, &config(1));
    place
        .ready_sink()
        .await
        .deliver(&before)
        .await
        .expect("delivered");
    place.go_away().await;
    let sink = place.sink();
    let begun = Instant::now();
    let error = loop {
        match sink.ready().await {
            Err(error) => break error,
            Ok(()) => assert!(begun.elapsed() < Duration::from_secs(20), "still ready"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(
        matches!(error, SinkError::Unavailable { .. }),
        "{}",
        chain(&error)
    );
    let after = snapshot(device(), 1, &config(2));
    let error = sink.deliver(&after).await.expect_err("it is away");
    assert!(
        matches!(error, SinkError::Unavailable { .. }),
        "{}",
        chain(&error)
    );
    assert!(!format!("{} {error:?}", chain(&error)).contains("hidden-word"));
}

macro_rules! on_every_sink {
    ($($case:ident),* $(,)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                if let Some(bench) = super::Bench::postgres().await {
                    super::$case(&mut super::Place::Archive(bench)).await;
                }
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(&mut super::Place::Archive(super::Bench::sqlite().await)).await;
            })*
        }
        mod jetstream {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                if let Some(mut place) = super::Place::jetstream().await {
                    super::$case(&mut place).await;
                }
            })*
        }
    };
}

on_every_sink!(
    what_is_delivered_can_be_read_back,
    an_attempt_delivered_twice_is_there_once,
    many_at_once_are_all_there,
    a_sink_that_is_away_says_so,
);
