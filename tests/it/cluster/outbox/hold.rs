//! NATS and Redis both away while exports are running: what was taken is held by its process, and
//! arrives once, with no second export.

mod elsewhere;
mod ends;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mikrotik_backup::sim::{Fault, Router, SECRET_MARK};
use serde_json::Value;
use uuid::Uuid;

use super::{ONCE, drained, exactly_once_in_order, fleet, leftovers, shows};
use crate::cluster::harness::{Cluster, Replica, base64, get};
use crate::cluster::poll::until;
use crate::services::disk::Small;

const ON_DISK: &str = "mikrotik_config_backup_outbox_held_snapshots{place=\"disk\"}";
const IN_MEMORY: &str = "mikrotik_config_backup_outbox_held_snapshots{place=\"memory\"}";
const HELD: &str = "status = 'queued' AND held_until > now() + interval '1 minute'";

/// An export stands still for so long in its middle.
const SLOW: Fault = Fault::PauseMidOutput(Duration::from_secs(3));

/// A cluster in whose replica every export was running when NATS and Redis went away.
struct Scene {
    cluster: Cluster,
    replica: Replica,
    fleet: Vec<(Router, Uuid)>,
}

impl Scene {
    async fn set(net: u8, count: u8, overrides: &[(&str, &str)]) -> Option<Self> {
        let mut cluster = Cluster::start().await?;
        let fleet = fleet(&cluster, net, count).await;
        for (router, _) in &fleet {
            router.set_fault_for(SLOW, 1);
        }
        let overrides = [&ONCE[..], overrides].concat();
        let replica = cluster.replica("holder", &overrides).await;
        exporting(&fleet).await;
        cluster.nats.stop();
        cluster.redis.stop();
        Some(Self {
            cluster,
            replica,
            fleet,
        })
    }

    /// Waits until `series` says that this much is held, and the journal that all of it is.
    async fn holds(&self, series: &str, count: usize) {
        shows(&self.replica, series, count as f64).await;
        until("the attempts to be recorded as held", || async {
            let held = self.cluster.attempts(HELD).await;
            (usize::try_from(held) == Ok(self.fleet.len())).then_some(())
        })
        .await;
    }

    /// Redis first: what is held goes into the outbox, and waits there for NATS.
    async fn give_back(&mut self) {
        self.cluster.redis.start().await;
        self.cluster.nats.start().await;
    }

    /// Everything has arrived once, and no router was asked twice.
    async fn has_lost_nothing(&self) {
        drained(&self.cluster).await;
        exactly_once_in_order(&self.cluster).await;
        assert_eq!(leftovers(&self.cluster).await, [""; 0]);
        let succeeded = self.cluster.attempts("status = 'success'").await;
        assert_eq!(usize::try_from(succeeded), Ok(self.fleet.len()));
        for (router, device) in &self.fleet {
            assert_eq!(router.stats().exports_begun, 1, "{device}");
        }
        assert_eq!(files(&self.cluster.directory().join("data")), [""; 0]);
    }

    async fn readyz(&self) -> Value {
        let page = get(&self.replica.http, "/readyz").await.expect("a page");
        serde_json::from_str(&page).expect("JSON")
    }

    fn logged(&self, text: &str) -> usize {
        self.replica.log().matches(text).count()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.replica.log());
        }
    }
}

/// Waits until each router is in the middle of an export.
async fn exporting(fleet: &[(Router, Uuid)]) {
    until("every router to export", || async {
        let begun = |router: &Router| router.stats().exports_begun;
        let all = fleet.iter().all(|(router, _)| begun(router) == 1);
        all.then_some(())
    })
    .await;
}

