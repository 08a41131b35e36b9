//! The outbox in Redis, Valkey or Dragonfly: lists of letters, and what is counted beside them.
//!
//! | key | what |
//! | --- | --- |
//! | `backup:outbox` | the letters that wait, oldest first |
//! | `backup:outbox:processing:{relay}` | those in a relay's hands; `backup:outbox:relays` lists these keys |
//! | `backup:outbox:dead` | dead letters |
//! | `backup:outbox:index` | the ids of the first two, by the time at which they were put in |
//! | `backup:outbox:devices` | how many of them each device has |
//! | `backup:outbox:bytes` | the size of all texts |
//! | `backup:outbox:relay` | the relay's lease |
//!
//! Every change is one script, so that lists and counts agree whenever anybody looks, and every
//! script that is sent twice, because the answer to the first was lost, does its work once. Only a
//! letter is never asked for twice: the second one may be of the same device, and would overtake the
//! first. A letter that was taken without our learning of it is found by [`Outbox::recover`].

mod scripts;
mod way;

use std::time::Duration;

use async_trait::async_trait;
use redis::Cmd;
use secrecy::SecretString;
use tokio::time::Instant;

use self::way::{LARGE, Way, allowed};
use super::link::Request;
use super::{certain, invalid_url, milliseconds, release_command};
use crate::domain::Timestamp;
use crate::domain::attempt::AttemptId;
use crate::domain::device::DeviceId;
use crate::domain::failure::chain;
use crate::ports::{Fetched, Large, Letter, Next, Outbox, OutboxError, OutboxState, RelayLease};

const WAITING: &str = "backup:outbox";
const DEAD: &str = "backup:outbox:dead";
const INDEX: &str = "backup:outbox:index";
const DEVICES: &str = "backup:outbox:devices";
const BYTES: &str = "backup:outbox:bytes";
const LEASE: &str = "backup:outbox:relay";
const RELAYS: &str = "backup:outbox:relays";
const PROCESSING: &str = "backup:outbox:processing:";

/// So much of a larger one tells what it is filed under: that is half as long.
const HEAD: usize = 1 << 10;

/// How many letters one script moves, and how many ids one request asks for: a script keeps the
/// server from everything else.
const BATCH: u32 = 100;

/// The outbox of a cluster, over connections of its own.
pub struct RedisOutbox {
    way: Way,
    /// The list of what this process has in its hands.
    processing: String,
}

impl RedisOutbox {
    /// Prepares to talk to the server at `url` and returns at once. `replica` names this process in
    /// a key; processes of the same name do not get into each other's way.
    ///
    /// # Errors
    /// When `url` does not parse. The error does not repeat it.
    pub fn connect(url: &SecretString, replica: &str) -> Result<Self, OutboxError> {
        let way = Way::new(url).map_err(|error| {
            let (operation, source) = invalid_url(&error);
            OutboxError { operation, source }
        })?;
        let unique = hex::encode(rand::random::<[u8; 4]>());
        Ok(Self {
            way,
            processing: format!("{PROCESSING}{replica}:{unique}"),
        })
    }
}

/// `EVAL` with every key declared.
fn script<'a>(text: &str, keys: impl IntoIterator<Item = &'a str>) -> Cmd {
    let keys: Vec<_> = keys.into_iter().collect();
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(keys.len()).arg(keys);
    command
}

/// Milliseconds since 1970, as the index is sorted by.
fn score(at: Timestamp) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn of_score(score: f64) -> Option<Timestamp> {
    // A double holds the milliseconds of the next 285 000 years exactly.
    Timestamp::from_unix_timestamp_nanos(score as i128 * 1_000_000).ok()
}

#[async_trait]
impl Outbox for RedisOutbox {
    async fn append(&self, letter: &Letter) -> Result<(), OutboxError> {
        let mut command = script(scripts::APPEND, [WAITING, INDEX, DEVICES, BYTES]);
        command
            .arg(&letter.text)
            .arg(letter.id.to_string())
            .arg(letter.device.to_string())
            .arg(score(letter.created_at));
        let operation = || format!("put the snapshot of attempt {} into the outbox", letter.id);
        let bytes = letter.text.len();
        self.way
            .carry::<i64>(operation, &command, bytes)
            .await
            .map(drop)
    }

    async fn waits(&self, device: DeviceId) -> Result<bool, OutboxError> {
        let mut command = redis::cmd("HEXISTS");
        command.arg(DEVICES).arg(device.to_string());
        let operation = || format!("look whether a snapshot of device {device} waits");
        self.way.ask(operation, &command).await
    }

