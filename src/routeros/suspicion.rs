//! Owns the suspicion that a whole-looking export is not what the router has: a cut between two
//! items shows in no line of it, only beside the export before it; and that something else has written
//! into it, which shows in lines that no export has.
//!
//! A suspicion condemns nothing. Whoever has one reads the export again on the same connection:
//! the same answer twice is the router's configuration. So a suspicion may be wrong, and the last
//! item of an export, when an operator deletes it, is read twice.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::commands::each_command;
use super::normalize::Normalized;
use super::shape::{digest_of_item, is_at_or_below, plain_menu};
use crate::domain::digest::Digest;
use crate::domain::snapshot::{MenuShape, Shape};

/// What is known of an export without its text: it is what the store keeps of the last good one.
#[derive(Clone, Copy, Debug)]
pub struct Remembered<'a> {
    /// Its form.
    pub shape: &'a Shape,
    /// Size in bytes of the normalised text.
    pub bytes: u64,
    /// Menus that are not in it because the router could not export them.
    pub incomplete_menus: &'a [String],
    /// The normalised text, of an export that was just taken.
    pub text: Option<&'a str>,
}

impl<'a> From<&'a Normalized> for Remembered<'a> {
    fn from(normalized: &'a Normalized) -> Self {
        Self {
            shape: &normalized.shape,
            bytes: normalized.text.expose().len() as u64,
            incomplete_menus: &[],
            text: Some(normalized.text.expose()),
        }
    }
}

/// Why an export should be read again before it is believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Suspicion {
    /// It is what the last one begins with, as far as menus and their items tell.
    EndsEarly {
        /// The menu that it ends in.
        menu: String,
    },
    /// The menus that the last one ends with are not in it.
    LostLastMenus {
        /// How many.
        menus: usize,
        /// The last of them.
        last: String,
    },
    /// The menu that it ends in has lost items, whatever else is new: so looks a cut inside the last
    /// menu when somebody has edited something before it.
    LastMenuShrank {
        /// The menu that it ends in.
        menu: String,
        /// How many items the menu had.
        from: u32,
        /// How many it has.
        to: u32,
    },
    /// It ends in the menu that the last one ended in, and the item that was the last there is gone: so
    /// looks a cut inside the last menu when as many items came before it as were lost.
    LostLastItem {
        /// The menu.
        menu: String,
    },
    /// The last export lacked a menu that the router could not export; this one has nothing in it
    /// and does not say that it failed. It may end where that would stand.
    Unmentioned {
        /// The menu.
        menu: String,
    },
    /// Every secret is gone, and nothing else explains it: the user may have lost the policy
    /// `sensitive`, without which RouterOS leaves secrets out and says nothing.
    LostSecrets {
        /// How many there were.
        secrets: u32,
    },
    /// It is shorter by more than a third.
    Shrank {
        /// Size of the last one in bytes.
        from: u64,
        /// Its own.
        to: u64,
    },
    /// There is nothing in it but its header.
    Empty,
    /// Lines are in it that are neither menus nor commands nor comments: something else has written there.
    /// This alone tells nothing of the export before.
    StrayLines {
        /// How many.
        lines: u64,
        /// Where the first one stands: the number of its physical line in the answer, from 1 on.
        number: u64,
        /// The menu of the first one; empty before the first menu.
        menu: String,
        /// What it is like.
        like: StrayLike,
        /// Of all of them, with their menus: tells whether another export has the same.
        digest: Digest,
    },
}

/// What may be told of a line that should not be there. Where something else has written into an
/// export, a line may be half of a secret: its text is only told where it is most likely a comment's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StrayLike {
    /// It may be anything.
    Anything,
    /// It stands right behind a comment, but might be configuration.
    BehindComment,
    /// It reads as the rest of the comment that it stands behind: quoted.
    Rest(String),
}

