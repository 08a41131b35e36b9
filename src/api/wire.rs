//! What the API answers, as JSON; the schemas of the OpenAPI document are derived from it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::tickets::{State, Ticket};
use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, Cause, LastAttempt, Status, StepTime};
use crate::domain::device::{DeviceId, TenantId};
use crate::domain::failure::Advice;
use crate::domain::request::{Reply, ReplyStatus};
use crate::ports::{DeviceStatus, JournalEntry, Running};
use crate::report::{Condition, Failed};

/// A device and what is known of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Device {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// Its owner.
    #[schema(value_type = String, format = "uuid")]
    pub tenant: TenantId,
    /// Where it listens.
    pub address: String,
    /// What it is in, as stored: nobody asks whether it is online now.
    pub condition: Condition,
    /// The version that its last export, or else the inventory, names.
    pub routeros_version: Option<String>,
    /// When the attempt began that has not ended yet.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub running_since: Option<Timestamp>,
    /// When its last good export was begun.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_success_at: Option<Timestamp>,
    /// When it was to be tried next, as seen at the end of the last attempt.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_due: Option<Timestamp>,
    /// Its last attempt.
    pub last_attempt: Option<Last>,
    /// The failure that counts now.
    pub failure: Option<Failed>,
    /// Menus that are missing in its last good export, because the router could not export them, often
    /// enough in a row.
    pub incomplete_menus: Vec<String>,
    /// Why an export was read more than once before it was believed, for as long as the configuration has
    /// not changed since, and nobody has asked for a backup.
    pub warning: Option<String>,
    /// Algorithms of its last key exchange and login that are weak by today's measure.
    pub weak_ssh: Vec<String>,
}

impl Device {
    /// What is known of `status` at `now`.
    pub fn of(
        status: &DeviceStatus,
        interval: std::time::Duration,
        advice: Advice,
        now: Timestamp,
    ) -> Self {
        let last = status.last.as_ref();
        Self {
            id: status.device.id,
            name: status.device.name.clone(),
            tenant: status.device.tenant,
            address: status.device.endpoint.to_string(),
            condition: Condition::of(status, interval, now),
            routeros_version: status.device.routeros_version.clone(),
            running_since: status.running_since,
            last_success_at: last.and_then(|last| last.last_success_at),
            next_due: status.next_due,
            last_attempt: last.map(Last::from),
            failure: Failed::of(status, advice),
            incomplete_menus: status.incomplete_menus.clone(),
            warning: status.warning.clone(),
            weak_ssh: status.weak_ssh.clone(),
        }
    }
}

/// The last attempt at a device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Last {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: AttemptId,
    /// `success`, `queued`, `failed` or `interrupted`.
    pub status: &'static str,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub finished_at: Timestamp,
}

impl From<&LastAttempt> for Last {
    fn from(last: &LastAttempt) -> Self {
        Self {
            id: last.id,
            status: last.status.as_str(),
            started_at: last.started_at,
            finished_at: last.finished_at,
        }
    }
}

/// A page of devices, by id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Devices {
    /// The devices.
    pub devices: Vec<Device>,
    /// What to send as `cursor` for the next page; none on the last one.
    #[schema(value_type = Option<String>)]
    pub next: Option<DeviceId>,
}

/// A page of the devices whose last failure counts now, by id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct FailedDevices {
    /// The devices. A page may be short, or empty, and not be the last.
    pub failed: Vec<Failed>,
    /// What to send as `cursor` for the next page; none on the last one.
    #[schema(value_type = Option<String>)]
    pub next: Option<DeviceId>,
}

/// What has become of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stands {
    /// Asked for: it waits, or runs.
    Pending,
    /// The snapshot is delivered and acknowledged.
    Success,
    /// The snapshot is safe in the outbox, and delivered as soon as that is possible.
    Queued,
    /// It failed.
    Failed,
    /// The process was told to stop, or died.
    Interrupted,
    /// It was asked for and could not be made: `error` says why. The device is as it was.
    NotMade,
}

impl From<Status> for Stands {
    fn from(status: Status) -> Self {
        match status {
            Status::Success => Self::Success,
            Status::Queued => Self::Queued,
            Status::Failed => Self::Failed,
            Status::Interrupted => Self::Interrupted,
        }
    }
}

/// One attempt. What is not known (yet) is `null`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Attempt {
    /// Its id, which is the `Nats-Msg-Id` of what it published, too.
    #[schema(value_type = String, format = "uuid")]
    pub id: AttemptId,
    /// The device.
    #[schema(value_type = String, format = "uuid")]
    pub device: DeviceId,
    /// Its owner.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub tenant: Option<TenantId>,
    /// What has become of it.
    pub status: Stands,
    /// Why it was made: `scheduled`, `retry`, `edited` or `manual`.
    pub cause: Option<&'static str>,
    /// When it began.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// The kind of failure.
    pub error_kind: Option<String>,
    /// The text of the failure, or why no attempt was made.
    pub error: Option<String>,
    /// SHA-256 of the configuration, in hexadecimal.
    pub sha256_hash: Option<String>,
    /// Its size.
    pub bytes: Option<u64>,
    /// Menus that are missing in what was taken.
    pub incomplete_menus: Vec<String>,
    /// Why what was taken was read more than once before it was believed.
    pub warning: Option<String>,
    /// Who made it.
    pub replica: Option<String>,
    /// Its steps, in order.
    pub steps: Vec<TakenStep>,
}

