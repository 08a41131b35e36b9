//! The git mirror of embedded mode: what commands and the service commit, and what a kill or a full
//! disk does to it.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::harness::{Folder, Service, router};
use crate::cluster::harness::get;
use crate::cluster::poll::until;
use crate::mirror::{content, git_is_there, is_sound, subjects};
use crate::services::disk::Small;

/// Short intervals, and the mirror.
fn settings(folder: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("CONFIG_BACKUP_INTERVAL", "1".to_owned()),
        ("GIT_ARCHIVE_DIR", folder.display().to_string()),
    ]
}

async fn run(folder: &Folder, name: &str, mirror: &Path) -> Service {
    let settings = settings(mirror);
    let pairs: Vec<(&str, &str)> = settings.iter().map(|(n, v)| (*n, v.as_str())).collect();
    folder.run(name, &pairs).await
}

fn rename(router: &mikrotik_backup::sim::Router, name: &str) {
    router.change(|configuration| name.clone_into(&mut configuration.identity));
}

/// Waits until the newest file has this identity.
async fn has(mirror: &Path, identity: &str) {
    let wanted = format!("set name={identity}\n");
    until("the mirror has it", || async {
        let there = mirror.join(".git/refs/heads/main").exists();
        (there && content(mirror).contains(&wanted)).then_some(())
    })
    .await;
}

async fn metric(service: &Service, sample: &str) {
    until(sample, || async {
        let page = get(&service.http, "/metrics").await.ok()?;
        page.contains(sample).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_by_hand_is_committed_before_the_command_ends() {
    if !git_is_there() {
        return;
    }
    let folder = Folder::new();
    let router = router("edge-1", [127, 86, 0, 1]);
    folder.insert(&router).await;
    let mirror = folder.path().join("mirror");
    for identity in ["first", "first", "second"] {
        rename(&router, identity);
        let mut command = folder.command(&[]);
        command
            .args(["backup", "edge-1"])
            .env("GIT_ARCHIVE_DIR", &mirror);
        let output = command.output().expect("run");
        assert!(output.status.success(), "{output:?}");
        assert!(content(&mirror).contains(&format!("set name={identity}\n")));
    }
    let subjects = subjects(&mirror);
    assert_eq!(subjects.len(), 2, "{subjects:?}");
    assert_eq!(
        subjects[1],
        "edge-1: 1 line added, 1 removed in /system identity"
    );
    is_sound(&mirror);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_archive_and_mirror_is_made_good_at_the_next_start() {
    if !git_is_there() {
        return;
    }
    let folder = Folder::new();
    let router = router("edge-1", [127, 86, 0, 2]);
    let device = folder.insert(&router).await;
    let mirror = folder.path().join("mirror");
    rename(&router, "one");
    let mut service = run(&folder, "first", &mirror).await;
    has(&mirror, "one").await;

    // What a git that died leaves behind: from now on the archive is ahead of the mirror.
    let lock = mirror.join(".git/refs/heads/main.lock");
    std::fs::write(&lock, "").expect("take the lock");
    for (count, identity) in [(2, "two"), (3, "three")] {
        rename(&router, identity);
        until("the archive has it", || async {
            (folder.versions(device).await.len() == count).then_some(())
        })
        .await;
    }
    metric(&service, "mikrotik_git_mirror_pending_devices 1").await;
    service.signal(Signal::SIGKILL);
    service.exit_code().await;
    let log = service.log();
    assert!(log.contains("The git mirror cannot be written"), "{log}");
    assert!(log.contains("main.lock"), "{log}");
    assert_eq!(subjects(&mirror).len(), 1);

    std::fs::remove_file(lock).expect("release the lock");
    let service = run(&folder, "second", &mirror).await;
    has(&mirror, "three").await;
    assert_eq!(subjects(&mirror).len(), 3, "none is left out");
    metric(&service, "mikrotik_git_mirror_pending_devices 0").await;
    is_sound(&mirror);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_mirror_costs_no_backup() {
    if !git_is_there() {
        return;
    }
    let Some(disk) = Small::mount() else { return };
    let folder = Folder::new();
    let router = router("edge-1", [127, 86, 0, 3]);
    let device = folder.insert(&router).await;
    let mirror: PathBuf = disk.path().join("mirror");
    rename(&router, "one");
    let service = run(&folder, "full", &mirror).await;
    has(&mirror, "one").await;
    let ballast = disk.fill();
    rename(&router, "two");
    metric(&service, "mikrotik_git_mirror_pending_devices 1").await;
    let versions = folder.versions(device).await;
    assert_eq!(versions.len(), 2, "the archive has it");
    let journal = folder.journal().await;
    assert!(
        journal.iter().all(|row| row.status.as_str() == "success"),
        "{journal:?}"
    );
    std::fs::remove_file(ballast).expect("free the space");
    has(&mirror, "two").await;
    assert_eq!(subjects(&mirror).len(), 2);
    is_sound(&mirror);
}
