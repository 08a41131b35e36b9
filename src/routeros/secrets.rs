//! Owns which properties are secret, and how many of them a command sets.

/// Where, from `at` on, the next `=` stands behind what may be a secret property's name; `usize::MAX`
/// where there is none. A name with a wrap in it is not found: see [`name_across`].
pub(super) fn next_secret_name(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'=', &bytes[at..])
        .map(|found| at + found)
        .find(|equals| may_be_secret(&bytes[..*equals]))
        .unwrap_or(usize::MAX)
}

/// Whether a property that may be secret has one of `joints` in its name: the places in a logical
/// line at which it was wrapped.
pub(super) fn name_across(line: &str, joints: &[usize]) -> bool {
    let bytes = line.as_bytes();
    let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    joints.iter().any(|joint| {
        let rest = bytes.get(*joint..).unwrap_or_default();
        let equals = joint + rest.iter().take_while(|byte| of_name(byte)).count();
        bytes.get(equals) == Some(&b'=') && may_be_secret(&bytes[..equals])
    })
}

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

/// Properties whose values the export shows only with `show-sensitive`, in any menu. From
/// <https://manual.mikrotik.com/getting-started/configuration-management/list-of-menus-with-sensitive-parameters.md>.
const SECRET_PROPERTIES: [&str; 36] = [
    "auth-key",
    "authentication-password",
    "cak",
    "challenge-passphrase",
    "challenge-password",
    "connection-request-password",
    "eap-password",
    "enc-key",
    "encryption-key",
    "encryption-password",
    "export-passphrase",
    "ipsec-secret",
    "key-passphrase",
    "key-val",
    "mac-auth-password",
    "management-protection-key",
    "mschapv2-password",
    "nv2-preshared-key",
    "otp-secret",
    "passphrase",
    "password",
    "paypal-password",
    "ppk-secret",
    "pre-shared-key",
    "preshared-key",
    "private-key",
    "private-passphrase",
    "private-pre-shared-key",
    "secret",
    "secrets",
    "shared-secret",
    "sim-pin",
    "static-sta-private-key",
    "tcp-md5-key",
    "wpa-pre-shared-key",
    "wpa2-pre-shared-key",
];

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
    SECRET_PROPERTIES.binary_search(&property).is_ok()
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
    let bytes = command.as_bytes();
    let secret = |equals: &usize| {
        may_be_secret(&bytes[..*equals]) && has_value(&bytes[equals + 1..]) && {
            let blank = bytes[..*equals].iter().rposition(|byte| *byte == b' ');
            let property = &command[blank.map_or(0, |blank| blank + 1)..*equals];
            !property.contains('=') && is_secret(menu, property)
        }
    };
    let secrets = memchr::memchr_iter(b'=', bytes).filter(secret).count();
    u32::try_from(secrets).unwrap_or(u32::MAX)
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
        assert!(SECRET_PROPERTIES.is_sorted(), "the search is a binary one");
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
                prop_assert_eq!(count_plain(menu, &command), count_quoted(menu, &command));
            }
        }

        #[test]
        fn every_secret_is_announced_by_its_name(name in prop::sample::select(&SECRET_PROPERTIES[..]), at in 0usize..40) {
            let line = format!("add a=\"b\" {name}=value");
            prop_assert_eq!(next_secret_name(&line, 0), line.len() - "=value".len());
            let start = line.len() - name.len() - "=value".len();
            let across = (start..start + name.len() + 1).contains(&at);
            prop_assert!(!across || name_across(&line, &[at]));
        }
    }
}
