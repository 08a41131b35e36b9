//! Every sign of a cut, and what operators do every day, beside the export before it.

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
    builder.finish(items.last().map(|(_, item)| *item))
}

fn remembered(shape: &Shape, bytes: u64) -> Remembered<'_> {
    Remembered {
        shape,
        bytes,
        incomplete_menus: &[],
        text: None,
    }
}

/// What is asked of an export that has just these `items`, beside one that had `old`.
fn suspicion_beside(old: &[(&str, &str)], items: &[(&str, &str)]) -> Option<Suspicion> {
    let text: String = items
        .iter()
        .map(|(menu, item)| format!("{menu} {item}\n"))
        .collect();
    let (old, new) = (shape(old), shape(items));
    let new = Remembered {
        text: Some(&text),
        ..remembered(&new, 100)
    };
    suspicion(remembered(&old, 100), new)
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
fn a_cut_inside_the_last_menu_is_told_whatever_was_edited_before_it() {
    const OLD: &[(&str, &str)] = &[
        ("/ip pool", "add name=a"),
        ("/tool netwatch", "add host=192.0.2.1"),
        ("/tool netwatch", "add host=192.0.2.2"),
    ];
    let old = shape(OLD);
    let told = |new: &[(&str, &str)]| {
        suspicion(remembered(&old, 300), remembered(&shape(new), 299)).map(|s| s.to_string())
    };
    let edited = ("/ip pool", "add name=b");
    let words = "ends in /tool netwatch with fewer items than the one before it had there (1 of 2)";
    let found = told(&[edited, OLD[1]]);
    assert!(
        found.as_deref().is_some_and(|found| found.contains(words)),
        "{found:?}"
    );
    let found = told(&[edited, ("/new", "add a=b"), OLD[1]]);
    assert!(
        found.as_deref().is_some_and(|found| found.contains(words)),
        "{found:?}"
    );
    assert_eq!(told(&[edited, OLD[1], OLD[2]]), None);
    assert_eq!(told(&[edited, OLD[1], OLD[1], OLD[1]]), None);
}

#[test]
fn a_cut_in_a_menu_that_is_printed_twice_is_told() {
    const OLD: &[(&str, &str)] = &[
        ("/ip pool", "add name=a"),
        ("/ip pool", "add name=b"),
        ("/ppp profile", "add name=c"),
        ("/ip pool", "set a next-pool=b"),
        ("/ip pool", "set b next-pool=a"),
    ];
    let old = shape(OLD);
    let told = |new: &[(&str, &str)]| {
        let found = suspicion(remembered(&old, 300), remembered(&shape(new), 299));
        found.map(|found| found.as_str())
    };
    assert_eq!(told(OLD), None);
    assert_eq!(told(&OLD[..4]), Some("ends_early"));
    assert_eq!(told(&OLD[..3]), Some("ends_early"));
    assert_eq!(told(&OLD[..1]), Some("ends_early"));
    // Whatever was edited before it.
    let edited = ("/ppp profile", "add name=d");
    let cut = [&OLD[..2], &[edited, OLD[3]]].concat();
    assert_eq!(told(&cut), Some("last_menu_shrank"));
    assert_eq!(told(&[OLD[0], edited, OLD[3], OLD[4]]), None);
    assert_eq!(
        told(&[&OLD[..2], &[edited]].concat()),
        Some("lost_last_menus")
    );
    // The menu is printed once more than before, or once less.
    let more = [&OLD[..1], &[edited], &OLD[1..2], &[edited, OLD[3]]].concat();
    assert_eq!(told(&more), Some("last_menu_shrank"));
    assert_eq!(told(&[edited, OLD[3]]), Some("lost_last_menus"));
}

#[test]
fn a_form_that_an_older_program_remembered_raises_no_suspicion() {
    // It had all items of a menu in one place, where the menu came first.
    let merged = shape(&[("/a", "x"), ("/a", "y"), ("/b", "z")]);
    let apart = shape(&[("/a", "x"), ("/b", "z"), ("/a", "y")]);
    let told = |old: &Shape, new: &Shape| suspicion(remembered(old, 100), remembered(new, 100));
    assert_eq!(told(&merged, &apart), None);
}

#[test]
fn a_menu_that_fails_for_ever_hides_nothing_of_the_others() {
    let whole = shape(WHOLE);
    let hidden: Vec<_> = WHOLE
        .iter()
        .map(|(menu, item)| (*menu, item.split(" password").next().unwrap_or(item)))
        .collect();
    let hidden = shape(&hidden);
    let edited = [&WHOLE[..4], &[("/system identity", "set name=core")]].concat();
    let edited = shape(&edited);
    let (old_names, new_names) = (["/ipv6/route".to_owned()], ["/ipv6 route".to_owned()]);
    let missing = |shape, bytes, incomplete_menus| Remembered {
        shape,
        bytes,
        incomplete_menus,
        text: None,
    };
    let told = |old, new| suspicion(old, new).map(|found| found.as_str());
    let old = missing(&whole, 300, &old_names);
    assert_eq!(
        told(old, missing(&hidden, 250, &new_names)),
        Some("lost_secrets")
    );
    assert_eq!(told(old, missing(&edited, 199, &new_names)), Some("shrank"));
    assert_eq!(told(old, missing(&edited, 200, &new_names)), None);
    // What it lacks no more can only have made it longer.
    assert_eq!(told(old, missing(&hidden, 250, &[])), Some("lost_secrets"));
    assert_eq!(told(old, missing(&edited, 199, &[])), Some("shrank"));
    // What it lacks in addition may have held the secrets and the bytes.
    let old = remembered(&whole, 300);
    assert_eq!(told(old, missing(&hidden, 250, &new_names)), None);
    assert_eq!(told(old, missing(&edited, 199, &new_names)), None);
    let parent = ["/ipv6".to_owned()];
    let old = missing(&whole, 300, &old_names);
    assert_eq!(told(old, missing(&hidden, 250, &parent)), None);
    let old = missing(&whole, 300, &parent);
    assert_eq!(
        told(old, missing(&hidden, 250, &new_names)),
        Some("lost_secrets")
    );
}

#[test]
fn what_was_in_a_menu_before_it_failed_is_compared_once_it_fails_no_more() {
    let names = ["/system/identity".to_owned()];
    // Taken without its last menu, which is remembered.
    let old = crate::routeros::remember(Some(&shape(WHOLE)), shape(&WHOLE[..4]), &names);
    let old = Remembered {
        incomplete_menus: &names,
        ..remembered(&old, 250)
    };
    let told = |new: &[(&str, &str)], missing| {
        let new = shape(new);
        let new = Remembered {
            incomplete_menus: missing,
            ..remembered(&new, 250)
        };
        suspicion(old, new).map(|found| found.as_str())
    };
    assert_eq!(told(&WHOLE[..4], &names), None, "it still fails");
    assert_eq!(told(WHOLE, &[]), None, "it is back");
    assert_eq!(told(&WHOLE[..4], &[]), Some("ends_early"));
    assert_eq!(told(&WHOLE[..3], &names), Some("ends_early"));
    let edited = [&[("/interface bridge", "add name=bridge2")], &WHOLE[1..4]].concat();
    assert_eq!(told(&edited, &[]), Some("lost_last_menus"));
}

#[test]
fn a_menu_of_which_nothing_is_known_is_to_be_mentioned_where_the_export_may_end() {
    let names = ["/ipv6/route".to_owned()];
    let none = MenuShape {
        menu: "/ipv6 route".to_owned(),
        digest: crate::domain::digest::Digest::of(""),
        items: 0,
    };
    let whole = shape(WHOLE);
    let told = |place: Option<usize>, new: &Shape, missing: &[&str]| {
        let mut old = whole.clone();
        if let Some(place) = place {
            old.menus.insert(place, none.clone());
        }
        let missing: Vec<_> = missing.iter().map(|menu| (*menu).to_owned()).collect();
        let (old, new) = (remembered(&old, 300), remembered(new, 300));
        let old = Remembered {
            incomplete_menus: &names,
            ..old
        };
        let new = Remembered {
            incomplete_menus: &missing,
            ..new
        };
        suspicion(old, new).map(|found| found.as_str())
    };
    let last = whole.menus.len();
    for (place, doubtful) in [(Some(last), true), (None, true), (Some(last - 1), false)] {
        let doubt = doubtful.then_some("unmentioned");
        assert_eq!(told(place, &whole, &[]), doubt, "{place:?}");
        for mentioned in ["/ipv6/route", "/ipv6", "/ipv6 route rule"] {
            assert_eq!(told(place, &whole, &[mentioned]), None, "{mentioned}");
        }
        for menu in ["/ipv6 route", "/ipv6 route rule"] {
            let back = shape(&[WHOLE, &[(menu, "add a=b")]].concat());
            assert_eq!(told(place, &back, &[]), None, "{menu}");
        }
        let another = shape(&[WHOLE, &[("/ipv6 routing", "add a=b")]].concat());
        assert_eq!(told(place, &another, &[]), doubt);
    }
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
        Suspicion::LastMenuShrank {
            menu: "/a".into(),
            from: 2,
            to: 1,
        },
        Suspicion::LostLastItem { menu: "/a".into() },
        Suspicion::Unmentioned { menu: "/a".into() },
        Suspicion::LostSecrets { secrets: 1 },
        Suspicion::Shrank { from: 2, to: 1 },
        Suspicion::Empty,
        Suspicion::StrayLines {
            lines: 1,
            number: 7,
            menu: "/a".into(),
            like: StrayLike::Anything,
            digest: Digest::of(""),
        },
    ];
    assert_eq!(all.map(|suspicion| suspicion.as_str()), Suspicion::NAMES);
}

