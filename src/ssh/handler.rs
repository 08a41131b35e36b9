//! What russh calls back: the host key decision, and the notes that outlive russh's own task.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, Names};

use super::Negotiated;
use super::algorithms;
use crate::domain::host_key::{Fingerprint, HostKeyMismatch, Pin};

/// How russh's task ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The server said so (RFC 4253, section 11.1).
    Disconnected {
        /// The reason code.
        code: u32,
        /// Its words.
        message: String,
    },
    /// Anything else.
    Failed(russh::Error),
}

/// What is known of a connection.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The host key that passed.
    pub(super) fingerprint: Option<Fingerprint>,
    /// The host key that did not.
    pub(super) mismatch: Option<HostKeyMismatch>,
    /// What was agreed on.
    pub(super) negotiated: Option<Negotiated>,
    /// The identification line of the server.
    pub(super) server_id: Option<String>,
    /// How many key exchanges there were: a large output takes more than one.
    pub(super) exchanges: u32,
    /// How it ended.
    pub(super) ending: Option<Ending>,
}

/// [`Notes`] that russh's task writes and the owner of the connection reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Notes>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client's side of russh's callbacks.
pub(super) struct Client {
    pin: Pin,
    notes: Shared,
}

impl Client {
    pub(super) fn new(pin: Pin, notes: Shared) -> Self {
        Self { pin, notes }
    }

    /// Compares a key with the pin and, if there was one before on this connection, with that one.
    fn check(&self, offered: Fingerprint) -> bool {
        let mut notes = self.notes.lock();
        let first = notes.fingerprint.clone().map(Pin::Pinned);
        let verdict = self
            .pin
            .verify(&offered)
            .and_then(|()| first.map_or(Ok(()), |first| first.verify(&offered)));
        match verdict {
            Ok(()) => {
                notes.fingerprint = Some(offered);
                true
            }
            Err(mismatch) => {
                notes.mismatch = Some(mismatch);
                false
            }
        }
    }
}

impl Handler for Client {
    type Error = russh::Error;

    /// Runs before anything of ours is sent encrypted, so before any credential. russh calls it in
    /// the first key exchange only; the messages of a later one travel under keys that the holder
    /// of the compared host key has agreed on.
    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                Ok(self.check(Fingerprint::of_key_blob(&key.to_bytes()?)))
            }
            // We never offer to take one.
            PublicKeyOrCertificate::Certificate(_) => Err(russh::Error::Inconsistent),
        }
    }

    async fn kex_done(
        &mut self,
        _shared_secret: Option<&[u8]>,
        names: &Names,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let mut notes = self.notes.lock();
        notes.exchanges += 1;
        notes
            .negotiated
            .get_or_insert_with(|| algorithms::negotiated(names));
        notes.server_id.get_or_insert_with(|| {
            super::stream::printable(&String::from_utf8_lossy(session.remote_sshid()))
        });
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        let ending = match reason {
            DisconnectReason::ReceivedDisconnect(info) => Ending::Disconnected {
                code: info.reason_code as u32,
                message: super::stream::printable(&info.message),
            },
            DisconnectReason::Error(error) => Ending::Failed(error),
        };
        self.notes.lock().ending.get_or_insert(ending);
        Ok(())
    }

    // A router has no reason to open channels to us. russh would accept them all.

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_key_on_one_connection_must_be_the_first_one() {
        let [first, second] = [b"first", b"other"].map(|blob| Fingerprint::of_key_blob(blob));
        let notes = Shared::default();
        let client = Client::new(Pin::Unpinned, notes.clone());
        assert!(client.check(first.clone()));
        assert!(client.check(first.clone()));
        assert!(!client.check(second.clone()));
        assert_eq!(notes.lock().fingerprint, Some(first));
        let mismatch = notes.lock().mismatch.clone().expect("noted");
        assert_eq!(mismatch.offered, second);
    }

    #[test]
    fn a_pin_decides_about_the_first_key() {
        let [pinned, other] = [b"first", b"other"].map(|blob| Fingerprint::of_key_blob(blob));
        for (pin, passes) in [
            (Pin::Unpinned, true),
            (Pin::Pinned(pinned.clone()), true),
            (Pin::Pinned(other), false),
            (Pin::Unreadable(String::new()), false),
        ] {
            let notes = Shared::default();
            let client = Client::new(pin.clone(), notes.clone());
            assert_eq!(client.check(pinned.clone()), passes, "{pin:?}");
            assert_eq!(notes.lock().mismatch.is_none(), passes);
        }
    }
}
