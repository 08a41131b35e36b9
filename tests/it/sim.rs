//! The simulated router, seen from outside: by a russh client and by OpenSSH's `ssh`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::Permissions;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mikrotik_backup::clock::Clock;
use mikrotik_backup::domain::host_key::Fingerprint;
use mikrotik_backup::sim::{
    Fault, Fleet, FleetOptions, HostKeyKind, LoginMethod, Router, RouterOptions, SECRET_MARK,
    SshProfile,
};
use russh::client::{self, AuthResult, GexParams, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, Preferred, kex, mac};
use time::macros::datetime;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::services::process::require;

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

    fn ended_like_routeros(&self) -> bool {
        self.events == ["success", "status 0", "close"]
    }
}

async fn exec(handle: &Handle<Client>, command: &str) -> Heard {
    let mut heard = Heard::default();
    let listening = listen(handle, command, &mut heard);
    tokio::time::timeout(GENEROUS, listening)
        .await
        .expect("the channel ends");
    heard
}

/// Like [`exec`] for an answer that never ends: what came until there was a silence.
async fn exec_until_silence(handle: &Handle<Client>, command: &str) -> Heard {
    let mut heard = Heard::default();
    let listening = listen(handle, command, &mut heard);
    let ended = tokio::time::timeout(SILENCE, listening).await;
    assert!(ended.is_err(), "the channel ended: {heard:?}");
    heard
}

async fn listen(handle: &Handle<Client>, command: &str, heard: &mut Heard) {
    let mut channel = handle.channel_open_session().await.expect("open a channel");
    channel.exec(true, command).await.expect("send the command");
    while let Some(message) = channel.wait().await {
        let event = match message {
            ChannelMsg::Data { data } => {
                heard.largest = heard.largest.max(data.len());
                heard.output.extend_from_slice(&data);
                heard.data_after_status |= heard.events.iter().any(|e| e.starts_with("status"));
                continue;
            }
            ChannelMsg::WindowAdjusted { .. } => continue,
            ChannelMsg::Success => "success".to_owned(),
            ChannelMsg::ExitStatus { exit_status } => format!("status {exit_status}"),
            ChannelMsg::Close => "close".to_owned(),
            other => format!("{other:?}"),
        };
        heard.events.push(event);
    }
}

/// Polls until `reached`, which is a state that must come.
async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(GENEROUS, waiting).await;
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

#[tokio::test]
async fn an_exec_ends_with_status_then_close_and_small_messages() {
    let router = start(RouterOptions {
        size_bytes: 200_000,
        clock: Clock::following_tokio(datetime!(2026-03-04 05:06:07 UTC)),
        ..RouterOptions::default()
    });
    let client = log_in(&router).await;
    let heard = exec(&client, "/export show-sensitive").await;
    assert!(heard.ended_like_routeros(), "{:?}", heard.events);
    assert_eq!(heard.largest, 4095);
    assert!(!heard.data_after_status);
    let text = heard.text();
    assert!(text.starts_with("# 2026-03-04 05:06:0"), "{}", &text[..80]);
    let first = text.lines().next().expect("a header");
    assert!(first.ends_with(" by RouterOS 7.16.2"), "{first}");
    assert!(text.len().abs_diff(200_000) < 1_000, "{}", text.len());
    assert!(text.ends_with("\r\n") && text.matches('\n').count() == text.matches("\r\n").count());
    assert!(text.contains("SSID: office, CAPsMAN forwarding\r\n"));
    let widest = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::len);
    assert_eq!(widest.max(), Some(79));
}

#[tokio::test]
async fn version_7_hides_secrets_unless_asked() {
    let router = start(RouterOptions::default());
    let client = log_in(&router).await;
    let shown = exec(&client, "/export show-sensitive").await;
    let hidden = exec(&client, "/export").await;
    assert!(shown.text().contains(SECRET_MARK));
    assert!(!hidden.text().contains(SECRET_MARK));
    assert!(
        hidden
            .text()
            .contains("/ppp secret\r\nadd name=customer1 profile=")
    );
}