/// A step of an attempt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct TakenStep {
    /// Its name.
    pub step: &'static str,
    /// How long it took.
    pub milliseconds: u64,
}

impl Attempt {
    /// As the journal has it.
    pub fn recorded(entry: JournalEntry, steps: &[StepTime]) -> Self {
        let milliseconds = |took: std::time::Duration| took.as_millis().try_into();
        Self {
            id: entry.id,
            device: entry.device,
            tenant: Some(entry.tenant),
            status: entry.status.into(),
            cause: Some(entry.cause.as_str()),
            started_at: Some(entry.started_at),
            finished_at: Some(entry.finished_at),
            error_kind: entry.error_kind,
            error: entry.error,
            sha256_hash: entry.sha256_hash,
            bytes: entry.bytes,
            incomplete_menus: entry.incomplete_menus,
            warning: entry.warning,
            replica: Some(entry.replica),
            steps: steps
                .iter()
                .map(|step| TakenStep {
                    step: step.step.as_str(),
                    milliseconds: milliseconds(step.took).unwrap_or(u64::MAX),
                })
                .collect(),
        }
    }

    /// As its mark says that some replica is making it.
    pub fn running(id: AttemptId, running: Running) -> Self {
        Self {
            tenant: Some(running.tenant),
            cause: Some(running.cause.as_str()),
            started_at: Some(running.started_at),
            ..Self::pending(id, running.device, running.replica)
        }
    }

    fn pending(id: AttemptId, device: DeviceId, replica: String) -> Self {
        Self {
            id,
            device,
            tenant: None,
            status: Stands::Pending,
            cause: None,
            started_at: None,
            finished_at: None,
            error_kind: None,
            error: None,
            sha256_hash: None,
            bytes: None,
            incomplete_menus: Vec::new(),
            warning: None,
            replica: Some(replica),
            steps: Vec::new(),
        }
    }

    /// As this process remembers that it was asked for.
    pub fn asked(id: AttemptId, ticket: Ticket, replica: &str) -> Self {
        let mut attempt = Self::pending(id, ticket.device, replica.to_owned());
        match ticket.state {
            State::Pending => attempt.cause = Some(Cause::Manual.as_str()),
            State::Dropped => {
                attempt.status = Stands::NotMade;
                attempt.error = Some("the device was removed, or the service stopped".to_owned());
            }
            State::Answered(reply) => {
                attempt.status = match (reply.attempt, reply.status) {
                    (None, _) => Stands::NotMade,
                    (Some(_), ReplyStatus::Success) => Stands::Success,
                    (Some(_), ReplyStatus::Failed | ReplyStatus::Locked) => Stands::Failed,
                };
                attempt.error_kind = reply.kind.map(|kind| kind.as_str().to_owned());
                // Of one that succeeded it is a remark.
                if attempt.status != Stands::Success {
                    attempt.error = reply.message;
                }
                attempt.sha256_hash = reply.hash.map(|hash| hash.to_string());
            }
        }
        attempt
    }
}

/// A backup that was asked for and that nobody waits for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Taken {
    /// Always `accepted`.
    pub status: &'static str,
    /// The attempt that answers it; one that runs already is shared.
    #[schema(value_type = String, format = "uuid")]
    pub attempt: AttemptId,
    /// Where to look what comes of it; the `Location` header says the same.
    pub url: String,
}

/// What a backup changed in the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// The device's first version.
    First,
    /// A new version.
    Changed {
        /// Lines that the version before did not have.
        added: u32,
        /// Lines that this one does not have any more.
        removed: u32,
    },
    /// The same configuration again.
    Unchanged,
}

/// What came of a backup that was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// `success`, `failed` or `locked`: another process is working on the device.
    pub status: String,
    /// The attempt, if one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub attempt: Option<AttemptId>,
    /// SHA-256 of the configuration, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256_hash: Option<String>,
    /// The kind of failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<String>,
    /// Why it did not succeed; or what is odd about what was taken, such as menus that the router
    /// could not export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What it changed in the archive of embedded mode, if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

impl Backup {
    /// The answer of the fleet, with what changed.
    pub fn of(reply: Reply, change: Option<Change>) -> Self {
        Self {
            status: reply.status.as_str().to_owned(),
            attempt: reply.attempt,
            sha256_hash: reply.hash.map(|hash| hash.to_string()),
            error_kind: reply.kind.map(|kind| kind.as_str().to_owned()),
            message: reply.message,
            change,
        }
    }

    /// What came of a request that was not even taken.
    pub fn refused(reason: String) -> Self {
        Self {
            status: ReplyStatus::Failed.as_str().to_owned(),
            attempt: None,
            sha256_hash: None,
            error_kind: None,
            message: Some(reason),
            change: None,
        }
    }

    /// Whether it succeeded.
    pub fn succeeded(&self) -> bool {
        self.status == ReplyStatus::Success.as_str()
    }
}
