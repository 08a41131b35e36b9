//! MikroTik's recipe against brute force as a router runs it.

use super::STAYS;
use crate::domain::Timestamp;
use crate::domain::backoff::later;

/// The three address lists: each is entered by a connection from an address that is on the one
/// before, and left when its time is up. To enter again begins the time anew.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::domain) struct Recipe {
    until: [Option<Timestamp>; 3],
}

impl Recipe {
    /// Takes in a new connection; whether it is the one that is punished. The rules are in the order
    /// of the manual: the last list is looked at first, so that one connection enters one more list.
    pub(in crate::domain) fn connection(&mut self, now: Timestamp) -> bool {
        let [first, second, third] = self.until.map(|until| until.is_some_and(|it| now < it));
        if second {
            self.until[2] = Some(later(now, STAYS[2]));
        }
        if first {
            self.until[1] = Some(later(now, STAYS[1]));
        }
        self.until[0] = Some(later(now, STAYS[0]));
        third
    }

    /// Whether two connections in a row were ever closer than the first list's time.
    pub(in crate::domain) fn saw_a_pair(&self) -> bool {
        self.until[1].is_some()
    }

    /// Whether a third one followed.
    pub(in crate::domain) fn saw_a_third(&self) -> bool {
        self.until[2].is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;

    const START: Timestamp = datetime!(2026-01-02 03:04:05 UTC);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_fourth_of_a_quick_series_is_punished() {
        let mut recipe = Recipe::default();
        let punished: Vec<_> = (0..4)
            .map(|minute| recipe.connection(START + minute * MINUTE))
            .collect();
        assert_eq!(punished, [false, false, false, true]);
        let mut recipe = Recipe::default();
        assert!((0..100).all(|n| !recipe.connection(START + 5 * n * MINUTE)));
    }
}
