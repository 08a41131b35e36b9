//! Exports that look cut and that no second reading confirms: taken at the third attempt in a row
//! that sees the same one, whichever replica makes it, and never where they are cut at chance.

use std::time::Duration;

use mikrotik_backup::sim::{Fault, Router, RouterOptions};
use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::Row as _;
use uuid::Uuid;

use super::demand::{ask, client, naming, tenant};
use super::harness::{Cluster, Replica};

/// Nothing comes due by itself after the first backup, and requests are not put off.
const STILL: &[(&str, &str)] = &[
    ("CONFIG_BACKUP_INTERVAL", "86400"),
    ("CONFIG_BACKUP_CONNECTION_LIMIT", "none"),
    ("CONFIG_BACKUP_COMMAND_TIMEOUT", "6"),
];

/// One device of a cluster whose replica has backed it up once.
struct Scene {
    cluster: Cluster,
    router: Router,
    device: Uuid,
    owner: Uuid,
    replica: Replica,
    nats: async_nats::Client,
}

impl Scene {
    async fn of(router: Router) -> Option<Self> {
        let cluster = Cluster::start().await?;
        let device = cluster.insert(&router).await;
        let replica = cluster.replica("first", STILL).await;
        cluster
            .state_when(device, "a success", |state| state.status == "success")
            .await;
        Some(Self {
            owner: tenant(&cluster, device).await,
            nats: client(&cluster).await,
            cluster,
            router,
            device,
            replica,
        })
    }

    /// One more attempt; its answer.
    async fn attempt(&self) -> Value {
        ask(&self.nats, naming(self.device, self.owner)).await
    }

    /// One more attempt, which sees a suspect and waits for `left` more.
    async fn unconfirmed(&self, left: u32) {
        let answer = self.attempt().await;
        assert_eq!(answer["status"], "failed", "{answer}");
        let error = answer["error"].as_str().expect("a text");
        assert!(error.starts_with("truncated_output: "), "{error}");
        assert!(error.ends_with(&format!(": {left} more")), "{error}");
        assert_eq!(self.published().await, 1);
    }

    async fn published(&self) -> usize {
        self.cluster.messages_of(self.device).await.len()
    }

    async fn suspicions(&self, result: &str) -> f64 {
        let series = format!("mikrotik_config_backup_suspicions_total{{result=\"{result}\"}}");
        self.replica.metric(&series).await
    }

    /// The warning of the last good export, as journal and overview have it; `status` names the device.
    async fn warning(&self) -> String {
        let row = sqlx::query(
            "SELECT o.warning, a.warning AS journaled FROM mikrotik_backup.overview() o \
             JOIN mikrotik_backup.device_state s USING (device_id) \
             JOIN mikrotik_backup.attempts a ON a.id = s.last_attempt_id WHERE s.device_id = $1",
        )
        .bind(self.device)
        .fetch_one(self.cluster.pool())
        .await
        .expect("read the overview");
        let warning: String = row.get("warning");
        assert_eq!(warning, row.get::<String, _>("journaled"));
        let mut status = self.cluster.command("status", STILL);
        let shown = status.args(["status", "--json"]).output();
        let shown = shown.expect("run status");
        let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        assert_eq!(shown["remarks"][0]["kind"], "suspected", "{shown}");
        let example = &shown["remarks"][0]["examples"][0];
        assert_eq!(example["name"], self.router.name(), "{shown}");
        warning
    }
}

fn router(name: &str, last_byte: u8) -> Router {
    Router::start_one(RouterOptions {
        name: name.to_owned(),
        address: ([127, 100, 0, last_byte], 0).into(),
        seed: u64::from(last_byte),
        ..RouterOptions::default()
    })
    .expect("start a router")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_too_slow_to_be_read_twice_is_believed_across_replicas() {
    let Some(mut scene) = Scene::of(router("slow", 1)).await else {
        return;
    };
    scene.router.set_fault(Fault::SecretsWithheld);
    // One reading fits into the time, two do not.
    scene.router.set_delay(Duration::from_millis(3500));
    scene.unconfirmed(2).await;
    scene.unconfirmed(1).await;
    assert_eq!(scene.suspicions("unconfirmed").await, 2.0);
    scene.replica.signal(Signal::SIGTERM);
    assert_eq!(scene.replica.exit_code().await, 0);
    scene.replica = scene.cluster.replica("second", STILL).await;

    let answer = scene.attempt().await;
    assert_eq!(answer["status"], "success", "{answer}");
    assert_eq!(scene.published().await, 2);
    assert_eq!(scene.suspicions("recurring").await, 1.0);
    let warning = scene.warning().await;
    assert!(warning.contains("\"sensitive\""), "{warning}");
    assert!(warning.contains("3 attempts in a row"), "{warning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_whose_text_changes_by_itself_is_believed() {
    let router = router("restless", 2);
    // The note is another one in each export.
    router.keep_exports();
    let Some(scene) = Scene::of(router).await else {
        return;
    };
    scene.router.set_fault(Fault::SecretsWithheld);
    scene.unconfirmed(2).await;
    scene.unconfirmed(1).await;
    let answer = scene.attempt().await;
    assert_eq!(answer["status"], "success", "{answer}");
    assert_eq!(scene.published().await, 2);
    assert!(scene.warning().await.contains("\"sensitive\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_is_cut_at_chance_is_never_published() {
    let router = router("cut", 3);
    let items: Vec<String> = (0..30)
        .map(|n| format!("/menu m{}\r\nadd name=n{n}\r\n", n / 3))
        .collect();
    let header = "# 2026-01-02 03:04:05 by RouterOS 7.16.2\r\n# software id = ABCD-EF12\r\n";
    let text = |count: usize| format!("{header}{}", items[..count].concat()).into_bytes();
    router.answer_exports_with([text(items.len())]);
    let Some(scene) = Scene::of(router).await else {
        return;
    };
    // Sixteen cuts between two items, no two neighbours at the same place.
    let cuts: Vec<_> = (0..16).map(|n| text(1 + (n * 11 + 5) % 28)).collect();
    let before = scene.router.stats().exports_begun;
    scene
        .router
        .answer_exports_with(cuts.into_iter().chain([text(items.len())]));
    while scene.router.stats().exports_begun < before + 16 {
        let answer = scene.attempt().await;
        assert_eq!(answer["status"], "failed", "{answer}");
    }
    assert_eq!(scene.published().await, 1);
    assert_eq!(scene.suspicions("refuted").await, 8.0);
    let answer = scene.attempt().await;
    assert_eq!(answer["status"], "success", "{answer}");
    let published = scene.cluster.messages_of(scene.device).await;
    assert_eq!(published[0].1.sha256_hash, published[1].1.sha256_hash);
}
