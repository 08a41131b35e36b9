//! Our client and the simulated RouterOS: its algorithms, its window, its pauses, its way to end.

use std::time::Duration;

use mikrotik_backup::credentials::Login;
use mikrotik_backup::domain::device::Endpoint;
use mikrotik_backup::domain::failure::{FailureKind, chain};
use mikrotik_backup::domain::host_key::Pin;
use mikrotik_backup::domain::session::SshAlgorithms;
use mikrotik_backup::routeros::{Answer, Dialogue, Verdict};
use mikrotik_backup::sim::{Fault, HostKeyKind, Router, RouterOptions, SshProfile};
use mikrotik_backup::ssh::{self, Options, Session};
use tokio::time::Instant;

use super::soon;

const EXPORT: &str = "/export show-sensitive";

fn start(options: RouterOptions) -> Router {
    Router::start_one(options).expect("listen on a free port")
}

fn endpoint(router: &Router) -> Endpoint {
    Endpoint {
        host: router.address().ip().to_string(),
        port: router.address().port().into(),
    }
}

async fn log_in(router: &Router, deadline: Instant, options: &Options) -> Session {
    let host = ssh::dial(&endpoint(router), &Pin::Unpinned, deadline, options).await;
    let login = Login {
        username: router.username(),
        password: Some(router.password().into()),
        private_key: None,
        private_key_passphrase: None,
    };
    let host = host.unwrap_or_else(|error| panic!("{}", chain(&error)));
    host.authenticate(&login).await.expect("log in")
}

#[tokio::test]
async fn a_hundred_megabytes_come_whole_where_routeros_loses_what_the_window_cannot_hold() {
    for fault in [Fault::LoseTail, Fault::LoseTailFar] {
        let router = start(RouterOptions {
            size_bytes: 100 << 20,
            ..RouterOptions::default()
        });
        router.set_fault(fault);
        let mut session = log_in(&router, soon(), &Options::default()).await;
        let output = session.run(EXPORT).await.expect("an export");
        assert!(output.closed && output.exit_status == Some(0));
        assert!(output.stdout.len() > 99 << 20, "{output:?}");
        let verdict = Dialogue::new(None).judge(&Answer {
            stdout: &output.stdout,
            stderr: &output.stderr,
            exit_status: output.exit_status,
            closed: output.closed,
        });
        assert!(matches!(verdict, Verdict::Whole(_)), "{fault}: {verdict:?}");
        let stats = router.stats();
        assert_eq!(stats.exports_whole, 1, "{fault}: nothing was lost");
        assert_eq!(stats.bytes, output.stdout.len() as u64);
    }
}

