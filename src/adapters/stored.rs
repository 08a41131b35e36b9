//! The forms in which both databases store what has no type of its own in SQL.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::domain::digest::Digest;
use crate::domain::session::{MissingMenus, Observed};
use crate::domain::snapshot::{MenuShape, Shape};
use crate::domain::suspect::{Recurrence, Recurring, Suspect};

/// The reason in the row of an attempt that nobody has recorded.
pub(super) const LOST: &str = "the process that made this attempt died, or lost its lease, before it \
                               recorded how the attempt ended";

/// Longest stored error text in bytes; a source chain is far shorter.
const MAX_ERROR: usize = 16 * 1024;

/// The stored form of a [`Shape`], but for its secrets: arrays, because a JSON object keeps no order. The
/// array of the last menu has the digest of its last item as well, if that is known.
pub(super) fn of_shape(shape: &Shape) -> Value {
    let of_menu =
        |menu: &MenuShape| serde_json::json!([storable(&menu.menu), menu.digest, menu.items]);
    let mut menus: Vec<Value> = shape.menus.iter().map(of_menu).collect();
    if let (Some(Value::Array(last)), Some(end)) = (menus.last_mut(), shape.end) {
        last.push(serde_json::json!(end));
    }
    Value::Array(menus)
}

/// Reads [`of_shape`], with the count of secrets beside it; a form that cannot be read is none.
pub(super) fn shape(menus: Option<&Value>, secrets: Option<i64>) -> Option<Shape> {
    let stored = menus?;
    let last = stored.as_array().and_then(|menus| menus.last());
    Some(Shape {
        end: last
            .and_then(|last| last.get(3)?.as_str())
            .and_then(Digest::parse),
        menus: menus_from(stored)?,
        secrets: u32::try_from(secrets?).unwrap_or(u32::MAX),
    })
}

fn menus_from(stored: &Value) -> Option<Vec<MenuShape>> {
    let of_menu = |entry: &Value| {
        let items = entry.get(2).and_then(Value::as_u64).unwrap_or(0);
        Some(MenuShape {
            menu: entry.get(0)?.as_str()?.to_owned(),
            digest: Digest::parse(entry.get(1)?.as_str()?)?,
            items: u32::try_from(items).unwrap_or(u32::MAX),
        })
    };
    stored.as_array()?.iter().map(of_menu).collect()
}

/// The stored form of a list of texts.
pub(super) fn of_texts(texts: &[String]) -> Value {
    texts.iter().map(|text| storable(text)).collect()
}

/// Reads [`of_texts`]; what is stored otherwise, or not at all, is empty.
pub(super) fn texts(stored: Option<Value>) -> Vec<String> {
    stored
        .and_then(|stored| serde_json::from_value(stored).ok())
        .unwrap_or_default()
}

/// Beside the menus, how many exports in a row were refused for what they lacked. No menu has this name.
const REFUSED: &str = "*";

/// The stored form of the menus that could not be exported of late: how often, by menu.
pub(super) fn of_missing(observed: &Observed) -> Option<Value> {
    let missing = observed.missing_menus.as_ref()?;
    let menus = missing.menus.iter();
    let mut stored: serde_json::Map<_, _> = menus
        .map(|(menu, exports)| (storable(menu), (*exports).into()))
        .collect();
    if missing.refused > 0 {
        stored.insert(REFUSED.to_owned(), missing.refused.into());
    }
    Some(Value::Object(stored))
}

/// Reads [`of_missing`]; what cannot be read is none. An older program did not count refusals by
/// themselves: as many menus as it waited for were missing in all of them.
pub(super) fn missing(stored: Option<Value>) -> MissingMenus {
    let menus = stored.and_then(|stored| serde_json::from_value(stored).ok());
    let mut menus: BTreeMap<String, u32> = menus.unwrap_or_default();
    let refused = menus.remove(REFUSED).unwrap_or_else(|| {
        let waited = menus.values().filter(|it| **it < MissingMenus::PATIENCE);
        waited.max().copied().unwrap_or(0)
    });
    MissingMenus { menus, refused }
}

/// The stored form of the suspect that attempts in a row have seen; an empty object for none.
pub(super) fn of_suspects(observed: &Observed) -> Option<Value> {
    let Some(seen) = &observed.suspects.as_ref()?.0 else {
        return Some(serde_json::json!({}));
    };
    let restless: Vec<_> = seen.restless.iter().cloned().collect();
    Some(serde_json::json!({
        "attempts": seen.attempts,
        "suspicion": storable(&seen.suspect.suspicion),
        "menus": of_shape(&seen.suspect.shape),
        "secrets": seen.suspect.shape.secrets,
        "incomplete_menus": of_texts(&seen.suspect.incomplete_menus),
        "restless": of_texts(&restless),
        "strays": seen.suspect.strays,
    }))
}

/// Reads [`of_suspects`]; what cannot be read is none, and the row begins anew.
pub(super) fn suspects(stored: Option<Value>) -> Recurrence {
    Recurrence(stored.as_ref().and_then(recurring))
}

fn recurring(stored: &Value) -> Option<Recurring> {
    let list = |name| serde_json::from_value::<Vec<String>>(stored.get(name)?.clone()).ok();
    let secrets = stored.get("secrets")?.as_i64();
    Some(Recurring {
        suspect: Suspect {
            suspicion: stored.get("suspicion")?.as_str()?.to_owned(),
            shape: shape(stored.get("menus"), secrets)?,
            incomplete_menus: list("incomplete_menus")?,
            strays: stored
                .get("strays")
                .and_then(Value::as_str)
                .and_then(Digest::parse),
        },
        restless: list("restless")?.into_iter().collect(),
        attempts: u32::try_from(stored.get("attempts")?.as_u64()?).ok()?,
    })
}

