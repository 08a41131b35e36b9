//! Which method is tried when, what is signed with SHA-1, and what counts as a refusal.

use proptest::prelude::*;
use russh::keys::ssh_key::LineEnding;
use secrecy::SecretString;

use super::*;

#[test]
fn sha1_comes_last_and_never_where_it_is_forbidden() {
    use SshAlgorithms::{Compatible, Modern};
    const SHA256: Option<HashAlg> = Some(HashAlg::Sha256);
    const SHA512: Option<HashAlg> = Some(HashAlg::Sha512);
    for (listed, host_key, password_left, compatible, modern) in [
        // RouterOS 6 lists nothing, and is reached by `compatible` only.
        (None, "ssh-rsa", false, &[None][..], (&[][..], true)),
        (None, "ssh-rsa", true, &[None], (&[], true)),
        (None, "ssh-ed25519", true, &[SHA256], (&[SHA256], false)),
        (
            None,
            "ssh-ed25519",
            false,
            &[SHA256, None],
            (&[SHA256], true),
        ),
        (Some(SHA512), "ssh-rsa", true, &[SHA512], (&[SHA512], false)),
        (
            Some(SHA512),
            "rsa-sha2-512",
            false,
            &[SHA512, None],
            (&[SHA512], true),
        ),
        (Some(None), "ssh-ed25519", true, &[None], (&[], true)),
    ] {
        let plan = |algorithms| plan(true, listed, host_key, password_left, algorithms);
        let told = format!("{listed:?} {host_key} {password_left}");
        assert_eq!(plan(Compatible).hashes, compatible, "{told}");
        assert!(!plan(Compatible).withheld, "{told}");
        assert_eq!(plan(Modern).hashes, modern.0, "{told}");
        assert_eq!(plan(Modern).withheld, modern.1, "{told}");
        for hash in plan(Modern).hashes {
            assert_eq!(weak_signature(true, hash), None, "{told}");
        }
    }
    // Only RSA has a choice; the others have no SHA-1 in them.
    let offered = plan(false, None, "ssh-ed25519", false, Modern);
    assert_eq!((offered.hashes, offered.withheld), (vec![None], false));
    assert_eq!(weak_signature(false, None), None);
    let weak = weak_signature(true, None).expect("SHA-1");
    assert_eq!(weak.to_string(), "ssh-rsa (user key)");
}

const KINDS: [MethodKind; 4] = [
    MethodKind::PublicKey,
    MethodKind::Password,
    MethodKind::KeyboardInteractive,
    MethodKind::HostBased,
];

proptest! {
    #[test]
    fn each_secret_is_sent_once_whatever_the_server_offers(
        key: bool,
        password: bool,
        rounds in proptest::collection::vec(proptest::sample::subsequence(&KINDS[..], 0..=4), 0..12),
    ) {
        let mut left = Left { key, password };
        let mut used = Vec::new();
        for offered in rounds {
            if let Some(method) = left.take(&offered) {
                let kind = match method {
                    Method::Key => MethodKind::PublicKey,
                    Method::Password => MethodKind::Password,
                    Method::Interactive => MethodKind::KeyboardInteractive,
                };
                prop_assert!(offered.contains(&kind), "only what is offered");
                if method == Method::Interactive {
                    prop_assert!(!offered.contains(&MethodKind::Password));
                }
                used.push(method);
            }
        }
        let keys = used.iter().filter(|method| **method == Method::Key).count();
        prop_assert!(keys <= usize::from(key));
        prop_assert!(used.len() - keys <= usize::from(password));
    }
}

#[test]
fn the_key_comes_before_the_password() {
    let mut left = Left {
        key: true,
        password: true,
    };
    assert_eq!(left.take(&KINDS), Some(Method::Key));
    assert_eq!(left.take(&KINDS), Some(Method::Password));
    assert_eq!(left.take(&KINDS), None);
}

#[test]
fn only_one_hidden_question_is_answered() {
    let prompt = |echo| Prompt {
        prompt: "Password:".into(),
        echo,
    };
    let mut password = Some("p");
    assert_eq!(answers(&[], &mut password).expect("nothing asked"), [""; 0]);
    assert!(answers(&[prompt(true)], &mut password).is_err());
    assert!(answers(&[prompt(false), prompt(false)], &mut password).is_err());
    assert_eq!(
        answers(&[prompt(false)], &mut password).expect("asked"),
        ["p"]
    );
    assert!(
        answers(&[prompt(false)], &mut password).is_err(),
        "asked again"
    );
}

#[test]
fn an_ending_is_a_refusal_only_when_the_server_says_so_about_a_secret() {
    let said = |code, message: &str| Ending::Disconnected {
        code,
        message: message.into(),
    };
    let password = &["password"][..];
    for (ending, tried, refusal) in [
        (said(14, ""), password, true),
        (said(2, "Too many authentication failures"), password, true),
        (Ending::Failed(russh::Error::NoAuthMethod), password, true),
        (Ending::Failed(russh::Error::NoAuthMethod), &[], false),
        (said(14, ""), &[], false),
        (said(2, "Protocol error"), password, false),
        (said(11, "rebooting"), password, false),
        (said(12, "too many connections"), password, false),
        (Ending::Failed(russh::Error::Disconnect), password, false),
        (Ending::Failed(russh::Error::HUP), password, false),
    ] {
        assert_eq!(is_refusal(&ending, tried), refusal, "{ending:?} {tried:?}");
    }
}

fn login(key: &str, passphrase: Option<&str>) -> Login {
    Login {
        username: "backup".into(),
        password: None,
        private_key: Some(SecretString::from(key)),
        private_key_passphrase: passphrase.map(SecretString::from),
    }
}

#[test]
fn keys_that_cannot_be_read_are_explained_without_showing_them() {
    let mut rng = rand::rng();
    let key = PrivateKey::random(&mut rng, russh::keys::Algorithm::Ed25519).expect("a key");
    let sealed = key.encrypt(&mut rng, "correct horse").expect("encrypted");
    let [plain, sealed] = [&key, &sealed].map(|key| {
        let text = key.to_openssh(LineEnding::CRLF).expect("text");
        format!("\n{}\n", text.as_str())
    });
    let mut pkcs8 = Vec::new();
    russh::keys::encode_pkcs8_pem_encrypted(&key, b"correct horse", 1000, &mut pkcs8)
        .expect("PKCS#8");
    let pkcs8 = String::from_utf8(pkcs8).expect("PEM is ASCII");

    for good in [
        login(&plain, None),
        login(&plain, Some("")),
        login(&sealed, Some("correct horse")),
        login(&pkcs8, Some("correct horse")),
    ] {
        let read = read_key(&good).expect("readable").expect("a key");
        assert_eq!(read.public_key().key_data(), key.public_key().key_data());
    }
    for (bad, fault) in [
        (login(&sealed, None), "private_key_passphrase is missing"),
        (login(&pkcs8, None), "private_key_passphrase is missing"),
        (
            login(&sealed, Some("battery")),
            "check it and private_key_passphrase",
        ),
        (
            login(&pkcs8, Some("battery")),
            "check it and private_key_passphrase",
        ),
        (login("ssh-ed25519 AAAA", None), "damaged"),
        (login(&plain.replace("AAAA", "!!!!"), None), "damaged"),
    ] {
        let text = read_key(&bad).expect_err(fault);
        assert!(text.contains(fault), "{text}");
    }
    assert!(matches!(read_key(&login(" \n", None)), Ok(None)));
}
