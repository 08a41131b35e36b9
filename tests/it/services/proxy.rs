//! A TCP proxy between a replica and a server: a network that can be cut, frozen and given back.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::redis::free_port;

/// What the network does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Network {
    /// Passes everything.
    Open,
    /// Resets what is connected and refuses what wants to connect.
    Cut,
    /// Passes nothing and closes nothing: packets that are lost until they are sent again.
    Frozen,
    /// Passes so many bytes a second on each connection, in each direction.
    Slow(u32),
}

/// A proxy on a loopback port of its own; it ends when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Forwards to `upstream`, a port of 127.0.0.1.
    pub async fn start(upstream: u16) -> Self {
        let (listener, address) = loop {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            if let Ok(listener) = TcpListener::bind(address).await {
                break (listener, address);
            }
        };
        let (network, seen) = watch::channel(Network::Open);
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, upstream));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, address, upstream, seen));
        Self {
            address,
            network,
            _tasks: tasks,
        }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Resets every connection, and refuses new ones until [`Self::give_back`].
    pub fn cut(&self) {
        self.network.send_replace(Network::Cut);
    }

    /// Accepts connections and bytes, and holds them until [`Self::give_back`].
    pub fn freeze(&self) {
        self.network.send_replace(Network::Frozen);
    }

    /// Passes so many bytes a second on each connection, in each direction.
    pub fn slow_down(&self, bytes: u32) {
        self.network.send_replace(Network::Slow(bytes));
    }

    /// Passes everything again, what was held first.
    pub fn give_back(&self) {
        self.network.send_replace(Network::Open);
    }
}

/// Listens whenever the network is not cut, and forwards each connection.
async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    upstream: SocketAddr,
    mut network: watch::Receiver<Network>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let is_cut = *network.borrow_and_update() == Network::Cut;
        match (&listener, is_cut) {
            // What waits to be accepted is reset with it.
            (Some(_), true) => listener = None,
            (None, false) => match TcpListener::bind(address).await {
                Ok(opened) => listener = Some(opened),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            (Some(listening), false) => tokio::select! {
                Ok((client, _)) = listening.accept() => {
                    connections.spawn(forward(client, upstream, network.clone()));
                }
                changed = network.changed() => if changed.is_err() { return },
                Some(_) = connections.join_next() => {}
            },
            (None, true) => {
                if network.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// One connection, until it is closed from both sides, broken or cut.
async fn forward(client: TcpStream, upstream: SocketAddr, network: watch::Receiver<Network>) {
    let opened = open(&mut network.clone()).await;
    let server = match opened {
        Some(()) => TcpStream::connect(upstream).await,
        None => Err(std::io::ErrorKind::ConnectionAborted.into()),
    };
    let Ok(mut server) = server else {
        return reset(client);
    };
    let mut client = client;
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::try_join!(
            pump(from_client, to_server, network.clone()),
            pump(from_server, to_client, network),
        )
    };
    if ended.is_err() {
        reset(client);
        reset(server);
    }
}

/// Why a direction ended before its end.
struct Broken;

/// Passes one direction on to its end.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut network: watch::Receiver<Network>,
) -> Result<(), Broken> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            _ = network.wait_for(|network| *network == Network::Cut) => return Err(Broken),
            read = from.read(&mut buffer) => read.map_err(|_| Broken)?,
        };
        // What was read before the network froze is held, too.
        open(&mut network).await.ok_or(Broken)?;
        let now = *network.borrow();
        if let Network::Slow(bytes) = now {
            let travel = Duration::from_secs(read as u64) / bytes;
            tokio::time::sleep(travel).await;
        }
        let written = match read {
            0 => to.shutdown().await,
            read => to.write_all(&buffer[..read]).await,
        };
        written.map_err(|_| Broken)?;
        if read == 0 {
            return Ok(());
        }
    }
}

/// Waits until the network passes something; `None` when it is cut.
async fn open(network: &mut watch::Receiver<Network>) -> Option<()> {
    let network = network
        .wait_for(|network| *network != Network::Frozen)
        .await;
    network
        .is_ok_and(|network| *network != Network::Cut)
        .then_some(())
}

fn reset(stream: TcpStream) {
    // Without it the kernel would say goodbye, which a network that is cut does not.
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_millis(200);

    async fn echo() -> (u16, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                served.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (port, tasks)
    }

    async fn say(stream: &mut TcpStream, word: &[u8; 4]) {
        stream.write_all(word).await.expect("send");
    }

    async fn hear(stream: &mut TcpStream) -> std::io::Result<[u8; 4]> {
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.map(|_| word)
    }

    #[tokio::test]
    async fn what_is_frozen_is_held_and_what_is_cut_is_reset() {
        let (port, _server) = echo().await;
        let proxy = Proxy::start(port).await;
        let connect = || TcpStream::connect(("127.0.0.1", proxy.port()));
        let mut first = connect().await.expect("connect");
        say(&mut first, b"open").await;
        assert_eq!(&hear(&mut first).await.expect("an echo"), b"open");

        proxy.freeze();
        say(&mut first, b"held").await;
        let mut second = connect().await.expect("it still accepts");
        say(&mut second, b"also").await;
        let silent = tokio::time::timeout(SILENCE, hear(&mut first)).await;
        assert!(silent.is_err(), "{silent:?}");
        let silent = tokio::time::timeout(SILENCE, hear(&mut second)).await;
        assert!(silent.is_err(), "{silent:?}");
        proxy.give_back();
        assert_eq!(&hear(&mut first).await.expect("an echo"), b"held");
        assert_eq!(&hear(&mut second).await.expect("an echo"), b"also");

        proxy.cut();
        let cut = hear(&mut first).await.expect_err("reset");
        assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset);
        let refused = connect().await.map(drop).expect_err("refused");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        proxy.give_back();
        let mut third = loop {
            match connect().await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        say(&mut third, b"back").await;
        assert_eq!(&hear(&mut third).await.expect("an echo"), b"back");
    }
}
