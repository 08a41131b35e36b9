//! Tests of what a device is in, the screen, and the list of what failed.

use std::time::Duration;

use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::domain::attempt::{AttemptId, LastAttempt, Status};
use crate::domain::device::{CredentialSource, Endpoint};
use crate::domain::failure::Advice;
use crate::domain::host_key::Pin;

const NOW: Timestamp = datetime!(2026-07-01 12:00 UTC);
const INTERVAL: Duration = Duration::from_secs(6 * 3600);

fn untried(number: u128) -> DeviceStatus {
    DeviceStatus {
        device: Device {
            id: DeviceId(Uuid::from_u128(number)),
            tenant: TenantId(Uuid::nil()),
            name: format!("edge-{number}"),
            endpoint: Endpoint {
                host: "192.0.2.1".into(),
                port: 22,
            },
            credentials: CredentialSource::DeviceSealed(vec![1, 2, 3]),
            pin: Pin::Unpinned,
            routeros_version: None,
            settings: Default::default(),
        },
        last: None,
        error: None,
        failing_since: None,
        blocked_since: None,
        next_due: None,
        offered_key: None,
        running_since: None,
        incomplete_menus: Vec::new(),
        warning: None,
        weak_ssh: Vec::new(),
    }
}

fn tried(
    number: u128,
    success_hours_ago: Option<i64>,
    failed: Option<FailureKind>,
) -> DeviceStatus {
    let mut status = untried(number);
    let ended = NOW - time::Duration::HOUR;
    status.last = Some(LastAttempt {
        id: AttemptId(Uuid::from_u128(number)),
        started_at: ended - time::Duration::MINUTE,
        finished_at: ended,
        status: match failed {
            Some(_) => Status::Failed,
            None => Status::Success,
        },
        failure: failed,
        consecutive_failures: u32::from(failed.is_some()),
        revision: status.device.revision(),
        last_success_at: success_hours_ago.map(|hours| NOW - time::Duration::hours(hours)),
        deaths: 0,
    });
    if failed.is_some() {
        status.error = Some("an invented failure".into());
        status.failing_since = Some(ended - time::Duration::hours(4));
        status.next_due = Some(NOW + time::Duration::minutes(14));
    }
    if failed.is_some_and(FailureKind::blocks) {
        status.blocked_since = Some(ended - time::Duration::hours(3));
    }
    status
}

fn condition(status: &DeviceStatus) -> Condition {
    Condition::of(status, INTERVAL, NOW)
}

#[test]
fn every_device_is_in_one_condition() {
    use FailureKind::{AuthFailed, ConnectionRefused, TruncatedOutput};
    assert_eq!(condition(&untried(1)), Condition::Never);
    assert_eq!(condition(&tried(1, None, None)), Condition::Never);
    assert_eq!(condition(&tried(1, Some(12), None)), Condition::Ok);
    assert_eq!(condition(&tried(1, Some(13), None)), Condition::Stale);
    let failed = |kind| condition(&tried(1, Some(99), Some(kind)));
    assert_eq!(failed(TruncatedOutput), Condition::Failing);
    assert_eq!(failed(ConnectionRefused), Condition::Offline);
    assert_eq!(failed(AuthFailed), Condition::Blocked);
}

#[test]
fn a_report_counts_for_devices_that_are_not_tried() {
    let mut summary = Summary::new(INTERVAL, NOW);
    summary.add(&untried(1), Presence::Offline);
    summary.add(&tried(2, Some(13), None), Presence::Offline);
    summary.add(&tried(3, Some(13), None), Presence::Online);
    summary.add(&tried(4, Some(1), None), Presence::Offline);
    let failed = tried(5, Some(1), Some(FailureKind::AuthFailed));
    summary.add(&failed, Presence::Offline);
    let count = |condition| summary.conditions[&condition];
    assert_eq!(count(Condition::Offline), 2);
    assert_eq!(count(Condition::Stale), 1);
    assert_eq!(count(Condition::Ok), 1);
    assert_eq!(count(Condition::Blocked), 1);
}

#[test]
fn an_edit_that_answers_a_block_lifts_it_on_the_screen_too() {
    let mut status = tried(1, Some(1), Some(FailureKind::AuthFailed));
    status.device.pin = Pin::Unreadable("another pin".into());
    assert_eq!(condition(&status), Condition::Blocked, "no answer to this");
    status.device.credentials = CredentialSource::DeviceSealed(vec![4]);
    assert_eq!(condition(&status), Condition::Failing);
    let entry = Failed::of(&status, Advice::Sql).expect("it failed");
    assert!(entry.edited_since && !entry.blocked);
    assert_eq!(entry.remedy, None);
    assert!(render_failed(&[entry], NOW, false).contains("edited since; tried again soon"));
}

