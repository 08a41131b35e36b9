//! Owns the export conversation: which command to send, and whether the answer is a whole export.

use std::fmt;

use super::bytes::decode;
use super::complete::{self, Findings};
use super::console::{self, Reply};
use super::header::Header;
use super::normalizer::Normalizer;
use super::suspicion::Suspicion;
use super::version::ShowSensitive;
use crate::domain::failure::{Failure, FailureKind};

/// A form of the export command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportCommand {
    /// RouterOS 7.1 and later hide secrets without the word; earlier ones reject it.
    ShowSensitive,
    /// Works everywhere; shows secrets before 7.1 only.
    Plain,
}

impl ExportCommand {
    /// The line to send as one exec request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ShowSensitive => "/export show-sensitive",
            Self::Plain => "/export",
        }
    }
}

/// The column at which the console stops when it does not know `show-sensitive`: right after
/// `/export `.
const WORD_COLUMN: u32 = 9;

/// What one exec request brought.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// Everything on standard output.
    pub stdout: &'a [u8],
    /// Everything on extended data; RouterOS was never seen to use it.
    pub stderr: &'a [u8],
    /// The exit status, if one came. RouterOS sends 0 for its own errors too.
    pub exit_status: Option<u32>,
    /// Whether the router closed the channel; false when the connection was lost.
    pub closed: bool,
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("stdout_bytes", &self.stdout.len())
            .field("stderr_bytes", &self.stderr.len())
            .field("exit_status", &self.exit_status)
            .field("closed", &self.closed)
            .finish()
    }
}

/// A whole export, as the router sent it.
#[derive(Clone, PartialEq, Eq)]
pub struct Export {
    /// The decoded text with its own line ends. It holds every password of the router.
    pub text: String,
    /// Size of the answer in bytes, as it was received.
    pub bytes: u64,
    /// What its header says.
    pub header: Header,
    /// Menus that did not answer in time: their configuration is missing. Whether such an export
    /// is taken all the same is for the caller to decide, who knows of the attempts before.
    pub incomplete_menus: Vec<String>,
    /// Menus that the router could not export and that this machine does not seem to have: unless
    /// something was in them before ([`missing_menus`](super::missing_menus)), nothing is missing.
    pub unavailable_menus: Vec<String>,
    /// Why it should be read again before it is believed, whatever the export before it was.
    pub doubt: Option<Box<Suspicion>>,
    /// What else was odd, for the log.
    pub remarks: Vec<String>,
}

impl Export {
    /// That menus are missing, as a sentence; `None` when the export is complete.
    pub fn gap(&self) -> Option<String> {
        gap(&self.incomplete_menus)
    }
}

/// That `menus` are missing, as a sentence; `None` when there are none.
pub fn gap(menus: &[String]) -> Option<String> {
    (!menus.is_empty()).then(|| {
        format!(
            "the export is incomplete: the router could not export {}",
            listed(menus)
        )
    })
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("bytes", &self.bytes)
            .field("header", &self.header)
            .field("incomplete_menus", &self.incomplete_menus)
            .field("unavailable_menus", &self.unavailable_menus)
            .field("doubt", &self.doubt)
            .field("remarks", &self.remarks)
            .finish()
    }
}

/// What to do after an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The export is whole and shows the secrets that this user may see.
    Whole(Export),
    /// Send this command on the same connection.
    Ask(ExportCommand),
    /// There is no export to be had now.
    Refused(Failure),
}

/// The export conversation with one router. Sends each command at most once.
#[derive(Clone, Debug)]
pub struct Dialogue {
    command: ExportCommand,
    /// The router does not know `show-sensitive`.
    word_rejected: bool,
    /// What came of a plain export that was put aside to ask for the secrets.
    put_aside: Option<PutAside>,
    /// Knows the comments that the operator ignores.
    normalizer: Normalizer,
}

#[derive(Clone, Debug)]
enum PutAside {
    /// Its version hides secrets: of no use.
    Discarded,
    /// Its version does not tell whether secrets are in it.
    Kept(Box<Result<Export, Failure>>),
}

