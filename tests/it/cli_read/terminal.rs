//! What a terminal gets to see: colours unless `NO_COLOR`, and no secret or control character.

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Stdio};

use mikrotik_backup::domain::attempt::Outcome;
use mikrotik_backup::domain::failure::{Failure, FailureKind};
use nix::pty::openpty;
use time::OffsetDateTime;

use super::fleet::{Fleet, PASSWORD};

/// Runs `command` with its standard output on a terminal, and what it showed there.
async fn shown(mut command: Command) -> String {
    let terminal = openpty(None, None).expect("a pseudo terminal");
    command
        .stdout(terminal.slave)
        .stderr(Stdio::null())
        .env("TERM", "xterm");
    tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("start");
        // Our own ends of the terminal must not keep it open.
        drop(command);
        let mut text = Vec::new();
        // Linux ends a terminal that nobody writes to with an error.
        let _ = File::from(terminal.master).read_to_end(&mut text);
        assert!(child.wait().expect("it ends").success());
        String::from_utf8(text)
            .expect("UTF-8")
            .replace("\r\n", "\n")
    })
    .await
    .expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_colours_and_no_secret() {
    let fleet = Fleet::embedded().await;
    let id = fleet.add("edge-1").await;
    let failure = Failure::new(FailureKind::AuthFailed, "an invented failure");
    fleet.tried(id, 1, Outcome::Failed(failure)).await;
    for hour in 0..2 {
        let text = format!(
            "/user\nset admin password={PASSWORD}{hour}\n/system note\nset note=\"\u{1b}[2J\t{hour}\"\n"
        );
        let at = OffsetDateTime::UNIX_EPOCH + time::Duration::hours(hour);
        fleet.archived(id, at, &text).await;
    }

    let status = shown(fleet.command(&["status"])).await;
    assert!(status.contains("\u{1b}[31mblocked  1\u{1b}[0m"), "{status}");
    let mut plain = fleet.command(&["status"]);
    plain.env("NO_COLOR", "1");
    let plain = shown(plain).await;
    assert!(plain.contains("  blocked  1  waiting"), "{plain}");
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let failed = shown(fleet.command(&["failed"])).await;
    assert!(
        failed.contains("\u{1b}[31mauth_failed\u{1b}[0m"),
        "{failed}"
    );

    let show = ["snapshots", "show", "edge-1"];
    let masked = shown(fleet.command(&show)).await;
    assert!(masked.contains("password=*****\n"), "{masked}");
    assert!(masked.contains("note=\"\\u{1b}[2J\t1\""), "{masked}");
    assert!(!masked.contains(PASSWORD), "{masked}");
    let whole = shown(fleet.command(&[&show[..], &["--secrets"]].concat())).await;
    assert!(
        whole.contains(&format!("password={PASSWORD}1\n")),
        "{whole}"
    );
    assert!(!whole.contains('\u{1b}'), "{whole}");

    let diff = shown(fleet.command(&["snapshots", "diff", "edge-1"])).await;
    assert!(
        diff.contains("\u{1b}[32m+set admin password=*****"),
        "{diff}"
    );
    assert!(
        !diff.contains(PASSWORD) && !diff.contains("\u{1b}[2J"),
        "{diff}"
    );
}
