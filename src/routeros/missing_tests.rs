//! What is missing, and what is remembered of it, for any exports.

use proptest::prelude::*;

use super::*;
use crate::domain::digest::Digest;

fn menu(menu: &str, items: u32) -> MenuShape {
    MenuShape {
        menu: menu.to_owned(),
        digest: Digest::of(format!("{menu} {items}")),
        items,
    }
}

/// The last item, as this test has it: one of its own for each menu.
fn end_of(menu: &str) -> Option<Digest> {
    Some(Digest::of(format!("the end of {menu}")))
}

fn shape(menus: &[(&str, u32)]) -> Shape {
    Shape {
        menus: menus
            .iter()
            .map(|(name, items)| menu(name, *items))
            .collect(),
        secrets: 0,
        end: end_of(menus.last().map_or("", |(menu, _)| menu)),
    }
}

fn names(menus: &[&str]) -> Vec<String> {
    menus.iter().map(|menu| (*menu).to_owned()).collect()
}

fn remembered(shape: &Shape) -> Option<Remembered<'_>> {
    Some(Remembered {
        shape,
        bytes: 100,
        incomplete_menus: &[],
        text: None,
    })
}

#[test]
fn a_menu_that_had_items_is_missing_and_one_that_had_none_is_not() {
    let old = shape(&[
        ("/ip pool", 1),
        ("/tool user-manager user", 3),
        ("/app", 2),
        ("/ip pool", 1),
    ]);
    let missing = |new: &Shape, unavailable: &[&str]| {
        let failed = names(&["/ipv6/route"]);
        missing_menus(remembered(&old), new, failed, &names(unavailable))
    };
    let without = shape(&[("/ip pool", 2)]);
    for (unavailable, told) in [
        (
            &["/tool user-manager user"][..],
            &["/tool user-manager user"][..],
        ),
        // In or below it, however the version writes it.
        (&["/tool/user-manager"], &["/tool/user-manager"]),
        (
            &["/tool user-manager user", "/app"],
            &["/tool user-manager user", "/app"],
        ),
        (&["/app", "/app"], &["/app"]),
        (
            &["/tool user-manager router", "/tool bandwidth-server"],
            &[],
        ),
        (&["/app/settings", "/applause"], &[]),
        (&[], &[]),
    ] {
        let told = [&["/ipv6/route"], told].concat();
        assert_eq!(missing(&without, unavailable), names(&told));
    }
    // What is there all the same is not missing, unless some of it is.
    let same = shape(&[("/app", 2)]);
    assert_eq!(missing(&same, &["/app"]), ["/ipv6/route"]);
    let fewer = shape(&[("/app", 1)]);
    assert_eq!(missing(&fewer, &["/app"]), ["/ipv6/route", "/app"]);
    let first = missing_menus(None, &without, vec![], &names(&["/app"]));
    assert_eq!(first, Vec::<String>::new());
}

#[test]
fn what_is_missing_stays_where_it_was() {
    let old = shape(&[("/a", 1), ("/b", 2), ("/b c", 3), ("/d", 4), ("/b", 5)]);
    let told = |new: &[(&str, u32)], missing: &[&str]| {
        let new = shape(new);
        let kept = remember(Some(&old), new, &names(missing));
        let kept = kept.menus.into_iter().map(|it| (it.menu, it.items));
        kept.map(|(menu, items)| format!("{menu} {items}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let gone = &[("/a", 1), ("/d", 4)];
    assert_eq!(told(gone, &["/b"]), "/a 1, /b 2, /b c 3, /d 4, /b 5");
    assert_eq!(told(gone, &["/b/c"]), "/a 1, /b c 3, /d 4");
    assert_eq!(told(gone, &[]), "/a 1, /d 4");
    assert_eq!(told(&[("/d", 9)], &["/b"]), "/b 2, /b c 3, /d 9, /b 5");
    // Where it failed is known, and what it had stays.
    let failed = &[("/b", 0), ("/d", 4)];
    assert_eq!(told(failed, &["/b"]), "/b 2, /b c 3, /d 4, /b 5");
    // More than it had is what it has.
    assert_eq!(told(&[("/b", 3)], &["/b"]), "/b 3, /b c 3, /b 5");
    // The last item is that of the menu which is last then.
    let end = |missing: &str| remember(Some(&old), shape(gone), &names(&[missing])).end;
    assert_eq!(end("/x"), end_of("/d"));
    assert_eq!(end("/b"), end_of("/b"));
    let nothing = remember(None, shape(gone), &names(&["/b"]));
    assert_eq!(nothing, shape(gone));
}

fn menus() -> impl Strategy<Value = Shape> {
    prop::collection::vec(("/[a-c]( [a-c])?", 0u32..4), 0..8).prop_map(|menus| {
        let last = menus.iter().rfind(|(_, items)| *items > 0);
        let end = last.and_then(|(name, _)| end_of(name));
        let menus = menus.iter().map(|(name, items)| menu(name, *items));
        Shape {
            end,
            menus: menus.collect(),
            secrets: 1,
        }
    })
}

proptest! {
    #[test]
    fn what_fails_without_a_reason_is_missing_until_it_is_exported_or_silent(
        old in menus(),
        new in menus(),
        path in "/[a-c]",
    ) {
        let unavailable = [path.clone()];
        let lacks = |old: &Shape| !missing_menus(remembered(old), &new, vec![], &unavailable).is_empty();
        let kept = remember(Some(&old), new.clone(), &unavailable);
        prop_assert!(!lacks(&old) || lacks(&kept), "{:?}", kept);
        // What is exported is all there, in its order, and what is not missing is as it is.
        prop_assert!(missing_menus(remembered(&kept), &kept, vec![], &unavailable).is_empty());
        let mut left = kept.menus.iter();
        for menu in &new.menus {
            prop_assert!(left.any(|it| it.menu == menu.menu && it.items >= menu.items));
        }
        let other = |shape: &Shape| -> Vec<MenuShape> {
            let menus = shape.menus.iter();
            menus.filter(|it| !is_at_or_below(&it.menu, &path)).cloned().collect()
        };
        prop_assert_eq!(other(&kept), other(&new));
        prop_assert_eq!(kept.secrets, new.secrets);
        // What it ends in is what its last menu ends in, or is not known: of an older export only the
        // last menu's end was.
        let last = kept.last_menu().and_then(|last| end_of(&last.menu));
        prop_assert!(kept.end.is_none() || kept.end == last);
    }
}
