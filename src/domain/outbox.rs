//! What the relay of the outbox does next: which letter to offer, and what its answer leads to.
//!
//! A letter is a snapshot that waits to be published. Letters of one device are a lane: only its
//! first one is offered, so their order holds. A letter that is refused, that the outbox cannot hand
//! out, or whose attempt cannot be settled yet, lets its lane rest and no other; a sink that is away
//! pauses all.
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
    /// The outbox has it and could not hand out its text.
    NotHandedOut,
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
    /// What is to be done with it.
    pub stage: Stage,
}

/// How far a letter has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Its text is still in the outbox, and to be fetched.
    Announced,
    /// It is to be published.
    Here,
    /// It is in the stream already, and only its attempt is to be settled.
    Delivered,
}

/// What is left alone, and for how long. It outlives the relay's lease: whoever gives that away and
/// gets it again goes on waiting.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rests {
    pause: Pause,
    /// Letters that the outbox could not hand out.
    stuck: BTreeMap<AttemptId, Stuck>,
}

impl Rests {
    /// Whether the sink is left alone at `now`.
    pub fn pauses(&self, now: Duration) -> bool {
        self.pause.lasts(now)
    }

    /// The sink came back: no need to wait any longer.
    pub fn came_back(&mut self) {
        self.pause.until = Duration::ZERO;
        self.pause.exponent = -HEAD_START;
    }

    /// The outbox could not hand out the text of `attempt`.
    fn not_handed_out(&mut self, attempt: AttemptId, first: Duration, now: Duration, draw: Draw) {
        // Another relay may have published one since.
        let kept = LONGEST_PAUSE.max(first) * 2;
        self.stuck
            .retain(|_, stuck| now <= stuck.until.saturating_add(kept));
        let stuck = self.stuck.entry(attempt).or_default();
        stuck.until = now.saturating_add(pause(first, stuck.exponent, draw));
        stuck.exponent = stuck.exponent.saturating_add(1);
    }
}

/// How long a letter is not asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Stuck {
    until: Duration,
    /// The next time it is the first pause times two to the power of this.
    exponent: i32,
}

/// How long a sink that is away is left alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Pause {
    /// Nothing is offered before.
    until: Duration,
    /// The next pause is the first one times two to the power of this.
    exponent: i32,
}

impl Pause {
    fn lasts(self, now: Duration) -> bool {
        now < self.until
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
    rests: Rests,
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
    stage: Stage,
}

impl Lanes {
    /// Nothing has been taken yet; `rests` from before go on.
    pub fn new(policy: RelayPolicy, rests: Rests) -> Self {
        Self {
            policy,
            lanes: BTreeMap::new(),
            taken: 0,
            rests,
        }
    }

    /// What rests, to go on with later.
    pub fn rests(&self) -> &Rests {
        &self.rests
    }

    /// Takes in a letter; those of one device in their order.
    pub fn take_in(&mut self, attempt: AttemptId, device: DeviceId, refusals: u32) {
        self.add(attempt, device, refusals, Stage::Here);
    }

    /// The same for a letter whose text is still to be fetched.
    pub fn announce(&mut self, attempt: AttemptId, device: DeviceId) {
        self.add(attempt, device, 0, Stage::Announced);
    }

    fn add(&mut self, attempt: AttemptId, device: DeviceId, refusals: u32, stage: Stage) {
        let lane = self.lanes.entry(device).or_default();
        lane.letters.push_back(Waiting {
            attempt,
            turn: self.taken,
            refusals,
            stage,
        });
        self.taken += 1;
    }

    /// The text of the first letter of `device` is here now.
    pub fn arrived(&mut self, device: DeviceId, refusals: u32) {
        let first = self.lanes.get_mut(&device);
        if let Some(letter) = first.and_then(|lane| lane.letters.front_mut()) {
            (letter.stage, letter.refusals) = (Stage::Here, refusals);
            self.rests.stuck.remove(&letter.attempt);
        }
    }

    /// How many letters were announced, could not be handed out, and have not been since.
    pub fn stuck(&self) -> usize {
        let letters = self.lanes.values().flat_map(|lane| &lane.letters);
        let stuck = letters.filter(|letter| self.rests.stuck.contains_key(&letter.attempt));
        stuck.count()
    }

    /// How many letters were taken before the first one of `device`, and are not dealt with yet.
    pub fn before(&self, device: DeviceId) -> usize {
        let first = self
            .lanes
            .get(&device)
            .and_then(|lane| lane.letters.front());
        let Some(first) = first else { return 0 };
        let letters = self.lanes.values().flat_map(|lane| &lane.letters);
        letters.filter(|letter| letter.turn < first.turn).count()
    }

    /// The first letter of each lane, and from when on it may be offered: those that are only
    /// announced where one `may_fetch`.
    fn firsts(&self, may_fetch: bool) -> impl Iterator<Item = (DeviceId, &Waiting, Duration)> {
        self.lanes.iter().filter_map(move |(device, lane)| {
            let letter = lane.letters.front()?;
            let stuck = self.rests.stuck.get(&letter.attempt);
            let rests_until = match letter.stage {
                Stage::Announced if !may_fetch => return None,
                Stage::Announced => stuck.map_or(lane.rests_until, |stuck| stuck.until),
                Stage::Here | Stage::Delivered => lane.rests_until,
            };
            Some((*device, letter, rests_until))
        })
    }

    /// The letter to offer at `now`: of those that may be, the one that was taken first. Announced
    /// ones are offered only if one `may_fetch`.
    pub fn next(&self, now: Duration, may_fetch: bool) -> Option<Offer> {
        if self.rests.pauses(now) {
            return None;
        }
        let ready = self.firsts(may_fetch).filter(|(_, _, at)| *at <= now);
        let (device, letter, _) = ready.min_by_key(|(_, letter, _)| letter.turn)?;
        Some(Offer {
            attempt: letter.attempt,
            device,
            stage: letter.stage,
        })
    }

    /// When [`Self::next`] may come to another answer than at `now` without anything happening;
    /// `None` when there is nothing to wait for.
    pub fn wakes_at(&self, now: Duration, may_fetch: bool) -> Option<Duration> {
        let first = self.firsts(may_fetch).map(|(_, _, at)| at).min();
        // One that is over, with no letter left, is nothing to wake for.
        let pause = self.rests.pause;
        let paused = pause.lasts(now).then_some(pause.until);
        first.map(|at| at.max(pause.until)).or(paused)
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
                letter.stage = Stage::Delivered;
                self.rests.pause.exponent = 0;
                Verdict::Settle
            }
            Answer::Away => {
                self.rests.pause.begin(policy.retry, now, draw);
                Verdict::Keep
            }
            Answer::NotHandedOut => {
                let attempt = letter.attempt;
                self.rests.not_handed_out(attempt, policy.retry, now, draw);
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
            if let Some(letter) = lane.letters.pop_front() {
                self.rests.stuck.remove(&letter.attempt);
            }
            lane.rests_until = Duration::ZERO;
            if lane.letters.is_empty() {
                self.lanes.remove(&device);
            }
        }
    }

    /// The sink came back: no need to wait any longer.
    pub fn came_back(&mut self) {
        self.rests.came_back();
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
