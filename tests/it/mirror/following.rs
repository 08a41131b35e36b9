//! How the mirror follows an archive: late arrivals, what was missed, and trouble that passes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use mikrotik_backup::adapters::archive::SealedArchive;
use mikrotik_backup::adapters::git::GitMirror;
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::metrics::Metrics;
use mikrotik_backup::mirror::{Following, Mirror, Mirrored, Place, Places};
use mikrotik_backup::ports::{Archive as _, SnapshotSink as _};
use tempfile::TempDir;

use super::{content, files, git, git_is_there, is_sound, subjects};
use crate::archive::bench::{Bench, config, device, history, snapshot};
use crate::cluster::poll::until;

const LONG: Duration = Duration::from_secs(30);

/// An archive with a mirror that can be stopped and started.
struct Stage {
    archive: Arc<SealedArchive>,
    metrics: Arc<Metrics>,
    names: Arc<Mutex<BTreeMap<DeviceId, Place>>>,
    _bench: Bench,
    place: TempDir,
}

impl Stage {
    async fn set() -> Self {
        let bench = Bench::sqlite().await;
        Self {
            archive: Arc::new(bench.archive()),
            metrics: Arc::new(Metrics::new().expect("metrics")),
            names: Arc::default(),
            _bench: bench,
            place: tempfile::tempdir().expect("a folder"),
        }
    }

    fn folder(&self) -> PathBuf {
        self.place.path().join("mirror")
    }

    fn call(&self, device: DeviceId, folder: &str, name: &str) {
        let place = Place {
            folder: folder.to_owned(),
            name: name.to_owned(),
        };
        self.names.lock().expect("names").insert(device, place);
    }

    fn follow(&self) -> (Mirror, Following) {
        let mirror = Mirror::default();
        let names = self.names.clone();
        let places: Places = Arc::new(move |device| {
            let place = names.lock().expect("names").get(&device).cloned();
            async move { Ok(place) }.boxed()
        });
        let git = GitMirror::new(self.folder(), "test");
        let following = mirror.follow(git, self.archive.clone(), places, self.metrics.mirror());
        (mirror, following)
    }

    async fn store(&self, device: DeviceId, hours: i64, number: u8) {
        let stored = self
            .archive
            .store(&snapshot(device, hours, &config(number)))
            .await;
        stored.expect("store");
    }

    fn counted(&self, sample: &str) -> bool {
        self.metrics.render().expect("a page").contains(sample)
    }
}