    async fn state(&self) -> Result<OutboxState, OutboxError> {
        let operation = || "look how full the outbox is".to_owned();
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZCARD").arg(INDEX);
        pipeline.cmd("GET").arg(BYTES);
        pipeline
            .cmd("ZRANGE")
            .arg(INDEX)
            .arg(0)
            .arg(0)
            .arg("WITHSCORES");
        pipeline.cmd("LLEN").arg(DEAD);
        let (letters, bytes, oldest, dead): (u64, Option<i64>, Vec<(String, f64)>, u64) = self
            .way
            .ask_once(operation, Request::Many(pipeline))
            .await?;
        Ok(OutboxState {
            letters,
            bytes: bytes
                .and_then(|bytes| u64::try_from(bytes).ok())
                .unwrap_or(0),
            oldest: oldest.first().and_then(|(_, score)| of_score(*score)),
            dead,
        })
    }

    async fn missing(&self, attempts: &[AttemptId]) -> Result<Vec<AttemptId>, OutboxError> {
        let mut missing = Vec::new();
        for batch in attempts.chunks(BATCH as usize) {
            let mut pipeline = redis::pipe();
            for id in batch {
                pipeline.cmd("ZSCORE").arg(INDEX).arg(id.to_string());
            }
            let operation = || "look for queued attempts in the outbox".to_owned();
            let scores: Vec<Option<f64>> = self
                .way
                .ask_once(operation, Request::Many(pipeline))
                .await?;
            let found = batch.iter().zip(scores);
            missing.extend(
                found
                    .filter(|(_, score)| score.is_none())
                    .map(|(id, _)| *id),
            );
        }
        Ok(missing)
    }

    async fn try_lease(&self, ttl: Duration) -> Result<Option<RelayLease>, OutboxError> {
        let token = hex::encode(rand::random::<[u8; 16]>());
        // Sent twice, the second finds its own token: as good as taken.
        let mut command = script(scripts::LEASE, [LEASE]);
        command.arg(&token).arg(milliseconds(ttl));
        let sent = Instant::now();
        let operation = || format!("take the relay's lease {LEASE} in Redis");
        let taken: i64 = self.way.ask(operation, &command).await?;
        Ok((taken == 1).then(|| RelayLease {
            token,
            expires: sent + certain(ttl),
        }))
    }

    async fn renew(
        &self,
        lease: &RelayLease,
        ttl: Duration,
    ) -> Result<Option<RelayLease>, OutboxError> {
        let mut command = script(scripts::RENEW, [LEASE]);
        command.arg(&lease.token).arg(milliseconds(ttl));
        let sent = Instant::now();
        let operation = || format!("renew the relay's lease {LEASE} in Redis");
        let renewed: i64 = self.way.ask(operation, &command).await?;
        Ok((renewed == 1).then(|| RelayLease {
            token: lease.token.clone(),
            expires: sent + certain(ttl),
        }))
    }

    async fn release(&self, lease: &RelayLease) {
        let command = release_command(LEASE, &lease.token);
        let operation = || format!("give the relay's lease {LEASE} back to Redis");
        if let Err(error) = self.way.ask::<i64>(operation, &command).await {
            let error = chain(&error);
            tracing::debug!(
                error,
                "the relay's lease could not be released and expires by itself"
            );
        }
    }

    async fn recover(&self, lease: &RelayLease) -> Result<u64, OutboxError> {
        let operation = || "put letters that a relay left behind back into the outbox".to_owned();
        let mut members = redis::cmd("SMEMBERS");
        members.arg(RELAYS);
        let mut lists: Vec<String> = self.way.ask(operation, &members).await?;
        // What was in our own hands was taken last, if we have just relayed.
        lists.sort_by_key(|list| *list != self.processing);
        let mut recovered = 0;
        for list in &lists {
            loop {
                let mut command = script(scripts::RECOVER, [LEASE, list, WAITING, RELAYS]);
                command.arg(&lease.token).arg(BATCH);
                let moved: i64 = self.way.ask(operation, &command).await?;
                recovered += u64::try_from(moved).unwrap_or(0);
                if moved < i64::from(BATCH) {
                    break;
                }
            }
        }
        Ok(recovered)
    }

