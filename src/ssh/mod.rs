//! The SSH client: dial, compare the host key, log in, run commands. SSH, not RouterOS.
//!
//! One absolute deadline covers everything from the name lookup to the last byte of the last
//! command. It is enforced inside the stream that russh reads and writes (`stream`), because
//! russh works in a task of its own that dropping a future does not end.

mod advice;
mod algorithms;
mod auth;
mod client;
mod connect;
mod error;
mod handler;
mod link;
mod stream;

use std::fmt;
use std::time::Duration;

use crate::domain::session::{SshAlgorithms, WeakAlgorithm};

pub use advice::remedies;
pub use client::{DialTimes, Host, Session, dial};
pub use error::SshError;

/// Limits of a connection.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long one TCP connect, and the name lookup before it, may take
    /// (`CONNECTION_TIMEOUT_SECONDS`).
    pub connect_timeout: Duration,
    /// The most bytes that one command may print (`CONFIG_BACKUP_MAX_EXPORT_BYTES`).
    pub max_output: usize,
    /// How long a command may print nothing, and its channel take to open
    /// (`CONFIG_BACKUP_IDLE_TIMEOUT`).
    pub idle_timeout: Duration,
    /// What may be offered (`SSH_ALGORITHMS`).
    pub algorithms: SshAlgorithms,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            max_output: 128 * 1024 * 1024,
            idle_timeout: Duration::from_secs(120),
            algorithms: SshAlgorithms::Compatible,
        }
    }
}

/// What a command printed. It may be configuration text: `Debug` shows sizes only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error; RouterOS has never been seen to use it.
    pub stderr: Vec<u8>,
    /// The exit status, if the server sent one.
    pub exit_status: Option<u32>,
    /// The server closed the channel, as RouterOS ends every command. False when the connection
    /// was lost between exit status and close.
    pub closed: bool,
}

impl Output {
    /// Bytes received so far.
    pub fn len(&self) -> usize {
        self.stdout.len() + self.stderr.len()
    }

    /// Nothing was received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("stdout_bytes", &self.stdout.len())
            .field("stderr_bytes", &self.stderr.len())
            .field("exit_status", &self.exit_status)
            .field("closed", &self.closed)
            .finish()
    }
}

/// The algorithms that both sides agreed on, by their SSH names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Negotiated {
    /// Key exchange.
    pub kex: String,
    /// Host key signature.
    pub host_key: String,
    /// Cipher, both ways.
    pub cipher: String,
    /// Message authentication of what the server sends; `implicit` in the cipher, for AEAD ones.
    pub mac: String,
}

impl Negotiated {
    /// What of it is weak by today's measure.
    pub fn weak(&self) -> Vec<WeakAlgorithm> {
        algorithms::weak(self)
    }
}

impl fmt::Display for Negotiated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kex,
            host_key,
            cipher,
            mac,
        } = self;
        write!(
            f,
            "kex {kex}, host key {host_key}, cipher {cipher}, mac {mac}"
        )
    }
}
