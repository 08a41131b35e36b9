//! Opening the credentials of a device: the ciphertext that counts and the JSON inside, never shown.

mod key;
mod transit;

use std::sync::Arc;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

use crate::domain::device::{CredentialSource, Device, DeviceId};
use crate::domain::failure::FailureKind;

pub use key::{Key, KeyError, Unsealable};
pub use transit::{Transit, TransitConfigError, TransitError};

/// What a device is logged in to with. `Debug` shows which secrets are there, not what they are.
#[derive(Clone, Debug, Deserialize)]
pub struct Login {
    /// The user on the router.
    pub username: String,
    /// The password; the empty one is a password too, and RouterOS ships with it.
    #[serde(default, deserialize_with = "secret")]
    pub password: Option<SecretString>,
    /// A private key in OpenSSH or PEM form.
    #[serde(default, deserialize_with = "secret")]
    pub private_key: Option<SecretString>,
    /// What the private key is encrypted with.
    #[serde(default, deserialize_with = "secret")]
    pub private_key_passphrase: Option<SecretString>,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

impl Login {
    /// Reads the credential JSON; fields it does not know are ignored.
    ///
    /// # Errors
    /// [`LoginError`] names the field that is missing or of the wrong type, and no content.
    pub fn from_json(json: &[u8]) -> Result<Self, LoginError> {
        let login: Self = serde_json::from_slice(json).map_err(|error| LoginError::of(&error))?;
        login.check()?;
        Ok(login)
    }

    /// Whether there is a user and something to prove it with.
    ///
    /// # Errors
    /// [`LoginError::NoUser`], [`LoginError::NoSecret`].
    pub fn check(&self) -> Result<(), LoginError> {
        if self.username.is_empty() {
            return Err(LoginError::NoUser);
        }
        if self.password.is_none() && self.key_text().is_none() {
            return Err(LoginError::NoSecret);
        }
        Ok(())
    }

    /// The private key; an empty text, as forms store it, is none.
    pub fn key_text(&self) -> Option<&SecretString> {
        self.private_key
            .as_ref()
            .filter(|text| !text.expose_secret().trim().is_empty())
    }

    /// The passphrase of the private key; an empty text is none.
    pub fn passphrase(&self) -> Option<&SecretString> {
        self.private_key_passphrase
            .as_ref()
            .filter(|text| !text.expose_secret().is_empty())
    }
}

/// Plaintext that is no usable login.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoginError {
    /// Not JSON at all.
    #[error("the decrypted text is not JSON (column {column}); store the credentials again")]
    NotJson {
        /// Where the parser stopped.
        column: usize,
    },
    /// JSON of another shape.
    #[error(
        "the decrypted JSON is not an object with a text \"username\" and a text \"password\" or \
         \"private_key\" (column {column}); store the credentials again"
    )]
    Shape {
        /// Where the parser stopped.
        column: usize,
    },
    /// An empty user name.
    #[error("\"username\" is empty; store the credentials again")]
    NoUser,
    /// Neither password nor key.
    #[error("neither \"password\" nor \"private_key\" is there; store the credentials again")]
    NoSecret,
}

impl LoginError {
    /// Keeps of a parser's error only what cannot hold content: serde repeats values in its texts.
    fn of(error: &serde_json::Error) -> Self {
        let column = error.column();
        match error.classify() {
            serde_json::error::Category::Data => Self::Shape { column },
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => Self::NotJson { column },
        }
    }
}

/// Opens the credentials of devices.
#[derive(Clone, Debug)]
pub struct Credentials {
    key: Option<Key>,
    transit: Option<Arc<Transit>>,
}

impl Credentials {
    /// An opener with this key; without one, sealed credentials are an error per device.
    pub fn new(key: Option<Key>) -> Self {
        Self { key, transit: None }
    }

    /// The same, which opens Transit ciphertexts too.
    #[must_use]
    pub fn with_transit(self, transit: Option<Arc<Transit>>) -> Self {
        Self { transit, ..self }
    }

    /// What opens Transit ciphertexts.
    pub fn transit(&self) -> Option<&Transit> {
        self.transit.as_deref()
    }

    /// Forgets what is kept of the credentials of `device`.
    pub fn forget(&self, device: DeviceId) {
        if let Some(transit) = &self.transit {
            transit.forget(device);
        }
    }

    /// Opens the one place of `device` that counts. Cancel safe.
    ///
    /// # Errors
    /// [`CredentialError`] names the device, the column and what is wrong; never content.
    pub async fn open(&self, device: &Device) -> Result<Login, CredentialError> {
        let plaintext = self.plaintext(device).await;
        plaintext
            .and_then(|plaintext| Login::from_json(&plaintext).map_err(Reason::Login))
            .map_err(|reason| CredentialError {
                device: device.id,
                place: device.credentials.place(),
                reason,
            })
    }

    /// The decrypted JSON.
    async fn plaintext(&self, device: &Device) -> Result<Zeroizing<Vec<u8>>, Reason> {
        match &device.credentials {
            CredentialSource::DeviceSealed(sealed) | CredentialSource::ProfileSealed(sealed) => {
                let key = self.key.as_ref().ok_or(Reason::NoKey)?;
                key.open(sealed).map_err(Reason::Unsealable)
            }
            CredentialSource::DeviceTransit(text) | CredentialSource::ProfileTransit(text) => {
                let transit = self.transit.as_ref().ok_or(Reason::NoTransit)?;
                let opened = transit.decrypt(device.id, device.tenant, text).await;
                opened.map_err(Reason::Transit)
            }
        }
    }
}