#[tokio::test]
async fn version_6_refuses_the_word_and_shows_secrets_without_it() {
    let router = start(RouterOptions {
        version: "6.49.18".to_owned(),
        profile: SshProfile::V6,
        clock: Clock::following_tokio(datetime!(2026-03-04 05:06:07 UTC)),
        ..RouterOptions::default()
    });
    let client = log_in(&router).await;
    let refused = exec(&client, "/export show-sensitive").await;
    assert_eq!(
        refused.text(),
        "expected end of command (line 1 column 9)\r\n"
    );
    assert!(refused.ended_like_routeros(), "{:?}", refused.events);
    let plain = exec(&client, "/export").await;
    assert!(plain.text().starts_with("# mar/04/2026 05:06:"));
    assert!(plain.text().contains(SECRET_MARK));
    let resource = exec(&client, "/system resource print").await;
    assert!(resource.text().contains("version: 6.49.18 (stable)\r\n"));
    let wrong = exec(&client, "/exprot").await;
    assert_eq!(
        wrong.text(),
        "bad command name exprot (line 1 column 2)\r\n"
    );
    assert_eq!(router.stats().exports_whole, 1);
}

#[tokio::test]
async fn an_unchanged_router_differs_only_in_comments_and_an_edit_shows() {
    let router = start(RouterOptions {
        size_bytes: 40_000,
        ..RouterOptions::default()
    });
    let client = log_in(&router).await;
    let first = exec(&client, "/export").await;
    let second = exec(&client, "/export").await;
    assert_ne!(first.text(), second.text(), "comments about state flap");
    assert_eq!(configuration(first.text()), configuration(second.text()));

    router.change(|configuration| configuration.add_firewall_rule("let \"them\" in"));
    let edited = configuration(exec(&client, "/export").await.text());
    let before: HashSet<_> = configuration(first.text()).into_iter().collect();
    let added: Vec<_> = edited
        .iter()
        .filter(|line| !before.contains(*line))
        .collect();
    assert_eq!(
        added,
        [r#"add action=accept chain=forward comment="let \"them\" in""#]
    );

    router.upgrade("7.20");
    let upgraded = exec(&client, "/export").await;
    let header = upgraded.text().lines().next().expect("a header");
    assert!(header.ends_with("by RouterOS 7.20"), "{header}");
    assert_eq!(configuration(upgraded.text()), edited);
}

#[tokio::test]
async fn a_fixture_is_exported_with_a_fresh_date() {
    let fixture =
        "# jan/01/2020 00:00:00 by RouterOS 6.47.10\n#\n/ip dns\nset servers=\\\n    192.0.2.53\n";
    let router = start(RouterOptions {
        fixture: Some(fixture.to_owned()),
        clock: Clock::following_tokio(datetime!(2026-03-04 05:06:07 UTC)),
        ..RouterOptions::default()
    });
    let client = log_in(&router).await;
    let refused = exec(&client, "/export show-sensitive").await;
    assert!(refused.text().starts_with("expected end of command"));
    let heard = exec(&client, "/export").await;
    let (header, rest) = heard.text().split_once("\r\n").expect("lines");
    assert!(header.starts_with("# mar/04/2026 05:06:"), "{header}");
    assert!(header.ends_with(" by RouterOS 6.47.10"), "{header}");
    assert_eq!(rest, "#\r\n/ip dns\r\nset servers=\\\r\n    192.0.2.53\r\n");
}

#[tokio::test]
async fn the_tail_is_lost_when_the_window_is_used_up() {
    let router = start(RouterOptions {
        size_bytes: 400_000,
        ..RouterOptions::default()
    });
    router.set_fault(Fault::LoseTailFar);
    let narrow = || client::Config {
        window_size: 128 << 10,
        channel_buffer_size: 1,
        ..config()
    };
    let client = log_in_with(&router, narrow()).await;
    let heard = exec(&client, "/export").await;
    assert_eq!(heard.output.len(), 128 << 10);
    assert!(heard.ended_like_routeros(), "{:?}", heard.events);
    let wide = exec(&log_in(&router).await, "/export").await;
    assert!(wide.output.len() > 399_000, "{}", wide.output.len());

    // A client that does not read sends no adjustment either.
    router.set_fault(Fault::LoseTail);
    let client = log_in_with(&router, narrow()).await;
    let mut channel = client.channel_open_session().await.expect("open a channel");
    let sent = router.stats().bytes;
    channel
        .exec(true, "/export")
        .await
        .expect("send the command");
    until("the window is used up", || {
        router.stats().bytes == sent + (128 << 10)
    })
    .await;
    let mut length = 0;
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::Data { data } = message {
            length += data.len();
        }
    }
    assert_eq!(length, 128 << 10);
    assert_eq!(router.stats().exports_whole, 1, "only the wide one");
}

