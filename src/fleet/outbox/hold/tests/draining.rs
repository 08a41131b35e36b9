//! The way out of the hold: in order, said in the database meanwhile, and what is lost on it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;
use crate::domain::failure::FailureKind;
use crate::fleet::Context;
use crate::fleet::fakes::{Post, World};
use crate::ports::HELD_FOR;

struct Scene {
    context: Arc<Context>,
    post: Post,
}

impl Scene {
    fn new(data_dir: Option<&Path>) -> Self {
        let (world, post) = World::with_outbox_in(data_dir);
        Self {
            context: world.context,
            post,
        }
    }

    fn hold(&self) -> &Arc<Hold> {
        &self.context.outbox.as_ref().expect("there is one").hold
    }

    async fn hold_some(&self, letters: &[Letter]) {
        for letter in letters {
            kept(self.hold(), letter.clone()).await.expect("room");
        }
    }
}

fn ids(letters: &[Letter]) -> Vec<AttemptId> {
    letters.iter().map(|letter| letter.id).collect()
}

#[tokio::test(start_paused = true)]
async fn while_redis_is_away_the_database_knows_who_holds_what_and_then_it_goes_on_in_order() {
    let scene = Scene::new(None);
    scene.post.letters.away.store(true, Ordering::Relaxed);
    // Of three devices, written one after the other, held in another order.
    let letters: Vec<_> = (1..=6)
        .map(|number| Letter {
            created_at: letter(0, 0).created_at + Duration::from_secs(number),
            ..letter(number.into(), 10)
        })
        .collect();
    let reversed: Vec<_> = letters.iter().rev().cloned().collect();
    scene.hold_some(&reversed).await;
    let context = scene.context.clone();
    let running = tokio::spawn(async move { run(&context).await });
    let began = Instant::now();
    sleep(Duration::from_secs(600)).await;
    {
        let held = scene.post.settlements.held.lock().expect("whole");
        assert!(held.iter().all(|(_, attempts)| *attempts == ids(&letters)));
        let mut last = began;
        for (at, _) in held.iter() {
            // Twice may fail before anybody takes it for dead.
            assert!(*at - last <= HELD_FOR / 2, "{:?}", *at - last);
            last = *at;
        }
        assert!(
            last.elapsed() <= HELD_FOR / 2 && held.len() < 30,
            "{}",
            held.len()
        );
    }
    scene.post.letters.away.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(30)).await;
    let taken = scene.post.letters.ids();
    for device in 0..3 {
        let of_device = |id: &&AttemptId| id.0.as_u128() % 3 == device;
        assert!(taken.iter().filter(of_device).is_sorted(), "{taken:?}");
    }
    let mut all = taken.clone();
    all.sort();
    assert_eq!(all, ids(&letters), "each once");
    assert_eq!(*scene.post.settlements.let_go.lock().expect("whole"), taken);
    assert_eq!(scene.hold().holding().memory, amount(0, 0));
    running.abort();
}

#[tokio::test]
async fn a_file_that_somebody_deleted_or_changed_is_given_up_and_holds_up_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    let scene = Scene::new(Some(data.path()));
    let letters: Vec<_> = (1..=2).map(|number| letter(number, 10)).collect();
    scene.hold_some(&letters).await;
    let file = |id: AttemptId| data.path().join(format!("held/0/{id}.letter"));
    std::fs::remove_file(file(letters[0].id)).expect("delete it");
    // The second one is no letter at all: ten times the same byte.
    drain(&scene.context).await;
    assert_eq!(scene.post.letters.ids(), []);
    let lost = ids(&letters).into_iter();
    let lost: Vec<_> = lost.map(|id| (id, FailureKind::SnapshotLost)).collect();
    assert_eq!(
        *scene.post.settlements.given_up.lock().expect("whole"),
        lost
    );
    let aside = format!("held/set-aside/{}.letter.0", letters[1].id);
    let kept = std::fs::read(data.path().join(aside));
    assert_eq!(kept.expect("never deleted"), letters[1].text);
    assert_eq!(scene.hold().holding().disk, amount(0, 0));
}

#[tokio::test]
async fn at_the_end_what_is_in_memory_is_given_up_and_what_is_on_disk_stays() {
    let data = tempfile::tempdir().expect("a folder");
    for data_dir in [None, Some(data.path())] {
        let scene = Scene::new(data_dir);
        scene.post.letters.away.store(true, Ordering::Relaxed);
        scene.hold_some(&[letter(1, 10)]).await;
        scene.context.shutdown.hard().cancel();
        drain(&scene.context).await;
        leave(&scene.context).await;
        let lost = match data_dir {
            None => vec![(letter(1, 0).id, FailureKind::SnapshotLost)],
            Some(_) => Vec::new(),
        };
        assert_eq!(
            *scene.post.settlements.given_up.lock().expect("whole"),
            lost
        );
    }
}
