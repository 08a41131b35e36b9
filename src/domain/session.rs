//! What one device's session is made with, and what it showed beside the export.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::suspect::Recurrence;

/// Which SSH algorithms may be offered to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SshAlgorithms {
    /// Only what is not known to be weak. RouterOS 6 is not reached by it, nor is a RouterOS 7
    /// without `strong-crypto=yes` whose only MAC is `hmac-sha1` and that has no GCM.
    Modern,
    /// Also what old RouterOS needs, after everything better.
    #[default]
    Compatible,
}

impl SshAlgorithms {
    /// Both, by name.
    pub const NAMES: &'static [&'static str] = &["modern", "compatible"];

    /// The name in settings and in the inventory.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Compatible => "compatible",
        }
    }

    /// Reads a name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Modern, Self::Compatible]
            .into_iter()
            .find(|value| value.as_str().eq_ignore_ascii_case(name))
    }
}

/// What differs for one device from the service's own settings. `None` means that there is no
/// difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceSettings {
    /// Instead of `CONFIG_BACKUP_COMMAND_TIMEOUT`; whole seconds.
    pub command_timeout: Option<Duration>,
    /// Instead of `SSH_ALGORITHMS`.
    pub ssh_algorithms: Option<SshAlgorithms>,
}

impl DeviceSettings {
    /// The longest command timeout, in seconds; the shortest is one second.
    pub const LONGEST_TIMEOUT: u32 = 3600;

    /// A command timeout as it is stored, if it is one.
    pub fn timeout_of(seconds: i64) -> Option<Duration> {
        let seconds = u64::try_from(seconds).ok()?;
        (1..=u64::from(Self::LONGEST_TIMEOUT))
            .contains(&seconds)
            .then(|| Duration::from_secs(seconds))
    }
}

/// Part of a session that an algorithm is used for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SshPart {
    /// The key exchange itself.
    Kex,
    /// The signature of the host key.
    HostKey,
    /// The cipher.
    Cipher,
    /// The message authentication.
    Mac,
    /// The signature of the user's key, which logs in.
    UserKey,
}

impl SshPart {
    /// Every part.
    pub const ALL: [Self; 5] = [
        Self::Kex,
        Self::HostKey,
        Self::Cipher,
        Self::Mac,
        Self::UserKey,
    ];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kex => "kex",
            Self::HostKey => "host_key",
            Self::Cipher => "cipher",
            Self::Mac => "mac",
            Self::UserKey => "user_key",
        }
    }
}

/// An algorithm in use that is weak by today's measure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WeakAlgorithm {
    /// What it is used for.
    pub part: SshPart,
    /// Its SSH name, such as `hmac-sha1`.
    pub name: String,
}

/// The name, and for the user's key what it is used for: a host key may have the same algorithm.
impl fmt::Display for WeakAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.part {
            SshPart::UserKey => f.write_str(" (user key)"),
            SshPart::Kex | SshPart::HostKey | SshPart::Cipher | SshPart::Mac => Ok(()),
        }
    }
}

/// How often in a row each menu could not be exported.
///
/// A menu that begins to fail while another one is waited for joins the row of that one: a router
/// on which now this menu fails and now that is waited for no longer than one on which it is always
/// the same. So of [`Self::PATIENCE`] exports in a row the last is taken at the latest, without what
/// it lacks itself. A menu for whose absence an export was taken before is waited for no more, until
/// it is back, and a menu that begins to fail beside it has a row of its own.
///
/// Attempts that do not come to an export say nothing of menus, and so neither count nor end a
/// row. It is kept with the device's state: a row goes on across restarts and replicas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MissingMenus(pub BTreeMap<String, u32>);

impl MissingMenus {
    /// So many attempts in a row are made to get what is missing before an export without it is taken.
    pub const PATIENCE: u32 = 3;

    /// After one more export, in which `menus` are missing.
    pub fn after(&self, menus: &[String]) -> Self {
        let waited = self
            .0
            .values()
            .filter(|attempts| **attempts < Self::PATIENCE);
        let waited = waited.max().copied().unwrap_or(0);
        let count = |menu: &String| {
            let before = self.0.get(menu).copied().unwrap_or(0);
            (menu.clone(), before.max(waited).saturating_add(1))
        };
        Self(menus.iter().map(count).collect())
    }

    /// Whether nothing is missing that might still come: an export like this one is taken.
    pub fn is_final(&self) -> bool {
        self.0.values().all(|attempts| *attempts >= Self::PATIENCE)
    }

    /// How many more attempts like the last one it takes until such an export is taken.
    pub fn attempts_left(&self) -> u32 {
        let fewest = self.0.values().min().copied();
        fewest.map_or(0, |fewest| Self::PATIENCE.saturating_sub(fewest))
    }
}

