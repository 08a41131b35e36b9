//! A snapshot without a menu, from the event to the history.

use mikrotik_backup::domain::snapshot::ConfigText;
use mikrotik_backup::ports::{Archive as _, SnapshotSink as _, VersionPage};

use super::{archive, archiver, device, publisher, snapshot, until_drained};
use crate::cluster::commands::finished;
use crate::cluster::harness::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_menu_that_was_not_exported_deletes_nothing_on_its_way() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let sink = publisher(&cluster).await;
    let device = device();
    let whole = "/ip pool\nadd name=a\n/ipv6 route\nadd gateway=2001:db8::1\n";
    let part = "/ip pool\nadd name=b\n#error exporting \"/ipv6/route\" (timeout)\n";
    for (number, text, menus) in [
        (0, whole, vec![]),
        (1, part, vec!["/ipv6/route".to_owned()]),
        (2, whole, vec![]),
    ] {
        let mut snapshot = snapshot(device, number);
        snapshot.text = ConfigText::new(text);
        snapshot.hash = snapshot.text.digest();
        snapshot.incomplete_menus = menus;
        sink.deliver(&snapshot).await.expect("published");
    }
    let role = archiver(&cluster, "archive", &[]).await;
    until_drained(&cluster).await;
    let versions = archive(&cluster)
        .versions(device, VersionPage::first(10))
        .await
        .expect("list");
    let told: Vec<_> = versions
        .iter()
        .map(|version| {
            let lines = version.lines.map(|lines| (lines.added, lines.removed));
            (lines, version.incomplete_menus.join(" "))
        })
        .collect();
    // Only the pool changed, there and back.
    let changed = Some((1, 1));
    assert_eq!(
        told,
        [
            (changed, String::new()),
            (changed, "/ipv6/route".to_owned()),
            (None, String::new()),
        ],
        "{}",
        role.log()
    );

    let mut events = cluster.command("events", &[("LOG_LEVEL", "warn")]);
    events.args(["events", "--all", "--count", "3", "--timeout", "20"]);
    let events = finished(events, "").await;
    let marked: Vec<bool> = events
        .out
        .lines()
        .map(|line| line.ends_with(" incomplete: no /ipv6/route"))
        .collect();
    assert_eq!(marked, [false, true, false], "{}", events.out);
}
