//! Which stream to use, decided from the subjects that each one takes.

use async_nats::jetstream::stream::Config;

/// Every snapshot's subject: one token, the device's id, in place of the star.
pub(super) const COVERED: &str = "config.snapshot.create.*";
/// What a stream of ours takes when nobody else takes a part of it …
pub(super) const WHOLE: &str = "config.snapshot.>";
/// … and when somebody does.
pub(super) const NARROW: &str = "config.snapshot.create.>";

/// What to do about a stream.
#[derive(PartialEq, Debug)]
pub(super) enum Choice<'a> {
    /// This one takes every snapshot.
    Use(&'a Config),
    /// None does: create one with this subject.
    Create(&'static str),
    /// These take some devices and leave others: neither usable nor to be overlapped.
    Partial(Vec<String>),
}

/// Decides from the streams that take a part of [`WHOLE`].
pub(super) fn choose(present: &[Config]) -> Choice<'_> {
    let takes = |config: &Config, test: fn(&str, &str) -> bool, subject: &str| {
        config.subjects.iter().any(|filter| test(filter, subject))
    };
    if let Some(config) = present.iter().find(|config| takes(config, covers, COVERED)) {
        return Choice::Use(config);
    }
    let partial = present
        .iter()
        .filter(|config| takes(config, overlaps, NARROW));
    let partial: Vec<_> = partial.map(|config| config.name.clone()).collect();
    if !partial.is_empty() {
        return Choice::Partial(partial);
    }
    if present.iter().any(|config| takes(config, overlaps, WHOLE)) {
        Choice::Create(NARROW)
    } else {
        Choice::Create(WHOLE)
    }
}

/// Whether `config` takes everything below the subjects of snapshots.
pub(super) fn takes_all(config: &Config) -> bool {
    config.subjects.iter().any(|filter| covers(filter, NARROW))
}

/// Whether every subject that `inner` matches is matched by `outer`.
fn covers(outer: &str, inner: &str) -> bool {
    let mut inner = inner.split('.');
    for token in outer.split('.') {
        match (token, inner.next()) {
            (">", Some(_)) => return true,
            (_, None | Some(">")) => return false,
            ("*", Some(_)) => {}
            (token, Some(other)) if token == other => {}
            _ => return false,
        }
    }
    inner.next().is_none()
}

/// Whether some subject is matched by both.
fn overlaps(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(name: &str, subjects: &[&str]) -> Config {
        Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            ..Config::default()
        }
    }

    #[test]
    fn a_stream_that_covers_the_subject_is_used() {
        for subject in [
            ">",
            "config.>",
            "*.snapshot.create.*",
            "config.snapshot.>",
            "config.snapshot.create.*",
            "config.snapshot.create.>",
        ] {
            let present = [stream("OTHER", &["other"]), stream("PLATFORM", &[subject])];
            assert_eq!(choose(&present), Choice::Use(&present[1]), "{subject}");
        }
    }

    #[test]
    fn otherwise_one_is_created_beside_what_is_there() {
        assert_eq!(choose(&[]), Choice::Create(WHOLE));
        for beside in [
            "config.snapshot.delete.*",
            "config.*.delete.>",
            "config.snapshot.x",
        ] {
            let present = [stream("BESIDE", &[beside])];
            assert_eq!(choose(&present), Choice::Create(NARROW), "{beside}");
        }
        for part in [
            "config.snapshot.create.00000000-0000-0000-0000-000000000001",
            "*.*.*.x",
            "config.snapshot.*.a.b",
        ] {
            let present = [stream("PART", &[part])];
            let partial = Choice::Partial(vec!["PART".to_owned()]);
            assert_eq!(choose(&present), partial, "{part}");
        }
    }

    fn token() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "*"])
    }

    prop_compose! {
        fn filter()(tokens in prop::collection::vec(token(), 1..4), tail in any::<bool>()) -> String {
            let mut filter = tokens.join(".");
            if tail {
                filter.push_str(".>");
            }
            filter
        }
    }

    prop_compose! {
        fn subject()(tokens in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..5)) -> String {
            tokens.join(".")
        }
    }

    proptest! {
        #[test]
        fn covering_and_overlapping_agree_with_matching(
            one in filter(), other in filter(), subject in subject(),
        ) {
            // A subject without wildcards is matched by a filter that covers it.
            let by_one = covers(&one, &subject);
            let by_other = covers(&other, &subject);
            prop_assert!(!(by_one && by_other) || overlaps(&one, &other));
            prop_assert!(!(covers(&one, &other) && by_other) || by_one);
            prop_assert_eq!(overlaps(&one, &other), overlaps(&other, &one));
            prop_assert!(covers(&one, &one) && overlaps(&one, &one));
        }
    }
}
