//! What the service stands on fails while backups run, and comes back: the service goes on by
//! itself, and nothing that a router served in full is lost. `table` says which fault, which
//! promise, and how it is checked.

mod scene;
mod table;

use self::scene::Scene;
use self::table::{CLOCKS, NATS, POSTGRES, REDIS, Row};

#[tokio::test(flavor = "multi_thread")]
async fn redis_fails_while_backups_run() {
    hold(Scene::of_redis().await, REDIS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_fails_while_backups_run() {
    hold(Scene::of_postgres().await, POSTGRES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_fails_while_backups_run() {
    hold(Scene::of_nats().await, NATS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_are_wrong_while_backups_run() {
    hold(Scene::of_clocks().await, CLOCKS).await;
}

/// One fault after the other, each while backups run, and each judged before the next.
async fn hold(scene: Option<Scene>, rows: &[Row]) {
    let Some(mut scene) = scene else {
        return;
    };
    for row in rows {
        eprintln!("{row}");
        scene.live_through(row).await;
    }
    scene.end().await;
}