impl Dialogue {
    /// Starts a conversation. `remembered_version` only chooses what is sent first.
    pub fn new(remembered_version: Option<&str>) -> Self {
        let command = match ShowSensitive::of(remembered_version) {
            ShowSensitive::Rejected => ExportCommand::Plain,
            ShowSensitive::Needed | ShowSensitive::Unknown => ExportCommand::ShowSensitive,
        };
        Self {
            command,
            word_rejected: false,
            put_aside: None,
            normalizer: Normalizer::default(),
        }
    }

    /// The same, for an operator who ignores what `normalizer` does: such a comment at the end of an
    /// export stands before no item that is missing.
    #[must_use]
    pub fn ignoring(mut self, normalizer: Normalizer) -> Self {
        self.normalizer = normalizer;
        self
    }

    /// The command to send now.
    pub fn command(&self) -> ExportCommand {
        self.command
    }

    /// Judges the answer to [`Dialogue::command`].
    pub fn judge(&mut self, answer: &Answer) -> Verdict {
        let text = decode(answer.stdout);
        let header = Header::read(&text);
        match (self.command, &header) {
            (ExportCommand::ShowSensitive, None) if rejects_the_word(&text, answer) => {
                self.reject_word()
            }
            (ExportCommand::Plain, Some(header)) if answer.closed => {
                match ShowSensitive::of(Some(&header.routeros_version)) {
                    ShowSensitive::Needed if self.word_rejected => {
                        Verdict::Refused(secrets_hidden(&header.routeros_version))
                    }
                    ShowSensitive::Needed => {
                        self.put_aside = Some(PutAside::Discarded);
                        self.ask(ExportCommand::ShowSensitive)
                    }
                    ShowSensitive::Unknown if !self.word_rejected => {
                        let result = whole(text, Some(header.clone()), answer, &self.normalizer);
                        self.put_aside = Some(PutAside::Kept(Box::new(result)));
                        self.ask(ExportCommand::ShowSensitive)
                    }
                    ShowSensitive::Unknown | ShowSensitive::Rejected => {
                        verdict(whole(text, Some(header.clone()), answer, &self.normalizer))
                    }
                }
            }
            _ => verdict(whole(text, header, answer, &self.normalizer)),
        }
    }

    fn ask(&mut self, command: ExportCommand) -> Verdict {
        self.command = command;
        Verdict::Ask(command)
    }

    fn reject_word(&mut self) -> Verdict {
        self.word_rejected = true;
        match self.put_aside.take() {
            None => self.ask(ExportCommand::Plain),
            Some(PutAside::Kept(result)) => verdict(*result),
            Some(PutAside::Discarded) => Verdict::Refused(secrets_hidden("7.1 or later")),
        }
    }
}

fn verdict(result: Result<Export, Failure>) -> Verdict {
    result.map_or_else(Verdict::Refused, Verdict::Whole)
}

fn secrets_hidden(version: &str) -> Failure {
    Failure::new(
        FailureKind::NotAnExport,
        format!(
            "the router rejects \"{}\", but the export without it is of RouterOS {}, which hides \
             every secret then: not taken as a backup; run the command on the router to see why",
            ExportCommand::ShowSensitive.as_str(),
            console::escape(version),
        ),
    )
}

