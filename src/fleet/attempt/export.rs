//! The conversation that ends in one whole export that is believed.

use std::panic::resume_unwind;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Span, debug, warn};

use super::Stop;
use super::suspicion::{after_failure, last_good, suspicion};
use crate::domain::attempt::{AttemptId, Step};
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::session::MissingMenus;
use crate::domain::snapshot::Snapshot;
use crate::domain::suspect::Recurrence;
use crate::fleet::Context;
use crate::fleet::progress::Progress;
use crate::ports::Begun;
use crate::routeros::{self, Suspicion};
use crate::ssh::{Session, SshError};

/// A snapshot to deliver.
pub(super) struct Believed {
    pub(super) snapshot: Snapshot,
    /// Why it was read more than once.
    pub(super) warning: Option<String>,
}

/// One reading of a router's export, whole by itself.
pub(super) struct Reading {
    pub(super) snapshot: Snapshot,
    /// Whether the firewall in it might count connections.
    pub(super) counts: bool,
    /// Why it is doubtful, whatever the export before it was.
    pub(super) doubt: Option<Suspicion>,
    /// How many bytes the router sent.
    pub(super) bytes: u64,
    /// How long it took.
    pub(super) took: Duration,
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
        let first = match self.read(id, session, begun, progress).await {
            Ok(first) => first,
            Err(error) => {
                progress.observed.suspects = after_failure(&error);
                return Err(error.into());
            }
        };
        let lacking = &first.snapshot.incomplete_menus;
        let missing = begun.missing_menus.after(lacking);
        let waited_for = unless_final(lacking, &missing);
        progress.observed.missing_menus = Some(missing);
        if let Some(failure) = waited_for {
            return Err(Stop::Failed(failure));
        }
        let (reading, warning) = match suspicion(begun, &first) {
            None => {
                progress.observed.suspects = Some(Recurrence::default());
                (first, None)
            }
            Some(suspicion) => {
                let settled = self.settle(first, suspicion, session, begun, progress);
                let (believed, warning) = settled.await?;
                (believed, Some(warning))
            }
        };
        let mut snapshot = reading.snapshot;
        if let Some(gap) = routeros::gap(&snapshot.incomplete_menus) {
            warn!(gap, "Taken without menus: they failed too often in a row");
            self.metrics.incomplete();
        }
        let last = begun.last_shape.as_ref();
        let shape = std::mem::take(&mut snapshot.shape);
        snapshot.shape = routeros::remember(last, shape, &snapshot.incomplete_menus);
        progress.observed.counts_connections = Some(reading.counts);
        Ok(Believed { snapshot, warning })
    }

    /// Takes the export and normalises it.
    pub(super) async fn read(
        &self,
        id: AttemptId,
        session: &mut Session,
        begun: &Begun,
        progress: &mut Progress,
    ) -> Result<Reading, ExportError> {
        progress.enter(Step::Export);
        let asked = Instant::now();
        let version = begun.device.routeros_version.as_deref();
        let export = take_export(session, version, &self.normalizer).await?;
        let took = asked.elapsed();
        progress.enter(Step::Normalise);
        Ok(self.normalise(id, begun, export, took, progress).await)
    }

    async fn normalise(
        &self,
        id: AttemptId,
        begun: &Begun,
        mut export: routeros::Export,
        took: Duration,
        progress: &mut Progress,
    ) -> Reading {
        let collected_at = self.clock.now();
        let doubt = export.doubt.take().map(|doubt| *doubt);
        let normalizer = self.normalizer.clone();
        let (export, normalized, counts) = on_a_thread(move || {
            let normalized = normalizer.normalize(&export);
            let counts = routeros::counts_connections(normalized.text.expose());
            (export, normalized, counts)
        })
        .await;
        progress.ledger.clone_from(&normalized.ledger);
        self.metrics.comments(
            normalized.known_comment_lines,
            normalized.unknown_comment_lines,
        );
        for remark in &export.remarks {
            warn!(
                remark,
                "The export is whole, but something about it was odd"
            );
        }
        for comment in &normalized.unknown_comments {
            debug!(comment, "kept a comment that no rule knows");
        }
        let missing = routeros::missing_menus(
            last_good(begun),
            &normalized.shape,
            export.incomplete_menus,
            &export.unavailable_menus,
        );
        Reading {
            counts: counts || missing.iter().any(|menu| menu.contains("firewall")),
            doubt,
            bytes: export.bytes,
            took,
            snapshot: Snapshot {
                attempt: id,
                device: begun.device.id,
                tenant: begun.device.tenant,
                machine: export.header.machine,
                routeros_version: export.header.routeros_version,
                collected_at,
                hash: normalized.hash,
                text: normalized.text,
                normalization_version: routeros::NORMALIZATION_VERSION,
                normalization_rules: self.normalizer.fingerprint(),
                incomplete_menus: missing,
                ledger: normalized.ledger,
                shape: normalized.shape,
            },
        }
    }
}

/// The failure of an export that is `lacking` menus which another attempt may still bring.
fn unless_final(lacking: &[String], missing: &MissingMenus) -> Option<Failure> {
    let gap = routeros::gap(lacking).filter(|_| !missing.is_final())?;
    let left = missing.attempts_left();
    let (patience, longest) = (MissingMenus::PATIENCE, MissingMenus::LONGEST);
    Some(Failure::new(
        FailureKind::TruncatedOutput,
        format!(
            "{gap}; what {patience} exports in a row lack is done without, and so is what the last of \
             {longest} lacks, and the export is marked as incomplete: {left} more"
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
#[path = "export/missing/tests.rs"]
mod missing_tests;
#[cfg(test)]
pub(super) mod tests;
