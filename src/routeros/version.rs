//! Owns what a RouterOS version says about the export command.

/// The parts of a version that matter: `7.20_ab294` is 7.20, `6.45beta59` is a pre-release of 6.45.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number; 0 where there is none.
    pub minor: u32,
    /// Whether it is a beta or release candidate.
    pub prerelease: bool,
}

/// What a version knows about `show-sensitive`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ShowSensitive {
    /// It has the word and hides secrets without it: 7.1 and later.
    Needed,
    /// It rejects the word and shows secrets without it: before 7.1.
    Rejected,
    /// Nobody has told: a pre-release of 7.1, or a version that cannot be read.
    Unknown,
}

impl Version {
    /// Reads a version token; `None` when it does not begin with a number.
    pub fn parse(token: &str) -> Option<Self> {
        let (major, rest) = number(token.trim())?;
        let (minor, rest) = match rest.strip_prefix('.') {
            Some(rest) => number(rest)?,
            None => (0, rest),
        };
        let prerelease =
            rest.starts_with("beta") || rest.starts_with("rc") || rest.starts_with("alpha");
        Some(Self {
            major,
            minor,
            prerelease,
        })
    }
}

impl ShowSensitive {
    /// What the version `token` knows.
    pub(super) fn of(token: Option<&str>) -> Self {
        match token.and_then(Version::parse) {
            None => Self::Unknown,
            Some(version) => match (version.major, version.minor).cmp(&(7, 1)) {
                std::cmp::Ordering::Less => Self::Rejected,
                std::cmp::Ordering::Equal if version.prerelease => Self::Unknown,
                _ => Self::Needed,
            },
        }
    }
}

/// The version that `/system resource print` shows, in its line `version: 7.16.2 (stable)`.
pub fn version_in_resource_print(text: &str) -> Option<&str> {
    let mut lines = text.lines().map(str::trim);
    lines
        .find_map(|line| line.strip_prefix("version:"))
        .map(str::trim)
}

/// A leading decimal number and what follows it. Too many digits saturate.
fn number(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(digits);
    if digits.is_empty() {
        return None;
    }
    Some((digits.parse().unwrap_or(u32::MAX), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_in_the_field_is_read() {
        for (token, major, minor, prerelease) in [
            ("6.27", 6, 27, false),
            ("6.45beta59", 6, 45, true),
            ("7.8beta2", 7, 8, true),
            ("7.10rc5", 7, 10, true),
            ("7.20_ab294", 7, 20, false),
            ("7.18.2", 7, 18, false),
            ("6.49.10 (stable)", 6, 49, false),
            ("7", 7, 0, false),
        ] {
            let expected = Version {
                major,
                minor,
                prerelease,
            };
            assert_eq!(Version::parse(token), Some(expected), "{token}");
        }
        for garbage in ["", "v7.1", "seven", "7.x", "-1.2"] {
            assert_eq!(Version::parse(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn show_sensitive_came_with_7_1() {
        use ShowSensitive::*;
        for (token, expected) in [
            ("6.49.18", Rejected),
            ("7.0.3", Rejected),
            ("7.0rc2", Rejected),
            ("7.1beta6", Unknown),
            ("7.1", Needed),
            ("7.1.1", Needed),
            ("7.2rc1", Needed),
            ("7.10", Needed),
            ("8.0beta1", Needed),
            ("garbage", Unknown),
        ] {
            assert_eq!(ShowSensitive::of(Some(token)), expected, "{token}");
        }
        assert_eq!(ShowSensitive::of(None), Unknown);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(token: String) {
            let _ = Version::parse(&token);
        }
    }
}
