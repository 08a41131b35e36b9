//! What is made of an export beside those before it, against a simulated router.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::tests::{GENEROUS, ask, attempt, device_at, only_record, world};
use crate::domain::attempt::{AttemptId, AttemptRecord, Outcome};
use crate::domain::device::Device;
use crate::domain::session::{DeviceSettings, SshAlgorithms};
use crate::fleet::fakes::{World, id, told};
use crate::routeros::Normalizer;
use crate::sim::{Fault, Router, RouterOptions, SshProfile};

pub(in crate::fleet::attempt) fn router(options: RouterOptions) -> Router {
    Router::start_one(options).expect("a free port")
}

/// Makes one more attempt, and returns its record.
pub(in crate::fleet::attempt) async fn again(world: &World, device: &Device) -> AttemptRecord {
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

pub(in crate::fleet::attempt) fn message(record: &AttemptRecord) -> &str {
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
async fn menus_that_fail_in_turn_are_done_without_at_the_sixth_export() {
    let router = router(RouterOptions::default());
    let device = device_at(&router);
    let world = world(&device);
    let export = |menu: &str| {
        let header = "# 2026-01-02 03:04:05 by RouterOS 7.16.2\r\n";
        let rest = "/system identity\r\nset name=edge\r\n";
        format!("{header}#error exporting \"{menu}\" (timeout)\r\n{rest}").into_bytes()
    };
    let waits = async |menu: &str, left: u32| {
        router.answer_exports_with([export(menu)]);
        let record = again(&world, &device).await;
        assert_eq!(told(&record), "truncated_output");
        let text = message(&record);
        assert!(text.ends_with(&format!(": {left} more")), "{text}");
    };
    let takes = async |menu: &str| {
        router.answer_exports_with([export(menu)]);
        let record = again(&world, &device).await;
        let taken = record.outcome.taken().expect("a snapshot").clone();
        assert_eq!(taken.incomplete_menus, [menu], "what it lacks itself");
    };
    for _ in 0..2 {
        // Each of them was exported in one of the last three.
        for (menu, left) in [
            ("/ipv6/route", 2),
            ("/ip/pool", 2),
            ("/ipv6/route", 2),
            ("/ip/pool", 2),
            ("/ipv6/route", 1),
        ] {
            waits(menu, left).await;
        }
        takes("/ip/pool").await;
        // That one is waited for no more, and another one is.
        takes("/ip/pool").await;
        waits("/ipv6/route", 2).await;
        waits("/ipv6/route", 1).await;
        takes("/ipv6/route").await;
        router.answer_exports_with([]);
        assert_eq!(told(&again(&world, &device).await), "success");
    }
}

#[tokio::test]
async fn weak_algorithms_are_recorded_and_counted() {
    for (profile, weak) in [
        (
            SshProfile::V6,
            &["diffie-hellman-group14-sha1", "ssh-rsa", "hmac-sha1"][..],
        ),
        (SshProfile::V6Strong, &["ssh-rsa"]),
        (
            SshProfile::V7WithoutGcm,
            &["diffie-hellman-group14-sha1", "hmac-sha1"],
        ),
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
pub(in crate::fleet::attempt) async fn known(router: &Router) -> (World, Device) {
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
    assert!(text.contains("read again, and did not end"), "{text}");
    assert!(
        record.elapsed < Duration::from_secs(8),
        "{:?}",
        record.elapsed
    );
}

#[tokio::test]
async fn a_first_export_with_nothing_in_it_is_read_twice() {
    let router = router(RouterOptions::default());
    let device = device_at(&router);
    let read = |name| std::fs::read(corpus().join(name)).expect("an export");
    let empty = read("empty-6.49.10.rsc");
    router.answer_exports_with([empty.clone(), read("rb-5.26.rsc")]);
    let world1 = world(&device);
    let record = again(&world1, &device).await;
    assert_eq!(told(&record), "truncated_output");
    assert!(message(&record).contains("nothing in the export but its header"));

    router.answer_exports_with([empty]);
    let world2 = world(&device);
    let record = again(&world2, &device).await;
    let taken = record.outcome.taken().expect("a snapshot").clone();
    assert!(taken.warning.is_some());
    let record = again(&world2, &device).await;
    let taken = record.outcome.taken().expect("a snapshot").clone();
    assert_eq!(taken.warning, None, "it is what this router has");
}

#[tokio::test]
async fn lines_that_should_not_be_there_are_published_when_they_come_twice() {
    let router = router(RouterOptions::default());
    let device = device_at(&router);
    let whole = std::fs::read(corpus().join("rb-5.26.rsc")).expect("an export");
    let with = |line: &str| [whole.as_slice(), line.as_bytes()].concat();
    let stray = with("Connection closed by admin\nout of memory\n");

    // Nothing is remembered of this router, and what comes by chance does not come twice.
    for second in [whole.clone(), with("Connection closed by admin\n")] {
        router.answer_exports_with([stray.clone(), second]);
        let world = world(&device);
        let record = again(&world, &device).await;
        assert_eq!(told(&record), "truncated_output");
        let text = message(&record);
        assert!(
            text.starts_with("2 lines of the export are neither"),
            "{text}"
        );
        assert!(text.contains("read again, and was another one"), "{text}");
        assert!(world.sink.taken().is_empty());
    }

    let begun = router.stats().exports_begun;
    router.answer_exports_with([stray]);
    let world = world(&device);
    for attempts in 1..=2 {
        let record = again(&world, &device).await;
        let taken = record.outcome.taken().expect("a snapshot");
        let warning = taken.warning.as_deref().expect("a suspicion");
        assert!(warning.starts_with("2 lines of the export"), "{warning}");
        assert_eq!(router.stats().exports_begun, begun + 2 * attempts);
    }
    let published = world.sink.taken();
    assert!(published[1].text.expose().contains("\nout of memory\n"));
}

#[tokio::test]
async fn a_comment_at_the_end_is_a_cut_until_the_operator_ignores_it() {
    let router = router(RouterOptions::default());
    let device = device_at(&router);
    let mut text = std::fs::read(corpus().join("rb-5.26.rsc")).expect("an export");
    text.extend_from_slice(b"# radar detected\n");
    router.answer_exports_with([text]);
    let strict = world(&device);
    let record = again(&strict, &device).await;
    assert_eq!(told(&record), "truncated_output");
    assert!(message(&record).contains("state comment of an item"));

    let mut lenient = world(&device);
    let context = Arc::get_mut(&mut lenient.context).expect("not shared yet");
    context.normalizer = Normalizer::ignoring("^# radar detected$").expect("a pattern");
    let record = again(&lenient, &device).await;
    assert_eq!(told(&record), "success");
    let taken = lenient.sink.taken();
    let ignored = taken[0].ledger.get("ignored: ^# radar detected$");
    assert_eq!(ignored, Some(&1));
}

/// The rows of a table in `tests/fixtures/corpus`, by the names of its columns.
fn table(path: &Path) -> Vec<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).expect("a table of the corpus");
    let mut rows = text.lines().map(|line| line.split('\t').map(str::to_owned));
    let names: Vec<String> = rows.next().expect("its head").collect();
    let rows = rows.map(|row| names.iter().cloned().zip(row).collect());
    rows.collect()
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/corpus")
}

#[tokio::test]
async fn whatever_a_router_answers_is_taken_or_refused_in_its_own_words() {
    let router = router(RouterOptions::default());
    let mut device = device_at(&router);
    let mut refused = 0;
    for row in table(&corpus().join("INDEX.tsv")) {
        let (name, words) = (&row["file"], &row["words"]);
        router.answer_exports_with([std::fs::read(corpus().join(name)).expect(name)]);
        // Nothing is known of this router: what comes is judged for itself.
        device.routeros_version = None;
        let world = world(&device);
        let record = again(&world, &device).await;
        match (row["expected"].as_str(), row["incomplete"].as_str()) {
            ("accepted", "" | "-") => {
                let said = record.outcome.failure().map(ToString::to_string);
                assert_eq!(told(&record), "success", "{name}: {said:?}");
                assert_eq!(world.sink.taken().len(), 1, "{name}");
            }
            ("accepted", menu) => {
                assert_eq!(told(&record), "truncated_output", "{name}");
                let said = format!("could not export {menu};");
                assert!(message(&record).contains(&said), "{name}");
            }
            (doubted, _) if doubted.starts_with("suspect: ") => {
                let taken = record.outcome.taken().expect(name);
                assert!(taken.warning.is_some(), "{name}");
                assert_eq!(world.sink.taken().len(), 1, "{name}");
            }
            (expected, _) => {
                refused += 1;
                let kind = expected.strip_prefix("refused ").expect(name);
                assert_eq!(told(&record), kind, "{name}: {}", message(&record));
                let text = message(&record);
                assert!(text.contains(words.as_str()), "{name}: {text}");
                assert!(!text.contains("example-only"), "{name}: {text}");
                assert!(world.sink.taken().is_empty(), "{name}");
            }
        }
    }
    assert!(refused > 30, "only {refused} refused");
}

#[tokio::test]
async fn two_exports_in_a_row_are_compared_as_labelled() {
    let router = router(RouterOptions::default());
    let device = device_at(&router);
    for row in table(&corpus().join("pairs/INDEX.tsv")) {
        let (name, label) = (&row["pair"], row["expected"].as_str());
        let read = |side| {
            let path = corpus().join(format!("pairs/{name}.{side}.rsc"));
            std::fs::read(path).expect(name)
        };
        router.answer_exports_with([read("a")]);
        let world = world(&device);
        assert_eq!(told(&again(&world, &device).await), "success", "{name}");
        // Whoever reads it a second time gets the whole one.
        let rejected = label.contains("must be rejected");
        router.answer_exports_with(match rejected {
            true => vec![read("b"), read("a")],
            false => vec![read("b")],
        });
        let record = again(&world, &device).await;
        let hashes: Vec<_> = world.sink.taken().iter().map(|s| s.hash).collect();
        let warning = record.outcome.taken().and_then(|t| t.warning.clone());
        match label {
            _ if rejected => {
                assert_eq!(told(&record), "truncated_output", "{name}");
                assert_eq!(hashes.len(), 1, "{name}: nothing was published");
            }
            _ if label.starts_with("suspect:") => {
                assert_eq!(told(&record), "success", "{name}");
                assert!(warning.is_some(), "{name}");
            }
            "different" | "device-side reorder" if hashes.len() == 1 => {
                let text = message(&record);
                assert!(text.contains("could not export"), "{name}: {text}");
            }
            "different" | "device-side reorder" => assert_ne!(hashes[0], hashes[1], "{name}"),
            _ => {
                assert_eq!(told(&record), "success", "{name}");
                assert_eq!(hashes[0], hashes[1], "{name}");
            }
        }
    }
}
