//! One SSH connection to a simulated router: the key exchange, the login, the channels.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::client::GexParams;
use russh::kex::dh::groups::DhGroup;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Response, Session,
    VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelWriteHalf, MethodKind, MethodSet, SshId};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::fault::Fault;
use super::host_key::host_key;
use super::profile::SshProfile;
use super::router::{Counted, Shared};
use super::stats::{LoginAttempt, LoginMethod};
use super::wire::{KexGate, Wire, WireControl};

/// A changed host key is as far away as nobody rotates by hand.
const FAULTY_KEY: u64 = 1 << 32;

/// Serves one accepted connection until it is over or `gone` is cancelled.
pub(super) async fn serve(
    router: Arc<Shared>,
    mut stream: TcpStream,
    counted: Counted,
    gone: CancellationToken,
) {
    let client = counted.client();
    let fault = router.take_fault();
    match fault {
        Some(Fault::AcceptAndClose) => return,
        Some(Fault::AcceptAndSayNothing) => {
            let mut ignored = [0; 1024];
            let silent = async { while matches!(stream.read(&mut ignored).await, Ok(1..)) {} };
            tokio::select! { () = gone.cancelled() => {} () = silent => {} }
            return;
        }
        _ => {}
    }
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let control = WireControl::new();
    let gate = match fault {
        Some(Fault::StallInKex) => KexGate::Shut,
        Some(Fault::SlowKex(time)) => KexGate::Slow(time),
        _ => KexGate::Open,
    };
    let wire = Wire::new(stream, Arc::clone(&control), gate, counted, gone.clone());
    let (config, group) = config(&router, fault);
    let handler = Peer {
        methods: config.methods.clone(),
        router,
        client,
        fault,
        control,
        gone: gone.clone(),
        group,
        logged_in: false,
        exports: 0,
        channels: HashMap::new(),
        unanswered: Vec::new(),
    };
    let ended = match russh::server::run_stream(Arc::new(config), wire, handler).await {
        Ok(session) => session.await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::debug!(%client, %error, "Connection to a simulated router ended");
    }
    gone.cancel();
}

