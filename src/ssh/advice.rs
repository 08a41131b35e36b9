//! What an operator is told to do about SSH algorithms that are missing, forbidden or weak.

use russh::AlgorithmKind;

use super::algorithms;
use crate::domain::session::{SshAlgorithms, SshPart, WeakAlgorithm};

/// What can be done about each weak algorithm of a session, in the order of `session`.
pub fn remedies(session: &[WeakAlgorithm]) -> Vec<String> {
    let alone = session.len() == 1;
    let remedy = |weak: &WeakAlgorithm| format!("{weak} is weak: {}", remedy(weak, alone));
    session.iter().map(remedy).collect()
}

/// What of RouterOS these sentences rest on is in routeros-over-ssh.md, section 7.
fn remedy(weak: &WeakAlgorithm, alone: bool) -> &'static str {
    match (weak.part, weak.name.as_str(), alone) {
        // The one that is preferred to something better: `algorithms::KEX` has the reason.
        (SshPart::Kex, "diffie-hellman-group14-sha1", false) => {
            "it is taken before every group exchange, which old RouterOS answers with 1024 bits; \
             `/ip ssh set strong-crypto=yes` leaves only group exchange, with SHA-256 and 2048 bits"
        }
        (SshPart::Kex, "diffie-hellman-group14-sha1", true) => {
            "it is taken before every group exchange, which old RouterOS answers with 1024 bits; \
             nothing else here is weak, so this device may well be reached with \
             SSH_ALGORITHMS=modern as its own setting, and `/ip ssh set strong-crypto=yes` leaves \
             only group exchange, with SHA-256 and 2048 bits"
        }
        (SshPart::Kex, ..) => {
            "the router offers no better key exchange; upgrade it, and see that `/ip ssh` has \
             strong-crypto=yes"
        }
        (SshPart::HostKey, ..) => {
            "the router signs with its host key in no better way; RouterOS 6 has none, whatever \
             strong-crypto says, so only an upgrade to RouterOS 7 helps"
        }
        (SshPart::Cipher, ..) => {
            "the router offers neither GCM nor CTR, which every RouterOS has: see `/ip ssh print`, \
             or upgrade it"
        }
        (SshPart::Mac, ..) => {
            "the router offers no better MAC, nor a cipher that needs none; \
             `/ip ssh set strong-crypto=yes` offers one with SHA-256"
        }
        (SshPart::UserKey, ..) => {
            "the router takes no better signature of this RSA key; a password needs none, and \
             RouterOS 7.12 and later take an Ed25519 key"
        }
    }
}

/// Ends what is said of an RSA key that was not used with SHA-1, because that is forbidden.
pub(super) const WITHHELD: &str = "only with a signature by SHA-1 (ssh-rsa), which SSH_ALGORITHMS=modern, or the device's \
     own setting, forbids; give the user an Ed25519 key (RouterOS 7.12 and later) or a password \
     instead, or allow the device what is compatible";

/// What is said of a key exchange that russh broke off. It does not say why; the reason to expect is
/// a group below the 2048 bits that were asked for.
pub(super) const BROKEN_EXCHANGE: &str = "the device's part of the key exchange cannot be accepted; where it has nothing but group \
     exchange and answers with 1024 bits, as RouterOS 6 without strong-crypto does, \
     `/ip ssh set strong-crypto=yes` makes that 2048 bits, or upgrade it";

