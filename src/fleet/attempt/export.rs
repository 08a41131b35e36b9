//! The conversation that ends in one whole export.

use std::panic::resume_unwind;

use tracing::Span;

use crate::domain::failure::Failure;
use crate::routeros;
use crate::ssh::{Session, SshError};

/// Holds the conversation that ends in one whole export: which command to run, and what to make of
/// the answer, is decided by [`routeros::Dialogue`].
pub async fn take_export(
    session: &mut Session,
    remembered_version: Option<&str>,
) -> Result<routeros::Export, ExportError> {
    let mut dialogue = routeros::Dialogue::new(remembered_version);
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
