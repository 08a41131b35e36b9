//! Menus that a router could not export, beside what it had in them, against a simulated router.

use super::tests::{again, known, message, router};
use crate::domain::attempt::Taken;
use crate::domain::device::Device;
use crate::fleet::fakes::{World, told};
use crate::sim::RouterOptions;

const SERVER: &str = "/tool bandwidth-server\r\nset enabled=no\r\n";
const NO_SERVER: &str = "#error exporting /tool bandwidth-server\r\n";
const WATCH: &str = "/tool netwatch\r\nadd host=192.0.2.1\r\n";
const NO_WATCH: &str = "#error exporting \"/tool/netwatch\" (timeout)\r\n";

fn export(tail: &[&str]) -> Vec<u8> {
    format!(
        "# 2026-01-02 03:04:05 by RouterOS 7.16.2\r\n# software id = ABCD-EF12\r\n\
         /interface bridge\r\nadd name=bridge1\r\n{}",
        tail.concat()
    )
    .into_bytes()
}

/// Makes an attempt that waits for `left` more to bring `menu`.
async fn waits_for(world: &World, device: &Device, menu: &str, left: u32) {
    let record = again(world, device).await;
    assert_eq!(told(&record), "truncated_output");
    let text = message(&record);
    assert!(
        text.contains(&format!("could not export {menu};")),
        "{text}"
    );
    assert!(text.ends_with(&format!("{left} more")), "{text}");
}

async fn taken(world: &World, device: &Device) -> Taken {
    let record = again(world, device).await;
    let said = record.outcome.failure().map(ToString::to_string);
    let taken = record.outcome.taken().cloned();
    taken.unwrap_or_else(|| panic!("{said:?}"))
}

#[tokio::test]
async fn a_menu_that_fails_without_a_reason_is_missing_where_it_had_items() {
    let router = router(RouterOptions::default());
    router.answer_exports_with([export(&[SERVER, WATCH])]);
    let (world, device) = known(&router).await;
    router.answer_exports_with([export(&[NO_SERVER, WATCH])]);
    for left in [2, 1] {
        waits_for(&world, &device, "/tool bandwidth-server", left).await;
    }
    // It is remembered for as long as the router says so.
    for _ in 0..4 {
        let taken = taken(&world, &device).await;
        assert_eq!(taken.incomplete_menus, ["/tool bandwidth-server"]);
        assert_eq!(taken.warning, None);
    }
    router.answer_exports_with([export(&[SERVER, WATCH])]);
    let back = taken(&world, &device).await;
    assert_eq!(back.incomplete_menus, Vec::<String>::new());
    assert_eq!(back.warning, None);
    router.answer_exports_with([export(&[NO_SERVER, WATCH])]);
    waits_for(&world, &device, "/tool bandwidth-server", 2).await;
    // An operator has emptied it: neither there nor said to fail.
    router.answer_exports_with([export(&[WATCH])]);
    assert_eq!(
        taken(&world, &device).await.incomplete_menus,
        Vec::<String>::new()
    );
    router.answer_exports_with([export(&[NO_SERVER, WATCH])]);
    let nothing_there = taken(&world, &device).await;
    assert_eq!(nothing_there.incomplete_menus, Vec::<String>::new());
}

#[tokio::test]
async fn a_menu_that_fails_without_a_reason_is_not_missing_where_nothing_was_in_it() {
    let router = router(RouterOptions::default());
    // What is below it is there each time.
    let database = "/tool user-manager database\r\nset db-path=flash/um\r\n";
    let fails = "#error exporting /tool user-manager\r\n";
    for error in [NO_SERVER, ""] {
        router.answer_exports_with([export(&[error, database, fails, WATCH])]);
        let (world, device) = known(&router).await;
        router.answer_exports_with([
            export(&[database, WATCH]),
            export(&[NO_SERVER, database, WATCH]),
            export(&[NO_SERVER, database, fails, WATCH]),
        ]);
        for _ in 0..3 {
            let taken = taken(&world, &device).await;
            assert_eq!(taken.incomplete_menus, Vec::<String>::new());
            assert_eq!(taken.warning, None);
        }
        let published = world.sink.taken();
        assert_eq!(published[0].hash, published[3].hash);
    }
}

