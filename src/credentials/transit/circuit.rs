//! While OpenBao is away, one request at a time finds out whether it is back; all others are told
//! at once. The decision alone: times come in as values.

use std::time::Duration;

use tokio::time::Instant;

/// How long after a failure the next request goes out, and how far this doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How much a sample adds to a pause, so that replicas do not ask in step.
const JITTER: f64 = 0.2;

/// How long the one that finds out has, before another one tries: it may have been dropped.
const PROBE: Duration = Duration::from_secs(15);

/// Whether requests go out.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Circuit {
    open: Option<Open>,
}

/// Requests do not go out.
#[derive(Clone, PartialEq, Debug)]
struct Open {
    /// What was known of failures begins here.
    since: Instant,
    /// When the next one goes out.
    until: Instant,
    pause: Duration,
    reason: String,
}

/// What a result changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// It works again.
    Back,
    /// It works no more.
    Gone,
    /// Nothing new.
    Same,
}

impl Circuit {
    /// Lets a request out.
    ///
    /// # Errors
    /// Why not, when it is known to be in vain.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), String> {
        match &mut self.open {
            Some(open) if now < open.until => Err(open.reason.clone()),
            Some(open) => {
                open.until = now + PROBE;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Why requests do not go out now.
    pub(super) fn reason(&self, now: Instant) -> Option<&str> {
        let open = self.open.as_ref()?;
        (now < open.until).then_some(open.reason.as_str())
    }

    /// A request that went out at `began` was answered.
    pub(super) fn worked(&mut self, began: Instant) -> Turn {
        match &self.open {
            Some(open) if began >= open.since => {
                self.open = None;
                Turn::Back
            }
            // An answer from before the failure.
            _ => Turn::Same,
        }
    }

    /// A request that went out at `began` found the server away; `sample` is from 0 to 1.
    pub(super) fn failed(
        &mut self,
        began: Instant,
        now: Instant,
        reason: String,
        sample: f64,
    ) -> Turn {
        let pause = match &self.open {
            // One of many that were out together: the first has said it.
            Some(open) if began < open.since => return Turn::Same,
            Some(open) => (open.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        let turn = match self.open {
            Some(_) => Turn::Same,
            None => Turn::Gone,
        };
        self.open = Some(Open {
            since: now,
            until: now + pause.mul_f64(1.0 + JITTER * sample.clamp(0.0, 1.0)),
            pause,
            reason,
        });
        turn
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fail(circuit: &mut Circuit, at: Instant) -> Turn {
        circuit.failed(at, at, "sealed".to_owned(), 0.0)
    }

    #[test]
    fn after_a_failure_one_in_a_while_goes_out_until_one_works() {
        let mut circuit = Circuit::default();
        let mut now = Instant::now();
        assert_eq!(circuit.admit(now), Ok(()));
        assert_eq!(fail(&mut circuit, now), Turn::Gone);
        let mut pause = FIRST_PAUSE;
        for _ in 0..10 {
            assert_eq!(circuit.admit(now), Err("sealed".to_owned()));
            assert_eq!(circuit.reason(now), Some("sealed"));
            now += pause;
            assert_eq!(circuit.reason(now), None);
            assert_eq!(circuit.admit(now), Ok(()), "one");
            assert!(circuit.admit(now).is_err(), "and no other");
            assert_eq!(fail(&mut circuit, now), Turn::Same);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        now += LONGEST_PAUSE;
        assert_eq!(circuit.admit(now), Ok(()));
        assert_eq!(circuit.worked(now), Turn::Back);
        assert_eq!(circuit.admit(now), Ok(()));
        assert_eq!(circuit.worked(now), Turn::Same);
    }

    #[test]
    fn requests_that_were_out_together_count_once() {
        let mut circuit = Circuit::default();
        let began = Instant::now();
        let now = began + Duration::from_secs(5);
        assert_eq!(circuit.failed(began, now, "late".into(), 0.0), Turn::Gone);
        for _ in 0..20 {
            assert_eq!(circuit.failed(began, now, "late".into(), 0.0), Turn::Same);
        }
        assert_eq!(circuit.worked(began), Turn::Same, "an answer from before");
        assert_eq!(
            circuit.admit(now + FIRST_PAUSE),
            Ok(()),
            "not twenty times doubled"
        );
    }

    #[test]
    fn a_probe_that_was_dropped_is_followed_by_another() {
        let mut circuit = Circuit::default();
        let now = Instant::now();
        fail(&mut circuit, now);
        assert_eq!(circuit.admit(now + FIRST_PAUSE), Ok(()));
        assert_eq!(circuit.admit(now + FIRST_PAUSE + PROBE), Ok(()));
    }

    proptest! {
        /// Whatever happens, a request goes out again after the longest pause.
        #[test]
        fn nobody_waits_for_ever(ops in proptest::collection::vec((0..3u8, 0..100u64, 0.0..1.0f64), 0..60)) {
            let mut circuit = Circuit::default();
            let start = Instant::now();
            let mut now = start;
            for (op, seconds, sample) in ops {
                let began = now;
                now += Duration::from_secs(seconds);
                match op {
                    0 => { let _ = circuit.admit(now); }
                    1 => { circuit.worked(began); }
                    _ => { circuit.failed(began, now, "away".into(), sample); }
                }
                let longest = LONGEST_PAUSE.mul_f64(1.0 + JITTER).max(PROBE);
                prop_assert!(circuit.clone().admit(now + longest).is_ok());
            }
        }
    }
}
