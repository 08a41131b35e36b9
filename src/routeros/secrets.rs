//! Owns which properties are secret, and how many of them a command sets.

use std::ops::Range;
use std::sync::LazyLock;

use regex::bytes::Regex;

/// The ends of names that [`may_be_secret`], with what follows a name. Literals only, so that all of
/// them are looked for at once, many bytes at a time.
static ENDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("(?-u)(?:key|ord|ase|ret|ets|ity|cak|val|pin|y-[0-9])=")
        .expect("the pattern is a constant, and a test compiles it")
});

/// The places in a text at which an `=` stands behind what may be a secret property's name: looked
/// for in the whole text, not line by line, as most lines are far from any. A name with a wrap in
/// it is not found: see [`name_across`].
pub(super) struct SecretNames<'t> {
    text: &'t str,
    /// The next one, once all before it were passed.
    next: usize,
}

impl<'t> SecretNames<'t> {
    /// Those of `text`.
    pub(super) fn of(text: &'t str) -> Self {
        let next = next_secret_name(text, 0);
        Self { text, next }
    }

    /// The first one in `part`. Parts must be asked for in order.
    pub(super) fn first_in(&mut self, part: Range<usize>) -> Option<usize> {
        if self.next < part.start {
            self.next = next_secret_name(self.text, part.start);
        }
        (self.next < part.end).then_some(self.next)
    }

    /// What [`count_secrets`] counts of the command that stands in `part`, without quotes, escapes
    /// and wraps in it.
    pub(super) fn count_plain(&mut self, menu: &str, part: Range<usize>) -> u32 {
        let mut secrets = 0;
        let mut from = part.start;
        while let Some(equals) = self.first_in(from..part.end) {
            from = equals + 1;
            let command = &self.text[part.clone()];
            secrets += u32::from(sets_secret(menu, command, equals - part.start));
        }
        secrets
    }
}

/// Where, from `at` on, the next `=` stands behind what may be a secret property's name; `usize::MAX`
/// where there is none.
fn next_secret_name(text: &str, at: usize) -> usize {
    ENDS.find_at(text.as_bytes(), at)
        .map_or(usize::MAX, |found| found.end() - 1)
}

/// Whether the end of a name that may be that of a secret property has one of `joints` in it: the
/// places in a logical line at which it was wrapped.
pub(super) fn name_across(line: &str, joints: &[usize]) -> bool {
    let bytes = line.as_bytes();
    let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    joints.iter().any(|joint| {
        let rest = bytes.get(*joint..).unwrap_or_default();
        let rest = rest.iter().take(NAME_END).take_while(|byte| of_name(byte));
        let equals = joint + rest.count();
        bytes.get(equals) == Some(&b'=') && may_be_secret(&bytes[..equals])
    })
}

/// How many bytes at the end of a name [`may_be_secret`] looks at.
const NAME_END: usize = 3;

/// Whether the name that `bytes` end in ends as some secret property does: false for most.
fn may_be_secret(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [.., b'k', b'e', b'y']
            | [.., b'o', b'r', b'd']
            | [.., b'a', b's', b'e']
            | [.., b'r', b'e', b't']
            | [.., b'e', b't', b's']
            | [.., b'i', b't', b'y']
            | [.., b'c', b'a', b'k']
            | [.., b'v', b'a', b'l']
            | [.., b'p', b'i', b'n']
            | [.., b'y', b'-', b'0'..=b'9']
    )
}

/// Properties whose values the export shows only with `show-sensitive`, in any menu, shorter ones
/// first. From
/// <https://manual.mikrotik.com/getting-started/configuration-management/list-of-menus-with-sensitive-parameters.md>.
const SECRET_PROPERTIES: [&str; 36] = [
    "cak",
    "secret",
    "enc-key",
    "key-val",
    "secrets",
    "sim-pin",
    "auth-key",
    "password",
    "otp-secret",
    "passphrase",
    "ppk-secret",
    "private-key",
    "tcp-md5-key",
    "eap-password",
    "ipsec-secret",
    "preshared-key",
    "shared-secret",
    "encryption-key",
    "key-passphrase",
    "pre-shared-key",
    "paypal-password",
    "export-passphrase",
    "mac-auth-password",
    "mschapv2-password",
    "nv2-preshared-key",
    "challenge-password",
    "private-passphrase",
    "wpa-pre-shared-key",
    "encryption-password",
    "wpa2-pre-shared-key",
    "challenge-passphrase",
    "private-pre-shared-key",
    "static-sta-private-key",
    "authentication-password",
    "management-protection-key",
    "connection-request-password",
];