#[tokio::test]
async fn each_output_fault_is_what_its_name_says() {
    let router = start(RouterOptions {
        size_bytes: 40_000,
        ..RouterOptions::default()
    });
    let whole = exec(&log_in(&router).await, "/export").await;
    for (fault, expected) in [
        (Fault::ErrorText, Some("std failure: timeout (13)\r\n")),
        (
            Fault::PermissionDenied,
            Some("not enough permissions (9)\r\n"),
        ),
        (Fault::EmptyOutput, Some("")),
        (Fault::BannerOnly, None),
        (Fault::Html, None),
        (Fault::Noise(10_001), None),
        (Fault::Cut, None),
        (Fault::CutMidLine, None),
        (Fault::Interrupted, None),
        (Fault::MenuTimeout, None),
        (Fault::SecretsWithheld, None),
        (Fault::Size(100_000), None),
        (Fault::DataAfterExitStatus, None),
    ] {
        router.set_fault_for(fault, 1);
        let heard = exec(&log_in(&router).await, "/export show-sensitive").await;
        assert!(heard.ended_like_routeros(), "{fault}: {:?}", heard.events);
        assert_eq!(
            heard.data_after_status,
            fault == Fault::DataAfterExitStatus,
            "{fault}"
        );
        if let Some(expected) = expected {
            assert_eq!(heard.text(), expected, "{fault}");
            continue;
        }
        let text = String::from_utf8_lossy(&heard.output);
        let header = text.starts_with("# 20");
        let about_half = text.len() > 15_000 && text.len() < 38_500;
        let good = match fault {
            Fault::BannerOnly => text.contains("MikroTik RouterOS") && !header,
            Fault::Html => text.starts_with("<!DOCTYPE html>"),
            Fault::Noise(bytes) => heard.output.len() as u64 == bytes,
            Fault::Cut => header && about_half && text.ends_with("\r\n"),
            Fault::CutMidLine => header && about_half && !text.ends_with('\n'),
            Fault::Interrupted => text.ends_with("#error exporting /ip socks\r\n#interrupted\r\n"),
            Fault::MenuTimeout => {
                text.contains("\r\n#error exporting \"/ipv6/route\" (timeout)\r\n")
            }
            Fault::SecretsWithheld => configuration(&text) == configuration(whole.text()),
            Fault::Size(bytes) => (text.len() as u64).abs_diff(bytes) < 1_000,
            Fault::DataAfterExitStatus => text.ends_with("\r\n") && text.contains(SECRET_MARK),
            _ => unreachable!("{fault} is not in the table"),
        };
        assert!(good, "{fault}: {} bytes, {:.60}", text.len(), text);
    }
    let healthy = exec(&log_in(&router).await, "/export").await;
    assert_eq!(configuration(healthy.text()), configuration(whole.text()));
}

