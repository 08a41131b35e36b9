//! `prune` beside a running service: it is asked, and goes on.

use mikrotik_backup::adapters::archive::SealedArchive;
use mikrotik_backup::adapters::sqlite::SqliteStore;
use mikrotik_backup::clock::Clock;
use mikrotik_backup::ports::Archive as _;
use mikrotik_backup::routeros;

use super::harness::{Folder, router};
use crate::archive::bench::{config, snapshot};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_prunes_when_it_is_asked() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 87, 0, 1]);
    let device = folder.insert(&router).await;
    let store = SqliteStore::open(&folder.data(), None, Clock::System).await;
    let store = store.expect("open the store");
    let (pool, key) = (
        store.writer().expect("for writing"),
        store.key().expect("a key"),
    );
    let archive = SealedArchive::sqlite(pool.clone(), key.clone(), routeros::renormalize());
    for number in 1..=4 {
        let old = snapshot(device, i64::from(number), &config(number));
        archive.store(&old).await.expect("store");
    }
    store.close().await;
    let service = folder
        .run("service", &[("CONFIG_BACKUP_INTERVAL", "86400")])
        .await;
    folder.backed_up(device, 1).await;
    assert_eq!(folder.versions(device).await.len(), 5);

    let prune = ["prune", "--keep-all", "7"];
    let dry = folder
        .cli(&[&prune[..], &["--dry-run"]].concat(), "")
        .await
        .exits(0);
    assert!(
        dry.stdout.contains("edge-1: 3 versions would go\n"),
        "{dry:?}"
    );
    assert!(
        dry.stdout
            .contains("3 of 5 versions of 1 device would be deleted"),
        "{dry:?}"
    );
    assert_eq!(folder.versions(device).await.len(), 5, "nothing is deleted");

    let done = folder.cli(&prune, "").await.exits(0);
    let told = "3 of 5 versions of 1 device deleted, and 3 texts that no other version has\n";
    assert!(done.stdout.contains(told), "{done:?}");
    assert!(
        done.stdout
            .contains("0 attempts older than 90 days left the journal"),
        "{done:?}"
    );
    assert_eq!(folder.versions(device).await.len(), 2);
    folder.every_version_opens(device).await;
    assert!(
        service.log().contains("Pruned the archive on request"),
        "{}",
        service.log()
    );
    // It goes on.
    let again = folder.cli(&["backup", "edge-1"], "").await.exits(0);
    assert!(again.stdout.contains("edge-1: unchanged"), "{again:?}");
}
