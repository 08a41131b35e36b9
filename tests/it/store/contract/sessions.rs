//! What a session showed is kept, and what an operator sets for one device is followed.

use std::collections::BTreeMap;
use std::time::Duration;

use mikrotik_backup::domain::attempt::{AttemptId, Cause, Outcome, Taken};
use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::domain::failure::FailureKind;
use mikrotik_backup::domain::session::{
    DeviceSettings, MissingMenus, Observed, SshAlgorithms, SshPart, WeakAlgorithm,
};
use mikrotik_backup::domain::snapshot::Shape;
use mikrotik_backup::domain::suspect::{Recurrence, Recurring, Suspect};
use mikrotik_backup::ports::{Begun, Claimed, DeviceStatus, StatusPage, Store};

use super::{Operator, Value, begin, claim, failed, interrupted, listed, record, taken};
use crate::services::postgres::NewDevice;

pub(in crate::store) async fn status(store: &dyn Store, id: DeviceId) -> DeviceStatus {
    let mut page = StatusPage {
        limit: StatusPage::MAX,
        ..StatusPage::default()
    };
    loop {
        let read = store.statuses(page).await.expect("read a page");
        if let Some(found) = read.devices.into_iter().find(|it| it.device.id == id) {
            return found;
        }
        page.after = Some(read.next.expect("the device is on one of the pages"));
    }
}

/// Makes an attempt, and tells what the store remembered when it began.
pub(in crate::store) async fn attempt(
    store: &dyn Store,
    id: DeviceId,
    outcome: Outcome,
    observed: Observed,
) -> (Begun, AttemptId) {
    let last = listed(store, id).await.expect("listed").last;
    let claim = claim(id, last.map(|last| last.id), "one");
    let begun = begin(store, &claim).await;
    let mut record = record(claim.attempt, &begun.device, outcome);
    record.observed = observed;
    store.record(&record, "one").await.expect("record");
    (begun, claim.attempt)
}

fn missing(attempts: u32) -> MissingMenus {
    MissingMenus {
        menus: BTreeMap::from([("/ipv6/route \u{e4}\"".to_owned(), attempts)]),
        refused: attempts % MissingMenus::PATIENCE,
    }
}

pub(super) async fn what_a_session_showed_is_kept(store: &dyn Store, operator: &dyn Operator) {
    let id = operator.insert(NewDevice::default()).await;
    let untried = operator.overview(id).await;
    let shown = ["incomplete_menus", "warning", "weak_ssh"].map(|name| untried[name].as_deref());
    assert_eq!(shown, [Some("[]"), None, Some("[]")]);
    let weak = || {
        Some(vec![WeakAlgorithm {
            part: SshPart::Mac,
            name: "hmac-sha1".into(),
        }])
    };
    let lacking = Observed {
        weak_ssh: weak(),
        missing_menus: Some(missing(2)),
        ..Observed::default()
    };
    let refused = || failed(FailureKind::TruncatedOutput);
    let (first, _) = attempt(store, id, refused(), lacking).await;
    assert_eq!(first.missing_menus, MissingMenus::default());
    assert_eq!(status(store, id).await.weak_ssh, ["hmac-sha1"]);

    // An attempt that did not come so far says nothing.
    let (second, _) = attempt(store, id, failed(FailureKind::Timeout), Observed::default()).await;
    assert_eq!(second.missing_menus, missing(2));
    assert_eq!(status(store, id).await.weak_ssh, ["hmac-sha1"]);

    let menus = vec!["/ipv6/route \u{e4}\"".to_owned()];
    let incomplete = Outcome::Delivered(Taken {
        incomplete_menus: menus.clone(),
        warning: Some("the export shrank from 9 to 1 bytes".into()),
        ..taken("incomplete")
    });
    let lacking = Observed {
        weak_ssh: weak(),
        missing_menus: Some(missing(3)),
        ..Observed::default()
    };
    let (third, id_of_third) = attempt(store, id, incomplete, lacking).await;
    assert_eq!(third.missing_menus, missing(2), "as it was");
    let (entry, _) = store.attempt(id_of_third).await.expect("the journal");
    assert_eq!(entry.incomplete_menus, menus);
    let warning = "the export shrank from 9 to 1 bytes";
    assert_eq!(entry.warning.as_deref(), Some(warning));
    let state = operator.state(id).await;
    assert!(
        state["incomplete_menus"]
            .as_ref()
            .is_some_and(|shown| shown.contains("/ipv6/route")),
        "{state:?}"
    );

    let overview = operator.overview(id).await;
    let menus_shown = overview["incomplete_menus"].as_deref().expect("an array");
    assert_eq!(
        serde_json::from_str::<Vec<String>>(menus_shown).expect("JSON"),
        menus
    );
    assert_eq!(overview["warning"].as_deref(), Some(warning));
    assert_eq!(overview["weak_ssh"].as_deref(), Some("[\"hmac-sha1\"]"));

    // A failure leaves what was taken before as it is.
    let (fourth, id_of_fourth) = attempt(store, id, refused(), Observed::default()).await;
    assert_eq!(fourth.missing_menus, missing(3));
    assert_eq!(fourth.last_incomplete_menus, menus);
    let shown = status(store, id).await;
    assert_eq!(shown.incomplete_menus, menus);
    assert_eq!(shown.warning.as_deref(), Some(warning));
    let (entry, _) = store.attempt(id_of_fourth).await.expect("the journal");
    assert_eq!((entry.incomplete_menus, entry.warning), (vec![], None));

    // A complete one ends all of it.
    let whole = Observed {
        weak_ssh: Some(vec![]),
        missing_menus: Some(MissingMenus::default()),
        ..Observed::default()
    };
    attempt(store, id, Outcome::Delivered(taken("whole")), whole).await;
    let (last, _) = attempt(store, id, refused(), Observed::default()).await;
    assert_eq!(last.missing_menus, MissingMenus::default());
    assert_eq!(last.last_incomplete_menus, Vec::<String>::new());
    let shown = status(store, id).await;
    assert_eq!((shown.incomplete_menus, shown.warning), (vec![], None));
    assert_eq!(shown.weak_ssh, Vec::<String>::new());
}

