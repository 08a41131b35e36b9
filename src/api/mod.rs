//! The HTTP API: what is known of the devices, and backups on demand. Served beside `/metrics`, and
//! on the control socket of embedded mode.

pub mod access;
mod handlers;
mod openapi;
pub mod problem;
mod query;
mod tickets;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{MethodRouter, any, get, post};
use futures_util::future::BoxFuture;

use crate::domain::device::DeviceId;
use crate::domain::failure::Advice;
use crate::domain::request::Reply;
use crate::fleet::Context;

use access::{Access, Guard};
use problem::Problem;
use tickets::Tickets;
use wire::Change;

pub use openapi::document;

/// Tells what a backup changed, where there is an archive to compare with.
pub type ChangeOf =
    Arc<dyn Fn(DeviceId, Reply) -> BoxFuture<'static, Option<Change>> + Send + Sync>;

/// What the answers are made from. Clones share everything.
#[derive(Clone)]
pub struct Api {
    context: Arc<Context>,
    /// `CONFIG_BACKUP_INTERVAL`: what makes a device stale.
    interval: Duration,
    advice: Advice,
    change: Option<ChangeOf>,
    tickets: Arc<Tickets>,
}

impl Api {
    /// About the fleet of `context`.
    pub fn new(context: Arc<Context>, interval: Duration, advice: Advice) -> Self {
        Self {
            context,
            interval,
            advice,
            change: None,
            tickets: Arc::default(),
        }
    }

    /// The same, which tells what a backup changed.
    #[must_use]
    pub fn telling_changes(mut self, change: ChangeOf) -> Self {
        self.change = Some(change);
        self
    }

    /// The routes, for whom `access` lets in.
    pub fn router(&self, access: Access) -> Router {
        let guard = Guard::new(access);
        let mut router = Router::new();
        for (_, path, route) in routes() {
            router = router.route(path, route);
        }
        router
            .route("/api/{*rest}", any(not_found))
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn_with_state(guard, Guard::stand))
            .with_state(self.clone())
    }
}

/// Every route: method, path, and what answers.
fn routes() -> [(&'static str, &'static str, MethodRouter<Api>); 6] {
    [
        ("get", "/api/v1/openapi.json", get(openapi::serve)),
        ("get", "/api/v1/devices", get(handlers::devices)),
        ("get", "/api/v1/devices/{id}", get(handlers::device)),
        (
            "post",
            "/api/v1/devices/{id}/backup",
            post(handlers::backup),
        ),
        ("get", "/api/v1/attempts/{id}", get(handlers::attempt)),
        ("get", "/api/v1/failed", get(handlers::failed)),
    ]
}

async fn not_found() -> Problem {
    Problem::not_found("no such route; GET /api/v1/openapi.json lists them")
}

async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this route does not answer to this method",
    )
}
