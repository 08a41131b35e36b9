//! The repository: what is committed, by whom it can be read, who else may work on it, and trouble.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use mikrotik_backup::adapters::git::{Change, FilePath, GitError, GitMirror};
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::domain::failure::chain;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{content, files, git, git_is_there, is_sound, subjects};

const START: OffsetDateTime = datetime!(2026-03-02 04:05:06 UTC);

fn device(number: u128) -> DeviceId {
    DeviceId(Uuid::from_u128(number))
}

/// A mirror in a folder that is not there yet.
fn mirror(place: &Path) -> GitMirror {
    GitMirror::new(place.join("mirror"), "replica-1")
}

fn commit(mirror: &GitMirror, number: u128, name: &str, text: &str, hours: i64) -> bool {
    mirror.prepare().expect("prepare");
    let done = try_commit(mirror, number, name, text, hours);
    done.expect("commit")
}

fn try_commit(
    mirror: &GitMirror,
    number: u128,
    name: &str,
    text: &str,
    hours: i64,
) -> Result<bool, GitError> {
    let device = device(number);
    mirror.commit(Change {
        device,
        path: &FilePath::new("core", name, device),
        text,
        message: &format!("{name}: {}", text.trim()),
        at: START + Duration::hours(hours),
    })
}

/// No file or folder below `place` is anybody else's to read.
fn is_private(place: &Path) {
    let mode = fs::symlink_metadata(place)
        .expect("look")
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "{}: {mode:o}", place.display());
    if place.is_dir() {
        for entry in fs::read_dir(place).expect("list").flatten() {
            // Folders below a closed one are closed with it.
            if entry.path().is_dir() {
                fs::read_dir(entry.path())
                    .expect("list")
                    .flatten()
                    .filter(|below| below.path().is_file())
                    .for_each(|below| is_private(&below.path()));
            } else {
                is_private(&entry.path());
            }
        }
    }
}

#[test]
fn each_change_is_one_commit_that_git_can_show() {
    if !git_is_there() {
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let mirror = mirror(place.path());
    assert!(commit(&mirror, 1, "edge-1", "a\n", 0));
    assert!(commit(&mirror, 2, "edge-2", "b\n", 1));
    assert!(!commit(&mirror, 1, "edge-1", "a\n", 2), "nothing changes");
    assert!(commit(&mirror, 1, "edge-1", "c\n", 3));

    let folder = mirror.folder();
    assert_eq!(subjects(folder), ["edge-1: a", "edge-2: b", "edge-1: c"]);
    let who = git(folder, &["log", "-1", "--format=%an|%ae|%at|%ct"]);
    assert_eq!(
        who.trim(),
        "mikrotik-backup|mikrotik-backup@replica-1|1772435106|1772435106"
    );
    let patch = git(folder, &["log", "-1", "-p", "--format="]);
    assert!(patch.contains("-a\n+c\n"), "{patch}");
    let changed = git(folder, &["log", "-1", "--name-only", "--format="]);
    assert_eq!(changed.lines().count(), 1, "{changed}");
    is_sound(folder);

    is_private(folder);
    is_private(&folder.join(".git"));
    is_private(&folder.join(".git/refs/heads"));
    // What git itself writes is as closed, and a clone is a folder of files.
    git(folder, &["gc", "--quiet"]);
    is_private(&folder.join(".git/objects/pack"));
    let clone = place.path().join("clone");
    git(
        folder,
        &["clone", "--quiet", ".", clone.to_str().expect("UTF-8")],
    );
    let files = files(folder);
    assert_eq!(files.len(), 2);
    for (file, text) in files.iter().zip(["c\n", "b\n"]) {
        let other = if file.contains("edge-1") {
            "c\n"
        } else {
            "b\n"
        };
        let read = fs::read_to_string(clone.join(file)).expect("a file");
        assert_eq!(read, other, "{file} {text}");
    }
}

#[test]
fn a_device_that_is_renamed_takes_its_file_along() {
    if !git_is_there() {
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let mirror = mirror(place.path());
    let device = device(1);
    commit(&mirror, 1, "edge-1", "some text\nof two lines\n", 0);
    commit(&mirror, 2, "EDGE-1", "another\n", 0);
    let mut last = FilePath::new("core", "edge-1", device);
    for (folder, name) in [("core", "../.git"), ("a/b", "edge-1"), (".git", "edge-1")] {
        let path = FilePath::new(folder, name, device);
        let change = Change {
            device,
            path: &path,
            text: "some text\nof two lines\n",
            message: "moved",
            at: START,
        };
        assert!(mirror.commit(change).expect("commit"));
        let kept = mirror.find(device, &last).expect("look").expect("kept");
        assert_eq!(kept.path, path);
        assert_eq!(
            mirror.text(kept.text).expect("read"),
            "some text\nof two lines\n"
        );
        let files = files(mirror.folder());
        assert_eq!(files.len(), 2, "{files:?}");
        assert!(files.contains(&path.to_string()), "{files:?}");
        last = path;
    }
    is_sound(mirror.folder());
    let log = ["log", "--follow", "--format=%s", "main", "--"];
    let followed = git(mirror.folder(), &[&log[..], &[&last.to_string()]].concat());
    assert_eq!(followed.lines().count(), 4, "{followed}");
}

#[test]
fn commit_times_never_go_back_and_the_author_keeps_the_exact_one() {
    if !git_is_there() {
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let mirror = mirror(place.path());
    commit(&mirror, 1, "edge-1", "a\n", 10);
    commit(&mirror, 2, "edge-2", "b\n", 4);
    let times = git(mirror.folder(), &["log", "-1", "--format=%at %ct"]);
    let at = |hours| (START + Duration::hours(hours)).unix_timestamp();
    assert_eq!(times.trim(), format!("{} {}", at(4), at(10)));
}

#[test]
fn several_writers_and_a_busy_gc_lose_no_commit() {
    if !git_is_there() {
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let mirror = mirror(place.path());
    commit(&mirror, 0, "edge-0", "begin\n", 0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // However a writer ends.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let finished = Done(&done);
        let tidy = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) || rounds == 0 {
                git(mirror.folder(), &["gc", "--quiet"]);
                rounds += 1;
            }
            rounds
        });
        let writers = [1, 2].map(|writer| {
            let mirror = &mirror;
            scope.spawn(move || {
                for number in 0..60_u32 {
                    let text = format!("{writer} {number}\n");
                    let name = format!("edge-{writer}");
                    assert!(commit(mirror, writer, &name, &text, i64::from(number)));
                }
            })
        });
        for writer in writers {
            writer.join().expect("no panic");
        }
        drop(finished);
        assert!(tidy.join().expect("no panic") > 0);
    });
    is_sound(mirror.folder());
    let subjects = subjects(mirror.folder());
    for writer in [1, 2] {
        let of = format!("edge-{writer}: ");
        let own: Vec<_> = subjects
            .iter()
            .filter(|line| line.starts_with(&of))
            .collect();
        let wanted: Vec<String> = (0..60)
            .map(|number| format!("{of}{writer} {number}"))
            .collect();
        assert_eq!(own, wanted.iter().collect::<Vec<_>>());
    }
    assert_eq!(subjects.len(), 121);
}

