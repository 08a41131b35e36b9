//! Dropbear, the other server that embedded systems use.

use mikrotik_backup::domain::failure::{FailureKind, chain};
use mikrotik_backup::domain::host_key::Pin;

use super::dial;
use crate::services::sshd::{Account, Sshd, large_export};

#[tokio::test]
async fn key_and_password_log_in_and_a_large_export_comes_whole() {
    for host_key_type in ["ed25519", "rsa"] {
        let Some(account) = Account::create() else {
            return;
        };
        let Some(dropbear) = Sshd::dropbear(account, host_key_type).await else {
            return;
        };
        let password = dropbear.password_login(Some(dropbear.password()));
        for login in [dropbear.key_login(), password] {
            let host = dial(&dropbear.endpoint(), &Pin::Unpinned).await;
            let host = host.unwrap_or_else(|error| panic!("{}", chain(&error)));
            let id = host.server_id().expect("a greeting");
            assert!(id.starts_with("SSH-2.0-dropbear"), "{id}");
            let session = host.authenticate(&login).await;
            let mut session = session.unwrap_or_else(|error| {
                panic!("{}\n{}", chain(&error), dropbear.log());
            });
            let output = session.run("large").await.expect("run");
            assert!(output.stdout == large_export(), "{output:?}");
            assert_eq!(output.exit_status, Some(0));
            assert!(output.closed);
            let again = session.run("again").await.expect("a second command");
            assert_eq!(again.stdout, b"ran again\n");
            session.close().await;
        }
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let Some(account) = Account::create() else {
        return;
    };
    let Some(dropbear) = Sshd::dropbear(account, "ed25519").await else {
        return;
    };
    let host = dial(&dropbear.endpoint(), &Pin::Unpinned)
        .await
        .expect("dial");
    let login = dropbear.password_login(Some("not the password"));
    let error = host.authenticate(&login).await.expect_err("wrong password");
    assert_eq!(error.kind(), FailureKind::AuthFailed, "{}", chain(&error));
    let log = dropbear.log();
    assert_eq!(log.matches("Bad password attempt").count(), 1, "{log}");
}
