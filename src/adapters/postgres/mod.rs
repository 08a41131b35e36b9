//! Devices, state and journal in PostgreSQL.

mod attempts;
mod connect;
mod error;
mod inventory;
mod journal;
mod listen;
mod migrate;
mod rights;
mod rows;
mod settlements;
mod statuses;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Executor, PgPool, Postgres};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::domain::attempt::{AttemptId, AttemptRecord, StepTime};
use crate::domain::device::DeviceId;
use crate::domain::host_key::{Fingerprint, Pin};
use crate::ports::{
    Bucket, Claim, Claimed, JournalEntry, JournalPage, Listed, Running, StatusPage, Statuses,
    Store, StoreError, UnreadableRows,
};

pub use connect::InvalidUrl;
pub use migrate::{MigrateError, Migrated, SchemaState};
pub use rights::{OUR_FUNCTIONS, OUR_TABLES, grants};

/// Connections in the pool. A backup needs one for three short statements, so ten serve hundreds
/// of backups at once; more would only queue in the server.
const POOL_SIZE: u32 = 10;

/// How long a statement waits for a connection before the database counts as away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a statement may take before the connection is given up: a little more than the
/// server's own limit below, so that a live server gets to say so itself.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(35);

/// What every connection starts with. The isolation level is set because a database may have
/// another default, under which our statements would fail on contention instead of waiting.
const SESSION: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
     SET idle_in_transaction_session_timeout = '30s'; SET bytea_output = 'hex'; \
     SET default_transaction_isolation = 'read committed'";

/// The store of a cluster: PostgreSQL, shared with the fleet-management platform.
pub struct PostgresStore {
    pool: PgPool,
    options: PgConnectOptions,
    /// `host:port` or the socket directory, for messages.
    server: Arc<str>,
    clock: Clock,
    hints: listen::Hints,
    unreadable: UnreadableRows,
}

impl PostgresStore {
    /// Prepares the store; connections are made when they are needed, so a database that is away
    /// is no error here. `replica` is shown to the database's operators as part of the
    /// application name. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`InvalidUrl`] when `url` is no PostgreSQL URL; it never repeats the URL.
    pub fn connect(
        url: &secrecy::SecretString,
        clock: Clock,
        replica: &str,
    ) -> Result<Self, InvalidUrl> {
        let options = connect::options(url, replica)?;
        let pool = PgPoolOptions::new()
            .max_connections(POOL_SIZE)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move { connection.execute(SESSION).await.map(drop) })
            })
            .connect_lazy_with(options.clone());
        Ok(Self {
            pool,
            server: connect::server(&options).into(),
            hints: listen::Hints::new(options.clone()),
            options,
            clock,
            unreadable: UnreadableRows::default(),
        })
    }

    /// The connections, for what else is kept in this database.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Closes every connection, waiting briefly for statements that are running.
    pub async fn close(&self) {
        self.hints.stop();
        // A connection to a server that has vanished cannot be closed politely.
        let _ = timeout(ACQUIRE_TIMEOUT, self.pool.close()).await;
    }

    /// Runs `statement` on a connection of the pool, bounded in time. What `operation` names is
    /// for the error only.
    async fn run<T, F>(
        &self,
        operation: impl FnOnce() -> String,
        statement: F,
    ) -> Result<T, StoreError>
    where
        F: AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    {
        let result = async {
            let mut lent = Lent(Some(self.pool.acquire().await?));
            let connection = lent.0.as_mut().expect("it was filled one line above");
            match timeout(STATEMENT_TIMEOUT, statement(connection)).await {
                Ok(result) => {
                    drop(lent.0.take());
                    result
                }
                Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    format!("no answer within {} s", STATEMENT_TIMEOUT.as_secs()),
                ))),
            }
        }
        .await;
        result.map_err(|source| error::classify(operation(), &self.server, source))
    }
}

/// A connection that is closed, and not given back, unless its statement came to an end: the pool
/// would wait without limit for the rest of an answer that a dead server never sends.
struct Lent(Option<PoolConnection<Postgres>>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn inventory(&self) -> Result<BTreeMap<Bucket, String>, StoreError> {
        self.read_inventory().await
    }

    async fn devices(&self, buckets: &[Bucket]) -> Result<Vec<Listed>, StoreError> {
        self.read_devices(buckets).await
    }

    fn unreadable(&self) -> usize {
        self.unreadable.count()
    }

    async fn note_seen(&self, devices: &[DeviceId]) -> Result<(), StoreError> {
        self.note_first_seen(devices).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        self.begin_attempt(claim).await
    }

    async fn unclaim(&self, device: DeviceId, attempt: AttemptId) -> Result<(), StoreError> {
        self.take_back_claim(device, attempt).await
    }

    async fn pin_host_key(&self, device: DeviceId, seen: &Fingerprint) -> Result<Pin, StoreError> {
        self.pin_first_key(device, seen).await
    }

    async fn record(&self, record: &AttemptRecord, replica: &str) -> Result<(), StoreError> {
        self.record_attempt(record, replica).await
    }

    async fn attempt(&self, id: AttemptId) -> Result<(JournalEntry, Vec<StepTime>), StoreError> {
        self.read_attempt(id).await
    }

    async fn running(&self, id: AttemptId) -> Result<Option<Running>, StoreError> {
        self.read_running(id).await
    }

    async fn attempts(&self, page: JournalPage) -> Result<Vec<JournalEntry>, StoreError> {
        self.read_attempts(page).await
    }

    async fn statuses(&self, page: StatusPage) -> Result<Statuses, StoreError> {
        self.read_statuses(page).await
    }

    async fn prune(&self, age: Duration, batch: u32) -> Result<u64, StoreError> {
        self.prune_journal(age, batch).await
    }

    async fn changed(&self) {
        self.hints.next().await;
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.run(
            || format!("ask PostgreSQL at {} whether it is there", self.server),
            async |connection| sqlx::query("SELECT 1").execute(connection).await,
        )
        .await
        .map(drop)
    }
}
