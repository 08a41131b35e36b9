//! What is in the outbox, as plain vectors: what each operation means, and what Redis must hold.

use std::collections::{BTreeMap, BTreeSet};

use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::ports::{Letter, OutboxState};
use redis::aio::MultiplexedConnection;

const PROCESSING: &str = "backup:outbox:processing:";

/// Everything in one look, so that no other command is between two of them.
const LOOK: &str = "
local hands = {}
for _, key in ipairs(redis.call('KEYS', 'backup:outbox:processing:*')) do
  table.insert(hands, key)
  table.insert(hands, redis.call('LRANGE', key, 0, -1))
end
return {
  redis.call('LRANGE', 'backup:outbox', 0, -1),
  hands,
  redis.call('LRANGE', 'backup:outbox:dead', 0, -1),
  redis.call('ZRANGE', 'backup:outbox:index', 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', 'backup:outbox:devices'),
  redis.call('GET', 'backup:outbox:bytes') or '0',
  redis.call('SMEMBERS', 'backup:outbox:relays'),
}";

/// The three places of a letter.
#[derive(Clone, Default)]
pub struct Model {
    pub waiting: Vec<Letter>,
    /// By the relay's name.
    pub hands: BTreeMap<String, Vec<Letter>>,
    pub dead: Vec<Letter>,
}

/// What is in Redis, or must be.
#[derive(PartialEq, Eq, Debug)]
struct Stored {
    waiting: Vec<String>,
    hands: BTreeMap<String, Vec<String>>,
    dead: Vec<String>,
    index: BTreeMap<String, i64>,
    devices: BTreeMap<String, i64>,
    bytes: i64,
}

fn texts(letters: &[Letter]) -> Vec<String> {
    let text = |letter: &Letter| String::from_utf8_lossy(&letter.text).into_owned();
    letters.iter().map(text).collect()
}

fn milliseconds(letter: &Letter) -> i64 {
    i64::try_from(letter.created_at.unix_timestamp_nanos() / 1_000_000).expect("a time of today")
}

impl Model {
    /// Those that wait or are in a relay's hands.
    fn open(&self) -> impl Iterator<Item = &Letter> {
        self.hands.values().flatten().chain(&self.waiting)
    }

    pub fn waits(&self, device: DeviceId) -> bool {
        self.open().any(|letter| letter.device == device)
    }

    fn has(&self, letter: &Letter) -> bool {
        self.open().any(|open| open.id == letter.id)
    }

    pub fn append(&mut self, letter: &Letter) {
        if !self.has(letter) {
            self.waiting.push(letter.clone());
        }
    }

    /// What relays have in their hands goes to the front; how many that were.
    pub fn recover(&mut self) -> usize {
        let mut front: Vec<_> = std::mem::take(&mut self.hands)
            .into_values()
            .flatten()
            .collect();
        let moved = front.len();
        front.append(&mut self.waiting);
        self.waiting = front;
        moved
    }

    pub fn take(&mut self, relay: &str) -> Option<Letter> {
        if self.waiting.is_empty() {
            return None;
        }
        let letter = self.waiting.remove(0);
        let hands = self.hands.entry(relay.to_owned()).or_default();
        hands.push(letter.clone());
        Some(letter)
    }

    /// Takes the letter with this text out of the relay's hands.
    fn out_of_hands(&mut self, relay: &str, text: &[u8]) -> Option<Letter> {
        let hands = self.hands.get_mut(relay)?;
        let place = hands.iter().position(|letter| letter.text == text)?;
        let letter = hands.remove(place);
        if hands.is_empty() {
            self.hands.remove(relay);
        }
        Some(letter)
    }

    pub fn remove(&mut self, relay: &str, letter: &Letter) {
        self.out_of_hands(relay, &letter.text);
    }

    pub fn replace(&mut self, relay: &str, letter: &Letter, text: &[u8]) {
        let hands = self.hands.get_mut(relay).into_iter().flatten();
        for held in hands.filter(|held| held.text == letter.text) {
            held.text = text.to_vec();
        }
    }

    pub fn bury(&mut self, relay: &str, letter: &Letter, text: &[u8]) {
        if let Some(mut letter) = self.out_of_hands(relay, &letter.text) {
            letter.text = text.to_vec();
            self.dead.push(letter);
        }
    }

    pub fn revive(&mut self, from: &[u8], letter: &Letter) {
        let place = self.dead.iter().position(|dead| dead.text == from);
        if let Some(place) = place {
            self.dead.remove(place);
            self.append(letter);
        }
    }

    fn stored(&self) -> Stored {
        let mut devices = BTreeMap::new();
        for letter in self.open() {
            *devices.entry(letter.device.to_string()).or_default() += 1;
        }
        let entry = |letter: &Letter| (letter.id.to_string(), milliseconds(letter));
        let index: BTreeMap<_, _> = self.open().map(entry).collect();
        assert_eq!(index.len(), self.open().count(), "a letter is in one place");
        let all = self.open().chain(&self.dead);
        let bytes: usize = all.map(|letter| letter.text.len()).sum();
        let hands = |(relay, held): (&String, &Vec<_>)| (relay.clone(), texts(held));
        Stored {
            waiting: texts(&self.waiting),
            hands: self.hands.iter().map(hands).collect(),
            dead: texts(&self.dead),
            index,
            devices,
            bytes: i64::try_from(bytes).expect("few"),
        }
    }

    /// What the outbox must say of itself.
    pub fn state(&self) -> OutboxState {
        let stored = self.stored();
        let oldest = self.open().min_by_key(|letter| letter.created_at);
        OutboxState {
            letters: stored.index.len() as u64,
            bytes: stored.bytes.unsigned_abs(),
            oldest: oldest.map(|letter| letter.created_at),
            dead: self.dead.len() as u64,
        }
    }

    /// Redis holds the same, and knows of every list that a letter is in.
    pub async fn assert_is_in(&self, redis: &mut MultiplexedConnection, after: &str) {
        type Lists = (Vec<String>, Vec<(String, Vec<String>)>, Vec<String>);
        type Beside = (Vec<(String, i64)>, Vec<(String, i64)>, i64, Vec<String>);
        let values: Vec<redis::Value> = redis::cmd("EVAL")
            .arg(LOOK)
            .arg(0)
            .query_async(redis)
            .await
            .expect("look at everything");
        let mut values = values.into_iter();
        let mut next = || values.next().expect("seven values");
        let (waiting, hands, dead): Lists = (read(next()), read(next()), read(next()));
        let (index, devices, bytes, relays): Beside =
            (read(next()), read(next()), read(next()), read(next()));
        let known: BTreeSet<_> = relays.into_iter().collect();
        let mut by_relay = BTreeMap::new();
        for (key, held) in hands {
            assert!(known.contains(&key), "after {after}: nobody looks at {key}");
            let name = key
                .strip_prefix(PROCESSING)
                .and_then(|key| key.split(':').next());
            by_relay.insert(name.expect("a relay's list").to_owned(), held);
        }
        let stored = Stored {
            waiting,
            hands: by_relay,
            dead,
            index: index.into_iter().collect(),
            devices: devices.into_iter().collect(),
            bytes,
        };
        assert_eq!(stored, self.stored(), "Redis, and the model, after {after}");
    }
}

fn read<T: redis::FromRedisValue>(value: redis::Value) -> T {
    redis::from_redis_value(value).expect("what the script returns")
}
