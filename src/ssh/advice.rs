//! What an operator is told to do about SSH algorithms that are missing, forbidden or weak.

use russh::AlgorithmKind;

use super::algorithms;
use crate::domain::session::SshAlgorithms;

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
