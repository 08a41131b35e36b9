//! PostgreSQL by the contract, and what only shows with several connections, roles and clocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mikrotik_backup::adapters::postgres::{PostgresStore, grants};
use mikrotik_backup::clock::Clock;
use mikrotik_backup::domain::attempt::{AttemptId, Cause, Outcome};
use mikrotik_backup::domain::contact::Bound;
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::domain::host_key::{Fingerprint, Pin};
use mikrotik_backup::ports::{Claim, Claimed, Store};
use sqlx::{AssertSqlSafe, PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::contract::{
    self, Operator, Value, all_buckets, begin, claim, interrupted, listed, record, taken,
};
use crate::cluster::poll::until;
use crate::services::postgres::{NewDevice, fresh_database, insert_device, shared_log};

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

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_race_agree_on_one_pin() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let (one, two) = (database.store("one"), database.store("two"));
    for round in 0..20 {
        let id = insert_device(&database.pool, NewDevice::default()).await;
        let keys = [b"one", b"two"].map(|blob| Fingerprint::of_key_blob(blob));
        let (first, second) = tokio::join!(
            one.pin_host_key(id, &keys[0]),
            two.pin_host_key(id, &keys[1])
        );
        let (first, second) = (first.expect("pin"), second.expect("pin"));
        assert_eq!(first, second, "round {round}");
        assert!(keys.map(Pin::Pinned).contains(&first));
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn of_replicas_that_race_one_begins_after_the_other_recorded() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let stores = [database.store("one"), database.store("two")];
    let id = insert_device(&database.pool, NewDevice::default()).await;
    // What the lease guarantees, the row lock must not spoil: claims of one device take turns.
    let claims = stores.each_ref().map(|_| claim(id, None, "racer"));
    let (first, second) = tokio::join!(stores[0].claim(&claims[0]), stores[1].claim(&claims[1]));
    for claimed in [first, second] {
        assert!(matches!(claimed, Ok(Claimed::Begun(_))), "{claimed:?}");
    }
    let device = listed(&stores[0], id).await.expect("listed").device;
    let done = record(claims[0].attempt, &device, Outcome::Delivered(taken("x")));
    stores[0].record(&done, "one").await.expect("record");
    let late = stores[1].claim(&claim(id, None, "two")).await;
    assert!(matches!(late, Ok(Claimed::Superseded(_))), "{late:?}");
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

/// 20,000 rows are no work for a quiet minute.
#[tokio::test]
async fn a_large_inventory_is_told_apart_by_a_few_kilobytes() {
    let Some(database) = fresh_database().await else {
        return;
    };
    database
        .sql(
            "INSERT INTO devices (id, tenant_id, hostname, ip_address, encrypted_credentials) \
             SELECT gen_random_uuid(), gen_random_uuid(), 'router-' || n, '192.0.2.1', sha512(n::text::bytea) \
             FROM generate_series(1, 20000) AS n",
        )
        .await;
    let store = database.store("one");
    let clock = std::time::Instant::now();
    let digests = store.inventory().await.expect("digests");
    let quiet = clock.elapsed();
    let clock = std::time::Instant::now();
    let all = store.devices(&all_buckets()).await.expect("all devices");
    println!(
        "20,000 devices: digests in {quiet:?}, every row in {:?}",
        clock.elapsed()
    );
    assert_eq!((digests.len(), all.len()), (256, 20_000));
    assert!(digests.values().map(String::len).sum::<usize>() <= 256 * 64);

    let edited = all[0].device.id;
    Psql(&database.pool)
        .set("devices", edited.0, "ip_address", Value::Text("192.0.2.2"))
        .await;
    let after = store.inventory().await.expect("digests");
    let changed: Vec<u8> = all_buckets()
        .into_iter()
        .filter(|b| after[b] != digests[b])
        .collect();
    assert_eq!(changed, [edited.0.as_bytes()[15]]);
    let few = store.devices(&changed).await.expect("one bucket");
    assert!(
        few.len() < 200 && few.iter().any(|listed| listed.device.id == edited),
        "{}",
        few.len()
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

#[tokio::test]
async fn operators_read_every_device_in_one_select() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let store = database.store("one");
    let never = insert_device(&database.pool, NewDevice::default()).await;
    let tried = insert_device(
        &database.pool,
        NewDevice {
            ssh_port: Some(2200),
            ..NewDevice::default()
        },
    )
    .await;
    let device = listed(&store, tried).await.expect("listed").device;
    store
        .record(
            &record(AttemptId::generate(), &device, interrupted()),
            "one",
        )
        .await
        .expect("record");
    let rows: Vec<(Uuid, String, Option<String>)> =
        sqlx::query_as("SELECT device_id, address, status FROM mikrotik_backup.overview() ORDER BY status NULLS LAST")
            .fetch_all(&database.pool)
            .await
            .expect("the overview");
    assert_eq!(
        rows,
        [
            (
                tried.0,
                "192.0.2.1 port 2200".into(),
                Some("interrupted".into())
            ),
            (never.0, "192.0.2.1 port 22".into(), None),
        ]
    );
}

#[tokio::test]
async fn a_backup_costs_three_statements() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let id = insert_device(&database.pool, NewDevice::default()).await;
    let name: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(&database.pool)
        .await
        .expect("the name of the database");
    database
        .sql(&format!("ALTER DATABASE {name} SET log_statement = 'all'"))
        .await;
    let store = database.store("counted");
    store.ping().await.expect("a connection that is ready");

    let attempt = claim(id, None, "counted");
    let device = begin(&store, &attempt).await.device;
    let key = Fingerprint::of_key_blob(b"key");
    store.pin_host_key(id, &key).await.expect("pin");
    let success = record(attempt.attempt, &device, Outcome::Delivered(taken("x")));
    store.record(&success, "counted").await.expect("record");

    let log = shared_log().await;
    let statements: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("mikrotik-backup/counted LOG:  execute "))
        .filter(|line| !line.ends_with(": SELECT 1"))
        .collect();
    assert_eq!(statements.len(), 3, "{statements:#?}");
}

/// How many statements wait for a lock in this database.
async fn waiting(pool: &PgPool) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .fetch_one(pool)
    .await
    .expect("look who waits")
}

