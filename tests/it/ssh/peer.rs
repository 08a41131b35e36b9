//! Peers that do exactly what a test tells them: raw TCP ones, and an SSH server that misbehaves
//! after the key exchange. Each lives in a thread of its own, so that the runtime under test holds
//! nothing of it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mikrotik_backup::domain::device::Endpoint;
use mikrotik_backup::domain::host_key::Fingerprint;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Response, Session, run_stream};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::sync::Notify;

/// A peer, and the thread that plays it.
pub struct Peer {
    port: u16,
    thread: JoinHandle<()>,
}

impl Peer {
    /// Accepts one connection and runs `script` on it.
    pub fn raw(script: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("bound").port();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accept");
            script(stream);
        });
        Self { port, thread }
    }

    /// Says `words`, then listens until the client closes the connection.
    pub fn saying(words: Vec<u8>) -> Self {
        Self::raw(move |mut stream| {
            stream.write_all(&words).expect("say the words");
            listen(stream);
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: "127.0.0.1".into(),
            port: self.port.into(),
        }
    }

    /// Waits for the end of the script, which for most is the end of the client's connection.
    pub fn join(self) {
        self.thread.join().expect("the peer's script");
    }

    /// [`Peer::join`] without holding up the runtime, whose tasks may have to end the connection.
    pub async fn ended(self) {
        let joined = tokio::task::spawn_blocking(|| self.join());
        joined.await.expect("the peer's script");
    }
}

/// Reads until the client closes the connection, by FIN or by RST.
pub fn listen(mut stream: TcpStream) {
    let mut sink = [0; 4096];
    while stream.read(&mut sink).is_ok_and(|count| count > 0) {}
}

/// A KEXINIT message in a packet (RFC 4253, sections 6 and 7.1) with algorithms that we offer.
pub fn kexinit() -> Vec<u8> {
    kexinit_of([
        "curve25519-sha256",
        "ssh-ed25519",
        "aes128-ctr",
        "hmac-sha2-256",
    ])
}

/// A KEXINIT message in a packet: key exchange, host key, and cipher and MAC for both directions.
pub fn kexinit_of([kex, host_key, cipher, mac]: [&str; 4]) -> Vec<u8> {
    let mut payload = vec![20];
    payload.extend([0x5a; 16]);
    for list in [
        kex, host_key, cipher, cipher, mac, mac, "none", "none", "", "",
    ] {
        payload.extend(u32::try_from(list.len()).expect("short").to_be_bytes());
        payload.extend(list.as_bytes());
    }
    payload.extend([0; 5]);
    let padding = 4 + (8 - (4 + 1 + payload.len() + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).expect("short");
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).expect("below 12"));
    packet.extend(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// What [`server`] does with a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Logins {
    /// The password is `right`.
    Password,
    /// Only keyboard-interactive, and the password is `right`.
    Interactive,
    /// Keyboard-interactive that asks for the password again and again.
    Insatiable,
    /// The first answer names no method that could go on.
    NoMethod,
    /// A refused password, and no method that could go on.
    LastRefusal,
    /// The connection ends when the password comes.
    Cut,
    /// The connection is reset when the password comes.
    Reset,
    /// No answer to the password.
    Silent,
}

/// What [`server`] does with a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commands {
    /// As RouterOS: exit status, more data, close, no EOF.
    Answered,
    /// No answer to the request for a channel.
    NoChannel,
    /// The request for a channel is denied.
    Denied,
    /// The command is refused.
    Refused,
    /// No answer to the command.
    Silent,
    /// A byte every 100 ms, without end.
    Trickle,
    /// The connection ends before any output.
    CutBefore,
    /// The connection ends in the middle of the output.
    CutAmid,
    /// The connection ends after the exit status, without a close.
    CutAfterStatus,
    /// The channel is closed without exit status.
    NoStatus,
}

/// An SSH server for one connection.
pub struct Server {
    pub peer: Peer,
    pub fingerprint: Fingerprint,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// The authentication requests that it has seen up to the end of the connection.
    pub async fn seen(self) -> Vec<String> {
        self.peer.ended().await;
        self.seen.lock().expect("not poisoned").clone()
    }
}

