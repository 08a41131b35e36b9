//! What becomes of exports that look cut and are not confirmed, against a simulated router.

use std::time::Duration;

use super::super::export::tests::{again, known, message, router};
use super::*;
use crate::domain::attempt::AttemptRecord;
use crate::domain::device::Device;
use crate::fleet::fakes::{World, told};
use crate::sim::{Fault, Router, RouterOptions};

fn counted(world: &World) -> [f64; 4] {
    ["confirmed", "recurring", "unconfirmed", "refuted"].map(|result| {
        world.metric(&format!(
            "mikrotik_config_backup_suspicions_total{{result=\"{result}\"}}"
        ))
    })
}

fn warning(record: &AttemptRecord) -> &str {
    let taken = record.outcome.taken().expect("a snapshot");
    taken.warning.as_deref().expect("a suspicion")
}

/// Makes an attempt that sees a suspect and waits for `left` more.
async fn unconfirmed(world: &World, device: &Device, left: u32) -> AttemptRecord {
    let record = again(world, device).await;
    assert_eq!(told(&record), "truncated_output");
    let text = message(&record);
    assert!(text.ends_with(&format!(": {left} more")), "{text}");
    record
}

#[tokio::test]
async fn a_router_that_has_no_time_for_a_second_reading_is_believed_at_the_third_attempt() {
    let router = router(RouterOptions::default());
    let (world, mut device) = known(&router).await;
    // One reading fits into the time, two do not.
    router.set_fault(Fault::SecretsWithheld);
    router.set_delay(Duration::from_millis(1700));
    device.settings.command_timeout = Some(Duration::from_secs(3));
    world.store.state().put(device.clone());
    let first = unconfirmed(&world, &device, 2).await;
    assert!(message(&first).contains("a longer command timeout"));
    // What comes to no export says nothing.
    router.set_fault_for(Fault::AcceptAndClose, 1);
    assert_eq!(told(&again(&world, &device).await), "connection_lost");
    router.set_fault(Fault::SecretsWithheld);
    unconfirmed(&world, &device, 1).await;
    assert_eq!(world.sink.taken().len(), 1);

    let third = again(&world, &device).await;
    let words = warning(&third);
    assert!(words.contains("\"sensitive\""), "{words}");
    assert!(words.ends_with("read in 3 attempts in a row"), "{words}");
    assert_eq!(world.sink.taken().len(), 2);
    assert_eq!(counted(&world), [0.0, 1.0, 2.0, 0.0]);
    let kept = world.store.state().suspects.get(&device.id).cloned();
    assert_eq!(kept, Some(Recurrence::default()));
    // It is the last good one now.
    let record = again(&world, &device).await;
    let taken = record.outcome.taken().expect("a snapshot");
    assert_eq!(taken.warning, None);
}

#[tokio::test]
async fn a_router_that_prints_slowly_is_believed_at_the_third_attempt() {
    let router = router(RouterOptions::default());
    let (world, mut device) = knowing(&router).await;
    // One reading fits into the time, and a second one begins to print.
    router.answer_exports_with([lost(0)]);
    router.set_fault(Fault::SlowDrip(Duration::from_millis(9)));
    device.settings.command_timeout = Some(Duration::from_secs(3));
    world.store.state().put(device.clone());
    unconfirmed(&world, &device, 2).await;
    unconfirmed(&world, &device, 1).await;
    let third = again(&world, &device).await;
    assert!(warning(&third).contains("/system logging"));
    assert_eq!(counted(&world), [0.0, 1.0, 2.0, 0.0]);
}

#[tokio::test]
async fn a_cut_that_a_second_reading_has_time_to_show_is_never_believed() {
    let router = router(RouterOptions::default());
    let (world, mut device) = known(&router).await;
    router.set_fault(Fault::CutThenStall);
    device.settings.command_timeout = Some(Duration::from_secs(2));
    world.store.state().put(device.clone());
    for _ in 0..4 {
        let record = again(&world, &device).await;
        assert_eq!(told(&record), "truncated_output");
        let text = message(&record);
        assert!(text.contains("the first may be cut"), "{text}");
    }
    assert_eq!(world.sink.taken().len(), 1);
    assert_eq!(counted(&world), [0.0, 0.0, 0.0, 4.0]);
}

#[tokio::test]
async fn a_second_reading_that_brings_more_before_it_fails_speaks_against_the_first() {
    let router = router(RouterOptions::default());
    let (world, device) = known(&router).await;
    router.set_fault(Fault::CutThenDrop);
    for _ in 0..4 {
        let record = again(&world, &device).await;
        assert_eq!(told(&record), "truncated_output");
        let text = message(&record);
        assert!(text.contains("the first is cut"), "{text}");
        assert!(text.contains("connection"), "{text}");
    }
    assert_eq!(world.sink.taken().len(), 1);
    assert_eq!(counted(&world), [0.0, 0.0, 0.0, 4.0]);
}

