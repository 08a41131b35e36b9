//! How a version is named on the command line: by its id, from the newest back, or by a time.

use std::str::FromStr;

use anyhow::anyhow;
use time::format_description::FormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

use super::{Subject, no_version};
use crate::app::AppError;
use crate::cli::reading::unreadable_archive;
use crate::domain::Timestamp;
use crate::domain::archive::{Version, VersionId};
use crate::ports::{Archive, VersionPage};
use crate::report::moment;

/// Which version is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    /// The newest, or one so many before it.
    Back(u32),
    /// This one.
    Id(VersionId),
    /// The one in force at this time.
    At(Timestamp),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(back) = text.strip_prefix("latest") {
            let steps = match back {
                "" => Some(0),
                _ => back.strip_prefix('~').and_then(|steps| steps.parse().ok()),
            };
            return steps
                .map(Self::Back)
                .ok_or_else(|| "`latest~` takes a whole number, as in latest~2".into());
        }
        if let Ok(id) = Uuid::parse_str(text) {
            return Ok(Self::Id(VersionId(id)));
        }
        parse_time(text).map(Self::At).map_err(|_| {
            "neither the id of a version, `latest`, `latest~N`, nor a time such as \
             2026-01-02T03:04:05Z or 2026-01-02"
                .into()
        })
    }
}

/// Reads a time; without an offset it is UTC, and a date is its midnight.
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    const DATE: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]");
    const PLAIN: &[FormatItem<'_>] = format_description!(
        "[year]-[month]-[day][first [T] [ ]][hour]:[minute][optional [:[second]]]"
    );
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| PrimitiveDateTime::parse(text, PLAIN).map(PrimitiveDateTime::assume_utc))
        .or_else(|_| Date::parse(text, DATE).map(|date| date.midnight().assume_utc()))
        .map_err(|_| "no time such as 2026-01-02T03:04:05Z, 2026-01-02 03:04 or 2026-01-02".into())
}

/// The version of `subject` that is meant.
pub(super) async fn find(
    archive: &dyn Archive,
    subject: &Subject,
    which: Which,
) -> Result<Version, AppError> {
    match which {
        Which::Back(steps) => back(archive, subject, steps).await,
        Which::At(at) => {
            let found = archive.version_at(subject.id, at).await;
            found.map_err(unreadable_archive)?.ok_or_else(|| {
                let (name, at) = (&subject.name, moment(at));
                AppError::Failed(anyhow!("no version of {name} is as old as {at}"))
            })
        }
        Which::Id(id) => {
            let opened = archive.open(id).await.map_err(unreadable_archive)?;
            if opened.version.device != subject.id {
                let (name, owner) = (&subject.name, opened.version.device);
                return Err(AppError::Failed(anyhow!(
                    "version {id} is not one of {name}, but of device {owner}"
                )));
            }
            Ok(opened.version)
        }
    }
}

async fn back(archive: &dyn Archive, subject: &Subject, steps: u32) -> Result<Version, AppError> {
    let mut left = steps;
    let mut page = VersionPage::first(left.saturating_add(1).min(VersionPage::MAX));
    let mut seen = 0_u64;
    loop {
        let versions = archive.versions(subject.id, page).await;
        let versions = versions.map_err(unreadable_archive)?;
        seen += versions.len() as u64;
        let Some(last) = versions.last() else {
            return Err(match seen {
                0 => no_version(subject),
                1 => AppError::Failed(anyhow!("only one version of {} is archived", subject.name)),
                _ => AppError::Failed(anyhow!(
                    "only {seen} versions of {} are archived",
                    subject.name
                )),
            });
        };
        if let Some(version) = versions.get(left as usize) {
            return Ok(version.clone());
        }
        left -= u32::try_from(versions.len()).unwrap_or(left).min(left);
        page = VersionPage::after(last, left.saturating_add(1).min(VersionPage::MAX));
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn versions_are_named_in_three_ways() {
        assert_eq!("latest".parse(), Ok(Which::Back(0)));
        assert_eq!("latest~12".parse(), Ok(Which::Back(12)));
        let id = Uuid::from_u128(7);
        assert_eq!(id.to_string().parse(), Ok(Which::Id(VersionId(id))));
        let midnight = datetime!(2026-01-02 00:00 UTC);
        assert_eq!("2026-01-02".parse(), Ok(Which::At(midnight)));
        for bad in [
            "",
            "newest",
            "latest~",
            "latest~-1",
            "latest2",
            "2026-13-01",
            "7",
        ] {
            assert!(bad.parse::<Which>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_utc_unless_they_say_otherwise() {
        let at = datetime!(2026-01-02 03:04:00 UTC);
        for text in [
            "2026-01-02T03:04:00Z",
            "2026-01-02T04:04:00+01:00",
            "2026-01-02 03:04",
            "2026-01-02T03:04:00",
        ] {
            assert_eq!(parse_time(text), Ok(at), "{text}");
        }
    }
}
