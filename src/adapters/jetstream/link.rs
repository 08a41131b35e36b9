//! The connection to NATS: made lazily, kept by the client, watched by us.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use url::Url;

/// A server that stops answering is noticed after about three of these.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How long [`Link::close`] waits for the last bytes to leave.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// `NATS_URL` cannot be used. The text does not repeat it: it may hold a password.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidUrl {
    /// It is no URL of a NATS server.
    #[error(
        "NATS_URL is not a list of nats://[user:password@]host:4222 (tls://… for TLS) separated by \
         commas: {reason}"
    )]
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// Its servers are given different credentials, and the client knows one for all.
    #[error(
        "NATS_URL gives its servers different credentials; give them all the same, or only one any"
    )]
    SeveralCredentials,
}

/// What the event callback has seen.
#[derive(Clone, Default, Debug)]
struct Seen {
    /// How often a connection was made.
    connects: u64,
    /// How often one was lost.
    losses: u64,
    /// Closed for good, by us.
    closed: bool,
    /// It was logged that the server is away.
    away: bool,
    /// What the server, or the last try to reach it, said.
    complaint: Option<String>,
}

/// The connection, and what is known about it.
pub(super) struct Link {
    client: Client,
    seen: watch::Receiver<Seen>,
}

/// Not connected, or not any more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Away {
    #[error("not connected to NATS{}", because(.0))]
    NotConnected(Option<String>),
    #[error("the connection to NATS was lost while waiting for the acknowledgement")]
    Lost,
}

fn because(complaint: &Option<String>) -> String {
    complaint
        .as_ref()
        .map(|complaint| format!(" ({complaint})"))
        .unwrap_or_default()
}

