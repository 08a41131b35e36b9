//! The simulated router, seen from outside: by a russh client and by OpenSSH's `ssh`.

mod exports;
mod faults;
mod fleet;
mod logins;
mod openssh;

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mikrotik_backup::domain::host_key::Fingerprint;
use mikrotik_backup::sim::{Router, RouterOptions};
use russh::client::{self, GexParams, Handle};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelMsg, Preferred, kex, mac};
use tokio::time::timeout as within;

/// Longer than anything here takes on a busy machine.
const GENEROUS: Duration = Duration::from_secs(60);
/// How long a silence is listened to before it is believed.
const SILENCE: Duration = Duration::from_millis(300);

struct Client {
    seen: Arc<Mutex<Option<Fingerprint>>>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else {
            return Ok(false);
        };
        *self.seen.lock().expect("nobody panicked") =
            Some(Fingerprint::of_key_blob(&key.to_bytes()?));
        Ok(true)
    }
}

/// A client that takes anything, as a poller of old routers has to.
fn config() -> client::Config {
    let mut kexes = vec![kex::CURVE25519, kex::DH_G14_SHA1, kex::DH_GEX_SHA256];
    kexes.extend_from_slice(&Preferred::DEFAULT.kex);
    let mut macs = Preferred::DEFAULT.mac.to_vec();
    macs.push(mac::HMAC_SHA1);
    client::Config {
        preferred: Preferred {
            kex: Cow::Owned(kexes),
            mac: Cow::Owned(macs),
            ..Preferred::DEFAULT
        },
        gex: GexParams::new(2048, 2048, 8192).expect("a valid range"),
        window_size: 64 << 20,
        ..client::Config::default()
    }
}

async fn connect(
    router: &Router,
    config: client::Config,
) -> Result<(Handle<Client>, Fingerprint), russh::Error> {
    let seen = Arc::default();
    let client = Client {
        seen: Arc::clone(&seen),
    };
    let handle = client::connect(Arc::new(config), router.address(), client).await?;
    let fingerprint = seen.lock().expect("nobody panicked").clone();
    Ok((handle, fingerprint.expect("the key exchange showed a key")))
}

async fn log_in(router: &Router) -> Handle<Client> {
    log_in_with(router, config()).await
}

async fn log_in_with(router: &Router, config: client::Config) -> Handle<Client> {
    let (mut handle, _) = connect(router, config).await.expect("connect");
    let result = handle.authenticate_password(router.username(), router.password());
    assert!(result.await.expect("log in").success());
    handle
}

/// What came over one exec channel.
#[derive(Default, Debug)]
struct Heard {
    output: Vec<u8>,
    largest: usize,
    /// Everything but data and window adjustments, in order.
    events: Vec<String>,
    data_after_status: bool,
}

impl Heard {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.output).expect("an export is ASCII")
    }

    fn note(&mut self, message: ChannelMsg) {
        let event = match message {
            ChannelMsg::Data { data } => {
                self.largest = self.largest.max(data.len());
                self.output.extend_from_slice(&data);
                self.data_after_status |= self.events.iter().any(|e| e.starts_with("status"));
                return;
            }
            ChannelMsg::WindowAdjusted { .. } => return,
            ChannelMsg::Success => "success".to_owned(),
            ChannelMsg::ExitStatus { exit_status } => format!("status {exit_status}"),
            ChannelMsg::Close => "close".to_owned(),
            other => format!("{other:?}"),
        };
        self.events.push(event);
    }

    fn ended_like_routeros(&self) -> bool {
        self.events == ["success", "status 0", "close"]
    }
}

async fn exec(handle: &Handle<Client>, command: &str) -> Heard {
    let mut heard = Heard::default();
    let mut channel = send(handle, command).await;
    while let Ok(Some(message)) = within(GENEROUS, channel.wait()).await {
        heard.note(message);
    }
    heard
}

/// Like [`exec`] for an answer that stops without an end: what came before the silence.
async fn exec_until_silence(handle: &Handle<Client>, command: &str) -> Heard {
    let mut heard = Heard::default();
    let mut channel = send(handle, command).await;
    let first = within(GENEROUS, channel.wait()).await.expect("a reply");
    heard.note(first.expect("the channel is open"));
    while let Ok(message) = within(SILENCE, channel.wait()).await {
        heard.note(message.expect("the channel does not end"));
    }
    heard
}

async fn send(handle: &Handle<Client>, command: &str) -> Channel<client::Msg> {
    let opening = within(GENEROUS, handle.channel_open_session()).await;
    let channel = opening.expect("in time").expect("open a channel");
    channel.exec(true, command).await.expect("send the command");
    channel
}

/// Polls until `reached`, which is a state that must come.
async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = within(GENEROUS, waiting).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}

fn start(options: RouterOptions) -> Router {
    Router::start_one(options).expect("listen on a free port")
}

/// The configuration in an export: no `#` lines, and wrapped lines joined.
fn configuration(text: &str) -> Vec<String> {
    let joined = text.replace("\\\r\n    ", "");
    let lines = joined.lines().filter(|line| !line.starts_with('#'));
    lines.map(ToOwned::to_owned).collect()
}