#[test]
fn a_lock_that_somebody_holds_is_named() {
    let place = tempfile::tempdir().expect("a folder");
    let mirror = mirror(place.path());
    commit(&mirror, 1, "edge-1", "a\n", 0);
    let lock = mirror.folder().join(".git/refs/heads/main.lock");
    fs::write(&lock, "").expect("take the lock");
    let error = try_commit(&mirror, 1, "edge-1", "b\n", 1).expect_err("locked");
    assert!(matches!(error, GitError::Locked { .. }), "{error:?}");
    assert!(
        chain(&error).contains(&lock.display().to_string()),
        "{error}"
    );
    fs::remove_file(lock).expect("release the lock");
    assert!(commit(&mirror, 1, "edge-1", "b\n", 1));
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    for file in ["notes.txt", ".git/HEAD", ".git/config"] {
        let place = tempfile::tempdir().expect("a folder");
        let mirror = mirror(place.path());
        let theirs = mirror.folder().join(file);
        fs::create_dir_all(theirs.parent().expect("a folder")).expect("make it");
        fs::write(&theirs, "theirs").expect("write");
        let error = mirror.prepare().expect_err("not ours");
        assert!(matches!(error, GitError::Foreign { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("GIT_ARCHIVE_DIR")
                && text.contains(&mirror.folder().display().to_string()),
            "{text}"
        );
        assert_eq!(fs::read_to_string(theirs).expect("still there"), "theirs");
    }
    // One that was only begun when the process died is begun again.
    let place = tempfile::tempdir().expect("a folder");
    let mirror = mirror(place.path());
    fs::create_dir_all(mirror.folder().join(".git.new/objects")).expect("make it");
    assert!(commit(&mirror, 1, "edge-1", "a\n", 0));
    assert!(!mirror.prepare().expect("it is there"));
    // A file where the folder should be.
    let file = place.path().join("file");
    fs::write(&file, "").expect("write");
    let error = GitMirror::new(file.clone(), "x")
        .prepare()
        .expect_err("a file");
    assert!(
        chain(&error).contains(&file.display().to_string()),
        "{error}"
    );
}

#[test]
fn damage_is_said_with_what_to_do() {
    if !git_is_there() {
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let mirror = mirror(place.path());
    commit(&mirror, 1, "edge-1", "a\n", 0);
    let head = git(mirror.folder(), &["rev-parse", "main"]);
    let (folder, file) = head.trim().split_at(2);
    let object = mirror.folder().join(".git/objects").join(folder).join(file);
    fs::remove_file(&object).expect("lose the commit");
    let error = try_commit(&mirror, 1, "edge-1", "b\n", 1).expect_err("damaged");
    let text = chain(&error);
    assert!(
        text.contains("fsck") && text.contains("moved away"),
        "{text}"
    );
    fs::remove_dir_all(mirror.folder()).expect("move it away");
    assert!(commit(&mirror, 1, "edge-1", "b\n", 1));
    assert_eq!(content(mirror.folder()), "b\n");
}
