//! Replicas that do the same at once: one of them is first, and the other one sees it.

use std::sync::Arc;
use std::time::Duration;

use mikrotik_backup::domain::attempt::{Cause, Outcome};
use mikrotik_backup::domain::contact::Bound;
use mikrotik_backup::domain::host_key::{Fingerprint, Pin};
use mikrotik_backup::ports::{Claim, Claimed, Store};
use sqlx::PgPool;
use uuid::Uuid;

use super::super::contract::{begin, claim, listed, record, taken};
use crate::cluster::poll::until;
use crate::services::postgres::{NewDevice, fresh_database, insert_device};

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

/// SQL cannot tell where a connection to such an address counts, so a claim asks twice; what happens in
/// between, to the device or the database, must leave nothing of the first time: neither a mark, that the
/// next claim would take for a death, nor a connection.
#[tokio::test]
async fn a_claim_that_ends_between_its_two_questions_never_was() {
    // Asked the second time, it is held, or the database fails. A sequence counts on all the same.
    let [held, fails, never] =
        ["RETURN true", "RAISE EXCEPTION 'invented'", "RETURN false"].map(|again| {
            format!(
                "CREATE OR REPLACE FUNCTION mikrotik_backup.is_held(device uuid) RETURNS boolean \
                 LANGUAGE plpgsql VOLATILE AS $$ BEGIN \
                 IF nextval('public.asked') < 2 THEN RETURN false; END IF; {again}; END $$"
            )
        });
    for between in [held, fails] {
        let Some(database) = fresh_database().await else {
            return;
        };
        database
            .sql(&format!("CREATE SEQUENCE public.asked; {between}"))
            .await;
        let device = NewDevice {
            ip_address: "2001:0db8::00e1".to_owned(),
            ..NewDevice::default()
        };
        let id = insert_device(&database.pool, device).await;
        let bound = Bound::for_interval(Duration::from_secs(21_600), Duration::from_secs(60));
        let asked = Claim {
            bound: Some(bound),
            ..claim(id, None, "one")
        };
        let claimed = database.store("one").claim(&asked).await;
        assert!(
            matches!(claimed, Ok(Claimed::HeldElsewhere) | Err(_)),
            "{claimed:?}"
        );
        let (marks, attempts): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM mikrotik_backup.device_state \
                     WHERE running_attempt_id IS NOT NULL OR running_endpoint IS NOT NULL), \
                    (SELECT count(*) FROM mikrotik_backup.attempts)",
        )
        .fetch_one(&database.pool)
        .await
        .expect("look");
        assert_eq!((marks, attempts), (0, 0));
        // And the next one knows of no death.
        database.sql(&never).await;
        begin(&database.store("two"), &claim(id, None, "two")).await;
        let deaths: Vec<(i32, String)> =
            sqlx::query_as("SELECT deaths, running_endpoint FROM mikrotik_backup.device_state")
                .fetch_all(&database.pool)
                .await
                .expect("look");
        assert_eq!(deaths, [(0, "2001:db8::e1 port 22".to_owned())]);
    }
}

/// For every address the mark has the text that all programs count at, whether SQL could tell it or not.
#[tokio::test]
async fn a_mark_says_where_its_connection_counts() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let store = database.store("one");
    for (host, port) in [
        ("192.0.2.7", None),
        (" [192.0.2.7.] ", Some(2222)),
        ("Edge-7.Example.", Some(-1)),
        ("192.0.2.07", Some(0)),
        ("2001:DB8::7", Some(22)),
        ("2001:db8:0:0:0:0:0:7", None),
        ("::ffff:192.0.2.7", Some(i32::MAX)),
        ("fe80::7%Ether1", None),
        ("R\u{d6}UTER.example", None),
        ("", None),
    ] {
        let device = NewDevice {
            ip_address: host.to_owned(),
            ssh_port: port,
            ..NewDevice::default()
        };
        let id = insert_device(&database.pool, device).await;
        let device = begin(&store, &claim(id, None, "one")).await.device;
        let marked: String = sqlx::query_scalar(
            "SELECT running_endpoint FROM mikrotik_backup.device_state WHERE device_id = $1",
        )
        .bind(id.0)
        .fetch_one(&database.pool)
        .await
        .expect("look");
        assert_eq!(marked, device.endpoint.counted_at(), "{host:?} {port:?}");
    }
}

/// Where a connection counts is told for one address: a row that has another one by then is asked again.
#[tokio::test]
async fn an_address_that_is_edited_between_two_questions_counts_where_it_is() {
    let Some(database) = fresh_database().await else {
        return;
    };
    database
        .sql(
            "CREATE SEQUENCE public.asked; \
             CREATE OR REPLACE FUNCTION mikrotik_backup.is_held(device uuid) RETURNS boolean \
             LANGUAGE plpgsql VOLATILE AS $$ BEGIN \
             IF nextval('public.asked') < 2 THEN \
                 UPDATE devices SET ip_address = '2001:0db8::00e3' WHERE id = device; \
             END IF; RETURN false; END $$",
        )
        .await;
    let device = NewDevice {
        ip_address: "2001:0db8::00e2".to_owned(),
        ..NewDevice::default()
    };
    let id = insert_device(&database.pool, device).await;
    let begun = begin(&database.store("one"), &claim(id, None, "one")).await;
    assert_eq!(begun.device.endpoint.host, "2001:0db8::00e3");
    let (marked, asked): (String, i64) = sqlx::query_as(
        "SELECT running_endpoint, (SELECT last_value FROM public.asked) \
         FROM mikrotik_backup.device_state",
    )
    .fetch_one(&database.pool)
    .await
    .expect("look");
    assert_eq!((marked.as_str(), asked), ("2001:db8::e3 port 22", 3));
}
