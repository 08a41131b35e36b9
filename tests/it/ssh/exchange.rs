//! Servers that have only what is weak, of one part of a session: what is said of them, and what is
//! done with them.

use std::borrow::Cow;
use std::sync::Arc;

use mikrotik_backup::domain::failure::{FailureKind, chain};
use mikrotik_backup::domain::host_key::Pin;
use mikrotik_backup::domain::session::{SshAlgorithms, SshPart};
use mikrotik_backup::ssh::{self, Options};
use russh::client::GexParams;
use russh::kex::dh::groups::{DH_GROUP1, DhGroup};
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, Config, Handler, VerifiedPublicKey, run_stream};
use russh::{MethodKind, Preferred, kex};

use super::peer::Peer;
use super::{dial, soon};
use crate::services::sshd::Sshd;

/// Lets everybody in who has a key, and has one small group.
struct Old;

impl Handler for Old {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn lookup_dh_gex_group(
        &mut self,
        _: &GexParams,
    ) -> Result<Option<DhGroup>, russh::Error> {
        Ok(Some(DH_GROUP1))
    }
}

/// A server for one connection that has an Ed25519 host key, and offers this.
fn old(preferred: Preferred) -> Peer {
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).expect("a host key");
    let config = Config {
        keys: vec![key],
        methods: (&[MethodKind::PublicKey][..]).into(),
        auth_rejection_time: std::time::Duration::ZERO,
        preferred,
        ..Config::default()
    };
    Peer::raw(move |stream| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            stream.set_nonblocking(true).expect("for tokio");
            let stream = tokio::net::TcpStream::from_std(stream).expect("for tokio");
            // An error here or there is the client's end of the connection.
            if let Ok(running) = run_stream(Arc::new(config), stream, Old).await {
                let _ = running.await;
            }
        });
    })
}

#[tokio::test]
async fn a_group_exchange_with_1024_bits_is_told_with_what_to_do() {
    for name in [kex::DH_GEX_SHA256, kex::DH_GEX_SHA1] {
        let peer = old(Preferred {
            kex: Cow::Owned(vec![name]),
            ..Preferred::DEFAULT
        });
        let error = dial(&peer.endpoint(), &Pin::Unpinned).await;
        let error = error.expect_err("the group is too small");
        let text = chain(&error);
        assert_eq!(error.kind(), FailureKind::Protocol, "{text}");
        for word in ["1024 bits", "strong-crypto=yes", "upgrade"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        peer.ended().await;
    }
}

/// The signatures that it lists (RFC 8308, section 3.1) have SHA-1 for RSA, and nothing else.
fn takes_only_sha1() -> Peer {
    old(Preferred {
        key: Cow::Owned(vec![Algorithm::Ed25519, Algorithm::Rsa { hash: None }]),
        ..Preferred::DEFAULT
    })
}

#[tokio::test]
async fn where_only_sha1_is_listed_an_rsa_key_signs_with_it_or_not_at_all() {
    // Only its key is wanted.
    let Some(sshd) = Sshd::start(&["-t", "ed25519"], &["-t", "rsa", "-b", "2048"], "").await else {
        return;
    };
    let peer = takes_only_sha1();
    let modern = Options {
        algorithms: SshAlgorithms::Modern,
        ..Options::default()
    };
    let host = ssh::dial(&peer.endpoint(), &Pin::Unpinned, soon(), &modern).await;
    let refused = host.expect("dial").authenticate(&sshd.key_login()).await;
    let error = refused.expect_err("SHA-1 is forbidden");
    let text = chain(&error);
    // Nothing was refused by the server, so nothing is blocked.
    assert_eq!(error.kind(), FailureKind::NoCommonAlgorithm, "{text}");
    for word in ["SHA-1", "SSH_ALGORITHMS", "Ed25519", "compatible"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    peer.ended().await;

    let peer = takes_only_sha1();
    let host = dial(&peer.endpoint(), &Pin::Unpinned).await.expect("dial");
    assert_eq!(
        host.negotiated().weak(),
        [],
        "the key exchange is as good as any"
    );
    let session = host.authenticate(&sshd.key_login()).await;
    let session = session.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let weak = session.weak_login().expect("it is seen").clone();
    assert_eq!(
        (weak.part, weak.name.as_str()),
        (SshPart::UserKey, "ssh-rsa")
    );
    session.close().await;
    peer.ended().await;

    // The same key, where SHA-2 is taken.
    let host = dial(&sshd.endpoint(), &Pin::Unpinned).await.expect("dial");
    let session = host.authenticate(&sshd.key_login()).await.expect("login");
    assert_eq!(session.weak_login(), None);
}
