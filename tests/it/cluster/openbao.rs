//! Credentials that OpenBao opens, with the real binary: an outage puts devices off and blames
//! none, and what cannot be opened is that device's own failure.

use std::time::Duration;

use mikrotik_backup::sim::{Router, RouterOptions};
use secrecy::ExposeSecret as _;
use serde_json::json;
use uuid::Uuid;

use super::harness::{Cluster, Replica, get};
use super::poll::until;
use crate::services::openbao::{Asked, Mode, OpenBao, TOKEN};
use crate::services::postgres::{self, NewDevice};
use crate::services::tls::Authority;

fn router(name: &str, address: [u8; 4]) -> Router {
    Router::start_one(RouterOptions {
        name: name.to_owned(),
        address: (address, 0).into(),
        seed: u64::from(u32::from_be_bytes(address)),
        ..RouterOptions::default()
    })
    .expect("start a router")
}

fn login(router: &Router) -> Vec<u8> {
    let login = json!({ "username": router.username(), "password": router.password() });
    login.to_string().into_bytes()
}

async fn insert(cluster: &Cluster, router: &Router, tenant: Uuid, transit: String) -> Uuid {
    let address = router.address();
    let device = NewDevice {
        tenant,
        hostname: router.name().to_owned(),
        ip_address: address.ip().to_string(),
        ssh_port: Some(address.port().into()),
        encrypted_credentials: None,
        encrypted_credentials_transit: Some(transit),
        ..NewDevice::default()
    };
    postgres::insert_device(cluster.pool(), device).await.0
}

async fn replica(cluster: &Cluster, openbao: &OpenBao, interval: &str) -> Replica {
    let url = openbao.url();
    let settings = [
        ("OPENBAO_ADDR", url.as_str()),
        ("OPENBAO_TOKEN", TOKEN),
        ("CONFIG_BACKUP_INTERVAL", interval),
    ];
    cluster.replica("opener", &settings).await
}