impl Suspicion {
    /// A stable name for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::EndsEarly { .. } => "ends_early",
            Self::LostLastMenus { .. } => "lost_last_menus",
            Self::LastMenuShrank { .. } => "last_menu_shrank",
            Self::LostLastItem { .. } => "lost_last_item",
            Self::Unmentioned { .. } => "unmentioned",
            Self::LostSecrets { .. } => "lost_secrets",
            Self::Shrank { .. } => "shrank",
            Self::Empty => "empty",
            Self::StrayLines { .. } => "stray_lines",
        }
    }

    /// Every name that [`Suspicion::as_str`] gives.
    pub const NAMES: [&'static str; 9] = [
        "ends_early",
        "lost_last_menus",
        "last_menu_shrank",
        "lost_last_item",
        "unmentioned",
        "lost_secrets",
        "shrank",
        "empty",
        "stray_lines",
    ];
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndsEarly { menu } => write!(
                f,
                "the export is the beginning of the one before it and ends in {}",
                super::console::escape(menu)
            ),
            Self::LostLastMenus { menus, last } => write!(
                f,
                "the last {menus} menus of the export before it are gone, down to {}",
                super::console::escape(last)
            ),
            Self::LastMenuShrank { menu, from, to } => write!(
                f,
                "the export ends in {} with fewer items than the one before it had there ({to} of \
                 {from})",
                super::console::escape(menu)
            ),
            Self::LostLastItem { menu } => write!(
                f,
                "the item that the export before it ended with, in {}, is gone",
                super::console::escape(menu)
            ),
            Self::Unmentioned { menu } => write!(
                f,
                "{}, which the export before it lacked, is neither in the export nor said to have \
                 failed",
                super::console::escape(menu)
            ),
            Self::LostSecrets { secrets } => write!(
                f,
                "all {secrets} secrets are gone at once: the user's group on the router may have \
                 lost the policy \"sensitive\""
            ),
            Self::Shrank { from, to } => {
                write!(f, "the export shrank from {from} to {to} bytes")
            }
            Self::Empty => f.write_str("there is nothing in the export but its header"),
            Self::StrayLines {
                lines,
                number,
                menu,
                like,
                ..
            } => {
                let (are, first) = match lines {
                    1 => ("line of the export is", "it"),
                    _ => ("lines of the export are", "the first"),
                };
                write!(
                    f,
                    "{lines} {are} neither a menu nor a command nor a comment; {first} is line {number}"
                )?;
                if !menu.is_empty() {
                    write!(f, ", in {}", super::console::escape(menu))?;
                }
                match like {
                    StrayLike::Anything => f.write_str(", not shown, for it may hold a secret")?,
                    StrayLike::BehindComment => {
                        f.write_str(", behind a comment, not shown, for it may hold a secret")?;
                    }
                    StrayLike::Rest(words) => write!(f, ", behind a comment: {words}")?,
                }
                write!(
                    f,
                    " (see \"ssh USER@ROUTER '/export show-sensitive' | sed -n {number}p\"); "
                )?;
                f.write_str(match like {
                    StrayLike::Anything => {
                        "if the router prints it each time, report it, else find what writes there"
                    }
                    StrayLike::BehindComment | StrayLike::Rest(_) => {
                        "if it is the rest of that comment, a pattern in \
                         CONFIG_BACKUP_IGNORE_COMMENTS that matches both as one text makes it one"
                    }
                })
            }
        }
    }
}

/// What is doubtful about an export that there is none to compare with: a router that has an address
/// to be asked at, or a serial port, has something to export. Those that were reset to nothing and
/// still answer are read twice.
pub fn suspicion_of_first(new: Remembered<'_>) -> Option<Suspicion> {
    let empty = new.shape.menus.is_empty() && new.incomplete_menus.is_empty();
    empty.then_some(Suspicion::Empty)
}

/// Compares an export with the last good one of the same router. The gravest suspicion is told,
/// and signs of a cut go before the others, because a cut loses secrets and bytes, too.
///
/// Menus that the new one could not export say nothing. Of those that the old one lacked its form may
/// remember what was in them before ([`remember`](super::remember)): where the new one does not say
/// that they fail, that is compared. Sums over all menus are compared unless the new one lacks menus
/// that the old one had: one that fails for ever is missing from both sums, and one that is back can
/// only have added to them.
pub fn suspicion(old: Remembered<'_>, new: Remembered<'_>) -> Option<Suspicion> {
    let (lacked, lacks) = (
        Menus::of(old.incomplete_menus),
        Menus::of(new.incomplete_menus),
    );
    let unknown = |menu: &MenuShape| menu.items == 0 && lacked.cover(&menu.menu);
    let menus = old.shape.menus.iter().filter(|menu| !unknown(menu));
    let before: Vec<_> = menus.filter(|menu| !lacks.cover(&menu.menu)).collect();
    let menus = new.shape.menus.iter();
    let now: Vec<_> = menus.filter(|menu| !lacks.cover(&menu.menu)).collect();
    let comparable = new.incomplete_menus.iter().all(|menu| lacked.cover(menu));
    ends_early(&before, &now)
        .or_else(|| lost_last_menus(&before, &now))
        .or_else(|| last_menu_shrank(&before, &now))
        .or_else(|| lost_last_item(old, new, &lacks))
        .or_else(|| sums(old, new).filter(|_| comparable))
        .or_else(|| unmentioned(old, new))
}

/// What the sums over all menus tell.
fn sums(old: Remembered<'_>, new: Remembered<'_>) -> Option<Suspicion> {
    if old.shape.secrets > 0 && new.shape.secrets == 0 {
        let secrets = old.shape.secrets;
        return Some(Suspicion::LostSecrets { secrets });
    }
    let shrank = u128::from(new.bytes) * 3 < u128::from(old.bytes) * 2;
    shrank.then_some(Suspicion::Shrank {
        from: old.bytes,
        to: new.bytes,
    })
}