#[tokio::test]
async fn a_text_that_changes_by_itself_is_believed_at_the_third_attempt() {
    let router = router(RouterOptions::default());
    // Its note is another one in each export.
    router.keep_exports();
    let (world, device) = known(&router).await;
    router.set_fault(Fault::SecretsWithheld);
    let first = unconfirmed(&world, &device, 2).await;
    let text = message(&first);
    assert!(text.contains("/system note changes by itself"), "{text}");
    unconfirmed(&world, &device, 1).await;
    let third = again(&world, &device).await;
    assert!(warning(&third).contains("\"sensitive\""));
    assert_eq!(counted(&world), [0.0, 1.0, 2.0, 0.0]);
    // What was published is what the router said last.
    let published = world.sink.taken();
    let number = format!("export {};", router.served().len() - 1);
    assert!(published[1].text.expose().contains(&number), "{number}");
}

/// An export with a counter in it, which a script of the router writes, and menus behind that.
fn export(counter: u32, tail: &str) -> Vec<u8> {
    format!(
        "# 2026-01-02 03:04:05 by RouterOS 7.16.2\r\n# software id = ABCD-EF12\r\n\
         /interface bridge\r\nadd name=bridge1\r\n\
         /ip firewall layer7-protocol\r\nadd name=counter regexp={counter}\r\n\
         /system logging\r\nadd topics=info\r\n{tail}"
    )
    .into_bytes()
}

fn whole(counter: u32) -> Vec<u8> {
    export(counter, "/tool netwatch\r\nadd host=192.0.2.1\r\n")
}

fn lost(counter: u32) -> Vec<u8> {
    export(counter, "")
}

async fn knowing(router: &Router) -> (World, Device) {
    router.answer_exports_with([whole(0)]);
    known(router).await
}

#[tokio::test]
async fn what_speaks_against_a_suspect_begins_its_row_anew() {
    let router = router(RouterOptions::default());
    let (world, device) = knowing(&router).await;
    let counter = std::cell::Cell::new(0);
    let next = || {
        counter.set(counter.get() + 1);
        counter.get()
    };
    let suspect = async |left| {
        router.answer_exports_with([lost(next()), lost(next())]);
        unconfirmed(&world, &device, left).await;
    };
    suspect(2).await;
    suspect(1).await;
    // A second reading that is whole.
    router.answer_exports_with([lost(next()), whole(next())]);
    let record = again(&world, &device).await;
    assert!(message(&record).ends_with("one of the two is cut"));
    suspect(2).await;
    suspect(1).await;
    // A second reading that is seen to be cut.
    let cut = export(next(), "/tool netwatch\r\nadd ho");
    router.answer_exports_with([lost(next()), cut.clone()]);
    let record = again(&world, &device).await;
    assert!(
        message(&record).ends_with("in menu /tool netwatch"),
        "{}",
        message(&record)
    );
    suspect(2).await;
    suspect(1).await;
    // A first reading that is.
    router.answer_exports_with([cut]);
    assert_eq!(told(&again(&world, &device).await), "truncated_output");
    suspect(2).await;
    suspect(1).await;
    // Another suspect.
    let other = || export(next(), "/tool romon\r\nset enabled=yes\r\n");
    router.answer_exports_with([other(), other()]);
    unconfirmed(&world, &device, 2).await;
    suspect(2).await;
    suspect(1).await;
    assert_eq!(world.sink.taken().len(), 1);
    // A success.
    router.answer_exports_with([whole(next())]);
    let record = again(&world, &device).await;
    assert_eq!(record.outcome.taken().expect("a snapshot").warning, None);
    suspect(2).await;
    suspect(1).await;
    router.answer_exports_with([lost(next()), lost(next())]);
    let record = again(&world, &device).await;
    let words = warning(&record);
    assert!(words.contains("/tool netwatch"), "{words}");
    assert_eq!(world.sink.taken().len(), 3);
}

