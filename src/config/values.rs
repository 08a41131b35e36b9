//! The typed values that several settings make up together.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use tracing::Level;

use super::problem::{ConfigError, Problem};
use crate::credentials::Key;
use crate::domain::failure::Advice;

/// Where the fleet's data is, and what the processes share.
#[derive(Clone, Debug)]
pub enum Mode {
    /// PostgreSQL, and beside it what is set.
    Cluster(Cluster),
    /// One process with everything in one folder.
    Embedded {
        /// The folder.
        data_dir: PathBuf,
        /// The credential key, if it is given instead of generated.
        key: Option<Key>,
    },
}

impl Mode {
    /// How an operator unblocks a device.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Cluster(_) => Advice::Sql,
            Self::Embedded { .. } => Advice::Commands,
        }
    }

    /// The name in logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Cluster(_) => "cluster",
            Self::Embedded { .. } => "embedded",
        }
    }
}

/// What a cluster shares. Which parts must be there depends on [`Need`](super::Need); a part that was needed
/// and loaded is there, so that its accessor fails only for a command that asks for more than it
/// had loaded.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// PostgreSQL.
    pub database_url: SecretString,
    pub(super) redis_url: Option<SecretString>,
    pub(super) nats_url: Option<SecretString>,
    pub(super) key: Option<Key>,
}

impl Cluster {
    /// Redis; always there with [`Need::Run`](super::Need::Run).
    ///
    /// # Errors
    /// [`ConfigError`] when `REDIS_URL` is not set.
    pub fn redis_url(&self) -> Result<&SecretString, ConfigError> {
        self.redis_url.as_ref().ok_or_else(|| missing("REDIS_URL"))
    }

    /// NATS, one or several URLs separated by commas; always there with [`Need::Run`](super::Need::Run) and
    /// [`Need::Archive`](super::Need::Archive).
    ///
    /// # Errors
    /// [`ConfigError`] when `NATS_URL` is not set.
    pub fn nats_url(&self) -> Result<&SecretString, ConfigError> {
        self.nats_url.as_ref().ok_or_else(|| missing("NATS_URL"))
    }

    /// The credential key; always there with [`Need::Run`](super::Need::Run) and [`Need::Archive`](super::Need::Archive).
    ///
    /// # Errors
    /// [`ConfigError`] when `CREDENTIAL_ENCRYPTION_KEY` is not set.
    pub fn key(&self) -> Result<&Key, ConfigError> {
        let key = self.key.as_ref();
        key.ok_or_else(|| missing("CREDENTIAL_ENCRYPTION_KEY"))
    }
}

fn missing(name: &str) -> ConfigError {
    ConfigError {
        problems: vec![Problem::of(name, "must be set for this command")],
    }
}

/// OpenBao or Vault.
#[derive(Clone, Debug)]
pub struct OpenBao {
    /// Base URL.
    pub address: String,
    /// Token.
    pub token: SecretString,
}

/// The form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// How to log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log {
    /// The level of our own modules.
    pub level: Level,
    /// The form.
    pub format: LogFormat,
    /// Whether text may be coloured: on a terminal, unless `NO_COLOR` is set
    /// (<https://no-color.org>).
    pub color: bool,
}

/// Limits of a stream that we create.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamLimits {
    /// `NATS_STREAM_MAX_BYTES`, in bytes.
    pub max_bytes: u64,
    /// `NATS_STREAM_REPLICAS`.
    pub replicas: u64,
}

/// The outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutboxLimits {
    /// `OUTBOX_RETRY_INTERVAL`.
    pub retry_interval: Duration,
    /// `OUTBOX_MAX_ATTEMPTS`.
    pub max_attempts: u64,
    /// `OUTBOX_MAX_BYTES`, in bytes.
    pub max_bytes: u64,
}
