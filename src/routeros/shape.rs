//! Owns the form of an export: which item stands in which menu, and which properties are secret.

use std::borrow::Cow;

use super::reader::trim_blanks;
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
        let line = trim_blanks(line);
        if !line.starts_with('/') {
            return Self::Relative(line);
        }
        let mut at = 0;
        loop {
            let rest = &line[at..];
            let (word, behind) = rest.split_at(menu_bytes(rest));
            let is_menu_word =
                !matches!(word, "" | "/") && (behind.is_empty() || behind.starts_with(' '));
            if !is_menu_word || is_command(word) {
                return match at.checked_sub(1) {
                    None => Self::Relative(line),
                    Some(end) => Self::Absolute {
                        menu: &line[..end],
                        command: rest,
                    },
                };
            }
            if behind.is_empty() {
                return Self::Menu(line);
            }
            at += word.len() + 1;
        }
    }

    /// Whether it is an item that a state comment can stand before.
    pub(super) fn is_relative_item(&self) -> bool {
        let Self::Relative(command) = self else {
            return false;
        };
        let end = command.bytes().position(|b| matches!(b, b' ' | b'\\'));
        is_command(&command[..end.unwrap_or(command.len())])
    }
}

/// The commands that change configuration, for everybody here who asks what one is. Exports consist of
/// the first three (of two, in all that we have seen); the others stand in what people make of them.
/// They are neither names of menus nor prose: `/ip firewall nat disable 0` is a command of
/// `/ip firewall nat`, and where one stands behind a comment it is not the rest of that. A state comment
/// goes before each of them: it says no more there than before an `add`.
const VERBS: [&str; 7] = ["add", "set", "remove", "unset", "move", "enable", "disable"];

/// Whether `word` is one of them.
pub(super) fn is_command(word: &str) -> bool {
    VERBS.contains(&word)
}

/// Whether `word` is one of them that has lost its first letter.
pub(super) fn is_command_without_its_first_letter(word: &str) -> bool {
    VERBS.iter().any(|verb| &verb[1..] == word)
}

/// How many bytes `text` begins with that may be part of a menu's path: `/ip`, `6to4`, `dhcp-server`.
fn menu_bytes(text: &str) -> usize {
    let other = |b: u8| !(b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'/');
    text.bytes().position(other).unwrap_or(text.len())
}

/// Collects the form of an export, item by item.
#[derive(Default)]
pub(super) struct ShapeBuilder {
    menus: Vec<(String, Mix, u32)>,
    secrets: u32,
}

impl ShapeBuilder {
    /// Adds one logical line: `command` in the menu of `slot`, with so many secrets.
    pub(super) fn add(&mut self, slot: usize, command: &str, secrets: u32) {
        if let Some((_, mix, items)) = self.menus.get_mut(slot) {
            mix.add(command.as_bytes());
            *items = items.saturating_add(1);
        }
        self.secrets = self.secrets.saturating_add(secrets);
    }

    /// Where the next item of `menu` (empty before the first one) is kept. An export goes menu by
    /// menu; one that comes again, behind another one, is kept apart from what it was before.
    pub(super) fn slot(&mut self, menu: &str) -> usize {
        let menu = match self.menus.len() {
            ..MAX_MENUS => menu,
            _ => OTHER_MENUS,
        };
        if self.menus.last().is_none_or(|(last, ..)| last != menu) {
            self.menus.push((menu.to_owned(), Mix::default(), 0));
        }
        self.menus.len() - 1
    }

    /// The form of everything added, of which `last` was the last command.
    pub(super) fn finish(self, last: Option<&str>) -> Shape {
        Shape {
            end: last.map(digest_of_item),
            menus: self
                .menus
                .into_iter()
                .map(|(menu, mix, items)| MenuShape {
                    menu,
                    digest: mix.digest(),
                    items,
                })
                .collect(),
            secrets: self.secrets,
        }
    }
}

/// The digest of one command, for [`Shape::end`].
pub(super) fn digest_of_item(command: &str) -> Digest {
    let mut mix = Mix::default();
    mix.add(command.as_bytes());
    mix.digest()
}

/// A 64-bit digest of a list of commands. It only tells a changed menu from one that is as it was,
/// to nobody's harm if it is wrong, and is several times faster than SHA-256: a folded multiplication
/// for every sixteen bytes.
#[derive(Clone, Copy, Default)]
struct Mix(u64);

