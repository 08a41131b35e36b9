//! The inventory as the command line edits it.

use mikrotik_backup::adapters::sqlite::{
    DEFAULT_TENANT, DeviceEdit, EditError, ListDevices, NewDevice, SqliteStore,
};
use mikrotik_backup::clock::Clock;
use mikrotik_backup::credentials::{Credentials, Key, Login};
use mikrotik_backup::domain::attempt::{Outcome, Taken};
use mikrotik_backup::domain::device::{DeviceId, TenantId};
use mikrotik_backup::domain::host_key::{Fingerprint, Pin};
use mikrotik_backup::domain::session::Observed;
use mikrotik_backup::ports::Store;
use secrecy::ExposeSecret;
use tokio::time::timeout;
use uuid::Uuid;

use super::contract::sessions::{attempt, status};
use super::contract::{listed, taken};
use super::{SOON, data_dir, open};

fn login(password: &str) -> Login {
    Login {
        username: "backup".into(),
        password: Some(password.into()),
        private_key: None,
        private_key_passphrase: None,
    }
}

fn device(name: &str) -> NewDevice {
    NewDevice {
        tenant: DEFAULT_TENANT,
        name: name.into(),
        address: "192.0.2.1".into(),
        port: None,
        group: None,
        tags: vec![],
        settings: Default::default(),
        host_key: None,
        login: login("pässword"),
    }
}

async fn names(store: &SqliteStore, wanted: ListDevices) -> Vec<String> {
    let entries = store.list(&wanted).await.expect("list");
    entries.into_iter().map(|entry| entry.name).collect()
}

#[tokio::test]
async fn a_device_is_added_edited_and_removed() {
    let (_outer, data) = data_dir();
    let store = open(&data).await;
    let id = store
        .add_device(&NewDevice {
            address: " 2001:db8::1 ".into(),
            port: Some(2222),
            group: Some("core".into()),
            tags: vec!["a tag".into(), "\"quoted\"".into()],
            ..device("edge-1")
        })
        .await
        .expect("add");
    timeout(SOON, store.changed()).await.expect("it is told of");
    let added = listed(&store, id).await.expect("listed").device;
    assert_eq!(added.endpoint.to_string(), "[2001:db8::1]:2222");
    let credentials = Credentials::new(Some(Key::from_bytes([7; 32])));
    let opened = credentials.open(&added).await.expect("its login opens");
    assert_eq!(opened.username, "backup");
    assert_eq!(
        opened.password.expect("a password").expose_secret(),
        "pässword"
    );
    let [entry] = &store.list(&ListDevices::default()).await.expect("list")[..] else {
        panic!("one device");
    };
    assert_eq!((entry.id, entry.group.as_deref()), (id, Some("core")));
    assert_eq!(entry.tags, ["a tag", "\"quoted\""]);
    assert!(entry.has_credentials && entry.pin == Pin::Unpinned);

    let edit = DeviceEdit {
        name: Some("edge-2".into()),
        port: Some(None),
        group: Some(None),
        login: Some(login("another")),
        ..DeviceEdit::default()
    };
    store.edit_device(id, &edit).await.expect("edit");
    let edited = listed(&store, id).await.expect("listed").device;
    assert_eq!((edited.name.as_str(), edited.endpoint.port), ("edge-2", 22));
    assert_eq!(
        edited.endpoint.host, "2001:db8::1",
        "what was not named stays"
    );
    assert_ne!(edited.revision().credentials, added.revision().credentials);
    for text in [id.to_string(), "edge-2".into(), "2001:db8::1".into()] {
        let found = store.find(&text).await.expect("look");
        assert_eq!(found.len(), 1, "{text}");
    }

    store.remove_device(id).await.expect("remove");
    assert_eq!(listed(&store, id).await, None);
    for gone in [
        store.remove_device(id).await,
        store.edit_device(id, &edit).await,
        store.set_pin(id, None).await,
    ] {
        assert!(
            matches!(gone, Err(EditError::NotFound { device }) if device == id),
            "{gone:?}"
        );
    }
}

#[tokio::test]
async fn a_warning_goes_when_somebody_has_looked() {
    let (_outer, data) = data_dir();
    let store = open(&data).await;
    let id = store.add_device(&device("edge")).await.expect("add");
    let suspect = Taken {
        warning: Some("the export shrank from 9 to 1 bytes".into()),
        ..taken("text")
    };
    attempt(&store, id, Outcome::Delivered(suspect), Observed::default()).await;
    let seen = |warning_seen| DeviceEdit {
        warning_seen,
        ..DeviceEdit::default()
    };
    store.edit_device(id, &seen(false)).await.expect("edit");
    assert!(status(&store, id).await.warning.is_some());
    store.edit_device(id, &seen(true)).await.expect("edit");
    assert_eq!(status(&store, id).await.warning, None);
}

#[tokio::test]
async fn names_are_unique_within_a_tenant() {
    let (_outer, data) = data_dir();
    let store = open(&data).await;
    let first = store.add_device(&device("edge")).await.expect("add");
    let again = store.add_device(&device("edge")).await;
    assert!(
        matches!(&again, Err(EditError::Duplicate { name, other }) if name == "edge" && *other == first),
        "{again:?}"
    );
    let elsewhere = NewDevice {
        tenant: TenantId(Uuid::max()),
        ..device("edge")
    };
    let second = store
        .add_device(&elsewhere)
        .await
        .expect("another tenant's");
    let moved = DeviceEdit {
        tenant: Some(DEFAULT_TENANT),
        ..DeviceEdit::default()
    };
    let moved = store.edit_device(second, &moved).await;
    assert!(
        matches!(moved, Err(EditError::Duplicate { .. })),
        "{moved:?}"
    );
    let same = DeviceEdit {
        name: Some("edge".into()),
        ..DeviceEdit::default()
    };
    store.edit_device(first, &same).await.expect("its own name");
}

