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

/// What a retention does not keep of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expired {
    /// The device.
    pub device: DeviceId,
    /// How many versions it has.
    pub examined: u64,
    /// Those that may go, oldest first; often none.
    pub versions: Vec<VersionId>,
}

/// What `retention` does not keep, device by device.
pub fn expired<'a>(
    archive: &'a dyn Archive,
    retention: &'a Retention,
    now: Timestamp,
) -> impl Stream<Item = Result<Expired, ArchiveError>> + 'a {
    listed(archive).and_then(move |newest| async move {
        let moments = archive.moments(newest.device).await?;
        Ok(Expired {
            device: newest.device,
            examined: moments.len() as u64,
            versions: retention.expired(&moments, now),
        })
    })
}

/// What pruning did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Pruned {
    /// Devices looked at.
    pub devices: u64,
    /// Versions looked at.
    pub examined: u64,
    /// Versions deleted.
    pub versions: u64,
    /// Texts deleted, as no version had them any more.
    pub texts: u64,
}

/// Deletes what `retention` does not keep, device by device, in small transactions. Several may prune
/// at once.
///
/// # Errors
/// What was deleted before an error stays deleted; the next run goes on.
pub async fn prune(
    archive: &dyn Archive,
    retention: &Retention,
    now: Timestamp,
) -> Result<Pruned, ArchiveError> {
    let mut pruned = Pruned::default();
    let mut devices = std::pin::pin!(expired(archive, retention, now));
    while let Some(found) = devices.next().await {
        let found = found?;
        pruned.devices += 1;
        pruned.examined += found.examined;
        for batch in found.versions.chunks(DELETE_BATCH) {
            pruned.versions += archive.delete(found.device, batch).await?;
        }
    }
    loop {
        let collected = archive.collect_garbage(GARBAGE_BATCH).await?;
        pruned.texts += collected.deleted;
        if collected.examined < u64::from(GARBAGE_BATCH) {
            return Ok(pruned);
        }
    }
}
