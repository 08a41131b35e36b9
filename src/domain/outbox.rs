//! What the relay of the outbox does next: which letter to offer, and what its answer leads to.
//!
//! A letter is a snapshot that waits to be published. Letters of one device are a lane: only its
//! first one is offered, so their order holds. A letter that is refused, or whose attempt cannot be
//! settled yet, lets its lane rest and no other; a sink that is away pauses all.
//!
//! Moments are durations since any fixed one, by a monotonic clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::attempt::AttemptId;
use super::backoff::{Draw, stretched};
use super::device::DeviceId;

/// When a letter is offered again, and when no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelayPolicy {
    /// The first pause while the sink is away, and after a refusal.
    pub retry: Duration,
    /// So many refusals for its own sake end a letter.
    pub max_refusals: u32,
}

/// The longest pause, unless [`RelayPolicy::retry`] is longer.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How much the draw may add to a pause.
pub const PAUSE_JITTER: f64 = 0.2;

/// After the sink came back the first pause is this power of two shorter: a server that has just
/// been started answers a moment before its streams do.
const HEAD_START: i32 = 5;

/// What was said to a letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is in the stream.
    Delivered,
    /// The sink is away or full: nothing is said of this letter.
    Away,
    /// There is no room for what this letter needs; there may be for others.
    NoRoom,
    /// It was refused for its own sake.
    Refused,
    /// What was said before could not be recorded in the database.
    Unsettled,
}

/// What to do about a letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Settle its attempt as a success, then remove it.
    Settle,
    /// Keep it, and count the refusal where it is stored.
    Count,
    /// Keep it as it is.
    Keep,
    /// Settle its attempt as a failure, then put it among the dead letters.
    Bury,
}

/// The letter whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The letter.
    pub attempt: AttemptId,
    /// Its device.
    pub device: DeviceId,
    /// It is in the stream already, and only its attempt is to be settled.
    pub delivered: bool,
}

/// How long a sink that is away is left alone. It outlives the relay's lease: whoever gives that
/// away and gets it again goes on waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pause {
    /// Nothing is offered before.
    until: Duration,
    /// The next pause is the first one times two to the power of this.
    exponent: i32,
}

impl Pause {
    /// Whether the sink is left alone at `now`.
    pub fn lasts(&self, now: Duration) -> bool {
        now < self.until
    }

    /// The sink came back: no need to wait any longer.
    pub fn came_back(&mut self) {
        self.until = Duration::ZERO;
        self.exponent = -HEAD_START;
    }

    fn begin(&mut self, first: Duration, now: Duration, draw: Draw) {
        self.until = now.saturating_add(pause(first, self.exponent, draw));
        self.exponent = self.exponent.saturating_add(1);
    }
}

/// The letters that the relay has taken and not dealt with yet.
#[derive(Clone, Debug)]
pub struct Lanes {
    policy: RelayPolicy,
    lanes: BTreeMap<DeviceId, Lane>,
    taken: u64,
    pause: Pause,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    letters: VecDeque<Waiting>,
    /// Its first letter is not offered before.
    rests_until: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    attempt: AttemptId,
    /// The how manieth letter it is that was taken.
    turn: u64,
    refusals: u32,
    delivered: bool,
}

impl Lanes {
    /// Nothing has been taken yet; a `pause` from before goes on.
    pub fn new(policy: RelayPolicy, pause: Pause) -> Self {
        Self {
            policy,
            lanes: BTreeMap::new(),
            taken: 0,
            pause,
        }
    }

    /// The pause, to go on with later.
    pub fn pause(&self) -> Pause {
        self.pause
    }

    /// Takes in a letter; those of one device in their order.
    pub fn take_in(&mut self, attempt: AttemptId, device: DeviceId, refusals: u32) {
        let lane = self.lanes.entry(device).or_default();
        lane.letters.push_back(Waiting {
            attempt,
            turn: self.taken,
            refusals,
            delivered: false,
        });
        self.taken += 1;
    }

