//! `backup user@host`: a router that is not in the inventory.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Folder, router};
use crate::cluster::harness::binary;
use crate::services::process::require;

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_is_not_in_the_inventory_is_exported_and_not_stored() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 81, 0, 7]);
    let address = router.address();
    let target = format!("{}@{}", router.username(), address.ip());
    let port = address.port().to_string();
    let ask = ["backup", &target, "--port", &port, "--password-stdin"];
    let printed = folder.cli(&ask, &router.password()).await.exits(0);
    assert!(printed.stdout.contains("name=edge-1"), "{printed:?}");
    assert_eq!(router.stats().connections, 1, "nobody had to be asked");
    assert!(
        printed.stderr.contains(router.fingerprint().as_str()),
        "{printed:?}"
    );
    assert!(!folder.data().exists());

    let file = folder.path().join("edge-1.rsc");
    let mut to_file = ask.to_vec();
    to_file.extend(["--output", file.to_str().expect("a path")]);
    let done = folder.cli(&to_file, &router.password()).await.exits(0);
    assert_eq!(done.stdout, "");
    let mode = std::fs::metadata(&file)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        std::fs::read_to_string(&file).expect("text"),
        printed.stdout
    );

    let logins = router.logins().len();
    let mut pinned = ask.to_vec();
    pinned.extend([
        "--host-key",
        "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    ]);
    let refused = folder.cli(&pinned, &router.password()).await.exits(1);
    assert!(refused.stderr.contains("host_key_mismatch"), "{refused:?}");
    assert_eq!(router.logins().len(), logins, "no password was sent");

    // One connection for each command, whether it is let in or not.
    let file = folder.path().join("password");
    std::fs::write(&file, router.password()).expect("write");
    let file = file.to_str().expect("a path");
    let from_file = ["backup", &target, "--port", &port, "--password-file", file];
    folder.cli(&from_file, "").await.exits(0);
    assert_eq!(router.stats().connections, 4);
}

/// Runs a command in a terminal, types `password` when it is asked for, and returns what was shown.
async fn in_a_terminal(folder: &Folder, arguments: &[&str], password: &str) -> String {
    let ours = folder.command(&[]);
    let binary = binary();
    let line = [&[binary.to_str().expect("a path")][..], arguments].concat();
    let mut script = tokio::process::Command::new("script");
    script
        .args(["--quiet", "--flush", "--return", "--command"])
        .args([&line.join(" "), "/dev/null"])
        .envs(
            ours.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("TERM", "dumb")
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = script.spawn().expect("start a terminal");
    let mut keyboard = child.stdin.take().expect("a pipe");
    let mut output = child.stdout.take().expect("a pipe");
    let mut screen = Vec::new();
    let mut typed = false;
    let watch = async {
        while output.read_buf(&mut screen).await.expect("the screen") > 0 {
            if !typed && String::from_utf8_lossy(&screen).contains("Password of ") {
                typed = true;
                let line = format!("{password}\n");
                keyboard.write_all(line.as_bytes()).await.expect("type");
            }
        }
    };
    let watched = tokio::time::timeout(Duration::from_secs(60), watch).await;
    let screen = String::from_utf8_lossy(&screen).into_owned();
    watched.unwrap_or_else(|_| panic!("it does not end: {screen}"));
    assert!(child.wait().await.expect("its end").success(), "{screen}");
    assert!(typed && !screen.contains(password), "{screen}");
    screen
}

#[tokio::test(flavor = "multi_thread")]
async fn who_types_the_password_sees_the_host_key_before_unless_it_is_given() {
    if require("script").is_none() {
        return;
    }
    let folder = Folder::new();
    let router = router("edge-1", [127, 81, 0, 9]);
    let address = router.address();
    let target = format!("{}@{}", router.username(), address.ip());
    let port = address.port().to_string();
    let ask = ["backup", &target, "--port", &port];
    let key = router.fingerprint();
    let screen = in_a_terminal(&folder, &ask, &router.password()).await;
    let (shown, asked) = (screen.find(key.as_str()), screen.find("Password of "));
    assert!(shown.is_some() && shown < asked, "{screen}");
    assert_eq!(router.stats().connections, 2);

    let known = [&ask[..], &["--host-key", key.as_str()]].concat();
    in_a_terminal(&folder, &known, &router.password()).await;
    assert_eq!(router.stats().connections, 3);
}
