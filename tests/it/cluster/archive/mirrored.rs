//! The archive role with a git mirror.

use crate::cluster::harness::{Cluster, get};
use crate::cluster::poll::until;
use crate::mirror::{content, git, git_is_there, is_sound, subjects};

use super::{archiver, count, device, publish, publisher, snapshot, until_ready};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_role_stores_is_committed_too() {
    if !git_is_there() {
        return;
    }
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let place = tempfile::tempdir().expect("a folder");
    let mirror = place.path().join("mirror");
    let folder = mirror.to_str().expect("UTF-8");
    let sink = publisher(&cluster).await;
    let device = device();
    // The last one is late.
    let taken: Vec<_> = [1, 2, 4, 3].map(|number| snapshot(device, number)).into();
    let role = archiver(&cluster, "mirrored", &[("GIT_ARCHIVE_DIR", folder)]).await;
    until_ready(&role).await;
    for snapshot in &taken {
        publish(&sink, std::slice::from_ref(snapshot)).await;
        let stored = r#"mikrotik_git_mirror_commits_total{status="success"}"#;
        until("it is mirrored", || async {
            let page = get(&role.http, "/metrics").await.ok()?;
            assert!(page.contains(stored), "{page}");
            let there = mirror.join(".git/refs/heads/main").exists();
            let newest = taken.iter().position(|other| other == snapshot)?.min(2);
            (there && content(&mirror) == taken[newest].text.expose()).then_some(())
        })
        .await;
    }
    until(
        "the late one is stored, and the mirror has nothing to do",
        || async {
            let page = get(&role.http, "/metrics").await.ok()?;
            let idle = page.contains("mikrotik_git_mirror_pending_devices 0\n");
            (idle && count(&cluster, "archive_versions").await == 4).then_some(())
        },
    )
    .await;
    // A device that the database does not know has a file all the same, in its tenant's folder.
    let subjects = subjects(&mirror);
    assert_eq!(subjects.len(), 3, "{subjects:?}");
    assert_eq!(subjects[0], "unknown: first version, 7 lines");
    let tenant = git(&mirror, &["ls-tree", "--name-only", "main"]);
    assert_eq!(tenant, format!("{}\n", taken[0].tenant));
    is_sound(&mirror);
}
