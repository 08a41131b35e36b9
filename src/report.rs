//! The state of the fleet for people and for programs: what each device is in, the whole on one
//! screen, and what has failed. Pure: values in, text or serialisable values out.

mod failed;
mod remarks;
mod words;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::Timestamp;
use crate::domain::device::{Device, DeviceId, TenantId};
use crate::domain::failure::FailureKind;
use crate::ports::{DeviceStatus, Presence};

pub use failed::{Failed, render_failed};
pub use remarks::{Remark, RemarkKind};
pub use words::{ago, count, moment, printable, printable_line, span, table};

/// So many intervals without a success make a device stale.
const STALE_AFTER: u32 = 2;

/// What a device is in. One that fits several is in the first of them, from the end of the list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Backed up, and not long ago.
    Ok,
    /// Nothing failed, but the last success is more than two intervals ago: the service is not
    /// running, or cannot keep up.
    Stale,
    /// Nothing was ever taken from it, and nothing failed.
    Never,
    /// The last attempt could not reach it; or it is not tried, as it is reported offline.
    Offline,
    /// The last attempt failed in another way; it is tried again.
    Failing,
    /// It waits for an operator.
    Blocked,
}

impl Condition {
    /// Every condition, in the order of the screen.
    pub const ALL: [Self; 6] = [
        Self::Ok,
        Self::Stale,
        Self::Offline,
        Self::Failing,
        Self::Blocked,
        Self::Never,
    ];

    /// The name on the screen and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Stale => "stale",
            Self::Never => "never",
            Self::Offline => "offline",
            Self::Failing => "failing",
            Self::Blocked => "blocked",
        }
    }

    /// What `status` is in. `interval` is the configured one.
    pub fn of(status: &DeviceStatus, interval: Duration, now: Timestamp) -> Self {
        if let Some(kind) = failure(status) {
            return match kind {
                kind if kind.blocks() && !answered(status) => Self::Blocked,
                FailureKind::Unreachable
                | FailureKind::ConnectionRefused
                | FailureKind::Timeout
                | FailureKind::NameNotResolved => Self::Offline,
                _ => Self::Failing,
            };
        }
        match last_success(status) {
            None => Self::Never,
            Some(at) if now - at > interval * STALE_AFTER => Self::Stale,
            Some(_) => Self::Ok,
        }
    }

    /// Whether [`Condition::reported`] may say something else: a device that is tried needs no
    /// report.
    pub const fn depends_on_presence(self) -> bool {
        matches!(self, Self::Stale | Self::Never)
    }

    /// The same, knowing what was reported of the device's presence.
    pub fn reported(self, presence: Presence) -> Self {
        match presence {
            Presence::Offline if self.depends_on_presence() => Self::Offline,
            _ => self,
        }
    }

    fn color(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Stale | Self::Offline | Self::Never => "\x1b[33m",
            Self::Failing | Self::Blocked => "\x1b[31m",
        }
    }

    fn about(self, interval: Duration) -> String {
        match self {
            Self::Ok => String::new(),
            Self::Stale => {
                let limit = span(interval * STALE_AFTER);
                format!("no success for more than {limit}, and no failure either")
            }
            Self::Never => "not tried yet".into(),
            Self::Offline => "not reached, or reported offline".into(),
            Self::Failing => "tried again".into(),
            Self::Blocked => "waiting for an operator".into(),
        }
    }
}

/// The failure that counts now.
fn failure(status: &DeviceStatus) -> Option<FailureKind> {
    status.last.as_ref()?.failure
}

/// Whether an edit since may have cured the failure that counts: the device is tried soon.
fn answered(status: &DeviceStatus) -> bool {
    status.last.as_ref().is_some_and(|last| {
        last.failure
            .is_some_and(|kind| kind.answered_by(&last.revision, &status.device.revision()))
    })
}

fn last_success(status: &DeviceStatus) -> Option<Timestamp> {
    status.last.as_ref()?.last_success_at
}

/// A device as lists name it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Named {
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
}

impl Named {
    /// The names of `device`.
    pub fn of(device: &Device) -> Self {
        Self {
            id: device.id,
            name: device.name.clone(),
            tenant: device.tenant,
            address: device.endpoint.to_string(),
        }
    }
}

