//! PostgreSQL by the contract, and what only shows with roles, clocks and older replicas.

mod races;
mod scale;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use mikrotik_backup::adapters::postgres::{PostgresStore, grants};
use mikrotik_backup::clock::Clock;
use mikrotik_backup::domain::attempt::{AttemptId, Outcome};
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::domain::host_key::Fingerprint;
use mikrotik_backup::ports::Store;
use sqlx::{AssertSqlSafe, PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::contract::{self, Operator, Value, begin, claim, interrupted, listed, record, taken};
use crate::services::postgres::{NewDevice, fresh_database, insert_device};

/// An operator with `psql`.
pub struct Psql<'a>(pub &'a PgPool);

impl Psql<'_> {
    /// The row of `table` about a device, each column as text.
    async fn columns(&self, table: &str, id: DeviceId) -> BTreeMap<String, Option<String>> {
        let select = format!(
            "SELECT column_name.key, column_name.value FROM {table} s, \
             jsonb_each_text(to_jsonb(s)) AS column_name WHERE device_id = $1"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(select))
            .bind(id.0)
            .fetch_all(self.0)
            .await
            .expect("read a row");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

#[async_trait]
impl Operator for Psql<'_> {
    async fn insert(&self, device: NewDevice) -> DeviceId {
        insert_device(self.0, device).await
    }

    async fn insert_profile(&self, sealed: Option<Vec<u8>>, transit: Option<String>) -> Uuid {
        sqlx::query_scalar(
            "INSERT INTO credential_profiles (encrypted_credentials, encrypted_credentials_transit) \
             VALUES ($1, $2) RETURNING id",
        )
        .bind(sealed)
        .bind(transit)
        .fetch_one(self.0)
        .await
        .expect("insert a profile")
    }

    async fn set(&self, table: &'static str, id: Uuid, column: &'static str, value: Value) {
        let value = match value {
            Value::Null => "NULL".to_owned(),
            Value::Text(text) => format!("'{text}'"),
            Value::Int(number) => number.to_string(),
            Value::Bytes(bytes) => format!("'\\x{}'", hex::encode(bytes)),
            Value::Id(id) => format!("'{id}'"),
        };
        let statement = format!("UPDATE {table} SET {column} = {value} WHERE id = '{id}'");
        let done = sqlx::query(AssertSqlSafe(statement)).execute(self.0).await;
        assert_eq!(done.expect("an edit").rows_affected(), 1);
    }

    async fn set_settings(
        &self,
        id: DeviceId,
        seconds: Option<i32>,
        algorithms: Option<&'static str>,
    ) {
        sqlx::query(
            "INSERT INTO mikrotik_backup.device_settings VALUES ($1, $2, $3) ON CONFLICT (device_id) DO UPDATE SET \
             command_timeout_seconds = excluded.command_timeout_seconds, \
             ssh_algorithms = excluded.ssh_algorithms",
        )
        .bind(id.0)
        .bind(seconds)
        .bind(algorithms)
        .execute(self.0)
        .await
        .expect("set what differs for a device");
    }

    async fn delete(&self, id: DeviceId) {
        sqlx::query("DELETE FROM devices WHERE id = $1")
            .bind(id.0)
            .execute(self.0)
            .await
            .expect("delete");
    }

    async fn state(&self, id: DeviceId) -> BTreeMap<String, Option<String>> {
        self.columns("mikrotik_backup.device_state", id).await
    }

    async fn overview(&self, id: DeviceId) -> BTreeMap<String, Option<String>> {
        self.columns("mikrotik_backup.overview()", id).await
    }

    async fn count_steps(&self, id: AttemptId) -> u64 {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM mikrotik_backup.attempt_steps WHERE attempt_id = $1",
        )
        .bind(id.0)
        .fetch_one(self.0)
        .await
        .expect("count");
        count as u64
    }
}

#[tokio::test]
async fn contract_holds_for_the_owner() {
    let Some(database) = fresh_database().await else {
        return;
    };
    contract::suite(&database.store("owner"), &Psql(&database.pool)).await;
}

