//! An export that looks cut beside the last good one: read again on the same connection, and
//! remembered where that does not settle it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Stop;
use super::export::ExportError;
use crate::domain::attempt::Step;
use crate::domain::digest::Digest;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::snapshot::Snapshot;
use crate::domain::suspect::{Recurrence, SecondReading, Suspect};
use crate::fleet::Context;
use crate::fleet::progress::Progress;
use crate::metrics::Suspected;
use crate::ports::Begun;
use crate::routeros::{self, Suspicion};
use crate::ssh::Session;

/// A snapshot, and whether the firewall in it might count connections.
pub(super) type Normalised = (Snapshot, bool);

const ANOTHER: &str = "and was another one: one of the two is cut";

/// A reading that looks cut.
pub(super) struct First {
    pub(super) read: Normalised,
    /// How long it took.
    pub(super) took: Duration,
    /// Why it looks cut.
    pub(super) suspicion: Suspicion,
}

/// What came of the second reading.
enum Again {
    /// The same.
    Same(Normalised),
    /// Another text, which looks cut, too.
    Suspect(Normalised, Suspect),
    /// Nothing, for there was less time for it than the first one took.
    None(Failure),
    /// Nothing, for another reason, which says nothing of the first reading.
    Ended(Failure),
    /// What speaks against the first reading, as a half-sentence.
    Refuted(String),
}

impl Context {
    /// Reads an export that looks cut once more, on the same connection and within the same
    /// deadline: what comes twice is what the router has. So is what three attempts in a row have
    /// seen, where a second reading could neither confirm nor refute it.
    pub(super) async fn settle(
        &self,
        first: First,
        session: &mut Session,
        begun: &Begun,
        progress: &mut Progress,
    ) -> Result<(Normalised, String), Stop> {
        let First {
            read: first,
            took,
            suspicion,
        } = first;
        let suspect = suspect(&suspicion, &first.0);
        let (id, hash) = (first.0.attempt, first.0.hash);
        // Two texts at once are twice the memory: only where the first one may be taken after all.
        let kept = begun.suspects.awaits(&suspect).then_some(first);
        progress.enter(Step::Export);
        let asked = Instant::now();
        let again = match self.take_export(session, &begun.device).await {
            Ok(mut export) => {
                let doubt = export.doubt.take().map(|doubt| *doubt);
                progress.enter(Step::Normalise);
                let device = &begun.device;
                let again = self.normalise(id, device, export, progress).await;
                compare(hash, again, doubt, begun)
            }
            Err(error) => failed(error, took, asked.elapsed()),
        };
        let row = match &again {
            Again::Same(_) | Again::Ended(_) => begun.suspects.clone(),
            Again::Suspect(_, second) => begun
                .suspects
                .after(&suspect, SecondReading::Suspect(second)),
            Again::None(_) => begun.suspects.after(&suspect, SecondReading::None),
            Again::Refuted(_) => begun.suspects.after(&suspect, SecondReading::Refuted),
        };
        progress.observed.suspects = Some(row.clone());
        let (taken, why) = match again {
            Again::Same(again) => {
                warn!(%suspicion, "Read the export twice, and it was the same");
                self.metrics.suspected(Suspected::Confirmed);
                return Ok((again, suspicion.to_string()));
            }
            Again::Suspect(again, _) => (Some(again), changing(&row)),
            Again::None(failure) => (kept, not_read(&failure)),
            Again::Ended(failure) => {
                self.metrics.suspected(Suspected::Unconfirmed);
                let text = format!("{suspicion}; so it was read again, which failed: {failure}");
                return Err(Stop::Failed(Failure::new(
                    FailureKind::TruncatedOutput,
                    text,
                )));
            }
            Again::Refuted(why) => (None, why),
        };
        if let Some(taken) = taken.filter(|_| row.is_final()) {
            let attempts = row.attempts();
            warn!(%suspicion, attempts, "The same export was read in attempts in a row");
            self.metrics.suspected(Suspected::Recurring);
            let warning = format!("{suspicion}; read in {attempts} attempts in a row");
            return Ok((taken, warning));
        }
        self.metrics.suspected(if row.0.is_some() {
            Suspected::Unconfirmed
        } else {
            Suspected::Refuted
        });
        let text = format!("{suspicion}; so it was read again, {why}{}", waiting(&row));
        Err(Stop::Failed(Failure::new(
            FailureKind::TruncatedOutput,
            text,
        )))
    }
}

