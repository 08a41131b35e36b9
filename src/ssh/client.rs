//! The life of a connection: dial, log in, run commands, close.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use russh::client::Handle;
use russh::{Disconnect, Limits};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::error::{SshError, Stage, Trouble};
use super::handler::Client;
use super::link::{Facts, Link, stage};
use super::stream::{Bounded, Greeting};
use super::{Negotiated, Options, Output, algorithms, auth, connect};
use crate::credentials::Login;
use crate::domain::device::Endpoint;
use crate::domain::failure::FailureKind;
use crate::domain::host_key::{Fingerprint, Pin};
use crate::domain::session::WeakAlgorithm;

/// How long a polite end of the connection may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Resolves and connects `endpoint`, exchanges keys and compares the host key with `pin`. No
/// credential is sent. Everything on the connection, commands included, ends at `deadline`.
///
/// Cancel safe: dropping the future closes the socket and ends russh's task.
///
/// # Errors
/// See [`SshError::kind`]; a host key that is not the pinned one has both fingerprints in it.
pub async fn dial(
    endpoint: &Endpoint,
    pin: &Pin,
    deadline: Instant,
    options: &Options,
) -> Result<Host, SshError> {
    dial_with(endpoint, pin, deadline, options, Limits::default()).await
}

/// [`dial`], with a volume after which the keys are exchanged anew.
async fn dial_with(
    endpoint: &Endpoint,
    pin: &Pin,
    deadline: Instant,
    options: &Options,
    limits: Limits,
) -> Result<Host, SshError> {
    let connected = connect::tcp(endpoint, deadline, options).await?;
    let tcp = connected.stream;
    let began = Instant::now();
    let address = tcp.peer_addr().map_err(|error| {
        SshError::new(Stage::Connect, endpoint, Trouble::Io(error.kind())).source(error)
    })?;
    let link = Link::new(endpoint.to_string(), deadline, options);
    let greeting = Greeting::default();
    let stream = Bounded::new(tcp, deadline, link.owner(), greeting.clone());
    let client = Client::new(pin.clone(), link.notes.clone());
    let config = algorithms::config(limits, options.algorithms);
    let connecting = russh::client::connect_stream(config, stream, client);
    let handle = match timeout_at(deadline, connecting).await {
        Ok(Ok(handle)) => handle,
        Ok(Err(error)) => return Err(link.no_handshake(error, &greeting)),
        Err(_) => return Err(link.no_handshake(russh::Error::ConnectionTimeout, &greeting)),
    };
    let times = DialTimes {
        resolve: connected.resolve,
        connect: connected.connect,
        key_exchange: began.elapsed(),
    };
    let facts = link.facts(address, times)?;
    debug!(
        device.address = %address,
        ssh.fingerprint = %facts.fingerprint,
        ssh.server = facts.server_id,
        "Negotiated {}",
        facts.negotiated,
    );
    Ok(Host {
        handle,
        link,
        facts,
    })
}

/// A device whose host key has passed, before any credential is sent.
pub struct Host {
    handle: Handle<Client>,
    link: Link,
    facts: Facts,
}

impl Host {
    /// The fingerprint of its host key.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.facts.fingerprint
    }

    /// What was agreed on.
    pub fn negotiated(&self) -> &Negotiated {
        &self.facts.negotiated
    }

    /// Its identification line, `SSH-2.0-ROSSSH` for RouterOS.
    pub fn server_id(&self) -> Option<String> {
        Some(self.facts.server_id.clone()).filter(|id| !id.is_empty())
    }

    /// How long it took to get here.
    pub fn times(&self) -> DialTimes {
        self.facts.times
    }

    /// The address that answered.
    pub fn address(&self) -> SocketAddr {
        self.facts.address
    }

    /// Logs in: with the private key if there is one, then with the password, each once.
    ///
    /// Cancel safe: dropping the future ends the connection.
    ///
    /// # Errors
    /// `auth_failed` only when the server itself refused; a connection that ends meanwhile is
    /// `connection_lost`.
    pub async fn authenticate(self, login: &Login) -> Result<Session, SshError> {
        let Self {
            mut handle,
            link,
            facts,
        } = self;
        let work = async {
            let key = link.private_key(login).await?;
            let host_key = &facts.negotiated.host_key;
            match auth::log_in(&mut handle, login, key, host_key, link.algorithms).await {
                Ok(weak_login) => Ok(weak_login),
                Err(reason) => Err(link.no_login(reason, login, &mut handle).await),
            }
        };
        match timeout_at(link.deadline, work).await {
            Ok(Ok(weak_login)) => Ok(Session {
                handle,
                link,
                facts,
                weak_login,
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(link.late(Stage::Login)),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.facts).finish()
    }
}

/// A connection that is logged in.
pub struct Session {
    handle: Handle<Client>,
    link: Link,
    facts: Facts,
    weak_login: Option<WeakAlgorithm>,
}

impl Session {
    /// The fingerprint of the host key.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.facts.fingerprint
    }

    /// What was agreed on.
    pub fn negotiated(&self) -> &Negotiated {
        &self.facts.negotiated
    }

    /// The signature that logged in, if it is weak by today's measure; what was agreed on before is
    /// in [`Session::negotiated`].
    pub fn weak_login(&self) -> Option<&WeakAlgorithm> {
        self.weak_login.as_ref()
    }

    /// Runs `command` in a channel of its own, without a terminal, and reads until the server
    /// closes the channel: RouterOS sends the exit status, possibly more data, then the close.
    ///
    /// Not cancel safe: a command that was not waited for leaves its channel open. Close or drop
    /// the session then. After an error the connection is closed, except when the server refused
    /// to run the command.
    ///
    /// # Errors
    /// `timeout` and `connection_lost` before the first byte of output, `truncated_output` after
    /// it, `export_too_large` beyond [`Options::max_output`]. The output is dropped; how much it was is
    /// in the error.
    pub async fn run(&mut self, command: &str) -> Result<Output, SshError> {
        let mut output = Output::default();
        let work = self.link.command(&self.handle, command, &mut output);
        let result = match timeout_at(self.link.deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(self.link.late(stage(&output))),
        };
        match result {
            Ok(()) => Ok(output),
            Err(error) => {
                if !matches!(error.kind(), FailureKind::PermissionDenied) {
                    self.link.owner().cancel();
                }
                Err(error.received(output.stdout.len()))
            }
        }
    }

    /// Says goodbye, so that the device frees the session, and closes the connection. Takes two
    /// seconds at most; dropping the session closes the connection at once.
    pub async fn close(mut self) {
        let until = self.link.deadline.min(Instant::now() + FAREWELL);
        let farewell = async {
            self.handle
                .disconnect(Disconnect::ByApplication, "", "")
                .await?;
            (&mut self.handle).await
        };
        // However it ends, the connection is over when `self` is dropped.
        let _ = timeout_at(until, farewell).await;
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.facts).finish()
    }
}

