//! Which versions of a device may go: everything is kept for a while, then the newest of each day,
//! week or month.

use super::super::Timestamp;
use super::VersionId;

/// A stretch of the calendar, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// Midnight to midnight.
    Day,
    /// Monday to Sunday (ISO 8601).
    Week,
    /// A calendar month.
    Month,
}

impl Period {
    /// The number of the period that `at` lies in.
    fn number(self, at: Timestamp) -> i32 {
        let date = at.to_offset(time::UtcOffset::UTC).date();
        match self {
            Self::Day => date.to_julian_day(),
            // Julian day 0 was a Monday.
            Self::Week => date.to_julian_day().div_euclid(7),
            Self::Month => date.year() * 12 + i32::from(u8::from(date.month())),
        }
    }
}

/// Keep the newest version of each period, for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Tier {
    /// Of each of these.
    pub every: Period,
    /// For so many days after it was replaced.
    pub days: u32,
}

/// What is kept. A version's age is counted from when the next one replaced it: until then it was
/// the device's configuration, however long ago it was collected.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Retention {
    /// Keep every version for so many days.
    pub all_days: u32,
    /// Then the newest of each period. Any tier that holds a version keeps it.
    pub then: Vec<Tier>,
}

/// A version as far as retention looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Which version.
    pub id: VersionId,
    /// When it was first seen.
    pub collected_at: Timestamp,
}

impl Retention {
    /// The versions that nothing keeps any more, of all the versions of one device, oldest first.
    /// The newest is never among them.
    pub fn expired(&self, versions: &[Moment], now: Timestamp) -> Vec<VersionId> {
        versions
            .windows(2)
            .filter_map(|pair| match pair {
                [version, next] if !self.keeps(*version, *next, now) => Some(version.id),
                _ => None,
            })
            .collect()
    }

    fn keeps(&self, version: Moment, next: Moment, now: Timestamp) -> bool {
        let age = now - next.collected_at;
        let within = |days: u32| age <= time::Duration::days(i64::from(days));
        within(self.all_days)
            || self.then.iter().any(|tier| {
                within(tier.days)
                    && tier.every.number(version.collected_at)
                        != tier.every.number(next.collected_at)
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = datetime!(2026-07-01 12:00 UTC);

    fn versions(hours_ago: impl IntoIterator<Item = i64>) -> Vec<Moment> {
        let mut hours: Vec<i64> = hours_ago.into_iter().collect();
        hours.sort_unstable_by(|a, b| b.cmp(a));
        hours
            .into_iter()
            .enumerate()
            .map(|(n, hours)| Moment {
                id: VersionId(Uuid::from_u128(n as u128)),
                collected_at: NOW - time::Duration::hours(hours),
            })
            .collect()
    }

    fn without(versions: &[Moment], gone: &[VersionId]) -> Vec<Moment> {
        let kept = versions.iter().filter(|it| !gone.contains(&it.id));
        kept.copied().collect()
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let sunday = datetime!(2026-06-28 23:59 UTC);
        let monday = datetime!(2026-06-29 00:00 UTC);
        assert_eq!(Period::Week.number(sunday) + 1, Period::Week.number(monday));
        assert_eq!(Period::Week.number(monday), Period::Week.number(NOW));
        assert_eq!(Period::Month.number(monday) + 1, Period::Month.number(NOW));
        let december = datetime!(2025-12-31 23:00 -2);
        assert_eq!(
            Period::Month.number(december),
            Period::Month.number(datetime!(2026-01-31 0:00 UTC)),
            "periods are those of UTC"
        );
    }

    #[test]
    fn old_days_keep_their_last_version() {
        // Two a day at 00:00 and 06:00 UTC, for ten days.
        let all = versions((0..20).map(|n| n / 2 * 24 + if n % 2 == 0 { 6 } else { 12 }));
        let policy = Retention {
            all_days: 3,
            then: vec![Tier {
                every: Period::Day,
                days: 7,
            }],
        };
        let kept = without(&all, &policy.expired(&all, NOW));
        let hours: Vec<i64> = kept
            .iter()
            .map(|it| (NOW - it.collected_at).whole_hours())
            .collect();
        // Replaced within three days: 78 and younger. The last of its day, and replaced within
        // seven: up to 174, which was replaced 156 hours ago.
        assert_eq!(hours, [174, 150, 126, 102, 78, 60, 54, 36, 30, 12, 6]);
    }

    #[test]
    fn what_was_in_force_for_years_is_not_old() {
        let all = versions([3 * 365 * 24, 2]);
        let policy = Retention {
            all_days: 1,
            then: vec![],
        };
        assert_eq!(policy.expired(&all, NOW), []);
    }

    fn policy() -> impl Strategy<Value = Retention> {
        let every = prop_oneof![Just(Period::Day), Just(Period::Week), Just(Period::Month)];
        let tier = (every, 0..400_u32).prop_map(|(every, days)| Tier { every, days });
        (0..60_u32, prop::collection::vec(tier, 0..3))
            .prop_map(|(all_days, then)| Retention { all_days, then })
    }

    proptest! {
        #[test]
        fn laws(policy in policy(), hours in prop::collection::vec(0..20_000_i64, 0..60)) {
            let all = versions(hours);
            let gone = policy.expired(&all, NOW);
            let kept = without(&all, &gone);
            prop_assert_eq!(kept.last(), all.last(), "the newest, and so the only one, stays");
            for version in &all {
                let young = NOW - version.collected_at <= time::Duration::days(policy.all_days.into());
                prop_assert!(!young || !gone.contains(&version.id), "young versions stay");
            }
            for tier in &policy.then {
                for (version, next) in all.iter().zip(all.iter().skip(1)) {
                    let last = tier.every.number(version.collected_at)
                        != tier.every.number(next.collected_at);
                    let young = NOW - next.collected_at <= time::Duration::days(tier.days.into());
                    let kept_by_it = last && young;
                    prop_assert!(!kept_by_it || !gone.contains(&version.id));
                }
            }
            prop_assert_eq!(policy.expired(&kept, NOW), [], "what is pruned stays pruned");
            let wider = Retention { all_days: policy.all_days + 30, then: policy.then.clone() };
            let fewer = wider.expired(&all, NOW);
            prop_assert!(fewer.iter().all(|id| gone.contains(id)), "keeping longer deletes no more");
        }
    }
}
