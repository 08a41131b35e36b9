//! One row of the table against what was stored, logged, counted and published.

use mikrotik_backup::domain::attempt::Step;
use mikrotik_backup::domain::failure::FailureKind;
use mikrotik_backup::sim::{Fault, SECRET_MARK};
use sqlx::Row as _;
use uuid::Uuid;

use super::table::{LARGE, Row, THAT_STALL, Then};
use super::{Case, INTERVAL};
use crate::cluster::harness::{Cluster, Replica};

/// How far the phase of a device may move its interval.
const PHASE: f64 = 0.05;
/// What an attempt may take beyond its SSH session on a busy machine, in seconds.
const MARGIN: f64 = 5.0;

/// What a failure must leave as it is.
#[derive(Clone, PartialEq, Debug)]
pub struct Good {
    hash: String,
    bytes: i64,
    version: String,
    success_at: time::OffsetDateTime,
    shape: serde_json::Value,
    secrets: i64,
    pin: String,
}

/// What the last attempt stored.
#[derive(Debug)]
struct Stored {
    status: String,
    kind: Option<String>,
    error: Option<String>,
    failures: i32,
    blocked: bool,
    offered: Option<String>,
    /// Seconds from start to end, from start to the next due time, and from end to it.
    took: f64,
    due_after_start: f64,
    due_after_end: f64,
    steps: Vec<String>,
}

pub async fn good(cluster: &Cluster, device: Uuid) -> Good {
    let row = sqlx::query(
        "SELECT last_hash, last_bytes, s.routeros_version, last_success_at, menu_digests, \
         secret_count, ssh_host_key_fingerprint FROM mikrotik_backup.device_state s \
         JOIN devices ON id = device_id WHERE device_id = $1",
    )
    .bind(device)
    .fetch_one(cluster.pool())
    .await
    .expect("read the good state");
    Good {
        hash: row.get(0),
        bytes: row.get(1),
        version: row.get(2),
        success_at: row.get(3),
        shape: row.get(4),
        secrets: row.get(5),
        pin: row.get(6),
    }
}

async fn stored(cluster: &Cluster, device: Uuid) -> Stored {
    let row = sqlx::query(
        "SELECT s.status, s.error_kind, s.error, s.consecutive_failures, \
         s.blocked_since IS NOT NULL AS blocked, s.offered_fingerprint, \
         extract(epoch FROM a.finished_at - a.started_at)::float8 AS took, \
         extract(epoch FROM s.next_due - a.started_at)::float8 AS due_after_start, \
         extract(epoch FROM s.next_due - a.finished_at)::float8 AS due_after_end, \
         (SELECT array_agg(step ORDER BY ordinal) FROM mikrotik_backup.attempt_steps \
          WHERE attempt_id = a.id) AS steps \
         FROM mikrotik_backup.device_state s JOIN mikrotik_backup.attempts a \
         ON a.id = s.last_attempt_id AND a.status = s.status \
         AND a.error_kind IS NOT DISTINCT FROM s.error_kind \
         AND a.error IS NOT DISTINCT FROM s.error AND a.replica = 'faulty' \
         WHERE s.device_id = $1",
    )
    .bind(device)
    .fetch_one(cluster.pool())
    .await
    .expect("state and journal tell the same about the last attempt");
    Stored {
        status: row.get("status"),
        kind: row.get("error_kind"),
        error: row.get("error"),
        failures: row.get("consecutive_failures"),
        blocked: row.get("blocked"),
        offered: row.get("offered_fingerprint"),
        took: row.get("took"),
        due_after_start: row.get("due_after_start"),
        due_after_end: row.get("due_after_end"),
        steps: row.get("steps"),
    }
}

