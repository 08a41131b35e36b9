//! A small HTTP client: one request per connection, over TCP or a Unix socket.

use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The body of this media type, as JSON.
    pub fn json_as(&self, media_type: &str) -> Value {
        let said = format!("content-type: {media_type}\r\n");
        assert!(self.head.contains(&said), "{self:?}");
        serde_json::from_str(&self.body).expect("JSON")
    }

    pub fn json(&self) -> Value {
        self.json_as("application/json")
    }

    /// The detail of a problem with this status.
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let problem = self.json_as("application/problem+json");
        assert_eq!(problem["status"], status, "{self:?}");
        problem["detail"].as_str().expect("a detail").to_owned()
    }
}

/// Asks `address` over TCP; `headers` are whole lines.
pub async fn tcp(address: &str, method: &str, path: &str, headers: &[&str]) -> Answer {
    let stream = TcpStream::connect(address).await.expect("connect");
    let host = format!("Host: {address}");
    let mut lines = vec![host.as_str()];
    lines.extend(headers);
    exchange(stream, method, path, &lines).await
}

/// Asks over a Unix socket.
pub async fn unix(socket: &Path, method: &str, path: &str) -> Answer {
    let stream = UnixStream::connect(socket).await.expect("connect");
    exchange(stream, method, path, &["Host: localhost"]).await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    headers: &[&str],
) -> Answer {
    let headers = headers.join("\r\n");
    let request = format!("{method} {path} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).expect("a status");
    Answer {
        status: status.parse().expect("a number"),
        head: format!("{}\r\n", head.to_ascii_lowercase()),
        body: body.to_owned(),
    }
}