impl Link {
    /// Begins to connect and returns at once; the client goes on trying for ever.
    pub(super) async fn connect(
        url: &SecretString,
        name: &str,
        request_timeout: Duration,
    ) -> Result<Self, InvalidUrl> {
        let (servers, login) = read_url(url)?;
        let (sender, seen) = watch::channel(Seen::default());
        let sender = Arc::new(sender);
        let mut options = ConnectOptions::new()
            .name(name)
            .retry_on_initial_connect()
            .ping_interval(PING_INTERVAL)
            .request_timeout(Some(request_timeout))
            .event_callback(move |event| {
                note(&sender, &event);
                std::future::ready(())
            });
        // The client knows nothing of credentials in a URL.
        options = match login {
            None => options,
            Some(Login::Token(token)) => options.token(token.expose_secret().to_owned()),
            Some(Login::User(user, password)) => {
                options.user_and_password(user, password.expose_secret().to_owned())
            }
        };
        let client = options.connect(servers).await;
        let client = client.map_err(|error| InvalidUrl::Unreadable {
            reason: error.kind().to_string(),
        })?;
        Ok(Self { client, seen })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// How often a connection was made: another number means another connection.
    pub(super) fn connects(&self) -> u64 {
        self.seen.borrow().connects
    }

    /// Resolves once a connection was made after the `number`th one, with the number of the newest;
    /// never when this one was closed for good.
    pub(super) async fn newer_than(&self, number: u64) -> u64 {
        let mut seen = self.seen.clone();
        if seen.wait_for(|seen| seen.connects > number).await.is_err() {
            std::future::pending::<()>().await;
        }
        seen.borrow().connects
    }

    /// What the server said last, for a message.
    pub(super) fn complaint(&self) -> Option<String> {
        self.seen.borrow().complaint.clone()
    }

    /// Fails unless there is a connection now.
    pub(super) fn require(&self) -> Result<(), Away> {
        if self.client.connection_state() == State::Connected {
            Ok(())
        } else {
            Err(Away::NotConnected(self.complaint()))
        }
    }

    /// Runs `request` while the connection lasts. Without one it is not even polled: the client
    /// would keep what it is given and send it after the reconnect, long after the caller was
    /// told that it failed.
    ///
    /// Between the look and the client's own notice of a loss there is a moment in which it
    /// still happens. The message then arrives late, under the id that makes it recognisable.
    pub(super) async fn while_connected<T>(
        &self,
        request: impl Future<Output = T>,
    ) -> Result<T, Away> {
        let mut seen = self.seen.clone();
        let losses = seen.borrow_and_update().losses;
        self.require()?;
        tokio::select! {
            biased;
            answer = request => Ok(answer),
            _ = seen.wait_for(|seen| seen.losses != losses || seen.closed) => Err(Away::Lost),
        }
    }

    /// Sends what is on its way and closes the connection.
    pub(super) async fn close(&self) {
        if self.require().is_err() || self.client.drain().await.is_err() {
            return;
        }
        let mut seen = self.seen.clone();
        let closed = seen.wait_for(|seen| seen.closed);
        let _ = tokio::time::timeout(CLOSE_PATIENCE, closed).await;
    }
}

/// Takes in an event; logs once when the server goes and once when it is back.
fn note(sender: &watch::Sender<Seen>, event: &Event) {
    sender.send_modify(|seen| match event {
        Event::Connected => {
            seen.connects += 1;
            seen.complaint = None;
            if std::mem::take(&mut seen.away) {
                tracing::info!("NATS is back");
            }
        }
        Event::Disconnected => {
            seen.losses += 1;
            if !std::mem::replace(&mut seen.away, true) {
                tracing::warn!(
                    "NATS is away: nothing is published or received until it is back, snapshots \
                     wait in the outbox; trying to reconnect"
                );
            }
        }
        Event::ClientError(error) => {
            let error = error.to_string();
            if !std::mem::replace(&mut seen.away, true) {
                tracing::warn!(%error, "NATS cannot be reached; trying again until it can");
            }
            seen.complaint = Some(error);
        }
        Event::ServerError(error) => {
            let error = as_asked(&error.to_string());
            // Nothing else tells of a subscription that is refused: nothing ever comes then.
            if error.to_ascii_lowercase().contains("permissions violation") {
                tracing::warn!(
                    %error,
                    "NATS refuses what the user of NATS_URL wants; the rights that it needs are in \
                     deploy/README.md"
                );
            } else {
                tracing::debug!(%error, "NATS complains");
            }
            seen.complaint = Some(error);
        }
        Event::Closed => seen.closed = true,
        Event::LameDuckMode | Event::Draining | Event::SlowConsumer(_) => {}
    });
}

/// The tokens of subjects that are written in capitals, where a subject begins with `$` or `_`.
const CAPITALS: &[&str] = &[
    "$JS",
    "$O",
    "_INBOX",
    "ACK",
    "API",
    "CONFIG_SNAPSHOTS",
    "CONSUMER",
    "CREATE",
    "DURABLE",
    "GET",
    "INFO",
    "MSG",
    "NAMES",
    "NEXT",
    "OBJ_CONFIG_SNAPSHOTS",
    "PURGE",
    "STREAM",
];

/// What the server complained of, with the subject in quotes as it must be granted: the client makes
/// small letters of the whole text, and a right is about capitals, too.
fn as_asked(error: &str) -> String {
    let mut parts = error.splitn(3, '"');
    let (Some(before), Some(subject), Some(after)) = (parts.next(), parts.next(), parts.next())
    else {
        return error.to_owned();
    };
    if !subject.starts_with(['$', '_']) {
        return error.to_owned();
    }
    let token = |token: &str| {
        let capitals = token.to_ascii_uppercase();
        match CAPITALS.contains(&capitals.as_str()) {
            true => capitals,
            false => token.to_owned(),
        }
    };
    let subject: Vec<_> = subject.split('.').map(token).collect();
    format!("{before}\"{}\"{after}", subject.join("."))
}

enum Login {
    User(String, SecretString),
    Token(SecretString),
}

/// The servers without credentials, so that they can be logged, and the credentials.
fn read_url(url: &SecretString) -> Result<(Vec<ServerAddr>, Option<Login>), InvalidUrl> {
    let unreadable = |reason: String| InvalidUrl::Unreadable { reason };
    let mut servers = Vec::new();
    let mut logins: Vec<(String, Option<String>)> = Vec::new();
    for part in url.expose_secret().split(',').map(str::trim) {
        let with_scheme = if part.contains("://") {
            part.to_owned()
        } else {
            format!("nats://{part}")
        };
        let mut url: Url = with_scheme
            .parse()
            .map_err(|error: url::ParseError| unreadable(error.to_string()))?;
        if !matches!(url.scheme(), "nats" | "tls") {
            return Err(unreadable("the scheme must be nats or tls".to_owned()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(unreadable("a host is missing".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let login = (url.username().to_owned(), url.password().map(str::to_owned));
            if !logins.contains(&login) {
                logins.push(login);
            }
        }
        // Fails only for URLs that cannot have credentials, and then there are none to remove.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        servers.push(ServerAddr::from_url(url).map_err(|error| unreadable(error.to_string()))?);
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let login = match logins.as_slice() {
        [] => None,
        [(token, None)] => Some(Login::Token(decode(token).into())),
        [(user, Some(password))] => Some(Login::User(decode(user), decode(password).into())),
        _ => return Err(InvalidUrl::SeveralCredentials),
    };
    Ok((servers, login))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<(Vec<String>, String), InvalidUrl> {
        let (servers, login) = read_url(&SecretString::from(url))?;
        let servers = servers.iter().map(|server| server.as_url_str().to_owned());
        let login = match login {
            None => "none".to_owned(),
            Some(Login::Token(token)) => format!("token {}", token.expose_secret()),
            Some(Login::User(user, password)) => {
                format!("user {user} password {}", password.expose_secret())
            }
        };
        Ok((servers.collect(), login))
    }

    #[test]
    fn a_missing_right_is_named_as_it_must_be_granted() {
        for (subject, asked) in [
            ("$js.api.stream.names", "$JS.API.STREAM.NAMES"),
            (
                "$js.api.stream.info.platform",
                "$JS.API.STREAM.INFO.platform",
            ),
            ("config.snapshot.create.0190", "config.snapshot.create.0190"),
        ] {
            let said = |subject| format!("permissions violation for publish to \"{subject}\"");
            assert_eq!(as_asked(&said(subject)), said(asked));
        }
        for other in ["maximum payload violation", "an odd \" quote", ""] {
            assert_eq!(as_asked(other), other);
        }
    }

    #[test]
    fn credentials_are_taken_out_of_the_url() {
        for (url, servers, login) in [
            (
                "nats://192.0.2.1:4222",
                vec!["nats://192.0.2.1:4222"],
                "none",
            ),
            ("192.0.2.1", vec!["nats://192.0.2.1"], "none"),
            (
                "tls://To%2Bken@[2001:db8::1]:4223",
                vec!["tls://[2001:db8::1]:4223"],
                "token To+ken",
            ),
            (
                "nats://me:p%40ss@a.example:1, nats://b.example:2",
                vec!["nats://a.example:1", "nats://b.example:2"],
                "user me password p@ss",
            ),
        ] {
            let (found, found_login) = read(url).expect(url);
            assert_eq!(
                (found, found_login.as_str()),
                (servers.into_iter().map(str::to_owned).collect(), login)
            );
        }
    }

    #[test]
    fn an_unusable_url_is_refused_without_repeating_it() {
        for url in [
            "",
            "http://me:Marker-1@192.0.2.1",
            "nats://me:Marker-1@192.0.2.1:99999",
            "nats://me:Marker-1@",
            "nats://me:Marker-1@a.example,nats://me:Marker-2@b.example",
        ] {
            let error = read(url).expect_err(url);
            assert!(!format!("{error} {error:?}").contains("Marker"), "{error}");
        }
    }

    #[test]
    fn a_loss_and_its_end_are_counted() {
        let (sender, seen) = watch::channel(Seen::default());
        for event in [Event::Connected, Event::Disconnected, Event::Disconnected] {
            note(&sender, &event);
        }
        let now = seen.borrow().clone();
        assert_eq!((now.connects, now.losses, now.away), (1, 2, true));
        note(&sender, &Event::Connected);
        assert!(!seen.borrow().away);
    }
}
