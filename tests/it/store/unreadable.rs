//! Rows of the platform's that cannot be read are left out, and counted for as long as they are
//! there.

use mikrotik_backup::ports::Store as _;

use super::contract::all_buckets;
use crate::services::postgres::{NewDevice, fresh_database, insert_device};

#[tokio::test]
async fn rows_that_cannot_be_read_are_counted_until_they_can() {
    let Some(database) = fresh_database().await else {
        return;
    };
    // A platform may allow what our own table does not.
    database
        .sql("ALTER TABLE devices ALTER tenant_id DROP NOT NULL")
        .await;
    let mut devices = Vec::new();
    for _ in 0..3 {
        devices.push(insert_device(&database.pool, NewDevice::default()).await);
    }
    let (broken, intact) = (devices[0], devices[2]);
    let store = database.store("one");
    let set = async |tenant: &str| {
        let statement = format!("UPDATE devices SET tenant_id = {tenant} WHERE id = '{broken}'");
        database.sql(&statement).await;
    };
    set("NULL").await;
    let listed = store.devices(&all_buckets()).await.expect("the others");
    assert_eq!((listed.len(), store.unreadable()), (2, 1));
    store.note_seen(&devices).await.expect("note the others");

    // Only what changed is read again, and what was found elsewhere still counts.
    let bucket = |device: mikrotik_backup::domain::device::DeviceId| device.0.as_bytes()[15];
    if bucket(intact) != bucket(broken) {
        store.devices(&[bucket(intact)]).await.expect("one bucket");
    }
    assert_eq!(store.unreadable(), 1);
    set("gen_random_uuid()").await;
    let listed = store.devices(&[bucket(broken)]).await.expect("one bucket");
    assert!(listed.iter().any(|listed| listed.device.id == broken));
    assert_eq!(store.unreadable(), 0);
    store.close().await;
}