#[tokio::test]
async fn an_import_is_whole_or_not_there() {
    let (_outer, data) = data_dir();
    let store = open(&data).await;
    store.add_device(&device("old")).await.expect("add");
    let before = store.inventory().await.expect("digests");
    let odd = |change: fn(&mut NewDevice)| {
        let mut odd = device("odd");
        change(&mut odd);
        odd
    };
    for (bad, words) in [
        (device("old"), "already"),
        (device("new-1"), "already"),
        (
            odd(|device| device.name = "two\nlines".into()),
            "no name for a device",
        ),
        (
            odd(|device| device.name = String::new()),
            "no name for a device",
        ),
        (
            odd(|device| device.address = "http://192.0.2.1".into()),
            "neither an IP address",
        ),
        (odd(|device| device.port = Some(0)), "outside 1 to 65535"),
        (
            odd(|device| device.login.username = String::new()),
            "username",
        ),
        (
            odd(|device| device.login.password = None),
            "neither \"password\"",
        ),
    ] {
        let import = [device("new-1"), device("new-2"), bad, device("new-3")];
        let error = store.import_devices(&import).await.expect_err(words);
        assert_eq!(error.index, 2, "{words}");
        assert!(error.to_string().contains("number 3"), "{error}");
        assert!(error.source.to_string().contains(words), "{}", error.source);
        assert_eq!(names(&store, ListDevices::default()).await, ["old"]);
    }
    assert_eq!(store.inventory().await.expect("digests"), before);
    let many: Vec<NewDevice> = (0..2000).map(|n| device(&format!("new-{n:04}"))).collect();
    let ids = store.import_devices(&many).await.expect("import");
    let found = store.find("new-1234").await.expect("look");
    assert_eq!(found[0].id, ids[1234]);
    assert_eq!(
        store.import_devices(&[]).await.expect("nothing"),
        Vec::<DeviceId>::new()
    );
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let (_outer, data) = data_dir();
    let store = open(&data).await;
    let other = TenantId(Uuid::max());
    let devices: Vec<NewDevice> = (0..7)
        .map(|n| NewDevice {
            tenant: if n % 2 == 0 { DEFAULT_TENANT } else { other },
            group: (n < 3).then(|| "core".into()),
            address: format!("192.0.2.{n}"),
            ..device(&format!("edge-{}", n / 2))
        })
        .collect();
    store.import_devices(&devices).await.expect("import");
    let mut page = ListDevices {
        limit: 3,
        ..ListDevices::default()
    };
    let mut read = vec![];
    loop {
        let entries = store.list(&page).await.expect("a page");
        let Some(last) = entries.last() else { break };
        page.after = Some((last.name.clone(), last.id));
        read.extend(entries.into_iter().map(|entry| entry.name));
    }
    assert_eq!(
        read,
        [
            "edge-0", "edge-0", "edge-1", "edge-1", "edge-2", "edge-2", "edge-3"
        ]
    );
    let of = |wanted: ListDevices| names(&store, wanted);
    let all = ListDevices::default;
    assert_eq!(
        of(ListDevices {
            tenant: Some(other),
            ..all()
        })
        .await,
        ["edge-0", "edge-1", "edge-2"]
    );
    assert_eq!(
        of(ListDevices {
            group: Some("core".into()),
            ..all()
        })
        .await
        .len(),
        3
    );
    assert_eq!(
        of(ListDevices {
            named: Some("192.0.2.6".into()),
            ..all()
        })
        .await,
        ["edge-3"]
    );
    assert_eq!(
        of(ListDevices {
            limit: u32::MAX,
            ..all()
        })
        .await
        .len(),
        7
    );
}

#[tokio::test]
async fn a_pin_is_accepted_or_forgotten() {
    let (_outer, data) = data_dir();
    let store = open(&data).await;
    let id = store.add_device(&device("edge")).await.expect("add");
    let [one, two] = [b"one", b"two"].map(|blob| Fingerprint::of_key_blob(blob));
    store.pin_host_key(id, &one).await.expect("the first key");
    let entry = async || {
        store
            .list(&ListDevices::default())
            .await
            .expect("list")
            .remove(0)
    };
    let seen = entry().await;
    assert!(seen.pin_first_seen.is_some() && seen.pin_first_seen == seen.pin_last_verified);
    let before = store.inventory().await.expect("digests");
    store.set_pin(id, Some(&one)).await.expect("the same key");
    assert_eq!(store.inventory().await.expect("digests"), before, "no edit");
    assert_eq!(entry().await, seen);

    store.set_pin(id, Some(&two)).await.expect("another key");
    let accepted = entry().await;
    assert_eq!(accepted.pin, Pin::Pinned(two.clone()));
    assert!(accepted.pin_first_seen.is_some() && accepted.pin_last_verified.is_none());
    assert_eq!(
        store.pin_host_key(id, &one).await.expect("compare"),
        Pin::Pinned(two)
    );
    store.set_pin(id, None).await.expect("forget");
    assert_eq!(entry().await.pin_first_seen, None);
    assert_eq!(
        store.pin_host_key(id, &one).await.expect("pin"),
        Pin::Pinned(one)
    );

    let reader = SqliteStore::open_reading(&data, Clock::System)
        .await
        .expect("a reader");
    let refused = reader.add_device(&device("more")).await;
    assert!(matches!(refused, Err(EditError::Store(_))), "{refused:?}");
}
