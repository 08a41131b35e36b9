//! Asks a running process whether it lives: `healthcheck`, for a container's `HEALTHCHECK`.

use std::error::Error as StdError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the process has to answer.
pub const LIMIT: Duration = Duration::from_secs(3);

/// The process does not live, or nothing says so.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// No connection, or none that speaks HTTP.
    #[error("failed to ask http://{address}/livez; is the service running with this HTTP_ADDR?")]
    Unreachable {
        /// Who was asked.
        address: SocketAddr,
        /// What went wrong.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// It took too long.
    #[error("no answer from http://{address}/livez within {} s", LIMIT.as_secs())]
    Late {
        /// Who was asked.
        address: SocketAddr,
    },
    /// Something else listens there.
    #[error("http://{address}/livez answered {status} instead of 200")]
    Status {
        /// Who was asked.
        address: SocketAddr,
        /// The answer.
        status: StatusCode,
    },
}

/// Asks `/livez` of the process that listens on `http_addr`, over loopback where it listens
/// everywhere.
///
/// # Errors
/// [`HealthcheckError`] when the answer is not 200, or does not come within [`LIMIT`].
pub async fn healthcheck(http_addr: SocketAddr) -> Result<(), HealthcheckError> {
    let address = reachable(http_addr);
    let status = match timeout(LIMIT, ask(address)).await {
        Ok(Ok(status)) => status,
        Ok(Err(source)) => return Err(HealthcheckError::Unreachable { address, source }),
        Err(_) => return Err(HealthcheckError::Late { address }),
    };
    if status == StatusCode::OK {
        Ok(())
    } else {
        Err(HealthcheckError::Status { address, status })
    }
}

/// An address to connect to, where `listening` may be a wildcard.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

async fn ask(address: SocketAddr) -> Result<StatusCode, Box<dyn StdError + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/livez")
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        Ok::<_, hyper::Error>(response.status())
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    // The connection moves the bytes; when it is done first, the answer is there or an error.
    let status = tokio::select! {
        status = &mut answer => status?,
        ended = &mut connection => {
            ended?;
            answer.await?
        }
    };
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_asked_over_loopback() {
        for (listening, asked) in [
            ("0.0.0.0:9091", "127.0.0.1:9091"),
            ("[::]:9091", "[::1]:9091"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            let listening = listening.parse().unwrap();
            assert_eq!(reachable(listening), asked.parse().unwrap());
        }
    }
}
