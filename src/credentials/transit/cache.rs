//! Plaintexts for a while: bounded in number and in time, gone as soon as somebody says so.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use tokio::time::Instant;

use crate::domain::device::DeviceId;
use crate::domain::digest::Digest;

/// How long a plaintext is good for. Long enough for the devices that share a credential profile
/// and for retries; short enough that a right that was taken away is soon gone.
pub(super) const FRESH: Duration = Duration::from_secs(300);

/// So many are kept; the oldest goes first.
pub(super) const MOST: usize = 4096;

/// What was decrypted. Keys are digests of key name and ciphertext: a changed ciphertext is never
/// answered from here.
#[derive(Default)]
pub(super) struct Cache {
    kept: HashMap<Digest, Kept>,
    /// In the order in which they came, which is the one in which they go.
    by_age: BTreeMap<u64, Digest>,
    by_device: HashMap<DeviceId, Digest>,
    next: u64,
    /// How often somebody said that something changed.
    epoch: u64,
}

struct Kept {
    plaintext: Zeroizing<Vec<u8>>,
    number: u64,
    until: Instant,
    devices: Vec<DeviceId>,
}

/// What the cache had seen when a request went out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Epoch(u64);

impl Cache {
    /// The plaintext of `digest`, for `device`.
    pub(super) fn get(
        &mut self,
        digest: Digest,
        device: DeviceId,
        now: Instant,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let kept = self.kept.get(&digest).filter(|kept| now < kept.until)?;
        let plaintext = kept.plaintext.clone();
        self.bind(digest, device);
        Some(plaintext)
    }

    /// What to hand to [`Cache::put`] with what is asked for now.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// Keeps a plaintext that was asked for at `epoch`, unless something was said to have changed
    /// since.
    pub(super) fn put(
        &mut self,
        digest: Digest,
        device: DeviceId,
        plaintext: Zeroizing<Vec<u8>>,
        epoch: Epoch,
        now: Instant,
    ) {
        if epoch.0 != self.epoch {
            return;
        }
        self.remove(digest);
        self.sweep(now);
        while self.kept.len() >= MOST {
            let Some((_, oldest)) = self.by_age.first_key_value() else {
                break;
            };
            self.remove(*oldest);
        }
        self.next += 1;
        self.by_age.insert(self.next, digest);
        let kept = Kept {
            plaintext,
            number: self.next,
            until: now + FRESH,
            devices: Vec::new(),
        };
        self.kept.insert(digest, kept);
        self.bind(digest, device);
    }

    /// Forgets what `device` is logged in to with, also where others share it.
    pub(super) fn forget(&mut self, device: DeviceId) {
        self.epoch += 1;
        if let Some(digest) = self.by_device.get(&device).copied() {
            self.remove(digest);
        }
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&mut self, now: Instant) {
        while let Some((_, oldest)) = self.by_age.first_key_value() {
            let oldest = *oldest;
            if self.kept.get(&oldest).is_some_and(|kept| now < kept.until) {
                return;
            }
            self.remove(oldest);
        }
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    fn bind(&mut self, digest: Digest, device: DeviceId) {
        match self.by_device.insert(device, digest) {
            Some(before) if before == digest => return,
            // The device's ciphertext changed: nobody asks for the old one on its behalf again.
            Some(before) => {
                if let Some(kept) = self.kept.get_mut(&before) {
                    kept.devices.retain(|other| *other != device);
                    if kept.devices.is_empty() {
                        self.remove(before);
                    }
                }
            }
            None => {}
        }
        if let Some(kept) = self.kept.get_mut(&digest) {
            kept.devices.push(device);
        }
    }

    fn remove(&mut self, digest: Digest) {
        if let Some(kept) = self.kept.remove(&digest) {
            self.by_age.remove(&kept.number);
            for device in kept.devices {
                self.by_device.remove(&device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn device(n: u8) -> DeviceId {
        DeviceId(Uuid::from_u128(n.into()))
    }

    fn digest(n: u16) -> Digest {
        Digest::of(n.to_be_bytes())
    }

    fn put(cache: &mut Cache, text: u16, of: u8, now: Instant) {
        let plaintext = Zeroizing::new(text.to_be_bytes().to_vec());
        let epoch = cache.epoch();
        cache.put(digest(text), device(of), plaintext, epoch, now);
    }

    #[test]
    fn a_plaintext_is_there_for_five_minutes_and_then_gone() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        put(&mut cache, 1, 1, now);
        let just_before = now + FRESH - Duration::from_millis(1);
        assert!(cache.get(digest(1), device(1), just_before).is_some());
        assert!(cache.get(digest(1), device(1), now + FRESH).is_none());
        assert_eq!(cache.len(), 1, "in memory until it is swept");
        cache.sweep(now + FRESH);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn what_a_device_forgets_is_gone_for_all_who_share_it() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        put(&mut cache, 1, 1, now);
        assert!(cache.get(digest(1), device(2), now).is_some());
        put(&mut cache, 2, 3, now);
        cache.forget(device(2));
        assert!(cache.get(digest(1), device(1), now).is_none());
        assert!(cache.get(digest(2), device(3), now).is_some());
    }

    #[test]
    fn what_was_asked_for_before_a_change_is_not_kept_after_it() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let epoch = cache.epoch();
        cache.forget(device(1));
        let plaintext = Zeroizing::new(b"old".to_vec());
        cache.put(digest(1), device(1), plaintext, epoch, now);
        assert!(cache.get(digest(1), device(1), now).is_none());
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for n in 0..=u16::try_from(MOST).unwrap() {
            put(&mut cache, n, 0, now);
            put(&mut cache, n, (n % 250) as u8, now);
        }
        assert!(cache.len() <= MOST);
    }

    proptest! {
        /// The three maps tell the same story, whatever happens.
        #[test]
        fn nothing_is_left_behind(
            ops in proptest::collection::vec((0..4u8, 0..6u16, 0..4u8, 0..200u64), 0..80)
        ) {
            let (mut cache, mut now) = (Cache::default(), Instant::now());
            for (op, text, of, seconds) in ops {
                now += Duration::from_secs(seconds);
                match op {
                    0 | 1 => put(&mut cache, text, of, now),
                    2 => {
                        if let Some(found) = cache.get(digest(text), device(of), now) {
                            prop_assert_eq!(&**found, &text.to_be_bytes());
                        }
                    }
                    _ => {
                        cache.forget(device(of));
                        prop_assert!(!cache.by_device.contains_key(&device(of)));
                    }
                }
                prop_assert_eq!(cache.kept.len(), cache.by_age.len());
                for (device, digest) in &cache.by_device {
                    prop_assert!(cache.kept[digest].devices.contains(device));
                }
                let bound: usize = cache.kept.values().map(|kept| kept.devices.len()).sum();
                prop_assert_eq!(bound, cache.by_device.len());
            }
            cache.sweep(now + FRESH);
            prop_assert_eq!(cache.len() + cache.by_age.len() + cache.by_device.len(), 0);
        }
    }
}
