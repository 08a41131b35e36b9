//! Asks a running service over its control socket.

use std::io;
use std::path::{Path, PathBuf};

use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::socket;
use super::wire::{
    AddBody, Added, Backup, DeviceBody, EditBody, ErrorBody, HostKeyBody, PruneBody, PrunedBody,
    StatusBody,
};
use crate::api::problem::Problem;
use crate::domain::device::DeviceId;
use crate::domain::host_key::Fingerprint;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The largest answer that is read, in bytes: the ids of a large import.
const ANSWER_LIMIT: usize = 16 << 20;

/// A running service.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// A running service could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody listens, but we may not ask.
    #[error(
        "the service behind {} may only be asked by its own user; run this as that user",
        socket.display()
    )]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// The connection broke, or what came is no answer.
    #[error("failed to ask the service behind {}; its log may say more", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        source: Source,
    },
    /// It refused.
    #[error("{text}")]
    Refused {
        /// Its reason.
        text: String,
        /// Which of several devices it is about, counted from 0.
        index: Option<usize>,
    },
}

impl Client {
    /// The service that runs on `data_dir`; `None` when none does.
    ///
    /// # Errors
    /// [`ControlError`] when there is one that cannot be asked.
    pub async fn find(data_dir: &Path) -> Result<Option<Self>, ControlError> {
        let socket = socket(data_dir);
        match UnixStream::connect(&socket).await {
            Ok(_) => Ok(Some(Self { socket })),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::NotADirectory => Ok(None),
                io::ErrorKind::PermissionDenied => Err(ControlError::Forbidden { socket }),
                // Too long a path: no service can listen there either.
                io::ErrorKind::InvalidInput => Ok(None),
                _ => Err(ControlError::Broken {
                    socket,
                    source: error.into(),
                }),
            },
        }
    }

    /// What it says of itself.
    pub async fn status(&self) -> Result<StatusBody, ControlError> {
        self.ask(Method::GET, "/api/v1/status", &()).await
    }

    /// Adds devices: all or none.
    pub async fn add(&self, devices: Vec<DeviceBody>) -> Result<Vec<DeviceId>, ControlError> {
        let body = AddBody { devices };
        let added: Added = self.ask(Method::POST, "/api/v1/devices", &body).await?;
        Ok(added.ids)
    }

    /// Changes a device.
    pub async fn edit(&self, device: DeviceId, edit: &EditBody) -> Result<(), ControlError> {
        let path = format!("/api/v1/devices/{device}");
        self.tell(Method::PATCH, &path, edit).await
    }

    /// Removes a device.
    pub async fn remove(&self, device: DeviceId) -> Result<(), ControlError> {
        let path = format!("/api/v1/devices/{device}");
        self.tell(Method::DELETE, &path, &()).await
    }

    /// Trusts `pin` from now on, or with `None` the next key that is seen.
    pub async fn pin(
        &self,
        device: DeviceId,
        pin: Option<&Fingerprint>,
    ) -> Result<(), ControlError> {
        let path = format!("/api/v1/devices/{device}/host-key");
        match pin {
            Some(pin) => {
                let fingerprint = pin.as_str().to_owned();
                self.tell(Method::PUT, &path, &HostKeyBody { fingerprint })
                    .await
            }
            None => self.tell(Method::DELETE, &path, &()).await,
        }
    }

    /// Backs a device up now and waits for what comes of it.
    pub async fn backup(&self, device: DeviceId) -> Result<Backup, ControlError> {
        let path = format!("/api/v1/devices/{device}/backup?wait=true");
        self.ask(Method::POST, &path, &()).await
    }

    /// Deletes old versions, and old rows of the journal.
    pub async fn prune(&self, prune: &PruneBody) -> Result<PrunedBody, ControlError> {
        self.ask(Method::POST, "/api/v1/prune", prune).await
    }

    fn broken(&self, source: impl Into<Source>) -> ControlError {
        ControlError::Broken {
            socket: self.socket.clone(),
            source: source.into(),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ControlError> {
        let (status, answer) = self
            .exchange(method, path, body)
            .await
            .map_err(|source| self.broken(source))?;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|error| self.broken(error));
        }
        Err(refusal(status, &answer))
    }

    /// Like [`Client::ask`], where nothing is answered.
    async fn tell(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), ControlError> {
        self.ask::<Option<()>>(method, path, body).await.map(drop)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(StatusCode, Bytes), Source> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(serde_json::to_vec(body)?)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT);
        let bytes = body.collect().await?.to_bytes();
        connection.abort();
        // Nothing to say is said as nothing, which is no JSON.
        let nothing = Bytes::from_static(b"null");
        Ok((status, if bytes.is_empty() { nothing } else { bytes }))
    }
}

/// The routes of the API answer problems, the others an [`ErrorBody`].
fn refusal(status: StatusCode, answer: &[u8]) -> ControlError {
    let (text, index) = match serde_json::from_slice::<ErrorBody>(answer) {
        Ok(refused) => (refused.error, refused.index),
        Err(_) => match serde_json::from_slice::<Problem>(answer) {
            Ok(problem) => (problem.detail, None),
            Err(_) => (
                format!("{status}: {}", String::from_utf8_lossy(answer)),
                None,
            ),
        },
    };
    ControlError::Refused { text, index }
}
