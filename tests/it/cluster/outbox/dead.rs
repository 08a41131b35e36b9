//! What is lost or refused for good: it is said, and tried again or put back.

use async_nats::jetstream::stream;
use nix::sys::signal::Signal;
use serde_json::json;
use uuid::Uuid;

use super::{ONCE, drained, exactly_once_in_order, fleet, letters, queued, shows};
use crate::cluster::harness::Cluster;
use crate::cluster::poll::until;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_flushed_redis_has_lost_fails_and_is_backed_up_again_at_once() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(&cluster, 77, 2).await;
    cluster.nats.stop();
    let replica = cluster.replica("flushed", &ONCE).await;
    queued(&cluster, 2).await;
    let mut client = cluster.redis.client().await;
    redis::cmd("FLUSHALL")
        .exec_async(&mut client)
        .await
        .expect("flush Redis");
    until("the losses to be found and made good", || async {
        let lost = cluster.attempts("error_kind = 'snapshot_lost'").await;
        (lost == 2 && cluster.attempts("status = 'queued'").await == 2).then_some(())
    })
    .await;
    assert_eq!(letters(&cluster).await, 2);
    cluster.nats.start().await;
    drained(&cluster).await;
    for (router, device) in &fleet {
        let state = cluster.state(*device).await.expect("a state");
        assert_eq!((state.status.as_str(), state.failures), ("success", 0));
        assert_eq!(router.stats().exports_begun, 2, "once for each loss");
    }
    let lost = "mikrotik_config_backup_failures_total{kind=\"snapshot_lost\"}";
    shows(&replica, lost, 2.0).await;
    exactly_once_in_order(&cluster).await;
}

