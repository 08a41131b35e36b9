//! What goes over the control socket, as JSON. Secrets redact themselves in `Debug`.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::adapters::sqlite::{DeviceEdit, NewDevice};
use crate::archive::Pruned;
use crate::credentials::Login;
use crate::domain::archive::Retention;
use crate::domain::device::{DeviceId, TenantId};
use crate::domain::host_key::Fingerprint;
use crate::domain::session::{DeviceSettings, SshAlgorithms};

pub use crate::api::wire::{Backup, Change};

/// A login with its secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoginBody {
    username: String,
    #[serde(default, serialize_with = "expose", deserialize_with = "conceal")]
    password: Option<SecretString>,
    #[serde(default, serialize_with = "expose", deserialize_with = "conceal")]
    private_key: Option<SecretString>,
    #[serde(default, serialize_with = "expose", deserialize_with = "conceal")]
    private_key_passphrase: Option<SecretString>,
}

fn expose<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    let exposed = secret.as_ref().map(|secret| secret.expose_secret());
    exposed.serialize(serializer)
}

fn conceal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

impl From<Login> for LoginBody {
    fn from(login: Login) -> Self {
        Self {
            username: login.username,
            password: login.password,
            private_key: login.private_key,
            private_key_passphrase: login.private_key_passphrase,
        }
    }
}

impl From<LoginBody> for Login {
    fn from(body: LoginBody) -> Self {
        Self {
            username: body.username,
            password: body.password,
            private_key: body.private_key,
            private_key_passphrase: body.private_key_passphrase,
        }
    }
}

/// A device to add.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceBody {
    /// Whose it is.
    #[serde(default = "nobody")]
    pub tenant: Uuid,
    /// Its name.
    pub name: String,
    /// IP address or DNS name.
    pub address: String,
    /// The SSH port; none means 22.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its group.
    #[serde(default)]
    pub group: Option<String>,
    /// Words to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Seconds for one whole session; none means the service's.
    #[serde(default)]
    pub command_timeout: Option<u32>,
    /// `modern` or `compatible`; none means the service's.
    #[serde(default, with = "algorithms")]
    pub ssh_algorithms: Option<SshAlgorithms>,
    /// The host key to trust, `SHA256:` and unpadded base64; none trusts the next one seen.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "fingerprint")]
    pub host_key: Option<Fingerprint>,
    /// What to log in with.
    pub login: LoginBody,
}

fn nobody() -> Uuid {
    crate::adapters::sqlite::DEFAULT_TENANT.0
}

impl From<DeviceBody> for NewDevice {
    fn from(body: DeviceBody) -> Self {
        Self {
            tenant: TenantId(body.tenant),
            name: body.name,
            address: body.address,
            port: body.port,
            group: body.group,
            tags: body.tags,
            settings: DeviceSettings {
                command_timeout: body.command_timeout.map(seconds),
                ssh_algorithms: body.ssh_algorithms,
            },
            host_key: body.host_key,
            login: body.login.into(),
        }
    }
}

impl From<NewDevice> for DeviceBody {
    fn from(device: NewDevice) -> Self {
        Self {
            tenant: device.tenant.0,
            name: device.name,
            address: device.address,
            port: device.port,
            group: device.group,
            tags: device.tags,
            command_timeout: device.settings.command_timeout.map(in_seconds),
            ssh_algorithms: device.settings.ssh_algorithms,
            host_key: device.host_key,
            login: device.login.into(),
        }
    }
}

/// Devices to add: all of them or, when one cannot be added, none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddBody {
    /// The devices.
    pub devices: Vec<DeviceBody>,
}

/// Devices that were added.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Added {
    /// Their ids, in the order of the request.
    pub ids: Vec<DeviceId>,
}

/// What to change of a device; what is not there stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditBody {
    /// A new owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Uuid>,
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A new address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// A new port; `null` is the default one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "there"
    )]
    pub port: Option<Option<u16>>,
    /// A new group; `null` is none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "there"
    )]
    pub group: Option<Option<String>>,
    /// New tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// A new command timeout in seconds; `null` is the service's.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "there"
    )]
    pub command_timeout: Option<Option<u32>>,
    /// `modern`, `compatible`, or `null` for the service's.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "algorithms::or_not_there"
    )]
    pub ssh_algorithms: Option<Option<SshAlgorithms>>,
    /// A new login. The same one again lifts a block of a login that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginBody>,
    /// Somebody has looked at its warning, which goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warning_seen: bool,
}

