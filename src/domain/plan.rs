//! What the reconciler must do to make the running workers match the inventory.
//!
//! The inventory is divided into buckets, and only the buckets whose digest changed are loaded.
//! So a plan speaks of the devices of those buckets alone; all others go on undisturbed.

use std::collections::{BTreeMap, BTreeSet};

use super::device::{DeviceId, Revision, TenantId};
use super::session::DeviceSettings;

/// One of the 256 buckets that the inventory is divided into.
pub type Bucket = u8;

/// What a running worker has been told of its device, or should be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// The bucket that the device is counted in.
    pub bucket: Bucket,
    /// The digests of the parts whose edit may lift a block.
    pub revision: Revision,
    /// Its display name.
    pub name: String,
    /// Its owner.
    pub tenant: TenantId,
    /// What differs for it from the service's own settings.
    pub settings: DeviceSettings,
}

/// One thing for the reconciler to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Start a worker for a device that has none.
    Start(DeviceId, Known),
    /// Tell the worker of a device what its row says now.
    Edit(DeviceId, Known),
    /// Stop the worker of a device that left the inventory.
    Stop(DeviceId),
}

impl Action {
    /// Notes in `running` that the action was taken.
    pub fn apply(self, running: &mut BTreeMap<DeviceId, Known>) {
        match self {
            Self::Start(device, known) | Self::Edit(device, known) => {
                running.insert(device, known);
            }
            Self::Stop(device) => {
                running.remove(&device);
            }
        }
    }
}

/// The buckets whose digest differs between two readings of the inventory, also those that only
/// one of them has.
pub fn changed_buckets(
    old: &BTreeMap<Bucket, String>,
    new: &BTreeMap<Bucket, String>,
) -> BTreeSet<Bucket> {
    let differs = |bucket: &&Bucket| old.get(bucket) != new.get(bucket);
    old.keys()
        .chain(new.keys())
        .filter(differs)
        .copied()
        .collect()
}

