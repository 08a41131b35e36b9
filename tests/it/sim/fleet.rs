//! Many routers together: addresses, counts, the end.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};

use mikrotik_backup::sim::{Fleet, FleetOptions, Router};
use tokio::net::TcpStream;

use super::{exec, log_in, until};

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
