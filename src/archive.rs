//! What is done with an archive whichever database keeps it: walking the newest texts of all
//! devices, and pruning by the retention.

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};

use crate::domain::Timestamp;
use crate::domain::archive::{Retention, Version, VersionId};
use crate::domain::device::DeviceId;
use crate::domain::snapshot::ConfigText;
use crate::ports::{Archive, ArchiveError, VersionPage};

/// Texts that are opened ahead of their reader: enough to hide the database's latency, and few
/// enough to hold in memory when each is as large as an export may be.
const OPEN_AHEAD: usize = 4;

/// Versions deleted in one transaction.
const DELETE_BATCH: usize = 500;

/// Texts looked at in one round of garbage collection: a transaction of some milliseconds.
const GARBAGE_BATCH: u32 = 200;

/// The newest version of every device with its text, by ascending device id. A text that cannot be
/// opened is an error of its own item, and the walk goes on; an error of the walk itself ends it.
pub fn newest(
    archive: &dyn Archive,
) -> impl Stream<Item = Result<(Version, Result<ConfigText, ArchiveError>), ArchiveError>> + '_ {
    listed(archive)
        .map_ok(async |version| {
            let opened = archive.open(version.id).await;
            Ok((version, opened.map(|opened| opened.text)))
        })
        .try_buffered(OPEN_AHEAD)
}

/// The newest version of every device, by ascending device id.
pub fn listed(archive: &dyn Archive) -> impl Stream<Item = Result<Version, ArchiveError>> + '_ {
    let pages = stream::try_unfold(Some(None), async move |after| {
        let Some(after) = after else { return Ok(None) };
        let page = archive.newest(after, VersionPage::MAX).await?;
        let next = page.last().map(|version| Some(version.device));
        Ok(Some((stream::iter(page.into_iter().map(Ok)), next)))
    });
    pages.try_flatten()
}

/// Whether pruning deletes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pruning {
    /// It deletes.
    Delete,
    /// It only tells what it would delete.
    DryRun,
}

/// What pruning did, or would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Pruned {
    /// Devices looked at.
    pub devices: u64,
    /// Versions looked at.
    pub examined: u64,
    /// Versions deleted, or that would be.
    pub versions: u64,
    /// Texts deleted, as no version had them any more; 0 in a dry run.
    pub texts: u64,
}

/// Deletes what `retention` does not keep, device by device, in small transactions. `report` is
/// told of each device of which versions go, before they do. Several may prune at once.
///
/// # Errors
/// What was deleted before an error stays deleted; the next run goes on.
pub async fn prune(
    archive: &dyn Archive,
    retention: &Retention,
    now: Timestamp,
    pruning: Pruning,
    mut report: impl FnMut(DeviceId, &[VersionId]),
) -> Result<Pruned, ArchiveError> {
    let mut pruned = Pruned::default();
    let mut devices = std::pin::pin!(listed(archive));
    while let Some(newest) = devices.next().await {
        let device = newest?.device;
        let moments = archive.moments(device).await?;
        pruned.devices += 1;
        pruned.examined += moments.len() as u64;
        let expired = retention.expired(&moments, now);
        if expired.is_empty() {
            continue;
        }
        report(device, &expired);
        match pruning {
            Pruning::DryRun => pruned.versions += expired.len() as u64,
            Pruning::Delete => {
                for batch in expired.chunks(DELETE_BATCH) {
                    pruned.versions += archive.delete(device, batch).await?;
                }
            }
        }
    }
    if pruning == Pruning::Delete {
        loop {
            let collected = archive.collect_garbage(GARBAGE_BATCH).await?;
            pruned.texts += collected.deleted;
            if collected.examined < u64::from(GARBAGE_BATCH) {
                break;
            }
        }
    }
    Ok(pruned)
}
