//! What rows mean: the columns that several statements share, and how they become values.

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Row, error::BoxDynError};
use uuid::Uuid;

pub(super) use crate::adapters::stored::{self, bigint, storable};
use crate::domain::Timestamp;
use crate::domain::attempt::{AttemptId, LastAttempt, Status};
use crate::domain::device::{CredentialSource, Device, DeviceId, Endpoint, Revision, TenantId};
use crate::domain::digest::Digest;
use crate::domain::failure::FailureKind;
use crate::domain::host_key::Pin;
use crate::domain::session::{DeviceSettings, MissingMenus, SshAlgorithms};
use crate::domain::snapshot::Shape;
use crate::domain::suspect::Recurrence;

/// A device with its profile and its settings: `d`, `p` and `t`.
macro_rules! devices_with_profiles {
    () => {
        "devices d LEFT JOIN credential_profiles p ON p.id = d.credential_profile_id \
         LEFT JOIN mikrotik_backup.device_settings t ON t.device_id = d.id"
    };
}

/// Which devices have a backup task.
macro_rules! is_ours {
    () => {
        "(coalesce(d.device_type::text, 'routeros') = 'routeros' \
          AND (d.encrypted_credentials_transit IS NOT NULL OR d.encrypted_credentials IS NOT NULL \
               OR p.encrypted_credentials_transit IS NOT NULL OR p.encrypted_credentials IS NOT NULL))"
    };
}

/// The columns of [`super::rows::device`], from `d`, `p`, `t` and the state `s`. A platform's table may
/// have related types (varchar, inet, an enum): `format` prints an inet as it was entered, where a
/// cast would append its prefix length.
macro_rules! device_columns {
    () => {
        "d.id, d.tenant_id, d.hostname::text AS hostname, format('%s', d.ip_address) AS ip_address, \
         d.ssh_port::text AS ssh_port, d.encrypted_credentials AS device_sealed, \
         d.encrypted_credentials_transit::text AS device_transit, \
         p.encrypted_credentials AS profile_sealed, \
         p.encrypted_credentials_transit::text AS profile_transit, \
         d.ssh_host_key_fingerprint::text AS fingerprint, \
         coalesce(s.routeros_version, d.routeros_version::text) AS routeros_version, \
         t.command_timeout_seconds::bigint AS command_timeout_seconds, t.ssh_algorithms"
    };
}

/// The columns of [`super::rows::last_attempt`], from the state `s`. Times are ages in
/// microseconds, so that the difference between the two clocks cancels.
macro_rules! last_attempt_columns {
    () => {
        "s.last_attempt_id, s.status, s.error_kind, s.consecutive_failures, \
         (extract(epoch FROM statement_timestamp() - s.last_attempt_at) * 1000000)::bigint AS started_age, \
         (extract(epoch FROM statement_timestamp() - s.last_finished_at) * 1000000)::bigint AS finished_age, \
         (extract(epoch FROM statement_timestamp() - s.last_success_at) * 1000000)::bigint AS success_age, \
         s.endpoint_digest, s.credentials_digest, s.pin_digest, s.deaths"
    };
}

pub(super) use {device_columns, devices_with_profiles, is_ours, last_attempt_columns};

/// A row that does not say what it should.
#[derive(Debug, thiserror::Error)]
#[error("column {column} has {problem}")]
struct Unreadable {
    column: &'static str,
    problem: &'static str,
}

pub(super) fn unreadable(column: &'static str, problem: &'static str) -> sqlx::Error {
    let source: BoxDynError = Box::new(Unreadable { column, problem });
    sqlx::Error::Decode(source)
}

/// Reads `device_columns!`.
pub(super) fn device(row: &PgRow) -> sqlx::Result<Device> {
    let id = DeviceId(row.try_get("id")?);
    let tenant: Option<Uuid> = row.try_get("tenant_id")?;
    let tenant = tenant.ok_or_else(|| unreadable("devices.tenant_id", "no value"))?;
    let credentials = CredentialSource::choose(
        row.try_get("device_transit")?,
        row.try_get("device_sealed")?,
        row.try_get("profile_transit")?,
        row.try_get("profile_sealed")?,
    );
    let name: Option<String> = row.try_get("hostname")?;
    let pin: Option<String> = row.try_get("fingerprint")?;
    Ok(Device {
        id,
        tenant: TenantId(tenant),
        name: name.unwrap_or_else(|| id.to_string()),
        endpoint: Endpoint {
            host: row.try_get("ip_address")?,
            port: port(row.try_get("ssh_port")?),
        },
        credentials: credentials.ok_or_else(|| unreadable("encrypted_credentials", "no value"))?,
        pin: Pin::from_column(pin.as_deref()),
        routeros_version: row.try_get("routeros_version")?,
        settings: settings(row)?,
    })
}

