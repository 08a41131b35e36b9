//! Owns the form of an export: which item stands in which menu, and which properties are secret.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use crate::domain::digest::Digest;
use crate::domain::snapshot::{MenuShape, Shape};

/// At most so many menus are told apart; RouterOS has a few hundred. What comes after counts as
/// one more menu, so that noise cannot fill the memory.
const MAX_MENUS: usize = 4096;

/// The name of what comes after [`MAX_MENUS`].
const OTHER_MENUS: &str = "(other menus)";

/// The menu that the lines of an export stand in.
#[derive(Clone, Default, Debug)]
pub(super) struct Context {
    menu: Option<String>,
}

impl Context {
    /// The last menu entered, such as `/ip firewall filter`.
    pub(super) fn menu(&self) -> Option<&str> {
        self.menu.as_deref()
    }

    /// Takes note of a logical line; true when it is a menu and nothing else.
    pub(super) fn enter(&mut self, line: &str) -> bool {
        match Item::parse(line) {
            Item::Menu(menu) => {
                self.remember(menu);
                true
            }
            Item::Absolute { .. } | Item::Relative(_) => false,
        }
    }

    fn remember(&mut self, menu: &str) {
        match &mut self.menu {
            Some(known) if known == menu => {}
            Some(known) => menu.clone_into(known),
            None => self.menu = Some(menu.to_owned()),
        }
    }
}

/// A logical line of configuration, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Item<'a> {
    /// `/ip address`: what follows is in this menu.
    Menu(&'a str),
    /// `/ip address add address=…`: the terse form, which leaves the current menu as it is.
    Absolute {
        /// `/ip address`.
        menu: &'a str,
        /// `add address=…`.
        command: &'a str,
    },
    /// `add address=…`, in the current menu.
    Relative(&'a str),
}

impl<'a> Item<'a> {
    /// Takes `line` apart. A wrapped line may be given with its wraps in it: they stand in the
    /// command.
    pub(super) fn parse(line: &'a str) -> Self {
        let line = line.trim_end_matches([' ', '\t', '\r']);
        if !line.starts_with('/') {
            return Self::Relative(line);
        }
        let mut at = 0;
        for word in line.split(' ') {
            if is_command(word) || !is_menu_word(word) {
                return if at == 0 {
                    Self::Relative(line)
                } else {
                    Self::Absolute {
                        menu: &line[..at - 1],
                        command: &line[at..],
                    }
                };
            }
            at += word.len() + 1;
        }
        Self::Menu(line)
    }

    /// Whether it is an item that a state comment can stand before.
    pub(super) fn is_relative_item(&self) -> bool {
        matches!(self, Self::Relative(command)
            if command.split([' ', '\\']).next().is_some_and(is_command))
    }
}

/// The commands that an export consists of.
fn is_command(word: &str) -> bool {
    matches!(word, "add" | "set" | "remove")
}

/// Whether `word` may be part of a menu's path: `/ip`, `6to4`, `dhcp-server`.
fn is_menu_word(word: &str) -> bool {
    let word = word.strip_prefix('/').unwrap_or(word);
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'/';
    !word.is_empty() && word.bytes().all(plain)
}

/// Collects the form of an export, item by item.
#[derive(Default)]
pub(super) struct ShapeBuilder {
    index: HashMap<String, usize>,
    menus: Vec<(String, Sha256, u32)>,
    /// The slot used last: an export goes menu by menu.
    last: usize,
    secrets: u32,
}

impl ShapeBuilder {
    /// Adds one logical line: `command` in `menu` (empty before the first menu).
    pub(super) fn add(&mut self, menu: &str, command: &str) {
        let same = self
            .menus
            .get(self.last)
            .is_some_and(|(name, ..)| name == menu);
        let slot = if same { self.last } else { self.slot(menu) };
        self.last = slot;
        if let Some((_, hasher, items)) = self.menus.get_mut(slot) {
            hasher.update((command.len() as u64).to_be_bytes());
            hasher.update(command);
            *items = items.saturating_add(1);
        }
        self.secrets = self.secrets.saturating_add(count_secrets(menu, command));
    }

    fn slot(&mut self, menu: &str) -> usize {
        if let Some(slot) = self.index.get(menu) {
            return *slot;
        }
        if self.menus.len() >= MAX_MENUS && menu != OTHER_MENUS {
            return self.slot(OTHER_MENUS);
        }
        let slot = self.menus.len();
        self.menus.push((menu.to_owned(), Sha256::new(), 0));
        self.index.insert(menu.to_owned(), slot);
        slot
    }

    /// The form of everything added.
    pub(super) fn finish(self) -> Shape {
        // A digest value is made by hashing, so the menu's own hash is hashed once more.
        let digest = |hasher: Sha256| Digest::of(hasher.finalize());
        Shape {
            menus: self
                .menus
                .into_iter()
                .map(|(menu, hasher, items)| MenuShape {
                    menu,
                    digest: digest(hasher),
                    items,
                })
                .collect(),
            secrets: self.secrets,
        }
    }
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
fn count_secrets(menu: &str, command: &str) -> u32 {
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
                let value = &bytes[at + 1..];
                let empty = matches!(value, [] | [b' ', ..] | [b'"', b'"', ..]);
                let property = command.get(start..at).unwrap_or_default();
                if !empty && is_secret(menu, property) {
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

/// `menu` with blanks between its words, however the version writes it.
pub(super) fn plain_menu(menu: &str) -> Cow<'_, str> {
    match menu.get(1..) {
        Some(rest) if rest.contains('/') => Cow::Owned(format!("/{}", rest.replace('/', " "))),
        _ => Cow::Borrowed(menu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_into_menu_and_command() {
        let absolute = |menu, command| Item::Absolute { menu, command };
        for (line, item) in [
            ("/ip address", Item::Menu("/ip address")),
            ("/interface 6to4 ", Item::Menu("/interface 6to4")),
            ("/ip/firewall/nat", Item::Menu("/ip/firewall/nat")),
            (
                "/ip address add address=192.0.2.1/24",
                absolute("/ip address", "add address=192.0.2.1/24"),
            ),
            (
                "/port set 0 name=serial0",
                absolute("/port", "set 0 name=serial0"),
            ),
            ("/ip ssh x=y", absolute("/ip ssh", "x=y")),
            ("add a=b", Item::Relative("add a=b")),
            ("/ odd", Item::Relative("/ odd")),
        ] {
            assert_eq!(Item::parse(line), item, "{line}");
        }
        assert!(Item::parse("set [ find ] a=b").is_relative_item());
        assert!(Item::parse("add \\\n    a=b").is_relative_item());
        assert!(!Item::parse("settings a=b").is_relative_item());
        assert!(!Item::parse("/port set 0 name=serial0").is_relative_item());
    }

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
    }

    #[test]
    fn lines_do_not_run_into_each_other_and_menus_keep_their_order() {
        let shape = |commands: &[(&str, &str)]| {
            let mut builder = ShapeBuilder::default();
            commands
                .iter()
                .for_each(|(menu, command)| builder.add(menu, command));
            builder.finish()
        };
        assert_ne!(
            shape(&[("/a", "ab"), ("/a", "c")]),
            shape(&[("/a", "a"), ("/a", "bc")])
        );
        let split = shape(&[("/b", "x"), ("/a", "y"), ("/b", "z")]);
        assert_eq!(split, shape(&[("/b", "x"), ("/b", "z"), ("/a", "y")]));
        assert_eq!(split.menus[0].menu, "/b");
        assert_eq!(split.menus[0].items, 2);
    }
}
