//! What somebody who asked for a backup is told, and when.

use std::fmt;
use std::time::Duration;

use super::attempt::{AttemptId, Cause, Deferral, Outcome};
use super::digest::Digest;
use super::failure::FailureKind;

/// What came of a request, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyStatus {
    /// The snapshot is durable.
    Success,
    /// It is not; the message says why.
    Failed,
    /// Another process is working on the device.
    Locked,
}

impl ReplyStatus {
    /// The name in replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Locked => "locked",
        }
    }
}

impl fmt::Display for ReplyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to a request for a backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// What came of it.
    pub status: ReplyStatus,
    /// The attempt, if one was made.
    pub attempt: Option<AttemptId>,
    /// SHA-256 of the snapshot, if there is one.
    pub hash: Option<Digest>,
    /// The kind of failure, if the device was tried and failed.
    pub kind: Option<FailureKind>,
    /// What the asker should know: always there unless it succeeded, and then where something is odd
    /// about what was taken.
    pub message: Option<String>,
    /// How long to wait before asking again, where asking before is of no use.
    pub retry_after: Option<Duration>,
}

impl Reply {
    /// The answer when an attempt was made.
    pub fn of_attempt(attempt: AttemptId, outcome: &Outcome) -> Self {
        let taken = outcome.taken();
        let message = match outcome {
            Outcome::Delivered(taken) => taken.remark(),
            Outcome::Queued(taken) => {
                let kept = "kept, and published as soon as that is possible".to_owned();
                Some(match taken.remark() {
                    Some(remark) => format!("{kept}; {remark}"),
                    None => kept,
                })
            }
            Outcome::Failed(failure) => Some(failure.message.clone()),
            Outcome::Interrupted { reason } => Some(format!("interrupted: {reason}")),
        };
        Self {
            status: match taken {
                Some(_) => ReplyStatus::Success,
                None => ReplyStatus::Failed,
            },
            attempt: Some(attempt),
            hash: taken.map(|taken| taken.hash),
            kind: outcome.failure().map(|failure| failure.kind),
            message,
            retry_after: None,
        }
    }

    /// The answer when none was made.
    pub fn of_deferral(deferral: &Deferral) -> Self {
        let message = match deferral {
            Deferral::Offline => "the device is reported as offline",
            Deferral::Contended => "another process is backing the device up",
            Deferral::Gone => "the device has left the inventory",
            Deferral::Superseded(_) => "another process has just backed the device up",
            Deferral::Unavailable { reason } => reason,
            Deferral::RateLimited { wait, .. } => &too_soon(*wait),
            Deferral::Stopping => "the service is stopping",
        };
        Self {
            status: match deferral {
                Deferral::Contended => ReplyStatus::Locked,
                _ => ReplyStatus::Failed,
            },
            attempt: None,
            hash: None,
            kind: None,
            message: Some(message.to_owned()),
            retry_after: match deferral {
                Deferral::RateLimited { wait, .. } => Some(*wait),
                _ => None,
            },
        }
    }
}

/// Why a device is left alone for a while, for whoever asked for it.
fn too_soon(wait: Duration) -> String {
    let minutes = wait.as_secs().div_ceil(60).max(1);
    format!(
        "the device was connected to so often that one more connection might look like an attack: \
         MikroTik's brute-force recipe would lock this address out for a day; ask again in {minutes} \
         min. Where the routers have no such rules, or accept this address before them, \
         CONFIG_BACKUP_CONNECTION_LIMIT=none lifts the limit"
    )
}

/// Whether a request that arrived while an attempt was being made for `cause` is answered by its
/// having been put off. A request skips presence and freshness and may connect where scheduled work
/// must wait, so an attempt that was stopped by one of these answers nothing: one that is not must
/// follow.
pub fn answered_by(cause: Cause, deferral: &Deferral) -> bool {
    let skipped = matches!(
        deferral,
        Deferral::Offline | Deferral::Superseded(_) | Deferral::RateLimited { .. }
    );
    cause == Cause::Manual || !skipped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::attempt::Taken;
    use crate::domain::failure::Failure;

    #[test]
    fn whoever_asked_learns_what_came_of_it() {
        let id = AttemptId::generate();
        let failed = Outcome::Failed(Failure::new(FailureKind::Timeout, "no answer"));
        let reply = Reply::of_attempt(id, &failed);
        assert_eq!(reply.status, ReplyStatus::Failed);
        assert_eq!(reply.kind, Some(FailureKind::Timeout));
        assert_eq!(reply.message.as_deref(), Some("no answer"));
        assert_eq!(reply.attempt, Some(id));
        let taken = |menus: &[&str], warning: Option<&str>| Taken {
            hash: Digest::of("text"),
            bytes: 4,
            routeros_version: "7.16.2".into(),
            shape: Default::default(),
            incomplete_menus: menus.iter().map(|menu| (*menu).to_owned()).collect(),
            warning: warning.map(str::to_owned),
        };
        let told = |outcome| Reply::of_attempt(id, &outcome).message;
        assert_eq!(told(Outcome::Delivered(taken(&[], None))), None);
        let odd = || taken(&["/ipv6/route", "/ip/pool"], Some("it shrank"));
        let remark = "incomplete: the router could not export /ipv6/route, /ip/pool; it shrank";
        assert_eq!(
            told(Outcome::Delivered(odd())).as_deref(),
            Some(remark),
            "what is incomplete says so"
        );
        let queued = told(Outcome::Queued(odd())).expect("a message");
        assert!(queued.starts_with("kept") && queued.ends_with(remark));
        let locked = Reply::of_deferral(&Deferral::Contended);
        assert_eq!(locked.status, ReplyStatus::Locked);
        assert_eq!(locked.attempt, None);
    }

    #[test]
    fn what_a_request_skips_does_not_answer_it() {
        assert!(!answered_by(Cause::Scheduled, &Deferral::Offline));
        assert!(answered_by(Cause::Manual, &Deferral::Offline));
        assert!(answered_by(Cause::Retry, &Deferral::Contended));
        assert!(answered_by(Cause::Edited, &Deferral::Gone));
        let wait = Duration::from_secs(61);
        let until = time::macros::datetime!(2026-01-02 03:04:05 UTC);
        let limited = Deferral::RateLimited { until, wait };
        assert!(!answered_by(Cause::Scheduled, &limited));
        assert!(answered_by(Cause::Manual, &limited));
    }

    #[test]
    fn whoever_asks_too_often_is_told_why_and_when() {
        let wait = Duration::from_secs(61);
        let until = time::macros::datetime!(2026-01-02 03:04:05 UTC);
        let reply = Reply::of_deferral(&Deferral::RateLimited { until, wait });
        assert_eq!(reply.status, ReplyStatus::Failed);
        assert_eq!((reply.attempt, reply.retry_after), (None, Some(wait)));
        let message = reply.message.expect("a reason");
        assert!(
            message.contains("brute-force") && message.contains("in 2 min"),
            "{message}"
        );
    }
}
