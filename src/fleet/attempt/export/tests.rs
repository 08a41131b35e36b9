//! What is made of an export beside those before it, against a simulated router.

use std::time::Duration;

use super::super::tests::{GENEROUS, ask, attempt, device_at, only_record, world};
use crate::domain::attempt::{AttemptId, AttemptRecord, Outcome};
use crate::domain::device::Device;
use crate::domain::session::{DeviceSettings, SshAlgorithms};
use crate::fleet::fakes::{World, id, told};
use crate::sim::{Fault, Router, RouterOptions, SshProfile};

fn router(options: RouterOptions) -> Router {
    Router::start_one(options).expect("a free port")
}

/// Makes one more attempt, and returns its record.
async fn again(world: &World, device: &Device) -> AttemptRecord {
    let last = world.store.state().last.get(&device.id).map(|last| last.id);
    again_after(world, device, last).await
}

async fn again_after(world: &World, device: &Device, last: Option<AttemptId>) -> AttemptRecord {
    let attempt = world.context.attempt(ask(world, device, last));
    let report = tokio::time::timeout(GENEROUS, attempt).await;
    let made = report.expect("it ends").made;
    let records = world.store.state().records.clone();
    let last = records.last().expect("a record").clone();
    assert_eq!(Some(last.id), made);
    last
}

fn message(record: &AttemptRecord) -> &str {
    match &record.outcome {
        Outcome::Failed(failure) => &failure.message,
        other => panic!("no failure: {other:?}"),
    }
}

#[tokio::test]
async fn menus_that_fail_three_times_in_a_row_are_done_without() {
    let router = router(RouterOptions::default());
    let device = device_at(&router);
    let world = world(&device);
    router.set_fault(Fault::MenuTimeout);
    for left in [2, 1] {
        let record = again(&world, &device).await;
        assert_eq!(told(&record), "truncated_output");
        let text = message(&record);
        assert!(text.contains("/ipv6/route"), "{text}");
        assert!(text.ends_with(&format!("{left} more")), "{text}");
    }
    // A failure that comes to no export says nothing of menus.
    router.set_fault_for(Fault::AcceptAndClose, 1);
    assert_eq!(told(&again(&world, &device).await), "connection_lost");
    assert!(world.sink.taken().is_empty());

    router.set_fault(Fault::MenuTimeout);
    for _ in 0..2 {
        let record = again(&world, &device).await;
        let taken = record.outcome.taken().expect("a snapshot").clone();
        assert_eq!(taken.incomplete_menus, ["/ipv6/route"]);
    }
    let published = world.sink.taken();
    assert_eq!(published.len(), 2);
    assert_eq!(published[0].incomplete_menus, ["/ipv6/route"]);
    assert_eq!(world.metric("mikrotik_config_backup_incomplete_total"), 2.0);

    // It answers again: the row is over, and begins anew.
    router.clear_fault();
    let record = again(&world, &device).await;
    let taken = record.outcome.taken().expect("a snapshot");
    assert_eq!(taken.incomplete_menus, Vec::<String>::new());
    router.set_fault(Fault::MenuTimeout);
    assert_eq!(told(&again(&world, &device).await), "truncated_output");
}

#[tokio::test]
async fn weak_algorithms_are_recorded_and_counted() {
    for (profile, weak) in [
        (
            SshProfile::V6,
            &["diffie-hellman-group14-sha1", "ssh-rsa", "hmac-sha1"][..],
        ),
        (SshProfile::V6Strong, &["ssh-rsa"]),
        (SshProfile::V7, &["diffie-hellman-group14-sha1"]),
        (SshProfile::V7Strong, &[]),
        (SshProfile::Modern, &[]),
    ] {
        let router = router(RouterOptions {
            profile,
            ..RouterOptions::default()
        });
        let device = device_at(&router);
        let world = world(&device);
        attempt(&world, &device).await;
        let (record, told) = only_record(&world);
        assert_eq!(told, "success", "{profile:?}");
        let names: Vec<_> = record.observed.weak_ssh.iter().flatten().collect();
        let names: Vec<_> = names.iter().map(|weak| weak.name.as_str()).collect();
        assert_eq!(names, weak, "{profile:?}");
        let kex = world.metric("mikrotik_config_backup_weak_ssh_total{part=\"kex\"}");
        assert_eq!(kex == 1.0, weak.iter().any(|name| name.contains("group14")));
    }
}