#[tokio::test]
async fn faulty_endings_of_a_channel() {
    let router = start(RouterOptions::default());
    router.set_fault(Fault::CloseWithoutExitStatus);
    let heard = exec(&log_in(&router).await, "/export").await;
    assert_eq!(heard.events, ["success", "close"]);

    router.set_fault(Fault::ExitStatus(3));
    let heard = exec(&log_in(&router).await, "/export").await;
    assert_eq!(heard.events, ["success", "status 3", "close"]);

    let whole = heard.output.len();
    router.set_fault(Fault::DropConnectionMidOutput);
    let client = log_in(&router).await;
    let heard = exec(&client, "/export").await;
    assert_eq!(heard.events, ["success"]);
    let part = heard.output.len();
    assert!(
        part > whole / 8 && part < whole * 3 / 4,
        "{part} of {whole}"
    );
    until("the client notices", || client.is_closed()).await;
}

#[tokio::test]
async fn stalls_last_until_the_client_goes() {
    let router = start(RouterOptions {
        size_bytes: 40_000,
        ..RouterOptions::default()
    });
    router.set_fault(Fault::StallBeforeOutput);
    let mut client = log_in(&router).await;
    let heard = exec_until_silence(&client, "/export").await;
    assert_eq!(
        (heard.output.len(), heard.events),
        (0, vec!["success".into()])
    );

    router.set_fault(Fault::StallMidOutput);
    client = log_in(&router).await;
    let heard = exec_until_silence(&client, "/export").await;
    assert!((19_000..21_500).contains(&heard.output.len()));

    router.set_fault(Fault::SlowDrip(Duration::from_millis(20)));
    client = log_in(&router).await;
    let heard = exec_until_silence(&client, "/export").await;
    assert_eq!(heard.largest, 1);
    assert!(heard.output.len() <= 15, "{}", heard.output.len());

    router.set_fault(Fault::StallAfterAuth);
    client = log_in(&router).await;
    let opening = tokio::time::timeout(SILENCE, client.channel_open_session());
    assert!(opening.await.is_err(), "no channel is confirmed");
    drop(client);

    for fault in [Fault::StallInKex, Fault::AcceptAndSayNothing] {
        router.set_fault(fault);
        let mut stream = TcpStream::connect(router.address())
            .await
            .expect("accepted");
        let mut greeting = Vec::new();
        let reading = stream.read_to_end(&mut greeting);
        assert!(tokio::time::timeout(SILENCE, reading).await.is_err());
        let identified = greeting.starts_with(b"SSH-2.0-");
        assert_eq!(identified, fault == Fault::StallInKex);
        drop(stream);
    }
    router.set_fault(Fault::StallInKex);
    let stalled = tokio::time::timeout(SILENCE, connect(&router, config())).await;
    assert!(stalled.is_err(), "the key exchange goes no further");

    // The client of the last line is one that russh cannot take back: its task still lives.
    until("their sockets are closed", || {
        router.stats().open_connections <= 1
    })
    .await;
    assert_eq!(router.stats().open_sessions, 0);
    assert_eq!(router.stats().exports_whole, 0);
}

#[tokio::test]
async fn faults_before_the_login() {
    let router = start(RouterOptions::default());
    router.set_fault(Fault::Refuse);
    let refused = TcpStream::connect(router.address()).await;
    assert_eq!(
        refused.expect_err("refused").kind(),
        ErrorKind::ConnectionRefused
    );
    router.clear_fault();
    log_in(&router).await;

    router.set_fault(Fault::AcceptAndClose);
    let mut stream = TcpStream::connect(router.address())
        .await
        .expect("accepted");
    assert_eq!(stream.read(&mut [0; 8]).await.expect("a clean end"), 0);

    let delay = Duration::from_millis(400);
    router.set_fault(Fault::SlowKex(delay));
    let begun = tokio::time::Instant::now();
    log_in(&router).await;
    assert!(begun.elapsed() >= delay);

    let ours = router.fingerprint();
    router.set_fault_for(Fault::RotateHostKey, 1);
    let (_, other) = connect(&router, config()).await.expect("connect");
    let (_, again) = connect(&router, config()).await.expect("connect");
    assert!(other != ours && again == ours, "{other} {again} {ours}");
    let rotated = router.rotate_host_key();
    let (_, seen) = connect(&router, config()).await.expect("connect");
    assert!(seen == rotated && seen != ours, "{seen}");

    router.set_fault(Fault::LegacyAlgorithmsOnly);
    let modern = connect(&router, client::Config::default()).await;
    assert!(
        modern.is_err(),
        "a client with defaults has no MAC in common"
    );
    log_in(&router).await;
}

