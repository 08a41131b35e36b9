//! Errors of the API as `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::failure::chain;
use crate::fleet::requests::RequestError;
use crate::ports::StoreError;

/// The media type of errors.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// How long whoever is refused for asking too much, or too early, should wait.
const AGAIN: Duration = Duration::from_secs(2);

/// What is wrong with a request, or here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem it is: always `about:blank`, the status says it.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    pub kind: String,
    /// The status in words.
    #[schema(example = "Not Found")]
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong, and what to do.
    pub detail: String,
    #[serde(skip)]
    again: Option<Duration>,
}

impl Problem {
    /// A problem with this status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            again: None,
        }
    }

    /// A problem that is gone after a moment.
    pub fn passing(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            again: Some(AGAIN),
            ..Self::new(status, detail)
        }
    }

    /// The device must be left alone for `wait`.
    pub fn too_soon(detail: impl Into<String>, wait: Duration) -> Self {
        // Whole seconds, and not a moment before the time.
        let again = Duration::from_secs(wait.as_secs().saturating_add(1));
        Self {
            again: Some(again),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }

    /// The request makes no sense.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let again = self.again;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(again) = again {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(again.as_secs()));
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = chain(&error);
        match error {
            StoreError::Unavailable { .. } => {
                Self::passing(StatusCode::SERVICE_UNAVAILABLE, detail)
            }
            StoreError::NotFound { .. } => Self::not_found(detail),
            StoreError::Failed { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail),
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let detail = error.to_string();
        match error {
            RequestError::Unknown(_) | RequestError::OtherTenant(_) => Self::not_found(detail),
            RequestError::TooMany(_) => Self::passing(StatusCode::TOO_MANY_REQUESTS, detail),
            RequestError::NotLoaded(_) | RequestError::Dropped(_) => {
                Self::passing(StatusCode::SERVICE_UNAVAILABLE, detail)
            }
        }
    }
}
