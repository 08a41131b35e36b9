//! Whether messages are taken at all: while the archive cannot store, asking for more would only
//! turn them over.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::backoff::{Draw, stretched};

/// Between two tries while the archive is away.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// The longest a single message waits for its next try.
const LONGEST_MESSAGE: Duration = Duration::from_secs(300);
/// What the draw may add.
const JITTER: f64 = 0.25;
/// A trouble that lasts is said again after so long.
const SAY_AGAIN: Duration = Duration::from_secs(600);

/// After how long a message that was delivered so often is delivered again.
pub fn pause(deliveries: u64, draw: Draw) -> Duration {
    stretched(doubled(deliveries, LONGEST_MESSAGE), JITTER, draw)
}

fn doubled(times: u64, longest: Duration) -> Duration {
    let exponent = u32::try_from(times.saturating_sub(1)).unwrap_or(u32::MAX);
    2_u32
        .checked_pow(exponent)
        .map_or(longest, |factor| FIRST.saturating_mul(factor))
        .min(longest)
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Take as many messages as there is room for.
    Take,
    /// Wait until then, and ask whether the archive is back.
    Wait(Instant),
}

/// The trouble there is, if any.
#[derive(Debug, Default)]
pub struct Gate(Mutex<Option<Trouble>>);

#[derive(Debug)]
struct Trouble {
    reason: String,
    /// Tries in a row that failed.
    failures: u64,
    until: Instant,
    said: Instant,
}

impl Gate {
    fn trouble(&self) -> MutexGuard<'_, Option<Trouble>> {
        // Only whole values are put in: it cannot be left half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the loop does next.
    pub fn next(&self) -> Next {
        let trouble = self.trouble();
        trouble
            .as_ref()
            .map_or(Next::Take, |trouble| Next::Wait(trouble.until))
    }

    /// Why nothing is taken.
    pub fn reason(&self) -> Option<String> {
        let trouble = self.trouble();
        trouble.as_ref().map(|trouble| trouble.reason.clone())
    }

    /// The archive could not store. Many messages that fail together count once.
    pub fn close(&self, reason: String, now: Instant, draw: Draw) {
        let mut trouble = self.trouble();
        let (failures, said) = match trouble.as_ref() {
            Some(same) if now < same.until => return,
            Some(earlier) => (earlier.failures + 1, Some(earlier.said)),
            None => (1, None),
        };
        let said = match said {
            Some(said) if now.duration_since(said) < SAY_AGAIN => said,
            _ => {
                tracing::warn!(
                    error = reason,
                    "Snapshots cannot be stored; they wait in the stream until they can"
                );
                now
            }
        };
        *trouble = Some(Trouble {
            reason,
            failures,
            until: now + stretched(doubled(failures, LONGEST), JITTER, draw),
            said,
        });
    }

    /// A message was stored, or there is none that could not be.
    pub fn open(&self) {
        if self.trouble().take().is_some() {
            tracing::info!("Snapshots are stored again");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trouble_closes_it_for_longer_and_longer() {
        let gate = Gate::default();
        assert_eq!(gate.next(), Next::Take);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let now = Instant::now();
            gate.close("away".to_owned(), now, Draw::ZERO);
            // What fails together counts once.
            gate.close("full".to_owned(), now, Draw::ZERO);
            let Next::Wait(until) = gate.next() else {
                panic!("closed")
            };
            waits.push((until - now).as_secs());
            tokio::time::sleep_until(until).await;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(gate.reason().as_deref(), Some("away"));
        gate.open();
        assert_eq!((gate.next(), gate.reason()), (Next::Take, None));
    }

    proptest! {
        #[test]
        fn a_message_never_waits_for_nothing_nor_for_ever(deliveries: u64, sample in 0.0..1.0) {
            let pause = pause(deliveries, Draw::new(sample));
            prop_assert!(pause >= FIRST && pause <= LONGEST_MESSAGE.mul_f64(1.0 + JITTER));
        }
    }
}
