//! What is stored of snapshots that arrive once, twice, late, at once and by other normalisations.

use std::path::Path;
use std::sync::Arc;

use mikrotik_backup::domain::archive::{Arrived, Lines, Normalization};
use mikrotik_backup::ports::{Archive, ArchiveError, SnapshotSink};
use mikrotik_backup::routeros;
use time::Duration;

use super::bench::{Bench, config, device, history, made_by, snapshot, told};

on_both!(
    a_change_makes_a_version_and_the_rest_is_seen_again,
    everything_of_a_snapshot_is_kept,
    late_snapshots_take_their_place,
    any_order_gives_a_sound_history,
    many_at_once_store_each_version_once,
    what_is_dropped_midway_is_whole_or_not_there,
    equal_texts_are_stored_once,
    a_raised_normalisation_is_no_change,
    the_real_normalisation_recognises_a_raw_text,
    a_change_across_normalisations_counts_only_itself,
    a_menu_that_could_not_be_exported_counts_as_no_deletion,
    attempts_of_another_device_are_refused,
    large_texts_come_back_whole,
);

async fn a_change_makes_a_version_and_the_rest_is_seen_again(bench: &Bench) {
    let archive = bench.archive();
    let device = device();
    for (hour, number, arrived) in [
        (0, 1, Arrived::Change),
        (6, 1, Arrived::SeenAgain),
        (12, 1, Arrived::SeenAgain),
        (18, 2, Arrived::Change),
        (24, 1, Arrived::Change),
    ] {
        let snapshot = snapshot(device, hour, &config(number));
        let stored = archive.store(&snapshot).await.expect("store");
        assert_eq!(stored.arrived, arrived, "at hour {hour}");
        let again = archive.store(&snapshot).await.expect("redelivered");
        assert_eq!(again.version, stored.version);
        if arrived == Arrived::Change {
            assert_eq!(again.arrived, Arrived::Duplicate);
        }
    }
    assert_eq!(
        told(&archive, device).await,
        [(0, 12, config(1)), (18, 18, config(2)), (24, 24, config(1))]
    );
    let lines: Vec<Option<Lines>> = history(&archive, device)
        .await
        .iter()
        .map(|version| version.lines)
        .collect();
    let one = Some(Lines {
        added: 1,
        removed: 1,
    });
    assert_eq!(lines, [None, one, one]);
}

async fn everything_of_a_snapshot_is_kept(bench: &Bench) {
    let archive = bench.archive();
    let device = device();
    let mut first = snapshot(device, 0, &config(1));
    first.collected_at += Duration::nanoseconds(789);
    first.incomplete_menus = vec!["/ip firewall".into()];
    first.ledger = [("dated-header".to_owned(), 1)].into();
    archive.deliver(&first).await.expect("deliver");
    let mut upgraded = snapshot(device, 6, &config(1));
    upgraded.routeros_version = "7.19".into();
    upgraded.ledger = [("ignored: ^# x".to_owned(), 2)].into();
    archive.deliver(&upgraded).await.expect("deliver");

    let [version] = history(&archive, device).await.try_into().expect("one");
    assert_eq!(version.id.0, first.attempt.0);
    assert_eq!((version.device, version.tenant), (device, first.tenant));
    assert_eq!(version.first.position.attempt, first.attempt);
    assert_eq!(
        version.first.position.at,
        first.collected_at - Duration::nanoseconds(789)
    );
    assert_eq!(version.last.position.attempt, upgraded.attempt);
    assert_eq!(version.last.position.at, upgraded.collected_at);
    assert_eq!(version.first.routeros_version, "7.18.2");
    assert_eq!(version.last.routeros_version, "7.19");
    assert_eq!(version.first.hash, first.hash);
    assert_eq!(version.first.normalization.version, 2);
    assert_eq!(version.first.normalization.rules, "rules-2");
    assert_eq!(version.bytes, config(1).len() as u64);
    assert_eq!(version.incomplete_menus, first.incomplete_menus);
    assert_eq!(version.first.ledger, Some(first.ledger));
    assert_eq!(version.last.ledger, Some(upgraded.ledger));
    for sealed in bench.sealed().await {
        let readable = sealed.windows(6).any(|part| part == b"hidden");
        assert!(!readable, "a text lies open in the database");
    }
}

async fn late_snapshots_take_their_place(bench: &Bench) {
    let archive = bench.archive();
    let device = device();
    let arrive = async |hour, number| {
        let stored = archive
            .store(&snapshot(device, hour, &config(number)))
            .await;
        stored.expect("store").arrived
    };
    assert_eq!(arrive(10, 1).await, Arrived::Change);
    assert_eq!(arrive(20, 1).await, Arrived::SeenAgain);
    assert_eq!(arrive(30, 2).await, Arrived::Change);
    // Between two versions, before all, within one, and as the version after it.
    assert_eq!(arrive(25, 3).await, Arrived::OutOfOrder);
    assert_eq!(arrive(5, 4).await, Arrived::OutOfOrder);
    assert_eq!(arrive(15, 5).await, Arrived::OutOfOrder);
    assert_eq!(arrive(28, 2).await, Arrived::SeenEarlier);
    // The version that moved back is split, too, by what lies within it now.
    assert_eq!(arrive(29, 6).await, Arrived::OutOfOrder);
    assert_eq!(
        told(&archive, device).await,
        [
            (5, 5, config(4)),
            (10, 10, config(1)),
            (15, 15, config(5)),
            (20, 20, config(1)),
            (25, 25, config(3)),
            (28, 28, config(2)),
            (29, 29, config(6)),
            (30, 30, config(2)),
        ]
    );
}