#[tokio::test]
async fn more_than_is_allowed_is_not_read_in_spite_of_the_window() {
    let router = start(RouterOptions {
        size_bytes: 100 << 20,
        ..RouterOptions::default()
    });
    let options = Options {
        max_output: 1 << 20,
        ..Options::default()
    };
    let mut session = log_in(&router, soon(), &options).await;
    let error = session.run(EXPORT).await.expect_err("too large");
    assert_eq!(error.kind(), FailureKind::ExportTooLarge);
    drop(session);
    let give_up = soon();
    while router.stats().open_connections > 0 {
        assert!(Instant::now() < give_up, "the connection stays open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What the buffers of a connection hold, and no more, was sent beyond the limit.
    let sent = router.stats().bytes;
    assert!(sent < 40 << 20, "{sent} bytes were sent");
}

#[tokio::test]
async fn a_pause_is_waited_for_and_a_longer_silence_is_not() {
    let router = start(RouterOptions::default());
    router.set_fault(Fault::PauseMidOutput(Duration::from_secs(2)));
    let patient = Options {
        idle_timeout: Duration::from_secs(20),
        ..Options::default()
    };
    let mut session = log_in(&router, soon(), &patient).await;
    session.run(EXPORT).await.expect("it goes on");
    assert_eq!(router.stats().exports_whole, 1);

    let hasty = Options {
        idle_timeout: Duration::from_secs(1),
        ..Options::default()
    };
    for (fault, kind) in [
        (Fault::StallMidOutput, FailureKind::TruncatedOutput),
        (Fault::StallBeforeOutput, FailureKind::Timeout),
        // Not even the request for a channel is answered.
        (Fault::StallAfterAuth, FailureKind::Timeout),
    ] {
        router.set_fault(fault);
        let mut session = log_in(&router, soon(), &hasty).await;
        let began = Instant::now();
        let error = session.run(EXPORT).await.expect_err("silence");
        assert_eq!(error.kind(), kind, "{fault}");
        assert!(began.elapsed() < Duration::from_secs(20), "{fault}");
        let text = error.to_string();
        assert!(text.contains("CONFIG_BACKUP_IDLE_TIMEOUT"), "{text}");
    }
}

#[tokio::test]
async fn every_profile_is_read_whole_by_the_algorithms_that_it_has() {
    const GROUP14: &str = "diffie-hellman-group14-sha1";
    const GEX: &str = "diffie-hellman-group-exchange-sha256";
    for (profile, [kex, host_key, cipher, mac]) in [
        (
            SshProfile::V6,
            [GROUP14, "ssh-rsa", "aes256-ctr", "hmac-sha1"],
        ),
        (
            SshProfile::V6Strong,
            [GEX, "ssh-rsa", "aes256-ctr", "hmac-sha2-256"],
        ),
        (
            SshProfile::V7WithoutGcm,
            [GROUP14, "rsa-sha2-256", "aes256-ctr", "hmac-sha1"],
        ),
        (
            SshProfile::V7,
            [
                GROUP14,
                "rsa-sha2-256",
                "aes256-gcm@openssh.com",
                "implicit",
            ],
        ),
        (
            SshProfile::V7Strong,
            [GEX, "rsa-sha2-256", "aes256-ctr", "hmac-sha2-256"],
        ),
    ] {
        let router = start(RouterOptions {
            profile,
            host_key: HostKeyKind::Rsa,
            ..RouterOptions::default()
        });
        for fault in [
            None,
            Some(Fault::SlowKex(Duration::from_millis(1500))),
            Some(Fault::DataAfterExitStatus),
        ] {
            match fault {
                None => router.clear_fault(),
                Some(fault) => router.set_fault(fault),
            }
            let whole = router.stats().exports_whole;
            // A key exchange may take longer than a connect, for seconds on slow devices.
            let options = Options {
                connect_timeout: Duration::from_secs(1),
                ..Options::default()
            };
            let mut session = log_in(&router, soon(), &options).await;
            let negotiated = session.negotiated().clone();
            assert_eq!(
                [
                    &negotiated.kex,
                    &negotiated.host_key,
                    &negotiated.cipher,
                    &negotiated.mac
                ],
                [kex, host_key, cipher, mac],
                "{profile:?}"
            );
            let output = session.run(EXPORT).await.expect("an answer");
            assert!(output.closed && output.exit_status == Some(0));
            let mut exports = 1;
            if output.stdout.starts_with(b"expected end of command") {
                let plain = session.run("/export").await.expect("an export");
                assert!(plain.stdout.starts_with(b"# "), "{plain:?}");
                exports += 1;
            }
            assert!(exports <= 2);
            session.close().await;
            assert_eq!(router.stats().exports_whole, whole + 1, "{profile:?}");
        }
    }
}

#[tokio::test]
async fn modern_reaches_what_has_enough_that_is_strong() {
    let modern = Options {
        algorithms: SshAlgorithms::Modern,
        ..Options::default()
    };
    // A host key that signs with SHA-1 only: strong-crypto does not change that.
    let sha1 = Some(["upgrade it to RouterOS 7", "takes its ssh-rsa"]);
    for (profile, without) in [
        (SshProfile::V6, sha1),
        (SshProfile::V6Strong, sha1),
        (
            SshProfile::V7WithoutGcm,
            Some(["strong-crypto=yes", "takes its hmac-sha1"]),
        ),
        // Group exchange and GCM: with them nothing of the weak rest is needed.
        (SshProfile::V7, None),
        (SshProfile::V7Strong, None),
        (SshProfile::Modern, None),
    ] {
        let router = start(RouterOptions {
            profile,
            host_key: HostKeyKind::Rsa,
            ..RouterOptions::default()
        });
        let host = ssh::dial(&endpoint(&router), &Pin::Unpinned, soon(), &modern).await;
        match host {
            Ok(host) => {
                assert_eq!(without, None, "{profile:?}: {}", host.negotiated());
                assert_eq!(host.negotiated().weak(), [], "{profile:?}");
            }
            Err(error) => {
                let text = chain(&error);
                let words = without.unwrap_or_else(|| panic!("{profile:?}: {text}"));
                assert_eq!(error.kind(), FailureKind::NoCommonAlgorithm, "{profile:?}");
                for word in ["SSH_ALGORITHMS=modern", words[0], words[1]] {
                    assert!(text.contains(word), "{profile:?}: {text}");
                }
            }
        }
    }
}
