//! A configuration of 20 MB, from the router to the history.

use std::net::{Ipv4Addr, SocketAddr};

use mikrotik_backup::sim::{Router, RouterOptions};

use super::{archiver, count, until_drained};
use crate::cluster::commands::finished;
use crate::cluster::harness::Cluster;
use crate::cluster::poll::until;

const SIZE: u64 = 20 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_megabytes_go_the_whole_way() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let options = RouterOptions {
        name: "large".to_owned(),
        address: SocketAddr::from((Ipv4Addr::new(127, 66, 0, 1), 0)),
        size_bytes: SIZE,
        ..RouterOptions::default()
    };
    let router = Router::start_one(options).expect("start a router");
    let device = cluster.insert(&router).await;
    let limits = [
        ("CONFIG_BACKUP_COMMAND_TIMEOUT", "60"),
        ("LOG_LEVEL", "info"),
    ];
    let poller = cluster.replica("poller", &limits).await;
    let role = archiver(&cluster, "archive", &limits).await;
    let state = cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;

    // The event names an object instead of the text, and is small.
    let messages = cluster.messages_of(device).await;
    let [(_, event)] = messages.as_slice() else {
        panic!("one message: {}", poller.log())
    };
    assert_eq!(event.config_text, None);
    let reference = event.config_ref.as_ref().expect("a reference");
    assert!(reference.size >= SIZE / 2, "{} bytes", reference.size);
    assert_eq!(Some(reference.sha256.to_string()), state.hash);

    until("the version", || async {
        (count(&cluster, "archive_versions").await == 1).then_some(())
    })
    .await;
    until_drained(&cluster).await;
    let mut show = cluster.command("show", &[("LOG_LEVEL", "warn")]);
    show.args(["snapshots", "show", &device.to_string()]);
    let shown = finished(show, "").await;
    assert_eq!(shown.out.len() as u64, reference.size, "{}", shown.err);
    let digest = mikrotik_backup::domain::digest::Digest::of(&shown.out);
    assert_eq!(digest, reference.sha256);
    assert_eq!(
        count(&cluster, "archive_set_aside").await,
        0,
        "{}",
        role.log()
    );
}
