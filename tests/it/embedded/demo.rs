//! The demo, as a newcomer runs it.

use std::process::Command;

use crate::cluster::harness::binary;

#[test]
fn the_demo_shows_what_it_promises_and_leaves_nothing_behind() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(binary())
        .args(["demo", "--routers", "8"])
        .current_dir(place.path())
        .env("TMPDIR", place.path())
        .output()
        .expect("run the demo");
    let shown = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{complaints}");
    for wanted in [
        "8 of 8 backed up",
        "2 of 2 changes archived",
        "4 of 4 failures seen",
        "+add action=accept chain=forward comment=\"demo: no telnet\"",
        "host_key_mismatch",
        "auth_failed",
        "truncated_output",
        "connection_refused",
        "mikrotik-backup snapshots list",
    ] {
        assert!(
            shown.contains(wanted),
            "{wanted} is not in:\n{shown}\n{complaints}"
        );
    }
    assert_eq!(complaints, "");
    let left: Vec<_> = std::fs::read_dir(place.path()).expect("list it").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_kept_folder_is_a_store_for_every_command() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let dir = place.path().join("kept");
    let run = |arguments: &[&str]| {
        let output = Command::new(binary())
            .args(arguments)
            .current_dir(place.path())
            .env("DATA_DIR", &dir)
            .output()
            .expect("run a command");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    run(&[
        "demo",
        "--routers",
        "8",
        "--dir",
        dir.to_str().expect("a plain path"),
    ]);
    assert!(run(&["status"]).contains("8 devices"));
    assert_eq!(
        run(&["snapshots", "list", "sim-0001"]).lines().count(),
        3,
        "a header, two versions"
    );
    assert!(run(&["snapshots", "search", "no telnet"]).contains("sim-0002"));
}

#[test]
fn a_folder_that_holds_something_is_refused_at_once_and_left_alone() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let store = place.path().join("store");
    let run = |arguments: &[&str]| {
        Command::new(binary())
            .args(arguments)
            .current_dir(place.path())
            .env("DATA_DIR", &store)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("run a command")
    };
    std::fs::write(place.path().join("word"), "word\n").expect("a password");
    let add = [
        "devices",
        "add",
        "mine",
        "192.0.2.1",
        "--password-file",
        "word",
    ];
    assert!(run(&add).status.success());
    let database = store.join("mikrotik-backup.db");
    let before = std::fs::read(&database).expect("the database");
    let other = place.path().join("other");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::write(other.join("thesis.tex"), "").expect("a file");
    for (dir, said) in [
        ("store", "store holds a store already"),
        ("other", "other is not empty"),
        ("word", "failed to look at word"),
    ] {
        let refused = run(&["demo", "--routers", "8", "--dir", dir]);
        let text = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{dir}: {text}");
        assert!(
            text.contains(said) && text.contains("--dir"),
            "{dir}: {text}"
        );
        assert!(refused.stdout.is_empty(), "{dir}: nothing was started");
    }
    assert_eq!(std::fs::read(&database).expect("the database"), before);
    let left: Vec<_> = std::fs::read_dir(&other).expect("list it").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
