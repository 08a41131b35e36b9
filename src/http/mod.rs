//! Health and metrics over HTTP.

pub mod client;
mod readiness;
mod server;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::metrics::{CONTENT_TYPE, Metrics};

pub use readiness::{CHECK_LIMIT, Check, Readiness};
pub use server::{ListenError, Server};

/// How long one request may take to be answered.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// How large the body of a request may be, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

/// What the pages are made from.
#[derive(Clone)]
pub struct Pages {
    metrics: Arc<dyn Fn() -> prometheus::Result<String> + Send + Sync>,
    readiness: Arc<Readiness>,
}

impl Pages {
    /// Pages about `metrics` and `readiness`; `refresh` is called before each scrape, to set the
    /// metrics that are looked up rather than counted. It must not block.
    pub fn new(
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        refresh: impl Fn(&Metrics) + Send + Sync + 'static,
    ) -> Self {
        let page = move || {
            refresh(&metrics);
            metrics.render()
        };
        Self::of(page, readiness)
    }

    /// Pages about `readiness` and the metrics that `page` renders. It must not block.
    pub fn of(
        page: impl Fn() -> prometheus::Result<String> + Send + Sync + 'static,
        readiness: Arc<Readiness>,
    ) -> Self {
        Self {
            metrics: Arc::new(page),
            readiness,
        }
    }
}

/// The routes that need no token: `/health`, `/livez`, `/readyz` and `/metrics`. Anything else is
/// answered as JSON too.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/health", get(alive))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(limit_time))
}

/// A JSON error of the form `{"error": …}`.
pub fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn ready(State(pages): State<Pages>) -> Response {
    let results = pages.readiness.results().await;
    let failing: serde_json::Map<String, Value> = results
        .iter()
        .filter_map(|(name, result)| {
            let reason = result.as_ref().err()?;
            Some(((*name).to_owned(), Value::from(reason.as_str())))
        })
        .collect();
    let (status, mut body) = if failing.is_empty() {
        (StatusCode::OK, json!({ "status": "ready" }))
    } else {
        let body = json!({ "status": "not ready", "failing": failing });
        (StatusCode::SERVICE_UNAVAILABLE, body)
    };
    for (name, note) in pages.readiness.notes() {
        body[name] = note;
    }
    (status, Json(body)).into_response()
}

async fn metrics(State(pages): State<Pages>) -> Response {
    match (pages.metrics)() {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(cause) => {
            tracing::error!(error = %cause, "Failed to render the metrics page");
            error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics page could not be rendered; the log tells why",
            )
        }
    }
}

async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "no such route")
}

async fn method_not_allowed() -> Response {
    error(
        StatusCode::METHOD_NOT_ALLOWED,
        "this route does not answer to this method",
    )
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => error(StatusCode::SERVICE_UNAVAILABLE, "no answer in time"),
    }
}