    /// The letter to offer at `now`: of those that may be, the one that was taken first.
    pub fn next(&self, now: Duration) -> Option<Offer> {
        if self.pause.lasts(now) {
            return None;
        }
        let firsts = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.rests_until <= now);
        let firsts = firsts.filter_map(|(device, lane)| Some((device, lane.letters.front()?)));
        let (device, letter) = firsts.min_by_key(|(_, letter)| letter.turn)?;
        Some(Offer {
            attempt: letter.attempt,
            device: *device,
            delivered: letter.delivered,
        })
    }

    /// When [`Self::next`] may come to another answer than at `now` without anything happening;
    /// `None` when there is nothing to wait for.
    pub fn wakes_at(&self, now: Duration) -> Option<Duration> {
        let rests = self.lanes.values().map(|lane| lane.rests_until).min();
        // One that is over, with no letter left, is nothing to wake for.
        let paused = self.pause.lasts(now).then_some(self.pause.until);
        rests.map(|at| at.max(self.pause.until)).or(paused)
    }

    /// Takes in what was said to the first letter of `device`, and tells what to do. What is then
    /// settled or buried is reported by [`Self::done`]; until then it stays the first one.
    pub fn answered(
        &mut self,
        device: DeviceId,
        answer: Answer,
        now: Duration,
        draw: Draw,
    ) -> Verdict {
        let policy = self.policy;
        let Some(lane) = self.lanes.get_mut(&device) else {
            return Verdict::Keep;
        };
        let Some(letter) = lane.letters.front_mut() else {
            return Verdict::Keep;
        };
        match answer {
            Answer::Delivered => {
                letter.delivered = true;
                self.pause.exponent = 0;
                Verdict::Settle
            }
            Answer::Away => {
                self.pause.begin(policy.retry, now, draw);
                Verdict::Keep
            }
            Answer::Refused => {
                letter.refusals = letter.refusals.saturating_add(1);
                if letter.refusals >= policy.max_refusals {
                    return Verdict::Bury;
                }
                let exponent = i32::try_from(letter.refusals - 1).unwrap_or(i32::MAX);
                lane.rests_until = now.saturating_add(pause(policy.retry, exponent, draw));
                Verdict::Count
            }
            Answer::Unsettled | Answer::NoRoom => {
                lane.rests_until = now.saturating_add(pause(policy.retry, 0, draw));
                Verdict::Keep
            }
        }
    }

    /// The first letter of `device` was removed or buried.
    pub fn done(&mut self, device: DeviceId) {
        if let Some(lane) = self.lanes.get_mut(&device) {
            lane.letters.pop_front();
            lane.rests_until = Duration::ZERO;
            if lane.letters.is_empty() {
                self.lanes.remove(&device);
            }
        }
    }

    /// The sink came back: no need to wait any longer.
    pub fn came_back(&mut self) {
        self.pause.came_back();
    }
}

/// Whether a letter must be looked for in the stream before it is published: it may have been
/// stored without our seeing the acknowledgement, and the stream recognises an id only for its
/// duplicate `window`. A tenth of the window early, for clocks that differ.
pub fn must_look(age: Duration, window: Duration) -> bool {
    age >= window - window / 10
}

/// `first` times two to the power of `exponent`, at most [`LONGEST_PAUSE`] or `first`, and a little
/// more by chance.
fn pause(first: Duration, exponent: i32, draw: Draw) -> Duration {
    let factor = 2_f64.powi(exponent.clamp(-HEAD_START, 32));
    let length = Duration::try_from_secs_f64(first.as_secs_f64() * factor);
    let length = length
        .unwrap_or(Duration::MAX)
        .min(LONGEST_PAUSE.max(first));
    stretched(length, PAUSE_JITTER, draw)
}

#[cfg(test)]
mod laws;
