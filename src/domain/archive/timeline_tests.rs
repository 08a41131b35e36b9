//! The laws of the timeline, over any arrivals in any order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::super::attempt::AttemptId;
use super::super::device::{DeviceId, TenantId};
use super::super::snapshot::{ConfigText, Snapshot};
use super::*;
use time::macros::datetime;

/// What was collected at each hour: a letter for a configuration.
fn snapshot(hour: usize, config: u8) -> Snapshot {
    let text = ConfigText::new("x".repeat(config.into()));
    Snapshot {
        attempt: AttemptId(Uuid::from_u128(hour as u128 + 1)),
        device: DeviceId(Uuid::from_u128(1)),
        tenant: TenantId(Uuid::from_u128(2)),
        routeros_version: "7.18".into(),
        machine: Default::default(),
        collected_at: datetime!(2026-01-01 0:00 UTC) + time::Duration::hours(hour as i64),
        hash: text.digest(),
        text,
        normalization_version: 2,
        normalization_rules: "r".into(),
        incomplete_menus: Vec::new(),
        ledger: BTreeMap::new(),
        shape: Default::default(),
    }
}

/// A stand-in for a diff that depends on both ends and their order.
fn lines(from: &Version, to: &Version) -> Lines {
    Lines {
        added: u32::try_from(to.bytes).expect("a few bytes"),
        removed: u32::try_from(from.bytes).expect("a few bytes"),
    }
}

/// A stored timeline, ordered as the databases order it.
#[derive(Clone, PartialEq, Debug, Default)]
struct Timeline(Vec<Version>);

impl Timeline {
    fn arrive(&mut self, snapshot: &Snapshot) -> Arrived {
        let arrival = Version::of(snapshot);
        let at = arrival.first.position;
        let split = self.0.partition_point(|it| it.first.position <= at);
        let around = Around {
            known: self.0.iter().any(|it| it.id == arrival.id),
            before: split.checked_sub(1).map(|n| self.0[n].clone()),
            after: self.0.get(split).cloned(),
        };
        let settled = settle(
            arrival.clone(),
            &around,
            |it| it.compare(&arrival.first) == Comparison::Same,
            |it| Some(lines(it, &arrival)),
        );
        for edit in settled.edits {
            self.edit(edit, &arrival);
        }
        self.0.sort_by_key(|it| it.first.position);
        assert!(self.0.iter().any(|it| it.id == settled.version));
        settled.arrived
    }

    fn edit(&mut self, edit: Edit, arrival: &Version) {
        match edit {
            Edit::Insert { version, content } => {
                let hash = match content {
                    Content::Arrived => arrival.first.hash,
                    Content::Of(id) => self.of(id).first.hash,
                };
                assert_eq!(version.first.hash, hash, "the text is that of the version");
                let unlike = |it: &Version| {
                    it.id != version.id && it.first.position != version.first.position
                };
                assert!(self.0.iter().all(unlike), "ids and positions are unique");
                self.0.push(*version);
            }
            Edit::FirstSeen { version, position } => self.of(version).first.position = position,
            Edit::LastSeen { version, seen } => self.of(version).last = seen,
            Edit::Recount { version, lines } => self.of(version).lines = lines,
        }
    }

    fn of(&mut self, id: VersionId) -> &mut Version {
        let found = self.0.iter_mut().find(|it| it.id == id);
        found.expect("it is there")
    }

    fn configs(&self) -> Vec<u8> {
        let bytes = self.0.iter().map(|it| it.bytes);
        bytes.map(|n| u8::try_from(n).expect("few")).collect()
    }

    fn check(&self, truth: &[u8]) -> Result<(), TestCaseError> {
        let hour = |sighting: &Sighting| {
            usize::try_from((sighting.position.at - datetime!(2026-01-01 0:00 UTC)).whole_hours())
                .expect("not before the first")
        };
        for version in &self.0 {
            prop_assert!(version.first.position <= version.last.position);
            for seen in [&version.first, &version.last] {
                prop_assert_eq!(u64::from(truth[hour(seen)]), version.bytes, "it was seen");
            }
        }
        prop_assert!(self.0.first().is_none_or(|it| it.lines.is_none()));
        for pair in self.0.windows(2) {
            prop_assert!(pair[0].last.position < pair[1].first.position, "no overlap");
            prop_assert_ne!(pair[0].first.hash, pair[1].first.hash, "neighbours differ");
            prop_assert_eq!(pair[1].lines, Some(lines(&pair[0], &pair[1])));
        }
        Ok(())
    }
}

