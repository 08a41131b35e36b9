//! `backup` shows how far it is: a bar on a terminal, lines elsewhere.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use mikrotik_backup::sim::Router;
use nix::pty::{Winsize, openpty};

use super::harness::{Folder, router};

/// Three slow routers, one of which cannot be logged in to.
async fn fleet(folder: &Folder, net: u8) -> Vec<Router> {
    let mut routers = Vec::new();
    for n in 1..=3 {
        let router = router(&format!("edge-{n}"), [127, 88, net, n]);
        router.set_delay(Duration::from_millis(300));
        folder.insert(&router).await;
        routers.push(router);
    }
    routers[2].set_password("another one");
    routers
}

/// What `backup --all` shows on a terminal, and whether it succeeded.
async fn on_a_terminal(folder: &Folder, variables: &[(&str, &str)]) -> (String, bool) {
    let size = Winsize {
        ws_row: 24,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(Some(&size), None).expect("a pseudo terminal");
    let mut command = folder.command(variables);
    command
        .args(["backup", "--all"])
        .env("CONFIG_BACKUP_MAX_CONCURRENT", "1")
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null())
        .stderr(terminal.slave.try_clone().expect("another end"))
        .stdout(terminal.slave);
    tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("start");
        // Our own ends of the terminal must not keep it open.
        drop(command);
        let mut text = Vec::new();
        // Linux ends a terminal that nobody writes to with an error.
        let _ = File::from(terminal.master).read_to_end(&mut text);
        let done = child.wait().expect("it ends").success();
        (String::from_utf8_lossy(&text).into_owned(), done)
    })
    .await
    .expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_a_bar_with_counts_rate_and_time_left() {
    let folder = Folder::new();
    let _routers = fleet(&folder, 1).await;
    let (shown, succeeded) = on_a_terminal(&folder, &[]).await;
    assert!(!succeeded, "one fails: {shown:?}");
    for wanted in [
        "1 of 3 devices",
        "/s, ",
        " left",
        "\u{1b}[31m1 failed\u{1b}[0m",
    ] {
        assert!(shown.contains(wanted), "no {wanted:?} in {shown:?}");
    }
    assert!(
        !shown.contains("[1/3]"),
        "no lines beside the bar: {shown:?}"
    );
    let (_, summary) = shown.rsplit_once("3 devices: ").expect("a summary");
    assert!(
        summary.contains("2 new, 1 failed") && summary.contains("auth_failed"),
        "{shown:?}"
    );
    assert!(!summary.contains(" left"), "the bar is gone: {shown:?}");
    // What goes to standard error is only this one: nothing is logged over the bar.
    assert!(
        !shown.contains("WARN") && !shown.contains("ERROR"),
        "{shown:?}"
    );

    let (shown, _) = on_a_terminal(&folder, &[("NO_COLOR", "1")]).await;
    assert!(shown.contains("1 of 3 devices"), "{shown:?}");
    assert!(shown.contains(", 1 failed"), "{shown:?}");
    assert!(!shown.contains("\u{1b}[3"), "no colour: {shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_each_device_has_a_plain_line() {
    let folder = Folder::new();
    let _routers = fleet(&folder, 2).await;
    let done = folder.cli(&["backup", "--all"], "").await.exits(1);
    for line in ["[1/3] edge-", "[2/3] edge-", "[3/3] edge-"] {
        assert!(done.stdout.contains(line), "{done:?}");
    }
    assert!(!done.stdout.contains(['\r', '\u{1b}']), "{done:?}");
    assert_eq!(done.stderr, "");
}
