//! What failed or is blocked: one entry per device, the newest failure first.

use std::fmt::Write as _;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Named, answered, failure, printable, span};
use crate::domain::Timestamp;
use crate::domain::failure::{Advice, FailureKind};
use crate::ports::DeviceStatus;

/// A device whose last failure counts now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Failed {
    /// Which device.
    pub device: Named,
    /// The kind of failure.
    pub kind: String,
    /// Its text, without what to do about it.
    pub error: String,
    /// Whether it waits for an operator.
    pub blocked: bool,
    /// Whether an edit made since may have cured it: it is tried soon.
    pub edited_since: bool,
    /// How often it failed in a row.
    pub failures: u32,
    /// When the first of these failures began, or since when it is blocked.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// When the last attempt ended.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub last_attempt_at: Timestamp,
    /// When it last succeeded.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_success_at: Option<Timestamp>,
    /// When it is tried again; none while it is blocked.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_try_at: Option<Timestamp>,
    /// The host key that it offered instead of the pinned one.
    pub offered_key: Option<String>,
    /// What unblocks it.
    pub remedy: Option<String>,
}

impl Failed {
    /// The entry of `status`; `None` when no failure counts.
    pub fn of(status: &DeviceStatus, advice: Advice) -> Option<Self> {
        let kind = failure(status)?;
        let last = status.last.as_ref()?;
        let edited = answered(status);
        let blocked = kind.blocks() && !edited;
        let began = match blocked {
            true => status.blocked_since,
            false => status.failing_since,
        };
        Some(Self {
            device: Named::of(&status.device),
            kind: kind.to_string(),
            error: cause(status, kind),
            blocked,
            edited_since: edited,
            failures: last.consecutive_failures,
            since: began.unwrap_or(last.started_at),
            last_attempt_at: last.finished_at,
            last_success_at: last.last_success_at,
            next_try_at: status.next_due.filter(|_| !blocked && !edited),
            offered_key: status.offered_key.clone(),
            remedy: blocked.then(|| remedy(status, kind, advice)).flatten(),
        })
    }

    fn next(&self, now: Timestamp) -> String {
        match self.next_try_at {
            _ if self.blocked => "blocked until an operator acts".into(),
            _ if self.edited_since => "edited since; tried again soon".into(),
            Some(at) if at > now => {
                format!(
                    "next try in {}",
                    span((at - now).try_into().unwrap_or_default())
                )
            }
            _ => "next try is due".into(),
        }
    }
}

/// The stored text, which ends in what to do where an operator must: that has a place of its own.
fn cause(status: &DeviceStatus, kind: FailureKind) -> String {
    let text = status.error.as_deref().unwrap_or_default();
    kind.without_remedy(text).to_owned()
}

fn remedy(status: &DeviceStatus, kind: FailureKind, advice: Advice) -> Option<String> {
    let device = &status.device;
    kind.remedy(advice, device.id, &device.name)
}

/// `entries` for a screen, in their order; a sentence when there are none.
pub fn render_failed(entries: &[Failed], now: Timestamp, color: bool) -> String {
    if entries.is_empty() {
        return "nothing has failed\n".into();
    }
    let (bold, red, off) = match color {
        true => ("\x1b[1m", "\x1b[31m", "\x1b[0m"),
        false => ("", "", ""),
    };
    let mut text = String::new();
    for entry in entries {
        let device = &entry.device;
        let _ = writeln!(
            text,
            "{bold}{}{off} ({})  {red}{}{off}  for {}  {}  {}",
            printable(&device.name),
            printable(&device.address),
            entry.kind,
            span((now - entry.since).try_into().unwrap_or_default()),
            super::count(entry.failures as usize, "failure"),
            entry.next(now),
        );
        let mut detail = |label: &str, line: &str| {
            let _ = writeln!(text, "    {label}{}", printable(line));
        };
        detail("", &entry.error);
        if let Some(key) = &entry.offered_key {
            detail("offered: ", key);
        }
        if let Some(remedy) = &entry.remedy {
            detail("what to do: ", remedy);
        }
    }
    text
}
