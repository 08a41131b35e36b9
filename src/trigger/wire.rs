//! What goes over NATS when a backup is asked for, as JSON.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::device::{DeviceId, TenantId};
use crate::domain::request::{Reply, ReplyStatus};

/// As much of a parser's complaint as is repeated: it may quote the whole of what it was given.
const COMPLAINT: usize = 200;

/// A device and whose it is, as requests and notices name it. Fields it does not know are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Named {
    device_id: Uuid,
    tenant_id: Uuid,
}

impl Named {
    /// Reads a message.
    ///
    /// # Errors
    /// [`NotNamed`] says what is wrong with it.
    pub fn parse(payload: &[u8]) -> Result<Self, NotNamed> {
        serde_json::from_slice(payload).map_err(|error| {
            let complaint: String = error.to_string().chars().take(COMPLAINT).collect();
            NotNamed { complaint }
        })
    }

    /// The device.
    pub fn device(self) -> DeviceId {
        DeviceId(self.device_id)
    }

    /// Its owner.
    pub fn tenant(self) -> TenantId {
        TenantId(self.tenant_id)
    }
}

/// A message that names no device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the message is not JSON of the form {{\"device_id\":\"<uuid>\",\"tenant_id\":\"<uuid>\"}}: \
     {complaint}"
)]
pub struct NotNamed {
    complaint: String,
}

/// The reply to a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Answer {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Seconds to wait where asking again before is of no use.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl Answer {
    /// To a request that was not taken.
    pub fn refused(reason: &impl std::error::Error) -> Self {
        Self {
            status: ReplyStatus::Failed.as_str(),
            sha256_hash: None,
            message: None,
            error: Some(reason.to_string()),
            retry_after: None,
        }
    }

    /// As it goes over the wire.
    pub fn to_json(&self) -> Vec<u8> {
        // Texts only: there is nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        let (message, error) = match reply.status {
            ReplyStatus::Failed => (None, reply.message),
            ReplyStatus::Success | ReplyStatus::Locked => (reply.message, None),
        };
        // The kind is what programs look for.
        let error = match (error, reply.kind) {
            (Some(error), Some(kind)) => Some(format!("{kind}: {error}")),
            (error, _) => error,
        };
        Self {
            status: reply.status.as_str(),
            sha256_hash: reply.hash.map(|hash| hash.to_string()),
            message,
            error,
            retry_after: reply
                .retry_after
                .map(|wait| wait.as_secs().saturating_add(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::attempt::{AttemptId, Deferral, Outcome};
    use crate::domain::failure::{Failure, FailureKind};

    fn json(answer: &Answer) -> serde_json::Value {
        serde_json::from_slice(&answer.to_json()).expect("JSON")
    }

    #[test]
    fn whoever_asked_is_told_in_the_agreed_form() {
        let failure = Failure::new(FailureKind::Timeout, "no answer");
        let reply = Reply::of_attempt(AttemptId::generate(), &Outcome::Failed(failure));
        let expected = serde_json::json!({ "status": "failed", "error": "timeout: no answer" });
        assert_eq!(json(&reply.into()), expected);
        let locked = json(&Reply::of_deferral(&Deferral::Contended).into());
        assert_eq!(locked["status"], "locked");
        assert!(locked["message"].is_string() && locked.get("error").is_none());
        let wait = std::time::Duration::from_secs(3000);
        let until = time::macros::datetime!(2026-01-02 03:04:05 UTC);
        let limited = json(&Reply::of_deferral(&Deferral::RateLimited { until, wait }).into());
        assert_eq!(
            (&limited["status"], &limited["retry_after"]),
            (&"failed".into(), &3001.into())
        );
        assert!(limited["error"].is_string() && locked.get("retry_after").is_none());
    }

    #[test]
    fn what_is_no_request_is_told_how_one_looks() {
        let id = Uuid::from_u128(1);
        let good = format!(r#"{{"device_id":"{id}","tenant_id":"{id}","more":1}}"#);
        assert_eq!(
            Named::parse(good.as_bytes()).unwrap().device(),
            DeviceId(id)
        );
        let long = format!(r#"{{"device_id":"{}"}}"#, "x".repeat(1 << 20));
        for bad in ["", "{", "[]", r#"{"device_id":"edge-7"}"#, &long] {
            let error = Named::parse(bad.as_bytes()).expect_err(bad);
            let answer = json(&Answer::refused(&error));
            assert_eq!(answer["status"], "failed");
            let text = answer["error"].as_str().unwrap();
            assert!(text.contains("device_id") && text.len() < 400, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_message_panics_the_reader(payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Named::parse(&payload);
        }
    }
}