#[tokio::test]
async fn a_cut_before_a_menu_that_was_missing_is_told() {
    let router = router(RouterOptions::default());
    router.answer_exports_with([export(&[SERVER, WATCH])]);
    let (world, device) = known(&router).await;
    router.answer_exports_with([export(&[SERVER, NO_WATCH])]);
    for left in [2, 1] {
        waits_for(&world, &device, "/tool/netwatch", left).await;
    }
    assert_eq!(
        taken(&world, &device).await.incomplete_menus,
        ["/tool/netwatch"]
    );
    // The end of it is lost, and nothing of the menu is said.
    router.answer_exports_with([export(&[SERVER]), export(&[SERVER, NO_WATCH])]);
    let record = again(&world, &device).await;
    assert_eq!(told(&record), "truncated_output");
    let text = message(&record);
    assert!(text.contains("ends in /tool bandwidth-server"), "{text}");
    assert!(text.contains("was another one"), "{text}");
    // A part of what it had before is lost.
    let two = "/tool netwatch\r\nadd host=192.0.2.1\r\nadd host=192.0.2.2\r\n";
    router.answer_exports_with([export(&[SERVER, two])]);
    assert_eq!(taken(&world, &device).await.warning, None);
    router.answer_exports_with([export(&[SERVER, NO_WATCH])]);
    for left in [2, 1] {
        waits_for(&world, &device, "/tool/netwatch", left).await;
    }
    taken(&world, &device).await;
    router.answer_exports_with([export(&[SERVER, WATCH]), export(&[SERVER, two])]);
    let record = again(&world, &device).await;
    assert_eq!(told(&record), "truncated_output");
    assert!(message(&record).contains("ends in /tool netwatch"));

    // It is empty now: read twice once, and then no more.
    router.answer_exports_with([export(&[SERVER])]);
    let warned = taken(&world, &device).await;
    assert_eq!(warned.incomplete_menus, Vec::<String>::new());
    assert!(warned.warning.is_some(), "read twice");
    let begun = router.stats().exports_begun;
    assert_eq!(taken(&world, &device).await.warning, None);
    assert_eq!(router.stats().exports_begun, begun + 1);
}

#[tokio::test]
async fn a_menu_that_was_never_exported_and_is_silent_is_doubtful_at_the_end_only() {
    let router = router(RouterOptions::default());
    for (missing, silent, doubtful) in [
        ([SERVER, NO_WATCH], [SERVER, ""], true),
        ([NO_WATCH, SERVER], ["", SERVER], false),
    ] {
        router.answer_exports_with([export(&missing)]);
        let device = super::super::tests::device_at(&router);
        let world = super::super::tests::world(&device);
        for left in [2, 1] {
            waits_for(&world, &device, "/tool/netwatch", left).await;
        }
        taken(&world, &device).await;
        taken(&world, &device).await;
        router.answer_exports_with([export(&silent)]);
        let after = taken(&world, &device).await;
        assert_eq!(after.incomplete_menus, Vec::<String>::new());
        assert_eq!(after.warning.is_some(), doubtful, "{:?}", after.warning);
        assert_eq!(taken(&world, &device).await.warning, None);
    }
}

#[tokio::test]
async fn two_readings_that_differ_in_what_is_missing_are_not_the_same() {
    let router = router(RouterOptions::default());
    router.answer_exports_with([export(&[SERVER, WATCH])]);
    let (world, device) = known(&router).await;
    router.answer_exports_with([export(&[NO_SERVER, WATCH])]);
    for left in [2, 1] {
        waits_for(&world, &device, "/tool bandwidth-server", left).await;
    }
    taken(&world, &device).await;
    // The line that says so is not in the text, which is the same without it.
    router.answer_exports_with([export(&[NO_SERVER]), export(&[])]);
    let record = again(&world, &device).await;
    assert_eq!(told(&record), "truncated_output");
    assert_eq!(world.sink.taken().len(), 2);
}
