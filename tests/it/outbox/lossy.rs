//! A way to Redis on which an answer gets lost: the request was executed, and the connection breaks
//! before its sender learns of it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A port of its own in front of a server; it ends when this is dropped.
pub struct Lossy {
    port: u16,
    loses: Arc<Loses>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Loses {
    /// The how manieth answer from now is lost; 0 for none.
    countdown: AtomicU32,
    /// Then nobody gets through any more.
    for_good: AtomicBool,
    down: AtomicBool,
}

impl Lossy {
    /// Forwards to `upstream`, a port of 127.0.0.1.
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("listen on a loopback port");
        let port = listener.local_addr().expect("its address").port();
        let loses = Arc::<Loses>::default();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, upstream, loses.clone()));
        Self {
            port,
            loses,
            _task: task,
        }
    }

    pub fn url(&self) -> SecretString {
        format!("redis://127.0.0.1:{}", self.port).into()
    }

    /// Loses the `number`th answer from now, counted from 1, and the connection with it. With 0,
    /// none.
    pub fn lose(&self, number: u32) {
        self.loses.countdown.store(number, Ordering::SeqCst);
    }

    /// The same, and nobody gets through afterwards until [`Self::give_back`].
    pub fn cut_at(&self, number: u32) {
        self.loses.for_good.store(true, Ordering::SeqCst);
        self.lose(number);
    }

    pub fn give_back(&self) {
        self.lose(0);
        self.loses.for_good.store(false, Ordering::SeqCst);
        self.loses.down.store(false, Ordering::SeqCst);
    }
}

impl Loses {
    /// Whether this answer gets lost.
    fn this_one(&self) -> bool {
        let before = self
            .countdown
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        let lost = before == Ok(1);
        if lost && self.for_good.load(Ordering::SeqCst) {
            self.down.store(true, Ordering::SeqCst);
        }
        lost
    }
}

async fn serve(listener: TcpListener, upstream: u16, loses: Arc<Loses>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                if !loses.down.load(Ordering::SeqCst) {
                    connections.spawn(forward(client, upstream, loses.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection. Its client asks one thing at a time, so what comes from the server at once is
/// one answer; those of the tests are far smaller than the buffer.
async fn forward(mut client: TcpStream, upstream: u16, loses: Arc<Loses>) {
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await else {
        return;
    };
    let (mut question, mut answer) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let passed = tokio::select! {
            Ok(read) = client.read(&mut question) => {
                read > 0 && server.write_all(&question[..read]).await.is_ok()
            }
            Ok(read) = server.read(&mut answer) => {
                read > 0 && !loses.this_one() && client.write_all(&answer[..read]).await.is_ok()
            }
            else => false,
        };
        if !passed {
            return;
        }
    }
}