/// Where in [`SECRET_PROPERTIES`] the names of each length begin.
const BY_LENGTH: [usize; 30] = {
    let mut starts = [0; 30];
    let (mut length, mut at) = (0, 0);
    while length < starts.len() {
        while at < SECRET_PROPERTIES.len() && SECRET_PROPERTIES[at].len() < length {
            at += 1;
        }
        starts[length] = at;
        length += 1;
    }
    starts
};

/// Ends of property names that are secret in any menu: `static-key-0`, `smb-server-password`,
/// `vpn-private-key`, `security.passphrase`.
const SECRET_ENDS: [&str; 5] = [
    "-password",
    "-private-key",
    ".passphrase",
    ".eap-password",
    ".secret",
];

/// Properties that are secret in some menus and plain in others.
const SECRET_IN: [(&str, &[&str]); 3] = [
    ("key", &["/iot", "/routing"]),
    ("pin", &["/interface lte", "/interface ppp-client"]),
    ("identity", &["/zerotier"]),
];

/// Whether `property` of an item in `menu` is one whose value must not be shown.
pub(super) fn is_secret(menu: &str, property: &str) -> bool {
    if !may_be_secret(property.as_bytes()) {
        return false;
    }
    let length = property.len();
    let names = match BY_LENGTH.get(length..length + 2) {
        Some([from, to]) => &SECRET_PROPERTIES[*from..*to],
        _ => &[],
    };
    names.contains(&property)
        || SECRET_ENDS.iter().any(|end| property.ends_with(end))
        || property
            .strip_prefix("static-key-")
            .is_some_and(|digit| digit.len() == 1)
        || SECRET_IN.iter().any(|(name, menus)| {
            *name == property && menus.iter().any(|start| menu.starts_with(start))
        })
}

/// How many secret properties with a value `command` sets. Text inside quotes, such as a script,
/// is not looked into: RouterOS does not hide it either.
pub(super) fn count_secrets(menu: &str, command: &str) -> u32 {
    match memchr::memchr2(b'\\', b'"', command.as_bytes()) {
        Some(_) => count_quoted(menu, command),
        None => count_plain(menu, command),
    }
}

fn has_value(rest: &[u8]) -> bool {
    !matches!(rest, [] | [b' ', ..] | [b'"', b'"', ..])
}

/// Of a command without quotes and escapes.
fn count_plain(menu: &str, command: &str) -> u32 {
    let secrets = memchr::memchr_iter(b'=', command.as_bytes())
        .filter(|equals| sets_secret(menu, command, *equals))
        .count();
    u32::try_from(secrets).unwrap_or(u32::MAX)
}

/// Whether the property of `command`, which has no quotes and escapes, before the `=` at `equals` is
/// a secret one, and has a value.
fn sets_secret(menu: &str, command: &str, equals: usize) -> bool {
    let bytes = command.as_bytes();
    let name = &bytes[..equals];
    may_be_secret(name) && has_value(&bytes[equals + 1..]) && {
        // Not beyond the equals sign before it, or a line of nothing else would take for ever.
        let before = name.iter().rposition(|byte| matches!(byte, b' ' | b'='));
        let property = &command[before.map_or(0, |before| before + 1)..equals];
        before.is_none_or(|before| bytes[before] == b' ') && is_secret(menu, property)
    }
}

