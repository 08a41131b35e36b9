//! Peers that stall, trickle or talk nonsense: each ends at the deadline at the latest, and nothing
//! of it is left, neither socket nor task.

use std::io::Write as _;
use std::time::Duration;

use mikrotik_backup::credentials::Login;
use mikrotik_backup::domain::failure::{FailureKind, chain};
use mikrotik_backup::domain::host_key::Pin;
use mikrotik_backup::ssh::{self, Host, Options, Session, SshError};
use secrecy::SecretString;
use tokio::time::{Instant, timeout};

use super::dial;
use super::peer::{Commands, Logins, Peer, kexinit, listen, server};

/// The deadline of a stalled handshake.
const SHORT: Duration = Duration::from_secs(2);

/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(5);

/// Sockets of this process that are connected to a loopback port: the peers of other tests, and the
/// peer's own end of this connection, are not among them.
fn sockets_to(port: u16) -> usize {
    let remote = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("the table of sockets");
    let inodes: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|columns| columns.get(2) == Some(&remote.as_str()))
        .filter_map(|columns| Some(format!("socket:[{}]", columns.get(9)?)))
        .collect();
    std::fs::read_dir("/proc/self/fd")
        .expect("our open files")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| {
            inodes
                .iter()
                .any(|inode| target.as_os_str() == inode.as_str())
        })
        .count()
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// Waits until neither a socket to `port` nor a task is left.
async fn nothing_left(port: u16) {
    let start = Instant::now();
    while sockets_to(port) + tasks() > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{} sockets and {} tasks are left",
            sockets_to(port),
            tasks()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a test in a runtime of its own, whose tasks can be counted.
fn alone<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime");
    runtime.block_on(test)
}

/// Runs `test` for every item at once, each in a thread of its own.
fn each<T: Send>(items: Vec<T>, test: impl Fn(T) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        for item in items {
            scope.spawn(move || test(item));
        }
    });
}

fn login() -> Login {
    Login {
        username: "backup".into(),
        password: Some(SecretString::from("right")),
        private_key: None,
        private_key_passphrase: None,
    }
}

async fn dial_until(peer: &Peer, deadline: Instant) -> Result<Host, SshError> {
    ssh::dial(
        &peer.endpoint(),
        &Pin::Unpinned,
        deadline,
        &Options::default(),
    )
    .await
}

