//! What is wrong with disk, files and rights, as somebody at a shell is told; nothing is damaged.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Uid;

use super::harness::{Folder, router};
use crate::cluster::harness::binary;
use crate::services::disk::{Small, mount};
use crate::services::process;

/// Somebody who owns nothing: root may read and write everything, and could not see what is
/// refused.
const NOBODY: u32 = 65_534;

/// A folder of nobody's, with a binary that nobody may run.
struct Nobody {
    place: tempfile::TempDir,
}

struct Said {
    code: i32,
    text: String,
}

impl Nobody {
    fn new() -> Option<Self> {
        if !Uid::effective().is_root() || process::require("setpriv").is_none() {
            eprintln!("skipped: only root can run as somebody else, who may not read a file");
            return None;
        }
        let place = tempfile::tempdir().expect("a folder");
        let ours = place.path().join("mikrotik-backup");
        if fs::hard_link(binary(), &ours).is_err() {
            fs::copy(binary(), &ours).expect("copy the binary");
        }
        chown(place.path(), Some(NOBODY), Some(NOBODY)).expect("give the folder away");
        Some(Self { place })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A file that only root may read.
    fn closed(&self, name: &str, text: &str) -> PathBuf {
        let file = self.path(name);
        fs::write(&file, text).expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("close it");
        file
    }

    /// The same of a command that tells on standard output what is wrong.
    fn checks(&self, arguments: &[&str], variables: &[(&str, &Path)]) -> Said {
        let output = self.output(arguments, variables);
        Said {
            code: output.status.code().unwrap_or(-1),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
        }
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &Path)]) -> Said {
        let output = self.output(arguments, variables);
        Said {
            code: output.status.code().unwrap_or(-1),
            text: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn output(&self, arguments: &[&str], variables: &[(&str, &Path)]) -> std::process::Output {
        Command::new("setpriv")
            .arg(format!("--reuid={NOBODY}"))
            .arg(format!("--regid={NOBODY}"))
            .arg("--clear-groups")
            .arg(self.path("mikrotik-backup"))
            .args(arguments)
            .current_dir(self.place.path())
            .env("DATA_DIR", self.path("data"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("run as nobody")
    }
}

impl Said {
    fn says(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "no {word:?} in {}", self.text);
        }
    }
}

#[test]
fn files_that_may_not_be_read_are_named_and_nothing_is_made() {
    let Some(nobody) = Nobody::new() else { return };
    let file = nobody.closed("closed", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let name = file.to_str().expect("a path");
    let add = ["devices", "add", "edge-1", "192.0.2.1", "--user", "backup"];
    for option in ["--key-file", "--password-file"] {
        let said = nobody.run(&[&add[..], &[option, name]].concat(), &[]);
        said.says(1, &["failed to read the", name, "Permission denied"]);
    }
    let said = nobody.run(&["devices", "import", name], &[]);
    said.says(1, &["failed to read", name, "Permission denied"]);
    let said = nobody.run(&["run"], &[("CREDENTIAL_ENCRYPTION_KEY_FILE", &file)]);
    said.says(
        3,
        &["CREDENTIAL_ENCRYPTION_KEY_FILE", name, "Permission denied"],
    );
    assert!(!nobody.path("data").exists(), "nothing was made");

    // The folder's own key, on a store that is there.
    let made = nobody.run(
        &[
            "devices",
            "add",
            "edge-1",
            "192.0.2.1",
            "--password-file",
            "word",
        ],
        &[],
    );
    made.says(1, &["word"]);
    let word = nobody.path("word");
    fs::write(&word, "secret-word\n").expect("write");
    fs::set_permissions(&word, fs::Permissions::from_mode(0o644)).expect("open it");
    nobody
        .run(
            &[
                "devices",
                "add",
                "edge-1",
                "192.0.2.1",
                "--password-file",
                "word",
            ],
            &[],
        )
        .says(0, &[]);
    let key = nobody.path("data/key");
    chown(&key, Some(0), Some(0)).expect("take the key away");
    let before = fs::read(nobody.path("data/mikrotik-backup.db")).expect("the database");
    let said = nobody.run(&["backup", "edge-1"], &[]);
    said.says(3, &["data/key", "Permission denied"]);
    let after = fs::read(nobody.path("data/mikrotik-backup.db")).expect("the database");
    assert_eq!(before, after, "nothing was written");
}

#[test]
fn a_folder_that_may_not_be_written_is_named() {
    let Some(nobody) = Nobody::new() else { return };
    let roots = nobody.path("roots");
    fs::create_dir(&roots).expect("make it");
    fs::set_permissions(&roots, fs::Permissions::from_mode(0o755)).expect("open it");
    let inner = roots.join("data");
    let name = inner.to_str().expect("a path");
    let said = nobody.run(&["run"], &[("DATA_DIR", &inner)]);
    said.says(3, &[name, "DATA_DIR", "Permission denied"]);
    assert!(!inner.exists());
    let check = ["config", "check"];
    for setting in ["DATA_DIR", "GIT_ARCHIVE_DIR"] {
        let said = nobody.checks(&check, &[(setting, &inner)]);
        let may = format!("{setting}: user {NOBODY} may not write in ");
        said.says(3, &[&may, "Permission denied", "set"]);
    }
    // Somebody else's folder can be read by status, if it is open.
    let said = nobody.checks(
        &["config", "check", "--command", "status"],
        &[("DATA_DIR", &roots)],
    );
    said.says(0, &["warning: ", "belongs to user 0", "nothing is wrong"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_damaged_in_the_middle_is_a_configuration_error_for_all() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 89, 0, 3]);
    folder.insert(&router).await;
    folder.cli(&["backup", "edge-1"], "").await.exits(0);
    let file = folder.data().join("mikrotik-backup.db");
    let store = folder.reading().await;
    let page_size: i64 = sqlx::query_scalar("PRAGMA page_size")
        .fetch_one(store.readers())
        .await
        .expect("the size of a page");
    let mut pages: Vec<i64> = Vec::new();
    for table in ["devices", "device_state", "archive_versions"] {
        let page = sqlx::query_scalar("SELECT rootpage FROM sqlite_schema WHERE name = ?1")
            .bind(table)
            .fetch_one(store.readers())
            .await;
        pages.push(page.expect("the page of a table"));
    }
    store.close().await;
    let sound = fs::read(&file).expect("the database");
    let reads = [
        &["failed"][..],
        &["status"],
        &["devices", "list"],
        &["snapshots", "list", "edge-1"],
        &["backup", "edge-1"],
        &["config", "check"],
    ];
    // The first page is the beginning, where it says what it is.
    for page in [&[1][..], &pages].concat() {
        let mut damaged = sound.clone();
        let at = usize::try_from((page - 1) * page_size).expect("a place");
        damaged[at..at + 100].fill(0x5a);
        fs::write(&file, damaged).expect("damage it");
        let mut told = 0;
        for arguments in reads {
            let done = folder.cli(arguments, "").await;
            let said = format!("{}{}", done.stdout, done.stderr);
            // What does not need the page may do without it.
            let spared = done.code == 0 && !matches!(arguments[0], "backup" | "config");
            if spared {
                continue;
            }
            assert_eq!(done.code, 3, "page {page}, {arguments:?}: {said}");
            assert!(
                said.contains("restore it from a backup"),
                "page {page}, {arguments:?}: {said}"
            );
            told += 1;
        }
        assert!(told >= 3, "page {page}: only {told} commands noticed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_is_named_and_can_still_be_read() {
    let Some(disk) = Small::mount() else { return };
    let folder = Folder::within(disk.path());
    let router = router("edge-1", [127, 89, 0, 1]);
    let device = folder.insert(&router).await;
    folder.cli(&["backup", "edge-1"], "").await.exits(0);
    assert!(mount(&["-o", "remount,ro"], disk.path()), "remount");
    let refused = folder.cli(&["backup", "edge-1"], "").await.exits(3);
    for word in ["Read-only file system", "DATA_DIR"] {
        assert!(refused.stderr.contains(word), "no {word:?} in {refused:?}");
    }
    let list = folder
        .cli(&["snapshots", "list", "edge-1"], "")
        .await
        .exits(0);
    assert!(list.stdout.lines().count() >= 2, "{list:?}");
    assert!(mount(&["-o", "remount,rw"], disk.path()), "remount");
    folder.cli(&["backup", "edge-1"], "").await.exits(0);
    folder.every_version_opens(device).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_backup_and_loses_nothing() {
    let Some(disk) = Small::mount() else { return };
    let folder = Folder::within(disk.path());
    let router = router("edge-1", [127, 89, 0, 2]);
    // Not to be squeezed into what is left of a page.
    router.change(|configuration| configuration.size_bytes = 256 * 1024);
    let device = folder.insert(&router).await;
    folder.cli(&["backup", "edge-1"], "").await.exits(0);
    let ballast = disk.fill();
    router.change(|configuration| configuration.size_bytes = 300 * 1024);
    let full = folder.cli(&["backup", "edge-1"], "").await;
    assert!(full.code == 1 || full.code == 3, "{full:?}");
    let said = format!("{}{}", full.stdout, full.stderr);
    assert!(
        said.contains("is full") || said.contains("no space is left"),
        "{full:?}"
    );

    fs::remove_file(ballast).expect("free the space");
    assert_eq!(
        folder.versions(device).await.len(),
        1,
        "what was stored is there"
    );
    folder.every_version_opens(device).await;
    folder.cli(&["backup", "edge-1"], "").await.exits(0);
    assert_eq!(folder.versions(device).await.len(), 2);
    folder.every_version_opens(device).await;
}