fn count_quoted(menu: &str, command: &str) -> u32 {
    let bytes = command.as_bytes();
    let mut secrets = 0;
    let mut in_quote = false;
    // Where to look for the blank that begins the word at hand, and whether its name was seen.
    let mut since = 0;
    let mut named = false;
    while let Some(found) = memchr::memchr3(b'\\', b'"', b'=', &bytes[since..]) {
        let at = since + found;
        let word = bytes[since..at].iter().rposition(|byte| *byte == b' ');
        match bytes[at] {
            b'\\' | b'"' if !in_quote && word.is_some() => named = false,
            b'=' if !in_quote && (word.is_some() || !named) => {
                let start = word.map_or(since, |blank| since + blank + 1);
                let property = command.get(start..at).unwrap_or_default();
                if has_value(&bytes[at + 1..]) && is_secret(menu, property) {
                    secrets += 1;
                }
                named = true;
            }
            _ => {}
        }
        in_quote ^= bytes[at] == b'"';
        since = at + 1 + usize::from(bytes[at] == b'\\');
        if since > bytes.len() {
            break;
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_counted_where_they_have_a_value() {
        for (menu, command, secrets) in [
            ("/ppp secret", "add name=a password=example-only", 1),
            ("/ppp secret", "add name=a password=\"\"", 0),
            ("/ppp secret", "add name=a password= profile=b", 0),
            ("/ppp secret", "add comment=\"password=no\" name=a", 0),
            ("/ip hotspot", "set source=\"a \\\" password=no \\\"\"", 0),
            ("/radius", "add secret=\"two words\" address=192.0.2.4", 1),
            (
                "/interface wireless security-profiles",
                "set a wpa-pre-shared-key=x wpa2-pre-shared-key=y",
                2,
            ),
            (
                "/interface wireless security-profiles",
                "set a static-key-0=x static-key-10=y",
                1,
            ),
            (
                "/interface wifi security",
                "add authentication-types=wpa2-psk passphrase=x",
                1,
            ),
            (
                "/interface wifi",
                "set a security.passphrase=x configuration.ssid=y",
                1,
            ),
            ("/disk", "set a smb-server-password=x", 1),
            ("/zerotier", "set zt1 identity=\"x\"", 1),
            ("/system identity", "set identity=x", 0),
            ("/interface lte", "set a pin=x", 1),
            ("/interface ethernet", "set a pin=x", 0),
            ("/routing rip keys", "add key=x", 1),
            ("/ip ipsec identity", "add key=name-of-a-key", 0),
            (
                "/ip ssh",
                "set always-allow-password-login=yes host-key-type=ed25519",
                0,
            ),
            ("/ip upnp", "set public-key=x", 0),
        ] {
            assert_eq!(count_secrets(menu, command), secrets, "{menu} {command}");
        }
        let lengths = SECRET_PROPERTIES.map(str::len);
        assert!(lengths.is_sorted(), "the search is a binary one");
        assert!(SECRET_PROPERTIES.iter().all(|name| is_secret("", name)));
        let names = SECRET_PROPERTIES.iter().chain(&SECRET_ENDS);
        let names = names.chain(SECRET_IN.iter().map(|(name, _)| name));
        for name in names.chain(&["static-key-0", "static-key-9"]) {
            assert!(may_be_secret(name.as_bytes()), "{name}");
            assert_ne!(
                next_secret_name(&format!("{name}=x"), 0),
                usize::MAX,
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn both_ways_to_count_agree(command in "(set|add)( (name|password|pin|key|sim-pin|x-secret)={0,2}[a ]{0,2}(b=secret=)?){0,5}") {
            for menu in ["/ppp secret", "/interface lte", "/iot"] {
                let count = count_quoted(menu, &command);
                prop_assert_eq!(count_plain(menu, &command), count);
                let text = format!("password=x\n{command}\nsecret=y");
                let start = "password=x\n".len();
                let part = start..start + command.len();
                prop_assert_eq!(SecretNames::of(&text).count_plain(menu, part), count);
            }
        }

        #[test]
        fn every_secret_is_announced_by_its_name(name in prop::sample::select(&SECRET_PROPERTIES[..]), at in 0usize..40) {
            let line = format!("add a=\"b\" {name}=value");
            prop_assert_eq!(next_secret_name(&line, 0), line.len() - "=value".len());
            let at = at.min(line.len());
            let wrapped = format!("{}\\\n    {}", &line[..at], &line[at..]);
            prop_assert!(next_secret_name(&wrapped, 0) != usize::MAX || name_across(&line, &[at]));
        }
    }
}
