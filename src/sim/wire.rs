//! A TCP stream that can be held up, muted and cut while SSH runs over it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::router::Counted;
use super::stats::lock;

/// What happens to our second SSH message, the reply of the key exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KexGate {
    Open,
    /// Nothing is sent any more.
    Shut,
    /// It is sent so much later.
    Slow(Duration),
}

/// The levers of a [`Wire`], for those who do not own it.
#[derive(Debug)]
pub(super) struct WireControl {
    muted: AtomicBool,
    cut_at: AtomicU64,
    sent: AtomicU64,
    deaf: Mutex<Option<Option<Waker>>>,
}

impl WireControl {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            muted: AtomicBool::new(false),
            cut_at: AtomicU64::new(u64::MAX),
            sent: AtomicU64::new(0),
            deaf: Mutex::new(None),
        })
    }

    /// Reads nothing until what this returns is dropped: as if everything that the client sends
    /// were still on its way.
    pub(super) fn deafen(self: &Arc<Self>) -> Deaf {
        *lock(&self.deaf) = Some(None);
        Deaf(Arc::clone(self))
    }

    /// Ends our direction of the stream after so many more bytes.
    pub(super) fn cut_after(&self, bytes: u64) {
        let sent = self.sent.load(Ordering::SeqCst);
        self.cut_at
            .store(sent.saturating_add(bytes), Ordering::SeqCst);
    }
}

/// While it lives, nothing is read.
pub(super) struct Deaf(Arc<WireControl>);

impl Drop for Deaf {
    fn drop(&mut self) {
        if let Some(Some(reader)) = lock(&self.0.deaf).take() {
            reader.wake();
        }
    }
}

/// The stream. Output that is not to be sent is swallowed instead of being held back, so that the
/// SSH server keeps reading and notices when the client goes.
pub(super) struct Wire {
    stream: TcpStream,
    control: Arc<WireControl>,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
    counted: Option<Counted>,
    gate: KexGate,
    head: Vec<u8>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// A stream that fails as soon as `gone` is cancelled, and is `counted` as open until the
    /// client's end of it has been read.
    pub(super) fn new(
        stream: TcpStream,
        control: Arc<WireControl>,
        gate: KexGate,
        counted: Counted,
        gone: CancellationToken,
    ) -> Self {
        Self {
            stream,
            control,
            gone: Box::pin(gone.cancelled_owned()),
            counted: Some(counted),
            gate,
            head: Vec::new(),
            pause: None,
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.gone.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// How many bytes of `next` may go before the gate, `None` when the gate is no matter.
    fn before_gate(&self, next: &[u8]) -> Option<usize> {
        if self.gate == KexGate::Open {
            return None;
        }
        let joined = [&self.head, next].concat();
        Some(end_of_kexinit(&joined).map_or(next.len(), |end| end.saturating_sub(self.head.len())))
    }
}

/// Where KEXINIT ends: an identification line, a length in four bytes, and so many bytes
/// (RFC 4253, sections 4.2 and 6). `None` while that is not known yet.
fn end_of_kexinit(sent: &[u8]) -> Option<usize> {
    let line = sent.iter().position(|byte| *byte == b'\n')? + 1;
    let length = sent.get(line..line + 4)?.try_into().ok()?;
    Some(line + 4 + u32::from_be_bytes(length) as usize)
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_gone(cx)?;
        if let Some(reader) = lock(&self.control.deaf).as_mut() {
            *reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = buf.remaining();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if read.is_err() || (before > 0 && buf.remaining() == before) {
            self.counted = None;
        } else if let Some(counted) = &self.counted {
            counted.heard();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_gone(cx)?;
        if self.control.muted.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(buf.len()));
        }
        let sent = self.control.sent.load(Ordering::SeqCst);
        let left = self
            .control
            .cut_at
            .load(Ordering::SeqCst)
            .saturating_sub(sent);
        let mut allowed = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        if allowed == 0 && !buf.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.control.muted.store(true, Ordering::SeqCst);
            return Poll::Ready(Ok(buf.len()));
        }
        match self.before_gate(buf) {
            Some(0) if !buf.is_empty() => match self.gate {
                KexGate::Slow(time) => {
                    let pause = self
                        .pause
                        .get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
                    ready!(pause.as_mut().poll(cx));
                    self.gate = KexGate::Open;
                }
                KexGate::Shut | KexGate::Open => {
                    self.control.muted.store(true, Ordering::SeqCst);
                    return Poll::Ready(Ok(buf.len()));
                }
            },
            Some(before) => allowed = allowed.min(before),
            None => {}
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..allowed]))?;
        if self.gate != KexGate::Open {
            self.head.extend_from_slice(&buf[..written]);
        }
        self.control
            .sent
            .fetch_add(written as u64, Ordering::SeqCst);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_end_of_the_first_packet() {
        assert_eq!(end_of_kexinit(b"SSH-2.0-x"), None);
        assert_eq!(end_of_kexinit(b"SSH-2.0-x\r\n\0\0\0"), None);
        assert_eq!(end_of_kexinit(b"SSH-2.0-x\r\n\0\0\0\x05abc"), Some(20));
    }
}