#[tokio::test]
async fn logins_are_judged_and_counted() {
    let router = start(RouterOptions::default());
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let wrong = client.authenticate_password("backup", "wrong").await;
    let Ok(AuthResult::Failure {
        remaining_methods, ..
    }) = wrong
    else {
        panic!("{wrong:?}")
    };
    assert_eq!(remaining_methods.len(), 2, "{remaining_methods:?}");
    let right = client.authenticate_password("backup", router.password());
    assert!(right.await.expect("an answer").success());
    let logins = router.logins();
    assert_eq!(logins.len(), 2);
    assert!(!logins[0].accepted && logins[1].accepted);
    assert_eq!(logins[0].method, LoginMethod::Password);
    assert_eq!(router.clients(), [logins[0].client]);
    assert_eq!(router.stats().password_attempts, 2);
    assert_eq!(router.stats().open_sessions, 1);

    router.set_password("another");
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let old = client.authenticate_password("backup", "simulated-password");
    assert!(!old.await.expect("an answer").success());

    router.set_fault(Fault::CutDuringLogin);
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let cut = client.authenticate_password("backup", "another").await;
    assert!(!cut.is_ok_and(|result| result.success()));
    until("the client notices", || client.is_closed()).await;

    router.set_fault(Fault::WrongPassword);
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let refused = client.authenticate_password("backup", "another").await;
    assert!(!refused.expect("an answer").success());

    router.set_fault(Fault::KeyboardInteractiveOnly);
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let password = client.authenticate_password("backup", "another").await;
    assert!(!password.expect("an answer").success());
    let prompt = client.authenticate_keyboard_interactive_start("backup", None);
    let prompt = prompt.await.expect("a prompt");
    assert!(
        matches!(&prompt, KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } if prompts.len() == 1),
        "{prompt:?}"
    );
    let answer = client.authenticate_keyboard_interactive_respond(vec!["another".into()]);
    let answer = answer.await.expect("an answer");
    assert!(matches!(answer, KeyboardInteractiveAuthResponse::Success));
    assert_eq!(router.stats().password_attempts, 7);
}

#[tokio::test]
async fn an_imported_key_logs_in_and_turns_the_password_off() {
    let key = user_key();
    let router = start(RouterOptions {
        authorized_key: Some(key.public_key().clone()),
        ..RouterOptions::default()
    });
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let password = client.authenticate_password("backup", router.password());
    assert!(!password.await.expect("an answer").success());
    let with_key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
    let result = client.authenticate_publickey("backup", with_key.clone());
    assert!(result.await.expect("an answer").success());

    router.set_authorized_key(None);
    router.set_fault(Fault::KeyOnly);
    let (mut client, _) = connect(&router, config()).await.expect("connect");
    let unknown = client.authenticate_publickey("backup", with_key);
    assert!(!unknown.await.expect("an answer").success());
    let password = client.authenticate_password("backup", router.password());
    assert!(!password.await.expect("an answer").success());
}

