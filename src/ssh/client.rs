//! The life of a connection: dial, log in, run commands, close.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use russh::client::Handle;
use russh::{ChannelMsg, Disconnect, Limits};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::auth::NoLogin;
use super::error::{SshError, Stage, Trouble};
use super::handler::{Client, Ending, Shared};
use super::stream::{Bounded, Greeting};
use super::{Negotiated, Options, Output, algorithms, auth, connect};
use crate::credentials::Login;
use crate::domain::device::Endpoint;
use crate::domain::failure::FailureKind;
use crate::domain::host_key::{Fingerprint, Pin};

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
    let owner = CancellationToken::new();
    let greeting = Greeting::default();
    let stream = Bounded::new(tcp, deadline, &owner, greeting.clone());
    let link = Link {
        notes: Shared::default(),
        endpoint: endpoint.to_string(),
        deadline,
        max_output: options.max_output,
        owner: owner.clone(),
        _guard: owner.drop_guard(),
    };
    let client = Client::new(pin.clone(), link.notes.clone());
    let connecting = russh::client::connect_stream(algorithms::config(limits), stream, client);
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
            match auth::log_in(&mut handle, login, key, &facts.negotiated.host_key).await {
                Ok(()) => Ok(()),
                Err(reason) => Err(link.no_login(reason, login, &mut handle).await),
            }
        };
        match timeout_at(link.deadline, work).await {
            Ok(Ok(())) => Ok(Session {
                handle,
                link,
                facts,
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

    /// Runs `command` in a channel of its own, without a terminal, and reads until the server
    /// closes the channel: RouterOS sends the exit status, possibly more data, then the close.
    ///
    /// Not cancel safe: a command that was not waited for leaves its channel open. Close or drop
    /// the session then. After an error the connection is closed, except when the server refused
    /// to run the command.
    ///
    /// # Errors
    /// `timeout` and `connection_lost` before the first byte of output, `truncated_output` after
    /// it, `export_too_large` beyond [`Options::max_output`].
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
                    self.link.owner.cancel();
                }
                Err(error)
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

/// What the key exchange told.
#[derive(Debug)]
struct Facts {
    address: SocketAddr,
    times: DialTimes,
    fingerprint: Fingerprint,
    negotiated: Negotiated,
    server_id: String,
}

/// What a connection hangs on. Dropping it closes the socket and ends russh's task.
struct Link {
    notes: Shared,
    endpoint: String,
    deadline: Instant,
    max_output: usize,
    owner: CancellationToken,
    _guard: DropGuard,
}

impl Link {
    fn facts(&self, address: SocketAddr, times: DialTimes) -> Result<Facts, SshError> {
        let mut notes = self.notes.lock();
        let noted = (
            notes.fingerprint.clone(),
            notes.negotiated.take(),
            notes.server_id.take(),
        );
        let (Some(fingerprint), Some(negotiated), Some(server_id)) = noted else {
            return Err(self
                .error(Stage::Handshake, Trouble::Protocol)
                .detail("the key exchange ended without a host key"));
        };
        Ok(Facts {
            address,
            times,
            fingerprint,
            negotiated,
            server_id,
        })
    }

    async fn private_key(
        &self,
        login: &Login,
    ) -> Result<Option<russh::keys::PrivateKey>, SshError> {
        let unusable = |detail: String| {
            self.error(Stage::Login, Trouble::Credentials)
                .detail(detail)
        };
        login.check().map_err(|error| unusable(error.to_string()))?;
        let login = login.clone();
        // Deriving the key of an encrypted private key takes tenths of a second of CPU.
        tokio::task::spawn_blocking(move || auth::read_key(&login))
            .await
            .map_err(|error| self.error(Stage::Login, Trouble::Defect).source(error))?
            .map_err(|detail| unusable(detail.to_owned()))
    }

    /// Runs one command; `output` holds what has come, also when this fails or is dropped.
    async fn command(
        &self,
        handle: &Handle<Client>,
        command: &str,
        output: &mut Output,
    ) -> Result<(), SshError> {
        let failed = |error| self.failed(Stage::Command, error);
        let mut channel = handle.channel_open_session().await.map_err(failed)?;
        channel.exec(true, command).await.map_err(failed)?;
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => {
                    self.room(output, data.len())?;
                    output.stdout.extend_from_slice(&data);
                }
                ChannelMsg::ExtendedData { data, .. } => {
                    self.room(output, data.len())?;
                    output.stderr.extend_from_slice(&data);
                }
                ChannelMsg::ExitStatus { exit_status } => output.exit_status = Some(exit_status),
                ChannelMsg::Failure => {
                    return Err(self
                        .error(Stage::Command, Trouble::Denied)
                        .detail("the device refused to run a command; check the user's policy"));
                }
                ChannelMsg::Close => {
                    output.closed = true;
                    return Ok(());
                }
                _ => {}
            }
        }
        if output.exit_status.is_some() && Instant::now() < self.deadline {
            // The command has ended; that the channel was not closed is for the caller to judge.
            return Ok(());
        }
        Err(self.ended(stage(output)))
    }

    fn room(&self, output: &Output, more: usize) -> Result<(), SshError> {
        if output.len() + more <= self.max_output {
            return Ok(());
        }
        Err(self.error(Stage::Output, Trouble::TooLarge).detail(format!(
            "the output is larger than {} bytes (CONFIG_BACKUP_MAX_EXPORT_BYTES)",
            self.max_output
        )))
    }

    fn error(&self, stage: Stage, trouble: Trouble) -> SshError {
        SshError::new(stage, &self.endpoint, trouble)
    }

    fn late(&self, stage: Stage) -> SshError {
        self.error(stage, Trouble::Deadline)
            .detail("the time for the session was up (CONFIG_BACKUP_COMMAND_TIMEOUT)")
    }

    /// What russh reports; where that is only that its task has ended, what ended it.
    fn failed(&self, stage: Stage, error: russh::Error) -> SshError {
        match Trouble::from(&error) {
            Trouble::Ended => self.ended(stage),
            Trouble::Deadline | Trouble::Io(std::io::ErrorKind::TimedOut) => self.late(stage),
            // Where the socket ended, russh says no more than "early eof".
            trouble @ Trouble::Io(std::io::ErrorKind::UnexpectedEof) => self
                .error(stage, trouble)
                .detail("the connection ended without a goodbye"),
            trouble => self.error(stage, trouble).source(error),
        }
    }

    /// The connection has ended: why, as far as it was noted.
    fn ended(&self, stage: Stage) -> SshError {
        let ending = self.notes.lock().ending.take();
        match ending {
            Some(Ending::Failed(error)) if Trouble::from(&error) != Trouble::Ended => {
                self.failed(stage, error)
            }
            Some(Ending::Disconnected { code, message }) => {
                self.error(stage, Trouble::Ended).detail(format!(
                    "the device disconnected with reason {code} and the words {message:?}"
                ))
            }
            Some(Ending::Failed(_)) | None => self
                .error(stage, Trouble::Ended)
                .detail("the device closed the connection"),
        }
    }

    fn no_handshake(&self, error: russh::Error, greeting: &Greeting) -> SshError {
        let mismatch = self.notes.lock().mismatch.take();
        if let Some(mismatch) = mismatch {
            return self
                .error(Stage::Handshake, Trouble::HostKey)
                .source(mismatch);
        }
        if let Some(line) = greeting.of_a_stranger() {
            return self
                .error(Stage::Handshake, Trouble::Protocol)
                .detail(format!(
                    "what listens there is no SSH server, it said {line:?}; correct address or port"
                ));
        }
        let error = self.failed(Stage::Handshake, error);
        if !greeting.is_silence() {
            return error;
        }
        match error.kind() {
            FailureKind::ConnectionLost => error.detail(
                "it accepted the connection and closed it without a word; RouterOS does that \
                 where /ip service address= does not list us, and beyond max-sessions",
            ),
            FailureKind::Timeout => error.detail("it accepted the connection and said nothing"),
            _ => error,
        }
    }

    async fn no_login(
        &self,
        reason: NoLogin,
        login: &Login,
        handle: &mut Handle<Client>,
    ) -> SshError {
        let user = &login.username;
        match reason {
            NoLogin::Refused { tried, offered } => self
                .error(Stage::Login, Trouble::Refused)
                .detail(if tried.is_empty() {
                    format!(
                        "the device offers user {user:?} only {}, for which there is no credential",
                        offered.join(", ")
                    )
                } else {
                    format!(
                        "the device refused user {user:?} by {}",
                        tried.join(" and ")
                    )
                }),
            NoLogin::Ended { tried } => {
                // Its end may be on the way; it is noted before the task is over.
                let _ = handle.await;
                let refused = matches!(
                    &self.notes.lock().ending,
                    Some(ending) if auth::is_refusal(ending, &tried)
                );
                if refused {
                    return self.error(Stage::Login, Trouble::Refused).detail(format!(
                        "the device refused user {user:?} by {} and ended the connection",
                        tried.join(" and ")
                    ));
                }
                self.ended(Stage::Login)
            }
            NoLogin::Questions => self.error(Stage::Login, Trouble::Protocol).detail(
                "the device asks for more than a password (keyboard-interactive), and that was not \
                 answered; log in by hand to see what it wants",
            ),
            NoLogin::Failed(error) => self.failed(Stage::Login, error),
        }
    }
}

fn stage(output: &Output) -> Stage {
    if output.is_empty() {
        Stage::Command
    } else {
        Stage::Output
    }
}