/// Peers that stop somewhere before the end of the key exchange.
fn stalling_peers() -> Vec<(&'static str, Peer)> {
    let version = b"SSH-2.0-ROSSSH\r\n".to_vec();
    let mut in_kex = version.clone();
    in_kex.extend(kexinit());
    let half = in_kex[..in_kex.len() / 2].to_vec();
    let trickle = Peer::raw(|mut stream| {
        for byte in std::iter::repeat_n(b"S", 600) {
            if stream.write_all(byte).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut trickled_kex = version.clone();
    trickled_kex.extend([0, 0, 0x80, 0]);
    let trickle_in_kex = Peer::raw(move |mut stream| {
        stream.write_all(&trickled_kex).expect("say the version");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    vec![
        ("says nothing", Peer::saying(Vec::new())),
        ("says its version", Peer::saying(version)),
        ("says half a KEXINIT", Peer::saying(half)),
        ("says a KEXINIT", Peer::saying(in_kex)),
        ("trickles a greeting", trickle),
        ("trickles a packet", trickle_in_kex),
    ]
}

#[test]
fn a_stalled_handshake_ends_at_the_deadline_and_leaves_nothing() {
    each(stalling_peers(), |(what, peer)| {
        alone(async {
            let deadline = Instant::now() + SHORT;
            let watch = async {
                tokio::time::sleep(SHORT / 4).await;
                sockets_to(peer.port())
            };
            let (result, sockets) = tokio::join!(dial_until(&peer, deadline), watch);
            assert_eq!(sockets, 1, "{what}: the count must see the socket");
            let error = result.expect_err(what);
            assert_eq!(
                error.kind(),
                FailureKind::Timeout,
                "{what}: {}",
                chain(&error)
            );
            assert!(Instant::now() >= deadline, "{what}: not before its time");
            assert!(
                deadline.elapsed() < SLACK,
                "{what}: {:?}",
                deadline.elapsed()
            );
            nothing_left(peer.port()).await;
        });
        peer.join();
    });
}

#[test]
fn a_dropped_dial_leaves_nothing() {
    each(stalling_peers(), |(what, peer)| {
        alone(async {
            let far = Instant::now() + Duration::from_secs(600);
            let dial = timeout(Duration::from_millis(300), dial_until(&peer, far));
            assert!(dial.await.is_err(), "{what}: still waiting");
            nothing_left(peer.port()).await;
        });
        peer.join();
    });
}

async fn session(peer: &Peer, deadline: Instant) -> Session {
    let host = dial_until(peer, deadline).await.expect("dial");
    host.authenticate(&login()).await.expect("login")
}

#[test]
fn a_stall_after_the_key_exchange_ends_at_the_deadline_and_leaves_nothing() {
    use FailureKind as K;
    let stalls = vec![
        (Logins::Silent, Commands::Answered, K::Timeout),
        (Logins::Password, Commands::NoChannel, K::Timeout),
        (Logins::Password, Commands::Silent, K::Timeout),
        (Logins::Password, Commands::Trickle, K::TruncatedOutput),
    ];
    each(stalls, |(logins, commands, kind)| {
        let server = server(logins, commands);
        alone(async {
            // Time enough for a busy machine to get to the stall.
            let deadline = Instant::now() + 2 * SHORT;
            let host = dial_until(&server.peer, deadline).await.expect("dial");
            assert_eq!(sockets_to(server.peer.port()), 1);
            assert!(tasks() > 0, "the count must see russh's task");
            let (session, error) = match host.authenticate(&login()).await {
                Err(error) => (None, error),
                Ok(mut session) => {
                    let error = session.run("/export").await.expect_err("no end");
                    (Some(session), error)
                }
            };
            assert_eq!(error.kind(), kind, "{commands:?}: {}", chain(&error));
            assert!(
                Instant::now() >= deadline,
                "{commands:?}: not before its time"
            );
            assert!(deadline.elapsed() < SLACK, "{commands:?}");
            // Even before the session is dropped.
            nothing_left(server.peer.port()).await;
            assert_eq!(session.is_some(), logins == Logins::Password);
        });
        server.peer.join();
    });
}

#[test]
fn a_dropped_connection_leaves_nothing_at_any_stage() {
    let far = || Instant::now() + Duration::from_secs(600);
    let a_moment = Duration::from_millis(300);

    let dropped_host = server(Logins::Password, Commands::Answered);
    alone(async {
        let host = dial_until(&dropped_host.peer, far()).await.expect("dial");
        drop(host);
        nothing_left(dropped_host.peer.port()).await;
    });
    dropped_host.peer.join();

    let dropped_login = server(Logins::Silent, Commands::Answered);
    alone(async {
        let host = dial_until(&dropped_login.peer, far()).await.expect("dial");
        let login = login();
        let login = timeout(a_moment, host.authenticate(&login)).await;
        assert!(login.is_err(), "still waiting");
        nothing_left(dropped_login.peer.port()).await;
    });
    dropped_login.peer.join();

    for commands in [Commands::Silent, Commands::Trickle, Commands::NoChannel] {
        let dropped_run = server(Logins::Password, commands);
        alone(async {
            let mut session = session(&dropped_run.peer, far()).await;
            assert!(timeout(a_moment, session.run("/export")).await.is_err());
            drop(session);
            nothing_left(dropped_run.peer.port()).await;
        });
        dropped_run.peer.join();
    }

    let closed = server(Logins::Password, Commands::Answered);
    alone(async {
        let mut session = session(&closed.peer, far()).await;
        session.run("/export").await.expect("answered");
        session.close().await;
        nothing_left(closed.peer.port()).await;
    });
    closed.peer.join();
}

#[tokio::test]
async fn strangers_are_named_by_what_they_say() {
    let http = Peer::raw(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    });
    let long = Peer::saying(vec![b'x'; 4096]);
    let mut noise = b"SSH-2.0-noise\r\n".to_vec();
    noise.extend([0xff; 4096]);
    for (peer, word) in [
        (http, "HTTP/1.1 400 Bad Request"),
        (long, "xxxx"),
        (Peer::saying(noise), ""),
    ] {
        let error = dial(&peer.endpoint(), &Pin::Unpinned).await;
        let error = error.expect_err("no SSH server");
        assert_eq!(error.kind(), FailureKind::Protocol, "{}", chain(&error));
        assert!(chain(&error).contains(word), "{}", chain(&error));
        peer.ended().await;
    }
    // A mail server waits for us to speak; it is known by its greeting all the same.
    let mail = Peer::saying(b"220 mail.example.net ESMTP\r\n".to_vec());
    let error = dial_until(&mail, Instant::now() + SHORT).await;
    let error = error.expect_err("no SSH server");
    assert_eq!(error.kind(), FailureKind::Protocol, "{}", chain(&error));
    assert!(error.to_string().contains("ESMTP"), "{error}");
    mail.ended().await;
}

#[tokio::test]
async fn connections_closed_during_the_handshake_are_lost() {
    let at_once = Peer::raw(drop);
    let error = dial(&at_once.endpoint(), &Pin::Unpinned).await;
    let error = error.expect_err("closed");
    assert_eq!(
        error.kind(),
        FailureKind::ConnectionLost,
        "{}",
        chain(&error)
    );
    assert!(error.to_string().contains("without a word"), "{error}");
    at_once.ended().await;

    let after_version = Peer::raw(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-ROSSSH\r\n");
    });
    let error = dial(&after_version.endpoint(), &Pin::Unpinned).await;
    let error = error.expect_err("closed");
    assert_eq!(
        error.kind(),
        FailureKind::ConnectionLost,
        "{}",
        chain(&error)
    );
    after_version.ended().await;

    // SSH_MSG_DISCONNECT with reason 12 and its words (RFC 4253, section 11.1).
    let mut said = b"SSH-2.0-ROSSSH\r\n".to_vec();
    let mut payload = vec![1, 0, 0, 0, 12, 0, 0, 0, 8];
    payload.extend(b"too many");
    payload.extend([0; 4]);
    let padding = 4 + (8 - (4 + 1 + payload.len() + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).expect("short");
    said.extend(length.to_be_bytes());
    said.push(u8::try_from(padding).expect("below 12"));
    said.extend(payload);
    said.resize(said.len() + padding, 0);
    let busy = Peer::raw(move |mut stream| {
        stream.write_all(&said).expect("say goodbye");
        listen(stream);
    });
    let error = dial(&busy.endpoint(), &Pin::Unpinned).await;
    let error = error.expect_err("disconnected");
    assert_eq!(
        error.kind(),
        FailureKind::ConnectionLost,
        "{}",
        chain(&error)
    );
    assert!(error.to_string().contains("too many"), "{error}");
    busy.ended().await;
}