impl EditBody {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        let Self {
            tenant,
            name,
            address,
            port,
            group,
            tags,
            command_timeout,
            ssh_algorithms,
            login,
            warning_seen,
        } = self;
        tenant.is_none()
            && name.is_none()
            && address.is_none()
            && port.is_none()
            && group.is_none()
            && tags.is_none()
            && command_timeout.is_none()
            && ssh_algorithms.is_none()
            && login.is_none()
            && !warning_seen
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

fn in_seconds(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX)
}

/// A fingerprint as its text.
mod fingerprint {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use crate::domain::host_key::Fingerprint;

    pub fn serialize<S: Serializer>(
        fingerprint: &Option<Fingerprint>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = fingerprint.as_ref().map(Fingerprint::as_str);
        text.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Fingerprint>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| {
            let form = "SHA256: and 43 characters of base64";
            Fingerprint::parse(&text)
                .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &form))
        })
        .transpose()
    }
}

/// Algorithms by their name.
mod algorithms {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use crate::domain::session::SshAlgorithms;

    pub fn serialize<S: Serializer>(
        algorithms: &Option<SshAlgorithms>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        algorithms.map(SshAlgorithms::as_str).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SshAlgorithms>, D::Error> {
        let name = Option::<String>::deserialize(deserializer)?;
        name.map(|name| {
            SshAlgorithms::from_name(&name)
                .ok_or_else(|| de::Error::unknown_variant(&name, SshAlgorithms::NAMES))
        })
        .transpose()
    }

    /// A field that may not be there at all.
    pub mod or_not_there {
        use super::{Deserializer, Serializer, SshAlgorithms};

        pub fn serialize<S: Serializer>(
            algorithms: &Option<Option<SshAlgorithms>>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            super::serialize(&algorithms.flatten(), serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Option<SshAlgorithms>>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}

/// Tells `null` from a field that is not there.
fn there<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

impl From<EditBody> for DeviceEdit {
    fn from(body: EditBody) -> Self {
        Self {
            tenant: body.tenant.map(TenantId),
            name: body.name,
            address: body.address,
            port: body.port,
            group: body.group,
            tags: body.tags,
            command_timeout: body.command_timeout.map(|timeout| timeout.map(seconds)),
            ssh_algorithms: body.ssh_algorithms,
            login: body.login.map(Login::from),
            warning_seen: body.warning_seen,
        }
    }
}

/// A host key to trust.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostKeyBody {
    /// `SHA256:` and unpadded base64.
    pub fingerprint: String,
}

/// What to prune.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneBody {
    /// Which versions stay; none means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Attempts older than so many days leave the journal.
    pub journal_days: u64,
}

/// What was pruned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PrunedBody {
    /// Versions, where a retention was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<Pruned>,
    /// Rows of the journal.
    pub attempts: u64,
}

/// What a running service says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatusBody {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// How many devices are in each state.
    pub devices: std::collections::BTreeMap<String, usize>,
}

/// Why a request was refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong and what to do.
    pub error: String,
    /// Which of several devices it is about, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_tells_null_from_nothing() {
        let edit = |json| serde_json::from_str::<EditBody>(json).expect("an edit");
        assert_eq!(edit("{}").port, None);
        assert_eq!(edit(r#"{"port":null}"#).port, Some(None));
        assert_eq!(edit(r#"{"port":2222}"#).port, Some(Some(2222)));
        let back = serde_json::to_string(&edit(r#"{"group":null}"#)).expect("JSON");
        assert_eq!(back, r#"{"group":null}"#);
        assert!(serde_json::from_str::<EditBody>(r#"{"adress":"x"}"#).is_err());
    }

    #[test]
    fn a_login_survives_the_way_and_is_not_shown() {
        let login = LoginBody {
            username: "backup".into(),
            password: Some("p4ss-of-a-test".into()),
            private_key: None,
            private_key_passphrase: None,
        };
        assert!(!format!("{login:?}").contains("p4ss-of-a-test"));
        let json = serde_json::to_string(&login).expect("JSON");
        let back: Login = serde_json::from_str::<LoginBody>(&json)
            .expect("a login")
            .into();
        let password = back.password.expect("a password");
        assert_eq!(password.expose_secret(), "p4ss-of-a-test");
    }
}