/// Starts a [`Server`].
pub fn server(logins: Logins, commands: Commands) -> Server {
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).expect("a host key");
    let blob = key.public_key().to_bytes().expect("its encoding");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let cut = Arc::new(Notify::new());
    let behaviour = Behaviour {
        logins,
        commands,
        seen: Arc::clone(&seen),
        cut: Arc::clone(&cut),
        held: Vec::new(),
    };
    let methods = match logins {
        Logins::Interactive | Logins::Insatiable => &[MethodKind::KeyboardInteractive][..],
        _ => &[MethodKind::Password, MethodKind::KeyboardInteractive],
    };
    let config = russh::server::Config {
        keys: vec![key],
        methods: MethodSet::from(methods),
        auth_rejection_time: Duration::ZERO,
        ..Default::default()
    };
    let peer = Peer::raw(move |stream| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            stream.set_nonblocking(true).expect("for tokio");
            let stream = tokio::net::TcpStream::from_std(stream).expect("for tokio");
            if logins == Logins::Reset {
                stream.set_zero_linger().expect("reset on close");
            }
            // An error here or there is the client's end of the connection.
            if let Ok(running) = run_stream(Arc::new(config), stream, behaviour).await {
                tokio::select! {
                    _ = running => {}
                    () = cut.notified() => {}
                }
            }
        });
        // Ends the server's tasks wherever they are, and closes the connection.
        runtime.shutdown_background();
    });
    Server {
        peer,
        fingerprint: Fingerprint::of_key_blob(&blob),
        seen,
    }
}

struct Behaviour {
    logins: Logins,
    commands: Commands,
    seen: Arc<Mutex<Vec<String>>>,
    cut: Arc<Notify>,
    held: Vec<ChannelOpenHandle>,
}

impl Behaviour {
    fn note(&self, request: String) {
        self.seen.lock().expect("not poisoned").push(request);
    }

    async fn cut<T>(&self) -> T {
        self.cut.notify_one();
        std::future::pending().await
    }
}

fn no_method() -> Auth {
    Auth::Reject {
        proceed_with_methods: Some(MethodSet::empty()),
        partial_success: false,
    }
}

impl Handler for Behaviour {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        self.note("none".into());
        Ok(match self.logins {
            Logins::NoMethod => no_method(),
            _ => Auth::reject(),
        })
    }

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, Self::Error> {
        self.note(format!("password {password}"));
        match self.logins {
            Logins::Password if password == "right" => Ok(Auth::Accept),
            Logins::LastRefusal => Ok(no_method()),
            Logins::Cut | Logins::Reset => self.cut().await,
            Logins::Silent => {
                // Longer than any client waits; while it lasts, the server hears nothing.
                tokio::time::sleep(Duration::from_secs(6)).await;
                Ok(Auth::reject())
            }
            _ => Ok(Auth::reject()),
        }
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let ask = Auth::Partial {
            name: "".into(),
            instructions: "".into(),
            prompts: vec![("Password: ".into(), false)].into(),
        };
        let Some(mut response) = response else {
            self.note("keyboard-interactive".into());
            return Ok(ask);
        };
        let answer = response.next().unwrap_or_default();
        self.note(format!("answer {}", String::from_utf8_lossy(&answer)));
        Ok(match self.logins {
            Logins::Interactive if &answer[..] == b"right" => Auth::Accept,
            Logins::Insatiable => ask,
            _ => Auth::reject(),
        })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.commands {
            Commands::NoChannel => self.held.push(reply),
            Commands::Denied => drop(reply),
            _ => reply.accept().await,
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let handle = session.handle();
        let cut = Arc::clone(&self.cut);
        match self.commands {
            Commands::Answered => {
                session.channel_success(channel)?;
                session.data(channel, "before\r\n")?;
                session.exit_status_request(channel, 0)?;
                session.data(channel, "after\r\n")?;
                session.close(channel)?;
            }
            Commands::NoStatus => {
                session.channel_success(channel)?;
                session.data(channel, "cut in a li")?;
                session.close(channel)?;
            }
            Commands::Refused => session.channel_failure(channel)?,
            Commands::CutBefore => self.cut().await,
            Commands::CutAmid | Commands::CutAfterStatus => {
                session.channel_success(channel)?;
                session.data(channel, "cut in a li")?;
                if self.commands == Commands::CutAfterStatus {
                    session.exit_status_request(channel, 0)?;
                }
                tokio::spawn(async move {
                    // The session writes what is queued once this request is handled.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    cut.notify_one();
                });
            }
            Commands::Trickle => {
                session.channel_success(channel)?;
                tokio::spawn(async move {
                    while handle.data(channel, "x").await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                });
            }
            Commands::Silent | Commands::NoChannel | Commands::Denied => {}
        }
        Ok(())
    }
}
