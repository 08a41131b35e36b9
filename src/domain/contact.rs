//! How often a router is connected to, so that its firewall never takes us for an attacker.
//!
//! MikroTik's own recipe against brute force counts new connections from an address, also those
//! that end in a good login, on three address lists: each connection enters the first; one from an
//! address that is on a list enters the next as well; and one from an address that is on the third
//! is punished with a day on a black list. So three in quick succession are let pass, and the fourth
//! within the hour is not.
//! <https://help.mikrotik.com/docs/spaces/ROS/pages/268337176/Bruteforce+prevention>
//!
//! [`Bound`] plays that firewall over the connections that an address and port has had, for whichever
//! rows of the inventory. What the service does by itself never takes the third place in a row, so
//! that one is always left for an operator; an operator gets the third, and nobody the fourth. Only
//! where the router's own configuration showed that its firewall remembers nobody, an operator may
//! connect more often.
//!
//! Whoever sets an interval that alone is too much for the recipe gets it: what is bounded then is
//! everything that comes on top of it.

use std::time::Duration;

use super::Timestamp;
use super::attempt::Cause;
use super::backoff::{PHASE, later};

#[cfg(test)]
mod laws;
#[cfg(test)]
pub(super) mod recipe;

/// How long an address stays on the first, the second and the third list of the recipe.
pub const STAYS: [Duration; 3] = [
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(60 * 60),
];

/// How much longer we count: stored moments are those of the database, and a firewall may let
/// entries expire by the second.
const MARGIN: Duration = Duration::from_secs(5);

/// So many connections within an hour are enough for whoever asks, where nobody counts them: one a
/// minute.
pub const UNCOUNTED: usize = 60;

/// Where the interval alone is too much for the recipe: so many connections to one device within
/// [`INTERVALS`], rather more than twice as many as the regular backups make, and no more than these
/// and one a minute.
pub const OFTEN: usize = 130;

/// How many intervals [`OFTEN`] is for, but an hour at most.
pub const INTERVALS: u32 = 60;

/// More than this is never waited, also where the clock that stored a moment was wrong.
pub const LONGEST_WAIT: Duration = Duration::from_secs(2 * 3600);

/// Whose connection it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// The service's own: the interval, a retry.
    Own,
    /// An operator's: a request, or an edit that answers a failure.
    Asked,
    /// An operator's, at a router whose firewall counts no connections.
    Uncounted,
}

impl Room {
    /// For an attempt of `cause`. `counts` is what the router's last good export showed; `None` while
    /// nothing is known.
    pub fn of(cause: Cause, counts: Option<bool>) -> Self {
        match (cause, counts) {
            (Cause::Scheduled | Cause::Retry, _) => Self::Own,
            (Cause::Edited | Cause::Manual, Some(false)) => Self::Uncounted,
            (Cause::Edited | Cause::Manual, Some(true) | None) => Self::Asked,
        }
    }
}

/// A connection that was made, or may have been.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dial {
    /// When it was permitted; it was not made before.
    pub permitted: Timestamp,
    /// By when it had surely been made, if that is known: the end of its attempt.
    pub ended: Option<Timestamp>,
}

/// Bounds the connections to each router by what the recipe tolerates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    /// How long after it was permitted a connection may still be made.
    slack: Duration,
    rule: Rule,
}

/// What the bound is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    Recipe,
    /// [`OFTEN`] within so long.
    Often(Duration),
}

impl Bound {
    /// A permit is used within this time, or given back.
    pub const PERMIT: Duration = Duration::from_secs(30);

    /// The recipe, where looking up a name, and the TCP connection to each of its two addresses at
    /// most, may take `connect_timeout`.
    pub fn new(connect_timeout: Duration) -> Self {
        Self {
            slack: Self::PERMIT.saturating_add(connect_timeout.saturating_mul(3)),
            rule: Rule::Recipe,
        }
    }

    /// The bound for devices that are backed up every `interval`: the recipe, unless the interval is
    /// shorter than [`Bound::shortest_interval`].
    pub fn for_interval(interval: Duration, connect_timeout: Duration) -> Self {
        let recipe = Self::new(connect_timeout);
        if interval >= recipe.shortest_interval() {
            return recipe;
        }
        let window = interval.saturating_mul(INTERVALS).min(STAYS[2]);
        Self {
            rule: Rule::Often(window),
            ..recipe
        }
    }

    /// Whether the connections of all rows with the same address and port count as one router's: a
    /// short interval is each row's own.
    pub fn spans_rows(self) -> bool {
        self.rule == Rule::Recipe
    }