fn seen(attempts: u32) -> Recurrence {
    Recurrence(Some(Recurring {
        suspect: Suspect {
            suspicion: "lost_last_menus".to_owned(),
            shape: Shape {
                secrets: 1,
                ..taken("suspect").shape
            },
            incomplete_menus: vec!["/ipv6/route".to_owned()],
            strays: Some(taken("a line").hash),
        },
        restless: ["/system note".to_owned()].into(),
        attempts,
    }))
}

/// What an attempt showed of suspects; `None` is one that did not come so far.
fn saw(suspects: Option<Recurrence>) -> Observed {
    Observed {
        suspects,
        ..Observed::default()
    }
}

pub(super) async fn a_suspect_is_kept_until_something_is_said_of_it(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(NewDevice::default()).await;
    let refused = || failed(FailureKind::TruncatedOutput);
    let (first, _) = attempt(store, id, refused(), saw(Some(seen(1)))).await;
    assert_eq!(first.suspects, Recurrence::default());
    let state = operator.state(id).await;
    let shown = state["suspect"].as_deref().expect("a suspect");
    assert!(shown.contains("lost_last_menus"), "{shown}");

    let (second, _) = attempt(store, id, failed(FailureKind::Timeout), saw(None)).await;
    assert_eq!(second.suspects, seen(1));
    let (third, _) = attempt(store, id, interrupted(), saw(None)).await;
    assert_eq!(third.suspects, seen(1), "kept by the attempt before it");
    let (fourth, _) = attempt(store, id, refused(), saw(Some(seen(2)))).await;
    assert_eq!(fourth.suspects, seen(1), "as it was");

    // What is not answered is not forgotten with a process that dies.
    let last = listed(store, id).await.expect("listed").last;
    let lost = claim(id, last.map(|last| last.id), "one");
    assert_eq!(begin(store, &lost).await.suspects, seen(2));
    let none = saw(Some(Recurrence::default()));
    let (fifth, _) = attempt(store, id, Outcome::Delivered(taken("x")), none).await;
    assert_eq!(fifth.suspects, seen(2));
    let (last, _) = attempt(store, id, refused(), saw(None)).await;
    assert_eq!(last.suspects, Recurrence::default());
}