/// Every arrival of a fixed pseudo-random sequence, twice.
async fn any_order_gives_a_sound_history(bench: &Bench) {
    let archive = bench.archive();
    let device = device();
    let mut state = 12_345_u32;
    let mut draw = |below: u32| {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        (state >> 16) % below
    };
    let mut arrivals = Vec::new();
    for hour in 0..40 {
        let number = u8::try_from(draw(3)).expect("below three");
        arrivals.push(snapshot(device, hour, &config(number)));
    }
    let newest = arrivals.last().cloned().expect("the last hour");
    for n in (1..arrivals.len()).rev() {
        arrivals.swap(n, draw(u32::try_from(n).expect("few") + 1) as usize);
    }
    for snapshot in arrivals.iter().chain(&arrivals) {
        archive.store(snapshot).await.expect("store");
    }
    let told = told(&archive, device).await;
    assert!(told.len() > 10, "{} versions", told.len());
    for pair in told.windows(2) {
        assert!(pair[0].1 < pair[1].0, "intervals overlap: {told:?}");
    }
    let (_, last_seen, text) = told.last().expect("some");
    assert_eq!((*last_seen, text.as_str()), (39, newest.text.expose()));
}

async fn many_at_once_store_each_version_once(bench: &Bench) {
    let device = device();
    let snapshots: Vec<_> = (0..8)
        .map(|number| snapshot(device, number, &config(u8::try_from(number).expect("few"))))
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    for replica in 0..3 {
        let archive = Arc::new(bench.archive());
        for n in 0..snapshots.len() {
            let archive = Arc::clone(&archive);
            let snapshot = snapshots[(n + replica * 3) % snapshots.len()].clone();
            tasks.spawn(async move { archive.store(&snapshot).await });
        }
    }
    while let Some(stored) = tasks.join_next().await {
        stored.expect("no panic").expect("store");
    }
    let expected: Vec<_> = (0..8)
        .map(|n| (n, n, config(u8::try_from(n).expect("few"))))
        .collect();
    assert_eq!(told(&bench.archive(), device).await, expected);
}

async fn what_is_dropped_midway_is_whole_or_not_there(bench: &Bench) {
    let archive = bench.archive();
    let device = device();
    let (mut dropped, mut last) = (0, 0);
    // Patience grows until a store has come to its end several times, so each step of it was the
    // last one for some.
    for n in 0..200_u32 {
        let number = u8::try_from(n).expect("below 256");
        let patience = std::time::Duration::from_micros(u64::from(n) * 50);
        let snapshot = snapshot(device, n.into(), &config(number));
        match tokio::time::timeout(patience, archive.store(&snapshot)).await {
            Ok(stored) => {
                stored.expect("store");
                last = n;
            }
            Err(_) => dropped += 1,
        }
    }
    assert!(dropped > 0, "some were dropped");
    let told = told(&archive, device).await;
    for (hour, _, text) in &told {
        let number = u8::try_from(*hour).expect("below 256");
        assert_eq!(*text, config(number), "whole");
    }
    let kept: Vec<i64> = told.iter().map(|(hour, _, _)| *hour).collect();
    assert!(
        last == 0 || kept.contains(&last.into()),
        "what was acknowledged is there"
    );
    let after = snapshot(device, 1000, "/ip dns\n");
    archive.store(&after).await.expect("the archive goes on");
}

async fn equal_texts_are_stored_once(bench: &Bench) {
    let archive = bench.archive();
    for _ in 0..3 {
        let device = device();
        for (hour, number) in [(0, 1), (1, 2), (2, 1)] {
            let snapshot = snapshot(device, hour, &config(number));
            archive.store(&snapshot).await.expect("store");
        }
    }
    assert_eq!(bench.count("archive_versions").await, 9);
    assert_eq!(bench.count("archive_contents").await, 2);
}