/// The credentials of a device could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to open the credentials of device {device} in {place}")]
pub struct CredentialError {
    device: DeviceId,
    place: &'static str,
    #[source]
    reason: Reason,
}

impl CredentialError {
    /// The kind of failure that an attempt ends with, unless it [is passing](Self::is_passing).
    pub fn kind(&self) -> FailureKind {
        FailureKind::CredentialsUnreadable
    }

    /// Whether it says nothing about the device: what opens its credentials is away.
    pub fn is_passing(&self) -> bool {
        matches!(&self.reason, Reason::Transit(TransitError::Away { .. }))
    }
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("CREDENTIAL_ENCRYPTION_KEY is not set, and it is what opens them")]
    NoKey,
    #[error("they are Transit ciphertext, and OPENBAO_ADDR, which names what opens it, is not set")]
    NoTransit,
    #[error(transparent)]
    Transit(TransitError),
    #[error(transparent)]
    Unsealable(Unsealable),
    #[error(transparent)]
    Login(LoginError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::device::{Endpoint, TenantId};
    use crate::domain::failure::chain;
    use crate::domain::host_key::Pin;

    fn key() -> Key {
        Key::from_bytes([7; 32])
    }

    fn device(credentials: CredentialSource) -> Device {
        Device {
            id: DeviceId(Uuid::from_u128(1)),
            tenant: TenantId(Uuid::from_u128(2)),
            name: "edge-1".into(),
            endpoint: Endpoint {
                host: "192.0.2.1".into(),
                port: 22,
            },
            credentials,
            pin: Pin::Unpinned,
            routeros_version: None,
            settings: Default::default(),
        }
    }

    async fn open(credentials: CredentialSource) -> Result<Login, CredentialError> {
        Credentials::new(Some(key()))
            .open(&device(credentials))
            .await
    }

    fn exposed(secret: Option<&SecretString>) -> Option<&str> {
        secret.map(ExposeSecret::expose_secret)
    }

    #[tokio::test]
    async fn a_sealed_login_opens_and_ignores_unknown_fields() {
        let json =
            br#"{"username":"backup","password":"p\u00e4ss","port":8728,"private_key":null}"#;
        for source in [
            CredentialSource::DeviceSealed,
            CredentialSource::ProfileSealed,
        ] {
            let login = open(source(key().seal([1; 12], json)))
                .await
                .expect("opens");
            assert_eq!(login.username, "backup");
            assert_eq!(exposed(login.password.as_ref()), Some("p\u{e4}ss"));
            assert!(login.key_text().is_none());
            assert!(!format!("{login:?}").contains("p\u{e4}ss"));
        }
    }

    #[tokio::test]
    async fn errors_name_device_column_and_fault_but_no_content() {
        let sealed =
            |json: &str| CredentialSource::DeviceSealed(key().seal([2; 12], json.as_bytes()));
        let mut damaged = key().seal([3; 12], b"{}");
        damaged[12] ^= 1;
        for (source, fault) in [
            (sealed("hunter2"), "not JSON"),
            (sealed(r#""hunter2""#), "not an object"),
            (sealed(r#"{"password":"hunter2"}"#), "username"),
            (
                sealed(r#"{"username":"backup","password":["hunter2"]}"#),
                "password",
            ),
            (sealed(r#"{"username":"hunter2"}"#), "neither"),
            (
                sealed(r#"{"username":"","password":"hunter2"}"#),
                "username",
            ),
            (
                sealed(r#"{"username":"backup","private_key":" "}"#),
                "neither",
            ),
            (CredentialSource::DeviceSealed(damaged), "another key"),
            (CredentialSource::DeviceSealed(vec![1; 27]), "27 bytes"),
            (CredentialSource::DeviceSealed(Vec::new()), "0 bytes"),
        ] {
            let error = open(source).await.expect_err(fault);
            let text = chain(&error);
            assert!(text.contains(fault), "{text}");
            assert!(
                text.contains("00000000-0000-0000-0000-000000000001"),
                "{text}"
            );
            assert!(text.contains("devices.encrypted_credentials"), "{text}");
            assert!(!text.contains("hunter2") && !format!("{error:?}").contains("hunter2"));
            assert_eq!(error.kind(), FailureKind::CredentialsUnreadable);
        }
    }

    #[tokio::test]
    async fn transit_ciphertext_and_a_missing_key_say_what_is_needed() {
        let transit = CredentialSource::ProfileTransit("vault:v1:AAAA".into());
        let text = chain(&open(transit).await.expect_err("no OpenBao"));
        assert!(
            text.contains("OPENBAO_ADDR") && !text.contains("vault:v1"),
            "{text}"
        );
        let sealed = device(CredentialSource::DeviceSealed(key().seal([4; 12], b"{}")));
        let error = Credentials::new(None).open(&sealed).await;
        assert!(chain(&error.expect_err("no key")).contains("CREDENTIAL_ENCRYPTION_KEY"));
    }

    proptest! {
        #[test]
        fn no_plaintext_panics_the_reader(json in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Login::from_json(&json);
        }
    }
}
