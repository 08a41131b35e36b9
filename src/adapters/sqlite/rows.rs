//! What rows mean: the columns that several statements share, and how they become values.

use std::time::Duration;

use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, error::BoxDynError};
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{PrimitiveDateTime, UtcOffset};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

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
         LEFT JOIN device_settings t ON t.device_id = d.id"
    };
}

/// Which devices have a backup task.
macro_rules! is_ours {
    () => {
        "(coalesce(d.device_type, 'routeros') = 'routeros' \
          AND (d.encrypted_credentials_transit IS NOT NULL OR d.encrypted_credentials IS NOT NULL \
               OR p.encrypted_credentials_transit IS NOT NULL OR p.encrypted_credentials IS NOT NULL))"
    };
}

/// The columns of [`super::rows::device`], from `d`, `p`, `t` and the state `s`.
macro_rules! device_columns {
    () => {
        "d.id, d.tenant_id, d.hostname, d.ip_address, d.ssh_port, \
         d.encrypted_credentials AS device_sealed, \
         d.encrypted_credentials_transit AS device_transit, \
         p.encrypted_credentials AS profile_sealed, \
         p.encrypted_credentials_transit AS profile_transit, \
         d.ssh_host_key_fingerprint AS fingerprint, \
         coalesce(s.routeros_version, d.routeros_version) AS routeros_version, \
         t.command_timeout_seconds, t.ssh_algorithms"
    };
}

/// The columns of [`super::rows::last_attempt`], from the state `s`.
macro_rules! last_attempt_columns {
    () => {
        "s.last_attempt_id, s.status, s.error_kind, s.consecutive_failures, s.last_attempt_at, \
         s.last_finished_at, s.last_success_at, s.endpoint_digest, s.credentials_digest, \
         s.pin_digest, s.deaths"
    };
}

pub(super) use {device_columns, devices_with_profiles, is_ours, last_attempt_columns};

/// How times are stored: of one length, so that they sort as text, and known to SQLite's own
/// functions. <https://www.sqlite.org/lang_datefunc.html>
const STORED: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// The longest span, a thousand years: what is later or earlier has no four-digit year.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 86_400);

/// A span as SQL can count with it.
pub(super) fn span(duration: Duration) -> time::Duration {
    time::Duration::try_from(duration.min(LONGEST)).unwrap_or(time::Duration::MAX)
}

/// The stored form of a time.
pub(super) fn stored_time(at: Timestamp) -> String {
    at.to_offset(UtcOffset::UTC)
        .format(STORED)
        .expect("every part of the format is part of a date and time")
}

/// Reads a stored time; also one that an operator wrote with SQLite's `datetime()`.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    const LOOSE: &[FormatItem<'_>] = format_description!(
        "[year]-[month]-[day][first [T] [ ]][hour]:[minute]:[second][optional [.[subsecond]]][optional [Z]]"
    );
    let parsed = PrimitiveDateTime::parse(text, LOOSE).ok()?;
    Some(parsed.assume_utc())
}

pub(super) fn time(row: &SqliteRow, column: &'static str) -> sqlx::Result<Option<Timestamp>> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| parse_time(text).ok_or_else(|| unreadable(column, "no time")))
        .transpose()
}

pub(super) fn needed_time(row: &SqliteRow, column: &'static str) -> sqlx::Result<Timestamp> {
    time(row, column)?.ok_or_else(|| unreadable(column, "no value"))
}

/// Reads an id.
pub(super) fn id(row: &SqliteRow, column: &'static str) -> sqlx::Result<Uuid> {
    let id: Hyphenated = row.try_get(column)?;
    Ok(id.into_uuid())
}

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
pub(super) fn device(row: &SqliteRow) -> sqlx::Result<Device> {
    let credentials = CredentialSource::choose(
        row.try_get("device_transit")?,
        row.try_get("device_sealed")?,
        row.try_get("profile_transit")?,
        row.try_get("profile_sealed")?,
    );
    let pin: Option<&str> = row.try_get("fingerprint")?;
    Ok(Device {
        id: DeviceId(id(row, "id")?),
        tenant: TenantId(id(row, "tenant_id")?),
        name: row.try_get("hostname")?,
        endpoint: Endpoint {
            host: row.try_get("ip_address")?,
            port: port(row.try_get("ssh_port")?),
        },
        credentials: credentials.ok_or_else(|| unreadable("encrypted_credentials", "no value"))?,
        pin: Pin::from_column(pin),
        routeros_version: row.try_get("routeros_version")?,
        settings: settings(row)?,
    })
}

/// The table's constraints let nothing else in; a value that only a newer version knows is none.
pub(super) fn settings(row: &SqliteRow) -> sqlx::Result<DeviceSettings> {
    let seconds: Option<i64> = row.try_get("command_timeout_seconds")?;
    let algorithms: Option<&str> = row.try_get("ssh_algorithms")?;
    Ok(DeviceSettings {
        command_timeout: seconds.and_then(DeviceSettings::timeout_of),
        ssh_algorithms: algorithms.and_then(SshAlgorithms::from_name),
    })
}