/// A sealed stream takes nothing, and says so of each message.
async fn sealed(cluster: &Cluster) {
    let jetstream = cluster.nats.jetstream().await;
    let config = stream::Config {
        name: "CONFIG_SNAPSHOTS".to_owned(),
        subjects: vec!["config.snapshot.>".to_owned()],
        ..stream::Config::default()
    };
    let created = jetstream.create_stream(config.clone()).await;
    created.expect("a stream");
    let sealed = stream::Config {
        sealed: true,
        ..config
    };
    jetstream.update_stream(sealed).await.expect("seal it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_again_and_again_is_a_dead_letter_until_it_is_put_back() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(&cluster, 78, 2).await;
    sealed(&cluster).await;
    cluster.nats.stop();
    let overrides = [ONCE[0], ONCE[1], ("OUTBOX_MAX_ATTEMPTS", "2")];
    let mut replica = cluster.replica("refused", &overrides).await;
    queued(&cluster, 2).await;
    cluster.nats.start().await;
    shows(&replica, "mikrotik_config_backup_outbox_dead_letters", 2.0).await;
    assert_eq!(letters(&cluster).await, 0);
    for (_, device) in &fleet {
        let state = cluster.state(*device).await.expect("a state");
        assert_eq!(state.error_kind.as_deref(), Some("publish_failed"));
        let error = state.error.expect("a text");
        assert!(
            error.contains("sealed") && error.contains("retry --dead-letters"),
            "{error}"
        );
    }
    shows(
        &replica,
        "mikrotik_config_backup_outbox_dead_lettered_total",
        2.0,
    )
    .await;
    replica.signal(Signal::SIGTERM);
    assert_eq!(replica.exit_code().await, 0);

    let run = |words: &[&str]| {
        let mut command = cluster.command("operator", &[]);
        let output = command.args(words).output().expect("run the binary");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}{complaint}");
        text
    };
    let failed = run(&["failed"]);
    assert!(failed.contains("2 dead letters"), "{failed}");
    assert!(failed.contains("sealed stream"), "{failed}");
    let json: serde_json::Value = serde_json::from_str(&run(&["failed", "--json"])).expect("JSON");
    assert_eq!(json.as_array().map(Vec::len), Some(2));

    let jetstream = cluster.nats.jetstream().await;
    jetstream
        .delete_stream("CONFIG_SNAPSHOTS")
        .await
        .expect("delete the sealed stream");
    // One by its device as `failed` shows it, the other one with all that is left.
    let (_, device) = &fleet[1];
    assert!(failed.contains(&format!("device {device}, ")), "{failed}");
    let listed = run(&["failed", "--dead-letters", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let of_first = fleet[0].1.to_string();
    let dead = listed.as_array().expect("a list").iter();
    let dead = dead.filter(|dead| dead["device"] == of_first.as_str());
    let attempt = dead.filter_map(|dead| dead["attempt"].as_str()).next();
    let attempt = attempt.expect("an attempt");
    assert!(failed.contains(&format!("attempt {attempt}, ")), "{failed}");
    let refused = |words: &[&str], code: i32| {
        let mut command = cluster.command("operator", &[]);
        let output = command.args(words).output().expect("run the binary");
        assert_eq!(output.status.code(), Some(code));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let complaint = refused(&["retry", "--dead-letters", "edge-1"], 2);
    assert!(complaint.contains("edge-1"), "{complaint}");
    let nobody = Uuid::new_v4().to_string();
    let complaint = refused(&["retry", "--dead-letters", &nobody], 1);
    assert!(complaint.contains(&nobody), "{complaint}");
    assert_eq!(letters(&cluster).await, 0);
    let put_back = run(&["retry", "--dead-letters", attempt]);
    assert!(put_back.contains("1 snapshot "), "{put_back}");
    assert_eq!(letters(&cluster).await, 1);
    let failed = run(&["failed", "--dead-letters"]);
    assert!(!failed.contains(attempt), "{failed}");
    let put_back = run(&["retry", "--dead-letters", &device.to_string()]);
    assert!(put_back.contains("1 snapshot "), "{put_back}");
    assert_eq!(letters(&cluster).await, 2);
    let put_back = run(&["retry", "--dead-letters"]);
    assert!(put_back.contains("0 snapshots"), "{put_back}");
    // Its attempts failed, so that a replica would also back the devices up again when due.
    let _replica = cluster.replica("again", &overrides).await;
    until("both attempts to be settled", || async {
        let settled = "status = 'success' AND replica = 'refused'";
        (cluster.attempts(settled).await == 2).then_some(())
    })
    .await;
    drained(&cluster).await;
    let failed = run(&["failed"]);
    assert!(failed.contains("nothing has failed"), "{failed}");
    exactly_once_in_order(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_letter_holds_no_other_device_up() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let fleet = fleet(&cluster, 79, 3).await;
    cluster.nats.stop();
    let mut replica = cluster.replica("spoilt", &ONCE).await;
    queued(&cluster, 3).await;
    replica.signal(Signal::SIGTERM);
    assert_eq!(replica.exit_code().await, 0);
    // The first letter is spoilt, and something else was put before it.
    let mut client = cluster.redis.client().await;
    let first: String = redis::cmd("LINDEX")
        .arg("backup:outbox")
        .arg(0)
        .query_async(&mut client)
        .await
        .expect("the first letter");
    let mut letter: serde_json::Value = serde_json::from_str(&first).expect("JSON");
    letter["payload"] = "AAAA".into();
    redis::pipe()
        .cmd("LSET")
        .arg("backup:outbox")
        .arg(0)
        .arg(letter.to_string())
        .cmd("LPUSH")
        .arg("backup:outbox")
        .arg("no letter at all")
        .exec_async(&mut client)
        .await
        .expect("spoil it");
    cluster.nats.start().await;
    let patient = [("OUTBOX_RETRY_INTERVAL", "3600"), ONCE[1]];
    let replica = cluster.replica("patient", &patient).await;
    until("the others to arrive", || async {
        (cluster.messages().await.len() == 2).then_some(())
    })
    .await;
    // A letter is taken out, and its attempt settled, once its message is acknowledged.
    until("only the spoilt one to rest", || async {
        (letters(&cluster).await == 1).then_some(())
    })
    .await;
    shows(&replica, "mikrotik_config_backup_outbox_dead_letters", 1.0).await;
    assert_eq!(cluster.attempts("status = 'success'").await, 2);
    assert_eq!(cluster.attempts("status = 'queued'").await, 1);
    let mut failed = cluster.command("operator", &[]);
    let listed = failed.args(["failed", "--dead-letters", "--json"]).output();
    let listed = listed.expect("run the binary").stdout;
    let listed: serde_json::Value = serde_json::from_slice(&listed).expect("JSON");
    let unreadable = listed[0]["unreadable"].as_str().expect("a text");
    assert!(unreadable.starts_with("16 bytes: "), "{listed}");
    drop(fleet);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dead_letters_are_put_back_in_order_and_what_is_none_stays() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let mut client = cluster.redis.client().await;
    let devices = [Uuid::new_v4(), Uuid::new_v4()];
    let dead = |number: usize| {
        json!({
            "id": Uuid::from_u128(number as u128), "type": "config_snapshot",
            "device_id": devices[number % 2], "tenant_id": Uuid::nil(),
            "created_at": "2026-01-02T03:04:05Z", "attempts": 5,
            "sha256_hash": "", "size_bytes": 1, "payload": "c2VhbGVk",
            "reason": "too large", "dead_since": "2026-01-02T03:04:05Z",
        })
        .to_string()
    };
    let mut filling = redis::pipe();
    for number in 0..250 {
        if number % 100 == 0 {
            filling.rpush("backup:outbox:dead", "no letter").ignore();
        }
        filling.rpush("backup:outbox:dead", dead(number)).ignore();
    }
    filling
        .exec_async(&mut client)
        .await
        .expect("fill the list");
    let run = |words: &[&str]| {
        let mut command = cluster.command("operator", &[]);
        let output = command.args(words).output().expect("run the binary");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let left = async || {
        let mut client = cluster.redis.client().await;
        let length = redis::cmd("LLEN").arg("backup:outbox:dead").to_owned();
        let left: usize = length.query_async(&mut client).await.expect("a length");
        left
    };
    let second = devices[1].to_string();
    let said = run(&["retry", "--dead-letters", &second]);
    assert!(said.contains("put 125 snapshots back"), "{said}");
    assert_eq!(left().await, 128);
    let said = run(&["retry", "--dead-letters"]);
    assert!(said.contains("put 125 snapshots back"), "{said}");
    assert!(said.contains("3 dead letters cannot be read"), "{said}");
    assert_eq!(left().await, 3);

    let texts: Vec<Vec<u8>> = redis::cmd("LRANGE")
        .arg("backup:outbox")
        .arg(0)
        .arg(-1)
        .query_async(&mut client)
        .await
        .expect("what waits");
    let ids = texts.iter().map(|text| {
        let letter: serde_json::Value = serde_json::from_slice(text).expect("JSON");
        let id: Uuid = letter["id"]
            .as_str()
            .expect("an id")
            .parse()
            .expect("a UUID");
        id.as_u128()
    });
    let expected = (0..250)
        .filter(|n| n % 2 == 1)
        .chain((0..250).filter(|n| n % 2 == 0));
    assert!(ids.eq(expected));
}
