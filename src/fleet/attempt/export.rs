//! The conversation that ends in one whole export that is believed.

use std::panic::resume_unwind;

use tokio::time::Instant;
use tracing::{Span, debug, warn};

use super::Stop;
use super::suspicion::{First, Normalised, after_failure, suspicion};
use crate::domain::attempt::{AttemptId, Step};
use crate::domain::device::Device;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::session::MissingMenus;
use crate::domain::snapshot::Snapshot;
use crate::domain::suspect::Recurrence;
use crate::fleet::Context;
use crate::fleet::progress::Progress;
use crate::ports::Begun;
use crate::routeros;
use crate::ssh::{Session, SshError};

/// A snapshot to deliver.
pub(super) struct Believed {
    pub(super) snapshot: Snapshot,
    /// Why it was read more than once.
    pub(super) warning: Option<String>,
}

impl Context {
    /// Takes the export and makes the snapshot of it, unless it lacks what another attempt may
    /// still bring, or looks cut beside the last good one and is not believed all the same.
    pub(super) async fn take_snapshot(
        &self,
        id: AttemptId,
        session: &mut Session,
        begun: &Begun,
        progress: &mut Progress,
    ) -> Result<Believed, Stop> {
        let device = &begun.device;
        progress.enter(Step::Export);
        let asked = Instant::now();
        let export = self.take_export(session, device).await;
        let took = asked.elapsed();
        let mut export = export.inspect_err(|error| {
            progress.observed.suspects = after_failure(error);
        })?;
        let doubt = export.doubt.take().map(|doubt| *doubt);
        let missing = begun.missing_menus.after(&export.incomplete_menus);
        let waited_for = unless_final(&export, &missing);
        progress.observed.missing_menus = Some(missing);
        if let Some(failure) = waited_for {
            return Err(Stop::Failed(failure));
        }
        progress.enter(Step::Normalise);
        let first = self.normalise(id, device, export, progress).await;
        let ((snapshot, counts), warning) = match suspicion(begun, &first.0).or(doubt) {
            None => {
                progress.observed.suspects = Some(Recurrence::default());
                (first, None)
            }
            Some(suspicion) => {
                let first = First {
                    read: first,
                    took,
                    suspicion,
                };
                let settled = self.settle(first, session, begun, progress);
                let (believed, warning) = settled.await?;
                (believed, Some(warning))
            }
        };
        if !snapshot.incomplete_menus.is_empty() {
            self.metrics.incomplete();
        }
        progress.observed.counts_connections = Some(counts);
        Ok(Believed { snapshot, warning })
    }

    pub(super) async fn take_export(
        &self,
        session: &mut Session,
        device: &Device,
    ) -> Result<routeros::Export, ExportError> {
        let version = device.routeros_version.as_deref();
        take_export(session, version, &self.normalizer).await
    }

    /// The snapshot of an export, and whether the firewall in it might count connections.
    pub(super) async fn normalise(
        &self,
        id: AttemptId,
        device: &Device,
        export: routeros::Export,
        progress: &mut Progress,
    ) -> Normalised {
        let collected_at = self.clock.now();
        let gap = export.gap();
        let normalizer = self.normalizer.clone();
        let (export, normalized, counts) = on_a_thread(move || {
            let normalized = normalizer.normalize(&export);
            let menus = &export.incomplete_menus;
            let counts = menus.iter().any(|menu| menu.contains("firewall"))
                || routeros::counts_connections(normalized.text.expose());
            (export, normalized, counts)
        })
        .await;
        progress.ledger.clone_from(&normalized.ledger);
        self.metrics.comments(
            normalized.known_comment_lines,
            normalized.unknown_comment_lines,
        );
        if let Some(gap) = gap {
            warn!(
                gap,
                "Taken without menus: so many exports in a row lacked some"
            );
        }
        for remark in &export.remarks {
            warn!(
                remark,
                "The export is whole, but something about it was odd"
            );
        }
        for comment in &normalized.unknown_comments {
            debug!(comment, "kept a comment that no rule knows");
        }
        let snapshot = Snapshot {
            attempt: id,
            device: device.id,
            tenant: device.tenant,
            machine: export.header.machine,
            routeros_version: export.header.routeros_version,
            collected_at,
            hash: normalized.hash,
            text: normalized.text,
            normalization_version: routeros::NORMALIZATION_VERSION,
            normalization_rules: self.normalizer.fingerprint(),
            incomplete_menus: export.incomplete_menus,
            ledger: normalized.ledger,
            shape: normalized.shape,
        };
        (snapshot, counts)
    }
}

/// The failure of an export that lacks menus which another attempt may still bring.
fn unless_final(export: &routeros::Export, missing: &MissingMenus) -> Option<Failure> {
    let gap = export.gap().filter(|_| !missing.is_final())?;
    let left = missing.attempts_left();
    let patience = MissingMenus::PATIENCE;
    Some(Failure::new(
        FailureKind::TruncatedOutput,
        format!(
            "{gap}; of {patience} exports in a row that lack menus, the last is taken without those \
             and marked as incomplete: {left} more"
        ),
    ))
}

/// Holds the conversation that ends in one whole export: which command to run, and what to make of
/// the answer, is decided by [`routeros::Dialogue`]. What `normalizer` ignores at the end of an export
/// is no sign of a cut.
pub async fn take_export(
    session: &mut Session,
    remembered_version: Option<&str>,
    normalizer: &routeros::Normalizer,
) -> Result<routeros::Export, ExportError> {
    let mut dialogue = routeros::Dialogue::new(remembered_version).ignoring(normalizer.clone());
    let mut command = dialogue.command();
    loop {
        let output = session.run(command.as_str()).await?;
        let (judged, verdict) = on_a_thread(move || {
            let verdict = dialogue.judge(&routeros::Answer {
                stdout: &output.stdout,
                stderr: &output.stderr,
                exit_status: output.exit_status,
                closed: output.closed,
            });
            (dialogue, verdict)
        })
        .await;
        dialogue = judged;
        match verdict {
            routeros::Verdict::Whole(export) => return Ok(export),
            routeros::Verdict::Ask(next) => command = next,
            routeros::Verdict::Refused(failure) => return Err(ExportError::Refused(failure)),
        }
    }
}

/// Does `work` on a thread of its own: a text of 100 MB takes seconds of CPU, in which the threads
/// of the runtime have other sockets to serve. A panic goes on in the caller.
pub(in crate::fleet) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let span = Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // Nothing cancels it but the end of the runtime, which ends the caller, too.
            Err(_) => std::future::pending().await,
        },
    }
}

/// No whole export was taken.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The session failed.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The answer is not a whole export.
    #[error(transparent)]
    Refused(Failure),
}

impl ExportError {
    /// As a failure of the attempt.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Ssh(error) => Failure::from_error(error.kind(), &error),
            Self::Refused(failure) => failure,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
