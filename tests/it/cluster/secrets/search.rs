//! The secrets of the test, and the search for them in all their forms.

use mikrotik_backup::sim::SECRET_MARK;

use crate::cluster::harness::{KEY, base64};

pub const DEVICE_PASSWORD: &str = "marker-Dev1ce/Pass:word";
pub const WRONG_PASSWORD: &str = "marker-Wr0ng-Password";
pub const PASSPHRASE: &str = "marker-Passphr4se";
pub const WRONG_PASSPHRASE: &str = "marker-Wr0ng-Passphr4se";
pub const UNREADABLE: &str = "marker-Unreadable-Cr3dential";
pub const API_TOKEN: &str = "marker-Api-T0ken-0123456789abcdef";
pub const DATABASE_PASSWORD: &str = "marker-D4tabase/Pass:word";
pub const REDIS_PASSWORD: &str = "marker-R3dis/Pass:word";
pub const NATS_PASSWORD: &str = "marker-N4ts/Pass:word";
pub const LOCKED_OUT: &str = "marker-Locked0ut/Pass:word";
pub const FIREWALL_COMMENT: &str = "marker-Firewall-C0mment";
pub const NOTE: &str = "marker-N0te of the operator";
/// In the configuration of every simulated router.
pub const CONFIGURATION: &str = "admin-mac=02:00:5E";

/// Everything that must not be seen, in every form in which it could be.
pub struct Secrets(Vec<String>);

impl Secrets {
    pub fn new(private_key: &str) -> Self {
        let texts = [
            DEVICE_PASSWORD,
            WRONG_PASSWORD,
            PASSPHRASE,
            WRONG_PASSPHRASE,
            UNREADABLE,
            API_TOKEN,
            DATABASE_PASSWORD,
            REDIS_PASSWORD,
            NATS_PASSWORD,
            LOCKED_OUT,
            FIREWALL_COMMENT,
            NOTE,
            CONFIGURATION,
            SECRET_MARK,
        ];
        let key = std::str::from_utf8(&KEY).expect("the tests' key is a text");
        // A last line of a few characters could be anywhere.
        let lines = private_key.lines();
        let lines = lines.filter(|line| !line.starts_with("---") && line.len() > 24);
        let all = texts.into_iter().chain([key]).chain(lines);
        Self(all.flat_map(forms).collect())
    }

    /// The secrets that are in `text`.
    pub fn found_in(&self, text: &str) -> Vec<&str> {
        let found = self.0.iter().filter(|form| text.contains(form.as_str()));
        found.map(String::as_str).collect()
    }

    pub fn assert_none(&self, place: &str, text: &str) {
        let found = self.found_in(text);
        let lines = text.lines().filter(|line| !self.found_in(line).is_empty());
        let lines: Vec<_> = lines.take(5).collect();
        assert!(found.is_empty(), "{found:?} in {place}: {lines:#?}");
    }
}

/// A secret as it is, in a URL, as base64, as hex, and as a list of bytes.
pub fn forms(secret: &str) -> Vec<String> {
    let bytes: Vec<_> = secret.bytes().map(|byte| byte.to_string()).collect();
    let hex: Vec<_> = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    // The last characters depend on what follows.
    let encoded = base64(secret.as_bytes());
    let stable = secret.len() / 3 * 4;
    vec![
        secret.to_owned(),
        in_url(secret),
        encoded[..stable].to_owned(),
        hex.concat(),
        bytes.join(", "),
    ]
}

pub fn in_url(secret: &str) -> String {
    secret.replace('/', "%2F").replace(':', "%3A")
}
