//! Files that come and go, torn ones, and two owners of one `DATA_DIR`.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::credentials::Key;
use crate::domain::device::{DeviceId, TenantId};
use crate::domain::snapshot::{ConfigText, Snapshot};

const SECRET: &str = "password=Wr1tten-Nowhere";

fn letter(number: u128) -> Letter {
    let text = ConfigText::new(format!("/user add name=a {SECRET}\n"));
    let now = datetime!(2026-01-02 03:04:05 UTC);
    let snapshot = Snapshot {
        attempt: AttemptId(Uuid::from_u128(number)),
        device: DeviceId(Uuid::from_u128(2)),
        tenant: TenantId(Uuid::from_u128(3)),
        routeros_version: "7.14".to_owned(),
        collected_at: now,
        hash: text.digest(),
        text,
        normalization_version: 2,
        normalization_rules: "n2-0011".to_owned(),
        incomplete_menus: Vec::new(),
        machine: Default::default(),
        ledger: Default::default(),
        shape: Default::default(),
    };
    super::super::super::letter::write(&snapshot, &Key::from_bytes([1; 32]), now).expect("memory")
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).expect("it exists");
    metadata.permissions().mode() & 0o777
}

fn ids(finds: &Finds) -> Vec<AttemptId> {
    let mut ids: Vec<_> = finds.letters.iter().map(|found| found.filed.id).collect();
    ids.sort();
    ids
}

#[test]
fn nothing_is_made_before_the_first_letter_and_nobody_else_may_read_it() {
    let data = tempfile::tempdir().expect("a folder");
    let data_dir = data.path().join("new");
    let folder = Folder::new(&data_dir);
    assert!(folder.adopt().expect("nothing").letters.is_empty());
    assert!(!data_dir.exists());
    let letter = letter(1);
    let file = folder.write(&letter).expect("written");
    for made in [&data_dir, &data_dir.join("held"), &data_dir.join("held/0")] {
        assert_eq!(mode(made), 0o700, "{}", made.display());
    }
    assert_eq!(mode(&file), 0o600);
    let text = fs::read_to_string(&file).expect("JSON");
    assert!(!text.contains(SECRET) && !text.contains("/user"));
    assert_eq!(Folder::read(&file, letter.id).expect("whole"), letter);
    Folder::remove(&file).expect("removed");
    Folder::remove(&file).expect("twice is once");
    let gone = Folder::read(&file, letter.id);
    assert!(matches!(gone, Err(ReadBack::Gone { .. })), "{gone:?}");
}

#[test]
fn letters_belong_to_who_has_the_lock_and_are_adopted_when_it_ends() {
    let data = tempfile::tempdir().expect("a folder");
    let (first, second) = (Folder::new(data.path()), Folder::new(data.path()));
    first.write(&letter(1)).expect("written");
    let theirs = second.write(&letter(2)).expect("written");
    assert!(
        theirs.starts_with(data.path().join("held/1")),
        "one of its own"
    );
    for folder in [&first, &second] {
        assert!(folder.adopt().expect("a look").letters.is_empty());
    }
    drop(first);
    let finds = second.adopt().expect("a look");
    assert_eq!(ids(&finds), [letter(1).id]);
    assert_eq!(finds.letters[0].bytes, letter(1).text.len() as u64);
    assert!(second.adopt().expect("a look").letters.is_empty(), "once");
    drop(second);
    let third = Folder::new(data.path()).adopt().expect("a look");
    assert_eq!(ids(&third), [letter(1).id, letter(2).id]);
}

#[test]
fn what_is_no_letter_is_set_aside_and_never_deleted() {
    let data = tempfile::tempdir().expect("a folder");
    let before = Folder::new(data.path());
    let whole = before.write(&letter(1)).expect("written");
    let text = fs::read(&whole).expect("whole");
    let beside = |name: &str| whole.with_file_name(name);
    let torn = beside(&format!("{}.letter", Uuid::from_u128(4)));
    fs::write(&torn, &text[..text.len() / 2]).expect("write");
    fs::write(beside(&format!("{}.letter", Uuid::from_u128(5))), &text).expect("another's name");
    fs::write(beside("core"), "not ours").expect("write");
    fs::write(beside(&format!("{}.draft", Uuid::from_u128(6))), "").expect("write");
    // Cut off between the last byte and the renaming.
    let draft = letter(7);
    fs::write(beside(&format!("{}.draft", draft.id)), &draft.text).expect("write");
    drop(before);

    let after = Folder::new(data.path());
    let finds = after.adopt().expect("a look");
    assert_eq!(ids(&finds), [letter(1).id, draft.id]);
    assert!(finds.letters.iter().all(|found| found.file.exists()));
    assert_eq!(finds.strange.len(), 4, "{:?}", finds.strange);
    for (place, reason) in &finds.strange {
        assert!(place.starts_with(data.path().join("held/set-aside")) && place.exists());
        assert!(!reason.is_empty());
    }
    assert!(!torn.exists());
    // A second one of the same name does not replace the first.
    fs::write(&torn, "again").expect("write");
    let (place, _) = after.set_aside(&torn, "torn".to_owned());
    assert_eq!(fs::read(place).expect("moved"), b"again");
    let aside = fs::read_dir(data.path().join("held/set-aside")).expect("a folder");
    assert_eq!(aside.count(), 5);
}

#[test]
fn a_folder_that_cannot_be_made_says_which_and_why() {
    let data = tempfile::tempdir().expect("a folder");
    let occupied = data.path().join("file");
    fs::write(&occupied, "").expect("write");
    let refused = Folder::new(&occupied)
        .write(&letter(1))
        .expect_err("no folder");
    let text = chain(&refused);
    assert!(
        text.contains("file/held") && text.contains("irectory"),
        "{text}"
    );
}

proptest! {
    #[test]
    fn nothing_that_lies_there_panics_or_is_lost(
        name in "[a-z0-9.]{1,12}",
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let data = tempfile::tempdir().expect("a folder");
        let slot = data.path().join("held/0");
        fs::create_dir_all(&slot).expect("a folder");
        prop_assume!(name != LOCK && !name.trim_matches('.').is_empty());
        fs::write(slot.join(&name), &bytes).expect("write");
        let finds = Folder::new(data.path()).adopt().expect("a look");
        prop_assert!(finds.letters.is_empty());
        let [(place, _)] = finds.strange.as_slice() else {
            panic!("one find");
        };
        prop_assert_eq!(fs::read(place).expect("kept"), bytes);
    }
}
