//! What the client offers, as it goes over the wire: every algorithm, in order.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;

use mikrotik_backup::domain::host_key::Pin;
use mikrotik_backup::domain::session::SshAlgorithms;
use mikrotik_backup::ssh::{self, Options};

use super::peer::{Peer, kexinit_of};
use super::soon;

/// What a client sends in the clear.
struct Offer {
    identification: String,
    /// The lists of KEXINIT (RFC 4253, section 7.1).
    lists: Vec<String>,
    /// Smallest, preferred and largest group asked for, in bits (RFC 4419, section 3).
    group: [u32; 3],
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// The payload of the next packet, before any key is agreed on.
fn payload(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).expect("a packet");
    let mut rest = vec![0; word(&head) as usize - 1];
    stream.read_exact(&mut rest).expect("its rest");
    rest.truncate(rest.len() - usize::from(head[4]));
    rest
}

/// Names the only algorithms that a RouterOS 7 with `strong-crypto=yes` has, and listens.
fn overhear(mut stream: TcpStream) -> Offer {
    let strong = [
        "diffie-hellman-group-exchange-sha256",
        "rsa-sha2-256",
        "aes256-ctr",
        "hmac-sha2-256",
    ];
    let said = [b"SSH-2.0-ROSSSH\r\n".to_vec(), kexinit_of(strong)].concat();
    stream.write_all(&said).expect("speak first");
    let mut identification = Vec::new();
    while identification.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an identification");
        identification.push(byte[0]);
    }
    let init = payload(&mut stream);
    assert_eq!(init[0], 20, "KEXINIT");
    let (mut lists, mut at) = (Vec::new(), 17);
    for _ in 0..10 {
        let end = at + 4 + word(&init[at..]) as usize;
        lists.push(String::from_utf8(init[at + 4..end].to_vec()).expect("ASCII"));
        at = end;
    }
    let request = payload(&mut stream);
    assert_eq!(request[0], 34, "KEX_DH_GEX_REQUEST");
    Offer {
        identification: String::from_utf8(identification).expect("ASCII"),
        lists,
        group: [1, 5, 9].map(|at| word(&request[at..])),
    }
}

async fn offer(algorithms: SshAlgorithms) -> Offer {
    let (tell, told) = mpsc::channel();
    let peer = Peer::raw(move |stream| tell.send(overhear(stream)).expect("somebody listens"));
    let options = Options {
        algorithms,
        ..Options::default()
    };
    let dialled = ssh::dial(&peer.endpoint(), &Pin::Unpinned, soon(), &options).await;
    assert!(dialled.is_err(), "the peer never answers");
    peer.ended().await;
    told.recv().expect("what was overheard")
}

/// The lists of both directions, which must not differ.
fn is_offered(offer: &Offer, [kex, host_key, cipher, mac]: [&[&str]; 4]) {
    let listed: Vec<Vec<&str>> = offer
        .lists
        .iter()
        .map(|list| list.split(',').collect())
        .collect();
    let none: &[&str] = &["none"];
    let empty: &[&str] = &[""];
    for (place, expected) in [
        kex, host_key, cipher, cipher, mac, mac, none, none, empty, empty,
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(listed[place], expected, "list {place} of KEXINIT");
    }
    assert_eq!(
        offer.group,
        [2048, 2048, 8192],
        "RouterOS has 2048 bits at most"
    );
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        offer.identification,
        format!("SSH-2.0-mikrotik_backup_{version}\r\n")
    );
}

#[tokio::test]
async fn compatible_offers_weak_algorithms_last_and_group_14_before_group_exchange() {
    let offer = offer(SshAlgorithms::Compatible).await;
    let kex = [
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group18-sha512",
        "diffie-hellman-group17-sha512",
        "diffie-hellman-group15-sha512",
        "diffie-hellman-group14-sha256",
        // The exception: old RouterOS answers any group exchange with 1024 bits.
        "diffie-hellman-group14-sha1",
        "diffie-hellman-group-exchange-sha256",
        "diffie-hellman-group-exchange-sha1",
        "diffie-hellman-group1-sha1",
        "ext-info-c",
        "kex-strict-c-v00@openssh.com",
    ];
    let host_key = [
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "rsa-sha2-512",
        "rsa-sha2-256",
        "ssh-rsa",
    ];
    let cipher = [
        "aes256-gcm@openssh.com",
        "aes128-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
        "aes256-ctr",
        "aes192-ctr",
        "aes128-ctr",
        "aes256-cbc",
        "aes192-cbc",
        "aes128-cbc",
    ];
    let mac = [
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-512",
        "hmac-sha2-256",
        "hmac-sha1-etm@openssh.com",
        "hmac-sha1",
    ];
    is_offered(&offer, [&kex, &host_key, &cipher, &mac]);
}

#[tokio::test]
async fn modern_offers_nothing_that_is_weak() {
    let offer = offer(SshAlgorithms::Modern).await;
    let kex = [
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group18-sha512",
        "diffie-hellman-group17-sha512",
        "diffie-hellman-group15-sha512",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group-exchange-sha256",
        "ext-info-c",
        "kex-strict-c-v00@openssh.com",
    ];
    let host_key = [
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "rsa-sha2-512",
        "rsa-sha2-256",
    ];
    let cipher = [
        "aes256-gcm@openssh.com",
        "aes128-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
        "aes256-ctr",
        "aes192-ctr",
        "aes128-ctr",
    ];
    let mac = [
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-512",
        "hmac-sha2-256",
    ];
    is_offered(&offer, [&kex, &host_key, &cipher, &mac]);
}