/// Compares the devices of the `changed` buckets as they run with those that are `desired`.
///
/// `desired` holds every device of the changed buckets: one that runs, belongs to a changed bucket
/// and is not desired must stop, and so must all devices of a bucket that vanished. Running devices
/// of other buckets are left alone. Stops come first, so that no more workers run at any time than
/// before or after; within a kind the order is that of the ids.
pub fn plan(
    running: &BTreeMap<DeviceId, Known>,
    desired: BTreeMap<DeviceId, Known>,
    changed: &BTreeSet<Bucket>,
) -> Vec<Action> {
    let mut actions: Vec<_> = running
        .iter()
        .filter(|(device, known)| changed.contains(&known.bucket) && !desired.contains_key(device))
        .map(|(device, _)| Action::Stop(*device))
        .collect();
    let mut starts = Vec::new();
    for (device, known) in desired {
        match running.get(&device) {
            None => starts.push(Action::Start(device, known)),
            Some(told) if *told != known => actions.push(Action::Edit(device, known)),
            Some(_) => {}
        }
    }
    actions.append(&mut starts);
    actions
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::digest::Digest;

    type Devices = BTreeMap<DeviceId, Known>;

    fn device(n: u8) -> DeviceId {
        DeviceId(Uuid::from_u128(n.into()))
    }

    fn known(bucket: Bucket, password: u8) -> Known {
        Known {
            bucket,
            revision: Revision {
                endpoint: Digest::of("address"),
                credentials: Digest::of([password]),
                pin: Digest::of("pin"),
            },
            name: "edge".into(),
            tenant: TenantId(Uuid::nil()),
            settings: DeviceSettings::default(),
        }
    }

    /// Devices that are counted in the bucket of their last two bits.
    fn inventories() -> impl Strategy<Value = Devices> {
        btree_map(0..24u8, 0..3u8, 0..24).prop_map(|devices| {
            let entry = |(n, password)| (device(n), known(n % 4, password));
            devices.into_iter().map(entry).collect()
        })
    }

    fn of_buckets(devices: &Devices, buckets: &BTreeSet<Bucket>) -> Devices {
        let mut devices = devices.clone();
        devices.retain(|_, known| buckets.contains(&known.bucket));
        devices
    }

    #[test]
    fn starts_edits_and_stops() {
        let running = Devices::from([
            (device(1), known(1, 0)),
            (device(2), known(1, 0)),
            (device(3), known(1, 0)),
            (device(9), known(2, 0)),
        ]);
        let desired = Devices::from([
            (device(0), known(1, 0)),
            (device(2), known(1, 1)),
            (device(3), known(1, 0)),
        ]);
        assert_eq!(
            plan(&running, desired, &BTreeSet::from([1])),
            [
                Action::Stop(device(1)),
                Action::Edit(device(2), known(1, 1)),
                Action::Start(device(0), known(1, 0)),
            ]
        );
    }

    #[test]
    fn a_new_name_or_owner_is_an_edit() {
        let running = Devices::from([(device(1), known(1, 0))]);
        let renamed = Known {
            name: "core".into(),
            ..known(1, 0)
        };
        let sold = Known {
            tenant: TenantId(Uuid::max()),
            ..known(1, 0)
        };
        for known in [renamed, sold] {
            let desired = Devices::from([(device(1), known.clone())]);
            let actions = plan(&running, desired, &BTreeSet::from([1]));
            assert_eq!(actions, [Action::Edit(device(1), known)]);
        }
    }

    #[test]
    fn a_bucket_that_vanished_stops_its_devices() {
        let digests = |buckets: &[Bucket]| buckets.iter().map(|b| (*b, b.to_string())).collect();
        let changed = changed_buckets(&digests(&[1, 2]), &digests(&[2]));
        assert_eq!(changed, BTreeSet::from([1]));
        let running = Devices::from([(device(1), known(1, 0)), (device(2), known(2, 0))]);
        let actions = plan(&running, Devices::new(), &changed);
        assert_eq!(actions, [Action::Stop(device(1))]);
    }

    #[test]
    fn buckets_change_when_they_appear_differ_or_vanish() {
        let old = BTreeMap::from([(1, "a".into()), (2, "b".into()), (3, "c".into())]);
        let new = BTreeMap::from([(2, "b".into()), (3, "C".into()), (4, "d".into())]);
        assert_eq!(changed_buckets(&old, &new), BTreeSet::from([1, 3, 4]));
        assert_eq!(changed_buckets(&old, &old), BTreeSet::new());
    }

    proptest! {
        #[test]
        fn a_plan_brings_changed_buckets_up_to_date_and_leaves_the_others(
            running in inventories(),
            inventory in inventories(),
            changed in btree_set(0..4u8, 0..=4),
        ) {
            let unchanged = (0..4).filter(|bucket| !changed.contains(bucket)).collect();
            let desired = of_buckets(&inventory, &changed);
            let mut now_running = running.clone();
            for action in plan(&running, desired.clone(), &changed) {
                action.apply(&mut now_running);
            }
            prop_assert_eq!(of_buckets(&now_running, &changed), desired.clone());
            prop_assert_eq!(of_buckets(&now_running, &unchanged), of_buckets(&running, &unchanged));
            prop_assert_eq!(plan(&now_running, desired, &changed), [], "a second plan is empty");
        }

        #[test]
        fn applying_a_plan_twice_is_applying_it_once(
            running in inventories(),
            desired in inventories(),
        ) {
            let actions = plan(&running, desired, &(0..4).collect());
            let mut once = running;
            actions.iter().cloned().for_each(|action| action.apply(&mut once));
            let mut twice = once.clone();
            actions.into_iter().for_each(|action| action.apply(&mut twice));
            prop_assert_eq!(once, twice);
        }
    }
}