#[tokio::test]
async fn each_profile_is_reached_by_a_client_that_knows_its_algorithms() {
    for (profile, kind) in [
        (SshProfile::V6, HostKeyKind::Ed25519),
        (SshProfile::V6Strong, HostKeyKind::Ed25519),
        (SshProfile::V7, HostKeyKind::Rsa),
        (SshProfile::V7Strong, HostKeyKind::Ed25519),
        (SshProfile::Modern, HostKeyKind::Rsa),
    ] {
        let router = start(RouterOptions {
            profile,
            host_key: kind,
            ..RouterOptions::default()
        });
        let (_, seen) = connect(&router, config()).await.expect("connect");
        assert_eq!(seen, router.fingerprint(), "{profile:?}");
        let heard = exec(&log_in(&router).await, "/system identity print").await;
        assert_eq!(heard.text(), "  name: sim-0001\r\n", "{profile:?}");
    }
}

#[tokio::test]
async fn old_group_exchange_is_too_small_for_a_modern_client() {
    let router = start(RouterOptions {
        profile: SshProfile::V6,
        ..RouterOptions::default()
    });
    let only = |name| client::Config {
        preferred: Preferred {
            kex: Cow::Owned(vec![name]),
            ..config().preferred
        },
        ..config()
    };
    assert!(connect(&router, only(kex::DH_GEX_SHA256)).await.is_err());
    assert!(connect(&router, only(kex::DH_G14_SHA1)).await.is_ok());
}

#[tokio::test]
async fn a_fleet_counts_what_happens_to_all_of_it() {
    let options = FleetOptions {
        routers: 300,
        base_address: Ipv4Addr::new(127, 8, 0, 1),
        versions: vec!["7.16.2".into(), "6.49.18".into()],
        ..FleetOptions::default()
    };
    let fleet = Fleet::start(options.clone()).await.expect("start a fleet");
    let routers = fleet.routers();
    let addresses: HashSet<_> = routers.iter().map(|router| router.address().ip()).collect();
    assert_eq!(addresses.len(), 300);
    let prints: HashSet<_> = routers.iter().map(|router| router.fingerprint()).collect();
    assert_eq!(prints.len(), 300);

    let mut clients = Vec::new();
    for router in &routers[..4] {
        clients.push(log_in(router).await);
    }
    for client in &clients {
        assert!(exec(client, "/export").await.ended_like_routeros());
    }
    assert_eq!(fleet.stats().open_connections, 4);
    assert_eq!(fleet.clients().len(), 4);
    clients.clear();
    until("all are closed", || fleet.stats().open_connections == 0).await;

    // One after the other is one at a time, however late the end of a connection is read.
    for router in routers.iter().cycle().take(40) {
        let stream = TcpStream::connect(router.address()).await.expect("connect");
        drop(stream);
    }
    let stats = fleet.stats();
    assert_eq!(stats.max_open_connections, 4);
    assert_eq!((stats.exports_begun, stats.exports_whole), (4, 4));
    assert_eq!(routers[0].stats().exports_whole, 1);
    assert_eq!(routers[0].stats().max_open_connections, 1);
    until("all have been accepted", || fleet.stats().connections == 44).await;

    let before: Vec<_> = routers.iter().map(Router::fingerprint).collect();
    let old: SocketAddr = routers[0].address();
    let client = log_in(&routers[1]).await;
    drop(fleet);
    until("the client is cut off", || client.is_closed()).await;
    until("the listener is closed", || {
        std::net::TcpStream::connect(old).is_err()
    })
    .await;
    let again = Fleet::start(options).await.expect("start it again");
    let after: Vec<_> = again.routers().iter().map(Router::fingerprint).collect();
    assert_eq!(before, after, "the same seed keeps the host keys");
}