/// The role has the rights of the contract on the platform's tables and nothing more.
#[tokio::test]
async fn contract_holds_for_a_role_without_ddl() {
    let Some(database) = fresh_database().await else {
        return;
    };
    database.sql("CREATE ROLE narrow_suite LOGIN").await;
    let store = crate::services::postgres::open(&database.url_as("narrow_suite"), "narrow");
    let state = store
        .schema_state()
        .await
        .expect_err("the role may not even look");
    assert!(
        state
            .to_string()
            .contains("GRANT USAGE ON SCHEMA mikrotik_backup"),
        "{state}"
    );
    database.sql(&grants("narrow_suite")).await;
    assert_eq!(
        store.missing_grants().await.expect("read rights"),
        Vec::<String>::new()
    );
    contract::suite(&store, &Psql(&database.pool)).await;

    database
        .sql("REVOKE UPDATE (ssh_host_key_last_verified) ON devices FROM narrow_suite")
        .await;
    database
        .sql("REVOKE SELECT ON credential_profiles FROM narrow_suite")
        .await;
    database
        .sql("REVOKE EXECUTE ON FUNCTION mikrotik_backup.is_held FROM PUBLIC")
        .await;
    let missing = store.missing_grants().await.expect("read rights");
    assert_eq!(
        missing,
        [
            "GRANT SELECT ON credential_profiles TO narrow_suite;",
            "GRANT UPDATE (ssh_host_key_last_verified) ON devices TO narrow_suite;",
            "GRANT EXECUTE ON FUNCTION mikrotik_backup.is_held(uuid) TO narrow_suite;",
        ]
    );
    for grant in missing {
        database.sql(&grant).await;
    }
    assert_eq!(
        store.missing_grants().await.expect("read rights"),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn only_a_matching_key_is_verified() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let store = database.store("one");
    let id = insert_device(&database.pool, NewDevice::default()).await;
    let times = async || -> (Option<OffsetDateTime>, Option<OffsetDateTime>) {
        sqlx::query_as(
            "SELECT ssh_host_key_first_seen, ssh_host_key_last_verified FROM devices WHERE id = $1",
        )
        .bind(id.0)
        .fetch_one(&database.pool)
        .await
        .expect("read the times")
    };
    let [mine, other] = [b"mine1", b"other"].map(|blob| Fingerprint::of_key_blob(blob));
    store.pin_host_key(id, &mine).await.expect("pin");
    let (first_seen, verified) = times().await;
    assert!(first_seen.is_some() && first_seen == verified);
    store.pin_host_key(id, &other).await.expect("compare");
    assert_eq!(
        times().await,
        (first_seen, verified),
        "another key verifies nothing"
    );
    store.pin_host_key(id, &mine).await.expect("compare");
    let again = times().await;
    assert!(again.0 == first_seen && again.1 > verified, "{again:?}");
}

#[tokio::test]
async fn a_clock_that_is_wrong_by_hours_moves_no_age() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let id = insert_device(&database.pool, NewDevice::default()).await;
    let wrong = Clock::following_tokio(time::macros::datetime!(2031-05-06 07:08:09 UTC));
    let store = PostgresStore::connect(&database.url.as_str().into(), wrong, "skewed")
        .expect("a valid URL");
    let attempt = claim(id, None, "skewed");
    let begun = begin(&store, &attempt).await;
    let mut success = record(
        attempt.attempt,
        &begun.device,
        Outcome::Delivered(taken("x")),
    );
    success.elapsed = Duration::from_secs(100);
    store.record(&success, "skewed").await.expect("record");
    let last = listed(&store, id)
        .await
        .and_then(|listed| listed.last)
        .expect("a last attempt");
    let age = wrong.now() - last.started_at;
    assert!((100..130).contains(&age.whole_seconds()), "{age}");
    assert!((wrong.now() - last.finished_at).whole_seconds() < 30);
    let elapsed = last.finished_at - last.started_at - success.elapsed;
    assert!(elapsed.abs() < time::Duration::milliseconds(1), "{elapsed}");
    let database_now: OffsetDateTime = sqlx::query_scalar("SELECT now()")
        .fetch_one(&database.pool)
        .await
        .expect("the database's time");
    assert!(
        (database_now - begun.now).whole_minutes().abs() < 5,
        "{}",
        begun.now
    );
}

#[tokio::test]
async fn state_of_devices_long_gone_is_forgotten() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let (store, psql) = (database.store("one"), Psql(&database.pool));
    let [stays, goes] = [
        psql.insert(NewDevice::default()).await,
        psql.insert(NewDevice::default()).await,
    ];
    for id in [stays, goes] {
        let device = listed(&store, id).await.expect("listed").device;
        store
            .record(
                &record(AttemptId::generate(), &device, interrupted()),
                "one",
            )
            .await
            .expect("record");
    }
    psql.delete(goes).await;
    let day = Duration::from_secs(86_400);
    store.prune(day, 100).await.expect("prune");
    assert!(!psql.state(goes).await.is_empty(), "not gone for long");
    database
        .sql("UPDATE mikrotik_backup.device_state SET last_finished_at = now() - interval '2 days'")
        .await;
    store.prune(day, 100).await.expect("prune");
    assert!(psql.state(goes).await.is_empty());
    assert!(!psql.state(stays).await.is_empty());
}

/// While replicas are replaced, an older one records attempts as well: it does not know the columns
/// of suspects, and what it did not judge is not in a row.
#[tokio::test]
async fn a_suspect_does_not_count_beyond_an_attempt_of_an_older_replica() {
    use mikrotik_backup::domain::suspect::{Recurrence, SecondReading, Suspect};

    let Some(database) = fresh_database().await else {
        return;
    };
    let store = database.store("new");
    let id = insert_device(&database.pool, NewDevice::default()).await;
    let suspect = Suspect {
        suspicion: "shrank".to_owned(),
        shape: taken("suspect").shape,
        incomplete_menus: vec![],
        strays: None,
    };
    let seen = Recurrence::default().after(&suspect, SecondReading::None);
    let attempt = async |suspects| {
        let last = listed(&store, id).await.expect("listed").last;
        let claim = claim(id, last.map(|last| last.id), "new");
        let begun = begin(&store, &claim).await;
        let mut record = record(claim.attempt, &begun.device, interrupted());
        record.observed.suspects = suspects;
        store.record(&record, "new").await.expect("record");
        begun.suspects
    };
    attempt(Some(seen.clone())).await;
    assert_eq!(attempt(None).await, seen);
    // What the older version writes of an attempt, as far as it matters here.
    let by_the_older = "UPDATE mikrotik_backup.device_state SET status = 'success', \
         last_attempt_id = gen_random_uuid(), last_attempt_at = now() - interval '9 s', \
         last_finished_at = now() - interval '8 s'";
    database.sql(by_the_older).await;
    assert_eq!(attempt(None).await, Recurrence::default());
    assert_eq!(attempt(None).await, Recurrence::default(), "nor later");
    attempt(Some(seen.clone())).await;
    assert_eq!(attempt(None).await, seen);
}