    /// The shortest interval between backups that the recipe tolerates, whole seconds. With a shorter
    /// one the regular backups alone are too many.
    pub fn shortest_interval(self) -> Duration {
        let between = STAYS[0] + MARGIN + self.slack;
        let interval = between.as_secs_f64() / (1.0 - PHASE);
        Duration::try_from_secs_f64(interval.ceil()).unwrap_or(Duration::MAX)
    }

    /// How long connections matter.
    pub fn horizon(self) -> Duration {
        let listed = |sum: Duration, stay| sum.saturating_add(stay + MARGIN + self.slack);
        match self.rule {
            Rule::Recipe => STAYS.into_iter().fold(Duration::ZERO, listed),
            Rule::Often(window) => listed(Duration::ZERO, window),
        }
    }

    /// When a connection may be made after `dials`, in any order; `None` means now.
    pub fn not_before(self, dials: &[Dial], room: Room, now: Timestamp) -> Option<Timestamp> {
        let mut dials = dials.to_vec();
        // One from the far future was stored while a clock was wrong, and holds nothing up.
        dials.retain(|dial| dial.permitted <= later(now, LONGEST_WAIT));
        dials.sort_by_key(|dial| dial.permitted);
        let after = |most: usize, window| {
            let oldest = dials.iter().rev().nth(most - 1);
            oldest.map(|dial| later(self.made_by(*dial), window))
        };
        let free = match (self.rule, room) {
            (Rule::Often(window), _) => after(OFTEN, window),
            (Rule::Recipe, Room::Own) => {
                let [_, second, third] = self.lists(&dials).left_at;
                second.max(third)
            }
            (Rule::Recipe, Room::Asked) => self.lists(&dials).left_at[2],
            (Rule::Recipe, Room::Uncounted) => after(UNCOUNTED, STAYS[2]),
        };
        free.filter(|at| *at > now)
            .map(|at| at.min(later(now, LONGEST_WAIT)))
    }

    /// The recipe's lists after `dials`, the oldest first.
    fn lists(self, dials: &[Dial]) -> Lists {
        let mut lists = Lists::default();
        for dial in dials {
            lists.take_in(dial.permitted, self.made_by(*dial));
        }
        lists
    }

    /// The latest moment at which `dial` can have been made.
    fn made_by(self, dial: Dial) -> Timestamp {
        let latest = later(dial.permitted, self.slack);
        let ended = dial.ended.unwrap_or(latest);
        latest.min(ended).max(dial.permitted)
    }
}

/// The recipe's three lists, each with the moment at which our address has surely left it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Lists {
    left_at: [Option<Timestamp>; 3],
    /// By when all connections so far had surely been made.
    reached: Option<Timestamp>,
}

