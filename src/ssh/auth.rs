//! Logging in: which method next, and when a failure is the server's own refusal.

use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse as Interactive, Prompt};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, decode_secret_key};
use russh::{MethodKind, MethodSet};
use secrecy::ExposeSecret;

use super::handler::{Client, Ending};
use crate::credentials::Login;
use crate::domain::session::{SshAlgorithms, SshPart, WeakAlgorithm};

/// One way to prove who we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    Key,
    Password,
    /// Keyboard-interactive (RFC 4256), answered with the password.
    Interactive,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "publickey",
            Self::Password => "password",
            Self::Interactive => "keyboard-interactive",
        }
    }
}

/// What can still be tried on one connection. Each secret is sent once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Left {
    key: bool,
    password: bool,
}

impl Left {
    /// Takes the next method of those that the server offers: the key first, then the password;
    /// as an answer to a question only where it cannot be sent as a password.
    fn take(&mut self, offered: &[MethodKind]) -> Option<Method> {
        let offers = |kind| offered.contains(&kind);
        if self.key && offers(MethodKind::PublicKey) {
            self.key = false;
            Some(Method::Key)
        } else if self.password && offers(MethodKind::Password) {
            self.password = false;
            Some(Method::Password)
        } else if self.password && offers(MethodKind::KeyboardInteractive) {
            self.password = false;
            Some(Method::Interactive)
        } else {
            None
        }
    }
}

/// A login that did not succeed.
#[derive(Debug)]
pub(super) enum NoLogin {
    /// The server answered with a refusal, and nothing that it offers is left to try.
    Refused {
        /// Names of what was tried.
        tried: Vec<&'static str>,
        /// Names of what it still offers.
        offered: Vec<&'static str>,
        /// A signature with SHA-1 was left to try, but is forbidden.
        withheld: bool,
    },
    /// The connection ended. What was tried before tells whether that was an answer.
    Ended {
        /// Names of what was tried, the one that was not answered included.
        tried: Vec<&'static str>,
    },
    /// The server asks for something else than a password.
    Questions,
    /// russh gave up.
    Failed(russh::Error),
}

/// The answer to one authentication request.
enum Answer {
    Success,
    Refused(MethodSet),
    /// russh reports a lost connection as a refusal that leaves no method, and so it does with a
    /// refusal that names none.
    RefusedOrEnded,
}

impl Answer {
    fn of(result: Result<AuthResult, russh::Error>) -> Result<Self, NoLogin> {
        match result {
            Ok(AuthResult::Success) => Ok(Self::Success),
            Ok(AuthResult::Failure {
                remaining_methods, ..
            }) => Ok(Self::failure(remaining_methods)),
            Err(error) => Self::lost(error),
        }
    }

    /// russh's task can no longer be reached, or it could not do its part.
    fn lost(error: russh::Error) -> Result<Self, NoLogin> {
        match error {
            russh::Error::SendError | russh::Error::RecvError => Ok(Self::RefusedOrEnded),
            error => Err(NoLogin::Failed(error)),
        }
    }

    /// Refused, and that method may go on.
    fn allows(&self, method: MethodKind) -> bool {
        matches!(self, Self::Refused(offered) if offered.contains(&method))
    }

    fn failure(remaining: MethodSet) -> Self {
        if remaining.is_empty() {
            Self::RefusedOrEnded
        } else {
            Self::Refused(remaining)
        }
    }
}

/// Logs in. `host_key` is the negotiated host key algorithm: it tells what an old server knows.
/// Returns the algorithm of the key's signature that the server took, if it is a weak one.
pub(super) async fn log_in(
    handle: &mut Handle<Client>,
    login: &Login,
    key: Option<PrivateKey>,
    host_key: &str,
    algorithms: SshAlgorithms,
) -> Result<Option<WeakAlgorithm>, NoLogin> {
    let key = key.map(Arc::new);
    let mut left = Left {
        key: key.is_some(),
        password: login.password.is_some(),
    };
    let mut tried = Vec::new();
    let mut withheld = false;
    let mut weak = None;
    // The method "none" asks what is offered (RFC 4252, section 5.2). Without asking, the password
    // would have to be sent twice to a server that has only keyboard-interactive.
    let mut answer = Answer::of(handle.authenticate_none(&login.username).await)?;
    loop {
        let offered = match answer {
            Answer::Success => return Ok(weak),
            Answer::Refused(offered) => offered,
            Answer::RefusedOrEnded => return Err(NoLogin::Ended { tried }),
        };
        let Some(method) = left.take(&offered) else {
            let offered = offered.iter().map(Into::into).collect();
            return Err(NoLogin::Refused {
                tried,
                offered,
                withheld,
            });
        };
        weak = None;
        answer = match (method, &key, &login.password) {
            (Method::Key, Some(key), _) => {
                let listed = listed(handle, key).await?;
                let rsa = key.algorithm().is_rsa();
                let plan = plan(rsa, listed, host_key, left.password, algorithms);
                withheld = plan.withheld;
                let mut answer = Answer::Refused(offered);
                for hash in plan.hashes {
                    if !answer.allows(MethodKind::PublicKey) {
                        break;
                    }
                    if !tried.contains(&method.name()) {
                        tried.push(method.name());
                    }
                    answer = offer(handle, &login.username, key, hash).await?;
                    weak = weak_signature(rsa, hash);
                }
                answer
            }
            (Method::Password, _, Some(password)) => {
                tried.push(method.name());
                let password = password.expose_secret();
                Answer::of(
                    handle
                        .authenticate_password(&login.username, password)
                        .await,
                )?
            }
            (Method::Interactive, _, Some(password)) => {
                tried.push(method.name());
                answer_questions(handle, &login.username, password.expose_secret()).await?
            }
            // `left` was made of what is there.
            (_, None, _) | (_, _, None) => Answer::Refused(offered),
        };
    }
}

