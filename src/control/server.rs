//! Answers on the control socket. Whoever can connect owns the service's files already, so there
//! is no token.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post, put};
use axum::{Json, Router};
use tokio::net::UnixListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::desk::{Desk, Refusal, RefusalKind};
use super::socket;
use super::wire::{AddBody, Added, EditBody, ErrorBody, HostKeyBody, PruneBody};
use crate::api::Api;
use crate::api::access::Access;
use crate::domain::device::DeviceId;
use crate::domain::host_key::Fingerprint;

/// How large a request may be, in bytes: an inventory with a private key for each of ten thousand
/// devices.
const BODY_LIMIT: usize = 64 << 20;

/// How long requests that are being answered have when the service stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// The control socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to listen on {}; the path of DATA_DIR must be shorter than 90 characters, and the \
     directory on a file system with sockets", socket.display()
)]
pub struct SocketError {
    socket: PathBuf,
    source: io::Error,
}

/// A socket that listens but does not answer yet.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    socket: PathBuf,
}

impl Control {
    /// Listens in `data_dir`, whose lock is held: a socket that is there already was left behind by
    /// a process that was killed.
    ///
    /// # Errors
    /// [`SocketError`] names the socket.
    pub fn bind(data_dir: &Path) -> Result<Self, SocketError> {
        let socket = socket(data_dir);
        let bound = || {
            // Made elsewhere, closed to others, and only then put into its place: nobody finds a
            // socket that is open to others, or the one of a dead process.
            let new = socket.with_extension("new");
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&new)?;
            std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
            std::fs::rename(&new, &socket)?;
            Ok(listener)
        };
        match bound() {
            Ok(listener) => Ok(Self { listener, socket }),
            Err(source) => Err(SocketError { socket, source }),
        }
    }

    /// Answers until `stop` is cancelled, then removes the socket.
    pub async fn serve(self, desk: Desk, api: Api, stop: CancellationToken) {
        let Self { listener, socket } = self;
        let stopping = stop.clone().cancelled_owned();
        let serving = axum::serve(listener, router(desk, &api)).with_graceful_shutdown(stopping);
        let mut serving = tokio::spawn(serving.into_future());
        stop.cancelled().await;
        // The lock is still held, so this is our own.
        let _ = std::fs::remove_file(&socket);
        if timeout(DRAIN_LIMIT, &mut serving).await.is_err() {
            serving.abort();
        }
    }
}

/// What the CLI asks, beside the API.
fn router(desk: Desk, api: &Api) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/devices", post(add))
        .route("/api/v1/devices/{id}", patch(edit).delete(remove))
        .route("/api/v1/devices/{id}/host-key", put(accept).delete(reset))
        .route("/api/v1/prune", post(prune))
        .fallback(async || error(StatusCode::NOT_FOUND, "no such route", None))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(desk)
        .merge(api.router(Access::Owner))
}

fn error(status: StatusCode, text: &str, index: Option<usize>) -> Response {
    let error = text.to_owned();
    (status, Json(ErrorBody { error, index })).into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.kind {
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            RefusalKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        error(status, &self.text, self.index)
    }
}

async fn status(State(desk): State<Desk>) -> Response {
    Json(desk.status()).into_response()
}

async fn add(State(desk): State<Desk>, Json(body): Json<AddBody>) -> Result<Response, Refusal> {
    let ids = desk.add(body).await?;
    Ok((StatusCode::CREATED, Json(Added { ids })).into_response())
}

async fn edit(
    State(desk): State<Desk>,
    UrlPath(id): UrlPath<Uuid>,
    Json(body): Json<EditBody>,
) -> Result<StatusCode, Refusal> {
    desk.edit(DeviceId(id), body).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State(desk): State<Desk>,
    UrlPath(id): UrlPath<Uuid>,
) -> Result<StatusCode, Refusal> {
    desk.remove(DeviceId(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn accept(
    State(desk): State<Desk>,
    UrlPath(id): UrlPath<Uuid>,
    Json(body): Json<HostKeyBody>,
) -> Result<StatusCode, Refusal> {
    let pin = Fingerprint::parse(&body.fingerprint).ok_or_else(|| {
        Refusal::new(
            RefusalKind::Invalid,
            "a fingerprint is SHA256: and 43 characters of base64, as ssh-keygen -lf prints it",
        )
    })?;
    desk.pin(DeviceId(id), Some(&pin)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reset(
    State(desk): State<Desk>,
    UrlPath(id): UrlPath<Uuid>,
) -> Result<StatusCode, Refusal> {
    desk.pin(DeviceId(id), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(State(desk): State<Desk>, Json(body): Json<PruneBody>) -> Result<Response, Refusal> {
    if body.journal_days == 0 {
        let text = "journal_days is at least 1";
        return Err(Refusal::new(RefusalKind::Invalid, text));
    }
    Ok(Json(desk.prune(&body).await?).into_response())
}
