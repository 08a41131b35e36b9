//! An export that looks cut beside the last good one: read again on the same connection, and
//! remembered where that does not settle it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Stop;
use super::export::{ExportError, Reading};
use crate::domain::digest::Digest;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::suspect::{Recurrence, SecondReading, Suspect};
use crate::fleet::Context;
use crate::fleet::progress::Progress;
use crate::metrics::Suspected;
use crate::ports::Begun;
use crate::routeros::{self, Remembered, Suspicion};
use crate::ssh::Session;

const ANOTHER: &str = "and was another one: one of the two is cut";

/// What is kept of a first reading, whose text is mostly not.
struct First {
    suspect: Suspect,
    hash: Digest,
    bytes: u64,
    took: Duration,
}

/// What came of the second reading.
enum Again {
    /// The same.
    Same(Reading),
    /// Another text, which looks cut, too.
    Suspect(Reading, Suspect),
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
        reading: Reading,
        suspicion: Suspicion,
        session: &mut Session,
        begun: &Begun,
        progress: &mut Progress,
    ) -> Result<(Reading, String), Stop> {
        let first = First {
            suspect: suspect(&suspicion, &reading),
            hash: reading.snapshot.hash,
            bytes: reading.bytes,
            took: reading.took,
        };
        let id = reading.snapshot.attempt;
        // Two texts at once are twice the memory: only where the first one may be taken after all.
        let kept = begun.suspects.awaits(&first.suspect).then_some(reading);
        let asked = Instant::now();
        let again = match self.read(id, session, begun, progress).await {
            Ok(again) => compare(&first, again, begun),
            Err(error) => failed(error, &first, asked.elapsed()),
        };
        let row = again.remembered(&begun.suspects, &first.suspect);
        progress.observed.suspects = Some(row.clone());
        let unconfirmed = row.0.is_some() || matches!(again, Again::Ended(_));
        let (believed, why) = match again {
            Again::Same(again) => {
                warn!(%suspicion, "Read the export twice, and it was the same");
                self.metrics.suspected(Suspected::Confirmed);
                return Ok((again, suspicion.to_string()));
            }
            Again::Suspect(again, _) => (Some(again), changing(&row)),
            Again::None(failure) => (kept, not_read(&failure)),
            Again::Ended(failure) => (None, format!("which failed: {failure}")),
            Again::Refuted(why) => (None, why),
        };
        if let Some(believed) = believed.filter(|_| row.is_final()) {
            let attempts = row.attempts();
            warn!(%suspicion, attempts, "The same export was read in attempts in a row");
            self.metrics.suspected(Suspected::Recurring);
            let warning = format!("{suspicion}; read in {attempts} attempts in a row");
            return Ok((believed, warning));
        }
        self.metrics.suspected(match unconfirmed {
            true => Suspected::Unconfirmed,
            false => Suspected::Refuted,
        });
        let text = format!("{suspicion}; so it was read again, {why}{}", waiting(&row));
        let failure = Failure::new(FailureKind::TruncatedOutput, text);
        Err(Stop::Failed(failure))
    }
}

impl Again {
    /// The row of suspects behind this one, which was `first` seen by an attempt that then read it again.
    fn remembered(&self, before: &Recurrence, first: &Suspect) -> Recurrence {
        let second = match self {
            Self::Same(_) | Self::Ended(_) => return before.clone(),
            Self::Suspect(_, second) => SecondReading::Suspect(second),
            Self::None(_) => SecondReading::None,
            Self::Refuted(_) => SecondReading::Refuted,
        };
        before.after(first, second)
    }
}

/// What is known of the last good export of the router, if there was one.
pub(super) fn last_good(begun: &Begun) -> Option<Remembered<'_>> {
    let (shape, bytes) = begun.last_shape.as_ref().zip(begun.last_bytes)?;
    Some(Remembered {
        shape,
        bytes,
        incomplete_menus: &begun.last_incomplete_menus,
        text: None,
    })
}

/// What makes `reading` look cut, beside the last good one of its router if there is one, or by itself.
pub(super) fn suspicion(begun: &Begun, reading: &Reading) -> Option<Suspicion> {
    let snapshot = &reading.snapshot;
    let new = Remembered {
        shape: &snapshot.shape,
        bytes: snapshot.text.expose().len() as u64,
        incomplete_menus: &snapshot.incomplete_menus,
        text: Some(snapshot.text.expose()),
    };
    let found = match last_good(begun) {
        Some(old) => routeros::suspicion(old, new),
        None => routeros::suspicion_of_first(new),
    };
    found.or_else(|| reading.doubt.clone())
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

fn suspect(suspicion: &Suspicion, reading: &Reading) -> Suspect {
    let strays = match reading.doubt {
        Some(Suspicion::StrayLines { digest, .. }) => Some(digest),
        _ => None,
    };
    Suspect {
        strays,
        suspicion: suspicion.as_str().to_owned(),
        shape: reading.snapshot.shape.clone(),
        incomplete_menus: reading.snapshot.incomplete_menus.clone(),
    }
}

fn compare(first: &First, again: Reading, begun: &Begun) -> Again {
    // That a menu is not there on this machine is not in the text, and may be the news.
    let lacking = &again.snapshot.incomplete_menus;
    if again.snapshot.hash == first.hash && *lacking == first.suspect.incomplete_menus {
        return Again::Same(again);
    }
    match suspicion(begun, &again) {
        None => Again::Refuted(ANOTHER.to_owned()),
        Some(suspicion) => {
            let second = suspect(&suspicion, &again);
            Again::Suspect(again, second)
        }
    }
}

/// What a second reading that failed says of the first. One that had brought more than the whole first
/// one shows that this was cut. Only that there was less time than the first one took explains why one that
/// is the same did not come to its end; with as much time or more, the first one is the shorter one.
fn failed(error: ExportError, first: &First, given: Duration) -> Again {
    let (kind, timed_out, received) = match &error {
        ExportError::Ssh(error) => (
            Some(error.kind()),
            error.timed_out(),
            error.received_bytes(),
        ),
        ExportError::Refused(_) => (None, false, 0),
    };
    let failure = error.into_failure();
    let (bytes, took) = (first.bytes, first.took);
    match kind {
        None | Some(FailureKind::ExportTooLarge) => {
            Again::Refuted(format!("which failed: {failure}"))
        }
        Some(_) if received > bytes => Again::Refuted(format!(
            "and brought {received} bytes before it failed, although the first had {bytes}: the first \
             is cut ({failure})"
        )),
        Some(_) if timed_out && given < took => Again::None(failure),
        Some(_) if timed_out => Again::Refuted(format!(
            "and did not end in {given:.1?}, although the first took {took:.1?}: the first may be \
             cut ({failure})"
        )),
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