/// The names of all letters that are held in a `DATA_DIR`, whoever owns them.
fn files(data_dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = paths(data_dir)
        .iter()
        .map(|path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into()
        })
        .filter(|name| name != "lock")
        .collect();
    names.sort();
    names
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(paths(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn held_on_disk_everything_arrives_once_and_nothing_is_readable() {
    let Some(mut scene) = Scene::set(81, 6, &[]).await else {
        return;
    };
    scene.holds(ON_DISK, 6).await;
    let page = scene.readyz().await;
    let named: Vec<_> = page["failing"].as_object().expect("away").keys().collect();
    assert_eq!(named, ["nats", "redis"]);
    let held = &page["held"];
    assert_eq!(
        (&held["snapshots"], &held["disk"]["snapshots"]),
        (&6.into(), &6.into())
    );
    assert_eq!(held["memory"]["snapshots"], 0);
    assert!(
        held["disk"]["bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 6000),
        "{held}"
    );
    assert_eq!(held["folder"], "./data/held");
    assert_eq!(
        scene.logged("this process holds them until Redis answers"),
        1
    );

    let data = scene.cluster.directory().join("data");
    assert_eq!(files(&data).len(), 6);
    for path in paths(&data) {
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        let text = fs::read_to_string(&path).expect("JSON");
        for secret in [SECRET_MARK, "/ip ", "admin-mac", "add address"] {
            assert!(!text.contains(secret), "{secret} is in {}", path.display());
        }
        let encoded = base64(b"# ");
        assert!(!text.contains(&format!("\"payload\":\"{}", &encoded[..2])));
    }
    for folder in ["data", "data/held", "data/held/0"] {
        let metadata = fs::metadata(scene.cluster.directory().join(folder));
        let mode = metadata.expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
    for (_, device) in &scene.fleet {
        let state = scene.cluster.state(*device).await.expect("a state");
        assert_eq!((state.status.as_str(), state.failures), ("queued", 0));
        assert!(state.due_in.is_some_and(|due| due > 20_000.0), "{state:?}");
    }

    scene.give_back().await;
    scene.has_lost_nothing().await;
    shows(&scene.replica, ON_DISK, 0.0).await;
    assert_eq!(
        scene.logged("Every snapshot that was held is in the outbox now"),
        1
    );
    until("/readyz to be happy again", || async {
        (scene.readyz().await == serde_json::json!({"status": "ready"})).then_some(())
    })
    .await;
    assert_eq!(scene.cluster.attempts("held_until IS NOT NULL").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn held_in_memory_where_no_folder_can_be_made_everything_arrives_once() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let no_folder = file.path().to_str().expect("text");
    let Some(mut scene) = Scene::set(82, 4, &[("DATA_DIR", no_folder)]).await else {
        return;
    };
    scene.holds(IN_MEMORY, 4).await;
    let page = scene.readyz().await;
    assert_eq!(page["held"]["memory"]["snapshots"], 4, "{page}");
    assert_eq!(
        scene.logged("Snapshots cannot be held on disk, only in memory"),
        1
    );
    assert_eq!(
        scene.logged("this process holds them until Redis answers"),
        1
    );
    scene.give_back().await;
    scene.has_lost_nothing().await;
    shows(&scene.replica, IN_MEMORY, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_no_reason_to_lose_anything() {
    let Some(disk) = Small::mount() else {
        return;
    };
    let data = disk.path().join("data").display().to_string();
    disk.fill();
    let Some(mut scene) = Scene::set(83, 3, &[("DATA_DIR", &data)]).await else {
        return;
    };
    scene.holds(IN_MEMORY, 3).await;
    assert!(scene.replica.log().contains("No space left on device"));
    let half = files(Path::new(&data));
    assert_eq!(half, [""; 0], "nothing that is half written");
    scene.give_back().await;
    scene.has_lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_an_attempt_fails_and_says_what_to_do() {
    let bound = [("OUTBOX_MAX_BYTES", "4096")];
    let Some(mut scene) = Scene::set(84, 8, &bound).await else {
        return;
    };
    until("every attempt to be recorded", || async {
        (scene.cluster.attempts("true").await == 8).then_some(())
    })
    .await;
    let held = scene.cluster.attempts(HELD).await;
    assert!((1..8).contains(&held), "{held} are held");
    let page = scene.readyz().await;
    assert_eq!(page["held"]["snapshots"], held);
    for place in ["disk", "memory"] {
        let bytes = page["held"][place]["bytes"].as_u64();
        assert!(bytes.is_some_and(|bytes| bytes <= 4096), "{page}");
    }
    let errors: Vec<String> = sqlx::query_scalar(
        "SELECT error FROM mikrotik_backup.attempts \
         WHERE status = 'failed' AND error_kind = 'publish_failed'",
    )
    .fetch_all(scene.cluster.pool())
    .await
    .expect("read the journal");
    assert_eq!(
        errors.len() as i64,
        8 - held,
        "held or failed, and nothing else"
    );
    for error in errors {
        for part in [
            "no more can be held",
            "of 4096 bytes",
            "raise OUTBOX_MAX_BYTES",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
    scene.give_back().await;
    drained(&scene.cluster).await;
    assert_eq!(scene.cluster.attempts("status = 'success'").await, held);
    exactly_once_in_order(&scene.cluster).await;
}