async fn a_raised_normalisation_is_no_change(bench: &Bench) {
    let device = device();
    let noisy = |hour, seen| snapshot(device, hour, &format!("# seen {seen}\n{}", config(1)));
    let old = bench.archive();
    old.store(&noisy(0, "a")).await.expect("store");
    // Replicas of both programs, for a while; each raises its own.
    let new = bench.archive_with(7, 3);
    for (hour, version) in [(1, 3), (2, 3), (3, 2), (4, 3)] {
        let snapshot = made_by(version, noisy(hour, "a"));
        let stored = new.store(&snapshot).await.expect("store");
        assert_eq!(stored.arrived, Arrived::SeenAgain, "at hour {hour}");
    }
    let [version] = history(&new, device).await.try_into().expect("one version");
    assert_eq!(version.first.normalization.version, 2);
    assert_eq!(version.last.normalization.version, 3);
    assert_ne!(version.first.hash, version.last.hash);
    let opened = new.open(version.id).await.expect("open");
    assert!(
        opened.text.expose().starts_with("# seen a"),
        "as it was made"
    );
    // What only the old one sees as a change is one only among its own.
    let stored = old.store(&made_by(2, noisy(5, "b"))).await.expect("store");
    assert_eq!(stored.arrived, Arrived::Change);
}

/// Version 1 stands for one that changed nothing: what it stored is what the router printed.
async fn the_real_normalisation_recognises_a_raw_text(bench: &Bench) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/routeros");
    let mut recognised = 0;
    for folder in std::fs::read_dir(fixtures).expect("fixtures") {
        let folder = folder.expect("a folder").path();
        let Ok(raw) = std::fs::read_to_string(folder.join("export.rsc")) else {
            continue;
        };
        let archive = bench.archive_of(7, routeros::renormalize());
        let device = device();
        let mut old = snapshot(device, 0, &raw);
        old.normalization_version = 1;
        old.normalization_rules = String::new();
        archive.store(&old).await.expect("store");
        let mut new = snapshot(device, 6, &routeros::normalize_text(&raw));
        let Normalization { version, rules } = routeros::renormalize().to;
        (new.normalization_version, new.normalization_rules) = (version, rules);
        let stored = archive.store(&new).await.expect("store");
        assert_eq!(stored.arrived, Arrived::SeenAgain, "{}", folder.display());
        recognised += 1;
    }
    assert!(recognised >= 10, "{recognised} fixtures");
}

async fn a_menu_that_could_not_be_exported_counts_as_no_deletion(bench: &Bench) {
    let device = device();
    let whole = "/ip pool\nadd name=a\n/ipv6 route\nadd gateway=a\nadd gateway=b\n";
    let archive = bench.archive();
    archive
        .store(&snapshot(device, 0, whole))
        .await
        .expect("store");
    let missing = "/ip pool\nadd name=b\n#error exporting \"/ipv6/route\" (timeout)\n";
    let mut incomplete = snapshot(device, 1, missing);
    incomplete.incomplete_menus = vec!["/ipv6/route".into()];
    archive.store(&incomplete).await.expect("store");
    archive
        .store(&snapshot(device, 2, whole))
        .await
        .expect("store");
    let lines: Vec<_> = history(&archive, device)
        .await
        .iter()
        .map(|version| version.lines.map(|lines| (lines.added, lines.removed)))
        .collect();
    assert_eq!(lines, [None, Some((1, 1)), Some((1, 1))]);
}

async fn a_change_across_normalisations_counts_only_itself(bench: &Bench) {
    let device = device();
    let before = snapshot(device, 0, &format!("# seen a\n# seen b\n{}", config(1)));
    bench.archive().store(&before).await.expect("store");
    let after = made_by(3, snapshot(device, 1, &format!("# seen c\n{}", config(2))));
    let archive = bench.archive_with(7, 3);
    let stored = archive.store(&after).await.expect("store");
    assert_eq!(stored.arrived, Arrived::Change);
    let versions = history(&archive, device).await;
    assert_eq!(
        versions[1].lines,
        Some(Lines {
            added: 1,
            removed: 1
        })
    );
}

async fn attempts_of_another_device_are_refused(bench: &Bench) {
    let archive = bench.archive();
    let mine = snapshot(device(), 0, &config(1));
    archive.store(&mine).await.expect("store");
    let mut stolen = snapshot(device(), 1, &config(2));
    stolen.attempt = mine.attempt;
    let error = archive
        .store(&stolen)
        .await
        .expect_err("an id that is taken");
    assert!(
        matches!(error, ArchiveError::ForeignAttempt { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains(&mine.device.to_string()),
        "{error}"
    );
    assert_eq!(history(&archive, stolen.device).await, []);
}

async fn large_texts_come_back_whole(bench: &Bench) {
    use std::fmt::Write;

    let archive = bench.archive();
    let device = device();
    let mut text = String::from("/ip firewall address-list\n");
    for n in 0..100_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        writeln!(text, "add address=10.{a}.{b}.{c} list=blocked").expect("a string");
    }
    archive
        .store(&snapshot(device, 0, &text))
        .await
        .expect("store");
    text.push_str("add address=192.0.2.1 list=blocked\n");
    archive
        .store(&snapshot(device, 1, &text))
        .await
        .expect("store");
    let told = told(&archive, device).await;
    assert!(told[1].2 == text, "the text is whole");
    let versions = history(&archive, device).await;
    assert_eq!(
        versions[1].lines,
        Some(Lines {
            added: 1,
            removed: 0
        })
    );
}
