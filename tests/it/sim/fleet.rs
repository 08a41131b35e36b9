//! Many routers together: addresses, counts, the end.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};

use mikrotik_backup::sim::{Fleet, FleetOptions, Router, RouterOptions};
use tokio::net::TcpStream;

use super::{exec, log_in, start, until};

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
async fn two_clients_that_talk_at_once_are_told_from_one_that_is_silent() {
    let router = start(RouterOptions::default());
    router.keep_exports();
    let early = log_in(&router).await;
    exec(&early, "/export").await;
    let late = log_in(&router).await;
    exec(&late, "/export").await;
    // The first one is open, and has said nothing since the second one began.
    assert_eq!(router.stats().open_sessions, 2);
    assert_eq!(router.stats().overlapping, 0);
    exec(&early, "/export").await;
    assert_eq!(router.stats().overlapping, 1);
    exec(&late, "/export").await;
    exec(&late, "/export").await;
    assert_eq!(router.stats().overlapping, 2, "each of them once");

    until("all are kept", || router.served().len() == 5).await;
    let served = router.served();
    for (number, export) in served.iter().enumerate() {
        let note = format!("\r\nset note=\"export {number}; \"\r\n");
        assert!(export.text.contains(&note), "{}", export.text);
    }
    assert_eq!(served[0].client, served[2].client);
    assert_ne!(served[0].client, served[1].client);
}
