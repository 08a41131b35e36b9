//! Attempts that were asked for and that nobody waits at: remembered until they are in the journal.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::attempt::AttemptId;
use crate::domain::device::DeviceId;
use crate::domain::request::Reply;

/// So many are remembered; the oldest is forgotten first. More than can wait at once.
pub const MOST: usize = 4096;

/// An attempt that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// The device.
    pub device: DeviceId,
    /// How it stands.
    pub state: State,
}

/// How an attempt stands that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// It waits, or runs.
    Pending,
    /// What came of it.
    Answered(Reply),
    /// The device was removed, or the service stops.
    Dropped,
}

/// Every ticket of this process.
#[derive(Debug, Default)]
pub struct Tickets {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<AttemptId, Ticket>,
    oldest_first: VecDeque<AttemptId>,
}

impl Tickets {
    /// Remembers that `attempt` was asked for.
    pub fn open(&self, attempt: AttemptId, device: DeviceId) {
        let mut kept = self.lock();
        let state = State::Pending;
        // Several may have asked for the same.
        if kept
            .by_id
            .insert(attempt, Ticket { device, state })
            .is_none()
        {
            kept.oldest_first.push_back(attempt);
        }
        while kept.oldest_first.len() > MOST {
            if let Some(oldest) = kept.oldest_first.pop_front() {
                kept.by_id.remove(&oldest);
            }
        }
    }

    /// Notes what came of it.
    pub fn close(&self, attempt: AttemptId, state: State) {
        if let Some(ticket) = self.lock().by_id.get_mut(&attempt) {
            ticket.state = state;
        }
    }

    /// The ticket of `attempt`, as far as it is remembered.
    pub fn get(&self, attempt: AttemptId) -> Option<Ticket> {
        self.lock().by_id.get(&attempt).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing that could panic runs under the lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::attempt::Deferral;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let tickets = Tickets::default();
        let device = DeviceId(Uuid::from_u128(1));
        let id = |n: usize| AttemptId(Uuid::from_u128(n as u128));
        for n in 0..=MOST {
            tickets.open(id(n), device);
            tickets.open(id(n), device);
        }
        assert_eq!(tickets.get(id(0)), None);
        let reply = Reply::of_deferral(&Deferral::Contended);
        tickets.close(id(1), State::Answered(reply.clone()));
        tickets.close(id(0), State::Dropped);
        assert_eq!(tickets.get(id(1)).unwrap().state, State::Answered(reply));
        assert_eq!(tickets.get(id(0)), None);
        assert_eq!(tickets.lock().by_id.len(), MOST);
    }
}
