//! Pins of host keys: made by the first backup, cleared, set, and beyond reading.

use super::{
    Cluster, ERRORS, HINTED, STILL, blocked, logged, next_state, pin, router, succeeded, two_more,
    until, update,
};

const SKIPPED_HOST_KEY: &str = r#"mikrotik_config_backup_total{status="skipped_hostkey_blocked"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_pin_binds_and_clearing_it_trusts_the_next_key() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("edge-pin", [127, 60, 0, 1]);
    let first_key = router.fingerprint().to_string();
    let device = cluster.insert(&router).await;
    let replica = cluster.replica("pins", HINTED).await;

    let first = succeeded(&cluster, device).await;
    let (pinned, seen_ago, _) = pin(&cluster, device).await;
    assert_eq!(pinned.as_deref(), Some(first_key.as_str()));
    let seen_ago = seen_ago.expect("first seen is kept");

    // A second backup in the same process verifies the pin, and says when.
    next_state(&cluster, device, &first, "success").await;
    until("the pin to be verified again", || async {
        let (_, seen, verified) = pin(&cluster, device).await;
        let (seen, verified) = (seen?, verified?);
        (seen > seen_ago && seen - verified > 1.0).then_some(())
    })
    .await;

    let new_key = router.rotate_host_key().to_string();
    assert_ne!(new_key, first_key);
    let state = blocked(&cluster, device, "host_key_mismatch").await;
    assert_eq!(state.offered.as_deref(), Some(new_key.as_str()));
    let error = state.error.expect("a text");
    assert!(
        error.contains(&first_key) && error.contains(&new_key),
        "{error}"
    );

    // Time alone lifts nothing: it is counted, and said with the statement that would.
    let before = router.stats();
    two_more(&replica, SKIPPED_HOST_KEY).await;
    let after = router.stats();
    assert_eq!(after.connections, before.connections);
    assert_eq!(after.login_attempts, before.login_attempts);
    let skipped = logged(&replica, "Skipped edge-pin").await;
    let remedy = skipped["message"].as_str().expect("a message");
    let statement =
        format!("UPDATE devices SET ssh_host_key_fingerprint = NULL WHERE id = '{device}'");
    assert!(remedy.contains(&statement), "{remedy}");

    update(&cluster, device, "ssh_host_key_fingerprint = NULL").await;
    let state = succeeded(&cluster, device).await;
    assert!(!state.blocked && state.failures == 0, "{state:?}");
    assert_eq!(pin(&cluster, device).await.0, Some(new_key.clone()));

    // The new pin binds as the first did.
    router.rotate_host_key();
    blocked(&cluster, device, "host_key_mismatch").await;
    assert_eq!(pin(&cluster, device).await.0, Some(new_key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_is_set_is_trusted_and_one_that_does_not_parse_never_matches() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let router = router("edge-set", [127, 60, 0, 2]);
    let device = cluster.insert(&router).await;
    update(&cluster, device, "ssh_host_key_fingerprint = 'aa:bb:cc'").await;
    let replica = cluster.replica("set-pin", STILL).await;

    let state = blocked(&cluster, device, "host_key_mismatch").await;
    let error = state.error.expect("a text");
    assert!(
        error.contains(r#""aa:bb:cc" is not of the form SHA256:"#),
        "{error}"
    );
    assert_eq!(router.stats().login_attempts, 0, "no credential was sent");
    assert_eq!(pin(&cluster, device).await.0.as_deref(), Some("aa:bb:cc"));

    // A pin of another key is answered at once, and still is none of this router's.
    let other = router.fingerprint().to_string();
    let offered = router.rotate_host_key().to_string();
    update(
        &cluster,
        device,
        &format!("ssh_host_key_fingerprint = '{other}'"),
    )
    .await;
    let state = cluster
        .state_when(device, "the other pin to be tried", |state| {
            state.blocked && state.offered.as_deref() == Some(offered.as_str())
        })
        .await;
    let error = state.error.expect("a text");
    assert!(
        error.contains(&format!("pinned host key is {other}")),
        "{error}"
    );
    assert_eq!(router.stats().login_attempts, 0, "no credential was sent");

    update(
        &cluster,
        device,
        &format!("ssh_host_key_fingerprint = '{offered}'"),
    )
    .await;
    succeeded(&cluster, device).await;
    let (pinned, first_seen, last_verified) = pin(&cluster, device).await;
    assert_eq!(pinned, Some(offered));
    assert!(first_seen.is_some() && last_verified.is_some());
    assert_eq!(replica.metric(ERRORS).await, 2.0);
}