#[tokio::test]
async fn lines_that_are_written_into_exports_at_chance_are_never_published() {
    let router = router(RouterOptions::default());
    let (world, device) = knowing(&router).await;
    // As many each time, in one menu, and another text.
    let with = |n: u32| {
        let text = String::from_utf8(whole(0)).expect("UTF-8");
        text.replace(
            "/system logging",
            &format!("session {n} has ended\r\n/system logging"),
        )
    };
    for attempt in 1..5 {
        router.answer_exports_with(
            [with(2 * attempt), with(2 * attempt + 1)].map(String::into_bytes),
        );
        let record = again(&world, &device).await;
        let text = message(&record);
        assert!(
            text.starts_with("1 line of the export is neither"),
            "{text}"
        );
        assert!(text.ends_with("one of the two is cut"), "{text}");
    }
    assert_eq!(world.sink.taken().len(), 1);
}

#[tokio::test]
async fn stray_lines_that_are_the_same_each_time_are_believed_though_another_menu_changes() {
    let router = router(RouterOptions::default());
    let (world, device) = knowing(&router).await;
    // What the router wraps of a comment that nobody knows.
    let with = |counter: u32, line: &str| {
        let text = String::from_utf8(whole(counter)).expect("UTF-8");
        text.replace(
            "add topics=info\r\n",
            &format!("# the address of this interface was given up because another router claims it, or wa\r\n{line}\r\nadd topics=info\r\n"),
        )
        .into_bytes()
    };
    let rest = |counter| with(counter, "s meant to be given up");
    router.answer_exports_with([rest(1), rest(2), rest(3), rest(4)]);
    let first = unconfirmed(&world, &device, 2).await;
    let text = message(&first);
    assert!(text.contains("is line 9, in /system logging"), "{text}");
    assert!(text.contains("\"s meant to be given up\""), "{text}");
    assert!(text.contains("CONFIG_BACKUP_IGNORE_COMMENTS"), "{text}");
    assert!(
        text.contains("/ip firewall layer7-protocol changes by itself"),
        "{text}"
    );
    unconfirmed(&world, &device, 1).await;
    // Another text there is another suspect.
    router.answer_exports_with([with(5, "out of memory"), with(6, "out of memory")]);
    unconfirmed(&world, &device, 2).await;
    router.answer_exports_with((7..13).map(rest).collect::<Vec<_>>());
    unconfirmed(&world, &device, 2).await;
    unconfirmed(&world, &device, 1).await;
    let third = again(&world, &device).await;
    let words = warning(&third);
    assert!(words.starts_with("1 line of the export"), "{words}");
    assert!(words.ends_with("read in 3 attempts in a row"), "{words}");
    assert_eq!(world.sink.taken().len(), 2);
}

#[tokio::test]
async fn the_text_of_a_line_that_may_be_a_secret_is_not_told() {
    let router = router(RouterOptions::default());
    let (world, device) = knowing(&router).await;
    let text = String::from_utf8(whole(0)).expect("UTF-8");
    for line in [
        "example-only-secret",
        "example-only secret",
        "example-only=\\\r\n    secret",
    ] {
        let with = |n: u32| {
            let line = format!("add topics=info\r\n{line}{n}\r\n");
            text.replace("add topics=info\r\n", &line).into_bytes()
        };
        router.answer_exports_with([with(1), with(2)]);
        let record = again(&world, &device).await;
        let text = message(&record);
        assert!(text.contains("is line 9, in /system logging"), "{text}");
        assert!(text.contains("sed -n 9p"), "{text}");
        assert!(!text.contains("example-only"), "{text}");
    }
}

#[tokio::test]
async fn a_router_that_is_cut_at_changing_places_is_never_published() {
    let router = router(RouterOptions::default());
    let lines: Vec<String> = (0..30)
        .map(|n| format!("/menu m{}\r\nadd name=n{n}\r\n", n / 3))
        .collect();
    let text = |items: usize| export(0, &lines[..items].concat());
    router.answer_exports_with([text(lines.len())]);
    let (world, device) = known(&router).await;
    let before = router.stats().exports_begun;
    // Each cut is between two items, and no two neighbours are alike.
    let cuts: Vec<_> = (0..24).map(|n| text(1 + (n * 11 + 5) % 28)).collect();
    let count = cuts.len() as u64;
    router.answer_exports_with(cuts.into_iter().chain([text(lines.len())]));
    while router.stats().exports_begun < before + count {
        unconfirmed_or_refuted(&world, &device).await;
    }
    assert_eq!(world.sink.taken().len(), 1);
    let record = again(&world, &device).await;
    assert_eq!(record.outcome.taken().expect("a snapshot").warning, None);
    let published: Vec<_> = world.sink.taken().iter().map(|it| it.hash).collect();
    assert_eq!(published[0], published[1]);
}

async fn unconfirmed_or_refuted(world: &World, device: &Device) {
    let record = again(world, device).await;
    assert_eq!(told(&record), "truncated_output");
    assert!(message(&record).contains("read again"));
}
