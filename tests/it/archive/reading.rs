//! Listing, opening and walking.

use futures_util::TryStreamExt;
use mikrotik_backup::archive;
use mikrotik_backup::domain::archive::VersionId;
use mikrotik_backup::ports::{Archive, ArchiveError, VersionPage};
use time::Duration;
use uuid::Uuid;

use super::bench::{Bench, START, config, device, history, snapshot};

on_both!(
    pages_follow_each_other,
    a_time_finds_the_version_of_then,
    the_newest_of_every_device_is_walked,
    what_is_not_there_is_said,
);

async fn pages_follow_each_other(bench: &Bench) {
    let archive = bench.archive();
    let device = device();
    for hour in 0..25 {
        let text = config(u8::try_from(hour).expect("few"));
        let snapshot = snapshot(device, hour, &text);
        archive.store(&snapshot).await.expect("store");
    }
    let other = snapshot(super::bench::device(), 3, &config(99));
    archive.store(&other).await.expect("store");
    let mut page = VersionPage::first(10);
    let mut seen = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let versions = archive.versions(device, page).await.expect("list");
        let Some(last) = versions.last() else { break };
        page = VersionPage::after(last, 10);
        sizes.push(versions.len());
        seen.extend(versions);
        // Deleting what was just listed does not disturb the next page.
        let gone = seen.last().expect("a page").id;
        archive.delete(device, &[gone]).await.expect("delete");
    }
    assert_eq!(sizes, [10, 10, 5]);
    let hours: Vec<i64> = seen
        .iter()
        .map(|version| (version.first.position.at - START).whole_hours())
        .collect();
    assert_eq!(hours, (0..25).rev().collect::<Vec<_>>());
}

async fn a_time_finds_the_version_of_then(bench: &Bench) {
    let archive = bench.archive();
    let device = device();
    for (hour, number) in [(10, 1), (20, 2)] {
        let snapshot = snapshot(device, hour, &config(number));
        archive.store(&snapshot).await.expect("store");
    }
    let at = async |at| {
        let found = archive.version_at(device, at).await.expect("look");
        found.map(|version| (version.first.position.at - START).whole_hours())
    };
    let hour = |hour| START + Duration::hours(hour);
    assert_eq!(at(hour(10) - Duration::microseconds(1)).await, None);
    assert_eq!(at(hour(10)).await, Some(10));
    assert_eq!(at(hour(20) - Duration::microseconds(1)).await, Some(10));
    let elsewhere = time::UtcOffset::from_hms(5, 30, 0).expect("an offset");
    assert_eq!(at(hour(20).to_offset(elsewhere)).await, Some(20));
    assert_eq!(at(hour(9000)).await, Some(20));
}

async fn the_newest_of_every_device_is_walked(bench: &Bench) {
    let archive = bench.archive();
    let mut expected = Vec::new();
    for number in 0..7 {
        let device = device();
        for (hour, text) in [(0, config(200)), (1, config(number))] {
            let snapshot = snapshot(device, hour, &text);
            archive.store(&snapshot).await.expect("store");
        }
        expected.push((device, config(number)));
    }
    expected.sort();
    let walked: Vec<_> = archive::newest(&archive)
        .map_ok(|(version, text)| {
            let text = text.expect("opens").expose().to_owned();
            (version.device, text)
        })
        .try_collect()
        .await
        .expect("walk");
    assert_eq!(walked, expected);
    let page = archive.newest(Some(expected[2].0), 2).await.expect("list");
    let devices: Vec<_> = page.iter().map(|version| version.device).collect();
    assert_eq!(devices, [expected[3].0, expected[4].0]);
}

async fn what_is_not_there_is_said(bench: &Bench) {
    let archive = bench.archive();
    let id = VersionId(Uuid::new_v4());
    let error = archive.open(id).await.expect_err("no such version");
    assert!(
        matches!(error, ArchiveError::NotFound(missing) if missing == id),
        "{error}"
    );
    assert_eq!(history(&archive, device()).await, []);
    assert_eq!(archive.newest(None, 10).await.expect("list"), []);
    archive
        .check_key()
        .await
        .expect("an empty archive fits any key");
}
