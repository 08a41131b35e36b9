//! OpenSSH's sshd: keys, passwords, commands, exports, and only what RouterOS offers.

use std::time::Duration;

use mikrotik_backup::domain::failure::{FailureKind, chain};
use mikrotik_backup::domain::host_key::{Fingerprint, Pin};
use mikrotik_backup::domain::session::SshAlgorithms;
use mikrotik_backup::ssh::{self, Options};
use secrecy::SecretString;
use tokio::time::Instant;

use super::{dial, soon};
use crate::services::sshd::{Account, Sshd, large_export};

const ED25519: &[&str] = &["-t", "ed25519"];
const RSA: &[&str] = &["-t", "rsa", "-b", "2048"];

#[tokio::test]
async fn several_commands_run_on_one_connection() {
    let Some(sshd) = Sshd::start(ED25519, ED25519, "").await else {
        return;
    };
    let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
    assert_eq!(host.fingerprint().as_str(), sshd.fingerprint());
    let id = host.server_id().expect("a greeting");
    assert!(id.starts_with("SSH-2.0-OpenSSH"), "{id}");
    assert_eq!(i32::from(host.address().port()), sshd.endpoint().port);
    let negotiated = host.negotiated().clone();
    assert_eq!(negotiated.host_key, "ssh-ed25519");
    assert_eq!(negotiated.cipher, "aes256-gcm@openssh.com");
    assert_eq!(negotiated.mac, "implicit");
    assert!(negotiated.to_string().contains(&negotiated.kex));

    let pin = Pin::Pinned(host.fingerprint().clone());
    drop(host);
    let host = dial(&sshd.endpoint(), &pin).await.expect("its own pin");
    let mut session = host.authenticate(&sshd.key_login()).await.expect("login");
    for command in ["/export", "/system resource print"] {
        let output = session.run(command).await.expect(command);
        assert_eq!(output.stdout, format!("ran {command}\n").as_bytes());
        assert_eq!(output.exit_status, Some(0));
        assert!(output.closed);
    }
    let both = session.run("both").await.expect("both");
    assert_eq!(
        (&both.stdout[..], &both.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(both.exit_status, Some(3));
    // A shell that is killed has no exit status; the channel is closed all the same.
    let killed = session.run("killed").await.expect("killed");
    assert_eq!(
        (&killed.stdout[..], killed.exit_status),
        (&b"begun\n"[..], None)
    );
    assert!(killed.closed);
    session.close().await;
    // OpenSSH names the reason when the client says goodbye (11 is "by application").
    sshd_logged(&sshd, "Received disconnect from 127.0.0.1").await;
}

async fn sshd_logged(sshd: &Sshd, text: &str) {
    let give_up = soon();
    while !sshd.log().contains(text) {
        assert!(Instant::now() < give_up, "no {text:?} in:\n{}", sshd.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_large_export_comes_whole_also_across_key_exchanges() {
    for config in ["", "RekeyLimit 1M"] {
        let Some(sshd) = Sshd::start(ED25519, ED25519, config).await else {
            return;
        };
        let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
        let mut session = host.authenticate(&sshd.key_login()).await.expect("login");
        let output = session.run("large").await.expect(config);
        assert!(output.stdout == large_export(), "{output:?}, {config:?}");
        assert!(output.closed && output.exit_status == Some(0));
        session.close().await;
    }
}

#[tokio::test]
async fn more_output_than_allowed_is_an_error_not_a_cut() {
    let Some(sshd) = Sshd::start(ED25519, ED25519, "").await else {
        return;
    };
    let size = large_export().len();
    for (max_output, whole) in [(size, true), (size - 1, false)] {
        let options = Options {
            max_output,
            ..Options::default()
        };
        let host = ssh::dial(&sshd.endpoint(), &Pin::Unpinned, soon(), &options).await;
        let host = host.expect("dial");
        let mut session = host.authenticate(&sshd.key_login()).await.expect("login");
        match session.run("large").await {
            Ok(output) => assert!(whole && output.stdout.len() == size),
            Err(error) => {
                assert!(!whole, "{error}");
                assert_eq!(error.kind(), FailureKind::ExportTooLarge);
                assert!(
                    error.to_string().contains(&max_output.to_string()),
                    "{error}"
                );
                // The rest is still coming: the connection is of no use any more.
                let next = session.run("next").await.expect_err("given up");
                assert_eq!(next.kind(), FailureKind::ConnectionLost);
            }
        }
    }
}

#[tokio::test]
async fn a_command_that_hangs_costs_no_more_than_the_deadline() {
    let Some(sshd) = Sshd::start(ED25519, ED25519, "").await else {
        return;
    };
    let deadline = Instant::now() + Duration::from_secs(6);
    let options = Options::default();
    let host = ssh::dial(&sshd.endpoint(), &Pin::Unpinned, deadline, &options).await;
    let login = host.expect("dial").authenticate(&sshd.key_login()).await;
    let error = login.expect("login").run("hang").await.expect_err("hangs");
    assert_eq!(error.kind(), FailureKind::TruncatedOutput, "{error}");
    assert!(deadline.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn another_host_key_than_the_pinned_one_gets_no_credential() {
    let Some(sshd) = Sshd::start(ED25519, ED25519, "").await else {
        return;
    };
    let pinned = Fingerprint::of_key_blob(b"the key before");
    for pin in [
        Pin::Pinned(pinned.clone()),
        Pin::Unreadable("MD5:00:11".into()),
    ] {
        let error = dial(&sshd.endpoint(), &pin).await.expect_err("mismatch");
        assert_eq!(error.kind(), FailureKind::HostKeyMismatch);
        let offered = error.offered().expect("the offered key").as_str();
        assert_eq!(offered, sshd.fingerprint());
        let text = chain(&error);
        let stored = pin.as_column().expect("a pin");
        assert!(text.contains(offered) && text.contains(stored), "{text}");
    }
    assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
    assert!(!sshd.log().contains("Failed"), "{}", sshd.log());
}

#[tokio::test]
async fn each_algorithm_of_old_routeros_works() {
    // One sshd per line: key exchange, cipher, MAC.
    for [kex, cipher, mac] in [
        ["diffie-hellman-group14-sha1", "aes128-ctr", "hmac-sha1"],
        [
            "diffie-hellman-group-exchange-sha256",
            "aes256-ctr",
            "hmac-sha1",
        ],
        [
            "diffie-hellman-group-exchange-sha1",
            "aes192-cbc",
            "hmac-sha1",
        ],
        ["diffie-hellman-group1-sha1", "aes128-cbc", "hmac-sha1"],
        [
            "diffie-hellman-group14-sha256",
            "aes256-cbc",
            "hmac-sha2-256",
        ],
        ["ecdh-sha2-nistp256", "aes128-gcm@openssh.com", "hmac-sha1"],
    ] {
        let config = format!(
            "KexAlgorithms {kex}\nCiphers {cipher}\nMACs {mac}\nHostKeyAlgorithms ssh-rsa\n\
             PubkeyAcceptedAlgorithms ssh-rsa\nRekeyLimit 1M"
        );
        let Some(sshd) = Sshd::start(RSA, RSA, &config).await else {
            return;
        };
        let host = dial(&sshd.endpoint(), &Pin::Unpinned).await;
        let host = host.unwrap_or_else(|error| panic!("{kex}: {}", chain(&error)));
        let negotiated = host.negotiated().clone();
        assert_eq!(negotiated.kex, kex);
        assert_eq!(negotiated.cipher, cipher);
        assert_eq!(negotiated.host_key, "ssh-rsa");
        if negotiated.mac != "implicit" {
            assert_eq!(negotiated.mac, mac);
        }
        assert_eq!(host.fingerprint().as_str(), sshd.fingerprint());
        let session = host.authenticate(&sshd.key_login()).await;
        let mut session = session.unwrap_or_else(|error| panic!("{kex}: {}", chain(&error)));
        let output = session.run("large").await;
        let output = output.unwrap_or_else(|error| panic!("{kex}: {}", chain(&error)));
        assert!(output.stdout == large_export(), "{kex}: {output:?}");
    }
}

/// What RouterOS offers, as a whole, offered by another implementation.
#[tokio::test]
async fn each_profile_of_routeros_is_reached_by_its_best_algorithms() {
    const KEX: &str = "diffie-hellman-group-exchange-sha256,diffie-hellman-group-exchange-sha1,\
                       diffie-hellman-group14-sha1,diffie-hellman-group1-sha1";
    const STRONG_KEX: &str = "diffie-hellman-group-exchange-sha256";
    const CIPHERS: &str =
        "aes128-ctr,aes192-ctr,aes256-ctr,aes128-cbc,aes192-cbc,aes256-cbc,3des-cbc";
    const STRONG_CIPHERS: &str = "aes192-ctr,aes256-ctr,aes192-cbc,aes256-cbc";
    let group14 = "diffie-hellman-group14-sha1";
    for (profile, kexes, keys, ciphers, macs, expected) in [
        (
            "v6 default",
            KEX,
            "ssh-rsa",
            CIPHERS,
            "hmac-sha1,hmac-md5",
            [group14, "ssh-rsa", "aes256-ctr", "hmac-sha1"],
        ),
        (
            "v6 strong-crypto",
            STRONG_KEX,
            "ssh-rsa",
            STRONG_CIPHERS,
            "hmac-sha2-256",
            [STRONG_KEX, "ssh-rsa", "aes256-ctr", "hmac-sha2-256"],
        ),
        (
            "v7 default, older",
            KEX,
            "rsa-sha2-256,ssh-rsa",
            CIPHERS,
            "hmac-sha1,hmac-md5",
            [group14, "rsa-sha2-256", "aes256-ctr", "hmac-sha1"],
        ),
        (
            "v7 default",
            KEX,
            "rsa-sha2-256,ssh-rsa",
            "aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com",
            "hmac-sha1,hmac-md5",
            [
                group14,
                "rsa-sha2-256",
                "aes256-gcm@openssh.com",
                "implicit",
            ],
        ),
        (
            "v7 strong-crypto",
            STRONG_KEX,
            "rsa-sha2-256,ssh-rsa",
            STRONG_CIPHERS,
            "hmac-sha2-256",
            [STRONG_KEX, "rsa-sha2-256", "aes256-ctr", "hmac-sha2-256"],
        ),
    ] {
        let config = format!(
            "KexAlgorithms {kexes}\nCiphers {ciphers}\nMACs {macs}\nHostKeyAlgorithms {keys}\n\
             PubkeyAcceptedAlgorithms {keys}"
        );
        let Some(sshd) = Sshd::start(RSA, RSA, &config).await else {
            return;
        };
        let host = dial(&sshd.endpoint(), &Pin::Unpinned).await;
        let host = host.unwrap_or_else(|error| panic!("{profile}: {}", chain(&error)));
        let negotiated = host.negotiated().clone();
        assert_eq!(
            [
                negotiated.kex.as_str(),
                &negotiated.host_key,
                &negotiated.cipher,
                &negotiated.mac
            ],
            expected,
            "{profile}"
        );
        let session = host.authenticate(&sshd.key_login()).await;
        let mut session = session.unwrap_or_else(|error| panic!("{profile}: {}", chain(&error)));
        let output = session.run("/export").await.expect(profile);
        assert_eq!(output.stdout, b"ran /export\n");
    }
}

#[tokio::test]
async fn rsa_keys_of_every_size_and_signature_are_taken() {
    for (bits, algorithm, accepted) in [
        // This server lists rsa-sha2-512 in its extensions all the same.
        ("1024", "ssh-rsa", "ssh-rsa"),
        ("2048", "rsa-sha2-256", "rsa-sha2-512"),
        ("4096", "rsa-sha2-512", "rsa-sha2-512"),
    ] {
        let config = format!(
            "HostKeyAlgorithms {algorithm}\nPubkeyAcceptedAlgorithms {accepted}\n\
             RequiredRSASize 1024"
        );
        let key = ["-t", "rsa", "-b", bits];
        let Some(sshd) = Sshd::start(&key, &key, &config).await else {
            return;
        };
        let host = dial(&sshd.endpoint(), &Pin::Unpinned).await;
        let host = host.unwrap_or_else(|error| panic!("{bits}: {}", chain(&error)));
        assert_eq!(host.negotiated().host_key, algorithm);
        let session = host.authenticate(&sshd.key_login()).await;
        session.unwrap_or_else(|error| panic!("{bits}: {}", chain(&error)));
    }
}

#[tokio::test]
async fn modern_signs_with_no_sha1_and_the_refusal_says_what_forbids_it() {
    // This server lists SHA-2 among the signatures that it takes, and refuses it.
    let Some(sshd) = Sshd::start(ED25519, RSA, "PubkeyAcceptedAlgorithms ssh-rsa").await else {
        return;
    };
    let modern = Options {
        algorithms: SshAlgorithms::Modern,
        ..Options::default()
    };
    let host = ssh::dial(&sshd.endpoint(), &Pin::Unpinned, soon(), &modern).await;
    let refused = host.expect("dial").authenticate(&sshd.key_login()).await;
    let error = refused.expect_err("only SHA-1 is taken");
    let text = chain(&error);
    assert_eq!(error.kind(), FailureKind::AuthFailed, "{text}");
    for word in ["SHA-1", "SSH_ALGORITHMS", "Ed25519", "compatible"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let accepted = sshd.log().contains("Accepted publickey");
    assert!(!accepted, "{}", sshd.log());
}

#[tokio::test]
async fn a_server_that_opens_no_channel_is_tried_again_and_says_what_to_do() {
    let Some(sshd) = Sshd::start(ED25519, ED25519, "MaxSessions 0").await else {
        return;
    };
    let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
    let mut session = host.authenticate(&sshd.key_login()).await.expect("login");
    let error = session.run("/export").await.expect_err("no channel");
    let text = chain(&error);
    assert_eq!(error.kind(), FailureKind::ConnectionLost, "{text}");
    assert!(text.contains("max-sessions"), "{text}");
}

#[tokio::test]
async fn nothing_in_common_names_what_each_side_offers() {
    let config = "Ciphers aes256-ctr\nMACs umac-64@openssh.com";
    let Some(sshd) = Sshd::start(ED25519, ED25519, config).await else {
        return;
    };
    let error = dial(&sshd.endpoint(), &Pin::Unpinned).await;
    let error = error.expect_err("no common MAC");
    assert_eq!(error.kind(), FailureKind::NoCommonAlgorithm);
    let text = chain(&error);
    assert!(
        text.contains("umac-64@openssh.com") && text.contains("hmac-sha1"),
        "{text}"
    );
    assert!(text.contains("strong-crypto=yes"), "{text}");
}

#[tokio::test]
async fn a_key_that_the_server_does_not_know_is_refused() {
    let servers = (
        Sshd::start(ED25519, ED25519, "").await,
        Sshd::start(ED25519, RSA, "").await,
    );
    let (Some(sshd), Some(other)) = servers else {
        return;
    };
    let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
    let error = host.authenticate(&other.key_login()).await;
    let error = error.expect_err("an unknown key");
    assert_eq!(error.kind(), FailureKind::AuthFailed, "{}", chain(&error));
    assert!(error.to_string().contains("publickey"), "{error}");
}

#[tokio::test]
async fn a_password_logs_in_and_a_wrong_one_is_sent_once() {
    let Some(account) = Account::create() else {
        return;
    };
    let config = "PubkeyAuthentication no\nPasswordAuthentication yes";
    let Some(sshd) = Sshd::start_for(account, config).await else {
        return;
    };
    let good = sshd.password_login(Some(sshd.password()));
    let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
    let mut session = host.authenticate(&good).await.expect("login");
    let output = session.run("/export").await.expect("run");
    assert_eq!(output.stdout, b"ran /export\n");

    let bad = sshd.password_login(Some("not the password"));
    let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
    let error = host.authenticate(&bad).await.expect_err("wrong password");
    assert_eq!(error.kind(), FailureKind::AuthFailed, "{}", chain(&error));
    assert!(!chain(&error).contains("not the password"));
    assert_eq!(
        sshd.log().matches("Failed password").count(),
        1,
        "{}",
        sshd.log()
    );

    // A key that this server does not want does not keep the password from being tried.
    let both = mikrotik_backup::credentials::Login {
        password: good.password.clone(),
        ..sshd.key_login()
    };
    let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
    host.authenticate(&both).await.expect("by password");
}

#[tokio::test]
async fn too_many_failures_are_a_refusal() {
    let Some(account) = Account::create() else {
        return;
    };
    // sshd then disconnects in place of its last answer.
    let config = "PubkeyAuthentication no\nPasswordAuthentication yes\nMaxAuthTries 1";
    let Some(sshd) = Sshd::start_for(account, config).await else {
        return;
    };
    let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
    let bad = sshd.password_login(Some("not the password"));
    let error = host.authenticate(&bad).await.expect_err("wrong password");
    assert_eq!(error.kind(), FailureKind::AuthFailed, "{}", chain(&error));
}

#[tokio::test]
async fn keyboard_interactive_is_answered_with_the_password_where_nothing_else_is_offered() {
    if !std::path::Path::new("/etc/pam.d/sshd").exists() {
        eprintln!("skipped: sshd has no PAM configuration here");
        return;
    }
    let Some(account) = Account::create() else {
        return;
    };
    let config = "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\n\
                  PubkeyAuthentication no";
    let Some(sshd) = Sshd::start_for(account, config).await else {
        return;
    };
    let good = sshd.password_login(Some(sshd.password()));
    let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
    host.authenticate(&good).await.unwrap_or_else(|error| {
        panic!("{}\n{}", chain(&error), sshd.log());
    });
    let bad = sshd.password_login(Some("not the password"));
    let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
    let error = host.authenticate(&bad).await.expect_err("wrong password");
    assert_eq!(error.kind(), FailureKind::AuthFailed, "{}", chain(&error));
}

#[tokio::test]
async fn a_login_that_cannot_be_used_sends_nothing() {
    let Some(sshd) = Sshd::start(ED25519, ED25519, "").await else {
        return;
    };
    let nothing = sshd.password_login(None);
    let damaged = mikrotik_backup::credentials::Login {
        private_key: Some(SecretString::from(
            "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0",
        )),
        ..sshd.password_login(None)
    };
    for (login, fault) in [(nothing, "neither"), (damaged, "private_key")] {
        let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
        let error = host.authenticate(&login).await.expect_err(fault);
        assert_eq!(error.kind(), FailureKind::CredentialsUnreadable);
        let text = chain(&error);
        assert!(text.contains(fault) && !text.contains("c2VjcmV0"), "{text}");
    }
    assert!(!sshd.log().contains("Failed"), "{}", sshd.log());
}
