//! Where letters are held, and when no more are.

mod draining;

use time::macros::datetime;
use uuid::Uuid;

use super::*;

fn letter(number: u128, bytes: usize) -> Letter {
    Letter {
        id: AttemptId(Uuid::from_u128(number)),
        device: DeviceId(Uuid::from_u128(number % 3)),
        created_at: datetime!(2026-01-02 03:04:05 UTC),
        text: vec![b'x'; bytes],
    }
}

fn amount(letters: u64, bytes: u64) -> Amount {
    Amount { letters, bytes }
}

async fn kept(hold: &Arc<Hold>, letter: Letter) -> Result<Place, String> {
    let kept = hold.keep(letter, "a test").await;
    kept.map_err(|error| chain(&error))
}

#[tokio::test]
async fn without_a_disk_memory_is_used_up_to_its_bound() {
    let hold = Arc::new(Hold::new(None, 100));
    assert_eq!(kept(&hold, letter(1, 60)).await, Ok(Place::Memory));
    let refused = kept(&hold, letter(2, 41)).await.expect_err("no room");
    assert!(
        refused.contains("60 of 100 bytes in memory") && refused.contains("OUTBOX_MAX_BYTES"),
        "{refused}"
    );
    assert!(hold.has(letter(1, 0).id) && !hold.has(letter(2, 0).id));
    assert_eq!(kept(&hold, letter(3, 40)).await, Ok(Place::Memory));
    assert_eq!(hold.holding().memory, amount(2, 100));
    hold.went_on(letter(1, 0).id).await;
    assert_eq!(kept(&hold, letter(4, 60)).await, Ok(Place::Memory));
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_falls_back_to_memory_and_is_named_when_that_is_full() {
    let data = tempfile::tempdir().expect("a folder");
    let file = data.path().join("no-folder");
    std::fs::write(&file, "").expect("write");
    let hold = Arc::new(Hold::new(Some(&file), 100));
    assert_eq!(kept(&hold, letter(1, 60)).await, Ok(Place::Memory));
    let refused = kept(&hold, letter(2, 60)).await.expect_err("no room");
    assert!(refused.contains("no-folder/held ("), "{refused}");
    let holding = hold.holding();
    assert_eq!(
        (holding.disk, holding.memory),
        (amount(0, 0), amount(1, 60))
    );
    assert!(!hold.waits(letter(2, 0).device), "nothing is left of it");

    // Somebody repairs it: what is in memory goes to disk at the end, if not before.
    std::fs::remove_file(&file).expect("make room for a folder");
    hold.to_disk().await;
    let holding = hold.holding();
    assert_eq!(
        (holding.disk, holding.memory),
        (amount(1, 60), amount(0, 0))
    );
    assert!(matches!(hold.next(), Some((_, Text::File(file))) if file.exists()));
}

#[tokio::test]
async fn a_full_disk_falls_back_to_memory_and_what_went_on_leaves_no_file() {
    let data = tempfile::tempdir().expect("a folder");
    let hold = Arc::new(Hold::new(Some(data.path()), 100));
    assert_eq!(kept(&hold, letter(1, 70)).await, Ok(Place::Disk));
    assert_eq!(kept(&hold, letter(2, 70)).await, Ok(Place::Memory));
    assert!(kept(&hold, letter(3, 70)).await.is_err());
    let (first, text) = hold.next().expect("something is held");
    let Text::File(file) = text else {
        panic!("it is on disk");
    };
    hold.went_on(first.attempt).await;
    assert!(!file.exists());
    let (second, text) = hold.next().expect("something is held");
    assert_ne!(first.attempt, second.attempt);
    assert!(matches!(text, Text::Memory(letter) if letter.text.len() == 70));
    hold.went_on(second.attempt).await;
    assert!(hold.next().is_none());
    assert_eq!(hold.holding().disk, amount(0, 0));
}