impl Mix {
    const ODD: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F];

    fn add(&mut self, bytes: &[u8]) {
        let mut state = self.0 ^ Self::ODD[0];
        let mut pairs = bytes.chunks_exact(16);
        for pair in &mut pairs {
            let (a, b) = pair.split_at(8);
            state = Self::fold(state ^ Self::word(a), Self::ODD[1] ^ Self::word(b));
        }
        let (a, b) = Self::last_words(bytes, pairs.remainder().len());
        state = Self::fold(state ^ a, Self::ODD[1] ^ b);
        self.0 = Self::fold(state ^ bytes.len() as u64, Self::ODD[0]);
    }

    /// Eight bytes as a number.
    fn word(bytes: &[u8]) -> u64 {
        bytes
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word))
    }

    /// The last `rest` bytes, fewer than sixteen, as two numbers.
    fn last_words(bytes: &[u8], rest: usize) -> (u64, u64) {
        // The bytes before the rest are shifted out again: a copy of unknown length takes longer.
        if let (Some(last), true) = (bytes.last_chunk(), rest > 0) {
            let last = u128::from_le_bytes(*last) >> (8 * (16 - rest));
            return (last as u64, (last >> 64) as u64);
        }
        let mut pair = [0; 16];
        pair[..rest].copy_from_slice(&bytes[bytes.len() - rest..]);
        let pair = u128::from_le_bytes(pair);
        (pair as u64, (pair >> 64) as u64)
    }

    fn fold(a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        (product >> 64) as u64 ^ product as u64
    }

    /// As a digest value, which is made by hashing.
    fn digest(self) -> Digest {
        Digest::of(self.0.to_be_bytes())
    }
}

/// `menu` with blanks between its words, however the version writes it.
pub(super) fn plain_menu(menu: &str) -> Cow<'_, str> {
    match menu.get(1..) {
        Some(rest) if rest.contains('/') => Cow::Owned(format!("/{}", rest.replace('/', " "))),
        _ => Cow::Borrowed(menu),
    }
}

/// Whether `menu` is `parent` or below it; both with blanks between their words.
pub(super) fn is_at_or_below(menu: &str, parent: &str) -> bool {
    menu.strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
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
            (
                "/ip firewall nat disable 0",
                absolute("/ip firewall nat", "disable 0"),
            ),
            ("add a=b", Item::Relative("add a=b")),
            ("/ odd", Item::Relative("/ odd")),
        ] {
            assert_eq!(Item::parse(line), item, "{line}");
        }
        assert!(Item::parse("set [ find ] a=b").is_relative_item());
        assert!(Item::parse("add \\\n    a=b").is_relative_item());
        assert!(Item::parse("move 1 2").is_relative_item());
        assert!(!Item::parse("settings a=b").is_relative_item());
        assert!(!Item::parse("/port set 0 name=serial0").is_relative_item());
    }

    #[test]
    fn lines_do_not_run_into_each_other_and_menus_keep_their_order() {
        let shape = |commands: &[(&str, &str)]| {
            let mut builder = ShapeBuilder::default();
            for (menu, command) in commands {
                let slot = builder.slot(menu);
                builder.add(slot, command, 0);
            }
            builder.finish(commands.last().map(|(_, command)| *command))
        };
        assert_ne!(
            shape(&[("/a", "ab"), ("/a", "c")]),
            shape(&[("/a", "a"), ("/a", "bc")])
        );
        let twice = shape(&[("/b", "x"), ("/a", "y"), ("/b", "z"), ("/b", "z")]);
        let items: Vec<_> = twice
            .menus
            .iter()
            .map(|it| (it.menu.as_str(), it.items))
            .collect();
        assert_eq!(items, [("/b", 1), ("/a", 1), ("/b", 2)]);
        assert_eq!(twice.different_menus(), 2);
        let more = |menus: usize| {
            let names: Vec<_> = (0..menus).map(|n| format!("/m{n}")).collect();
            let items: Vec<_> = names.iter().map(|menu| (menu.as_str(), "x")).collect();
            shape(&items)
        };
        assert_eq!(more(MAX_MENUS).menus.len(), MAX_MENUS);
        let cut_off = more(MAX_MENUS + 9);
        assert_eq!(cut_off.menus.len(), MAX_MENUS + 1);
        let last = cut_off.menus.last().expect("a menu");
        assert_eq!((last.menu.as_str(), last.items), (OTHER_MENUS, 9));
    }
}
