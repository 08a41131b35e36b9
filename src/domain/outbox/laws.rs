//! The laws of the relay, over any course of events.

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const RETRY: Duration = Duration::from_secs(30);
const POLICY: RelayPolicy = RelayPolicy {
    retry: RETRY,
    max_refusals: 3,
};

fn device(n: u8) -> DeviceId {
    DeviceId(Uuid::from_u128(u128::from(n)))
}

fn attempt(n: usize) -> AttemptId {
    AttemptId(Uuid::from_u128(n as u128))
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Arrives(u8),
    Announced(u8),
    Answer(Answer),
    Passes(u16),
    Back,
}

fn happening() -> impl Strategy<Value = Happening> {
    let answer = prop::sample::select(vec![
        Answer::Delivered,
        Answer::Away,
        Answer::NoRoom,
        Answer::Refused,
        Answer::Unsettled,
    ]);
    prop_oneof![
        3 => (0..4_u8).prop_map(Happening::Arrives),
        1 => (0..4_u8).prop_map(Happening::Announced),
        5 => answer.prop_map(Happening::Answer),
        2 => (0..200_u16).prop_map(Happening::Passes),
        1 => Just(Happening::Back),
    ]
}

/// What became of the letters, beside the lanes.
#[derive(Default)]
struct World {
    arrived: BTreeMap<DeviceId, Vec<AttemptId>>,
    ended: BTreeMap<DeviceId, Vec<AttemptId>>,
}

impl World {
    fn open(&self) -> usize {
        let count = |lists: &BTreeMap<_, Vec<_>>| lists.values().map(Vec::len).sum::<usize>();
        count(&self.arrived) - count(&self.ended)
    }

    /// How many of those that have not ended came before `attempt`; they are numbered as they come.
    fn before(&self, attempt: AttemptId) -> usize {
        let count = |lists: &BTreeMap<_, Vec<AttemptId>>| {
            let all = lists.values().flatten();
            all.filter(|other| **other < attempt).count()
        };
        count(&self.arrived) - count(&self.ended)
    }
}