async fn readiness(replica: &Replica, wanted: &str) {
    until(wanted, || async {
        let page = get(&replica.http, "/readyz").await.ok()?;
        page.contains(wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_openbao_puts_devices_off_and_blames_none() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let openbao = OpenBao::start().await;
    let tenant = Uuid::from_u128(0x7001);
    let good = router("good", [127, 96, 0, 1]);
    let bad = router("bad", [127, 96, 0, 2]);
    let sealed = openbao.encrypt(tenant, &login(&good));
    let device = insert(&cluster, &good, tenant, sealed.clone()).await;
    openbao.set_mode(Mode::Sealed);
    let replica = replica(&cluster, &openbao, "3").await;
    readiness(&replica, "openbao").await;
    until("the device to be put off", || async {
        let series = r#"mikrotik_config_backup_deferrals_total{reason="unavailable"}"#;
        (replica.metric(series).await >= 2.0).then_some(())
    })
    .await;
    // No attempt, no failure, no mark that an attempt is being made.
    assert_eq!(cluster.attempts("true").await, 0);
    assert!(cluster.state(device).await.is_none());
    let marked: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM mikrotik_backup.attempts WHERE status = 'interrupted'",
    )
    .fetch_one(cluster.pool())
    .await
    .expect("count");
    assert_eq!(marked, 0);
    assert_eq!(good.stats().connections, 0, "the router was not troubled");

    openbao.set_mode(Mode::Well);
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
    readiness(&replica, r#""ready""#).await;
    // Away once more, with the last success known.
    openbao.set_token_valid(false);
    readiness(&replica, "openbao").await;
    let nats = async_nats::connect(cluster.nats.url().expose_secret()).await;
    let nats = nats.expect("connect to NATS");
    let request = json!({ "device_id": device, "tenant_id": tenant }).to_string();
    // What is cached still opens; told that it changed, nothing does.
    nats.publish(
        format!("device.credential_changed.{device}"),
        request.clone().into(),
    )
    .await
    .expect("publish");
    nats.publish("device.credential_changed.x", "no JSON".into())
        .await
        .expect("publish");
    nats.flush().await.expect("flush");
    for (status, count) in [("applied", 1.0), ("ignored", 1.0)] {
        until(status, || async {
            let series = format!(r#"mikrotik_credential_changes_total{{status="{status}"}}"#);
            (replica.metric(&series).await == count).then_some(())
        })
        .await;
    }
    let answer = until("an answer that it is away", || async {
        let answer = nats
            .request("config.backup.trigger", request.clone().into())
            .await;
        let answer = answer.expect("an answer").payload;
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        (answer["status"] == "failed").then_some(answer)
    })
    .await;
    let error = answer["error"].as_str().expect("a reason");
    assert!(
        error.contains("OpenBao") && error.contains("OPENBAO_TOKEN"),
        "{error}"
    );
    assert_eq!(cluster.attempts("status <> 'success'").await, 0);
    openbao.set_token_valid(true);

    // A key that does not fit is this device's failure, and nobody else's.
    let strange = insert(&cluster, &bad, Uuid::from_u128(0x7002), sealed.clone()).await;
    openbao.make_key(Uuid::from_u128(0x7002));
    let state = cluster.state_when(strange, "a failure", |state| state.status == "failed");
    let state = state.await;
    assert_eq!(state.error_kind.as_deref(), Some("credentials_unreadable"));
    let error = state.error.expect("a text");
    assert!(error.contains(&strange.to_string()), "{error}");
    assert!(
        error.contains("tenant_00000000-0000-0000-0000-000000007002"),
        "{error}"
    );
    let before = cluster.attempts("status = 'success'").await;
    until("the other one to go on", || async {
        (cluster.attempts("status = 'success'").await > before).then_some(())
    })
    .await;
    let log = replica.log();
    for secret in [sealed.as_str(), TOKEN, &good.password()] {
        assert!(!log.contains(secret) && !error.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_opens_what_openbao_keeps_and_says_why_it_cannot() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let openbao = OpenBao::start().await;
    let tenant = Uuid::from_u128(0x7003);
    let router = router("checked", [127, 97, 0, 1]);
    let sealed = openbao.encrypt(tenant, &login(&router));
    let device = insert(&cluster, &router, tenant, sealed).await;
    // Somebody has to make the schema.
    let service = replica(&cluster, &openbao, "86400").await;
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
    drop(service);
    let check = || async {
        let url = openbao.url();
        let settings = [("OPENBAO_ADDR", url.as_str()), ("OPENBAO_TOKEN", TOKEN)];
        let mut command = tokio::process::Command::from(cluster.command("check", &settings));
        command
            .args(["check", &device.to_string()])
            .kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(25), command.output()).await;
        let output = output.expect("in time").expect("its output");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = check().await;
    assert_eq!(code, Some(0), "{text}");
    openbao.set_mode(Mode::Sealed);
    let (code, text) = check().await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("sealed"), "{text}");
}

/// A certificate from a private authority: not trusted until its operator says so, and then it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_ones_own_is_named_in_ssl_cert_file() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let Some(authority) = Authority::new() else {
        return;
    };
    let openbao = OpenBao::start().await;
    let front = authority.front(openbao.address()).await;
    let tenant = Uuid::from_u128(0x7004);
    let router = router("private", [127, 98, 0, 1]);
    let sealed = openbao.encrypt(tenant, &login(&router));
    let device = insert(&cluster, &router, tenant, sealed).await;
    let url = front.url();
    let settings = [
        ("OPENBAO_ADDR", url.as_str()),
        ("OPENBAO_TOKEN", TOKEN),
        ("CONFIG_BACKUP_INTERVAL", "3"),
    ];
    let stranger = cluster.replica("stranger", &settings).await;
    readiness(&stranger, "SSL_CERT_FILE").await;
    until("the log to say what to do", || async {
        stranger.log().contains("SSL_CERT_FILE").then_some(())
    })
    .await;
    assert_eq!(openbao.asked(), Asked::default(), "it was told nothing");
    assert_eq!(cluster.attempts("true").await, 0);
    drop(stranger);

    let certificate = authority.certificate().display().to_string();
    let [address, token, interval] = settings;
    let trusting = [address, token, interval, ("SSL_CERT_FILE", &certificate)];
    let trusting = cluster.replica("trusting", &trusting).await;
    cluster
        .state_when(device, "a success", |state| state.status == "success")
        .await;
    readiness(&trusting, r#""ready""#).await;
}
