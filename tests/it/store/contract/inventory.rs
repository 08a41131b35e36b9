//! The inventory: which devices are ours, what tells edits apart, and pins.

use mikrotik_backup::domain::device::{CredentialSource, DeviceId, TenantId};
use mikrotik_backup::domain::host_key::{Fingerprint, Pin};
use mikrotik_backup::ports::{Claimed, Listed, Store, StoreError};
use uuid::Uuid;

use super::{Operator, Value, all_buckets, begin, claim, interrupted, listed, record};
use crate::services::postgres::NewDevice;

pub(super) async fn only_our_devices_are_listed(store: &dyn Store, operator: &dyn Operator) {
    let none = NewDevice {
        encrypted_credentials: None,
        ..NewDevice::default()
    };
    let no_credentials = operator.insert(none.clone()).await;
    let empty_profile = operator.insert_profile(None, None).await;
    let nothing_in_profile = operator
        .insert(NewDevice {
            id: Uuid::new_v4(),
            credential_profile_id: Some(empty_profile),
            ..none.clone()
        })
        .await;
    let switch = operator
        .insert(NewDevice {
            device_type: Some("switch".into()),
            ..NewDevice::default()
        })
        .await;
    for id in [no_credentials, nothing_in_profile, switch] {
        assert_eq!(listed(store, id).await, None);
        let claimed = store
            .claim(&claim(id, None, "one"))
            .await
            .expect("an answer");
        assert_eq!(claimed, Claimed::Gone);
    }

    let profile = operator
        .insert_profile(Some(b"p".to_vec()), Some("vault:v1:p".into()))
        .await;
    let row = NewDevice {
        id: Uuid::new_v4(),
        tenant: Uuid::new_v4(),
        hostname: "edge".into(),
        ip_address: "2001:db8::7".into(),
        ssh_port: Some(2222),
        device_type: Some("routeros".into()),
        routeros_version: Some("7.1".into()),
        credential_profile_id: Some(profile),
        ..none
    };
    let id = operator.insert(row.clone()).await;
    let Listed {
        bucket,
        device,
        last,
        ..
    } = listed(store, id).await.expect("one of ours");
    assert_eq!(bucket, row.id.as_bytes()[15]);
    assert_eq!(
        (device.tenant, device.name.as_str()),
        (TenantId(row.tenant), "edge")
    );
    assert_eq!(
        (device.endpoint.host.as_str(), device.endpoint.port),
        ("2001:db8::7", 2222)
    );
    assert_eq!(
        device.credentials,
        CredentialSource::ProfileTransit("vault:v1:p".into())
    );
    assert_eq!(
        (device.pin, device.routeros_version.as_deref()),
        (Pin::Unpinned, Some("7.1"))
    );
    assert_eq!(last, None);

    operator
        .set(
            "credential_profiles",
            profile,
            "encrypted_credentials_transit",
            Value::Null,
        )
        .await;
    let credentials = async || {
        listed(store, id)
            .await
            .expect("one of ours")
            .device
            .credentials
    };
    assert_eq!(
        credentials().await,
        CredentialSource::ProfileSealed(b"p".to_vec())
    );
    operator
        .set("devices", id.0, "encrypted_credentials", Value::Bytes(b"d"))
        .await;
    assert_eq!(
        credentials().await,
        CredentialSource::DeviceSealed(b"d".to_vec())
    );
    operator
        .set(
            "devices",
            id.0,
            "encrypted_credentials_transit",
            Value::Text("vault:v1:d"),
        )
        .await;
    assert_eq!(
        credentials().await,
        CredentialSource::DeviceTransit("vault:v1:d".into())
    );
}

pub(super) async fn odd_rows_do_not_break_others(store: &dyn Store, operator: &dyn Operator) {
    let good = operator.insert(NewDevice::default()).await;
    let port = operator
        .insert(NewDevice {
            ssh_port: Some(-7),
            ..NewDevice::default()
        })
        .await;
    let host = operator
        .insert(NewDevice {
            ip_address: " ".into(),
            ..NewDevice::default()
        })
        .await;
    let pin = NewDevice {
        ssh_host_key_fingerprint: Some("MD5:00".into()),
        ..NewDevice::default()
    };
    let pin = operator.insert(pin).await;
    let good = listed(store, good).await.expect("the good one").device;
    assert_eq!(good.endpoint.port, 22, "NULL means 22");
    for odd in [port, host] {
        let device = listed(store, odd)
            .await
            .expect("listed all the same")
            .device;
        assert!(device.endpoint.target().is_err(), "{device:?}");
    }
    let pinned = listed(store, pin)
        .await
        .expect("listed all the same")
        .device
        .pin;
    assert_eq!(pinned, Pin::Unreadable("MD5:00".into()));
}

