//! What a look and a backup cost, also among many devices.

use mikrotik_backup::domain::attempt::{AttemptId, Outcome};
use mikrotik_backup::domain::host_key::Fingerprint;
use mikrotik_backup::ports::Store;
use uuid::Uuid;

use super::super::contract::{
    Operator as _, Value, all_buckets, begin, claim, interrupted, listed, record, taken,
};
use super::Psql;
use crate::services::postgres::{NewDevice, fresh_database, insert_device, shared_log};

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