pub(super) async fn a_warning_stays_until_something_changes(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(NewDevice::default()).await;
    let warned = |text: &str| {
        Outcome::Delivered(Taken {
            warning: Some(format!("{text} shrank")),
            ..taken(text)
        })
    };
    let same = |text: &str| Outcome::Delivered(taken(text));
    let shown = async || status(store, id).await.warning;
    let nothing = Observed::default;
    attempt(store, id, warned("one"), nothing()).await;
    let (_, unchanged) = attempt(store, id, same("one"), nothing()).await;
    assert_eq!(shown().await.as_deref(), Some("one shrank"));
    let (entry, _) = store.attempt(unchanged).await.expect("the journal");
    assert_eq!(entry.warning, None, "that of the attempt itself");
    attempt(store, id, failed(FailureKind::Timeout), nothing()).await;
    attempt(store, id, same("one"), nothing()).await;
    assert_eq!(shown().await.as_deref(), Some("one shrank"));
    // The next suspect has a warning of its own, and what changes without one has none.
    attempt(store, id, warned("two"), nothing()).await;
    assert_eq!(shown().await.as_deref(), Some("two shrank"));
    attempt(store, id, same("three"), nothing()).await;
    assert_eq!(shown().await, None);

    // Whoever asks for a backup may be a program, which looks at nothing.
    attempt(store, id, warned("four"), nothing()).await;
    let last = listed(store, id).await.expect("listed").last;
    let claim = claim(id, last.map(|last| last.id), "one");
    let device = begin(store, &claim).await.device;
    let mut asked_for = record(claim.attempt, &device, same("four"));
    asked_for.cause = Cause::Manual;
    store.record(&asked_for, "one").await.expect("record");
    assert_eq!(shown().await.as_deref(), Some("four shrank"));
}

pub(super) async fn what_was_seen_at_another_address_is_forgotten(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let showed = || Observed {
        missing_menus: Some(missing(2)),
        suspects: Some(seen(2)),
        ..Observed::default()
    };
    let lost = || failed(FailureKind::Timeout);
    let good = || Outcome::Delivered(taken("good"));
    let move_to = async |id: DeviceId, address| {
        let address = Value::Text(address);
        operator.set("devices", id.0, "ip_address", address).await;
    };
    let remembers = |begun: &Begun| {
        [
            begun.last_shape.is_some(),
            begun.missing_menus != MissingMenus::default(),
            begun.suspects != Recurrence::default(),
        ]
    };
    let at = |address: &str| NewDevice {
        ip_address: address.to_owned(),
        ..NewDevice::default()
    };
    // A success answers a suspect and what was missing; a failure behind it sees the next one.
    let with_both = async |address| {
        let id = operator.insert(at(address)).await;
        attempt(store, id, good(), Observed::default()).await;
        attempt(store, id, failed(FailureKind::TruncatedOutput), showed()).await;
        let (begun, _) = attempt(store, id, lost(), Observed::default()).await;
        assert_eq!(remembers(&begun), [true; 3]);
        id
    };
    let stays = with_both("198.51.100.20").await;
    let (begun, _) = attempt(store, stays, lost(), Observed::default()).await;
    assert_eq!(remembers(&begun), [true; 3]);

    let moved = with_both("198.51.100.21").await;
    move_to(moved, "198.51.100.22").await;
    let (begun, _) = attempt(store, moved, lost(), Observed::default()).await;
    assert_eq!(remembers(&begun), [false; 3]);
    // Also behind an attempt that did not come so far there, and for one that goes back.
    let (begun, _) = attempt(store, moved, lost(), Observed::default()).await;
    assert_eq!(remembers(&begun), [false; 3]);
    move_to(moved, "198.51.100.21").await;
    let (begun, _) = attempt(store, moved, good(), showed()).await;
    assert_eq!(remembers(&begun), [false; 3]);
    let (begun, _) = attempt(store, moved, lost(), Observed::default()).await;
    assert_eq!(remembers(&begun), [true; 3]);
    // What was backed up last is told all the same.
    move_to(moved, "198.51.100.23").await;
    attempt(store, moved, lost(), Observed::default()).await;
    let shown = operator.overview(moved).await;
    let hash = taken("good").hash.to_string();
    assert_eq!(shown["last_hash"].as_deref(), Some(hash.as_str()));

    // A process that dies at the new address, twice, is put off there.
    for (before, address, other) in [
        (good(), "198.51.100.24", "198.51.100.25"),
        (lost(), "198.51.100.26", "198.51.100.27"),
    ] {
        let deadly = with_both(address).await;
        attempt(store, deadly, before, showed()).await;
        move_to(deadly, other).await;
        let claim = async || {
            let last = listed(store, deadly).await.expect("listed").last;
            claim(deadly, last.map(|last| last.id), "one")
        };
        for _ in 0..2 {
            let begun = begin(store, &claim().await).await;
            assert_eq!(remembers(&begun), [false; 3]);
        }
        let claimed = store.claim(&claim().await).await.expect("claim");
        assert!(matches!(claimed, Claimed::Superseded(_)), "{claimed:?}");
        let (begun, _) = attempt(store, deadly, lost(), Observed::default()).await;
        assert_eq!(remembers(&begun), [false; 3]);
    }
}

