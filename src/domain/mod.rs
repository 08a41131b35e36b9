//! Plain values and decisions: no clock, no randomness, no IO; everything here is synchronous.

pub mod archive;
pub mod attempt;
pub mod backoff;
pub mod contact;
pub mod device;
pub mod digest;
pub mod failure;
pub mod hold;
pub mod host_key;
pub mod lines;
pub mod outbox;
pub mod plan;
pub mod request;
pub mod schedule;
pub mod session;
pub mod snapshot;
pub mod suspect;

/// A moment in UTC, as the local clock or the database (converted to the local clock) saw it.
pub type Timestamp = time::OffsetDateTime;
