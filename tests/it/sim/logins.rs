//! Who is let in, with which algorithms, and what is counted of it.

use std::borrow::Cow;
use std::sync::Arc;

use mikrotik_backup::sim::{Fault, HostKeyKind, LoginMethod, RouterOptions, SshProfile};
use russh::client::{self, AuthResult, KeyboardInteractiveAuthResponse};
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use russh::{Preferred, kex};

use super::{config, connect, exec, log_in, start, until};

#[tokio::test]
async fn logins_are_judged_and_counted() {
    let router = start(RouterOptions::default());
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let wrong = client.authenticate_password("backup", "wrong").await;
    let Ok(AuthResult::Failure {
        remaining_methods, ..
    }) = wrong
    else {
        panic!("{wrong:?}")
    };
    assert_eq!(remaining_methods.len(), 2, "{remaining_methods:?}");
    let right = client.authenticate_password("backup", router.password());
    assert!(right.await.expect("an answer").success());
    let logins = router.logins();
    assert_eq!(logins.len(), 2);
    assert!(!logins[0].accepted && logins[1].accepted);
    assert_eq!(logins[0].method, LoginMethod::Password);
    assert_eq!(router.clients(), [logins[0].client]);
    assert_eq!(router.stats().password_attempts, 2);
    assert_eq!(router.stats().open_sessions, 1);

    // No more than a few tries per connection.
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let mut tries = 0;
    while let Ok(AuthResult::Failure { .. }) = client.authenticate_password("backup", "?").await {
        tries += 1;
        if client.is_closed() {
            break;
        }
        assert!(tries < 10, "it never gives up");
    }
    let received = router.stats().password_attempts;
    assert!((5..=6).contains(&received), "{received}");

    router.set_password("another");
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let old = client.authenticate_password("backup", "simulated-password");
    assert!(!old.await.expect("an answer").success());

    router.set_fault(Fault::CutDuringLogin);
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let cut = client.authenticate_password("backup", "another").await;
    assert!(!cut.is_ok_and(|result| result.success()));
    until("the client notices", || client.is_closed()).await;

    router.set_fault(Fault::WrongPassword);
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let refused = client.authenticate_password("backup", "another").await;
    assert!(!refused.expect("an answer").success());

    router.set_fault(Fault::KeyboardInteractiveOnly);
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let password = client.authenticate_password("backup", "another").await;
    assert!(!password.expect("an answer").success());
    let prompt = client.authenticate_keyboard_interactive_start("backup", None);
    let prompt = prompt.await.expect("a prompt");
    assert!(
        matches!(&prompt, KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } if prompts.len() == 1),
        "{prompt:?}"
    );
    let answer = client.authenticate_keyboard_interactive_respond(vec!["another".into()]);
    let answer = answer.await.expect("an answer");
    assert!(matches!(answer, KeyboardInteractiveAuthResponse::Success));
    assert_eq!(router.stats().password_attempts, received + 5);
}

#[tokio::test]
async fn an_imported_key_logs_in_and_turns_the_password_off() {
    let key = user_key();
    let router = start(RouterOptions {
        authorized_key: Some(key.public_key().clone()),
        ..RouterOptions::default()
    });
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let password = client.authenticate_password("backup", router.password());
    assert!(!password.await.expect("an answer").success());
    let with_key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
    let result = client.authenticate_publickey("backup", with_key.clone());
    assert!(result.await.expect("an answer").success());

    router.set_authorized_key(None);
    router.set_fault(Fault::KeyOnly);
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let unknown = client.authenticate_publickey("backup", with_key);
    assert!(!unknown.await.expect("an answer").success());
    let password = client.authenticate_password("backup", router.password());
    assert!(!password.await.expect("an answer").success());
}

#[tokio::test]
async fn each_profile_is_reached_by_a_client_that_knows_its_algorithms() {
    for (profile, kind) in [
        (SshProfile::V6, HostKeyKind::Ed25519),
        (SshProfile::V6Strong, HostKeyKind::Ed25519),
        (SshProfile::V7, HostKeyKind::Rsa),
        (SshProfile::V7Strong, HostKeyKind::Ed25519),
        (SshProfile::Modern, HostKeyKind::Rsa),
    ] {
        let router = start(RouterOptions {
            profile,
            host_key: kind,
            ..RouterOptions::default()
        });
        let (_, seen) = connect(&router, config()).await.expect("connect");
        assert_eq!(seen, router.fingerprint(), "{profile:?}");
        let heard = exec(&log_in(&router).await, "/system identity print").await;
        assert_eq!(heard.text(), "  name: sim-0001\r\n", "{profile:?}");
    }
}

#[tokio::test]
async fn old_group_exchange_is_too_small_for_a_modern_client() {
    let router = start(RouterOptions {
        profile: SshProfile::V6,
        ..RouterOptions::default()
    });
    let only = |name| client::Config {
        preferred: Preferred {
            kex: Cow::Owned(vec![name]),
            ..config().preferred
        },
        ..config()
    };
    assert!(connect(&router, only(kex::DH_GEX_SHA256)).await.is_err());
    assert!(connect(&router, only(kex::DH_G14_SHA1)).await.is_ok());
}

/// A key for these tests, the same every time.
fn user_key() -> PrivateKey {
    let pair = Ed25519Keypair::from_seed(&[7; 32]);
    PrivateKey::new(KeypairData::Ed25519(pair), "test").expect("a key without passphrase")
}
