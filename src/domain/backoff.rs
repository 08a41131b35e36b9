//! How long to wait: the retry ladder, the phase of a device, and jitter that only ever adds.

use std::time::Duration;

use super::Timestamp;
use super::device::DeviceId;
use super::digest::Digest;

/// A sample in `[0, 1)` that the caller drew.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Draw(f64);

impl Draw {
    /// The smallest sample: no jitter.
    pub const ZERO: Self = Self(0.0);

    /// Takes a sample; values outside `[0, 1)` are brought back into it.
    pub fn new(sample: f64) -> Self {
        if sample.is_finite() {
            Self(sample.clamp(0.0, 1.0 - f64::EPSILON))
        } else {
            Self(0.0)
        }
    }

    /// The sample.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The waits after the first, the second, and every further failure in a row.
pub const LADDER: [Duration; 3] = [
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(60 * 60),
];

/// How much of a rung the draw may add to it.
pub const RETRY_JITTER: f64 = 0.1;

/// How far the phase of a device may move the length of its interval, either way.
pub const PHASE: f64 = 0.05;

/// The least rest after a failure, where the interval has room for it.
const REST: Duration = Duration::from_secs(60);

/// The wait after so many failures in a row, without jitter.
pub fn rung(failures: u32) -> Duration {
    let steps = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    LADDER[steps.min(LADDER.len() - 1)]
}

/// When to retry after `failures` failures in a row, the last of them made from `started` to
/// `ended`.
///
/// The ladder counts from the end, and never waits longer than the regular `period` from the start
/// would. An attempt that took all of its period would leave no wait at all then: the device
/// rests for a minute all the same, or a twentieth of a period shorter than 20 minutes.
pub fn retry_at(
    failures: u32,
    started: Timestamp,
    ended: Timestamp,
    period: Duration,
    draw: Draw,
) -> Timestamp {
    let wanted = later(ended, stretched(rung(failures), RETRY_JITTER, draw));
    let regular = later(started, period);
    let rested = later(ended, REST.min(period / 20));
    wanted.min(regular.max(rested))
}

/// The first moment after `now` that lies a whole number of periods after `started`, which is not
/// later than `now`.
pub fn next_beat(started: Timestamp, period: Duration, now: Timestamp) -> Timestamp {
    let period = period.as_nanos().max(1);
    let elapsed = (now - started).whole_nanoseconds().unsigned_abs();
    later(now, nanoseconds(period - elapsed % period))
}

/// The length of a device's own interval: `interval` scaled by its phase.
///
/// The phase is a factor within 1 ± [`PHASE`], taken from the SHA-256 of the device's id, so every
/// process and every version comes to the same. It applies to the length of the interval, so that
/// devices that once began together drift apart instead of beating in step for ever.
pub fn period(interval: Duration, device: DeviceId) -> Duration {
    let digest = Digest::of_fields([b"interval phase".as_slice(), device.0.as_bytes()]);
    let [a, b, c, d, ..] = *digest.as_bytes();
    let position = f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX);
    scaled(interval, 1.0 - PHASE + 2.0 * PHASE * position)
}

/// `delay` and up to `share` of it more.
pub fn stretched(delay: Duration, share: f64, draw: Draw) -> Duration {
    scaled(delay, 1.0 + share * draw.get())
}

/// A part of `delay`, from none of it to all.
pub fn part_of(delay: Duration, draw: Draw) -> Duration {
    scaled(delay, draw.get())
}

/// `delay` after `at`, or the last moment that can be represented.
pub fn later(at: Timestamp, delay: Duration) -> Timestamp {
    at.saturating_add(time::Duration::try_from(delay).unwrap_or(time::Duration::MAX))
}