#[test]
fn the_screen_counts_names_the_oldest_and_the_reasons() {
    let mut summary = Summary::new(INTERVAL, NOW);
    summary.add(&untried(1), Presence::Unknown);
    summary.add(&tried(2, Some(1), None), Presence::Unknown);
    summary.add(&tried(3, Some(30), None), Presence::Unknown);
    summary.add(
        &tried(4, Some(72), Some(FailureKind::AuthFailed)),
        Presence::Unknown,
    );
    summary.add(
        &tried(5, Some(2), Some(FailureKind::Unreachable)),
        Presence::Unknown,
    );
    summary.add(
        &tried(6, Some(2), Some(FailureKind::Unreachable)),
        Presence::Unknown,
    );
    let expected = "\
6 devices, backed up every 6 h

  ok       1
  stale    1  no success for more than 12 h, and no failure either
  offline  2  not reached, or reported offline
  failing  0
  blocked  1  waiting for an operator
  never    1  not tried yet

Oldest success: edge-4, 3 d ago (2026-06-28T12:00:00Z)
Reasons:
  2  unreachable
  1  auth_failed
";
    assert_eq!(summary.render(false), expected);
    assert!(summary.render(true).contains("\x1b[31mblocked  1\x1b[0m"));
    let json = serde_json::to_value(&summary).expect("JSON");
    assert_eq!(json["conditions"]["failing"], 0, "every condition is there");
    assert_eq!(json["interval_seconds"], 21_600);
    assert_eq!(json["reasons"][0]["kind"], "unreachable");
    assert_eq!(json["oldest_success"]["at"], "2026-06-28T12:00:00Z");
}

#[test]
fn what_is_odd_about_devices_that_are_backed_up_is_remarked() {
    let mut summary = Summary::new(INTERVAL, NOW);
    let mut incomplete = tried(1, Some(1), None);
    incomplete.incomplete_menus = vec!["/ipv6/route".into()];
    summary.add(&incomplete, Presence::Unknown);
    for number in 2..9 {
        let mut weak = tried(number, Some(1), None);
        weak.weak_ssh = vec!["hmac-sha1".into()];
        summary.add(&weak, Presence::Unknown);
    }
    summary.add(&tried(9, Some(1), None), Presence::Unknown);
    let screen = summary.render(false);
    let remarks = "\
Remarks (devices show NAME tells more):
  1  the last export lacks menus that the router could not export: edge-1
  7  weak SSH algorithms in the last session (check NAME says what helps): edge-2, edge-3, edge-4, edge-5, edge-6 \
and 2 more
";
    assert!(screen.ends_with(remarks), "{screen}");
    let json = serde_json::to_value(&summary).expect("JSON");
    assert_eq!(json["remarks"][0]["kind"], "incomplete");
    assert_eq!(json["remarks"][1]["devices"], 7);
}

#[test]
fn failures_say_since_when_and_what_comes_next() {
    let entries: Vec<_> = [
        untried(1),
        tried(2, Some(5), None),
        tried(3, Some(5), Some(FailureKind::Timeout)),
        tried(4, Some(5), Some(FailureKind::HostKeyMismatch)),
    ]
    .iter()
    .filter_map(|status| Failed::of(status, Advice::Commands))
    .collect();
    let expected = "\
edge-3 (192.0.2.1:22)  timeout  for 5 h  1 failure  next try in 14 min
    an invented failure
edge-4 (192.0.2.1:22)  host_key_mismatch  for 4 h  1 failure  blocked until an operator acts
    an invented failure
    what to do: find out why the host key changed; if the change is genuine, `mikrotik-backup \
host-key show edge-4` tells how to accept it
";
    assert_eq!(render_failed(&entries, NOW, false), expected);
    assert_eq!(render_failed(&[], NOW, false), "nothing has failed\n");
    let json = serde_json::to_value(&entries).expect("JSON");
    assert_eq!(json[0]["next_try_at"], "2026-07-01T12:14:00Z");
    assert_eq!(json[1]["next_try_at"], serde_json::Value::Null);
    assert_eq!(json[1]["blocked"], true);
}

#[test]
fn what_to_do_is_said_once() {
    let mut status = tried(4, Some(5), Some(FailureKind::HostKeyMismatch));
    let device = &status.device;
    let remedy = FailureKind::HostKeyMismatch.remedy(Advice::Sql, device.id, &device.name);
    let remedy = remedy.expect("it blocks");
    status.error = Some(format!("pinned host key is another; {remedy}"));
    let entry = Failed::of(&status, Advice::Sql).expect("it failed");
    assert_eq!(entry.error, "pinned host key is another");
    assert_eq!(entry.remedy, Some(remedy.clone()));
    let entry = Failed::of(&status, Advice::Commands).expect("it failed");
    assert!(!render_failed(&[entry], NOW, false).contains("UPDATE devices"));
    // Another kind may say the same words.
    let mut status = tried(4, Some(5), Some(FailureKind::Timeout));
    status.error = Some(remedy.clone());
    let entry = Failed::of(&status, Advice::Sql).expect("it failed");
    assert_eq!(entry.error, remedy);
}

#[test]
fn names_cannot_steer_the_terminal() {
    let mut status = tried(1, Some(1), Some(FailureKind::Unknown));
    status.device.name = "\x1b[2J".into();
    status.error = Some("said \x1b]0;x\x07".into());
    let entry = Failed::of(&status, Advice::Sql).expect("it failed");
    assert!(!render_failed(&[entry], NOW, false).contains('\x1b'));
    let mut summary = Summary::new(INTERVAL, NOW);
    summary.add(&status, Presence::Unknown);
    assert!(!summary.render(false).contains('\x1b'));
}
