//! What an operator is told to do about SSH algorithms that are missing, forbidden or weak.

/// Ends what is said of an RSA key that was not used with SHA-1, because that is forbidden.
pub(super) const WITHHELD: &str = "only with a signature by SHA-1 (ssh-rsa), which SSH_ALGORITHMS=modern, or the device's \
     own setting, forbids; give the user an Ed25519 key (RouterOS 7.12 and later) or a password \
     instead, or allow the device what is compatible";