fn scaled(delay: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

fn nanoseconds(nanos: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let subsecond = u32::try_from(nanos % SECOND).unwrap_or(0);
    u64::try_from(nanos / SECOND).map_or(Duration::MAX, |secs| Duration::new(secs, subsecond))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = datetime!(2026-01-02 03:04:05 UTC);
    const SIX_HOURS: Duration = Duration::from_secs(6 * 3600);

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    fn device(n: u128) -> DeviceId {
        DeviceId(Uuid::from_u128(n))
    }

    #[test]
    fn ladder_is_5_then_15_then_60_minutes() {
        let climbed: Vec<_> = [1, 2, 3, 4, 1000, u32::MAX].map(rung).into();
        let expected = [5, 15, 60, 60, 60, 60].map(minutes);
        assert_eq!(climbed, expected);
    }

    #[test]
    fn a_retry_counts_from_the_end_of_the_attempt() {
        let ended = later(NOW, minutes(1));
        let at = retry_at(1, NOW, ended, SIX_HOURS, Draw::new(0.0));
        assert_eq!(at, later(NOW, minutes(6)));
    }

    #[test]
    fn a_retry_never_waits_longer_than_the_interval() {
        let ended = later(NOW, minutes(1));
        let at = retry_at(3, NOW, ended, minutes(20), Draw::new(0.9));
        assert_eq!(at, later(NOW, minutes(20)));
    }

    #[test]
    fn an_attempt_as_long_as_its_interval_is_followed_by_a_rest() {
        let ended = later(NOW, minutes(10));
        let at = retry_at(3, NOW, ended, minutes(10), Draw::new(0.0));
        assert_eq!(at, later(ended, Duration::from_secs(30)));
        let ended = later(NOW, 2 * SIX_HOURS);
        let at = retry_at(3, NOW, ended, SIX_HOURS, Draw::new(0.0));
        assert_eq!(at, later(ended, minutes(1)));
    }

    #[test]
    fn beats_are_whole_periods_from_the_start() {
        let started = NOW;
        for (elapsed, beat) in [(0, 10), (3, 10), (10, 20), (11, 20), (99, 100)] {
            let now = later(started, minutes(elapsed));
            let expected = later(started, minutes(beat));
            assert_eq!(
                next_beat(started, minutes(10), now),
                expected,
                "{elapsed} min"
            );
        }
    }

    #[test]
    fn samples_outside_the_unit_interval_are_brought_back() {
        for (sample, taken) in [
            (f64::NAN, 0.0),
            (f64::INFINITY, 0.0),
            (-1.0, 0.0),
            (0.5, 0.5),
        ] {
            assert_eq!(Draw::new(sample).get(), taken);
        }
        assert!(Draw::new(1.0).get() < 1.0);
    }

    #[test]
    fn phase_of_a_device_is_the_same_in_every_version() {
        // sha256(len‖"interval phase"‖len‖16 zero bytes), computed apart from this program.
        assert_eq!(
            period(Duration::from_secs(1_000_000), device(0)).as_secs(),
            1_039_964
        );
    }

    #[test]
    fn phases_spread_over_the_whole_range() {
        let periods: Vec<_> = (0..1000)
            .map(|n| period(SIX_HOURS, device(n)).as_secs_f64() / SIX_HOURS.as_secs_f64())
            .collect();
        assert!(periods.iter().all(|p| (0.95..=1.05).contains(p)));
        // A thousand even draws leave a tenth of the range empty once in 10⁴⁵ times.
        for tenth in 0..10 {
            let from = 0.95 + f64::from(tenth) / 100.0;
            assert!(
                periods.iter().any(|p| (from..from + 0.01).contains(p)),
                "no phase from {from} on"
            );
        }
    }

    proptest! {
        #[test]
        fn delays_never_overflow(secs: u64, at: i64, failures: u32, sample in 0.0..1.0, id: u128) {
            let delay = Duration::from_secs(secs);
            let draw = Draw::new(sample);
            let at = time::OffsetDateTime::from_unix_timestamp(at)
                .unwrap_or(time::PlainDateTime::MAX.assume_utc());
            let period = period(delay, device(id));
            prop_assert!(later(at, delay) >= at);
            prop_assert!(next_beat(time::PlainDateTime::MIN.assume_utc(), period, at) >= at);
            prop_assert!(retry_at(failures, at, at, period, draw) >= at);
            prop_assert!(part_of(delay, draw) <= stretched(delay, 0.1, draw));
        }

        #[test]
        fn jitter_only_adds(failures in 1..10u32, sample in 0.0..1.0) {
            let at = retry_at(failures, NOW, NOW, SIX_HOURS, Draw::new(sample));
            let waited = Duration::try_from(at - NOW).expect("a retry lies ahead");
            prop_assert!(waited >= rung(failures));
            prop_assert!(waited.as_secs_f64() <= rung(failures).as_secs_f64() * 1.1);
        }
    }
}