#[test]
fn a_last_item_that_is_gone_is_suspected_and_one_that_stands_elsewhere_is_not() {
    const OLD: [(&str, &str); 3] = [
        ("/ip address", "add address=192.0.2.1/24"),
        ("/tool netwatch", "add host=192.0.2.8"),
        ("/tool netwatch", "add host=192.0.2.9"),
    ];
    let inserted = ("/tool netwatch", "add host=192.0.2.7");
    let lost = Some(Suspicion::LostLastItem {
        menu: "/tool netwatch".into(),
    });
    let told = |items: &[(&str, &str)]| suspicion_beside(&OLD, items);
    assert_eq!(told(&[OLD[0], inserted, OLD[1]]), lost);
    assert_eq!(told(&[OLD[0], inserted, inserted, OLD[1]]), lost);
    // Added behind it, moved, or whole in spite of an edit before.
    assert_eq!(told(&[OLD[0], OLD[1], OLD[2], inserted]), None);
    assert_eq!(told(&[OLD[0], OLD[2], OLD[1]]), None);
    assert_eq!(told(&[inserted, OLD[1], OLD[2]]), None);
    // Something stands behind that menu: no cut is inside of it.
    assert_eq!(
        told(&[OLD[0], OLD[1], inserted, ("/user", "add name=a")]),
        None
    );
    let setting = |value| [OLD[0], ("/user aaa", value)];
    let edited = suspicion_beside(
        &setting("set use-radius=yes"),
        &setting("set use-radius=no"),
    );
    assert_eq!(edited, None, "nothing can have come before a setting");
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

/// Menus in any order, some of them more than once.
fn repeating() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec((0..4u8, "[a-c]{1,3}"), 1..15).prop_map(|items| {
        let item = |(menu, item)| (format!("/menu {menu}"), format!("add name={item}"));
        items.into_iter().map(item).collect()
    })
}

