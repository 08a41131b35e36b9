//! Bounded concurrency with two lanes: requests go ahead of scheduled work without starving it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Why a slot is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Work that came due.
    Scheduled,
    /// Somebody waits for the result.
    Requested,
}

/// So many requests in a row may go ahead of scheduled work that waits; then it is its turn.
pub const REQUESTS_IN_A_ROW: u32 = 3;

/// The concurrency of this process: at most so many [`Slot`]s are held at any time.
#[derive(Clone)]
pub struct Slots {
    queue: Arc<Mutex<Queue<oneshot::Sender<Slot>>>>,
}

/// The right to one SSH session; it is given back when this is dropped.
#[must_use = "a slot is given back as soon as it is dropped"]
pub struct Slot {
    queue: Arc<Mutex<Queue<oneshot::Sender<Slot>>>>,
}

impl Slots {
    /// `capacity` slots; at least one, whatever is asked for.
    pub fn new(capacity: usize) -> Self {
        Self {
            queue: Arc::new(Mutex::new(Queue::new(capacity))),
        }
    }

    /// Waits for a slot, in order of arrival within the lane.
    ///
    /// Cancel safe: a future that is dropped leaves the queue, and a slot that had just been given
    /// to it goes to the next.
    pub async fn acquire(&self, lane: Lane) -> Slot {
        let (sender, receiver) = oneshot::channel();
        let entered = lock(&self.queue).enter(lane, sender);
        let ticket = match entered {
            Entered::Granted => return Slot::of(&self.queue),
            Entered::Waits(ticket) => ticket,
        };
        let _waiting = Waiting {
            queue: &self.queue,
            lane,
            ticket,
        };
        receiver
            .await
            .expect("a sender leaves the queue only to send, or with the future that waits here")
    }

    /// Slots that are held now.
    pub fn in_use(&self) -> usize {
        lock(&self.queue).in_use
    }

    /// How many wait for a slot in this lane.
    pub fn waiting(&self, lane: Lane) -> usize {
        lock(&self.queue).lane(lane).len()
    }
}

impl Slot {
    fn of(queue: &Arc<Mutex<Queue<oneshot::Sender<Self>>>>) -> Self {
        Self {
            queue: Arc::clone(queue),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let next = lock(&self.queue).release();
        if let Some(next) = next {
            // A receiver that has just gone hands the slot back, and its drop comes here again.
            drop(next.send(Self::of(&self.queue)));
        }
    }
}

/// Takes a future that stops waiting out of the queue, unless it has been served already.
struct Waiting<'a> {
    queue: &'a Mutex<Queue<oneshot::Sender<Slot>>>,
    lane: Lane,
    ticket: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let sender = lock(self.queue).leave(self.lane, self.ticket);
        drop(sender);
    }
}

/// No code that may panic runs under the lock, so a poisoned one is as good as any.
fn lock<W>(queue: &Mutex<Queue<W>>) -> MutexGuard<'_, Queue<W>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is next: the decision alone. `W` is what wakes a waiter.
struct Queue<W> {
    capacity: usize,
    in_use: usize,
    next_ticket: u64,
    /// By ticket, so first come is first, and whoever gives up is found at once.
    scheduled: BTreeMap<u64, W>,
    requested: BTreeMap<u64, W>,
    /// Requests served in a row while scheduled work waited.
    went_ahead: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entered {
    Granted,
    Waits(u64),
}

impl<W> Queue<W> {
    fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            in_use: 0,
            next_ticket: 0,
            scheduled: BTreeMap::new(),
            requested: BTreeMap::new(),
            went_ahead: 0,
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut BTreeMap<u64, W> {
        match lane {
            Lane::Scheduled => &mut self.scheduled,
            Lane::Requested => &mut self.requested,
        }
    }

    /// Takes a free slot (then nobody waits), or a place at the end of the lane.
    fn enter(&mut self, lane: Lane, waiter: W) -> Entered {
        if self.in_use < self.capacity {
            self.in_use += 1;
            return Entered::Granted;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.lane(lane).insert(ticket, waiter);
        Entered::Waits(ticket)
    }

    /// Gives up a place; `None` when it has been served.
    fn leave(&mut self, lane: Lane, ticket: u64) -> Option<W> {
        self.lane(lane).remove(&ticket)
    }

    /// Gives a slot back, and says who has it now.
    fn release(&mut self) -> Option<W> {
        let scheduled_waits = !self.scheduled.is_empty();
        let its_turn = scheduled_waits && self.went_ahead >= REQUESTS_IN_A_ROW;
        let request = if its_turn {
            None
        } else {
            self.requested.pop_first()
        };
        if let Some((_, waiter)) = request {
            self.went_ahead = if scheduled_waits {
                self.went_ahead + 1
            } else {
                0
            };
            return Some(waiter);
        }
        self.went_ahead = 0;
        let scheduled = self.scheduled.pop_first();
        if scheduled.is_none() {
            self.in_use = self.in_use.saturating_sub(1);
        }
        scheduled.map(|(_, waiter)| waiter)
    }
}

#[cfg(test)]
mod tests;
