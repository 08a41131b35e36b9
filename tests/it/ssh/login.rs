//! What a login and a command end with, where real servers cannot be brought to it.

use mikrotik_backup::credentials::Login;
use mikrotik_backup::domain::failure::{FailureKind, chain};
use mikrotik_backup::domain::host_key::{Fingerprint, Pin};
use mikrotik_backup::ssh::{Output, Session, SshError};
use secrecy::SecretString;

use super::dial;
use super::peer::{Commands, Logins, Server, server};

fn login(password: &str) -> Login {
    Login {
        username: "backup".into(),
        password: Some(SecretString::from(password)),
        private_key: None,
        private_key_passphrase: None,
    }
}

async fn log_in(server: &Server, password: &str) -> Result<Session, SshError> {
    let pin = Pin::Pinned(server.fingerprint.clone());
    let host = dial(&server.peer.endpoint(), &pin).await.expect("dial");
    host.authenticate(&login(password)).await
}

async fn run(commands: Commands) -> Result<Output, SshError> {
    let server = server(Logins::Password, commands);
    let mut session = log_in(&server, "right").await.expect("login");
    session.run("/export").await
}

#[tokio::test]
async fn only_a_refusal_blocks_and_a_lost_connection_never_does() {
    use FailureKind as K;
    for (logins, kind, seen) in [
        (
            Logins::Password,
            K::AuthFailed,
            &["none", "password wrong"][..],
        ),
        (
            Logins::Interactive,
            K::AuthFailed,
            &["none", "keyboard-interactive", "answer wrong"],
        ),
        (
            Logins::LastRefusal,
            K::AuthFailed,
            &["none", "password wrong"],
        ),
        // Nothing was proved wrong: there was no question.
        (Logins::NoMethod, K::Protocol, &["none"]),
        (
            Logins::Insatiable,
            K::Protocol,
            &["none", "keyboard-interactive", "answer wrong"],
        ),
        (Logins::Cut, K::ConnectionLost, &["none", "password wrong"]),
        (
            Logins::Reset,
            K::ConnectionLost,
            &["none", "password wrong"],
        ),
    ] {
        let server = server(logins, Commands::Answered);
        let error = log_in(&server, "wrong").await.expect_err("no login");
        assert_eq!(error.kind(), kind, "{logins:?}: {}", chain(&error));
        assert!(!chain(&error).contains("wrong"), "{}", chain(&error));
        assert_eq!(server.seen().await, seen, "{logins:?}");
    }
}

#[tokio::test]
async fn the_right_password_is_sent_by_the_method_that_is_offered() {
    for (logins, seen) in [
        // This one offers keyboard-interactive as well.
        (Logins::Password, &["none", "password right"][..]),
        (
            Logins::Interactive,
            &["none", "keyboard-interactive", "answer right"],
        ),
    ] {
        let server = server(logins, Commands::Answered);
        let session = log_in(&server, "right").await.expect("login");
        session.close().await;
        assert_eq!(server.seen().await, seen);
    }
}

#[tokio::test]
async fn a_wrong_host_key_sees_no_authentication_request() {
    let server = server(Logins::Password, Commands::Answered);
    let pin = Pin::Pinned(Fingerprint::of_key_blob(b"another"));
    let error = dial(&server.peer.endpoint(), &pin).await;
    let error = error.expect_err("another key is pinned");
    assert_eq!(error.kind(), FailureKind::HostKeyMismatch);
    assert_eq!(error.offered(), Some(&server.fingerprint));
    assert_eq!(server.seen().await, [""; 0]);
}

#[tokio::test]
async fn a_command_ends_with_the_close_of_its_channel() {
    let output = run(Commands::Answered).await.expect("as RouterOS ends it");
    assert_eq!(
        output.stdout, b"before\r\nafter\r\n",
        "data after the status"
    );
    assert_eq!(output.exit_status, Some(0));
    assert!(output.closed);

    let output = run(Commands::NoStatus).await.expect("closed");
    assert_eq!(output.stdout, b"cut in a li");
    assert_eq!(output.exit_status, None);
    assert!(output.closed);

    let output = run(Commands::CutAfterStatus).await.expect("ended");
    assert_eq!(output.exit_status, Some(0));
    assert!(!output.closed, "the connection was lost before the close");
}

#[tokio::test]
async fn a_command_that_is_cut_or_refused_is_an_error() {
    use FailureKind as K;
    for (commands, kind) in [
        (Commands::CutBefore, K::ConnectionLost),
        (Commands::CutAmid, K::TruncatedOutput),
        (Commands::Refused, K::PermissionDenied),
        (Commands::Denied, K::PermissionDenied),
    ] {
        let error = run(commands).await.expect_err("no output");
        assert_eq!(error.kind(), kind, "{commands:?}: {}", chain(&error));
    }
}
