//! What stores snapshots, with the mirror told of each once it is stored.

use std::sync::Arc;

use async_trait::async_trait;

use super::Mirror;
use crate::domain::Timestamp;
use crate::domain::archive::{Moment, Version, VersionId};
use crate::domain::device::DeviceId;
use crate::domain::snapshot::Snapshot;
use crate::ports::{
    Archive, ArchiveError, Collected, Opened, SinkError, SnapshotSink, Stored, VersionPage,
};

/// An archive, or a sink into one, that tells the mirror.
pub struct Mirrored<S> {
    inner: Arc<S>,
    mirror: Mirror,
}

impl<S> Mirrored<S> {
    /// Stores in `inner`, then tells `mirror`.
    pub fn new(inner: Arc<S>, mirror: Mirror) -> Self {
        Self { inner, mirror }
    }
}

#[async_trait]
impl<S: SnapshotSink> SnapshotSink for Mirrored<S> {
    async fn ready(&self) -> Result<(), SinkError> {
        self.inner.ready().await
    }

    async fn deliver(&self, snapshot: &Snapshot) -> Result<(), SinkError> {
        self.inner.deliver(snapshot).await?;
        self.mirror.changed(snapshot.device);
        Ok(())
    }
}

#[async_trait]
impl<A: Archive> Archive for Mirrored<A> {
    async fn store(&self, snapshot: &Snapshot) -> Result<Stored, ArchiveError> {
        let stored = self.inner.store(snapshot).await?;
        self.mirror.changed(snapshot.device);
        Ok(stored)
    }

    async fn versions(
        &self,
        device: DeviceId,
        page: VersionPage,
    ) -> Result<Vec<Version>, ArchiveError> {
        self.inner.versions(device, page).await
    }

    async fn version_at(
        &self,
        device: DeviceId,
        at: Timestamp,
    ) -> Result<Option<Version>, ArchiveError> {
        self.inner.version_at(device, at).await
    }

    async fn open(&self, version: VersionId) -> Result<Opened, ArchiveError> {
        self.inner.open(version).await
    }

    async fn newest(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<Version>, ArchiveError> {
        self.inner.newest(after, limit).await
    }

    async fn moments(&self, device: DeviceId) -> Result<Vec<Moment>, ArchiveError> {
        self.inner.moments(device).await
    }

    async fn delete(&self, device: DeviceId, versions: &[VersionId]) -> Result<u64, ArchiveError> {
        self.inner.delete(device, versions).await
    }

    async fn collect_garbage(&self, batch: u32) -> Result<Collected, ArchiveError> {
        self.inner.collect_garbage(batch).await
    }

    async fn check_key(&self) -> Result<(), ArchiveError> {
        self.inner.check_key().await
    }
}
