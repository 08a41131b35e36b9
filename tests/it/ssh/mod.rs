//! The SSH client against real servers, and against peers that misbehave.

mod dropbear;
mod exchange;
mod hostile;
mod login;
mod offer;
mod openssh;
mod peer;
mod recordings;
mod routeros;

use std::time::Duration;

use mikrotik_backup::domain::device::Endpoint;
use mikrotik_backup::domain::host_key::Pin;
use mikrotik_backup::ssh::{self, Host, Options, SshError};
use tokio::time::Instant;

/// A deadline that no test means to reach.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn dial(endpoint: &Endpoint, pin: &Pin) -> Result<Host, SshError> {
    ssh::dial(endpoint, pin, soon(), &Options::default()).await
}