/// Why a device that offers `theirs` has nothing in common with us for one part of a session, and
/// what to do about it.
pub(super) fn nothing_in_common(
    part: &AlgorithmKind,
    theirs: &[String],
    algorithms: SshAlgorithms,
) -> String {
    // What RouterOS offers is in routeros-over-ssh.md, section 7.
    let (what, remedy) = match part {
        AlgorithmKind::Kex => (
            "key exchange",
            "`/ip ssh set strong-crypto=yes` has RouterOS offer group exchange with SHA-256; \
             upgrade one that has no such setting",
        ),
        AlgorithmKind::Key => (
            "host key signature",
            "RouterOS 6 has SHA-1 at best, whatever strong-crypto says: upgrade it to RouterOS 7, \
             where from 7.9 on `/ip ssh set host-key-type=ed25519` makes another host key, to be \
             accepted here",
        ),
        AlgorithmKind::Cipher => (
            "cipher",
            "every RouterOS has AES-CTR, unless `/ip ssh` is set to other ciphers: see `/ip ssh \
             print`, or upgrade it",
        ),
        AlgorithmKind::Mac => (
            "MAC",
            "`/ip ssh set strong-crypto=yes` has RouterOS offer one with SHA-256; upgrade one that \
             has no such setting",
        ),
        AlgorithmKind::Compression => ("compression", "nothing but `none` is offered to it"),
    };
    match algorithms {
        SshAlgorithms::Compatible => {
            format!("the device has no {what} that this program has; {remedy}")
        }
        SshAlgorithms::Modern => {
            let lifted = match algorithms::compatible(part, theirs) {
                Some(name) => {
                    format!("or allow the device what is compatible, which takes its {name}")
                }
                None => "compatible would have none either".to_owned(),
            };
            format!(
                "the device has no {what} that SSH_ALGORITHMS=modern, or the device's own setting, \
                 allows; {remedy}; {lifted}"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn weak(part: SshPart, name: &str) -> WeakAlgorithm {
        WeakAlgorithm {
            part,
            name: name.into(),
        }
    }

    #[test]
    fn what_is_advised_holds_for_the_algorithm() {
        let group14 = weak(SshPart::Kex, "diffie-hellman-group14-sha1");
        let ssh_rsa = weak(SshPart::HostKey, "ssh-rsa");
        let sha1 = weak(SshPart::Mac, "hmac-sha1");
        let user_key = weak(SshPart::UserKey, "ssh-rsa");

        // RouterOS 7 with GCM: the order is ours, and `modern` has another one.
        let [told] = remedies(std::slice::from_ref(&group14))
            .try_into()
            .expect("one");
        let told: String = told;
        assert!(told.starts_with("diffie-hellman-group14-sha1 is weak: it is taken before"));
        assert!(told.contains("SSH_ALGORITHMS=modern"), "{told}");
        assert!(!told.contains("router offers no better"), "{told}");

        // RouterOS 6 as it comes: `modern` would not reach it.
        let v6 = [group14, ssh_rsa.clone(), sha1];
        let told = remedies(&v6);
        assert_eq!(told.len(), 3);
        for (told, remedy) in
            told.iter()
                .zip(["strong-crypto=yes", "RouterOS 7", "strong-crypto=yes"])
        {
            assert!(told.contains(remedy), "{told}");
            assert!(!told.contains("modern"), "{told}");
        }
        // RouterOS 6 with strong-crypto on: it is not told to turn that on.
        let told = remedies(&[ssh_rsa]);
        assert!(!told[0].contains("strong-crypto=yes"), "{told:?}");
        assert!(told[0].contains("upgrade to RouterOS 7"), "{told:?}");

        let told = remedies(&[user_key]);
        assert!(
            told[0].starts_with("ssh-rsa (user key) is weak"),
            "{told:?}"
        );
        assert!(told[0].contains("Ed25519"), "{told:?}");
        // The other two key exchanges are what is left when nothing better is there.
        for name in [
            "diffie-hellman-group-exchange-sha1",
            "diffie-hellman-group1-sha1",
        ] {
            let told = remedies(&[weak(SshPart::Kex, name)]);
            assert!(told[0].contains("no better key exchange"), "{told:?}");
        }
    }

    #[test]
    fn modern_says_whether_compatible_would_do() {
        use SshAlgorithms::{Compatible, Modern};
        for (part, theirs, remedy, lifted) in [
            (
                AlgorithmKind::Kex,
                &["diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1"][..],
                "strong-crypto=yes",
                // Ours, not theirs, is the order.
                Some("diffie-hellman-group14-sha1"),
            ),
            (
                AlgorithmKind::Key,
                &["ssh-dss", "ssh-rsa"],
                "upgrade it to RouterOS 7",
                Some("ssh-rsa"),
            ),
            (
                AlgorithmKind::Key,
                &["ssh-dss"],
                "host-key-type=ed25519",
                None,
            ),
            (
                AlgorithmKind::Cipher,
                &["3des-cbc", "aes128-cbc"],
                "/ip ssh print",
                Some("aes128-cbc"),
            ),
            (
                AlgorithmKind::Mac,
                &["hmac-md5", "hmac-sha1"],
                "strong-crypto=yes",
                Some("hmac-sha1"),
            ),
            (AlgorithmKind::Mac, &["hmac-md5"], "strong-crypto=yes", None),
        ] {
            let modern = nothing_in_common(&part, &names(theirs), Modern);
            assert!(modern.contains("SSH_ALGORITHMS=modern"), "{modern}");
            assert!(modern.contains(remedy), "{modern}");
            match lifted {
                Some(name) => {
                    let end =
                        format!("or allow the device what is compatible, which takes its {name}");
                    assert!(modern.ends_with(&end), "{modern}");
                }
                None => assert!(
                    modern.ends_with("compatible would have none either"),
                    "{modern}"
                ),
            }
            let compatible = nothing_in_common(&part, &names(theirs), Compatible);
            assert!(compatible.contains(remedy), "{compatible}");
            assert!(!compatible.contains("SSH_ALGORITHMS"), "{compatible}");
        }
    }
}
