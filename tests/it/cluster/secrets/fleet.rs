//! Routers with every kind of login and of failure.

use std::net::Ipv4Addr;

use mikrotik_backup::credentials::Key;
use mikrotik_backup::sim::{Fault, Router, RouterOptions};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use serde_json::json;
use uuid::Uuid;

use super::search::{
    DEVICE_PASSWORD, FIREWALL_COMMENT, NOTE, PASSPHRASE, UNREADABLE, WRONG_PASSPHRASE,
    WRONG_PASSWORD,
};
use crate::cluster::harness::{Cluster, KEY};
use crate::services::postgres::{NewDevice, insert_device};

/// A device of the test and what its first attempt is to come to; `None` where it cannot be stored.
pub struct Planned {
    pub name: String,
    pub device: Uuid,
    pub kind: Option<&'static str>,
    pub recorded: bool,
    _router: Router,
}

/// Routers of every kind of login and of failure.
pub async fn start_fleet(cluster: &Cluster, key: &PrivateKey, pem: &str) -> Vec<Planned> {
    let login = |password: &str| json!({ "username": "backup", "password": password });
    let with_key = |passphrase: &str| {
        json!({
            "username": "backup", "private_key": pem, "private_key_passphrase": passphrase,
        })
    };
    let right = login(DEVICE_PASSWORD).to_string();
    let key_text = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{UNREADABLE}\n");
    let unreadable = "credentials_unreadable";
    let plans = [
        ("by-password", right.clone(), None, None),
        (
            "by-keyboard",
            right.clone(),
            Some(Fault::KeyboardInteractiveOnly),
            None,
        ),
        ("by-key", with_key(PASSPHRASE).to_string(), None, None),
        ("unrecordable", right.clone(), None, None),
        (
            "refused",
            login(WRONG_PASSWORD).to_string(),
            None,
            Some("auth_failed"),
        ),
        (
            "wrong-passphrase",
            with_key(WRONG_PASSPHRASE).to_string(),
            None,
            Some(unreadable),
        ),
        (
            "no-key",
            json!({ "username": "backup", "private_key": key_text }).to_string(),
            None,
            Some(unreadable),
        ),
        (
            "wrong-shape",
            json!({ "username": "backup", "password": [UNREADABLE] }).to_string(),
            None,
            Some(unreadable),
        ),
        (
            "wrong-user",
            json!({ "username": { UNREADABLE: 1 }, "password": 1 }).to_string(),
            None,
            Some(unreadable),
        ),
        ("no-json", UNREADABLE.to_owned(), None, Some(unreadable)),
        ("other-key", right.clone(), None, Some(unreadable)),
        (
            "cut",
            right.clone(),
            Some(Fault::CutMidLine),
            Some("truncated_output"),
        ),
        (
            "interrupted",
            right.clone(),
            Some(Fault::Interrupted),
            Some("truncated_output"),
        ),
        (
            "dropped",
            right.clone(),
            Some(Fault::DropConnectionMidOutput),
            Some("truncated_output"),
        ),
        (
            "cut-login",
            right,
            Some(Fault::CutDuringLogin),
            Some("connection_lost"),
        ),
    ];
    let mut fleet = Vec::new();
    for ((name, login, fault, kind), number) in plans.into_iter().zip(1..) {
        let router = router(name, number, (name == "by-key").then_some(key));
        if let Some(fault) = fault {
            router.set_fault(fault);
        }
        let sealing = match name {
            "other-key" => Key::from_bytes(*b"an0ther-key-than-that-of-cluster"),
            _ => Key::from_bytes(KEY),
        };
        let sealed = sealing.seal(rand::random(), login.as_bytes());
        let device = insert(cluster, &router, sealed).await;
        if name == "unrecordable" {
            // PostgreSQL shows the whole row in the detail of such an error.
            let constraint = format!(
                "ALTER TABLE mikrotik_backup.attempts \
                 ADD CONSTRAINT refused_by_the_test CHECK (device_id <> '{device}')"
            );
            cluster.database.sql(&constraint).await;
        }
        fleet.push(Planned {
            name: name.to_owned(),
            device,
            kind,
            recorded: name != "unrecordable",
            _router: router,
        });
    }
    fleet
}

pub fn router(name: &str, number: u8, key: Option<&PrivateKey>) -> Router {
    let router = Router::start_one(RouterOptions {
        name: name.to_owned(),
        address: (Ipv4Addr::new(127, 24, 0, number), 0).into(),
        seed: u64::from(number),
        password: DEVICE_PASSWORD.to_owned(),
        authorized_key: key.map(|key| key.public_key().clone()),
        ..RouterOptions::default()
    });
    let router = router.expect("start a router");
    router.change(|configuration| {
        configuration.add_firewall_rule(FIREWALL_COMMENT);
        configuration.note = NOTE.to_owned();
    });
    router
}

pub async fn insert(cluster: &Cluster, router: &Router, sealed: Vec<u8>) -> Uuid {
    let address = router.address();
    let device = NewDevice {
        hostname: router.name().to_owned(),
        ip_address: address.ip().to_string(),
        ssh_port: Some(address.port().into()),
        encrypted_credentials: Some(sealed),
        ..NewDevice::default()
    };
    insert_device(cluster.pool(), device).await.0
}

/// A private key, and its encrypted form.
pub fn user_key() -> (PrivateKey, String) {
    let pair = Ed25519Keypair::from_seed(&[0x5a; 32]);
    let key = PrivateKey::new(KeypairData::Ed25519(pair), "backup").expect("a key");
    let sealed = key
        .encrypt(&mut rand::rng(), PASSPHRASE)
        .expect("encrypt the key");
    let pem = sealed.to_openssh(LineEnding::LF).expect("the OpenSSH form");
    (key, pem.to_string())
}
