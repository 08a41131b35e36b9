//! The listener of a simulated router: open, shut and open again on the same port.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use tokio::net::{TcpListener, TcpStream};

use super::stats::lock;

/// A listener that can be closed at once by whoever holds a reference, and opened again.
pub(super) struct Door {
    address: SocketAddr,
    state: Mutex<DoorState>,
}

#[derive(Default)]
struct DoorState {
    listener: Option<TcpListener>,
    waiting: Option<Waker>,
}

impl Door {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = listen(address)?;
        Ok(Self {
            address: listener.local_addr()?,
            state: Mutex::new(DoorState {
                listener: Some(listener),
                waiting: None,
            }),
        })
    }

    /// Where it listens, also while it is closed.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn reopen(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.listener.is_none() {
            state.listener = Some(listen(self.address)?);
        }
        if let Some(waker) = state.waiting.take() {
            waker.wake();
        }
        Ok(())
    }

    pub(super) fn shut(&self) {
        lock(&self.state).listener = None;
    }

    pub(super) fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let mut state = lock(&self.state);
        state.waiting = Some(cx.waker().clone());
        match &state.listener {
            Some(listener) => listener.poll_accept(cx),
            None => Poll::Pending,
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
