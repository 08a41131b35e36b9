//! SIGKILL at random moments under load: the database opens, nothing that was stored is lost or
//! torn, and the schedule goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mikrotik_backup::domain::attempt::Status;
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::sim::Router;
use nix::sys::signal::Signal;

use super::harness::{Folder, router};
use crate::cluster::poll::until;

const ROUTERS: u8 = 12;
const KILLS: u32 = 50;

/// Every router is due every second or so.
const BUSY: &[(&str, &str)] = &[
    ("CONFIG_BACKUP_INTERVAL", "1"),
    ("CONFIG_BACKUP_MAX_CONCURRENT", "6"),
];

/// What the journal says was stored: the hashes of each device.
async fn journaled(folder: &Folder) -> BTreeMap<DeviceId, BTreeSet<String>> {
    let mut hashes: BTreeMap<DeviceId, BTreeSet<String>> = BTreeMap::new();
    for row in folder.journal().await {
        if row.status == Status::Success {
            let hash = row.sha256_hash.expect("a success has a hash");
            hashes.entry(row.device).or_default().insert(hash);
        }
    }
    hashes
}

async fn archived(folder: &Folder, device: DeviceId) -> BTreeSet<String> {
    let versions = folder.versions(device).await;
    versions
        .iter()
        .map(|version| version.first.hash.to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_under_load_lose_and_tear_nothing() {
    let folder = Folder::new();
    let mut fleet: Vec<(Router, DeviceId)> = Vec::new();
    for n in 1..=ROUTERS {
        let router = router(&format!("edge-{n}"), [127, 83, 0, n]);
        let device = folder.insert(&router).await;
        fleet.push((router, device));
    }
    for kill in 0..KILLS {
        let name = format!("killed-{kill}");
        let mut service = folder.run(&name, BUSY).await;
        for (router, _) in &fleet {
            router.change(|configuration| configuration.add_firewall_rule(format!("rule {kill}")));
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..700))).await;
        service.signal(Signal::SIGKILL);
        assert_eq!(service.exit_code().await, 128 + 9);
        // A reader needs nobody to repair anything first.
        journaled(&folder).await;
    }
    let before = folder.journal().await.len();
    assert!(
        before > usize::from(ROUTERS),
        "only {before} attempts: no load"
    );

    let mut service = folder.run("last", BUSY).await;
    until("every router is backed up again", || async {
        let mut good = BTreeSet::new();
        let journal = folder.journal().await;
        let new = journal.len().saturating_sub(before);
        for row in journal.iter().take(new) {
            if row.status == Status::Success {
                good.insert(row.device);
            }
        }
        (good.len() == fleet.len()).then_some(())
    })
    .await;
    service.signal(Signal::SIGTERM);
    assert_eq!(service.exit_code().await, 0, "{}", service.log());

    let journaled = journaled(&folder).await;
    for (router, device) in &fleet {
        let archived = archived(&folder, *device).await;
        let lost: Vec<_> = journaled[device].difference(&archived).collect();
        assert!(
            lost.is_empty(),
            "{}: {lost:?} of {archived:?}",
            router.name()
        );
        folder.every_version_opens(*device).await;
        // The rules are counted: no attempt wrote half of a configuration.
        let newest = folder.newest_text(*device).await;
        assert!(
            newest.contains(&format!("rule {}", KILLS - 1)),
            "{}",
            router.name()
        );
    }
    let database = folder.data().join("mikrotik-backup.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", database.display()))
        .await
        .expect("open the database");
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&pool)
        .await
        .expect("check the database");
    assert_eq!(verdict, "ok");
}