/// What makes `snapshot` look cut, beside the last good one of its router if there is one.
pub(super) fn suspicion(begun: &Begun, snapshot: &Snapshot) -> Option<Suspicion> {
    let new = routeros::Remembered {
        shape: &snapshot.shape,
        bytes: snapshot.text.expose().len() as u64,
        incomplete_menus: &snapshot.incomplete_menus,
    };
    let Some((shape, bytes)) = begun.last_shape.as_ref().zip(begun.last_bytes) else {
        return routeros::suspicion_of_first(new);
    };
    routeros::suspicion(
        routeros::Remembered {
            shape,
            bytes,
            incomplete_menus: &begun.last_incomplete_menus,
        },
        new,
    )
}

/// What a first reading that failed says of the suspect that is remembered: that the export is seen
/// to be cut ends the row, and what kept it from being read says nothing.
pub(super) fn after_failure(error: &ExportError) -> Option<Recurrence> {
    match error {
        ExportError::Refused(failure) if failure.kind == FailureKind::TruncatedOutput => {
            Some(Recurrence::default())
        }
        ExportError::Refused(_) | ExportError::Ssh(_) => None,
    }
}

fn suspect(suspicion: &Suspicion, snapshot: &Snapshot) -> Suspect {
    Suspect {
        suspicion: suspicion.as_str().to_owned(),
        shape: snapshot.shape.clone(),
        incomplete_menus: snapshot.incomplete_menus.clone(),
    }
}

fn compare(first: Digest, again: Normalised, doubt: Option<Suspicion>, begun: &Begun) -> Again {
    if again.0.hash == first {
        return Again::Same(again);
    }
    match suspicion(begun, &again.0).or(doubt) {
        // What writes lines into an export may write them in the place of others, in any menu.
        None | Some(Suspicion::StrayLines { .. }) => Again::Refuted(ANOTHER.to_owned()),
        Some(suspicion) => {
            let second = suspect(&suspicion, &again.0);
            Again::Suspect(again, second)
        }
    }
}

/// Only that there was less time than the first reading `took` explains why a second one that is the
/// same did not come to its end; with as much time or more, the first one is the shorter one.
fn failed(error: ExportError, took: Duration, given: Duration) -> Again {
    let kind = match &error {
        ExportError::Ssh(error) => Some(error.kind()),
        ExportError::Refused(_) => None,
    };
    let failure = error.into_failure();
    match kind {
        Some(FailureKind::Timeout) if given < took => Again::None(failure),
        Some(FailureKind::Timeout) => Again::Refuted(format!(
            "and did not end in {given:.1?}, although the first took {took:.1?}: the first may be \
             cut ({failure})"
        )),
        None | Some(FailureKind::ExportTooLarge) => {
            Again::Refuted(format!("which failed: {failure}"))
        }
        Some(_) => Again::Ended(failure),
    }
}

fn not_read(failure: &Failure) -> String {
    format!(
        "which failed: {failure}; both readings must fit into the time of the session: give the \
         device a longer command timeout"
    )
}

/// Two readings were different, and both look cut: in the same way, or not.
fn changing(row: &Recurrence) -> String {
    let Some(recurring) = &row.0 else {
        return ANOTHER.to_owned();
    };
    let mut menus: Vec<_> = recurring.restless.iter().map(String::as_str).collect();
    menus.truncate(5);
    if menus.is_empty() {
        return "and was another one, though not in its configuration".to_owned();
    }
    format!(
        "and was another one of the same form: {} changes by itself",
        menus.join(", ")
    )
}

/// How long it takes until the suspect is taken.
fn waiting(row: &Recurrence) -> String {
    match row.0 {
        None => String::new(),
        Some(_) => format!(
            "; what {} attempts in a row see is taken as what the router has: {} more",
            Recurrence::PATIENCE,
            row.attempts_left()
        ),
    }
}

#[cfg(test)]
mod tests;
