//! The task that brings git up to what the archive has, device by device.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout};
use tracing::{error, info};

use super::message::{Before, message};
use super::{FAR_BACK, Place, Places, Shared, TRY_AGAIN};
use crate::adapters::git::{Change, FilePath, GitError, GitMirror, Kept, TextId, tenant_folder};
use crate::archive::listed;
use crate::domain::archive::{Version, VersionId};
use crate::domain::device::DeviceId;
use crate::domain::failure::chain;
use crate::metrics::mirror::MirrorMetrics;
use crate::ports::{Archive, ArchiveError, StoreError, VersionPage};

/// How often the same trouble is told.
const TELL_AGAIN: Duration = Duration::from_secs(600);

pub(super) struct Worker {
    shared: Arc<Shared>,
    git: GitMirror,
    archive: Arc<dyn Archive>,
    places: Places,
    metrics: MirrorMetrics,
    /// What git has, as far as this process put it there.
    known: HashMap<DeviceId, (VersionId, FilePath)>,
    /// When the trouble that lasts was told.
    told: Option<Instant>,
}

/// Why a device is not in git as it is in the archive.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Inventory(#[from] StoreError),
    #[error("the task that writes the git mirror ended early")]
    Task(#[from] tokio::task::JoinError),
}

impl Trouble {
    /// Whether another time may be better. A version that cannot be opened stays so.
    fn passes(&self) -> bool {
        !matches!(
            self,
            Self::Archive(
                ArchiveError::Damaged { .. }
                    | ArchiveError::OtherKey { .. }
                    | ArchiveError::NotFound(_)
            )
        )
    }
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        git: GitMirror,
        archive: Arc<dyn Archive>,
        places: Places,
        metrics: MirrorMetrics,
    ) -> Self {
        Self {
            shared,
            git,
            archive,
            places,
            metrics,
            known: HashMap::new(),
            told: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let worked = self.work().await;
            {
                let mut pending = self.shared.pending();
                pending.working = false;
                pending.in_trouble = worked.is_err();
                self.metrics.set_pending(pending.devices.len());
            }
            match worked {
                Ok(()) => {
                    if self.told.take().is_some() {
                        info!("The git mirror can be written again, and is up to date");
                    }
                    self.shared.rested.notify_waiters();
                    self.shared.changed.notified().await;
                }
                Err(trouble) => {
                    self.tell(&trouble);
                    self.shared.rested.notify_waiters();
                    // Whether a snapshot or the time wakes it is all the same.
                    let _ = timeout(TRY_AGAIN, self.shared.changed.notified()).await;
                }
            }
        }
    }

    /// Does all there is to do; what is left after trouble stays pending.
    async fn work(&mut self) -> Result<(), Trouble> {
        let git = self.git.clone();
        let new = tokio::task::spawn_blocking(move || git.prepare()).await??;
        if new {
            info!(folder = %self.git.folder().display(), "Began a git mirror");
            self.known.clear();
            self.shared.pending().all = true;
        }
        let all = self.shared.pending().all;
        if all {
            self.find_all().await?;
            self.shared.pending().all = false;
        }
        loop {
            let device = {
                let mut pending = self.shared.pending();
                let device = pending.devices.pop_first();
                pending.working = device.is_some();
                let in_hand = usize::from(device.is_some());
                self.metrics.set_pending(pending.devices.len() + in_hand);
                device
            };
            let Some(device) = device else { return Ok(()) };
            match self.follow(device).await {
                Ok(()) => {}
                Err(trouble) if trouble.passes() => {
                    self.known.remove(&device);
                    self.shared.pending().devices.insert(device);
                    return Err(trouble);
                }
                Err(trouble) => {
                    self.metrics.committed(false);
                    let error = chain(&trouble);
                    error!(device.id = %device, error, "A version cannot be mirrored in git");
                }
            }
        }
    }

    async fn find_all(&self) -> Result<(), Trouble> {
        let mut newest = std::pin::pin!(listed(self.archive.as_ref()));
        while let Some(version) = newest.next().await {
            self.shared.pending().devices.insert(version?.device);
        }
        Ok(())
    }

    /// Commits what git does not have of `device` yet.
    async fn follow(&mut self, device: DeviceId) -> Result<(), Trouble> {
        let page = VersionPage::first(1);
        let newest = self.archive.versions(device, page).await?;
        let Some(newest) = newest.into_iter().next() else {
            return Ok(());
        };
        let place = (self.places)(device).await?;
        let wanted = place.as_ref().map(|place| path(place, device));
        if let Some((version, path)) = self.known.get(&device)
            && *version == newest.id
            && wanted.as_ref().is_none_or(|wanted| wanted == path)
        {
            return Ok(());
        }
        let unknown = || Place {
            folder: tenant_folder(newest.tenant.0),
            name: "unknown".to_owned(),
        };
        let likely = wanted.clone();
        let likely = likely.unwrap_or_else(|| path(&unknown(), device));
        let git = self.git.clone();
        let look = likely.clone();
        let kept = tokio::task::spawn_blocking(move || git.find(device, &look)).await??;
        // A device that has left the inventory keeps the name that it had.
        let target = match (&wanted, &kept) {
            (None, Some(kept)) => kept.path.clone(),
            _ => likely,
        };
        let missing = self.missing(&newest, kept.as_ref()).await?;
        let begins = kept.is_none() && self.is_first(&newest).await?;
        for version in &missing {
            self.commit(device, version, begins, &target).await?;
        }
        let elsewhere = kept.is_some_and(|kept| kept.path != target);
        if missing.is_empty() && elsewhere {
            self.commit(device, &newest, false, &target).await?;
        }
        self.known.insert(device, (newest.id, target));
        Ok(())
    }

    /// The versions that are newer than what git has, oldest first; the newest alone where git
    /// has nothing, or none of the last ones.
    async fn missing(
        &self,
        newest: &Version,
        kept: Option<&Kept>,
    ) -> Result<Vec<Version>, Trouble> {
        let Some(kept) = kept else {
            return Ok(vec![newest.clone()]);
        };
        let known = self.known.get(&newest.device).map(|(version, _)| *version);
        let mut missing: Vec<Version> = Vec::new();
        let mut page = vec![newest.clone()];
        while missing.len() < FAR_BACK as usize {
            let Some(version) = page.pop() else {
                let next = VersionPage::after(missing.last().unwrap_or(newest), 10);
                page = self.archive.versions(newest.device, next).await?;
                page.reverse();
                if page.is_empty() {
                    break;
                }
                continue;
            };
            if known == Some(version.id) || self.is_kept(&version, kept).await? {
                missing.reverse();
                return Ok(missing);
            }
            missing.push(version);
        }
        Ok(vec![newest.clone()])
    }

    /// Whether the device never had another version, as far as the archive can tell.
    async fn is_first(&self, newest: &Version) -> Result<bool, Trouble> {
        // One that was pruned since is remembered by the lines that changed.
        if newest.lines.is_some() {
            return Ok(false);
        }
        let older = VersionPage::after(newest, 1);
        Ok(self
            .archive
            .versions(newest.device, older)
            .await?
            .is_empty())
    }

    async fn is_kept(&self, version: &Version, kept: &Kept) -> Result<bool, Trouble> {
        match self.archive.open(version.id).await {
            Ok(opened) => Ok(TextId::of(opened.text.expose()) == kept.text),
            // An older version that cannot be opened hides no other one.
            Err(ArchiveError::Damaged { .. } | ArchiveError::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn commit(
        &self,
        device: DeviceId,
        version: &Version,
        is_first: bool,
        path: &FilePath,
    ) -> Result<(), Trouble> {
        let opened = match self.archive.open(version.id).await {
            Ok(opened) => opened,
            // Pruned since, or lost: the next one tells the difference.
            Err(error @ (ArchiveError::Damaged { .. } | ArchiveError::NotFound(_))) => {
                error!(error = %error, "A version is left out of the git mirror");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let (git, path) = (self.git.clone(), path.clone());
        let at = version.first.position.at;
        let incomplete = version.incomplete_menus.clone();
        let written = tokio::task::spawn_blocking(move || -> Result<bool, GitError> {
            let kept = git.find(device, &path)?;
            let before = kept.as_ref().map(|kept| git.text(kept.text)).transpose()?;
            let text = opened.text.expose();
            let old = kept
                .as_ref()
                .map(|kept| &kept.path)
                .filter(|old| **old != path);
            let before = match &before {
                Some(text) => Before::Text(text),
                None if is_first => Before::Nothing,
                None => Before::NotHere,
            };
            let message = message(before, text, &incomplete, &path, old);
            git.commit(Change {
                device,
                path: &path,
                text,
                message: &message,
                at,
            })
        });
        let written = written.await?;
        match written {
            Ok(true) => self.metrics.committed(true),
            Ok(false) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn tell(&mut self, trouble: &Trouble) {
        self.metrics.committed(false);
        if self.told.is_some_and(|told| told.elapsed() < TELL_AGAIN) {
            return;
        }
        self.told = Some(Instant::now());
        let pending = self.shared.pending().devices.len();
        error!(
            error = chain(trouble),
            pending,
            "The git mirror cannot be written; the archive has everything, and the mirror follows \
             when it can"
        );
    }
}

fn path(place: &Place, device: DeviceId) -> FilePath {
    FilePath::new(&place.folder, &place.name, device)
}
