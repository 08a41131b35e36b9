//! `config check` looks at folders and key, says what is wrong, and changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::unistd::Uid;
use serde_json::Value;

use super::harness::{Done, Folder, router};

const CHECK: [&str; 2] = ["config", "check"];
const OTHER_KEY: (&str, &str) = (
    "CREDENTIAL_ENCRYPTION_KEY",
    "b3RoZXIta2V5LW90aGVyLWtleS1vdGhlci1rZXktMDE=",
);

/// Every file below `folder`, with its size, mode and time of change.
fn everything(folder: &Path) -> Vec<(String, u64, u32, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let metadata = entry.metadata().expect("metadata");
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            found.push((
                entry.path().display().to_string(),
                metadata.len(),
                metadata.permissions().mode(),
                metadata.modified().expect("a time"),
            ));
        }
    }
    found.sort();
    found
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[track_caller]
fn says(done: &Done, words: &[&str]) {
    for word in words {
        assert!(done.stdout.contains(word), "no {word:?} in {}", done.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_folders_are_told_and_left_as_they_are() {
    let folder = Folder::new();
    let done = folder.cli(&CHECK, "").await.exits(0);
    says(
        &done,
        &[
            "DATA_DIR is",
            "not there yet: it is made",
            "nothing is wrong",
        ],
    );
    assert!(!folder.data().exists(), "nothing is made");
    let status = ["config", "check", "--command", "status"];
    let done = folder.cli(&status, "").await.exits(0);
    says(&done, &["nothing to read"]);

    let router = router("edge-1", [127, 87, 3, 1]);
    let device = folder.insert(&router).await;
    let mirror = folder.path().join("mirror");
    let mirrored = [("GIT_ARCHIVE_DIR", mirror.to_str().expect("a path"))];
    folder
        .cli_with(&mirrored, &["backup", "edge-1"], "")
        .await
        .exits(0);
    let before = everything(folder.path());
    let done = folder.cli_with(&mirrored, &CHECK, "").await.exits(0);
    let owner = format!("mode 0700, owner {}", Uid::effective());
    let good = ["a database; the key fits it", &owner, "holds a mirror"];
    says(&done, &good);
    folder.cli_with(&mirrored, &status, "").await.exits(0);
    assert_eq!(everything(folder.path()), before, "nothing is changed");

    // Beside a running service, too.
    let still = [mirrored[0], ("CONFIG_BACKUP_INTERVAL", "86400")];
    let _service = folder.run("service", &still).await;
    let done = folder.cli_with(&mirrored, &CHECK, "").await.exits(0);
    says(&done, &good);
    let json = [&CHECK[..], &["--json"]].concat();
    let done = folder.cli_with(&mirrored, &json, "").await.exits(0);
    let json: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(json["places"][0]["setting"], "DATA_DIR");
    assert_eq!(json["places"][1]["setting"], "GIT_ARCHIVE_DIR");
    assert_eq!(json["problems"], serde_json::json!([]));
    folder.backed_up(device, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_surprise_is_noted_and_is_no_problem() {
    let folder = Folder::new();
    let note =
        "note: CONFIG_BACKUP_IDLE_TIMEOUT (120 s) is not below CONFIG_BACKUP_COMMAND_TIMEOUT";
    let done = folder.cli(&CHECK, "").await.exits(0);
    says(&done, &[note, "nothing is wrong"]);
    let json = ["config", "check", "--json"];
    let done = folder.cli(&json, "").await.exits(0);
    let told: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(told["notes"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["warnings"], serde_json::json!([]));
    // Where it can act, and for a command that connects to no router.
    let long = [("CONFIG_BACKUP_COMMAND_TIMEOUT", "121")];
    let status = ["config", "check", "--command", "status"];
    for done in [
        folder.cli_with(&long, &CHECK, "").await.exits(0),
        folder.cli(&status, "").await.exits(0),
    ] {
        assert!(!done.stdout.contains("note: "), "{done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_do_not_fit_are_told() {
    let folder = Folder::new();
    folder.insert(&router("edge-1", [127, 87, 3, 2])).await;
    let key = folder.data().join("key");
    let right = fs::read(&key).expect("the key");
    let before = everything(&folder.data());
    let done = folder.cli_with(&[OTHER_KEY], &CHECK, "").await.exits(3);
    says(
        &done,
        &["invalid configuration: DATA_DIR: CREDENTIAL_ENCRYPTION_KEY is not the key"],
    );
    assert_eq!(everything(&folder.data()), before, "nothing is changed");
    let json = ["config", "check", "--json"];
    let done = folder.cli_with(&[OTHER_KEY], &json, "").await.exits(3);
    let told: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let problem = told["problems"][0].as_str().expect("a problem");
    assert!(problem.starts_with("DATA_DIR: "), "{problem}");
    assert!(!done.stdout.contains(OTHER_KEY.1), "{done:?}");

    for (text, said) in [
        (OTHER_KEY.1, "is not the key that"),
        ("no key at all", "holds no encryption key"),
    ] {
        fs::write(&key, text).expect("another key");
        says(&folder.cli(&CHECK, "").await.exits(3), &[said, "/key"]);
    }
    fs::write(&key, &right).expect("the right one");
    mode(&key, 0o644);
    says(
        &folder.cli(&CHECK, "").await.exits(3),
        &["open to others", "chmod 600"],
    );
    fs::remove_file(&key).expect("lose it");
    says(
        &folder.cli(&CHECK, "").await.exits(3),
        &["restore the key file"],
    );
    // One from the configuration does as well.
    let given = [(
        "CREDENTIAL_ENCRYPTION_KEY",
        std::str::from_utf8(&right).expect("text").trim(),
    )];
    folder.cli_with(&given, &CHECK, "").await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_cannot_be_used_are_told() {
    let folder = Folder::new();
    folder.insert(&router("edge-1", [127, 87, 3, 3])).await;
    mode(&folder.data(), 0o755);
    let done = folder.cli(&CHECK, "").await.exits(0);
    says(
        &done,
        &["warning: ", "is open to others (mode 0755)", "chmod 700"],
    );

    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    let theirs = folder.path().join("theirs");
    fs::create_dir(&theirs).expect("a folder");
    fs::write(theirs.join("thesis.tex"), "").expect("a file");
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    let below = path(&file.join("below"));
    let (file, theirs) = (path(&file), path(&theirs));
    for (setting, value, said) in [
        ("DATA_DIR", &file, "is a file, and must be a directory"),
        ("DATA_DIR", &below, "ot a directory"),
        (
            "GIT_ARCHIVE_DIR",
            &file,
            "is a file, and must be a directory",
        ),
        (
            "GIT_ARCHIVE_DIR",
            &theirs,
            "is not empty, and mikrotik-backup has not made it",
        ),
    ] {
        let done = folder.cli_with(&[(setting, value)], &CHECK, "").await;
        let problem = format!("invalid configuration: {setting}: ");
        says(&done.exits(3), &[&problem, said]);
    }

    // The database is read from end to end.
    let database = folder.data().join("mikrotik-backup.db");
    let mut bytes = fs::read(&database).expect("the database");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::write(&database, bytes).expect("damage it");
    let done = folder.cli(&CHECK, "").await.exits(3);
    says(&done, &["is damaged", ".recover"]);
}