/// What a server lists of the hashes that an RSA key may sign with (RFC 8308, section 3.1).
type Listed = Option<Option<HashAlg>>;

/// The best hash that the server lists for an RSA key, if it lists any.
async fn listed(handle: &Handle<Client>, key: &PrivateKey) -> Result<Listed, NoLogin> {
    if !key.algorithm().is_rsa() {
        return Ok(None);
    }
    // That the task is gone shows with the next request, as what ended it.
    Ok(handle.best_supported_rsa_hash().await.unwrap_or_default())
}

/// How a key is offered.
#[derive(PartialEq, Eq, Debug)]
struct Plan {
    /// The hashes to sign with, one after the other while the server refuses; for RSA none is
    /// SHA-1.
    hashes: Vec<Option<HashAlg>>,
    /// SHA-1 would be among them, but is forbidden.
    withheld: bool,
}

/// How to offer the key. For RSA the server's list of signature algorithms decides; a server
/// without one is judged by its host key: RouterOS 6 knows `ssh-rsa` with SHA-1 only, and some
/// versions end the connection when offered anything else. Servers exist that list what they then
/// refuse, so SHA-1 is tried last, unless the password is still to come: RouterOS counts to three.
fn plan(
    rsa: bool,
    listed: Listed,
    host_key: &str,
    password_left: bool,
    algorithms: SshAlgorithms,
) -> Plan {
    if !rsa {
        return Plan {
            hashes: vec![None],
            withheld: false,
        };
    }
    let best = match listed {
        Some(best) => best,
        None if host_key == "ssh-rsa" => None,
        None => Some(HashAlg::Sha256),
    };
    let mut hashes: Vec<_> = best.into_iter().map(Some).collect();
    let sha1 = best.is_none() || !password_left;
    let withheld = sha1 && algorithms == SshAlgorithms::Modern;
    if sha1 && !withheld {
        hashes.push(None);
    }
    Plan { hashes, withheld }
}

fn weak_signature(rsa: bool, hash: Option<HashAlg>) -> Option<WeakAlgorithm> {
    (rsa && hash.is_none()).then(|| WeakAlgorithm {
        part: SshPart::UserKey,
        name: "ssh-rsa".to_owned(),
    })
}

async fn offer(
    handle: &mut Handle<Client>,
    user: &str,
    key: &Arc<PrivateKey>,
    hash: Option<HashAlg>,
) -> Result<Answer, NoLogin> {
    let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
    Answer::of(handle.authenticate_publickey(user, key).await)
}

async fn answer_questions(
    handle: &mut Handle<Client>,
    user: &str,
    password: &str,
) -> Result<Answer, NoLogin> {
    let mut password = Some(password);
    let mut response = handle
        .authenticate_keyboard_interactive_start(user, None)
        .await;
    loop {
        let answers = match response {
            Ok(Interactive::Success) => return Ok(Answer::Success),
            Ok(Interactive::Failure {
                remaining_methods, ..
            }) => return Ok(Answer::failure(remaining_methods)),
            Ok(Interactive::InfoRequest { prompts, .. }) => answers(&prompts, &mut password)?,
            Err(error) => return Answer::lost(error),
        };
        response = handle
            .authenticate_keyboard_interactive_respond(answers)
            .await;
    }
}

/// Answers one hidden question once, with the password. Anything more would be a guess: what is
/// typed at a prompt of RouterOS can become the account's new password.
fn answers(prompts: &[Prompt], password: &mut Option<&str>) -> Result<Vec<String>, NoLogin> {
    match prompts {
        [] => Ok(Vec::new()),
        [Prompt { echo: false, .. }] => {
            let password = password.take().ok_or(NoLogin::Questions)?;
            Ok(vec![password.to_owned()])
        }
        _ => Err(NoLogin::Questions),
    }
}

/// Whether a connection that ended during login ended with a refusal: the server named no method
/// that could go on, or said that there were too many failures, after a secret had been sent.
pub(super) fn is_refusal(ending: &Ending, tried: &[&str]) -> bool {
    /// `SSH_DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE` (RFC 4253, section 11.1).
    const NO_MORE_METHODS: u32 = 14;
    let said = match ending {
        Ending::Disconnected { code, message } => {
            *code == NO_MORE_METHODS
                || message
                    .to_ascii_lowercase()
                    .contains("too many authentication failures")
        }
        Ending::Failed(error) => matches!(error, russh::Error::NoAuthMethod),
    };
    said && !tried.is_empty()
}

/// Reads the private key of a login. Slow for an encrypted one, by design of its format.
///
/// # Errors
/// What is wrong, without a character of the key.
pub(super) fn read_key(login: &Login) -> Result<Option<PrivateKey>, &'static str> {
    let Some(text) = login.key_text() else {
        return Ok(None);
    };
    let passphrase = login.passphrase().map(ExposeSecret::expose_secret);
    let text = text.expose_secret().trim();
    decode_secret_key(text, passphrase)
        .map(Some)
        .map_err(|error| {
            let encrypted = matches!(error, russh::keys::Error::KeyIsEncrypted)
                || text.contains("ENCRYPTED PRIVATE KEY-----");
            match (encrypted, passphrase) {
                (true, None) => "private_key is encrypted, and private_key_passphrase is missing",
                (_, Some(_)) => {
                    "private_key cannot be decrypted or read; check it and private_key_passphrase"
                }
                (false, None) => {
                    "private_key cannot be read: it is damaged, or neither an OpenSSH nor a PEM key"
                }
            }
        })
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
