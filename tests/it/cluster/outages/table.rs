//! Fault → promise → how it is checked.

use std::fmt;
use std::time::Duration;

/// A row of the table. Beside its own checks every row has these, whatever the fault:
///
/// - It begins while sessions are open.
/// - When it is over, every device has a new success, and nobody did anything for it.
/// - Nothing is left in the outbox: what was queued has become a success.
/// - Every export that a router served in full until then is in the stream, or in the outbox, or
///   its attempt is recorded as failed or interrupted and another one followed.
/// - At the end every success of the journal is in the stream, or was before somebody removed it,
///   under its id and hash, no id comes twice, and every replica ends on SIGTERM with exit code 0.
pub struct Row {
    pub fault: Fault,
    pub lasts: Duration,
    pub promise: &'static str,
    pub checked: Check,
    /// The kinds of failure that attempts may end with because of it.
    pub kinds: &'static [&'static str],
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Redis is killed, and comes back knowing nothing.
    RedisEmptied,
    /// Redis stands still and closes nothing.
    RedisFrozen,
    /// PostgreSQL is shut down and started again.
    PostgresRestarted,
    /// The role's connections are ended, and it may have no more.
    PostgresConnectionLimit,
    /// NATS is killed and started again, with what it stored.
    NatsRestarted,
    /// The stream takes no more messages.
    NatsStreamFull,
    /// Redis is killed, and NATS right after it, while routers are in the middle of their answers.
    /// Redis comes back knowing nothing, then NATS with what it stored.
    RedisAndNatsAway,
    /// Every replica's network to the server resets what is connected and refuses the rest.
    NetworkCut,
    /// One replica's network to the server passes nothing and closes nothing.
    NetworkSilentForOne,
    /// One replica's wall clock is a minute fast, another's a minute slow.
    WrongClocks,
    /// NATS is away until many letters wait; then Redis is killed too, and comes back knowing
    /// nothing of them.
    LettersLost,
    /// NATS is away until many letters wait; then the replica that relays them, and has some in its
    /// hands, is killed with SIGKILL. It is started again.
    RelayKilled,
    /// The stream takes no more messages; then somebody removes all that it has.
    NatsStreamFullThenPurged,
    /// Redis stands still after the relay has published a letter and before it is settled.
    RedisFrozenWhileRelaying,
    /// PostgreSQL is away while the relay publishes: no attempt can be settled.
    PostgresAwayWhileRelaying,
}

/// How a row's own promise is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// Once everyone has noticed (see [`NOTICED`]), no router gets a new connection.
    NoRouterIsTroubled,
    /// The same, and what was being exported then is held by its processes while it lasts.
    WhatRunsIsHeld,
    /// New successes are recorded while it lasts.
    TheOthersGoOn,
    /// New snapshots are taken while it lasts, and kept in the outbox.
    BackupsGoOn,
    /// Each device has one success in each of its intervals, and the times of events show that
    /// the clocks are wrong.
    OneSuccessPerInterval,
}

/// How long after the beginning of a fault an attempt may still begin: what was admitted before is
/// dialled, and the first deliveries find out.
pub const NOTICED: Duration = Duration::from_secs(2);

const fn row(
    fault: Fault,
    seconds: u64,
    promise: &'static str,
    checked: Check,
    kinds: &'static [&'static str],
) -> Row {
    Row {
        fault,
        lasts: Duration::from_secs(seconds),
        promise,
        checked,
        kinds,
    }
}

const DEFERRED: &str = "devices are deferred and not failed, and their routers left alone";
const RECORDED_LATER: &str = "what runs is finished, and recorded when the database is back";
const DELIVERED_LATER: &str = "backups go on, and what was taken is delivered later";
const HELD: &str = "what runs is finished, held by its process, and delivered when both are back";
const LOST_AND_REPEATED: &str =
    "attempts whose letters are lost fail as snapshot_lost, and the devices are backed up again";
const TAKEN_OVER: &str = "another replica relays what the killed one had in its hands";
const ONCE_EACH: &str = "letters are published once, settled when it is back, and none is lost";
const ONE_IS_OUT: &str = "the replica that is cut off takes no work from the others";

#[rustfmt::skip]
pub const REDIS: &[Row] = &[
    row(Fault::RedisEmptied, 4, DEFERRED, Check::NoRouterIsTroubled, &[]),
    row(Fault::RedisFrozen, 5, DEFERRED, Check::NoRouterIsTroubled, &[]),
    row(Fault::NetworkSilentForOne, 6, ONE_IS_OUT, Check::TheOthersGoOn, &[]),
    row(Fault::NetworkCut, 4, DEFERRED, Check::NoRouterIsTroubled, &[]),
];

#[rustfmt::skip]
pub const POSTGRES: &[Row] = &[
    row(Fault::PostgresRestarted, 4, RECORDED_LATER, Check::NoRouterIsTroubled, &["unknown"]),
    row(Fault::PostgresConnectionLimit, 6, RECORDED_LATER, Check::NoRouterIsTroubled, &["unknown"]),
    // A session whose host key cannot be compared once more in that time is out of time after it.
    row(Fault::NetworkSilentForOne, 8, ONE_IS_OUT, Check::TheOthersGoOn, &["unknown", "timeout"]),
    row(Fault::NetworkCut, 4, RECORDED_LATER, Check::NoRouterIsTroubled, &["unknown"]),
];

#[rustfmt::skip]
pub const NATS: &[Row] = &[
    row(Fault::NatsRestarted, 5, DELIVERED_LATER, Check::BackupsGoOn, &[]),
    row(Fault::NatsStreamFull, 5, DELIVERED_LATER, Check::BackupsGoOn, &[]),
    // Longer than an acknowledgement is waited for.
    row(Fault::NetworkSilentForOne, 12, DELIVERED_LATER, Check::TheOthersGoOn, &[]),
    row(Fault::NetworkCut, 5, DELIVERED_LATER, Check::BackupsGoOn, &[]),
];

#[rustfmt::skip]
pub const BOTH: &[Row] = &[
    row(Fault::RedisAndNatsAway, 6, HELD, Check::WhatRunsIsHeld, &[]),
];

#[rustfmt::skip]
pub const LETTERS: &[Row] = &[
    // What runs when Redis goes, too, can neither be published nor kept.
    row(Fault::LettersLost, 4, LOST_AND_REPEATED, Check::NoRouterIsTroubled, &["snapshot_lost", "publish_failed"]),
    row(Fault::RelayKilled, 4, TAKEN_OVER, Check::BackupsGoOn, &[]),
];

#[rustfmt::skip]
pub const RELAYING: &[Row] = &[
    row(Fault::RedisFrozenWhileRelaying, 5, ONCE_EACH, Check::NoRouterIsTroubled, &[]),
    row(Fault::PostgresAwayWhileRelaying, 4, ONCE_EACH, Check::NoRouterIsTroubled, &["unknown"]),
    row(Fault::NatsStreamFullThenPurged, 4, DELIVERED_LATER, Check::BackupsGoOn, &[]),
];

#[rustfmt::skip]
pub const CLOCKS: &[Row] = &[
    row(Fault::WrongClocks, 20, "replicas agree on what is due", Check::OneSuccessPerInterval, &[]),
];

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fault,
            lasts,
            promise,
            checked,
            ..
        } = self;
        write!(f, "{fault:?} for {lasts:?} → {promise} → {checked:?}")
    }
}
