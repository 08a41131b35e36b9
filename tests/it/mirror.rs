//! The git mirror, looked at with git itself.

mod following;
mod repository;

use std::path::Path;
use std::process::Command;

use crate::services::process;

/// Whether git is there to look with.
pub fn git_is_there() -> bool {
    process::require("git").is_some()
}

/// What git prints about the repository in `folder`, which must succeed.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        // Of no user's settings; a folder of root's in a container is not refused.
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("run git");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {text}{error}");
    text
}

/// The subjects of all commits, oldest first.
pub fn subjects(folder: &Path) -> Vec<String> {
    let log = git(folder, &["log", "--reverse", "--format=%s", "main"]);
    log.lines().map(str::to_owned).collect()
}

/// The paths of all files.
pub fn files(folder: &Path) -> Vec<String> {
    let list = git(folder, &["ls-tree", "-r", "--name-only", "-z", "main"]);
    list.split_terminator('\0').map(str::to_owned).collect()
}

/// The only file.
pub fn content(folder: &Path) -> String {
    let files = files(folder);
    let [file] = files.as_slice() else {
        panic!("one file: {files:?}")
    };
    git(folder, &["show", &format!("main:{file}")])
}

/// Git finds nothing wrong.
pub fn is_sound(folder: &Path) {
    let found = git(folder, &["fsck", "--full", "--strict", "--no-dangling"]);
    assert_eq!(found.trim(), "");
}