/// What a session showed beside its outcome. `None` where it did not come so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// What of key exchange and login was weak.
    pub weak_ssh: Option<Vec<WeakAlgorithm>>,
    /// Menus that could not be exported, now and before.
    pub missing_menus: Option<MissingMenus>,
    /// A suspect that could not be confirmed, now and before.
    pub suspects: Option<Recurrence>,
    /// Whether the router's firewall might count connections, as far as its configuration tells.
    pub counts_connections: Option<bool>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn menus(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_third_export_in_a_row_without_a_menu_is_taken() {
        let mut missing = MissingMenus::default();
        assert!(missing.is_final(), "nothing is missing");
        for (round, left) in [(1, 2), (2, 1), (3, 0), (4, 0)] {
            missing = missing.after(&menus(&["/ipv6/route"]));
            assert_eq!(missing.attempts_left(), left, "attempt {round}");
            assert_eq!(missing.is_final(), round >= 3, "attempt {round}");
        }
        assert_eq!(missing.after(&[]), MissingMenus::default());
    }

    #[test]
    fn a_menu_that_fails_for_the_first_time_is_waited_for() {
        let both = menus(&["/ip/dhcp-client", "/ipv6/route"]);
        let mut missing = MissingMenus::default();
        for _ in 0..3 {
            missing = missing.after(&both[..1]);
        }
        missing = missing.after(&both);
        assert!(!missing.is_final(), "{missing:?}");
        assert_eq!(missing.attempts_left(), 2);
        // The new one is back, the old one still fails.
        assert!(missing.after(&both[..1]).is_final());
    }

    #[test]
    fn menus_that_fail_in_turn_are_waited_for_no_longer_than_one() {
        for rounds in [
            [&["/a"][..], &["/b"], &["/a"]],
            [&["/a", "/b"], &["/a"], &["/a", "/b"]],
            [&["/a"], &["/a"], &["/b"]],
        ] {
            let mut missing = MissingMenus::default();
            for (round, left) in rounds.iter().zip([2, 1, 0]) {
                missing = missing.after(&menus(round));
                assert_eq!(missing.attempts_left(), left, "{rounds:?} {missing:?}");
                assert_eq!(missing.is_final(), left == 0, "{rounds:?} {missing:?}");
            }
            assert!(
                missing.after(&menus(rounds[2])).is_final(),
                "it goes on to fail"
            );
            assert!(
                !missing.after(&menus(&["/c"])).is_final(),
                "another one fails"
            );
        }
    }

    #[test]
    fn names_are_read_back() {
        for name in SshAlgorithms::NAMES {
            let read = SshAlgorithms::from_name(name).expect(name);
            assert_eq!(read.as_str(), *name);
        }
        assert_eq!(SshAlgorithms::from_name("weak"), None);
    }

    #[test]
    fn timeouts_out_of_range_are_none() {
        for (seconds, valid) in [
            (-1, false),
            (0, false),
            (1, true),
            (3600, true),
            (3601, false),
        ] {
            assert_eq!(
                DeviceSettings::timeout_of(seconds).is_some(),
                valid,
                "{seconds}"
            );
        }
    }

    /// The rule in the words of the operator: what was done without, and how many exports in a row
    /// were refused because of what they lack.
    #[derive(Default)]
    struct Rule {
        done_without: BTreeSet<String>,
        refused: u32,
    }

    impl Rule {
        fn takes(&mut self, missing: &BTreeSet<String>) -> bool {
            let taken = missing.is_subset(&self.done_without) || self.refused + 1 >= 3;
            if taken {
                self.done_without.clone_from(missing);
                self.refused = 0;
            } else {
                self.done_without.retain(|menu| missing.contains(menu));
                self.refused += 1;
            }
            taken
        }
    }

    fn rounds() -> impl Strategy<Value = Vec<BTreeSet<String>>> {
        prop::collection::vec(prop::collection::btree_set("[abc]", 0..4), 1..20)
    }

    proptest! {
        #[test]
        fn an_export_is_taken_exactly_when_the_rule_says(rounds in rounds()) {
            let mut missing = MissingMenus::default();
            let mut rule = Rule::default();
            for round in &rounds {
                missing = missing.after(&round.iter().cloned().collect::<Vec<_>>());
                prop_assert_eq!(missing.is_final(), rule.takes(round), "{:?}", &missing);
                prop_assert_eq!(missing.attempts_left() == 0, missing.is_final());
                let kept: BTreeSet<_> = missing.0.keys().cloned().collect();
                prop_assert_eq!(&kept, round, "only what this export lacks");
            }
        }

        #[test]
        fn waiting_ends_whatever_fails(rounds in rounds()) {
            let mut missing = MissingMenus::default();
            let mut refused = 0;
            for round in &rounds {
                let before = missing.attempts_left();
                missing = missing.after(&round.iter().cloned().collect::<Vec<_>>());
                refused = if missing.is_final() { 0 } else { refused + 1 };
                prop_assert!(refused < MissingMenus::PATIENCE);
                if refused > 1 {
                    prop_assert_eq!(missing.attempts_left(), before - 1, "as it was announced");
                }
            }
        }
    }
}