/// Whether the console stopped at the word `show-sensitive`, whatever the exit status.
fn rejects_the_word(text: &str, answer: &Answer) -> bool {
    let at_the_word = |output: &str| matches!(console::recognize(output).0, Reply::Syntax { column } if column >= WORD_COLUMN);
    answer.closed && (at_the_word(text) || (is_blank(text) && at_the_word(&decode(answer.stderr))))
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// The export in `text`, if it is whole and the channel ended as RouterOS ends it.
fn whole(
    text: String,
    header: Option<Header>,
    answer: &Answer,
    normalizer: &Normalizer,
) -> Result<Export, Failure> {
    let truncated = |how: String| Failure::new(FailureKind::TruncatedOutput, how);
    let bytes = answer.stdout.len();
    if !answer.closed && bytes == 0 {
        return Err(Failure::new(
            FailureKind::ConnectionLost,
            "the connection was lost before the router printed anything",
        ));
    }
    if !answer.closed {
        return Err(truncated(format!(
            "the connection was lost after {bytes} bytes of the export"
        )));
    }
    let Some(header) = header else {
        return Err(not_an_export(&text, answer));
    };
    match answer.exit_status {
        Some(0) => {}
        Some(status) => {
            return Err(truncated(format!(
                "the router ended the export with exit status {status} after {bytes} bytes{}",
                said_beside(answer),
            )));
        }
        None => {
            return Err(truncated(format!(
                "the router closed the channel without an exit status after {bytes} bytes{}",
                said_beside(answer),
            )));
        }
    }
    let Findings {
        cut,
        incomplete_menus,
        unavailable_menus,
        stray,
    } = complete::examine(&text, normalizer);
    if let Some(cut) = cut {
        return Err(truncated(format!("the export is cut: {cut}")));
    }
    let remarks = match answer.stderr {
        [] => Vec::new(),
        _ => vec![format!("beside a whole export{}", said_beside(answer))],
    };
    Ok(Export {
        text,
        bytes: bytes as u64,
        header,
        incomplete_menus,
        unavailable_menus,
        doubt: stray.map(Box::new),
        remarks,
    })
}

/// What the router wrote to the error channel, as a half-sentence.
fn said_beside(answer: &Answer) -> String {
    if answer.stderr.is_empty() {
        return String::new();
    }
    let beside = decode(answer.stderr);
    let words = console::quote(console::first_line(&beside));
    format!("; on the error channel it wrote {words}")
}

/// Menus for a message: the first few, control characters escaped.
fn listed(menus: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = menus
        .iter()
        .take(SHOWN)
        .map(|m| console::escape(m))
        .collect();
    match menus.len().checked_sub(SHOWN) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Names what came instead of an export, in the device's own words.
fn not_an_export(text: &str, answer: &Answer) -> Failure {
    let beside = decode(answer.stderr);
    let output = if is_blank(text) { &beside } else { text };
    let ended = match answer.exit_status {
        Some(0) => String::new(),
        Some(status) => format!(" (exit status {status})"),
        None => " (and no exit status)".to_owned(),
    };
    if is_blank(output) {
        return Failure::new(
            FailureKind::NotAnExport,
            format!("the router answered the export command with nothing{ended}"),
        );
    }
    let (reply, line) = console::recognize(output);
    let words = console::quote(line);
    let cut_header = output.starts_with("# ") && !output.contains('\n');
    let (kind, what) = match reply {
        Reply::NotPermitted => (
            FailureKind::PermissionDenied,
            format!(
                "the user may not export: {words}; give its group the policies ssh, read and \
                 sensitive"
            ),
        ),
        Reply::Syntax { .. } | Reply::Error => (
            FailureKind::NotAnExport,
            format!("the router answered the export command with an error: {words}"),
        ),
        Reply::LicencePrompt => (
            FailureKind::NotAnExport,
            format!("the router asks about its licence: {words}; log in once and answer it"),
        ),
        Reply::PasswordPrompt => (
            FailureKind::NotAnExport,
            format!(
                "the router demands a new password for this user: {words}; change it on the \
                 router and store the new one"
            ),
        ),
        Reply::DemoPrompt => (
            FailureKind::NotAnExport,
            format!("the router runs without a licence: {words}"),
        ),
        Reply::Html => (
            FailureKind::NotAnExport,
            format!("the answer is a web page, not an export: {words}"),
        ),
        Reply::Other if answer.exit_status.is_none() || cut_header => (
            FailureKind::TruncatedOutput,
            format!(
                "the output ended after {} bytes, before an export header",
                answer.stdout.len()
            ),
        ),
        Reply::Other => (
            FailureKind::NotAnExport,
            format!("the output does not begin with an export header but with {words}"),
        ),
    };
    Failure::new(kind, format!("{what}{ended}"))
}

#[cfg(test)]
#[path = "dialogue_tests.rs"]
mod tests;
