//! From an endpoint to a TCP connection: look up the name, try one address of each family.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::Options;
use super::error::{SshError, Stage, Trouble};
use crate::domain::device::{Endpoint, Target};
use crate::domain::failure::FailureKind;

/// A TCP connection, and how long it took to get there.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) stream: TcpStream,
    pub(super) resolve: Duration,
    pub(super) connect: Duration,
}

/// Connects to the first address that answers. Cancel safe.
///
/// One address of each family is tried: a router's firewall counts connections for IPv4 and for IPv6
/// apart, so that one attempt counts once, however many addresses the name has.
pub(super) async fn tcp(
    endpoint: &Endpoint,
    deadline: Instant,
    options: &Options,
) -> Result<Connected, SshError> {
    let began = Instant::now();
    let target = endpoint.target().map_err(|error| {
        SshError::new(Stage::Connect, endpoint, Trouble::BadEndpoint).source(error)
    })?;
    let mut worst_to_best: Option<SshError> = None;
    let addresses = addresses(&target, deadline, options).await?;
    let resolve = began.elapsed();
    for address in one_of_each_family(addresses, rand::random::<u32>() as usize) {
        match one(address, deadline, options).await {
            Ok(stream) => {
                let connect = began.elapsed() - resolve;
                return Ok(Connected {
                    stream,
                    resolve,
                    connect,
                });
            }
            Err(error) => {
                let better = worst_to_best
                    .as_ref()
                    .is_none_or(|known| reach(error.kind()) > reach(known.kind()));
                if better {
                    worst_to_best = Some(error);
                }
            }
        }
    }
    Err(worst_to_best.unwrap_or_else(|| no_address(&target)))
}

/// The first family of `addresses` first. Which of a family's it is depends on `turn`: where some of
/// them do not answer, another attempt may meet one that does.
fn one_of_each_family(addresses: Vec<SocketAddr>, turn: usize) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let pick = |family: Vec<SocketAddr>| family.get(turn % family.len().max(1)).copied();
    [pick(first), pick(other)].into_iter().flatten().collect()
}

/// How near to the device an error came from: of several addresses' errors the nearest tells most.
fn reach(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::ConnectionRefused | FailureKind::ConnectionLost => 3,
        FailureKind::Timeout => 2,
        FailureKind::Unreachable => 1,
        _ => 0,
    }
}

fn no_address(target: &Target) -> SshError {
    SshError::new(Stage::Resolve, target, Trouble::NoAddress)
        .detail("the name has no address; correct ip_address or the DNS")
}

async fn addresses(
    target: &Target,
    deadline: Instant,
    options: &Options,
) -> Result<Vec<SocketAddr>, SshError> {
    if let Ok(ip) = target.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    let until = deadline.min(Instant::now() + options.connect_timeout);
    match timeout_at(until, lookup_host((target.host.as_str(), target.port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(no_address(target).source(error)),
        Err(_) => Err(SshError::new(Stage::Resolve, target, Trouble::NoAddress)
            .detail("the name server did not answer in time; correct ip_address or the DNS")),
    }
}

async fn one(
    address: SocketAddr,
    deadline: Instant,
    options: &Options,
) -> Result<TcpStream, SshError> {
    let until = deadline.min(Instant::now() + options.connect_timeout);
    let failed = |error: io::Error| {
        SshError::new(Stage::Connect, address, Trouble::Io(error.kind())).source(error)
    };
    match timeout_at(until, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Every message of the protocol is answered before the next one.
            stream.set_nodelay(true).map_err(failed)?;
            Ok(stream)
        }
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(SshError::new(Stage::Connect, address, Trouble::Deadline)
            .detail("no answer to the TCP connect; is the device on, and no firewall between?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn dial(host: &str, port: i32) -> Result<TcpStream, SshError> {
        let endpoint = Endpoint {
            host: host.into(),
            port,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let connected = tcp(&endpoint, deadline, &Options::default()).await?;
        Ok(connected.stream)
    }

    /// A loopback port that nobody listens on.
    fn closed_port() -> i32 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.local_addr().expect("bound").port().into()
    }

    #[tokio::test]
    async fn what_cannot_be_dialled_is_named() {
        for (host, port, kind) in [
            ("", 22, FailureKind::InvalidEndpoint),
            ("127.0.0.1", 0, FailureKind::InvalidEndpoint),
            ("127.0.0.1", 65_536, FailureKind::InvalidEndpoint),
            ("127.0.0.1", closed_port(), FailureKind::ConnectionRefused),
            ("localhost", closed_port(), FailureKind::ConnectionRefused),
            // No label of a name is that long (RFC 1035, section 2.3.4): no server is asked.
            (&"x".repeat(64), 22, FailureKind::NameNotResolved),
        ] {
            let error = dial(host, port).await.expect_err(host);
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn one_attempt_dials_each_family_once() {
        let all = |texts: &[&str]| -> Vec<SocketAddr> {
            texts
                .iter()
                .map(|text| text.parse().expect("an address"))
                .collect()
        };
        let found = all(&[
            "[2001:db8::1]:22",
            "192.0.2.1:22",
            "192.0.2.2:22",
            "[2001:db8::2]:22",
        ]);
        let dialled = |turn| one_of_each_family(found.clone(), turn);
        assert_eq!(dialled(0), all(&["[2001:db8::1]:22", "192.0.2.1:22"]));
        assert_eq!(dialled(3), all(&["[2001:db8::2]:22", "192.0.2.2:22"]));
        assert_eq!(
            one_of_each_family(all(&["192.0.2.1:22"]), 7),
            all(&["192.0.2.1:22"])
        );
        assert_eq!(one_of_each_family(Vec::new(), 7), []);
    }

    #[tokio::test]
    async fn both_families_of_a_name_are_tried() {
        // Only IPv4 listens, but localhost may be ::1 as well.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("bound").port();
        let stream = dial("localhost", port.into()).await.expect("IPv4 listens");
        assert_eq!(stream.peer_addr().expect("connected").port(), port);
        assert!(stream.nodelay().expect("a socket option"));
    }

    #[tokio::test]
    async fn a_connect_without_an_answer_is_a_timeout() {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket
            .bind((std::net::Ipv4Addr::LOCALHOST, 0).into())
            .expect("bind");
        // Linux answers to one connection more than the backlog, and then no more.
        let listener = socket.listen(0).expect("listen");
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: listener.local_addr().expect("bound").port().into(),
        };
        let options = Options {
            connect_timeout: Duration::from_millis(300),
            ..Options::default()
        };
        let far = Instant::now() + Duration::from_secs(600);
        let mut connected = Vec::new();
        let error = loop {
            match tcp(&endpoint, far, &options).await {
                Ok(stream) => connected.push(stream),
                Err(error) => break error,
            }
            assert!(connected.len() < 100, "the backlog never fills");
        };
        assert_eq!(error.kind(), FailureKind::Timeout, "{error}");
    }

    #[tokio::test]
    async fn a_passed_deadline_is_a_timeout() {
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: 22,
        };
        let error = tcp(&endpoint, Instant::now(), &Options::default()).await;
        let kind = error.expect_err("no time left").kind();
        // A loopback connect may be refused within its first poll.
        assert!(
            matches!(kind, FailureKind::Timeout | FailureKind::ConnectionRefused),
            "{kind}"
        );
    }
}