proptest! {
    #[test]
    fn every_cut_between_two_items_is_suspected(items in prop_oneof![exports(), repeating()], at in any::<prop::sample::Index>()) {
        let items = borrowed(&items);
        let cut = at.index(items.len());
        let (old, new) = (shape(&items), shape(&items[..cut]));
        let found = suspicion(remembered(&old, 100), remembered(&new, 100));
        prop_assert!(matches!(found, Some(Suspicion::EndsEarly { .. })), "{found:?}");
    }

    #[test]
    fn a_cut_inside_the_last_menu_is_suspected_whatever_changed_before_it(
        items in prop_oneof![exports(), repeating()],
        earlier in prop::collection::vec("[a-c]{1,3}", 0..3),
        last in prop::collection::vec("[a-c]{1,3}", 2..6),
        others in exports(),
        keep in any::<prop::sample::Index>(),
        edited in any::<prop::sample::Index>(),
    ) {
        // The menu that it ends in may be printed before, too.
        let earlier = earlier.iter().map(|item| ("/tail".to_owned(), item.clone()));
        let items: Vec<_> = earlier.chain(items).collect();
        let items = borrowed(&items);
        let last: Vec<_> = last.iter().map(|item| ("/tail", item.as_str())).collect();
        let old = shape(&[items.clone(), last.clone()].concat());
        let cut = &last[..1 + keep.index(last.len() - 1)];
        let mut one = items.clone();
        one[edited.index(items.len())].1 = "set edited=yes";
        let mut without = items.clone();
        without.remove(edited.index(items.len()));
        for before in [one, without, borrowed(&others), Vec::new()] {
            let new = shape(&[&before, cut].concat());
            let found = suspicion(remembered(&old, 100), remembered(&new, 100));
            prop_assert!(found.is_some(), "{before:?} {cut:?}");
        }
    }

    #[test]
    fn a_cut_inside_the_last_menu_is_suspected_however_many_items_came_before_it(
        items in exports(),
        last in prop::collection::hash_set("[a-c]{1,3}", 2..6),
        came in prop::collection::vec("[d-f]{1,3}", 0..6),
        keep in any::<prop::sample::Index>(),
    ) {
        let items = borrowed(&items);
        let last: Vec<_> = last.iter().map(|name| format!("add name={name}")).collect();
        let came: Vec<_> = came.iter().map(|name| format!("add name={name}")).collect();
        let last: Vec<_> = last.iter().map(|item| ("/tail", item.as_str())).collect();
        let came: Vec<_> = came.iter().map(|item| ("/tail", item.as_str())).collect();
        let kept = &last[..1 + keep.index(last.len() - 1)];
        let cut = [&items[..], &came, kept].concat();
        let found = suspicion_beside(&[&items[..], &last].concat(), &cut);
        prop_assert!(found.is_some(), "{cut:?}");
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
