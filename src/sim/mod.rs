//! A simulated RouterOS router, for tests, the demo and trying things out.
//!
//! A [`Fleet`] is any number of [`Router`]s in this process, each with its own loopback address,
//! host key, login and configuration. They answer `/export` over SSH as RouterOS 6 and 7 do, down to
//! the order of the last messages, and go wrong on demand ([`Fault`]). What a client did to them is
//! counted ([`Stats`]).

mod answer;
pub mod cli;
mod configuration;
mod console;
mod door;
mod export;
mod fault;
mod fleet;
mod host_key;
mod profile;
mod router;
mod session;
mod stats;
mod text;
mod wire;

pub use configuration::{Configuration, Rendering, SECRET_MARK};
pub use export::Export;
pub use fault::{Fault, UnknownFault};
pub use fleet::{Fleet, FleetOptions};
pub use host_key::HostKeyKind;
pub use profile::SshProfile;
pub use router::{Router, RouterOptions};
pub use stats::{LoginAttempt, LoginMethod, Served, Stats};
pub use text::Version;

/// The login name that every simulated router has unless told otherwise.
pub const USERNAME: &str = "backup";
/// The password that every simulated router has unless told otherwise. It protects nothing.
pub const PASSWORD: &str = "simulated-password";
