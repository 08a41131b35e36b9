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

/// How often in a row each menu could not be exported, and exports were refused for it.
///
/// An export is taken without the menus that [`Self::PATIENCE`] exports in a row have lacked, this one the
/// last of them. On a busy router now this menu fails and now that: none of them has failed so often in a
/// row, and to wait for that would be to wait for ever. So [`Self::LONGEST`] exports in a row that lack
/// some menu, whichever, are the end of it, and the last of them is taken without what it lacks itself.
/// A menu for whose absence an export was taken is waited for no more, until it is back.
///
/// Attempts that do not come to an export say nothing of menus, and so neither count nor end a
/// row. It is kept with the device's state: a row goes on across restarts and replicas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MissingMenus {
    /// The menus that the last export lacked, and how many in a row did; at least [`Self::PATIENCE`] for
    /// those that are waited for no more.
    pub menus: BTreeMap<String, u32>,
    /// How many exports in a row were refused for what they lacked; 0 once one like the last is taken.
    pub refused: u32,
}

impl MissingMenus {
    /// After so many exports in a row without it a menu is done without.
    pub const PATIENCE: u32 = 3;

    /// Of so many exports in a row that lack any menu the last is taken.
    pub const LONGEST: u32 = 6;

    /// After one more export, in which `menus` are missing.
    pub fn after(&self, menus: &[String]) -> Self {
        let count = |menu: &String| {
            let before = self.menus.get(menu).copied().unwrap_or(0);
            (menu.clone(), before.saturating_add(1))
        };
        let mut after = Self {
            menus: menus.iter().map(count).collect(),
            refused: self.refused.saturating_add(1),
        };
        if after.attempts_left() == 0 {
            after.refused = 0;
            for exports in after.menus.values_mut() {
                *exports = Self::PATIENCE.max(*exports);
            }
        }
        after
    }

    /// Whether nothing is missing that is still waited for: an export like this one is taken.
    pub fn is_final(&self) -> bool {
        self.refused == 0
    }

    /// How many more exports like the last one it takes until such an export is taken.
    pub fn attempts_left(&self) -> u32 {
        let waits = |exports: &u32| Self::PATIENCE.saturating_sub(*exports);
        let longest = self.menus.values().map(waits).max().unwrap_or(0);
        longest.min(Self::LONGEST.saturating_sub(self.refused))
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
    fn menus_that_fail_in_turn_are_waited_for_until_the_sixth_export() {
        let in_turn = [
            &["/a"][..],
            &["/b"],
            &["/a", "/b"],
            &["/c"],
            &["/a"],
            &["/b"],
        ];
        let mut missing = MissingMenus::default();
        for (round, left) in in_turn.iter().zip([2, 2, 2, 2, 1, 0]) {
            missing = missing.after(&menus(round));
            assert_eq!(missing.attempts_left(), left, "{missing:?}");
            assert_eq!(missing.is_final(), left == 0, "{missing:?}");
        }
        assert!(
            missing.after(&menus(&["/b"])).is_final(),
            "it goes on to fail"
        );
        let another = missing.after(&menus(&["/c"]));
        assert_eq!(another.attempts_left(), 2, "another one fails");
    }

    #[test]
    fn the_same_menus_must_have_failed_in_all_three() {
        for (rounds, last_is_taken) in [
            ([&["/a", "/b"][..], &["/a"], &["/a"]], true),
            ([&["/a"], &["/a", "/b"], &["/a"]], true),
            ([&["/a"], &["/a"], &["/a", "/b"]], false),
            ([&["/a"], &[], &["/a"]], false),
            ([&["/a"], &["/b"], &["/a"]], false),
        ] {
            let missing = rounds
                .iter()
                .fold(MissingMenus::default(), |missing, round| {
                    missing.after(&menus(round))
                });
            assert_eq!(missing.is_final(), last_is_taken, "{rounds:?} {missing:?}");
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

    /// The rule in the words of the operator: what each export lacked, what was done without, and how
    /// many exports in a row were refused.
    #[derive(Default)]
    struct Rule {
        exports: Vec<BTreeSet<String>>,
        done_without: BTreeSet<String>,
        refused: u32,
    }

    impl Rule {
        fn takes(&mut self, missing: &BTreeSet<String>) -> bool {
            self.exports.push(missing.clone());
            let (last_three, rest) = (self.exports.iter().rev().take(3), &self.done_without);
            let fails_always = |menu: &String| {
                last_three.clone().count() == 3 && last_three.clone().all(|it| it.contains(menu))
            };
            let mut lacking = missing.iter();
            let taken = lacking.all(|menu| rest.contains(menu) || fails_always(menu))
                || self.refused + 1 >= 6;
            if taken {
                self.done_without.clone_from(missing);
                self.refused = 0;
            } else {
                // One that has failed three times is done without as soon as the others are back.
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
                let kept: BTreeSet<_> = missing.menus.keys().cloned().collect();
                prop_assert_eq!(&kept, round, "only what this export lacks");
            }
        }

        #[test]
        fn waiting_ends_whatever_fails(rounds in rounds()) {
            let mut missing = MissingMenus::default();
            let (mut refused, mut last) = (0, &BTreeSet::new());
            for round in &rounds {
                let before = missing.attempts_left();
                missing = missing.after(&round.iter().cloned().collect::<Vec<_>>());
                refused = if missing.is_final() { 0 } else { refused + 1 };
                prop_assert!(refused < MissingMenus::LONGEST);
                prop_assert_eq!(missing.refused, refused);
                if refused > 1 && round == last {
                    prop_assert_eq!(missing.attempts_left(), before - 1, "as it was announced");
                }
                last = round;
            }
        }
    }
}