pub(super) async fn digests_follow_exactly_what_is_read(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let profile = operator.insert_profile(None, None).await;
    let id = operator
        .insert(NewDevice {
            credential_profile_id: Some(profile),
            ..NewDevice::default()
        })
        .await;
    let bucket = id.0.as_bytes()[15];
    let other_profile = operator.insert_profile(None, None).await;
    let mut before = store.inventory().await.expect("digests");
    assert_eq!(
        store.inventory().await.expect("digests"),
        before,
        "the same rows, the same digests"
    );
    let relevant = [
        ("devices", id.0, "hostname", Value::Text("renamed")),
        ("devices", id.0, "tenant_id", Value::Id(Uuid::new_v4())),
        ("devices", id.0, "ip_address", Value::Text("192.0.2.9")),
        ("devices", id.0, "ssh_port", Value::Int(22)),
        ("devices", id.0, "device_type", Value::Text("routeros")),
        (
            "devices",
            id.0,
            "encrypted_credentials",
            Value::Bytes(b"new"),
        ),
        (
            "devices",
            id.0,
            "encrypted_credentials_transit",
            Value::Text("vault:v1:new"),
        ),
        (
            "devices",
            id.0,
            "credential_profile_id",
            Value::Id(other_profile),
        ),
        (
            "credential_profiles",
            other_profile,
            "encrypted_credentials",
            Value::Bytes(b"new"),
        ),
        (
            "credential_profiles",
            other_profile,
            "encrypted_credentials_transit",
            Value::Text("v"),
        ),
        ("devices", id.0, "ssh_host_key_fingerprint", Value::Text("")),
        ("devices", id.0, "ssh_host_key_fingerprint", Value::Null),
    ];
    for (table, row, column, value) in relevant {
        operator.set(table, row, column, value.clone()).await;
        let after = store.inventory().await.expect("digests");
        let changed: Vec<_> = all_buckets()
            .into_iter()
            .filter(|b| after.get(b) != before.get(b))
            .collect();
        assert_eq!(changed, [bucket], "{table}.{column} = {value:?}");
        before = after;
    }
    operator
        .set("devices", id.0, "routeros_version", Value::Text("7.99"))
        .await;
    let device = listed(store, id).await.expect("one of ours").device;
    let attempt = claim(id, None, "one");
    begin(store, &attempt).await;
    store
        .record(&record(attempt.attempt, &device, interrupted()), "one")
        .await
        .expect("record");
    assert_eq!(
        store.inventory().await.expect("digests"),
        before,
        "nothing that is read has changed"
    );

    let alone = before.clone();
    operator.delete(id).await;
    let after = store.inventory().await.expect("digests");
    assert_ne!(after.get(&bucket), alone.get(&bucket), "a deletion shows");
    assert_eq!(listed(store, id).await, None);
}

pub(super) async fn the_first_pin_wins(store: &dyn Store, operator: &dyn Operator) {
    let id = operator.insert(NewDevice::default()).await;
    let [first, second] = [b"first", b"other"].map(|blob| Fingerprint::of_key_blob(blob));
    let pinned = Pin::Pinned(first.clone());
    for seen in [&first, &second, &first] {
        assert_eq!(
            store.pin_host_key(id, seen).await.expect("pin"),
            pinned,
            "{seen}"
        );
    }
    assert_eq!(listed(store, id).await.expect("listed").device.pin, pinned);
    operator
        .set(
            "devices",
            id.0,
            "ssh_host_key_fingerprint",
            Value::Text("not a key"),
        )
        .await;
    let stored = store.pin_host_key(id, &second).await.expect("pin");
    assert_eq!(
        stored,
        Pin::Unreadable("not a key".into()),
        "any value is a pin"
    );
    operator
        .set("devices", id.0, "ssh_host_key_fingerprint", Value::Null)
        .await;
    assert_eq!(
        store.pin_host_key(id, &second).await.expect("pin"),
        Pin::Pinned(second)
    );
    let gone = store.pin_host_key(DeviceId(Uuid::new_v4()), &first).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
}

pub(super) async fn since_when_a_device_is_known_is_kept(
    store: &dyn Store,
    operator: &dyn Operator,
) {
    let id = operator.insert(NewDevice::default()).await;
    let new = listed(store, id).await.expect("listed");
    assert_eq!(new.first_seen, None);
    store.note_seen(&[id]).await.expect("note it");
    let first = listed(store, id).await.expect("listed").first_seen;
    let first = first.expect("noted");
    store.note_seen(&[id]).await.expect("note it again");
    let wish = claim(id, None, "one");
    begin(store, &wish).await;
    let again = listed(store, id).await.expect("listed");
    assert_eq!(again.last, None, "being known is no attempt");
    // PostgreSQL tells ages: what is computed from one twice differs by how long the answers took.
    let drift = again.first_seen.expect("noted") - first;
    assert!(drift.abs() < time::Duration::milliseconds(200), "{drift}");

    // One whose first attempt came before anybody noted it is known from then on.
    let tried = operator.insert(NewDevice::default()).await;
    begin(store, &claim(tried, None, "one")).await;
    store.note_seen(&[tried]).await.expect("note it");
    assert!(
        listed(store, tried)
            .await
            .expect("listed")
            .first_seen
            .is_some()
    );
}