/// One row of the table against what is stored and logged.
pub async fn compare(cluster: &Cluster, replica: &Replica, case: &Case, timeout: f64) {
    let Case { row, router, .. } = case;
    let now = stored(cluster, case.device).await;
    let what = format!("{}: {now:?}", row.fault);
    assert_eq!(now.kind.as_deref(), row.kind, "{what}");
    let failed = row.kind.is_some();
    assert_eq!(
        now.status,
        if failed { "failed" } else { "success" },
        "{what}"
    );
    assert_eq!(now.failures, i32::from(failed), "{what}");
    assert_eq!(now.blocked, row.then == Then::Blocked, "{what}");
    let interval = INTERVAL * (1.0 - PHASE) - 1.0..INTERVAL * (1.0 + PHASE) + 1.0;
    match row.then {
        // Five minutes, and up to a tenth of jitter.
        Then::Retry => assert!((299.0..332.0).contains(&now.due_after_end), "{what}"),
        Then::Interval | Then::Blocked => {
            assert!(interval.contains(&now.due_after_start), "{what}")
        }
    }
    let steps: Vec<_> = Step::ALL.iter().map(|step| step.as_str()).collect();
    let last = steps.iter().position(|step| *step == row.step);
    let last = last.expect("a step");
    let expected = match row.twice {
        true => {
            let of = |step| Step::ALL.iter().position(|known| *known == step);
            let (export, normalise) = (of(Step::Export), of(Step::Normalise));
            let (export, normalise) = export.zip(normalise).expect("both are steps");
            [&steps[..=normalise], &steps[export..=last]].concat()
        }
        false => steps[..=last].to_vec(),
    };
    assert_eq!(now.steps, expected, "{what}");
    assert!(now.took < timeout + MARGIN, "{what}");
    if THAT_STALL
        .iter()
        .any(|stalling| stalling.fault == row.fault)
    {
        assert!(now.took > timeout * 0.9, "ended before its time: {what}");
    }
    // One while it was well.
    assert_eq!(
        router.stats().password_attempts,
        1 + row.passwords,
        "{what}"
    );
    if !failed {
        assert_eq!((&now.error, &now.offered), (&None, &None), "{what}");
        return;
    }
    assert_eq!(good(cluster, case.device).await, case.good, "{what}");
    let error = now.error.as_deref().expect("a failure has a text");
    assert!(error.contains(row.says), "{what}");
    assert!(!error.contains(SECRET_MARK), "{what}");
    if row.fault == Fault::RotateHostKey {
        let offered = now.offered.as_deref().expect("what it offered is stored");
        assert_ne!(offered, case.good.pin, "{what}");
        assert!(
            error.contains(offered) && error.contains(&case.good.pin),
            "{what}"
        );
    }
    compare_log(replica, case, error);
}

/// The log has one line about the failure, with its kind and the text that is stored, in which
/// an operator finds the remedy.
fn compare_log(replica: &Replica, case: &Case, error: &str) {
    let events = replica.events();
    let device = case.device.to_string();
    let mut of_device = events
        .iter()
        .filter(|event| event["device.id"] == device.as_str() && event["level"] == "warn");
    let event = of_device
        .next()
        .unwrap_or_else(|| panic!("no warning about {}:\n{}", case.row.fault, replica.log()));
    let what = format!("{}: {event}", case.row.fault);
    assert!(of_device.next().is_none(), "one warning: {what}");
    assert_eq!(
        event["failure.kind"],
        case.row.kind.expect("it failed"),
        "{what}"
    );
    assert_eq!(event["error"], error, "{what}");
    let sql = match case.row.kind {
        Some("auth_failed") => "UPDATE devices SET encrypted_credentials = ",
        Some("host_key_mismatch") => {
            "UPDATE devices SET ssh_host_key_fingerprint = NULL WHERE id = "
        }
        _ => return assert!(!error.contains("UPDATE devices"), "{what}"),
    };
    assert!(error.contains(sql) && error.contains(&device), "{what}");
}

/// What was published in spite of the fault is all of the export.
pub fn is_whole(case: &Case, text: &str) {
    let fault = case.row.fault;
    let name = case.router.name();
    assert!(
        text.contains(&format!("/system identity\nset name={name}\n")),
        "{fault}"
    );
    assert!(
        text.ends_with("}\\r\\n\"\n") || text.ends_with("\"\n"),
        "{fault}: the last item"
    );
    let secrets = fault != Fault::SecretsWithheld;
    assert_eq!(text.contains(SECRET_MARK), secrets, "{fault}");
    let large = matches!(fault, Fault::Size(_) | Fault::LoseTail | Fault::LoseTailFar);
    if large {
        assert!(
            text.len() as u64 > LARGE - 100_000,
            "{fault}: {}",
            text.len()
        );
    }
    let exports = 2 + u64::from(case.row.twice);
    assert_eq!(case.router.stats().exports_whole, exports, "{fault}");
}

pub async fn compare_metrics(replica: &Replica, rows: &[Row]) {
    let count =
        |wanted: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| wanted(row)).count() as f64;
    for kind in FailureKind::ALL {
        let series = format!("mikrotik_config_backup_failures_total{{kind=\"{kind}\"}}");
        let expected = count(&|row| row.kind == Some(kind.as_str()));
        assert_eq!(replica.metric(&series).await, expected, "{series}");
    }
    for (series, expected) in [
        (
            "mikrotik_config_backup_total{status=\"error\"}",
            count(&|row| row.kind.is_some()),
        ),
        (
            "mikrotik_config_backup_total{status=\"success\"}",
            count(&|row| row.kind.is_none()),
        ),
        (
            "mikrotik_config_backup_duration_seconds_count",
            count(&|_| true),
        ),
        (
            "mikrotik_redis_lock_total{status=\"obtained\"}",
            count(&|_| true),
        ),
        (
            "mikrotik_config_backup_devices{state=\"blocked\"}",
            count(&|row| row.then == Then::Blocked),
        ),
        (
            "mikrotik_config_backup_devices{state=\"failing\"}",
            count(&|row| row.then == Then::Retry),
        ),
        (
            "mikrotik_nats_publish_total{status=\"error\",subject=\"config_snapshot\"}",
            count(&|row| row.kind == Some("publish_failed")),
        ),
    ] {
        assert_eq!(replica.metric(series).await, expected, "{series}");
    }
}