/// Every menu but the last is as it was, and the last has no more items than it had: so looks
/// every beginning of an export that was cut between two items.
fn ends_early(before: &[&MenuShape], now: &[&MenuShape]) -> Option<Suspicion> {
    let same = before.iter().zip(now).take_while(|(a, b)| a == b).count();
    let early = match now.get(same..)? {
        [] => same < before.len(),
        [last] => before
            .get(same)
            .is_some_and(|old| old.menu == last.menu && last.items < old.items),
        _ => false,
    };
    early.then(|| Suspicion::EndsEarly {
        menu: now.last().map(|menu| menu.menu.clone()).unwrap_or_default(),
    })
}

fn lost_last_menus(before: &[&MenuShape], now: &[&MenuShape]) -> Option<Suspicion> {
    let places: HashSet<_> = places(now).collect();
    let before: Vec<_> = self::places(before).collect();
    let lost = before.iter().rev();
    let menus = lost.take_while(|place| !places.contains(place)).count();
    let (last, _) = before.last().filter(|_| menus > 0)?;
    Some(Suspicion::LostLastMenus {
        menus,
        last: (*last).to_owned(),
    })
}

/// The last item that an operator deletes in the last menu looks the same, and is read twice. Where a
/// menu is printed more often than before, or less, nobody can tell which place is which.
fn last_menu_shrank(before: &[&MenuShape], now: &[&MenuShape]) -> Option<Suspicion> {
    let last = now.last()?;
    let of_it = |menus: &[&MenuShape]| -> Vec<u32> {
        let menus = menus.iter().filter(|menu| menu.menu == last.menu);
        menus.map(|menu| menu.items).collect()
    };
    let (had, has) = (of_it(before), of_it(now));
    let place = has.len() - 1;
    let sum = |items: &[u32]| {
        items
            .iter()
            .fold(0, |sum: u32, more| sum.saturating_add(*more))
    };
    let (from, to) = if had.len() == has.len() {
        (had[place], last.items)
    } else {
        (sum(&had), sum(&has))
    };
    if to >= from {
        return None;
    }
    Some(Suspicion::LastMenuShrank {
        menu: last.menu.clone(),
        from,
        to,
    })
}

/// The old export's last item is no longer in the menu, which both end in. The last item that an operator
/// changes looks the same. Where the new export ends in none that was added, in which a menu of one
/// setting for example, no item can have come before it.
fn lost_last_item(old: Remembered<'_>, new: Remembered<'_>, lacks: &Menus) -> Option<Suspicion> {
    let (end, text) = (old.shape.end?, new.text?);
    let menu = &old.shape.last_menu()?.menu;
    let same = new.shape.last_menu()?.menu == *menu;
    if new.shape.end == Some(end) || !same || lacks.cover(menu) {
        return None;
    }
    let (mut there, mut added) = (false, false);
    each_command(text, |at, command| {
        there |= at == menu && digest_of_item(command) == end;
        added = command.starts_with("add");
    });
    (added && !there).then(|| Suspicion::LostLastItem { menu: menu.clone() })
}

/// A menu that the old export lacked, and of which nothing is known, is not mentioned in the new one. Of
/// an export that goes on behind where it would stand this says only that nothing is in it.
fn unmentioned(old: Remembered<'_>, new: Remembered<'_>) -> Option<Suspicion> {
    let mentioned = Menus::of(new.incomplete_menus);
    let now: HashSet<_> = new.shape.menus.iter().map(|menu| &menu.menu).collect();
    let silent = old.incomplete_menus.iter().find(|missing| {
        let path = plain_menu(missing);
        let one = Menus::of(std::slice::from_ref(missing));
        let has = new.shape.menus.iter().any(|menu| one.cover(&menu.menu));
        let below = |menu: &String| is_at_or_below(&plain_menu(menu), &path);
        if has || mentioned.cover(missing) || new.incomplete_menus.iter().any(below) {
            return false;
        }
        let menus = &old.shape.menus;
        let place = menus.iter().rposition(|menu| one.cover(&menu.menu));
        // What was in it is compared like any other menu.
        let known = menus.iter().any(|m| m.items > 0 && one.cover(&m.menu));
        let behind = place.map_or(&[][..], |place| &menus[place + 1..]);
        !known && !behind.iter().any(|menu| now.contains(&menu.menu))
    })?;
    Some(Suspicion::Unmentioned {
        menu: silent.clone(),
    })
}

/// Each menu, with how often it was printed before.
pub(super) fn places<'a>(menus: &[&'a MenuShape]) -> impl Iterator<Item = (&'a str, usize)> {
    let mut times: HashMap<&str, usize> = HashMap::new();
    menus.iter().map(move |menu| {
        let times = times.entry(menu.menu.as_str()).or_default();
        let before = *times;
        *times += 1;
        (menu.menu.as_str(), before)
    })
}

/// Menus that were not exported, with all below them.
struct Menus(Vec<String>);

impl Menus {
    fn of(menus: &[String]) -> Self {
        let menus = menus.iter();
        Self(menus.map(|menu| plain_menu(menu).into_owned()).collect())
    }

    fn cover(&self, menu: &str) -> bool {
        let menu = plain_menu(menu);
        self.0.iter().any(|missing| is_at_or_below(&menu, missing))
    }
}

#[cfg(test)]
#[path = "suspicion_tests.rs"]
mod tests;
