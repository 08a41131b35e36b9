//! The holder dies, or is stopped, before Redis is back.

use std::fs;

use nix::sys::signal::Signal;

use super::{IN_MEMORY, ON_DISK, Scene, files};
use crate::cluster::outbox::{ONCE, drained, exactly_once_in_order, queued};
use crate::cluster::poll::until;

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_killed_process_are_published_by_the_next_one() {
    let Some(mut scene) = Scene::set(85, 4, &[]).await else {
        return;
    };
    scene.holds(ON_DISK, 4).await;
    scene.replica.signal(Signal::SIGKILL);
    scene.replica.exit_code().await;
    let data = scene.cluster.directory().join("data");
    assert_eq!(files(&data).len(), 4);
    // What a disk that lost power may leave, and what somebody put there.
    let torn = data.join("held/0/0190a0b0-0000-7000-8000-000000000000.letter");
    fs::write(&torn, b"{\"id\":\"0190a0b0-0000").expect("write");

    let servers_are_back = async {
        scene.cluster.redis.start().await;
        scene.cluster.nats.start().await;
    };
    servers_are_back.await;
    let next = scene.cluster.replica("next", &ONCE).await;
    drained(&scene.cluster).await;
    exactly_once_in_order(&scene.cluster).await;
    assert_eq!(scene.cluster.attempts("status = 'success'").await, 4);
    for (router, _) in &scene.fleet {
        assert_eq!(router.stats().exports_begun, 1, "never exported again");
    }
    let log = next.log();
    assert!(log.contains("took over snapshots that an earlier process held on disk"));
    assert!(
        log.contains("it is left there for somebody to look at"),
        "{log}"
    );
    let aside = data.join("held/set-aside/0190a0b0-0000-7000-8000-000000000000.letter.0");
    assert_eq!(fs::read(aside).expect("kept"), b"{\"id\":\"0190a0b0-0000");
    until("the letters' files to be removed", || async {
        (files(&data).len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_stopped_leaves_what_is_on_disk_and_ends_well() {
    // The end of the grace period is so long and ten seconds away.
    let soon = [("CONFIG_BACKUP_COMMAND_TIMEOUT", "5")];
    let Some(mut scene) = Scene::set(86, 2, &soon).await else {
        return;
    };
    scene.holds(ON_DISK, 2).await;
    scene.replica.signal(Signal::SIGTERM);
    assert_eq!(
        scene.replica.exit_code().await,
        0,
        "{}",
        scene.replica.log()
    );
    assert_eq!(scene.logged("Snapshots stay on disk"), 1);
    scene.give_back().await;
    let _next = scene.cluster.replica("next", &ONCE).await;
    scene.has_lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_stopped_waits_for_redis_with_what_is_only_in_memory() {
    let no_folder = [("DATA_DIR", "/proc/no-folder")];
    let Some(mut scene) = Scene::set(87, 2, &no_folder).await else {
        return;
    };
    scene.holds(IN_MEMORY, 2).await;
    scene.replica.signal(Signal::SIGTERM);
    until("the stop to be noticed", || async {
        scene
            .replica
            .log()
            .contains("Stopping: no new work")
            .then_some(())
    })
    .await;
    scene.give_back().await;
    assert_eq!(
        scene.replica.exit_code().await,
        0,
        "{}",
        scene.replica.log()
    );
    assert_eq!(scene.logged("ends with this process"), 0);
    queued(&scene.cluster, 2).await;
    let _next = scene.cluster.replica("next", &ONCE).await;
    scene.has_lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_in_memory_at_the_hard_stop_is_taken_again_at_once() {
    let no_folder = [("DATA_DIR", "/proc/no-folder")];
    let Some(mut scene) = Scene::set(88, 2, &no_folder).await else {
        return;
    };
    scene.holds(IN_MEMORY, 2).await;
    for signal in [Signal::SIGTERM, Signal::SIGTERM] {
        scene.replica.signal(signal);
        until("the signal to be noticed", || async {
            scene.replica.log().contains("Stopping").then_some(())
        })
        .await;
    }
    assert_eq!(
        scene.replica.exit_code().await,
        0,
        "{}",
        scene.replica.log()
    );
    assert_eq!(scene.logged("ends with this process"), 2);
    for (_, device) in &scene.fleet {
        let state = scene.cluster.state(*device).await.expect("a state");
        assert_eq!(
            state.error_kind.as_deref(),
            Some("snapshot_lost"),
            "{state:?}"
        );
        assert!(state.due_in.is_some_and(|due| due <= 0.0), "{state:?}");
    }
    scene.give_back().await;
    let _next = scene.cluster.replica("next", &ONCE).await;
    for (_, device) in &scene.fleet {
        let again = |state: &crate::cluster::harness::State| state.status == "success";
        scene.cluster.state_when(*device, "a success", again).await;
    }
}
