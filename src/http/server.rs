//! The listening socket: bounded in connections, in the time that a client may take, and in the
//! time that it takes to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take to send the head of a request, also between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// The most that is buffered of a connection, in bytes; longer heads are answered with 431.
const MAX_BUFFER: usize = 16 * 1024;

/// After this time a connection is asked to end, so that none is kept by a client that does not
/// read.
const MAX_AGE: Duration = Duration::from_secs(600);

/// How long the request that an old connection is in the middle of may take: longer than any may
/// wait.
const LAST_ANSWER: Duration = Duration::from_secs(330);

/// How long a connection has to end when the server stops, and half of what all of them have.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// The HTTP server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error(
        "failed to listen on HTTP_ADDR={address}: the address is in use; stop the process that \
         has it, or set HTTP_ADDR to another port"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The process may not, or the machine has no such address.
    #[error(
        "failed to listen on HTTP_ADDR={address}; set HTTP_ADDR to an address of this machine and \
         a port that this process may use (1024 and above)"
    )]
    NotAllowed {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A server that listens but does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`ListenError`], naming `HTTP_ADDR` and what to do.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let bound = TcpListener::bind(address).await;
        let listening = bound.and_then(|listener| {
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        listening.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address, source },
            _ => ListenError::NotAllowed { address, source },
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers with `router` until `stop` is cancelled; then lets running requests finish, for a
    /// few seconds at most.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            match accepted {
                Ok((stream, slot)) => {
                    let (router, stop) = (router.clone(), stop.child_token());
                    connections.spawn(async move {
                        connection(stream, router, stop).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Usually too many open files: accepting again at once would spin.
                    tracing::warn!(%error, "Failed to accept an HTTP connection");
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
        connections.close();
        // Elapsed or not, the process goes on to end.
        let _ = timeout(DRAIN_LIMIT * 2, connections.wait()).await;
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await;
    let slot = slot.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    // Answers are small and whole; without this they may wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let patience = tokio::select! {
        // A client that breaks the protocol or goes away is no concern of the operator.
        ended = connection.as_mut() => return log_end(ended),
        () = stop.cancelled() => DRAIN_LIMIT,
        () = sleep(MAX_AGE) => LAST_ANSWER,
    };
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = timeout(patience, connection).await {
        log_end(ended);
    }
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "An HTTP connection ended early");
    }
}
