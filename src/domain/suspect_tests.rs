//! What is the same suspect, what ends a row, and that no other way leads past three attempts.

use proptest::prelude::*;

use super::*;
use crate::domain::digest::Digest;

/// A reading that ends in the last of `menus`, each with a text and so many items.
fn reading(menus: &[(&str, &str, u32)]) -> Suspect {
    let menu = |(menu, text, items): &(&str, &str, u32)| MenuShape {
        menu: (*menu).to_owned(),
        digest: Digest::of(text),
        items: *items,
    };
    Suspect {
        suspicion: "lost_last_menus".to_owned(),
        shape: Shape {
            menus: menus.iter().map(menu).collect(),
            secrets: 2,
            end: None,
        },
        incomplete_menus: Vec::new(),
        strays: None,
    }
}

const LIST: &str = "/ip firewall address-list";

/// A router with a list that changes by itself, and another menu behind it.
fn with_list(text: &str, items: u32) -> Suspect {
    reading(&[("/ip pool", "a", 1), (LIST, text, items), ("/snmp", "b", 1)])
}

fn restless(recurrence: &Recurrence) -> Vec<&str> {
    let recurring = recurrence.0.as_ref().expect("a suspect");
    recurring.restless.iter().map(String::as_str).collect()
}

#[test]
fn the_third_attempt_in_a_row_that_sees_it_takes_it() {
    let first = with_list("x", 2);
    let mut row = Recurrence::default();
    for (attempt, left) in [(1, 2), (2, 1), (3, 0), (4, 0)] {
        assert_eq!(row.awaits(&first), attempt >= 3, "attempt {attempt}");
        row = row.after(&first, SecondReading::None);
        assert_eq!(row.attempts(), attempt);
        assert_eq!(row.attempts_left(), left, "attempt {attempt}");
        assert_eq!(row.is_final(), attempt >= 3, "attempt {attempt}");
    }
}

#[test]
fn what_speaks_against_it_ends_the_row() {
    let first = with_list("x", 2);
    let twice = (0..2).fold(Recurrence::default(), |row, _| {
        row.after(&first, SecondReading::None)
    });
    let mut others = vec![
        with_list("y", 2),
        with_list("x", 1),
        reading(&[("/ip pool", "a", 1), (LIST, "x", 2), ("/snmp", "c", 1)]),
        reading(&[("/ip pool", "a", 1), (LIST, "x", 2)]),
        reading(&[("/ip pool", "a", 1), (LIST, "x", 2), ("/ppp", "b", 1)]),
    ];
    let mut other = first.clone();
    other.suspicion = "shrank".to_owned();
    others.push(other.clone());
    other.clone_from(&first);
    other.shape.secrets = 1;
    others.push(other.clone());
    other.clone_from(&first);
    other.incomplete_menus.push("/ipv6/route".to_owned());
    others.push(other.clone());
    other.clone_from(&first);
    other.strays = Some(Digest::of("a line that no export has"));
    others.push(other);
    for other in &others {
        assert!(!twice.awaits(other), "{other:?}");
        let row = twice.after(other, SecondReading::None);
        assert_eq!(row.attempts(), 1, "it begins a row of its own: {other:?}");
    }
    assert_eq!(
        twice.after(&first, SecondReading::Refuted),
        Recurrence::default()
    );
    // A second reading of another form; one whose text alone differs is what changes by itself.
    for other in &others[3..] {
        let row = twice.after(&first, SecondReading::Suspect(other));
        assert_eq!(row, Recurrence::default(), "{other:?}");
    }
}

#[test]
fn a_menu_that_was_seen_to_change_by_itself_may_differ() {
    let readings = ["1", "2", "3", "4", "5", "6"].map(|text| with_list(text, 2));
    let [a, b, c, d, e, f] = &readings;
    let mut row = Recurrence::default().after(a, SecondReading::Suspect(b));
    row = row.after(c, SecondReading::Suspect(d));
    assert_eq!(restless(&row), [LIST]);
    assert_eq!(row.attempts(), 2);
    // It has been seen: the third attempt need not see it again.
    assert!(row.awaits(e));
    assert!(row.after(e, SecondReading::Suspect(f)).is_final());
    // Nobody has seen another menu change.
    let other = reading(&[("/ip pool", "z", 1), (LIST, "5", 2), ("/snmp", "b", 1)]);
    assert_eq!(row.after(&other, SecondReading::None).attempts(), 1);
    // Where it was never seen, it is another one each time.
    let unseen = [a, c, e, f].iter().fold(Recurrence::default(), |row, it| {
        row.after(it, SecondReading::None)
    });
    assert_eq!(unseen.attempts(), 1);
}

