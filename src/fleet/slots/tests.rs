//! The queue alone, then real tasks that come, wait, give up and go.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::collection::vec;
use proptest::prelude::*;

use super::Lane::{Requested, Scheduled};
use super::*;

/// Serves everybody who waits, one slot after the other.
fn served(queue: &mut Queue<&'static str>) -> Vec<&'static str> {
    std::iter::from_fn(|| queue.release()).collect()
}

fn busy(lanes: &[(Lane, &'static str)]) -> Queue<&'static str> {
    let mut queue = Queue::new(1);
    assert_eq!(queue.enter(Scheduled, "running"), Entered::Granted);
    for (lane, name) in lanes {
        assert!(matches!(queue.enter(*lane, name), Entered::Waits(_)));
    }
    queue
}

#[test]
fn requests_go_ahead_of_scheduled_work() {
    let mut queue = busy(&[(Scheduled, "s1"), (Scheduled, "s2"), (Requested, "r1")]);
    assert_eq!(served(&mut queue), ["r1", "s1", "s2"]);
    assert_eq!(queue.in_use, 0);
}

#[test]
fn after_three_requests_scheduled_work_has_its_turn() {
    let requests = ["r1", "r2", "r3", "r4", "r5", "r6", "r7"].map(|name| (Requested, name));
    let mut waiting = vec![(Scheduled, "s1"), (Scheduled, "s2"), (Scheduled, "s3")];
    waiting.extend(requests);
    let order = ["r1", "r2", "r3", "s1", "r4", "r5", "r6", "s2", "r7", "s3"];
    assert_eq!(served(&mut busy(&waiting)), order);
}

#[test]
fn requests_that_nobody_waited_behind_do_not_count() {
    let requests = ["r1", "r2", "r3", "r4"].map(|name| (Requested, name));
    let mut queue = busy(&requests);
    let before: Vec<_> = (0..3).map(|_| queue.release()).collect();
    assert_eq!(before, [Some("r1"), Some("r2"), Some("r3")]);
    queue.enter(Scheduled, "s1");
    assert_eq!(served(&mut queue), ["r4", "s1"]);
}

#[test]
fn at_least_one_slot_is_there() {
    assert_eq!(Queue::new(0).enter(Scheduled, ()), Entered::Granted);
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Enter(Lane),
    Leave(usize),
    Release,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => Just(Op::Enter(Scheduled)),
        4 => Just(Op::Enter(Requested)),
        2 => any::<usize>().prop_map(Op::Leave),
        4 => Just(Op::Release),
    ];
    vec(op, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn queue_is_fair_and_never_idle(capacity in 1..4usize, ops in ops()) {
        let mut queue = Queue::new(capacity);
        let mut held = 0;
        // Who waits, oldest first; and who of them has been overtaken by how many requests.
        let mut waiting: VecDeque<(Lane, u64)> = VecDeque::new();
        let mut overtaken = 0;
        for (ticket, op) in (0..).zip(ops) {
            match op {
                Op::Enter(lane) => match queue.enter(lane, ticket) {
                    Entered::Granted => {
                        prop_assert!(held < capacity && waiting.is_empty());
                        held += 1;
                    }
                    Entered::Waits(_) => {
                        prop_assert_eq!(held, capacity);
                        waiting.push_back((lane, ticket));
                    }
                },
                Op::Leave(which) if !waiting.is_empty() => {
                    let (lane, ticket) = waiting.remove(which % waiting.len()).expect("in range");
                    let place = queue.lane(lane).iter().find(|(_, name)| **name == ticket);
                    let place = *place.expect("who waits has a place").0;
                    prop_assert_eq!(queue.leave(lane, place), Some(ticket));
                    prop_assert_eq!(queue.leave(lane, place), None);
                }
                Op::Leave(_) => {}
                Op::Release if held > 0 => {
                    let first = |lane| waiting.iter().find(|(its, _)| *its == lane).copied();
                    let (scheduled, request) = (first(Scheduled), first(Requested));
                    let served = queue.release();
                    let expected = match (scheduled, request) {
                        (Some(_), Some(_)) if overtaken == REQUESTS_IN_A_ROW => scheduled,
                        (_, Some(_)) => request,
                        (_, None) => scheduled,
                    };
                    prop_assert_eq!(served, expected.map(|(_, ticket)| ticket));
                    let ahead = scheduled.is_some() && expected == request;
                    overtaken = if ahead { overtaken + 1 } else { 0 };
                    prop_assert!(overtaken <= REQUESTS_IN_A_ROW);
                    waiting.retain(|waiter| Some(*waiter) != expected);
                    held -= usize::from(served.is_none());
                }
                Op::Release => {}
            }
            prop_assert_eq!(queue.in_use, held);
            prop_assert_eq!(queue.scheduled.len() + queue.requested.len(), waiting.len());
        }
    }
}

#[tokio::test]
async fn a_slot_is_given_back_by_dropping_it() {
    let slots = Slots::new(2);
    let (one, two) = (
        slots.acquire(Scheduled).await,
        slots.acquire(Requested).await,
    );
    assert_eq!(slots.in_use(), 2);
    let mut third = Box::pin(slots.acquire(Scheduled));
    assert!(third.as_mut().now_or_never().is_none());
    assert_eq!((slots.waiting(Scheduled), slots.waiting(Requested)), (1, 0));
    drop(one);
    let three = third.await;
    assert_eq!((slots.in_use(), slots.waiting(Scheduled)), (2, 0));
    drop((two, three));
    assert_eq!(slots.in_use(), 0);
}

#[tokio::test]
async fn giving_up_leaves_the_queue() {
    let slots = Slots::new(1);
    let running = slots.acquire(Scheduled).await;
    let mut gives_up = Box::pin(slots.acquire(Requested));
    let mut stays = Box::pin(slots.acquire(Scheduled));
    assert!(gives_up.as_mut().now_or_never().is_none());
    assert!(stays.as_mut().now_or_never().is_none());
    drop(gives_up);
    assert_eq!(slots.waiting(Requested), 0);
    drop(running);
    drop(stays.await);
    assert_eq!(slots.in_use(), 0);
}

#[tokio::test]
async fn a_slot_given_to_a_future_that_never_looks_goes_to_the_next() {
    let slots = Slots::new(1);
    let running = slots.acquire(Scheduled).await;
    let mut served = Box::pin(slots.acquire(Scheduled));
    let mut next = Box::pin(slots.acquire(Scheduled));
    assert!(served.as_mut().now_or_never().is_none());
    assert!(next.as_mut().now_or_never().is_none());
    drop(running);
    assert_eq!(slots.waiting(Scheduled), 1, "the first has been served");
    drop(served);
    drop(next.await);
    assert_eq!(slots.in_use(), 0);
}

#[tokio::test]
async fn a_thousand_futures_that_give_up_at_once_leave_nothing_behind() {
    let slots = Slots::new(1);
    let running = slots.acquire(Scheduled).await;
    let mut all: Vec<_> = (0..1000)
        .map(|_| Box::pin(slots.acquire(Scheduled)))
        .collect();
    for waiter in &mut all {
        assert!(waiter.as_mut().now_or_never().is_none());
    }
    drop(running);
    drop(all);
    assert_eq!((slots.in_use(), slots.waiting(Scheduled)), (0, 0));
}

/// Counts who holds a slot, also when a holder is aborted.
struct Holder<'a>(&'a AtomicUsize);

impl<'a> Holder<'a> {
    fn counted(holders: &'a AtomicUsize, capacity: usize) -> Self {
        let together = holders.fetch_add(1, Ordering::SeqCst) + 1;
        let holder = Self(holders);
        assert!(together <= capacity, "{together} at once");
        holder
    }
}

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_slot_is_lost_or_shared_under_cancellations() {
    const CAPACITY: usize = 3;
    let slots = Slots::new(CAPACITY);
    let holders = Arc::new(AtomicUsize::new(0));
    let work = |n: usize| {
        let (slots, holders) = (slots.clone(), Arc::clone(&holders));
        async move {
            let lane = [Requested, Scheduled, Scheduled][n % 3];
            let _slot = slots.acquire(lane).await;
            let _holder = Holder::counted(&holders, CAPACITY);
            for _ in 0..n % 5 {
                tokio::task::yield_now().await;
            }
        }
    };
    let mut tasks: Vec<_> = (0..4000).map(|n| tokio::spawn(work(n))).collect();
    // Every other task is aborted wherever it is: waiting, just served, holding, or done.
    for aborted in tasks.iter().step_by(2) {
        aborted.abort();
        tokio::task::yield_now().await;
    }
    let all = async {
        for (n, task) in tasks.iter_mut().enumerate() {
            match task.await {
                Ok(()) => {}
                Err(error) => assert!(error.is_cancelled() && n % 2 == 0, "{n}: {error}"),
            }
        }
    };
    let patience = Duration::from_secs(60);
    let in_time = tokio::time::timeout(patience, all).await;
    in_time.expect("nobody waits for ever");
    assert_eq!((slots.in_use(), holders.load(Ordering::SeqCst)), (0, 0));
    assert_eq!((slots.waiting(Scheduled), slots.waiting(Requested)), (0, 0));
}