/// How long each part of a dial took.
#[derive(Clone, Copy, Debug)]
pub struct DialTimes {
    /// The name lookup.
    pub resolve: Duration,
    /// The TCP connect, addresses that did not answer included.
    pub connect: Duration,
    /// Identification and key exchange, the host key comparison included.
    pub key_exchange: Duration,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use russh::server::{Auth, ChannelOpenHandle, Handler, Msg};
    use russh::{Channel, ChannelId};
    use secrecy::SecretString;

    use super::*;

    /// Much more than what fits into the buffers of a connection: what is there already when the
    /// client asks for new keys is sent under the old ones.
    const EXPORT_BYTES: usize = 48 * 1024 * 1024;

    /// Lets anyone in, and prints zeros.
    struct Zeros;

    impl Handler for Zeros {
        type Error = russh::Error;

        async fn auth_password(&mut self, _: &str, _: &str) -> Result<Auth, Self::Error> {
            Ok(Auth::Accept)
        }

        async fn channel_open_session(
            &mut self,
            _: Channel<Msg>,
            reply: ChannelOpenHandle,
            _: &mut russh::server::Session,
        ) -> Result<(), Self::Error> {
            reply.accept().await;
            Ok(())
        }

        async fn exec_request(
            &mut self,
            channel: ChannelId,
            _: &[u8],
            session: &mut russh::server::Session,
        ) -> Result<(), Self::Error> {
            session.channel_success(channel)?;
            let handle = session.handle();
            tokio::spawn(async move {
                for _ in 0..EXPORT_BYTES / 4096 {
                    handle
                        .data(channel, vec![0; 4096])
                        .await
                        .expect("connected");
                }
                handle
                    .exit_status_request(channel, 0)
                    .await
                    .expect("connected");
                handle.close(channel).await.expect("connected");
            });
            Ok(())
        }
    }

    #[tokio::test]
    async fn keys_are_exchanged_anew_in_the_middle_of_an_export() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bind");
        let port = listener.local_addr().expect("bound").port();
        let algorithm = russh::keys::Algorithm::Ed25519;
        let key = russh::keys::PrivateKey::random(&mut rand::rng(), algorithm).expect("a key");
        let config = Arc::new(russh::server::Config {
            keys: vec![key],
            auth_rejection_time: Duration::ZERO,
            ..Default::default()
        });
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accept");
            let running = russh::server::run_stream(config, stream, Zeros).await;
            let _ = running.expect("a client that speaks SSH").await;
        });
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: port.into(),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        // The real limit is a gigabyte (RFC 4253, section 9).
        let limits = Limits::new(1 << 30, 512 * 1024, Duration::from_secs(3600));
        let options = Options::default();
        let host = dial_with(&endpoint, &Pin::Unpinned, deadline, &options, limits).await;
        let login = Login {
            username: "backup".into(),
            password: Some(SecretString::from("any")),
            private_key: None,
            private_key_passphrase: None,
        };
        let mut session = host
            .expect("dial")
            .authenticate(&login)
            .await
            .expect("login");
        let output = session.run("/export").await.expect("an export");
        assert_eq!(output.stdout.len(), EXPORT_BYTES);
        assert!(output.closed && output.exit_status == Some(0));
        let exchanges = session.link.notes.lock().exchanges;
        assert!(exchanges > 1, "{exchanges} key exchanges");
    }
}