#[tokio::test]
async fn a_device_that_may_be_offered_modern_algorithms_only_is_not_reached_with_others() {
    let router = router(RouterOptions {
        profile: SshProfile::V6,
        ..RouterOptions::default()
    });
    let mut device = device_at(&router);
    device.settings = DeviceSettings {
        ssh_algorithms: Some(SshAlgorithms::Modern),
        ..DeviceSettings::default()
    };
    let world = world(&device);
    attempt(&world, &device).await;
    let (record, told) = only_record(&world);
    assert_eq!(told, "no_common_algorithm");
    assert_eq!(record.observed.weak_ssh, None, "nothing was agreed on");
}

#[tokio::test]
async fn a_device_with_a_shorter_timeout_is_given_up_sooner() {
    let router = router(RouterOptions::default());
    router.set_fault(Fault::StallBeforeOutput);
    let mut device = device_at(&router);
    device.settings.command_timeout = Some(Duration::from_secs(1));
    let world = world(&device);
    attempt(&world, &device).await;
    let (record, told) = only_record(&world);
    assert_eq!(told, "timeout");
    assert!(
        record.elapsed < Duration::from_secs(8),
        "{:?}",
        record.elapsed
    );
    assert!(!world.store.state().running.contains_key(&id(1)));
}

/// A world in which one good export has been taken.
async fn known(router: &Router) -> (World, Device) {
    let device = device_at(router);
    let world = world(&device);
    assert_eq!(told(&again(&world, &device).await), "success");
    (world, device)
}

#[tokio::test]
async fn an_export_that_lost_its_tail_is_read_again_and_refused() {
    let router = router(RouterOptions::default());
    let (world, device) = known(&router).await;
    let connections = router.stats().connections;
    router.set_fault(Fault::CutOnce);
    let record = again(&world, &device).await;
    assert_eq!(told(&record), "truncated_output");
    let text = message(&record);
    assert!(text.contains("read again, and was another one"), "{text}");
    let stats = router.stats();
    assert_eq!(stats.connections, connections + 1, "on the same connection");
    assert_eq!(stats.exports_begun, 3);
    assert_eq!(world.sink.taken().len(), 1, "the cut one was not published");
    let refuted = "mikrotik_config_backup_suspicions_total{result=\"refuted\"}";
    assert_eq!(world.metric(refuted), 1.0);
}

#[tokio::test]
async fn what_the_router_says_twice_is_published_with_a_warning() {
    let router = router(RouterOptions::default());
    let (world, device) = known(&router).await;
    router.set_fault(Fault::Cut);
    let record = again(&world, &device).await;
    let taken = record.outcome.taken().expect("a snapshot");
    let warning = taken.warning.as_deref().expect("a suspicion");
    assert!(
        warning.contains("ends in") || warning.contains("gone"),
        "{warning}"
    );
    let steps: Vec<_> = record.steps.iter().map(|step| step.step.as_str()).collect();
    assert_eq!(
        steps[steps.len() - 5..],
        ["export", "normalise", "export", "normalise", "publish"]
    );
    let confirmed = "mikrotik_config_backup_suspicions_total{result=\"confirmed\"}";
    assert_eq!(world.metric(confirmed), 1.0);
    // It is the last good one now: the same again raises no suspicion.
    let record = again(&world, &device).await;
    let taken = record.outcome.taken().expect("a snapshot");
    assert_eq!(taken.warning, None);
}

#[tokio::test]
async fn secrets_that_are_gone_at_once_name_the_policy() {
    let router = router(RouterOptions::default());
    let (world, device) = known(&router).await;
    router.set_fault(Fault::SecretsWithheld);
    let record = again(&world, &device).await;
    let taken = record.outcome.taken().expect("a snapshot");
    let warning = taken.warning.as_deref().expect("a suspicion");
    assert!(warning.contains("\"sensitive\""), "{warning}");
}

#[tokio::test]
async fn a_second_reading_has_no_more_time_than_the_session() {
    let router = router(RouterOptions::default());
    let (world, mut device) = known(&router).await;
    router.set_fault(Fault::CutThenStall);
    device.settings.command_timeout = Some(Duration::from_secs(2));
    world.store.state().put(device.clone());
    let record = again(&world, &device).await;
    assert_eq!(told(&record), "truncated_output");
    let text = message(&record);
    assert!(text.contains("read again, which failed"), "{text}");
    assert!(
        record.elapsed < Duration::from_secs(8),
        "{:?}",
        record.elapsed
    );
}