    async fn take(&self, lease: &RelayLease) -> Result<Next, OutboxError> {
        let mut command = script(scripts::TAKE, [LEASE, WAITING, &self.processing, RELAYS]);
        command.arg(&lease.token).arg(LARGE).arg(HEAD);
        let operation = || "take a letter from the outbox".to_owned();
        let (ours, bytes, text): (i64, usize, Option<Vec<u8>>) =
            self.way.ask_once(operation, Request::One(command)).await?;
        Ok(match (ours, bytes, text) {
            (0, _, _) => Next::LeaseLost,
            (_, _, None) => Next::Empty,
            (_, bytes, Some(head)) if bytes > LARGE => Next::Large(Large { head, bytes }),
            (_, _, Some(text)) => Next::Letter(text),
        })
    }

    async fn fetch(
        &self,
        lease: &RelayLease,
        large: &Large,
        before: usize,
    ) -> Result<Fetched, OutboxError> {
        let mut command = script(scripts::FETCH, [LEASE, &self.processing]);
        command.arg(&lease.token).arg(&large.head).arg(before);
        let operation = || format!("fetch a letter of {} bytes from the outbox", large.bytes);
        // It is in our hands; to look at it twice changes nothing.
        let (ours, text): (i64, Option<Vec<u8>>) =
            self.way.carry(operation, &command, large.bytes).await?;
        Ok(match (ours, text) {
            (0, _) => Fetched::LeaseLost,
            (_, None) => Fetched::Gone,
            (_, Some(text)) => Fetched::Text(text),
        })
    }

    async fn remove(&self, letter: &Letter, before: usize) -> Result<(), OutboxError> {
        let mut command = script(scripts::REMOVE, [&self.processing, INDEX, DEVICES, BYTES]);
        // A large one need not travel once more for that.
        let large = letter.text.len() > LARGE;
        let text = if large {
            &letter.text[..HEAD]
        } else {
            &letter.text[..]
        };
        command
            .arg(text)
            .arg(letter.id.to_string())
            .arg(letter.device.to_string())
            .arg(i64::from(large))
            .arg(before);
        let operation = || format!("remove attempt {} from the outbox", letter.id);
        // Redis copies it all the same, and compares it.
        let within = allowed(letter.text.len());
        self.way
            .ask_within::<i64>(operation, &command, within)
            .await
            .map(drop)
    }

    async fn replace(&self, letter: &Letter, text: &[u8]) -> Result<(), OutboxError> {
        let mut command = script(scripts::REPLACE, [self.processing.as_str(), BYTES]);
        command.arg(&letter.text).arg(text);
        let operation = || format!("change attempt {} in the outbox", letter.id);
        let bytes = letter.text.len() + text.len();
        self.way
            .carry::<i64>(operation, &command, bytes)
            .await
            .map(drop)
    }

    async fn bury(
        &self,
        from: &[u8],
        letter: Option<&Letter>,
        text: &[u8],
    ) -> Result<(), OutboxError> {
        let keys = [&self.processing, INDEX, DEVICES, BYTES, DEAD];
        let (id, device) = letter.map_or_else(Default::default, |letter| {
            (letter.id.to_string(), letter.device.to_string())
        });
        let mut command = script(scripts::BURY, keys);
        command.arg(from).arg(id).arg(device).arg(text);
        let operation = || "put a letter among the dead".to_owned();
        self.way
            .carry::<i64>(operation, &command, from.len() + text.len())
            .await
            .map(drop)
    }

    async fn dead(&self, place: u64) -> Result<Option<Vec<u8>>, OutboxError> {
        let operation = || "read the dead letters of the outbox".to_owned();
        let mut command = script(scripts::DEAD, [DEAD]);
        command.arg(place).arg(LARGE);
        let (bytes, text): (i64, Option<Vec<u8>>) = self.way.ask(operation, &command).await?;
        let (Ok(bytes), None) = (usize::try_from(bytes), &text) else {
            return Ok(text);
        };
        let mut command = redis::cmd("LINDEX");
        command.arg(DEAD).arg(place);
        self.way.carry(operation, &command, bytes).await
    }

    async fn revive(&self, from: &[u8], letter: &Letter) -> Result<bool, OutboxError> {
        let mut command = script(scripts::REVIVE, [DEAD, WAITING, INDEX, DEVICES, BYTES]);
        command
            .arg(from)
            .arg(&letter.text)
            .arg(letter.id.to_string())
            .arg(letter.device.to_string())
            .arg(score(letter.created_at));
        let operation = || format!("put the dead letter {} back into the outbox", letter.id);
        let bytes = from.len() + letter.text.len();
        let revived: i64 = self.way.carry(operation, &command, bytes).await?;
        Ok(revived == 1)
    }
}