/// The device whose last success is the oldest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Oldest {
    /// Which one.
    pub device: Named,
    /// When its last good export was begun.
    #[serde(with = "time::serde::rfc3339")]
    pub at: Timestamp,
}

/// How often a kind of failure counts now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Reason {
    /// The kind.
    #[serde(serialize_with = "kind_name")]
    pub kind: FailureKind,
    /// Of so many devices.
    pub devices: u64,
}

fn kind_name<S: serde::Serializer>(kind: &FailureKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(kind.as_str())
}

/// The fleet on one screen.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// When it was looked at.
    #[serde(with = "time::serde::rfc3339")]
    pub at: Timestamp,
    /// The configured interval, in seconds.
    #[serde(rename = "interval_seconds", serialize_with = "in_seconds")]
    pub interval: Duration,
    /// How many devices are backed up.
    pub devices: u64,
    /// How many of them are worked on right now.
    pub running: u64,
    /// How many are in which condition; every condition is there.
    pub conditions: BTreeMap<Condition, u64>,
    /// The device whose last success is the oldest, of those that have one.
    pub oldest_success: Option<Oldest>,
    /// Why devices are offline, failing or blocked; the most frequent first.
    pub reasons: Vec<Reason>,
    /// What to know of devices that are backed up all the same.
    pub remarks: Vec<Remark>,
}

fn in_seconds<S: serde::Serializer>(interval: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(interval.as_secs())
}

impl Summary {
    /// Of no device yet.
    pub fn new(interval: Duration, now: Timestamp) -> Self {
        Self {
            at: now,
            interval,
            devices: 0,
            running: 0,
            conditions: Condition::ALL.map(|condition| (condition, 0)).into(),
            oldest_success: None,
            reasons: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Counts one more, of which `presence` was reported.
    pub fn add(&mut self, status: &DeviceStatus, presence: Presence) {
        self.devices += 1;
        self.running += u64::from(status.running_since.is_some());
        let condition = Condition::of(status, self.interval, self.at).reported(presence);
        *self.conditions.entry(condition).or_default() += 1;
        if let Some(at) = last_success(status)
            && self.oldest_success.as_ref().is_none_or(|it| at < it.at)
        {
            let device = Named::of(&status.device);
            self.oldest_success = Some(Oldest { device, at });
        }
        remarks::note(&mut self.remarks, status);
        if let Some(kind) = failure(status) {
            match self.reasons.iter_mut().find(|reason| reason.kind == kind) {
                Some(reason) => reason.devices += 1,
                None => self.reasons.push(Reason { kind, devices: 1 }),
            }
            self.reasons
                .sort_by_key(|reason| (std::cmp::Reverse(reason.devices), reason.kind));
        }
    }

    /// The screen, coloured or not.
    pub fn render(&self, color: bool) -> String {
        let mut screen = String::new();
        let total = usize::try_from(self.devices).unwrap_or(usize::MAX);
        let every = span(self.interval);
        let _ = writeln!(
            screen,
            "{}, backed up every {every}\n",
            count(total, "device")
        );
        let width = self.devices.to_string().len();
        for condition in Condition::ALL {
            let number = self.conditions.get(&condition).copied().unwrap_or(0);
            let (on, off) = match color && number > 0 {
                true => (condition.color(), "\x1b[0m"),
                false => ("", ""),
            };
            let about = match number {
                0 => String::new(),
                _ => condition.about(self.interval),
            };
            let line = format!(
                "  {on}{:<7}  {number:>width$}{off}  {about}",
                condition.as_str()
            );
            let _ = writeln!(screen, "{}", line.trim_end());
        }
        screen.push('\n');
        if self.running > 0 {
            let _ = writeln!(screen, "Being backed up right now: {}", self.running);
        }
        if let Some(oldest) = &self.oldest_success {
            let name = printable(&oldest.device.name);
            let (ago, at) = (ago(oldest.at, self.at), moment(oldest.at));
            let _ = writeln!(screen, "Oldest success: {name}, {ago} ({at})");
        }
        if !self.reasons.is_empty() {
            screen.push_str("Reasons:\n");
            let width = self.reasons[0].devices.to_string().len();
            for Reason { kind, devices } in &self.reasons {
                let _ = writeln!(screen, "  {devices:>width$}  {kind}");
            }
        }
        screen.push_str(&remarks::render(&self.remarks));
        screen
    }
}

#[cfg(test)]
mod tests;