fn config(router: &Shared, fault: Option<Fault>) -> (Config, DhGroup) {
    let behaviour = router.behaviour();
    let profile = match fault {
        Some(Fault::LegacyAlgorithmsOnly) => SshProfile::V6,
        _ => behaviour.profile,
    };
    let generation = match fault {
        Some(Fault::RotateHostKey) => behaviour.key_generation + FAULTY_KEY,
        _ => behaviour.key_generation,
    };
    let methods: &[MethodKind] = match fault {
        Some(Fault::KeyboardInteractiveOnly) => &[MethodKind::KeyboardInteractive],
        Some(Fault::KeyOnly) => &[MethodKind::PublicKey],
        _ => &[MethodKind::PublicKey, MethodKind::Password],
    };
    let kind = profile.host_key_kind(behaviour.host_key);
    let config = Config {
        server_id: SshId::Standard(Cow::Borrowed(profile.identification())),
        methods: methods.into(),
        auth_rejection_time: Duration::ZERO,
        keys: vec![host_key(kind, router.seed, generation)],
        preferred: profile.preferred(),
        // RouterOS takes three; the question for the list of methods counts here as well.
        max_auth_attempts: 4,
        // RouterOS opens with a window of 0: it reads nothing from an exec channel.
        window_size: 0,
        inactivity_timeout: None,
        ..Config::default()
    };
    (config, profile.group())
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cut during login, as told")]
    Cut,
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

/// The client, as the router sees it.
struct Peer {
    router: Arc<Shared>,
    client: SocketAddr,
    fault: Option<Fault>,
    control: Arc<WireControl>,
    gone: CancellationToken,
    methods: MethodSet,
    group: DhGroup,
    logged_in: bool,
    exports: u64,
    channels: HashMap<ChannelId, OpenChannel>,
    unanswered: Vec<ChannelOpenHandle>,
}

struct OpenChannel {
    writer: Option<ChannelWriteHalf<Msg>>,
    closed: CancellationToken,
}

impl Peer {
    fn decide(&self, user: &str, method: LoginMethod, right: bool) -> Result<Auth, Ended> {
        if self.fault == Some(Fault::CutDuringLogin) && method != LoginMethod::None {
            self.record(user, method, false);
            return Err(Ended::Cut);
        }
        let listed = self.methods.iter().any(|listed| {
            matches!(
                (listed, method),
                (MethodKind::Password, LoginMethod::Password)
                    | (MethodKind::PublicKey, LoginMethod::PublicKey)
                    | (
                        MethodKind::KeyboardInteractive,
                        LoginMethod::KeyboardInteractive
                    )
            )
        });
        let accepted = right && listed && self.fault != Some(Fault::WrongPassword);
        self.record(user, method, accepted);
        Ok(if accepted {
            Auth::Accept
        } else {
            self.refusal()
        })
    }

    fn record(&self, user: &str, method: LoginMethod, accepted: bool) {
        let attempt = LoginAttempt {
            client: self.client,
            user: user.to_owned(),
            method,
            accepted,
        };
        self.router
            .count(|counters| counters.login(attempt.clone()));
    }

    fn refusal(&self) -> Auth {
        Auth::Reject {
            proceed_with_methods: Some(self.methods.clone()),
            partial_success: false,
        }
    }

    fn password_is_right(&self, user: &str, password: &str) -> bool {
        let behaviour = self.router.behaviour();
        // `password-authentication=yes-if-no-key`
        behaviour.authorized_key.is_none()
            && user == behaviour.username
            && password == behaviour.password
    }

    fn key_is_right(&self, user: &str, key: &russh::keys::PublicKey) -> bool {
        let behaviour = self.router.behaviour();
        let authorized = behaviour.authorized_key.as_ref();
        user == behaviour.username
            && authorized.is_some_and(|authorized| authorized.key_data() == key.key_data())
    }
}

impl Handler for Peer {
    type Error = Ended;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Ended> {
        self.decide(user, LoginMethod::None, false)
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Ended> {
        let right = self.password_is_right(user, password);
        self.decide(user, LoginMethod::Password, right)
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Ended> {
        Ok(match self.key_is_right(user, offer.public_key) {
            true => Auth::Accept,
            false => self.refusal(),
        })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Ended> {
        let right = self.key_is_right(user, key.public_key);
        self.decide(user, LoginMethod::PublicKey, right)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Ended> {
        let Some(mut response) = response else {
            return Ok(Auth::Partial {
                name: Cow::Borrowed(""),
                instructions: Cow::Borrowed(""),
                prompts: Cow::Borrowed(&[(Cow::Borrowed("Password: "), false)]),
            });
        };
        let answer = response.next().unwrap_or_default();
        let answer = String::from_utf8_lossy(&answer);
        let right = self.password_is_right(user, &answer);
        self.decide(user, LoginMethod::KeyboardInteractive, right)
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Ended> {
        self.logged_in = true;
        self.router.count(|counters| counters.session_began());
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Ended> {
        if self.fault == Some(Fault::StallAfterAuth) {
            // Dropping it would be an answer.
            self.unanswered.push(reply);
            return Ok(());
        }
        let (_, writer) = channel.split();
        let open = OpenChannel {
            closed: self.gone.child_token(),
            writer: Some(writer),
        };
        if let Some(writer) = &open.writer {
            self.channels.insert(writer.id(), open);
        }
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Ended> {
        let open = self.channels.get_mut(&channel);
        let Some((writer, closed)) =
            open.and_then(|open| Some((open.writer.take()?, open.closed.clone())))
        else {
            return Ok(session.channel_failure(channel)?);
        };
        let answer = Answer {
            router: Arc::clone(&self.router),
            fault: self.fault,
            wire: Arc::clone(&self.control),
            client: self.client,
            channel: writer,
            kept: Vec::new(),
            buffer: Vec::new(),
            exports_before: self.exports,
            lost: false,
        };
        let line = String::from_utf8_lossy(data).into_owned();
        self.exports += u64::from(line.contains("export"));
        session.channel_success(channel)?;
        tokio::spawn(async move {
            // An error means that the client is gone, and so is the reason for an answer.
            tokio::select! { () = closed.cancelled() => {} _ = answer.run(&line) => {} }
        });
        Ok(())
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Ended> {
        Ok(session.channel_failure(channel)?)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Ended> {
        Ok(session.channel_failure(channel)?)
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Ended> {
        if let Some(open) = self.channels.remove(&channel) {
            open.closed.cancel();
        }
        Ok(())
    }

    async fn lookup_dh_gex_group(&mut self, _asked: &GexParams) -> Result<Option<DhGroup>, Ended> {
        Ok(Some(self.group.clone()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.logged_in {
            self.router.count(|counters| counters.session_ended());
        }
    }
}