proptest! {
    #[test]
    fn letters_of_a_device_end_in_their_order_and_none_is_forgotten(
        course in prop::collection::vec(happening(), 0..120),
        sample in 0.0..1.0_f64,
    ) {
        let mut lanes = Lanes::new(POLICY, Rests::default());
        let mut world = World::default();
        let mut now = Duration::ZERO;
        for (number, happening) in course.into_iter().enumerate() {
            match happening {
                Happening::Arrives(n) => {
                    lanes.take_in(attempt(number), device(n), 0);
                    world.arrived.entry(device(n)).or_default().push(attempt(number));
                }
                Happening::Announced(n) => {
                    lanes.announce(attempt(number), device(n));
                    world.arrived.entry(device(n)).or_default().push(attempt(number));
                }
                Happening::Passes(seconds) => now += Duration::from_secs(seconds.into()),
                Happening::Back => lanes.came_back(),
                Happening::Answer(answer) => {
                    let Some(offer) = lanes.next(now, true) else { continue };
                    // Only the first that has not ended yet is ever offered.
                    let ended = world.ended.entry(offer.device).or_default();
                    prop_assert_eq!(world.arrived[&offer.device][ended.len()], offer.attempt);
                    let before = world.before(offer.attempt);
                    prop_assert_eq!(lanes.before(offer.device), before);
                    let ended = world.ended.entry(offer.device).or_default();
                    let answer = match (offer.stage, answer) {
                        (Stage::Announced, Answer::Delivered) => {
                            lanes.arrived(offer.device, 0);
                            continue;
                        }
                        (Stage::Announced, _) => Answer::NotHandedOut,
                        (_, answer) => answer,
                    };
                    let verdict = lanes.answered(offer.device, answer, now, Draw::new(sample));
                    if matches!(verdict, Verdict::Settle | Verdict::Bury) {
                        ended.push(offer.attempt);
                        lanes.done(offer.device);
                    }
                }
            }
        }
        // However it went, from here on everything is delivered once the pauses are over.
        for _ in 0..world.open() {
            let wakes = lanes.wakes_at(now, true).expect("letters wait");
            now = now.max(wakes);
            let mut offer = lanes.next(now, true).expect("one may be offered");
            if offer.stage == Stage::Announced {
                lanes.arrived(offer.device, 0);
                offer = lanes.next(now, true).expect("it is here");
            }
            world.ended.entry(offer.device).or_default().push(offer.attempt);
            let verdict = lanes.answered(offer.device, Answer::Delivered, now, Draw::ZERO);
            prop_assert_eq!(verdict, Verdict::Settle);
            lanes.done(offer.device);
        }
        prop_assert_eq!(lanes.next(Duration::MAX, true), None);
        world.ended.retain(|_, ended| !ended.is_empty());
        prop_assert_eq!(world.arrived, world.ended);
        prop_assert_eq!(lanes.stuck(), 0);
    }

    #[test]
    fn what_cannot_be_handed_out_holds_nobody_else_up_and_is_asked_for_ever_more_seldom(
        others in prop::collection::vec(1..5_u8, 1..20),
        sample in 0.0..1.0_f64,
    ) {
        let mut lanes = Lanes::new(POLICY, Rests::default());
        lanes.announce(attempt(1000), device(0));
        lanes.take_in(attempt(1001), device(0), 0);
        let mut now = Duration::from_secs(5);
        let mut pauses = Vec::new();
        for round in 0..12 {
            let offer = lanes.next(now, true).expect("it is asked for");
            prop_assert_eq!((offer.attempt, offer.stage), (attempt(1000), Stage::Announced));
            lanes.answered(device(0), Answer::NotHandedOut, now, Draw::new(sample));
            prop_assert_eq!(lanes.stuck(), 1);
            for (number, other) in others.iter().enumerate() {
                lanes.take_in(attempt(number), device(*other), 0);
            }
            for number in 0..others.len() {
                let offer = lanes.next(now, true).expect("another one");
                prop_assert_eq!(offer.attempt, attempt(number), "in their order");
                lanes.answered(offer.device, Answer::Delivered, now, Draw::ZERO);
                lanes.done(offer.device);
            }
            prop_assert_eq!(lanes.next(now, true), None, "what is behind it waits");
            let wakes = lanes.wakes_at(now, true).expect("it is asked for again");
            pauses.push(wakes - now);
            if round % 2 == 0 {
                // Its relay gives the lease away and gets it again.
                lanes = Lanes::new(POLICY, lanes.rests().clone());
                lanes.announce(attempt(1000), device(0));
                lanes.take_in(attempt(1001), device(0), 0);
                prop_assert_eq!((lanes.stuck(), lanes.next(now, true)), (1, None));
            }
            now = wakes;
            prop_assert_eq!(lanes.next(now, false), None, "one is on its way already");
            prop_assert_eq!(lanes.wakes_at(now, false), None, "whose arrival wakes");
        }
        prop_assert!(pauses[0] >= RETRY && pauses[0] <= RETRY.mul_f64(1.0 + PAUSE_JITTER));
        prop_assert!(pauses.is_sorted());
        prop_assert!(pauses[11] <= LONGEST_PAUSE.mul_f64(1.0 + PAUSE_JITTER));
        lanes.arrived(device(0), 2);
        prop_assert_eq!(lanes.stuck(), 0);
        let verdict = lanes.answered(device(0), Answer::Refused, now, Draw::ZERO);
        prop_assert_eq!(verdict, Verdict::Bury, "its refusals are known now");
        lanes.done(device(0));
        let next = lanes.next(now, false).map(|offer| offer.attempt);
        prop_assert_eq!(next, Some(attempt(1001)));
    }

    #[test]
    fn a_refused_letter_holds_nobody_else_up(others in prop::collection::vec(1..5_u8, 1..30)) {
        let mut lanes = Lanes::new(POLICY, Rests::default());
        lanes.take_in(attempt(1000), device(0), 0);
        lanes.take_in(attempt(1001), device(0), 0);
        for (number, other) in others.iter().enumerate() {
            lanes.take_in(attempt(number), device(*other), 0);
        }
        let now = Duration::from_secs(5);
        let mut delivered = Vec::new();
        while let Some(offer) = lanes.next(now, true) {
            if offer.device == device(0) {
                let verdict = lanes.answered(offer.device, Answer::Refused, now, Draw::ZERO);
                prop_assert_eq!(verdict, Verdict::Count);
            } else {
                delivered.push(offer.attempt);
                lanes.answered(offer.device, Answer::Delivered, now, Draw::ZERO);
                lanes.done(offer.device);
            }
        }
        let expected: Vec<_> = (0..others.len()).map(attempt).collect();
        prop_assert_eq!(delivered, expected, "all others, in their order, at the same moment");
    }

    #[test]
    fn an_outage_is_asked_about_ever_more_seldom(sample in 0.0..1.0_f64) {
        let mut lanes = Lanes::new(POLICY, Rests::default());
        lanes.take_in(attempt(1), device(1), 0);
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            lanes.answered(device(1), Answer::Away, now, Draw::new(sample));
            prop_assert_eq!(lanes.next(now, true), None, "no hot loop");
            let wakes = lanes.wakes_at(now, true).expect("it is offered again");
            pauses.push(wakes - now);
            // Its relay gives the lease away and gets it again.
            let mut again = Lanes::new(POLICY, lanes.rests().clone());
            again.take_in(attempt(1), device(1), 0);
            prop_assert_eq!(again.next(now, true), None, "it goes on waiting");
            now = wakes;
            prop_assert!(lanes.next(now, true).is_some());
        }
        prop_assert!(pauses[0] >= RETRY && pauses[0] <= RETRY.mul_f64(1.0 + PAUSE_JITTER));
        prop_assert!(pauses.is_sorted());
        let longest = LONGEST_PAUSE.mul_f64(1.0 + PAUSE_JITTER);
        prop_assert!(pauses.iter().all(|pause| *pause <= longest));
        lanes.answered(device(1), Answer::Away, now, Draw::new(sample));
        lanes.came_back();
        prop_assert!(lanes.next(now, true).is_some(), "at once when it is back");
        lanes.answered(device(1), Answer::Away, now, Draw::new(sample));
        let pause = lanes.wakes_at(now, true).expect("it is offered again") - now;
        prop_assert!(pause >= RETRY / 32 && pause < RETRY / 16, "{pause:?}: soon again, yet no loop");
    }
}