#[test]
fn a_list_may_grow_and_shrink_before_the_end_and_not_at_it() {
    let (long, short) = (with_list("1", 9), with_list("2", 7));
    let row = Recurrence::default().after(&long, SecondReading::Suspect(&short));
    assert_eq!(row.attempts(), 1);
    assert_eq!(
        row.after(&with_list("3", 8), SecondReading::None)
            .attempts(),
        2
    );
    let at_the_end = |text, items| reading(&[("/ip pool", "a", 1), (LIST, text, items)]);
    let row = Recurrence::default().after(
        &at_the_end("1", 9),
        SecondReading::Suspect(&at_the_end("2", 7)),
    );
    assert_eq!(row, Recurrence::default(), "so looks a cut in it");
    let row = Recurrence::default().after(
        &at_the_end("1", 9),
        SecondReading::Suspect(&at_the_end("2", 9)),
    );
    assert_eq!(row.attempts(), 1);
}

#[derive(Clone, Debug)]
enum Second {
    None,
    Suspect(Suspect),
    Refuted,
}

impl Second {
    fn as_reading(&self) -> SecondReading<'_> {
        match self {
            Self::None => SecondReading::None,
            Self::Suspect(suspect) => SecondReading::Suspect(suspect),
            Self::Refuted => SecondReading::Refuted,
        }
    }
}

/// Cuts of one export, at any place; what stands before the cut may change by itself.
fn suspects() -> impl Strategy<Value = Suspect> {
    let menus = || prop::collection::vec((0u8..2, 1u32..3), 1..4);
    menus().prop_map(|menus| {
        let names = ["/a", "/b", "/c"];
        let texts = ["x", "y"];
        let menus: Vec<_> = names
            .into_iter()
            .zip(menus)
            .map(|(name, (text, items))| (name, texts[usize::from(text)], items))
            .collect();
        reading(&menus)
    })
}

fn seconds() -> impl Strategy<Value = Second> {
    prop_oneof![
        3 => Just(Second::None),
        3 => suspects().prop_map(Second::Suspect),
        1 => Just(Second::Refuted),
    ]
}

/// What the rule says, attempt by attempt, without a memory: `attempts` end with the one asked for.
fn may_be_taken(attempts: &[(Suspect, Second)]) -> bool {
    let Some(three) = attempts.len().checked_sub(3).map(|from| &attempts[from..]) else {
        return false;
    };
    let firsts: Vec<_> = three.iter().map(|(first, _)| first).collect();
    three.iter().all(|(first, second)| match second {
        Second::None => true,
        Second::Suspect(second) => first.differences(second).is_some(),
        Second::Refuted => false,
    }) && firsts
        .windows(2)
        .all(|two| two[0].differences(two[1]).is_some())
}

proptest! {
    #[test]
    fn nothing_is_taken_but_after_three_alike_that_nothing_speaks_against(
        attempts in prop::collection::vec((suspects(), seconds()), 1..12)
    ) {
        let mut row = Recurrence::default();
        for last in 0..attempts.len() {
            let (first, second) = &attempts[last];
            row = row.after(first, second.as_reading());
            if row.is_final() {
                prop_assert!(may_be_taken(&attempts[..=last]), "{:?}", &attempts[..=last]);
            }
        }
    }

    /// What no two readings on one connection show to change by itself must be equal thrice.
    #[test]
    fn without_two_readings_on_one_connection_all_three_must_be_equal(
        attempts in prop::collection::vec(suspects(), 3..12)
    ) {
        let mut row = Recurrence::default();
        for last in 0..attempts.len() {
            row = row.after(&attempts[last], SecondReading::None);
            let equal = last >= 2 && attempts[last - 2..=last].windows(2).all(|two| two[0] == two[1]);
            prop_assert_eq!(row.is_final(), equal);
        }
    }

    /// A router, or what is between, that cuts at another place each time is never believed.
    #[test]
    fn cuts_at_changing_places_are_never_taken(
        cuts in prop::collection::vec((1usize..40, 1usize..40), 1..30)
    ) {
        let whole: Vec<_> = (0..40).map(|menu| format!("/menu {menu}")).collect();
        let cut = |at: usize| {
            let menus: Vec<_> = whole[..at].iter().map(|menu| (menu.as_str(), "x", 1)).collect();
            reading(&menus)
        };
        let mut row = Recurrence::default();
        let mut before = 0;
        for (first, second) in cuts {
            // Two in a row may be at one place by chance, three not.
            let first = if first == before { 1 + first % 39 } else { first };
            let again = cut(second);
            row = row.after(&cut(first), SecondReading::Suspect(&again));
            prop_assert!(!row.is_final());
            prop_assert!(row.attempts() <= 1);
            before = first;
        }
    }

    #[test]
    fn an_attempt_that_refutes_it_begins_everything_anew(
        before in prop::collection::vec((suspects(), seconds()), 0..6),
        first in suspects(),
        after in prop::collection::vec((suspects(), seconds()), 1..6),
    ) {
        let go = |row: Recurrence, attempts: &[(Suspect, Second)]| {
            attempts.iter().fold(row, |row, (first, second)| row.after(first, second.as_reading()))
        };
        let refuted = go(Recurrence::default(), &before).after(&first, SecondReading::Refuted);
        prop_assert_eq!(go(refuted, &after), go(Recurrence::default(), &after));
    }
}
