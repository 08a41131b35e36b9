//! OpenSSH's client reads the simulated router as it would read a real one.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use mikrotik_backup::sim::{Fault, Router, RouterOptions, SshProfile};

use super::{GENEROUS, start};
use crate::services::process::require;

#[tokio::test]
async fn openssh_reads_whole_exports_with_every_profile() {
    let (Some(ssh), Some(keygen)) = (require("ssh"), require("ssh-keygen")) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("id");
    let made = std::process::Command::new(keygen)
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&path)
        .output()
        .expect("run ssh-keygen");
    assert!(made.status.success(), "{made:?}");
    let public = std::fs::read_to_string(path.with_extension("pub")).expect("the public key");
    let key = russh::keys::PublicKey::from_openssh(&public).expect("a public key");
    for (profile, options) in [
        (SshProfile::Modern, &[][..]),
        (
            SshProfile::V6,
            &[
                "KexAlgorithms=diffie-hellman-group14-sha1",
                "HostKeyAlgorithms=ssh-rsa",
            ],
        ),
        (SshProfile::V6Strong, &["HostKeyAlgorithms=ssh-rsa"]),
        (
            SshProfile::V7,
            &["KexAlgorithms=diffie-hellman-group-exchange-sha256"],
        ),
        (SshProfile::V7Strong, &[]),
    ] {
        let router = start(RouterOptions {
            profile,
            size_bytes: 300_000,
            authorized_key: Some(key.clone()),
            ..RouterOptions::default()
        });
        let mut command = ssh_command(&ssh, &router);
        command.arg("-i").arg(&path).args(["-o", "BatchMode=yes"]);
        for option in options {
            command.args(["-o", option]);
        }
        let output = run(command.arg("/export show-sensitive")).await;
        assert!(output.status.success(), "{profile:?}: {output:?}");
        assert!(output.stdout.starts_with(b"# 20"), "{profile:?}");
        assert!(output.stdout.len() > 299_000, "{profile:?}");
        assert_eq!(router.stats().password_attempts, 0);
        assert_eq!(router.stats().exports_whole, 1);
    }
}

#[tokio::test]
async fn openssh_logs_in_with_a_password_and_sees_the_exit_status() {
    let Some(ssh) = require("ssh") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let askpass = directory.path().join("askpass");
    let mut script = std::fs::File::create(&askpass).expect("create a script");
    script
        .write_all(b"#!/bin/sh\necho simulated-password\n")
        .and_then(|()| script.set_permissions(Permissions::from_mode(0o700)))
        .expect("write a script");
    drop(script);
    let router = start(RouterOptions::default());
    router.set_fault(Fault::ExitStatus(7));
    let mut command = ssh_command(&ssh, &router);
    command
        .env("SSH_ASKPASS", &askpass)
        .env("SSH_ASKPASS_REQUIRE", "force");
    let output = run(command.arg("/export")).await;
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(output.stdout.ends_with(b"\r\n"));
    assert_eq!(router.stats().password_attempts, 1);

    router.set_fault(Fault::KeyboardInteractiveOnly);
    let output = run(command.arg("show-sensitive")).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(router.stats().password_attempts, 2);
}

fn ssh_command(ssh: &Path, router: &Router) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(ssh);
    command
        .args([
            "-F",
            "/dev/null",
            "-p",
            &router.address().port().to_string(),
        ])
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=ERROR"])
        .args(["-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes"])
        .args([
            "-o",
            "MACs=+hmac-sha1",
            "-o",
            "PubkeyAcceptedAlgorithms=ssh-ed25519",
        ])
        .args(["-l", &router.username(), &router.address().ip().to_string()]);
    command
}

async fn run(command: &mut tokio::process::Command) -> Output {
    let running = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(GENEROUS, running).await;
    output.expect("ssh ends").expect("run ssh")
}