impl Lists {
    /// A connection that was made at some moment from `earliest` to `latest`; those before it were
    /// permitted no later. But they may have been made later, where several rows are one router: it
    /// is the last of a pair that enters the second list, whichever that was.
    fn take_in(&mut self, earliest: Timestamp, latest: Timestamp) {
        let latest = self.reached.map_or(latest, |reached| reached.max(latest));
        self.reached = Some(latest);
        let [first, second, _] = self.left_at.map(|at| at.is_some_and(|at| at > earliest));
        for (list, entered) in [true, first, second].into_iter().enumerate() {
            if entered {
                let leaves = later(latest, STAYS[list] + MARGIN);
                self.left_at[list] = self.left_at[list].max(Some(leaves));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: Timestamp = datetime!(2026-01-02 03:04:05 UTC);

    fn bound() -> Bound {
        Bound::new(Duration::from_secs(10))
    }

    /// Connections so many minutes ago, each of which took no time.
    fn ago<const N: usize>(minutes: [i64; N]) -> Vec<Dial> {
        let dial = |minutes| {
            let at = NOW - time::Duration::minutes(minutes);
            Dial {
                permitted: at,
                ended: Some(at),
            }
        };
        minutes.map(dial).to_vec()
    }

    /// How many seconds the service, and an operator, have to wait.
    fn waits(dials: &[Dial]) -> (i64, i64) {
        let wait = |room| {
            let until = bound().not_before(dials, room, NOW);
            until.map_or(0, |until| (until - NOW).whole_seconds())
        };
        (wait(Room::Own), wait(Room::Asked))
    }

    #[test]
    fn three_in_a_row_are_let_pass_and_the_third_is_an_operators() {
        let minutes = |n: i64| n * 60 + 5;
        for (dials, expected) in [
            (vec![], (0, 0)),
            (ago([1]), (0, 0)),
            (ago([1, 2]), (minutes(14), 0)),
            (ago([1, 2, 3]), (minutes(59), minutes(59))),
            (ago([3, 1, 2]), (minutes(59), minutes(59))),
            // Five minutes apart is not in a row, fifteen not after a pair, an hour not after three.
            (ago([7, 13, 19, 25, 31]), (0, 0)),
            (ago([16, 17]), (0, 0)),
            (ago([1, 16, 17]), (minutes(59), minutes(59))),
            (ago([1, 18, 19]), (0, 0)),
            (ago([62, 63, 64]), (0, 0)),
        ] {
            assert_eq!(waits(&dials), expected, "{dials:?}");
        }
    }

    #[test]
    fn where_nobody_counts_an_operator_may_connect_sixty_times_an_hour() {
        let until = |dials: &[Dial]| bound().not_before(dials, Room::Uncounted, NOW);
        let many = ago([1; UNCOUNTED - 1]);
        assert_eq!(until(&many), None);
        let too_many = [many.as_slice(), &ago([20])].concat();
        assert_eq!(until(&too_many), Some(NOW + time::Duration::minutes(40)));
        let long_ago = [many.as_slice(), &ago([60, 61, 62])].concat();
        assert_eq!(until(&long_ago), None);
        // Until that is known, and for what the service does by itself, it is as if somebody did.
        assert_eq!(Room::of(Cause::Edited, Some(false)), Room::Uncounted);
        assert_eq!(Room::of(Cause::Manual, None), Room::Asked);
        assert_eq!(Room::of(Cause::Manual, Some(true)), Room::Asked);
        assert_eq!(Room::of(Cause::Retry, Some(false)), Room::Own);
    }

    #[test]
    fn what_may_have_been_dialled_late_counts_as_dialled_late() {
        let mut dials = ago([1, 2]);
        dials[0].ended = None;
        assert_eq!(
            waits(&dials).0,
            15 * 60 + 5,
            "60 s may have passed until then"
        );
        dials[0].ended = Some(NOW - time::Duration::seconds(20));
        assert_eq!(waits(&dials).0, 14 * 60 + 40 + 5);
    }

    #[test]
    fn the_last_of_a_pair_counts_whichever_was_permitted_first() {
        // One that dials at once overtakes one of another row that takes its time.
        let mut dials = ago([2, 2]);
        dials[0].ended = Some(NOW - time::Duration::seconds(70));
        assert_eq!(waits(&dials).0, 15 * 60 + 5 - 70);
        dials.reverse();
        assert_eq!(waits(&dials).0, 15 * 60 + 5 - 70);
    }

    #[test]
    fn a_clock_that_was_wrong_holds_nothing_up_for_long() {
        let future = |hours| {
            let dial = |minutes| Dial {
                permitted: NOW + time::Duration::hours(hours) + time::Duration::minutes(minutes),
                ended: None,
            };
            (0..3).map(dial).collect::<Vec<_>>()
        };
        assert_eq!(waits(&future(24 * 365)), (0, 0));
        assert_eq!(waits(&future(1)), (2 * 3600, 2 * 3600));
    }

    #[test]
    fn regular_backups_of_the_shortest_interval_are_never_in_a_row() {
        let interval = bound().shortest_interval();
        assert_eq!(interval, Duration::from_secs(385));
        let period = interval.mul_f64(1.0 - PHASE);
        let dials: Vec<_> = (1..20)
            .map(|n| Dial {
                permitted: NOW - n * period,
                ended: None,
            })
            .collect();
        assert_eq!(waits(&dials), (0, 0));
        let connect_timeout = Duration::from_secs(10);
        assert_eq!(Bound::for_interval(interval, connect_timeout), bound());
    }

    #[test]
    fn with_a_shorter_interval_what_comes_on_top_is_bounded() {
        let minute = Duration::from_secs(60);
        let often = Bound::for_interval(minute, Duration::from_secs(10));
        assert!(!often.spans_rows());
        for room in [Room::Own, Room::Asked, Room::Uncounted] {
            let regular: Vec<_> = ago([1, 2, 3, 4, 5, 6, 7, 8, 9]);
            assert_eq!(often.not_before(&regular, room, NOW), None);
            let flood = ago([20; OFTEN - 1]);
            assert_eq!(often.not_before(&flood, room, NOW), None);
            let one_more = [flood.as_slice(), &ago([15])].concat();
            let until = Some(NOW + time::Duration::minutes(40));
            assert_eq!(often.not_before(&one_more, room, NOW), until);
        }
    }
}