fn changed(folder: &Path) -> Vec<String> {
    let patches = git(
        folder,
        &["log", "--reverse", "-p", "--unified=0", "--format=", "main"],
    );
    let added = patches
        .lines()
        .filter_map(|line| line.strip_prefix("+set servers=192.0.2."));
    added.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_committed_once_and_late_ones_change_nothing() {
    if !git_is_there() {
        return;
    }
    let stage = Stage::set().await;
    let device = device();
    stage.call(device, "core", "edge-1");
    let (mirror, _following) = stage.follow();
    let sink = Mirrored::new(stage.archive.clone(), mirror.clone());
    for (hours, number) in [
        (0, 1),
        (6, 1),
        (12, 2),
        (18, 3),
        (15, 9),
        (3, 8),
        (24, 3),
        (30, 1),
    ] {
        let snapshot = snapshot(device, hours, &config(number));
        sink.deliver(&snapshot).await.expect("deliver");
        sink.deliver(&snapshot).await.expect("deliver it again");
        mirror.settled(LONG).await;
    }
    let folder = stage.folder();
    assert_eq!(changed(&folder), ["1", "2", "3", "1"]);
    let summary = "edge-1: 1 line added, 1 removed in /ip dns";
    assert_eq!(
        subjects(&folder),
        ["edge-1: first version, 4 lines", summary, summary, summary]
    );
    assert_eq!(content(&folder), config(1));
    assert!(
        history(stage.archive.as_ref(), device).await.len() > 4,
        "the archive has all"
    );
    assert!(stage.counted("mikrotik_git_mirror_commits_total{status=\"success\"} 4"));
    assert!(stage.counted("mikrotik_git_mirror_pending_devices 0"));
    is_sound(&folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_follows_in_order_at_the_next_start() {
    if !git_is_there() {
        return;
    }
    let stage = Stage::set().await;
    let (one, two) = (device(), device());
    stage.call(one, "core", "edge-1");
    let (mirror, following) = stage.follow();
    stage.store(one, 0, 1).await;
    mirror.changed(one);
    mirror.settled(LONG).await;
    drop(following);

    // Stored while nobody mirrors: changes of a known device, and a device that is not known at all.
    for (hours, number) in [(6, 2), (12, 3), (18, 4)] {
        stage.store(one, hours, number).await;
        stage.store(two, hours, number).await;
    }
    let (mirror, _following) = stage.follow();
    mirror.catch_up();
    mirror.settled(LONG).await;
    let folder = stage.folder();
    let log = git(
        &folder,
        &["log", "--reverse", "--format=%at", "main", "--", "core"],
    );
    assert_eq!(log.lines().count(), 4, "each version that was missed");
    let mut sorted: Vec<&str> = log.lines().collect();
    sorted.sort_unstable();
    assert_eq!(sorted, log.lines().collect::<Vec<_>>(), "in order");
    // The other one begins with what it has now.
    let tenant = "00000000-0000-0000-0000-000000000005";
    let log = git(&folder, &["log", "--format=%s", "main", "--", tenant]);
    assert_eq!(log, "unknown: first version in this mirror, 4 lines\n");
    mirror.catch_up();
    mirror.settled(LONG).await;
    assert_eq!(subjects(&folder).len(), 5, "nothing comes twice");
    is_sound(&folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_device_is_moved_with_its_next_backup() {
    if !git_is_there() {
        return;
    }
    let stage = Stage::set().await;
    let device = device();
    stage.call(device, "core", "edge-1");
    let (mirror, _following) = stage.follow();
    for (hours, name, number) in [(0, "edge-1", 1), (6, "Edge/1", 1), (12, "edge-2", 2)] {
        stage.call(device, "core", name);
        stage.store(device, hours, number).await;
        mirror.changed(device);
        mirror.settled(LONG).await;
    }
    stage.names.lock().expect("names").clear();
    stage.store(device, 18, 3).await;
    mirror.changed(device);
    mirror.settled(LONG).await;
    let change = "1 line added, 1 removed in /ip dns";
    assert_eq!(
        subjects(&stage.folder()),
        [
            "edge-1: first version, 4 lines".to_owned(),
            "Edge/1: renamed from edge-1".to_owned(),
            format!("edge-2: {change}, renamed from Edge/1"),
            // Removed from the inventory meanwhile.
            format!("edge-2: {change}"),
        ]
    );
    assert_eq!(files(&stage.folder()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_counted_and_passes_with_its_cause() {
    if !git_is_there() {
        return;
    }
    let stage = Stage::set().await;
    let device = device();
    stage.call(device, "core", "edge-1");
    let folder = stage.folder();
    std::fs::create_dir(&folder).expect("make it");
    std::fs::write(folder.join("theirs"), "").expect("write");
    let (mirror, _following) = stage.follow();
    let sink = Mirrored::new(stage.archive.clone(), mirror.clone());
    let deliver = async |hours, number| {
        let snapshot = snapshot(device, hours, &config(number));
        sink.deliver(&snapshot).await.expect("the archive takes it");
    };
    deliver(0, 1).await;
    until("the trouble is counted", || async {
        let behind = stage.counted("mikrotik_git_mirror_pending_devices 1")
            && !stage.counted("mikrotik_git_mirror_commits_total{status=\"error\"} 0");
        behind.then_some(())
    })
    .await;
    deliver(6, 2).await;
    // At once, as `mv` does it: an empty folder would be taken before it is removed.
    let move_away = |name| std::fs::rename(&folder, stage.place.path().join(name));
    move_away("theirs").expect("move it away");
    deliver(12, 3).await;
    let shows = async |number| {
        until("the mirror follows", || async {
            let there = folder.join(".git/refs/heads/main").exists();
            let done = there
                && content(&folder) == config(number)
                && stage.counted("mikrotik_git_mirror_pending_devices 0");
            done.then_some(())
        })
        .await;
    };
    shows(3).await;
    // A mirror that is taken away while it is followed begins anew.
    move_away("ours").expect("move it away");
    deliver(18, 4).await;
    shows(4).await;
    assert_eq!(history(stage.archive.as_ref(), device).await.len(), 4);
}