/// The stored port; what no port can be stays something that no port can be.
pub(super) fn port(stored: Option<i64>) -> i32 {
    const SSH: i32 = 22; // IANA, and the contract's meaning of NULL
    stored.map_or(SSH, |port| {
        i32::try_from(port).unwrap_or(if port < 0 { i32::MIN } else { i32::MAX })
    })
}

/// Reads `last_attempt_columns!`; `None` when there was no attempt yet. What lies after `now` was
/// stored while the clock was wrong, and counts as now: no schedule may wait for a wrong date.
pub(super) fn last_attempt(row: &SqliteRow, now: Timestamp) -> sqlx::Result<Option<LastAttempt>> {
    let last: Option<Hyphenated> = row.try_get("last_attempt_id")?;
    let Some(last) = last else { return Ok(None) };
    let digest = |column| -> sqlx::Result<Digest> {
        Digest::parse(row.try_get(column)?).ok_or_else(|| unreadable(column, "no SHA-256 digest"))
    };
    let failures: i64 = row.try_get("consecutive_failures")?;
    let deaths: i64 = row.try_get("deaths")?;
    let kind: Option<&str> = row.try_get("error_kind")?;
    Ok(Some(LastAttempt {
        id: AttemptId(last.into_uuid()),
        started_at: needed_time(row, "last_attempt_at")?.min(now),
        finished_at: needed_time(row, "last_finished_at")?.min(now),
        // An outcome that only a newer version knows says nothing to this one.
        status: Status::from_name(row.try_get("status")?).unwrap_or(Status::Interrupted),
        failure: kind.map(FailureKind::from_name),
        consecutive_failures: u32::try_from(failures).unwrap_or(u32::MAX),
        revision: Revision {
            endpoint: digest("endpoint_digest")?,
            credentials: digest("credentials_digest")?,
            pin: digest("pin_digest")?,
        },
        last_success_at: time(row, "last_success_at")?.map(|at| at.min(now)),
        deaths: u32::try_from(deaths).unwrap_or(0),
    }))
}

/// Reads `menu_digests` and `secret_count`; a form that cannot be read is none.
pub(super) fn shape(row: &SqliteRow) -> sqlx::Result<Option<Shape>> {
    let menus = json(row, "menu_digests")?;
    Ok(stored::shape(menus.as_ref(), row.try_get("secret_count")?))
}

/// Reads an array of texts; what is stored otherwise, or not at all, is empty.
pub(super) fn texts(row: &SqliteRow, column: &'static str) -> sqlx::Result<Vec<String>> {
    json(row, column).map(stored::texts)
}

/// Reads `missing_menus`; what cannot be read is none.
pub(super) fn missing_menus(row: &SqliteRow) -> sqlx::Result<MissingMenus> {
    json(row, "missing_menus").map(stored::missing)
}

/// Reads `suspect`; what cannot be read is none.
pub(super) fn suspects(row: &SqliteRow) -> sqlx::Result<Recurrence> {
    json(row, "suspect").map(stored::suspects)
}

/// What is no JSON is none.
fn json(row: &SqliteRow, column: &str) -> sqlx::Result<Option<Value>> {
    let stored: Option<&str> = row.try_get(column)?;
    Ok(stored.and_then(|stored| serde_json::from_str(stored).ok()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn ports_out_of_range_stay_out_of_range() {
        assert_eq!(port(None), 22);
        assert_eq!(port(Some(8291)), 8291);
        assert_eq!(port(Some(i64::MAX)), i32::MAX);
        assert_eq!(port(Some(i64::MIN)), i32::MIN);
    }

    #[test]
    fn times_of_operators_are_read() {
        let at = time::macros::datetime!(2026-01-02 03:04:05 UTC);
        assert_eq!(stored_time(at), "2026-01-02T03:04:05.000000Z");
        for text in [
            "2026-01-02 03:04:05",
            "2026-01-02T03:04:05Z",
            "2026-01-02 03:04:05.000",
        ] {
            assert_eq!(parse_time(text), Some(at), "{text}");
        }
        assert_eq!(parse_time("yesterday"), None);
    }

    fn moments() -> impl Strategy<Value = OffsetDateTime> {
        (-62_000_000_000..250_000_000_000_i64, 0..1_000_000_i64).prop_map(|(seconds, micros)| {
            OffsetDateTime::from_unix_timestamp(seconds).expect("years 5 to 9892")
                + time::Duration::microseconds(micros)
        })
    }

    proptest! {
        #[test]
        fn times_survive_storage_and_sort_as_text(one in moments(), other in moments()) {
            prop_assert_eq!(parse_time(&stored_time(one)), Some(one));
            prop_assert_eq!(stored_time(one).cmp(&stored_time(other)), one.cmp(&other));
        }

        #[test]
        fn no_span_leaves_the_four_digit_years(seconds in any::<u64>()) {
            let now = time::macros::datetime!(2026-01-02 03:04:05 UTC);
            let span = span(Duration::from_secs(seconds));
            prop_assert_eq!(stored_time(now - span).len(), stored_time(now + span).len());
        }
    }
}