#[tokio::test]
async fn a_claim_that_had_to_wait_sees_what_was_held_meanwhile() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let id = insert_device(&database.pool, NewDevice::default()).await;
    let store = database.store("one");
    let first = claim(id, None, "one");
    let device = begin(&store, &first).await.device;
    let done = record(first.attempt, &device, Outcome::Delivered(taken("x")));
    store.record(&done, "one").await.expect("record");

    // Another replica records, slowly, that it holds a snapshot.
    let mut slow = database.pool.begin().await.expect("begin");
    sqlx::query("UPDATE mikrotik_backup.device_state SET status = 'queued' WHERE device_id = $1")
        .bind(id.0)
        .execute(&mut *slow)
        .await
        .expect("lock the state");
    let asked = Claim {
        any_last: true,
        cause: Cause::Manual,
        ..claim(id, None, "two")
    };
    let claiming = {
        let store = database.store("two");
        let asked = asked.clone();
        tokio::spawn(async move { store.claim(&asked).await })
    };
    let waits = async || (waiting(&database.pool).await > 0).then_some(());
    until("the claim waits for the state", waits).await;
    sqlx::query(
        "INSERT INTO mikrotik_backup.attempts (id, device_id, tenant_id, cause, started_at, \
             finished_at, status, sha256_hash, bytes, replica, held_until) \
         VALUES ($1, $2, $3, 'scheduled', now(), now(), 'queued', repeat('a', 64), 1, 'three', \
             now() + interval '1 hour')",
    )
    .bind(Uuid::new_v4())
    .bind(id.0)
    .bind(device.tenant.0)
    .execute(&mut *slow)
    .await
    .expect("a snapshot is held");
    slow.commit().await.expect("commit");
    let claimed = claiming.await.expect("no panic").expect("claim");
    assert_eq!(claimed, Claimed::HeldElsewhere);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_router_that_are_claimed_at_once_share_its_connections() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let mut rows = Vec::new();
    for _ in 0..12 {
        rows.push(insert_device(&database.pool, NewDevice::default()).await);
    }
    let stores = [database.store("one"), database.store("two")].map(Arc::new);
    // Connected already, so that all begin at the same moment.
    for store in &stores {
        store.ping().await.expect("a connection");
    }
    let claims = rows.iter().zip(stores.iter().cycle()).map(|(id, store)| {
        let asked = Claim {
            any_last: true,
            cause: Cause::Manual,
            bound: Some(Bound::new(Duration::from_secs(10))),
            ..claim(*id, None, "one")
        };
        let store = Arc::clone(store);
        tokio::spawn(async move { store.claim(&asked).await.expect("claim") })
    });
    let (mut begun, mut refused) = (0, 0);
    for claimed in claims.collect::<Vec<_>>() {
        match claimed.await.expect("no panic") {
            Claimed::Begun(_) => begun += 1,
            Claimed::TooSoon(_) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((begun, refused), (3, 9));
}

/// Rows and marks of ten thousand routers, and a journal of a few weeks.
const MANY: &str = "\
    INSERT INTO mikrotik_backup.device_state (device_id, tenant_id, running_attempt_id, \
        running_since, running_replica, running_cause, running_endpoint) \
    SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now(), 'one', 'scheduled', \
        '10.1.' || n / 250 || '.' || n % 250 || ' port 22' FROM generate_series(1, 10000) n; \
    INSERT INTO mikrotik_backup.attempts (id, device_id, tenant_id, cause, started_at, finished_at, \
        status, sha256_hash, bytes, replica, endpoint) \
    SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'scheduled', \
        now() - n * interval '15 seconds', now() - n * interval '14 seconds', 'success', \
        repeat('a', 64), 1, 'one', '10.1.' || n % 10000 / 250 || '.' || n % 250 || ' port 22' \
    FROM generate_series(1, 100000) n; \
    ANALYZE mikrotik_backup.device_state; ANALYZE mikrotik_backup.attempts;";

#[tokio::test]
async fn connections_of_an_endpoint_are_found_by_index_among_ten_thousand() {
    let Some(database) = fresh_database().await else {
        return;
    };
    database.sql(MANY).await;
    let id = insert_device(&database.pool, NewDevice::default()).await;
    let mut connection = database.pool.acquire().await.expect("a connection");
    let connection = &mut *connection;
    // Function bodies are planned per connection: later calls, too, with plans for any value.
    for _ in 0..8 {
        sqlx::query("SELECT mikrotik_backup.connections_to($1, $2, $2, NULL, '82 minutes')")
            .bind("10.1.2.3 port 22")
            .bind(id.0)
            .execute(&mut *connection)
            .await
            .expect("count");
    }
    sqlx::query("SELECT pg_stat_force_next_flush()")
        .execute(&mut *connection)
        .await
        .expect("tell the counts");
    let scans: Vec<(String, i64)> = sqlx::query_as(
        "SELECT relname::text, seq_tup_read FROM pg_stat_user_tables \
         WHERE relname IN ('attempts', 'device_state') ORDER BY relname",
    )
    .fetch_all(connection)
    .await
    .expect("read the counts");
    // Filling the tables reads none of their rows, and neither does counting.
    let none = [("attempts".to_owned(), 0), ("device_state".to_owned(), 0)];
    assert_eq!(scans, none);
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
