//! A NATS whose operator gives each user the rights that it needs and no others: what
//! `deploy/nats/users.conf` grants suffices, and a right that is missing is named.

use mikrotik_backup::sim::{Router, RouterOptions};
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Cluster, Replica, get};
use super::poll::until;
use crate::services::nats::Nats;

const USERS: &str = include_str!("../../../deploy/nats/users.conf");

/// The shipped rights without the line of `taken`, and a user for the test itself, who may
/// everything and need not log in.
fn users(taken: &str) -> String {
    let kept: Vec<_> = USERS.lines().filter(|line| line.trim() != taken).collect();
    let lost = USERS.lines().count() - kept.len();
    assert_eq!(lost > 0, !taken.is_empty(), "{taken} is granted");
    let with_us =
        kept.join("\n")
            .replacen("users = [", "users = [\n{ user: test, password: test }", 1);
    format!(
        "no_auth_user: test\nMIKROTIK_BACKUP_PASSWORD: poller\n\
         MIKROTIK_BACKUP_ARCHIVE_PASSWORD: archive\n{with_us}"
    )
}

fn router(address: [u8; 4]) -> Router {
    Router::start_one(RouterOptions {
        name: "careful".to_owned(),
        address: (address, 0).into(),
        seed: u64::from(u32::from_be_bytes(address)),
        ..RouterOptions::default()
    })
    .expect("start a router")
}

/// A replica that logs in as the shipped user.
async fn poller(cluster: &Cluster, name: &str, interval: &str) -> Replica {
    let url = format!(
        "nats://mikrotik-backup:poller@127.0.0.1:{}",
        cluster.nats.port()
    );
    let settings = [
        ("NATS_URL", url.as_str()),
        ("CONFIG_BACKUP_INTERVAL", interval),
        ("OUTBOX_RETRY_INTERVAL", "1"),
    ];
    cluster.replica(name, &settings).await
}

/// What was said of missing rights.
fn complaints(replica: &Replica) -> Vec<String> {
    let events = replica.events();
    let warnings = events.iter().filter(|event| event["level"] == "warn");
    let text = warnings.map(Value::to_string);
    text.filter(|line| line.to_ascii_lowercase().contains("permissions violation"))
        .collect()
}

async fn named(cluster: &Cluster, device: Uuid) -> String {
    let tenant: Uuid = sqlx::query_scalar("SELECT tenant_id FROM devices WHERE id = $1")
        .bind(device)
        .fetch_one(cluster.pool())
        .await
        .expect("the device's tenant");
    json!({ "device_id": device, "tenant_id": tenant }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_rights_suffice_for_everything_a_poller_does() {
    let limits = format!("max_payload: 2048\n{}", users(""));
    let Some(mut cluster) = Cluster::start_with(&[], &limits).await else {
        return;
    };
    // Its ids are forgotten soon, so that what waited is looked for.
    cluster.create_stream().await;
    let router = router([127, 99, 0, 1]);
    let device = cluster.insert(&router).await;
    let replica = poller(&cluster, "careful", "3").await;
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
    let (_, event) = cluster.messages_of(device).await.remove(0);
    assert!(event.config_ref.is_some(), "too large for one message");

    cluster.nats.stop();
    until("a snapshot to wait", || async {
        (cluster.attempts("status = 'queued'").await > 0).then_some(())
    })
    .await;
    cluster.nats.start().await;
    until("what waited to be published", || async {
        (cluster.attempts("status = 'queued'").await == 0).then_some(())
    })
    .await;

    let request = named(&cluster, device).await;
    let client = cluster.nats.jetstream().await.client();
    let answer = until("an answer", || async {
        let answer = client.request("config.backup.trigger", request.clone().into());
        answer.await.ok()
    })
    .await;
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert_eq!(answer["status"], "success", "{answer}");
    let changed = format!("device.credential_changed.{device}");
    let told = client.publish(changed, request.into()).await;
    told.expect("tell of a change");
    until("the change to be noted", || async {
        let series = r#"mikrotik_credential_changes_total{status="applied"}"#;
        (replica.metric(series).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(complaints(&replica), [""; 0]);
    let log = replica.log();
    assert!(!log.contains("cannot be looked for"), "{log}");
}

/// The line of the right, what the complaint must name, and what becomes of a backup.
const MISSING: &[(&str, &str, &str)] = &[
    (
        r#""config.backup.trigger mikrotik-backup""#,
        "config.backup.trigger",
        "success",
    ),
    (
        r#""device.credential_changed.>""#,
        "device.credential_changed",
        "success",
    ),
    (
        r#""config.snapshot.create.>""#,
        "config.snapshot.create.",
        "queued",
    ),
    (
        r#""$JS.API.STREAM.NAMES""#,
        "$JS.API.STREAM.NAMES",
        "put off",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named_and_the_rest_goes_on() {
    futures_util::future::join_all(MISSING.iter().zip(100..).map(lacks)).await;
}

async fn lacks(((taken, what, outcome), net): (&(&str, &str, &str), u8)) {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let nats = Nats::start_private(&users(taken)).await;
    cluster.nats = nats.expect("it is installed");
    let router = router([127, net, 0, 1]);
    let device = cluster.insert(&router).await;
    let replica = poller(&cluster, "lacking", "3").await;
    let complaint = until(&format!("{what} to be missed"), || async {
        complaints(&replica)
            .into_iter()
            .find(|line| line.contains(what))
    })
    .await;
    assert!(complaint.contains("deploy/README.md"), "{complaint}");
    match *outcome {
        "put off" => {
            let page = until("the hindrance", || async {
                let page = get(&replica.http, "/readyz").await.ok()?;
                page.contains("STREAM.NAMES").then_some(page)
            });
            page.await;
            assert_eq!(cluster.attempts("true").await, 0);
        }
        outcome => {
            let wanted = format!("status = '{outcome}'");
            until(
                &format!("a backup of {device} that is {outcome}"),
                || async { (cluster.attempts(&wanted).await > 0).then_some(()) },
            )
            .await;
        }
    }
    assert!(get(&replica.http, "/livez").await.is_ok(), "it lives");
}