/// The stored form of the weak algorithms: their names.
pub(super) fn of_weak(observed: &Observed) -> Option<Value> {
    let weak = observed.weak_ssh.as_ref()?.iter();
    Some(weak.map(ToString::to_string).collect())
}

/// `text` without the one character that PostgreSQL cannot store in text or jsonb, and at which
/// SQLite's own functions, and its shell, stop reading.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// `text`, cut at a character boundary when it is unreasonably long.
pub(super) fn shortened(text: &str) -> String {
    if text.len() <= MAX_ERROR {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_ERROR)])
}

/// `duration` in milliseconds, as SQL has it.
pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// `value` as SQL has it.
pub(super) fn bigint(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn long_errors_are_cut_between_characters(text in "[a\u{f6}\u{1f600}]{0,9000}") {
            let short = shortened(&text);
            prop_assert!(short.len() <= MAX_ERROR + '…'.len_utf8());
            prop_assert!(text.starts_with(short.trim_end_matches('…')));
        }

        #[test]
        fn menus_survive_storage_in_order(
            menus in proptest::collection::vec(("[^\u{0}]{0,20}", any::<u32>()), 1..20),
            end: Option<u32>,
        ) {
            let menus: Vec<_> = menus
                .into_iter()
                .map(|(menu, items)| MenuShape { digest: Digest::of(&menu), menu, items })
                .collect();
            let end = end.map(|item| Digest::of(item.to_be_bytes()));
            let whole = Shape { menus, secrets: 3, end };
            let stored = of_shape(&whole).to_string();
            let read = serde_json::from_str(&stored).expect("JSON");
            prop_assert_eq!(shape(Some(&read), Some(3)), Some(whole));
        }

        #[test]
        fn suspects_survive_storage(
            attempts in any::<u32>(),
            strays in any::<Option<u32>>(),
            names in proptest::collection::vec("[^\u{0}]{0,20}", 1..5),
        ) {
            let menu = |name: &String| MenuShape {
                menu: name.clone(),
                digest: Digest::of(name),
                items: attempts,
            };
            let seen = Recurrence(Some(Recurring {
                suspect: Suspect {
                    suspicion: names[0].clone(),
                    shape: Shape {
                        menus: names.iter().map(menu).collect(),
                        secrets: attempts,
                        end: strays.map(|item| Digest::of(item.to_le_bytes())),
                    },
                    incomplete_menus: names.clone(),
                    strays: strays.map(|text| Digest::of(text.to_be_bytes())),
                },
                restless: names.iter().cloned().collect(),
                attempts,
            }));
            for suspects in [seen, Recurrence::default()] {
                let observed = Observed { suspects: Some(suspects.clone()), ..Observed::default() };
                let stored = of_suspects(&observed).expect("something to store").to_string();
                let read = serde_json::from_str(&stored).expect("JSON");
                prop_assert_eq!(super::suspects(Some(read)), suspects);
            }
        }

        #[test]
        fn missing_menus_survive_storage(
            rounds in proptest::collection::vec(proptest::collection::vec("[a-c]", 0..3), 0..12),
        ) {
            let mut missing = MissingMenus::default();
            for round in rounds {
                let observed = Observed {
                    missing_menus: Some(missing.clone()),
                    ..Observed::default()
                };
                let stored = of_missing(&observed).expect("something to store");
                prop_assert_eq!(&super::missing(Some(stored)), &missing);
                missing = missing.after(&round);
            }
        }

        #[test]
        fn stored_text_has_no_nul(text in any::<String>()) {
            prop_assert!(!storable(&text).contains('\0'));
        }
    }

    #[test]
    fn suspects_that_cannot_be_read_are_none() {
        assert_eq!(of_suspects(&Observed::default()), None);
        assert_eq!(suspects(None), Recurrence::default());
        for stored in [
            r#"[]"#,
            r#"{"attempts":3}"#,
            r#"{"attempts":-1,"suspicion":"x","menus":[],"secrets":0,"incomplete_menus":[],"restless":[]}"#,
        ] {
            let value: Value = serde_json::from_str(stored).expect("valid JSON");
            assert_eq!(suspects(Some(value)), Recurrence::default(), "{stored}");
        }
    }

    #[test]
    fn a_row_that_an_older_program_has_begun_goes_on() {
        for (stored, refused) in [
            (r#"{"/a":2,"/b":1,"/c":3}"#, 2),
            (r#"{"/a":3}"#, 0),
            (r#"{"/a":1,"*":4}"#, 4),
            ("{}", 0),
            ("[]", 0),
        ] {
            let value: Value = serde_json::from_str(stored).expect("valid JSON");
            assert_eq!(missing(Some(value)).refused, refused, "{stored}");
        }
    }

    #[test]
    fn menus_that_are_not_pairs_are_none() {
        for stored in [r#"{}"#, r#"[1]"#, r#"[["/ip"]]"#, r#"[["/ip","short"]]"#] {
            let value: Value = serde_json::from_str(stored).expect("valid JSON");
            assert_eq!(shape(Some(&value), Some(0)), None, "{stored}");
        }
    }
}
