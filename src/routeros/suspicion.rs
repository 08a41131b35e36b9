//! Owns the suspicion that a whole-looking export is not what the router has: a cut between two
//! items shows in no line of it, only beside the export before it.
//!
//! A suspicion condemns nothing. Whoever has one reads the export again on the same connection:
//! the same answer twice is the router's configuration. So a suspicion may be wrong, and the last
//! item of an export, when an operator deletes it, is read twice.

use std::fmt;

use super::normalize::Normalized;
use super::shape::{is_at_or_below, plain_menu};
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
}

impl<'a> From<&'a Normalized> for Remembered<'a> {
    fn from(normalized: &'a Normalized) -> Self {
        Self {
            shape: &normalized.shape,
            bytes: normalized.text.expose().len() as u64,
            incomplete_menus: &[],
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
}

impl Suspicion {
    /// A stable name for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::EndsEarly { .. } => "ends_early",
            Self::LostLastMenus { .. } => "lost_last_menus",
            Self::LostSecrets { .. } => "lost_secrets",
            Self::Shrank { .. } => "shrank",
            Self::Empty => "empty",
        }
    }

    /// Every name that [`Suspicion::as_str`] gives.
    pub const NAMES: [&'static str; 5] = [
        "ends_early",
        "lost_last_menus",
        "lost_secrets",
        "shrank",
        "empty",
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
            Self::LostSecrets { secrets } => write!(
                f,
                "all {secrets} secrets are gone at once: the user's group on the router may have \
                 lost the policy \"sensitive\""
            ),
            Self::Shrank { from, to } => {
                write!(f, "the export shrank from {from} to {to} bytes")
            }
            Self::Empty => f.write_str("there is nothing in the export but its header"),
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
/// Menus that either side could not export say nothing.
pub fn suspicion(old: Remembered<'_>, new: Remembered<'_>) -> Option<Suspicion> {
    let excused = Excused::by(&[old.incomplete_menus, new.incomplete_menus]);
    let (before, now) = (excused.rest(old), excused.rest(new));
    ends_early(&before, &now)
        .or_else(|| lost_last_menus(&before, &now))
        .or_else(|| {
            let lost = old.shape.secrets > 0 && new.shape.secrets == 0;
            (lost && excused.0.is_empty()).then_some(Suspicion::LostSecrets {
                secrets: old.shape.secrets,
            })
        })
        .or_else(|| {
            let shrank = u128::from(new.bytes) * 3 < u128::from(old.bytes) * 2;
            (shrank && excused.0.is_empty()).then_some(Suspicion::Shrank {
                from: old.bytes,
                to: new.bytes,
            })
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
    let names: std::collections::HashSet<&str> =
        now.iter().map(|menu| menu.menu.as_str()).collect();
    let lost = before.iter().rev();
    let menus = lost
        .take_while(|menu| !names.contains(menu.menu.as_str()))
        .count();
    let last = before.last().filter(|_| menus > 0)?;
    Some(Suspicion::LostLastMenus {
        menus,
        last: last.menu.clone(),
    })
}

/// Menus that were not exported, with all below them.
struct Excused(Vec<String>);

impl Excused {
    fn by(lists: &[&[String]]) -> Self {
        let menus = lists.iter().copied().flatten();
        Self(menus.map(|menu| plain_menu(menu).into_owned()).collect())
    }

    /// The other menus.
    fn rest<'a>(&self, remembered: Remembered<'a>) -> Vec<&'a MenuShape> {
        let menus = remembered.shape.menus.iter();
        menus.filter(|menu| !self.covers(&menu.menu)).collect()
    }

    fn covers(&self, menu: &str) -> bool {
        let menu = plain_menu(menu);
        self.0.iter().any(|missing| is_at_or_below(&menu, missing))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routeros::secrets::count_secrets;
    use crate::routeros::shape::ShapeBuilder;

    fn shape(items: &[(&str, &str)]) -> Shape {
        let mut builder = ShapeBuilder::default();
        for (menu, item) in items {
            let slot = builder.slot(menu);
            builder.add(slot, item, count_secrets(menu, item));
        }
        builder.finish()
    }

    fn remembered(shape: &Shape, bytes: u64) -> Remembered<'_> {
        Remembered {
            shape,
            bytes,
            incomplete_menus: &[],
        }
    }

    const WHOLE: &[(&str, &str)] = &[
        ("/interface bridge", "add name=bridge1"),
        ("/ip pool", "add name=a ranges=192.0.2.9"),
        ("/ppp secret", "add name=a password=example-only"),
        ("/ppp secret", "add name=b password=example-only"),
        ("/system identity", "set name=edge"),
    ];

    fn compare(new: &[(&str, &str)], bytes: u64) -> Option<Suspicion> {
        suspicion(
            remembered(&shape(WHOLE), 300),
            remembered(&shape(new), bytes),
        )
    }

    #[test]
    fn each_sign_is_told_and_what_operators_do_every_day_is_none() {
        assert_eq!(compare(WHOLE, 300), None);
        let edited = [&WHOLE[..4], &[("/system identity", "set name=core")]].concat();
        assert_eq!(compare(&edited, 300), None);
        let one_deleted = [&WHOLE[..3], &WHOLE[4..]].concat();
        assert_eq!(compare(&one_deleted, 260), None);
        let menu_deleted = [&WHOLE[..1], &WHOLE[2..]].concat();
        assert_eq!(compare(&menu_deleted, 250), None);

        assert_eq!(
            compare(&WHOLE[..3], 120),
            Some(Suspicion::EndsEarly {
                menu: "/ppp secret".into()
            })
        );
        let cut_and_edited = [&[("/interface bridge", "add name=bridge2")], &WHOLE[1..3]].concat();
        assert_eq!(
            compare(&cut_and_edited, 120),
            Some(Suspicion::LostLastMenus {
                menus: 1,
                last: "/system identity".into()
            })
        );
        let hidden: Vec<_> = WHOLE
            .iter()
            .map(|(menu, item)| (*menu, item.split(" password").next().unwrap_or(item)))
            .collect();
        let lost = compare(&hidden, 250);
        assert_eq!(lost, Some(Suspicion::LostSecrets { secrets: 2 }));
        assert!(lost.is_some_and(|lost| lost.to_string().contains("\"sensitive\"")));
        let edited_tail = [&WHOLE[..4], &[("/system identity", "set name=core")]].concat();
        assert_eq!(
            compare(&edited_tail, 199),
            Some(Suspicion::Shrank { from: 300, to: 199 })
        );
        assert_eq!(
            compare(&edited_tail, 200),
            None,
            "a third is not more than a third"
        );
    }

    #[test]
    fn a_menu_that_could_not_be_exported_is_no_suspicion() {
        let old = shape(WHOLE);
        let new = shape(&WHOLE[..2]);
        let missing = ["/ppp".to_owned(), "/system/identity".to_owned()];
        let new = Remembered {
            incomplete_menus: &missing,
            ..remembered(&new, 100)
        };
        assert_eq!(suspicion(remembered(&old, 300), new), None);
        let only_one = Remembered {
            incomplete_menus: &missing[..1],
            ..new
        };
        assert!(suspicion(remembered(&old, 300), only_one).is_some());
    }

    #[test]
    fn a_first_export_is_doubtful_only_without_anything_in_it() {
        let (empty, some) = (shape(&[]), shape(&WHOLE[..1]));
        assert_eq!(
            suspicion_of_first(remembered(&empty, 90)),
            Some(Suspicion::Empty)
        );
        assert_eq!(suspicion_of_first(remembered(&some, 90)), None);
        let missing = ["/ip/address".to_owned()];
        let told = Remembered {
            incomplete_menus: &missing,
            ..remembered(&empty, 90)
        };
        assert_eq!(suspicion_of_first(told), None);
        // Later ones are compared: a router that had nothing still has nothing.
        let again = suspicion(remembered(&empty, 90), remembered(&empty, 90));
        assert_eq!(again, None);
    }

    #[test]
    fn names_are_those_that_are_listed() {
        let all = [
            Suspicion::EndsEarly { menu: "/a".into() },
            Suspicion::LostLastMenus {
                menus: 2,
                last: "/a".into(),
            },
            Suspicion::LostSecrets { secrets: 1 },
            Suspicion::Shrank { from: 2, to: 1 },
            Suspicion::Empty,
        ];
        assert_eq!(all.map(|suspicion| suspicion.as_str()), Suspicion::NAMES);
    }

    /// Menus in the order of an export, each once, with some items each.
    fn exports() -> impl Strategy<Value = Vec<(String, String)>> {
        prop::collection::vec(prop::collection::vec("[a-c]{1,3}", 1..5), 1..6).prop_map(|menus| {
            let items = menus.into_iter().enumerate();
            items
                .flat_map(|(menu, items)| {
                    let add = move |item| (format!("/menu {menu}"), format!("add name={item}"));
                    items.into_iter().map(add)
                })
                .collect()
        })
    }

    fn borrowed(items: &[(String, String)]) -> Vec<(&str, &str)> {
        items
            .iter()
            .map(|(menu, item)| (menu.as_str(), item.as_str()))
            .collect()
    }

    proptest! {
        #[test]
        fn every_cut_between_two_items_is_suspected(items in exports(), at in any::<prop::sample::Index>()) {
            let items = borrowed(&items);
            let cut = at.index(items.len());
            let (old, new) = (shape(&items), shape(&items[..cut]));
            let found = suspicion(remembered(&old, 100), remembered(&new, 100));
            prop_assert!(matches!(found, Some(Suspicion::EndsEarly { .. })), "{found:?}");
        }

        #[test]
        fn an_unchanged_or_grown_export_is_not(items in exports(), more in exports()) {
            let items = borrowed(&items);
            let more: Vec<_> = more.iter().map(|(_, item)| ("/new", item.as_str())).collect();
            let grown = [items.clone(), more].concat();
            let (old, same, new) = (shape(&items), shape(&items), shape(&grown));
            prop_assert_eq!(suspicion(remembered(&old, 100), remembered(&same, 100)), None);
            prop_assert_eq!(suspicion(remembered(&old, 100), remembered(&new, 200)), None);
        }

        #[test]
        fn lost_tails_are_found_whatever_changed_before_them(items in exports(), keep in 0usize..5) {
            let items = borrowed(&items);
            let last = items.last().map(|(menu, _)| *menu).unwrap_or_default();
            let rest: Vec<_> = items.iter().filter(|(menu, _)| *menu != last).collect();
            let new: Vec<_> = std::iter::once(("/other", "add a=b"))
                .chain(rest.iter().take(rest.len().saturating_sub(keep)).map(|item| **item))
                .collect();
            let (old, new) = (shape(&items), shape(&new));
            let found = suspicion(remembered(&old, 100), remembered(&new, 100));
            prop_assert!(matches!(found, Some(Suspicion::LostLastMenus { .. })), "{found:?}");
        }
    }
}
