//! A TCP proxy before NATS that can swallow what a client says.

use std::sync::{Arc, Mutex};

use secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::services::nats::Nats;

/// A running proxy; it ends with this value.
pub struct Proxy {
    port: u16,
    swallowed: Arc<Mutex<Option<String>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn start(nats: &Nats) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let url = nats.url().expose_secret().to_owned();
        let server = url.trim_start_matches("nats://").to_owned();
        let swallowed = Arc::new(Mutex::new(None));
        let accepting = tokio::spawn({
            let swallowed = Arc::clone(&swallowed);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(serve(client, server.clone(), Arc::clone(&swallowed)));
                }
            }
        });
        Self {
            port,
            swallowed,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// From now on the client's publications to subjects that begin so do not arrive.
    pub fn swallow(&self, subject: &str) {
        *self.swallowed.lock().expect("no panic") = Some(subject.to_owned());
    }
}

async fn serve(client: TcpStream, server: String, swallowed: Arc<Mutex<Option<String>>>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let down = tokio::spawn(async move {
        let _ = copy(&mut from_server, &mut to_client).await;
    });
    let mut held = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from_client.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        held.extend_from_slice(&buffer[..read]);
        let subject = swallowed.lock().expect("no panic").clone();
        let whole = operations(&mut held, subject.as_deref());
        if to_server.write_all(&whole).await.is_err() {
            break;
        }
    }
    down.abort();
}

/// Takes the whole operations out of `held`, without those that publish to `swallowed`.
fn operations(held: &mut Vec<u8>, swallowed: Option<&str>) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Some(end) = held.windows(2).position(|pair| pair == b"\r\n") {
        let line = String::from_utf8_lossy(&held[..end]).into_owned();
        let mut words = line.split(' ');
        let publishes = matches!(words.next(), Some("PUB" | "HPUB"));
        let mut length = end + 2;
        if publishes {
            let size: usize = line
                .rsplit(' ')
                .next()
                .and_then(|size| size.parse().ok())
                .unwrap_or(0);
            length += size + 2;
        }
        if held.len() < length {
            break;
        }
        let subject = words.next().unwrap_or_default();
        let drop = publishes && swallowed.is_some_and(|begin| subject.starts_with(begin));
        let operation: Vec<u8> = held.drain(..length).collect();
        if !drop {
            kept.extend_from_slice(&operation);
        }
    }
    kept
}
