//! Many simulated routers in one process, each on a loopback address of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PublicKey;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::export::mix;
use super::host_key::HostKeyKind;
use super::profile::SshProfile;
use super::router::{Router, RouterOptions};
use super::stats::{Counters, Stats};
use super::{PASSWORD, USERNAME};
use crate::clock::Clock;

/// How a fleet starts.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// How many routers.
    pub routers: usize,
    /// About how large each export is; 0 for small ones.
    pub size_bytes: u64,
    /// How long each router thinks before the first byte of an answer.
    pub delay: Duration,
    /// RouterOS versions, dealt to the routers in turn. Empty means 7.16.2.
    pub versions: Vec<String>,
    /// The first router's address; the others count up from it. All of them must be loopback
    /// addresses. On Linux all of 127.0.0.0/8 is; other systems may know 127.0.0.1 alone.
    pub base_address: Ipv4Addr,
    /// The port of every router; 0 takes a free one for each.
    pub port: u16,
    /// Host keys and configurations follow from it: the same seed gives the same fleet.
    pub seed: u64,
    /// Dates the exports.
    pub clock: Clock,
    /// The login name of every router.
    pub username: String,
    /// The password of every router.
    pub password: String,
    /// A key that may log in to every router.
    pub authorized_key: Option<PublicKey>,
    /// The algorithms that they offer.
    pub profile: SshProfile,
    /// The type of their host keys.
    pub host_key: HostKeyKind,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            routers: 1,
            size_bytes: 0,
            delay: Duration::ZERO,
            versions: Vec::new(),
            base_address: Ipv4Addr::new(127, 1, 0, 1),
            port: 0,
            seed: 1,
            clock: Clock::System,
            username: USERNAME.to_owned(),
            password: PASSWORD.to_owned(),
            authorized_key: None,
            profile: SshProfile::default(),
            host_key: HostKeyKind::default(),
        }
    }
}

impl FleetOptions {
    /// How router `index` starts.
    ///
    /// # Errors
    /// Its address would not be a loopback address.
    fn router(&self, index: usize) -> io::Result<RouterOptions> {
        let offset = u32::try_from(index).ok();
        let address = offset
            .and_then(|offset| self.base_address.to_bits().checked_add(offset))
            .map(Ipv4Addr::from_bits)
            .filter(Ipv4Addr::is_loopback)
            .ok_or_else(|| {
                let base = self.base_address;
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("address {base} plus {index} is outside 127.0.0.0/8"),
                )
            })?;
        let version = match self.versions.as_slice() {
            [] => RouterOptions::default().version,
            versions => versions[index % versions.len()].clone(),
        };
        Ok(RouterOptions {
            name: format!("sim-{:04}", index + 1),
            address: SocketAddr::from((address, self.port)),
            version,
            size_bytes: self.size_bytes,
            delay: self.delay,
            // Neighbours have neighbouring seeds, so that they never share an RSA key.
            seed: mix(self.seed).wrapping_add(index as u64),
            clock: self.clock,
            username: self.username.clone(),
            password: self.password.clone(),
            authorized_key: self.authorized_key.clone(),
            profile: self.profile,
            host_key: self.host_key,
            fixture: None,
        })
    }
}

/// A running fleet. Dropping it closes every listener and every connection.
pub struct Fleet {
    routers: Vec<Router>,
    counters: Arc<Counters>,
    _stop: DropGuard,
}

impl Fleet {
    /// Starts all routers. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// An address cannot be listened on; those before it are closed again.
    pub async fn start(options: FleetOptions) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let counters = Arc::<Counters>::default();
        let mut routers = Vec::with_capacity(options.routers);
        for index in 0..options.routers {
            let one = options.router(index)?;
            let (name, address) = (one.name.clone(), one.address);
            let started = Router::start(one, Arc::clone(&counters), &stop);
            routers.push(started.map_err(|error| {
                let advice = match error.kind() {
                    io::ErrorKind::AddrInUse => "choose another port or base address",
                    io::ErrorKind::PermissionDenied => "choose a port above 1023",
                    _ => "each router takes one file descriptor, so `ulimit -n` may be too low",
                };
                let text = format!("failed to listen on {address} for {name}: {error}; {advice}");
                io::Error::new(error.kind(), text)
            })?);
            if index % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
        Ok(Self {
            routers,
            counters,
            _stop: stop.drop_guard(),
        })
    }

    /// The routers, in the order of their addresses.
    pub fn routers(&self) -> &[Router] {
        &self.routers
    }

    /// The counts of all routers together; `max_open_connections` is the most that were open at
    /// once in the whole fleet.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// Address and source port of the clients that are connected now.
    pub fn clients(&self) -> Vec<SocketAddr> {
        self.counters.clients()
    }
}
