//! What a connection hangs on: its deadline, what is known of it, and why it failed.

use std::net::SocketAddr;
use std::time::Duration;

use russh::ChannelMsg;
use russh::client::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::advice;
use super::auth::{self, NoLogin};
use super::client::DialTimes;
use super::error::{SshError, Stage, Trouble};
use super::handler::{Client, Ending, Shared};
use super::stream::Greeting;
use super::{Negotiated, Options, Output};
use crate::credentials::Login;
use crate::domain::failure::FailureKind;
use crate::domain::host_key::Fingerprint;
use crate::domain::session::SshAlgorithms;

/// What the key exchange told.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) address: SocketAddr,
    pub(super) times: DialTimes,
    pub(super) fingerprint: Fingerprint,
    pub(super) negotiated: Negotiated,
    pub(super) server_id: String,
}

/// What a connection hangs on. Dropping it closes the socket and ends russh's task.
pub(super) struct Link {
    pub(super) notes: Shared,
    pub(super) deadline: Instant,
    endpoint: String,
    max_output: usize,
    idle_timeout: Duration,
    pub(super) algorithms: SshAlgorithms,
    owner: CancellationToken,
    _guard: DropGuard,
}

impl Link {
    /// The link of a connection to `endpoint` that ends when it is dropped.
    pub(super) fn new(endpoint: String, deadline: Instant, options: &Options) -> Self {
        let owner = CancellationToken::new();
        Self {
            notes: Shared::default(),
            deadline,
            endpoint,
            max_output: options.max_output,
            idle_timeout: options.idle_timeout,
            algorithms: options.algorithms,
            owner: owner.clone(),
            _guard: owner.drop_guard(),
        }
    }

    /// What is cancelled when the connection is to end.
    pub(super) fn owner(&self) -> &CancellationToken {
        &self.owner
    }

    pub(super) fn facts(&self, address: SocketAddr, times: DialTimes) -> Result<Facts, SshError> {
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

    pub(super) async fn private_key(
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
    pub(super) async fn command(
        &self,
        handle: &Handle<Client>,
        command: &str,
        output: &mut Output,
    ) -> Result<(), SshError> {
        let failed = |error| self.failed(Stage::Command, error);
        let begin = async {
            let channel = handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            Ok(channel)
        };
        let begun = timeout(self.idle_timeout, begin).await;
        let mut channel = begun.map_err(|_| self.silent(output))?.map_err(failed)?;
        loop {
            let message = timeout(self.idle_timeout, channel.wait()).await;
            let Some(message) = message.map_err(|_| self.silent(output))? else {
                break;
            };
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

    pub(super) fn late(&self, stage: Stage) -> SshError {
        self.error(stage, Trouble::Deadline)
            .detail("the time for the session was up (CONFIG_BACKUP_COMMAND_TIMEOUT)")
    }

    /// Silence in the middle of a command, longer than any menu takes.
    fn silent(&self, output: &Output) -> SshError {
        self.error(stage(output), Trouble::Deadline).detail(format!(
            "the router printed nothing for {} seconds (CONFIG_BACKUP_IDLE_TIMEOUT), after {} bytes",
            self.idle_timeout.as_secs(),
            output.len()
        ))
    }

    /// What russh reports; where that is only that its task has ended, what ended it.
    fn failed(&self, stage: Stage, error: russh::Error) -> SshError {
        let told = match &error {
            russh::Error::NoCommonAlgo { kind, theirs, .. } => {
                Some(advice::nothing_in_common(kind, theirs, self.algorithms))
            }
            russh::Error::KexInit if stage == Stage::Handshake => {
                Some(advice::BROKEN_EXCHANGE.to_owned())
            }
            _ => None,
        };
        match Trouble::from(&error) {
            Trouble::Ended => self.ended(stage),
            Trouble::Deadline | Trouble::Io(std::io::ErrorKind::TimedOut) => self.late(stage),
            // Where the socket ended, russh says no more than "early eof".
            trouble @ Trouble::Io(std::io::ErrorKind::UnexpectedEof) => self
                .error(stage, trouble)
                .detail("the connection ended without a goodbye"),
            trouble @ Trouble::Denied => self.error(stage, trouble).source(error).detail(
                "the device lets the user in, but run no command; check the policy of the user's \
                 group, which needs ssh and read, and sensitive for secrets",
            ),
            trouble @ Trouble::NoChannel => self.error(stage, trouble).source(error).detail(
                "the device let the user in, but opened no channel for a command; it may be short \
                 of memory, or have too many sessions: look at /user active and /system resource \
                 on it, and at max-sessions of /ip service",
            ),
            trouble => {
                let failed = self.error(stage, trouble).source(error);
                match told {
                    Some(told) => failed.detail(told),
                    None => failed,
                }
            }
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

    pub(super) fn no_handshake(&self, error: russh::Error, greeting: &Greeting) -> SshError {
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

    pub(super) async fn no_login(
        &self,
        reason: NoLogin,
        login: &Login,
        handle: &mut Handle<Client>,
    ) -> SshError {
        let user = &login.username;
        match reason {
            NoLogin::Refused {
                tried,
                withheld: true,
                ..
            } if tried.is_empty() => {
                self.error(Stage::Login, Trouble::NoCommonAlgorithm)
                    .detail(format!(
                        "the device takes the RSA key of user {user:?} {}",
                        advice::WITHHELD
                    ))
            }
            NoLogin::Refused { tried, offered, .. } if tried.is_empty() => {
                self.error(Stage::Login, Trouble::Refused).detail(format!(
                    "the device offers user {user:?} only {}, for which there is no credential",
                    offered.join(", ")
                ))
            }
            NoLogin::Refused {
                tried, withheld, ..
            } => {
                let refused = format!(
                    "the device refused user {user:?} by {}",
                    tried.join(" and ")
                );
                self.error(Stage::Login, Trouble::Refused)
                    .detail(if withheld {
                        format!(
                            "{refused}; it may be one that takes the RSA key {}",
                            advice::WITHHELD
                        )
                    } else {
                        refused
                    })
            }
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

pub(super) fn stage(output: &Output) -> Stage {
    if output.is_empty() {
        Stage::Command
    } else {
        Stage::Output
    }
}