/// A cosmetic edit is no reason to forget what the router showed, in whatever that ends.
pub(super) async fn an_address_that_is_written_another_way_is_no_other(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let showed = || Observed {
        missing_menus: Some(missing(2)),
        suspects: Some(seen(2)),
        counts_connections: Some(false),
        ..Observed::default()
    };
    let good = || Outcome::Delivered(taken("good"));
    let lost = || failed(FailureKind::Timeout);
    let all = async |id: DeviceId, outcome| {
        let (begun, _) = attempt(store, id, outcome, Observed::default()).await;
        assert_eq!(begun.last_shape, Some(taken("good").shape));
        assert_eq!(begun.last_bytes, Some(4));
        assert_eq!(begun.missing_menus, missing(2));
        assert_eq!(begun.suspects, seen(2));
        let state = operator.state(id).await;
        let counts = state["counts_connections"].as_deref();
        assert!(matches!(counts, Some("false" | "0")), "{counts:?}");
    };
    for [one, two, three] in [
        ["[2001:db8::5a]", "2001:db8::5a", "2001:0DB8::005A"],
        ["198.51.100.90", " 198.51.100.90 ", "::ffff:198.51.100.90"],
        ["Edge-90.Example", "edge-90.example", "edge-90.example."],
    ] {
        let rename = async |id: DeviceId, address| {
            let address = Value::Text(address);
            operator.set("devices", id.0, "ip_address", address).await;
        };
        let at = NewDevice {
            ip_address: one.to_owned(),
            ..NewDevice::default()
        };
        let id = operator.insert(at).await;
        attempt(store, id, good(), showed()).await;
        rename(id, two).await;
        all(id, lost()).await;
        all(id, lost()).await;
        rename(id, three).await;
        all(id, interrupted()).await;
        rename(id, one).await;
        all(id, lost()).await;
        // Another port is another router.
        operator
            .set("devices", id.0, "ssh_port", Value::Int(2222))
            .await;
        let (begun, _) = attempt(store, id, lost(), Observed::default()).await;
        assert_eq!(begun.last_shape, None);
        assert_eq!(begun.suspects, Recurrence::default());

        // Also not where the process dies, twice, and is put off.
        operator.set("devices", id.0, "ssh_port", Value::Null).await;
        attempt(store, id, good(), showed()).await;
        rename(id, two).await;
        let claimed = async || {
            let last = listed(store, id).await.expect("listed").last;
            let claim = claim(id, last.map(|last| last.id), "one");
            store.claim(&claim).await.expect("claim")
        };
        for _ in 0..2 {
            let claimed = claimed().await;
            let Claimed::Begun(begun) = &claimed else {
                panic!("not begun: {claimed:?}");
            };
            assert_eq!(begun.suspects, seen(2));
        }
        let put_off = claimed().await;
        assert!(matches!(put_off, Claimed::Superseded(_)), "{put_off:?}");
        let (begun, _) = attempt(store, id, lost(), Observed::default()).await;
        assert_eq!(begun.last_shape, Some(taken("good").shape));
        assert_eq!((begun.missing_menus, begun.suspects), (missing(2), seen(2)));
    }
}

pub(super) async fn settings_of_one_device_are_part_of_the_inventory(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(NewDevice::default()).await;
    let bucket = id.0.as_bytes()[15];
    let settings = async || listed(store, id).await.expect("listed").device.settings;
    assert_eq!(settings().await, DeviceSettings::default());
    let mut before = store.inventory().await.expect("digests");
    for (seconds, algorithms, expected) in [
        (
            Some(600),
            None,
            DeviceSettings {
                command_timeout: Some(Duration::from_secs(600)),
                ssh_algorithms: None,
            },
        ),
        (
            Some(600),
            Some("modern"),
            DeviceSettings {
                command_timeout: Some(Duration::from_secs(600)),
                ssh_algorithms: Some(SshAlgorithms::Modern),
            },
        ),
        (None, None, DeviceSettings::default()),
    ] {
        operator.set_settings(id, seconds, algorithms).await;
        let after = store.inventory().await.expect("digests");
        assert_ne!(before.get(&bucket), after.get(&bucket), "{expected:?}");
        before = after;
        assert_eq!(settings().await, expected);
        let last = listed(store, id).await.expect("listed").last;
        let claim = claim(id, last.map(|last| last.id), "one");
        let begun = begin(store, &claim).await;
        assert_eq!(begun.device.settings, expected, "read afresh by the claim");
        let taken_back = store.unclaim(id, claim.attempt).await;
        taken_back.expect("take the claim back");
    }
}
