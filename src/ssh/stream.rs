//! The stream that russh works on: it fails at the deadline and when its owner is gone.
//!
//! russh moves its stream into a task of its own. Dropping russh's connect future, or its handle
//! during a key exchange, leaves that task waiting for a silent peer for ever. So both ends of the
//! wait are put into the stream: every read and write fails once the deadline has passed or the
//! [`CancellationToken`] of the owner is cancelled, which ends the task and closes the socket.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// An SSH identification line has at most 255 bytes (RFC 4253, section 4.2).
const GREETING_BYTES: usize = 255;

/// A stream that is bounded in time.
pub(super) struct Bounded<S> {
    inner: S,
    read: Bound,
    write: Bound,
    greeting: Greeting,
}

impl<S> Bounded<S> {
    /// Wraps `inner`; reads and writes fail from `deadline` on, and once `owner` is cancelled.
    pub(super) fn new(
        inner: S,
        deadline: Instant,
        owner: &CancellationToken,
        greeting: Greeting,
    ) -> Self {
        Self {
            inner,
            read: Bound::new(deadline, owner),
            write: Bound::new(deadline, owner),
            greeting,
        }
    }
}

/// The wait of one direction: reader and writer may be polled by different tasks, and a timer
/// wakes only the one that polled it last.
struct Bound {
    deadline: Instant,
    owner: CancellationToken,
    timer: Pin<Box<Sleep>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Bound {
    fn new(deadline: Instant, owner: &CancellationToken) -> Self {
        Self {
            deadline,
            owner: owner.clone(),
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            cancelled: Box::pin(owner.clone().cancelled_owned()),
        }
    }

    /// Fails before any IO: a peer that is always ready must not get past the deadline.
    fn check(&self) -> io::Result<()> {
        if self.owner.is_cancelled() {
            Err(gone())
        } else if Instant::now() >= self.deadline {
            Err(late())
        } else {
            Ok(())
        }
    }

    /// Registers to be woken when one of the two comes to pass.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(gone());
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(late())
    }

    fn or_fail<T>(
        &mut self,
        cx: &mut Context<'_>,
        io: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.check()?;
        match io(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.wait(cx).map(Err),
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the connection was given up",
    )
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the deadline has passed")
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let inner = &mut this.inner;
        let result = this
            .read
            .or_fail(cx, |cx| Pin::new(inner).poll_read(cx, buffer));
        this.greeting.hear(&buffer.filled()[before..]);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let inner = &mut this.inner;
        this.write
            .or_fail(cx, |cx| Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let inner = &mut this.inner;
        this.write.or_fail(cx, |cx| Pin::new(inner).poll_flush(cx))
    }

    /// Never fails: russh would report such an error instead of the one that it shuts down for.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let inner = &mut this.inner;
        let result = this
            .write
            .or_fail(cx, |cx| Pin::new(inner).poll_shutdown(cx));
        result.map(|_| Ok(()))
    }
}

/// The first bytes that the peer said, to tell what it is when it is no SSH server.
#[derive(Clone, Default)]
pub(super) struct Greeting(Arc<Mutex<Vec<u8>>>);

impl Greeting {
    fn hear(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = GREETING_BYTES - heard.len();
        heard.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The first line of a peer that has said a line, and none that an SSH server begins with
    /// (RFC 4253, section 4.2, allows lines before it); printable, and no longer than 80 characters.
    pub(super) fn of_a_stranger(&self) -> Option<String> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stranger = !heard
            .split(|byte| *byte == b'\n')
            .any(|line| line.starts_with(b"SSH-"));
        let whole = heard.contains(&b'\n') || heard.len() == GREETING_BYTES;
        let first = heard.split(|byte| *byte == b'\n').next()?;
        (stranger && whole).then(|| printable(&String::from_utf8_lossy(first)))
    }

    /// The peer has said nothing at all.
    pub(super) fn is_silence(&self) -> bool {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_empty()
    }
}

/// A text of the peer, made fit for an error message: one line, no control characters, no longer
/// than 80 characters.
pub(super) fn printable(text: &str) -> String {
    let cleaned: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if cleaned.chars().count() > 80 {
        cleaned.chars().take(79).chain(['…']).collect()
    } else {
        cleaned
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    fn bounded(
        seconds: u64,
        owner: &CancellationToken,
    ) -> (Bounded<DuplexStream>, DuplexStream, Greeting) {
        let (ours, theirs) = tokio::io::duplex(16);
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let greeting = Greeting::default();
        let stream = Bounded::new(ours, deadline, owner, greeting.clone());
        (stream, theirs, greeting)
    }

    #[tokio::test(start_paused = true)]
    async fn reading_and_writing_fail_at_the_deadline() {
        let owner = CancellationToken::new();
        let (mut stream, _theirs, _) = bounded(5, &owner);
        let start = Instant::now();
        let read = stream.read_u8().await.expect_err("nothing is said");
        assert_eq!(read.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        // Even what would succeed at once.
        let write = stream.write_u8(1).await.expect_err("it is too late");
        assert_eq!(write.kind(), io::ErrorKind::TimedOut);
        stream.shutdown().await.expect("shutdown never fails");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_pipe_fails_at_the_deadline() {
        let owner = CancellationToken::new();
        let (mut stream, _theirs, _) = bounded(5, &owner);
        let write = stream.write_all(&[0; 17]).await.expect_err("16 bytes fit");
        assert_eq!(write.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickling_peer_gets_no_longer_than_the_deadline() {
        let owner = CancellationToken::new();
        let (mut stream, mut theirs, _) = bounded(5, &owner);
        let trickle = tokio::spawn(async move {
            while theirs.write_u8(b'.').await.is_ok() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        let start = Instant::now();
        let mut heard = Vec::new();
        let error = stream.read_to_end(&mut heard).await.expect_err("endless");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        assert_eq!(heard.len(), 17, "one at the start, and one every 300 ms");
        drop(stream);
        trickle.await.expect("the peer sees the end");
    }

    #[tokio::test(start_paused = true)]
    async fn reader_and_writer_in_different_tasks_both_end_with_their_owner() {
        let owner = CancellationToken::new();
        let (stream, _theirs, _) = bounded(5000, &owner);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let read = tokio::spawn(async move { reader.read_u8().await });
        let write = tokio::spawn(async move { writer.write_all(&[0; 17]).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!read.is_finished() && !write.is_finished());
        let start = Instant::now();
        owner.cancel();
        for error in [
            read.await.expect("no panic").expect_err("owner is gone"),
            write.await.expect("no panic").expect_err("owner is gone"),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[test]
    fn strangers_are_known_by_their_first_line() {
        for (said, stranger) in [
            ("", None),
            ("HTTP/1.1 400 Ba", None),
            (
                "HTTP/1.1 400 Bad Request\r\n\r\n",
                Some("HTTP/1.1 400 Bad Request"),
            ),
            ("220 \u{7}mail\r\n", Some("220 \u{fffd}mail")),
            ("SSH-2.0-ROSSSH\r\n", None),
            ("all use is logged\r\nSSH-2.0-ROSSSH\r\n", None),
            ("SSH-2.0-unfinished", None),
        ] {
            let mut greeting = Greeting::default();
            greeting.hear(said.as_bytes());
            assert_eq!(greeting.of_a_stranger().as_deref(), stranger, "{said:?}");
            assert_eq!(greeting.is_silence(), said.is_empty());
        }
        let mut flood = Greeting::default();
        for _ in 0..3 {
            flood.hear(&[b'x'; 200]);
        }
        let line = flood.of_a_stranger().expect("no line of SSH is that long");
        assert_eq!(line.chars().count(), 80);
    }
}
