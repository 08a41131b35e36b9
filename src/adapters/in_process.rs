//! Leases and presence within one process: the coordinator of embedded mode, and of tests with a
//! paused clock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::domain::device::DeviceId;
use crate::ports::{Coordinator, CoordinatorError, Lease, Presence};

/// Keeps leases and presence in memory. Leases expire by tokio's clock.
#[derive(Debug, Default)]
pub struct InProcess {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    leases: HashMap<DeviceId, Lease>,
    presence: HashMap<DeviceId, Presence>,
    tokens: u64,
}

impl InProcess {
    /// A coordinator that knows of no lease, and of no device whether it is online.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports a device's presence; until then it is [`Presence::Unknown`].
    pub fn set_presence(&self, device: DeviceId, presence: Presence) {
        self.lock().presence.insert(device, presence);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that could panic runs under the lock, and each change is a single insertion or
        // removal: the state is whole even if some thread should ever have panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Coordinator for InProcess {
    async fn presence(&self, device: DeviceId) -> Presence {
        let state = self.lock();
        state
            .presence
            .get(&device)
            .copied()
            .unwrap_or(Presence::Unknown)
    }

    async fn try_lease(
        &self,
        device: DeviceId,
        ttl: Duration,
    ) -> Result<Option<Lease>, CoordinatorError> {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(held) = state.leases.get(&device)
            && held.expires > now
        {
            return Ok(None);
        }
        state.tokens += 1;
        let lease = Lease {
            device,
            // Nobody outside this process can present a token, so it need not be unguessable.
            token: state.tokens.to_string(),
            expires: now + ttl,
        };
        state.leases.insert(device, lease.clone());
        Ok(Some(lease))
    }

    async fn release(&self, lease: Lease) {
        let mut state = self.lock();
        if let Some(held) = state.leases.get(&lease.device)
            && held.token == lease.token
        {
            state.leases.remove(&lease.device);
        }
    }

    async fn ping(&self) -> Result<(), CoordinatorError> {
        Ok(())
    }
}
