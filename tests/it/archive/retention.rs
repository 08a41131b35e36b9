//! Pruning: what goes, what stays, and the texts behind it.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use mikrotik_backup::archive::{Expired, Pruned, expired, prune};
use mikrotik_backup::domain::archive::{Period, Retention, Tier, VersionId};
use mikrotik_backup::ports::{Archive, Collected};
use time::Duration;

use super::bench::{Bench, START, config, device, history, snapshot};

on_both!(
    old_versions_go_and_their_texts_with_them,
    the_newest_stays_whatever_is_asked,
    a_text_that_comes_back_while_it_is_collected_stays,
);

async fn old_versions_go_and_their_texts_with_them(bench: &Bench) {
    let archive = bench.archive();
    let (busy, quiet) = (device(), device());
    // Two changes a day for ten days; the start is at four in the morning.
    for n in 0..20_u8 {
        let snapshot = snapshot(busy, i64::from(n) * 12, &config(n));
        archive.store(&snapshot).await.expect("store");
    }
    // One of them is still some other router's configuration.
    let shared = snapshot(quiet, 0, &config(0));
    archive.store(&shared).await.expect("store");
    let retention = Retention {
        all_days: 2,
        then: vec![Tier {
            every: Period::Day,
            days: 5,
        }],
    };
    let now = START + Duration::days(10);
    let planned: Vec<Expired> = expired(&archive, &retention, now)
        .try_collect()
        .await
        .expect("plan");
    let before = history(&archive, busy).await;
    assert_eq!(before.len(), 20, "nothing is deleted");

    let pruned = prune(&archive, &retention, now).await.expect("prune");
    let after = history(&archive, busy).await;
    let gone: Vec<VersionId> = before
        .iter()
        .filter(|version| !after.contains(version))
        .map(|version| version.id)
        .collect();
    let mut wanted = vec![(busy, 20, gone), (quiet, 1, vec![])];
    wanted.sort();
    let planned: Vec<_> = planned
        .into_iter()
        .map(|it| (it.device, it.examined, it.versions))
        .collect();
    assert_eq!(planned, wanted, "the plan is what is done");
    let hours: Vec<i64> = history(&archive, busy)
        .await
        .iter()
        .map(|version| (version.first.position.at - START).whole_hours())
        .collect();
    // Days end at 20 hours after the start and its multiples: the second change of a day is its
    // last. Replaced within five days: from hour 108. Replaced within two: from hour 180.
    assert_eq!(hours, [108, 132, 156, 180, 192, 204, 216, 228]);
    let expected = Pruned {
        devices: 2,
        examined: 21,
        versions: 12,
        texts: 11,
    };
    assert_eq!(pruned, expected);
    assert_eq!(bench.count("archive_contents").await, 9);
    for version in history(&archive, busy).await {
        archive.open(version.id).await.expect("what is kept opens");
    }
    let quiet = history(&archive, quiet).await;
    archive
        .open(quiet[0].id)
        .await
        .expect("the shared text stays");
}

async fn the_newest_stays_whatever_is_asked(bench: &Bench) {
    let archive = bench.archive();
    let device = device();
    for n in 0..3_u8 {
        let snapshot = snapshot(device, n.into(), &config(n));
        archive.store(&snapshot).await.expect("store");
    }
    let all: Vec<VersionId> = history(&archive, device)
        .await
        .iter()
        .map(|version| version.id)
        .collect();
    let elsewhere = archive.delete(super::bench::device(), &all).await;
    assert_eq!(elsewhere.expect("delete"), 0, "they are another device's");
    assert_eq!(archive.delete(device, &all).await.expect("delete"), 2);
    assert_eq!(archive.delete(device, &all).await.expect("delete"), 0);
    assert_eq!(history(&archive, device).await.len(), 1);
    // A batch at a time.
    let one = Collected {
        examined: 1,
        deleted: 1,
    };
    for expected in [one, one, Collected::default()] {
        assert_eq!(archive.collect_garbage(1).await.expect("collect"), expected);
    }
    // The device goes on: what follows is compared with what is left.
    let next = snapshot(device, 9, &config(9));
    archive.store(&next).await.expect("store");
    assert_eq!(history(&archive, device).await.len(), 2);
}

/// One task makes and deletes versions with a text, another collects garbage, a third stores the
/// same text for other devices: each of those opens.
async fn a_text_that_comes_back_while_it_is_collected_stays(bench: &Bench) {
    let archive = Arc::new(bench.archive());
    let deleting = {
        let archive = Arc::clone(&archive);
        tokio::spawn(async move {
            let device = device();
            for hour in 0..40 {
                let number = if hour % 2 == 0 { 1 } else { 2 };
                let snapshot = snapshot(device, hour, &config(number));
                let stored = archive.store(&snapshot).await.expect("store");
                let old = history(&*archive, device).await;
                let old: Vec<VersionId> = old.iter().map(|version| version.id).collect();
                archive.delete(device, &old).await.expect("delete");
                assert!(old.contains(&stored.version));
            }
        })
    };
    let collecting = {
        let archive = Arc::clone(&archive);
        tokio::spawn(async move {
            while !deleting.is_finished() {
                archive.collect_garbage(10).await.expect("collect");
            }
            deleting.await.expect("no panic");
        })
    };
    let mut devices = Vec::new();
    while !collecting.is_finished() {
        let device = device();
        for (hour, number) in [(0, 1), (1, 2)] {
            let snapshot = snapshot(device, hour, &config(number));
            archive.store(&snapshot).await.expect("store");
        }
        let versions = history(&*archive, device).await;
        archive
            .delete(device, &[versions[0].id])
            .await
            .expect("delete");
        devices.push(device);
    }
    collecting.await.expect("no panic");
    while archive
        .collect_garbage(100)
        .await
        .expect("collect")
        .examined
        > 0
    {}
    for device in devices {
        let versions = history(&*archive, device).await;
        assert_eq!(versions.len(), 1);
        archive
            .open(versions[0].id)
            .await
            .expect("its text is there");
    }
    assert!(bench.count("archive_contents").await <= 2, "nothing leaks");
}