#[test]
fn a_pause_that_is_over_is_no_reason_to_wake_once_nothing_is_left() {
    let mut lanes = Lanes::new(POLICY, Rests::default());
    lanes.take_in(attempt(1), device(1), 0);
    lanes.answered(device(1), Answer::Away, Duration::ZERO, Draw::ZERO);
    let mut empty = Lanes::new(POLICY, lanes.rests().clone());
    let now = lanes
        .wakes_at(Duration::ZERO, true)
        .expect("it is offered again");
    assert_eq!(
        empty.wakes_at(Duration::ZERO, true),
        Some(now),
        "others may wait"
    );
    assert_eq!(empty.wakes_at(now, true), None, "another relay was faster");
    let verdict = lanes.answered(device(1), Answer::Delivered, now, Draw::ZERO);
    assert_eq!(verdict, Verdict::Settle);
    lanes.done(device(1));
    assert_eq!(lanes.wakes_at(now, true), None, "it is delivered");
    empty.take_in(attempt(2), device(1), 0);
    assert_eq!(empty.wakes_at(now, true), Some(now), "it is its turn");
}

#[test]
fn so_many_refusals_end_a_letter_and_the_next_of_its_device_follows() {
    let mut lanes = Lanes::new(POLICY, Rests::default());
    // Refused once already, before the relay that counted it died.
    lanes.take_in(attempt(1), device(1), 1);
    lanes.take_in(attempt(2), device(1), 0);
    let refused = |lanes: &mut Lanes, now| {
        let offer = lanes.next(now, true).expect("it may be offered");
        assert_eq!(offer.attempt, attempt(1));
        lanes.answered(offer.device, Answer::Refused, now, Draw::ZERO)
    };
    assert_eq!(refused(&mut lanes, Duration::ZERO), Verdict::Count);
    assert_eq!(
        lanes.next(RETRY, true),
        None,
        "the second refusal doubles the rest"
    );
    assert_eq!(refused(&mut lanes, 2 * RETRY), Verdict::Bury);
    lanes.done(device(1));
    let next = lanes.next(2 * RETRY, true).expect("the next one");
    assert_eq!(next.attempt, attempt(2));
}

#[test]
fn what_is_delivered_and_not_settled_is_remembered_as_delivered() {
    let mut lanes = Lanes::new(POLICY, Rests::default());
    lanes.take_in(attempt(1), device(1), 0);
    let mut answered = |answer| lanes.answered(device(1), answer, Duration::ZERO, Draw::ZERO);
    assert_eq!(answered(Answer::Delivered), Verdict::Settle);
    assert_eq!(answered(Answer::Unsettled), Verdict::Keep);
    assert_eq!(lanes.next(Duration::ZERO, true), None);
    assert!(lanes.next(RETRY, true).expect("after a rest").stage == Stage::Delivered);
}

#[test]
fn a_letter_is_looked_for_when_its_id_may_have_been_forgotten() {
    let hour = Duration::from_secs(3600);
    for (age, window, look) in [
        (Duration::ZERO, 24 * hour, false),
        (21 * hour, 24 * hour, false),
        (22 * hour, 24 * hour, true),
        (90 * hour, 24 * hour, true),
        (Duration::ZERO, Duration::ZERO, true),
    ] {
        assert_eq!(must_look(age, window), look, "{age:?} {window:?}");
    }
}
