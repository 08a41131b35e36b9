//! What the service stands on fails while backups run, and comes back: the service goes on by
//! itself, and nothing that a router served in full is lost. `table` says which fault, which
//! promise, and how it is checked.

mod letters;
mod scene;
mod table;

use self::scene::Scene;
use self::table::{BOTH, CLOCKS, LETTERS, NATS, POSTGRES, REDIS, RELAYING, Row};

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
async fn redis_and_nats_fail_together_while_backups_run() {
    hold(Scene::of_both().await, BOTH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_are_wrong_while_backups_run() {
    hold(Scene::of_clocks().await, CLOCKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn something_fails_while_letters_wait() {
    hold(Scene::of_letters().await, LETTERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn something_fails_while_letters_are_relayed() {
    hold(Scene::of_relaying().await, RELAYING).await;
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