#[tokio::test]
async fn a_hundred_megabytes_are_streamed() {
    let router = start(RouterOptions::default());
    router.set_fault(Fault::Size(100 << 20));
    let wide = client::Config {
        window_size: 128 << 20,
        ..config()
    };
    let client = log_in_with(&router, wide).await;
    let mut channel = client.channel_open_session().await.expect("open a channel");
    channel
        .exec(true, "/export")
        .await
        .expect("send the command");
    let (mut length, mut status) = (0, None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => length += data.len(),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    assert!(length.abs_diff(100 << 20) < 1_000, "{length}");
    assert_eq!(status, Some(0));
    assert_eq!(router.stats().bytes, length as u64);
}

#[tokio::test]
async fn openssh_reads_whole_exports_with_every_profile() {
    let (Some(ssh), Some(keygen)) = (require("ssh"), require("ssh-keygen")) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("id");
    let made = std::process::Command::new(keygen)
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&path)
        .output()
        .expect("run ssh-keygen");
    assert!(made.status.success(), "{made:?}");
    let public = std::fs::read_to_string(path.with_extension("pub")).expect("the public key");
    let key = russh::keys::PublicKey::from_openssh(&public).expect("a public key");
    for (profile, options) in [
        (SshProfile::Modern, &[][..]),
        (
            SshProfile::V6,
            &[
                "KexAlgorithms=diffie-hellman-group14-sha1",
                "HostKeyAlgorithms=ssh-rsa",
            ],
        ),
        (SshProfile::V6Strong, &["HostKeyAlgorithms=ssh-rsa"]),
        (
            SshProfile::V7,
            &["KexAlgorithms=diffie-hellman-group-exchange-sha256"],
        ),
        (SshProfile::V7Strong, &[]),
    ] {
        let router = start(RouterOptions {
            profile,
            size_bytes: 300_000,
            authorized_key: Some(key.clone()),
            ..RouterOptions::default()
        });
        let mut command = ssh_command(&ssh, &router);
        command.arg("-i").arg(&path).args(["-o", "BatchMode=yes"]);
        for option in options {
            command.args(["-o", option]);
        }
        let output = run(command.arg("/export show-sensitive")).await;
        assert!(output.status.success(), "{profile:?}: {output:?}");
        assert!(output.stdout.starts_with(b"# 20"), "{profile:?}");
        assert!(output.stdout.len() > 299_000, "{profile:?}");
        assert_eq!(router.stats().password_attempts, 0);
        assert_eq!(router.stats().exports_whole, 1);
    }
}

#[tokio::test]
async fn openssh_logs_in_with_a_password_and_sees_the_exit_status() {
    let Some(ssh) = require("ssh") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let askpass = directory.path().join("askpass");
    let mut script = std::fs::File::create(&askpass).expect("create a script");
    script
        .write_all(b"#!/bin/sh\necho simulated-password\n")
        .and_then(|()| script.set_permissions(Permissions::from_mode(0o700)))
        .expect("write a script");
    drop(script);
    let router = start(RouterOptions::default());
    router.set_fault(Fault::ExitStatus(7));
    let mut command = ssh_command(&ssh, &router);
    command
        .env("SSH_ASKPASS", &askpass)
        .env("SSH_ASKPASS_REQUIRE", "force");
    let output = run(command.arg("/export")).await;
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(output.stdout.ends_with(b"\r\n"));
    assert_eq!(router.stats().password_attempts, 1);

    router.set_fault(Fault::KeyboardInteractiveOnly);
    let output = run(command.arg("show-sensitive")).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(router.stats().password_attempts, 2);
}

fn ssh_command(ssh: &std::path::Path, router: &Router) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(ssh);
    command
        .args([
            "-F",
            "/dev/null",
            "-p",
            &router.address().port().to_string(),
        ])
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=ERROR"])
        .args(["-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes"])
        .args([
            "-o",
            "MACs=+hmac-sha1",
            "-o",
            "PubkeyAcceptedAlgorithms=ssh-ed25519",
        ])
        .args(["-l", &router.username(), &router.address().ip().to_string()]);
    command
}

async fn run(command: &mut tokio::process::Command) -> Output {
    let running = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(GENEROUS, running).await;
    output.expect("ssh ends").expect("run ssh")
}

/// A key for these tests, the same every time.
fn user_key() -> PrivateKey {
    use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
    let pair = Ed25519Keypair::from_seed(&[7; 32]);
    PrivateKey::new(KeypairData::Ed25519(pair), "test").expect("a key without passphrase")
}