/// Consecutive equal values once.
fn changes(truth: &[u8]) -> Vec<u8> {
    let mut changes = truth.to_vec();
    changes.dedup();
    changes
}

/// What a device had at each hour, and the hours in an order of arrival, some of them twice.
fn arrivals() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    prop::collection::vec(0..4_u8, 1..14).prop_flat_map(|truth| {
        let hours = truth.len();
        let again = prop::collection::vec(0..hours, 0..8);
        let order = again.prop_flat_map(move |again| {
            let all: Vec<usize> = (0..hours).chain(again).collect();
            Just(all).prop_shuffle()
        });
        (Just(truth), order)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn in_order_there_is_one_version_per_change((truth, again) in arrivals()) {
        let mut timeline = Timeline::default();
        for (hour, config) in truth.iter().enumerate() {
            timeline.arrive(&snapshot(hour, *config));
            for late in again.iter().filter(|late| **late <= hour) {
                let before = timeline.clone();
                timeline.arrive(&snapshot(*late, truth[*late]));
                prop_assert_eq!(&timeline, &before, "arriving again changes nothing");
            }
        }
        timeline.check(&truth)?;
        prop_assert_eq!(timeline.configs(), changes(&truth));
    }

    #[test]
    fn in_any_order_the_newest_is_the_newest_and_nothing_is_lost((truth, order) in arrivals()) {
        let mut timeline = Timeline::default();
        let mut arrived = std::collections::BTreeSet::new();
        for hour in order {
            let newest = timeline.0.last().map(|it| it.last.position);
            let what = timeline.arrive(&snapshot(hour, truth[hour]));
            arrived.insert(hour);
            timeline.check(&truth)?;
            let last = *arrived.last().expect("one has arrived");
            let kept = timeline.0.last().expect("one version at least");
            prop_assert_eq!(kept.bytes, u64::from(truth[last]));
            prop_assert_eq!(kept.last.position, Version::of(&snapshot(last, 0)).first.position);
            if what == Arrived::Change {
                prop_assert!(newest.is_none_or(|newest| newest < kept.first.position));
            }
        }
        for config in &truth {
            prop_assert!(timeline.configs().contains(config), "{} is lost", config);
        }
    }

    /// Where no configuration comes back, no order matters at all.
    #[test]
    fn distinct_configurations_give_one_timeline_in_any_order((hours, order) in (1..12_usize).prop_flat_map(|hours| {
        (Just(hours), Just((0..hours).collect::<Vec<_>>()).prop_shuffle())
    })) {
        let truth: Vec<u8> = (0..hours).map(|hour| u8::try_from(hour / 2).expect("few")).collect();
        let mut timeline = Timeline::default();
        for hour in order {
            timeline.arrive(&snapshot(hour, truth[hour]));
        }
        timeline.check(&truth)?;
        prop_assert_eq!(timeline.configs(), changes(&truth));
        for (n, version) in timeline.0.iter().enumerate() {
            let ends = [2 * n, (2 * n + 1).min(hours - 1)].map(|hour| Version::of(&snapshot(hour, 0)).first.position);
            prop_assert_eq!([version.first.position, version.last.position], ends);
        }
    }
}

#[test]
fn a_raised_normalisation_is_unclear_until_it_was_seen_once() {
    let mut version = Version::of(&snapshot(0, 1));
    let mut raised = Version::of(&snapshot(1, 2)).first;
    assert_eq!(version.compare(&raised), Comparison::Differs);
    raised.normalization.version = 3;
    assert_eq!(version.compare(&raised), Comparison::Unclear);
    version.last = raised.clone();
    assert_eq!(version.compare(&raised), Comparison::Same);
    raised.hash = snapshot(2, 3).hash;
    assert_eq!(version.compare(&raised), Comparison::Differs);
    raised.normalization.rules = "other".into();
    assert_eq!(version.compare(&raised), Comparison::Unclear);
}
