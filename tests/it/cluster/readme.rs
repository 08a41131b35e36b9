//! The commands of the README, executed as they stand there.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use uuid::Uuid;

use super::harness::binary;
use crate::services::process;

const SECTION: &str = "\n## A cluster on one machine\n";

/// Runs before the commands. Where they end early, the servers are stopped; when our pipe ends,
/// because the test did, the whole process group is killed.
const PRELUDE: &str = r#"
set -euo pipefail
trap '[ ! -d "${demo:-}" ] || scripts/servers stop "$demo"' EXIT
(trap '' TERM; cat <&3 >/dev/null; kill -9 -- -$$) >/dev/null 2>&1 &
"#;

/// A script with everything that it started: all of it ends with this.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The blocks of shell commands in the section, in their order.
fn blocks() -> Vec<String> {
    let readme = include_str!("../../../README.md");
    let (_, section) = readme.split_once(SECTION).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn the_commands_of_the_readme_back_up_fifty_routers_with_two_replicas() {
    let needed = [
        "initdb",
        "psql",
        "redis-server",
        "nats-server",
        "curl",
        "openssl",
    ];
    if needed
        .iter()
        .any(|program| process::require(program).is_none())
    {
        return;
    }
    let blocks = blocks();
    let (build, commands) = blocks.split_first().expect("blocks");
    assert!(build.contains("cargo build --release"), "builds first");
    let all_others = commands.iter().all(|block| !block.contains("cargo "));
    assert!(all_others && commands.len() >= 6, "{commands:?}");

    let directory = tempfile::tempdir().expect("a directory");
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everybody).expect("PostgreSQL may pass");
    let script = directory.path().join("script");
    let text = format!("{PRELUDE}{}", commands.concat());
    std::fs::write(&script, text).expect("write the script");
    let (printed, complaints) = (directory.path().join("out"), directory.path().join("err"));
    let create = |path| std::fs::File::create(path).expect("create a file");

    let path = process::find("bash").expect("bash");
    let ours = binary();
    let ours = ours.parent().expect("a directory").display();
    let mut child = Command::new("/bin/sh")
        .args([
            "-c",
            r#"PATH="$1:$PATH" exec "$2" "$3" 3<&0 </dev/null"#,
            "sh",
        ])
        .arg(ours.to_string())
        .arg(path)
        .arg(&script)
        .env("TMPDIR", directory.path())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(create(&printed))
        .stderr(create(&complaints))
        .spawn()
        .map(Script)
        .expect("start bash");
    let read = |path| std::fs::read_to_string(path).expect("read the output");
    let give_up = std::time::Instant::now() + Duration::from_secs(150);
    let status = loop {
        if let Some(status) = child.0.try_wait().expect("look at bash") {
            break status;
        }
        let (printed, complaints) = (read(&printed), read(&complaints));
        assert!(
            std::time::Instant::now() < give_up,
            "not done:\n{printed}\n{complaints}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let (printed, complaints) = (read(&printed), read(&complaints));
    let _ = std::io::stderr().write_all(printed.as_bytes());
    assert!(status.success(), "{status}:\n{printed}\n{complaints}");

    // Each event begins with its time and its device.
    let device = |line: &str| {
        line.split(' ')
            .nth(1)
            .and_then(|word| Uuid::parse_str(word).ok())
    };
    let events: Vec<Uuid> = printed.lines().filter_map(device).collect();
    let devices: BTreeSet<_> = events.iter().take(50).collect();
    assert_eq!(devices.len(), 50, "{printed}");
    assert_eq!(events.len(), 51, "{printed}");
    assert!(!devices.contains(&events[50]), "{printed}");
    for shown in [
        " replica-1 | success ",
        " replica-2 | success ",
        r#"mikrotik_config_backup_total{status="success"}"#,
        "host_key_mismatch",
        "LAST SEEN",
        "UPDATE 1",
    ] {
        assert!(printed.contains(shown), "no {shown} in:\n{printed}");
    }
    let left = std::fs::read_dir(directory.path()).expect("list").count();
    assert_eq!(left, 3, "the script and its two outputs");
}
