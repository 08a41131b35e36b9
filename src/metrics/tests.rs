//! Tests of the metrics page.

use super::definitions::DEFERRALS;
use super::*;
use crate::domain::failure::Failure;

fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(series))?;
    line.trim().parse().ok()
}

#[test]
fn every_label_value_of_the_contract_is_there_at_zero() {
    let page = Metrics::new().unwrap().render().unwrap();
    let statuses = [
        "success",
        "error",
        "skipped",
        "skipped_offline",
        "skipped_auth_blocked",
        "skipped_hostkey_blocked",
    ];
    let mut series: Vec<_> = statuses
        .iter()
        .map(|status| format!("mikrotik_config_backup_total{{status=\"{status}\"}}"))
        .collect();
    for status in ["obtained", "not_obtained", "error"] {
        series.push(format!("mikrotik_redis_lock_total{{status=\"{status}\"}}"));
    }
    for status in ["success", "error"] {
        series.push(format!(
            "mikrotik_nats_publish_total{{status=\"{status}\",subject=\"config_snapshot\"}}"
        ));
    }
    for kind in FailureKind::ALL {
        series.push(format!(
            "mikrotik_config_backup_failures_total{{kind=\"{kind}\"}}"
        ));
    }
    for step in Step::ALL {
        series.push(format!(
            "mikrotik_config_backup_stage_duration_seconds_count{{stage=\"{step}\"}}"
        ));
    }
    for le in ["1", "5", "10", "30", "60", "120", "300", "+Inf"] {
        series.push(format!(
            "mikrotik_config_backup_duration_seconds_bucket{{le=\"{le}\"}}"
        ));
    }
    series.push("mikrotik_config_backup_active".to_owned());
    for series in series {
        assert_eq!(value(&page, &series), Some(0.0), "{series}\n{page}");
    }
}

#[test]
fn each_event_is_counted_where_the_contract_says() {
    let metrics = Metrics::new().unwrap();
    let second = Duration::from_secs(1);
    let failed = Outcome::Failed(Failure::new(FailureKind::Timeout, "no answer"));
    metrics.finished(&failed, second);
    metrics.finished(
        &Outcome::Interrupted {
            reason: "stopped".into(),
        },
        second,
    );
    metrics.deferred(&Deferral::Offline);
    metrics.deferred(&Deferral::Contended);
    metrics.deferred(&Deferral::Gone);
    metrics.skipped(Skip::blocked_by(FailureKind::AuthFailed).unwrap());
    metrics.lock(LockResult::NotObtained);
    metrics.published(true);
    metrics.set_devices(&BTreeMap::from([(Condition::Ok, 3)]));
    metrics.set_devices(&BTreeMap::from([(Condition::Failing, 2)]));
    let running = metrics.attempt_running();
    let page = metrics.render().unwrap();
    for (series, expected) in [
        ("mikrotik_config_backup_total{status=\"error\"}", 1.0),
        ("mikrotik_config_backup_total{status=\"success\"}", 0.0),
        ("mikrotik_config_backup_total{status=\"skipped\"}", 1.0),
        (
            "mikrotik_config_backup_total{status=\"skipped_offline\"}",
            1.0,
        ),
        (
            "mikrotik_config_backup_total{status=\"skipped_auth_blocked\"}",
            1.0,
        ),
        (
            "mikrotik_config_backup_total{status=\"skipped_hostkey_blocked\"}",
            0.0,
        ),
        (
            "mikrotik_config_backup_failures_total{kind=\"timeout\"}",
            1.0,
        ),
        ("mikrotik_config_backup_interrupted_total", 1.0),
        (
            "mikrotik_config_backup_deferrals_total{reason=\"gone\"}",
            1.0,
        ),
        ("mikrotik_config_backup_duration_seconds_count", 2.0),
        ("mikrotik_redis_lock_total{status=\"not_obtained\"}", 1.0),
        ("mikrotik_config_backup_devices{state=\"ok\"}", 0.0),
        ("mikrotik_config_backup_devices{state=\"failing\"}", 2.0),
        ("mikrotik_config_backup_active", 1.0),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series}\n{page}");
    }
    drop(running);
    let page = metrics.render().unwrap();
    assert_eq!(value(&page, "mikrotik_config_backup_active"), Some(0.0));
    if cfg!(target_os = "linux") {
        assert!(value(&page, "process_open_fds").unwrap() > 2.0);
        assert!(value(&page, "process_resident_memory_bytes").unwrap() > 1e6);
    }
}

#[test]
fn only_blocking_kinds_are_counted_as_blocked() {
    for kind in FailureKind::ALL {
        assert_eq!(Skip::blocked_by(*kind).is_some(), kind.blocks(), "{kind}");
    }
}

#[test]
fn every_deferral_has_its_series_from_the_start() {
    let unavailable = Deferral::Unavailable {
        reason: String::new(),
    };
    for deferral in [
        Deferral::Offline,
        Deferral::Contended,
        Deferral::Gone,
        unavailable,
        Deferral::RateLimited {
            until: time::OffsetDateTime::UNIX_EPOCH,
            wait: Duration::ZERO,
        },
        Deferral::Stopping,
    ] {
        assert!(DEFERRALS.contains(&deferral.as_str()), "{deferral:?}");
    }
    assert!(DEFERRALS.contains(&"superseded"));
}