/// The table's constraints let nothing else in; a value that only a newer version knows is none.
fn settings(row: &PgRow) -> sqlx::Result<DeviceSettings> {
    let seconds: Option<i64> = row.try_get("command_timeout_seconds")?;
    let algorithms: Option<&str> = row.try_get("ssh_algorithms")?;
    Ok(DeviceSettings {
        command_timeout: seconds.and_then(DeviceSettings::timeout_of),
        ssh_algorithms: algorithms.and_then(SshAlgorithms::from_name),
    })
}

/// The stored port; what no port can be stays something that no port can be.
fn port(stored: Option<&str>) -> i32 {
    const SSH: i32 = 22; // IANA, and the contract's meaning of NULL
    match stored {
        None => SSH,
        Some(text) => text.parse::<i64>().map_or(-1, |port| {
            i32::try_from(port).unwrap_or(if port < 0 { i32::MIN } else { i32::MAX })
        }),
    }
}

/// Reads `last_attempt_columns!`; `None` when there was no attempt yet. `now` is the local time at
/// which the row arrived.
pub(super) fn last_attempt(row: &PgRow, now: Timestamp) -> sqlx::Result<Option<LastAttempt>> {
    let id: Option<Uuid> = row.try_get("last_attempt_id")?;
    let Some(id) = id else { return Ok(None) };
    let at = |column| -> sqlx::Result<Option<Timestamp>> {
        let age: Option<i64> = row.try_get(column)?;
        Ok(age.map(|age| now - time::Duration::microseconds(age)))
    };
    let digest = |column| -> sqlx::Result<Digest> {
        Digest::parse(row.try_get(column)?)
            .ok_or_else(|| unreadable("*_digest", "no SHA-256 digest"))
    };
    let missing = || unreadable("device_state.last_attempt_at", "no value");
    let failures: i32 = row.try_get("consecutive_failures")?;
    let deaths: i32 = row.try_get("deaths")?;
    let kind: Option<&str> = row.try_get("error_kind")?;
    Ok(Some(LastAttempt {
        id: AttemptId(id),
        started_at: at("started_age")?.ok_or_else(missing)?,
        finished_at: at("finished_age")?.ok_or_else(missing)?,
        // An outcome that only a newer version knows says nothing to this one.
        status: Status::from_name(row.try_get("status")?).unwrap_or(Status::Interrupted),
        failure: kind.map(FailureKind::from_name),
        consecutive_failures: u32::try_from(failures).unwrap_or(0),
        revision: Revision {
            endpoint: digest("endpoint_digest")?,
            credentials: digest("credentials_digest")?,
            pin: digest("pin_digest")?,
        },
        last_success_at: at("success_age")?,
        deaths: u32::try_from(deaths).unwrap_or(0),
    }))
}

/// Reads `menu_digests` and `secret_count`; a form that cannot be read is none.
pub(super) fn shape(row: &PgRow) -> sqlx::Result<Option<Shape>> {
    let menus = json(row, "menu_digests")?;
    Ok(stored::shape(menus.as_ref(), row.try_get("secret_count")?))
}

/// Reads an array of texts; what is stored otherwise, or not at all, is empty.
pub(super) fn texts(row: &PgRow, column: &'static str) -> sqlx::Result<Vec<String>> {
    json(row, column).map(stored::texts)
}

/// Reads `missing_menus`; what cannot be read is none.
pub(super) fn missing_menus(row: &PgRow) -> sqlx::Result<MissingMenus> {
    json(row, "missing_menus").map(stored::missing)
}

/// Reads `suspect`; what cannot be read is none.
pub(super) fn suspects(row: &PgRow) -> sqlx::Result<Recurrence> {
    json(row, "suspect").map(stored::suspects)
}

fn json(row: &PgRow, column: &str) -> sqlx::Result<Option<Value>> {
    let stored: Option<Json<Value>> = row.try_get(column)?;
    Ok(stored.map(|Json(stored)| stored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_out_of_range_stay_out_of_range() {
        assert_eq!(port(None), 22);
        assert_eq!(port(Some("8291")), 8291);
        assert_eq!(port(Some("9223372036854775807")), i32::MAX);
        assert_eq!(port(Some("-9223372036854775808")), i32::MIN);
        assert_eq!(port(Some("22.5")), -1);
    }
}
