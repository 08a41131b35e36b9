//! The report on a corpus: what its labels expect, what the service makes of it. Used by the example
//! and by `tests/it/corpus_report.rs`.
//!
//! The labels of an index are read as follows, and this is where they are argued with:
//! - A file whose notes say that it is cut or interrupted, or that it must not be accepted, is to be
//!   refused. So is one with "no final newline": RouterOS ends every line, so such a file was cut, or
//!   edited, and nothing tells which.
//! - `equal`, `equal config; error lines differ` and `policy: …` are to be equal: the version of the
//!   header is metadata of a snapshot, and `#error exporting` lines of menus that are not there come
//!   and go by themselves.
//! - `different` is to be different, and so is `device-side reorder`: only the router knows whether an
//!   order means something, and a backup that is restored in another order is another configuration.
//! - `… must be rejected` is to be refused, or to be a suspect beside the export before it: a cut
//!   between two items shows in no line, and is answered by reading the export again.
//! - `suspect: NAME` is to be accepted and to be a suspect of that name: a file by itself (`expected`), a
//!   pair beside the export before it or by itself.
//! - A file that is to be accepted is to be so without a doubt, unless that is expected. One is read again
//!   in spite of its label, and is taken then: its owner's shell left a prompt behind the last item.
//! - Where an index has the columns, `expected` is `accepted`, `refused` or `refused KIND`, the kind of the
//!   failure; any other word, and one that the notes contradict, is reported. `words` is
//!   what an error must quote of the device, `unknown` how many comments no rule may know, and
//!   `incomplete` the menus that are missing (`-`: none).
//! - A header whose date its owner masked is none that a router prints, and no router's answer is
//!   accepted with one. Here it is given a date again, so that the rest can be judged.
//! - The recording of a session has no line feed at its end where its form drops it (YAML's `|-`), and
//!   is given one again. What Oxidized stores of a session begins with lines of its own: no export.

#[path = "report/files.rs"]
mod files;
#[path = "report/judging.rs"]
pub mod judging;
#[path = "report/laws.rs"]
mod laws;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use mikrotik_backup::domain::failure::Failure;
use mikrotik_backup::routeros::{
    Dialogue, Export, Normalized, Remembered, Verdict, commands, normalize, suspicion,
};

use files::{file_name, files, probes, replies, table};
use judging::{answered, judge};
use laws::broken_laws;

/// What came of a corpus.
#[derive(Default)]
pub struct Report {
    /// Everything, to be printed.
    pub text: String,
    /// What came out in another way than expected.
    pub disagreements: Vec<String>,
    /// How many files, pairs and recordings were judged.
    pub judged: usize,
    /// How many files were accepted, but would be read again whatever the export before.
    pub doubted: usize,
}

/// Judges everything in `folder`.
pub fn report(folder: &Path) -> io::Result<Report> {
    let mut report = Report::default();
    let mut indexed = BTreeSet::new();
    report.line("FILES");
    for row in table(&folder.join("INDEX.tsv"))? {
        let name = row.get("file").cloned().unwrap_or_default();
        let own = !name.contains('/') && name.ends_with(".txt");
        if name.ends_with(".rsc") || own {
            report.file(&folder.join(&name), &name, Some(&row))?;
        }
        indexed.insert(name);
    }
    for path in files(folder, ".rsc")? {
        let name = file_name(&path);
        if !indexed.contains(&name) {
            report.file(&path, &name, None)?;
        }
    }
    report.line("\nPAIRS");
    let pairs = folder.join("pairs");
    if pairs.is_dir() {
        for row in table(&pairs.join("INDEX.tsv"))? {
            report.pair(&pairs, &row)?;
        }
    }
    report.line("\nSESSIONS");
    let sessions = folder.join("oxidized");
    if sessions.is_dir() {
        for path in files(&sessions, ".yaml")? {
            if file_name(&path).ends_with("simulation.yaml") {
                report.session(&path)?;
            }
        }
        for path in files(&sessions, "output.txt")? {
            let bytes = fs::read(&path)?;
            let judged = judge(&bytes);
            report.verdict(&file_name(&path), Some(false), &judged, "");
        }
    }
    let found = report.disagreements.len();
    let judged = report.judged;
    let doubted = report.doubted;
    report.line(&format!(
        "\n{judged} judged, {found} not as expected; {doubted} accepted, but read again for themselves"
    ));
    for disagreement in report.disagreements.clone() {
        report.line(&format!("  {disagreement}"));
    }
    Ok(report)
}

impl Report {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn disagree(&mut self, what: String) {
        self.disagreements.push(what);
    }

    fn file(
        &mut self,
        path: &Path,
        name: &str,
        row: Option<&BTreeMap<String, String>>,
    ) -> io::Result<()> {
        let (bytes, masked) = unmasked(fs::read(path)?);
        let judged = judge(&bytes);
        let expected = match row.map(to_be_accepted).transpose() {
            Ok(expected) => expected,
            Err(label) => {
                self.disagree(format!("{name}: {label}"));
                None
            }
        };
        let note = if masked { "; masked date" } else { "" };
        self.verdict(name, expected, &judged, note);
        let column = |name: &str| row.and_then(|row| row.get(name)).map_or("", String::as_str);
        let export = match judged {
            Ok(export) => export,
            Err(failure) => {
                let kind = column("expected").strip_prefix("refused ");
                if kind.is_some_and(|kind| kind != failure.kind.as_str())
                    || !failure.message.contains(column("words"))
                {
                    let wanted = [kind.unwrap_or_default(), column("words")].join(": ");
                    self.disagree(format!("{name}: expected {wanted:?}; actual {failure}"));
                }
                return Ok(());
            }
        };
        let doubt = export.doubt.as_ref().map(|doubt| doubt.as_str());
        self.doubted += usize::from(doubt.is_some());
        let wanted = column("expected").strip_prefix("suspect: ");
        if wanted != doubt && !(wanted.is_none() && ends_in_a_prompt(&export.text)) {
            let doubt = doubt.unwrap_or("none");
            self.disagree(format!("{name}: its doubt by itself is {doubt}"));
        }
        let unknown = normalize(&export).unknown_comment_lines.to_string();
        if !matches!(column("unknown"), "" | "?") && column("unknown") != unknown {
            self.disagree(format!("{name}: {unknown} unknown comments"));
        }
        let missing = match export.incomplete_menus.join(",") {
            none if none.is_empty() => "-".to_owned(),
            some => some,
        };
        if !column("incomplete").is_empty() && column("incomplete") != missing {
            self.disagree(format!("{name}: the missing menus are {missing}"));
        }
        let wanted = row.and_then(|row| row.get("RouterOS"));
        let version = &export.header.routeros_version;
        if wanted.is_some_and(|wanted| !wanted.is_empty() && wanted != version) {
            self.disagree(format!("{name}: the version is read as {version}"));
        }
        for law in broken_laws(&export) {
            self.disagree(format!("{name}: {law}"));
        }
        Ok(())
    }

    /// Prints the verdict on one text, and notes it where it is not the `accept`ance expected.
    fn verdict(
        &mut self,
        name: &str,
        accept: Option<bool>,
        judged: &Result<Export, Failure>,
        note: &str,
    ) {
        self.judged += 1;
        let expected = match accept {
            Some(true) => "accepted",
            Some(false) => "refused",
            None => "?",
        };
        let actual = match judged {
            Ok(export) => format!("accepted: {}{note}", summary(export, &normalize(export))),
            Err(failure) => format!("refused: {}: {}{note}", failure.kind, failure.message),
        };
        self.line(&format!("  {name}\n    expected {expected}; {actual}"));
        if accept.is_some_and(|accept| accept != judged.is_ok()) {
            self.disagree(format!("{name}: expected {expected}; {actual}"));
        }
    }

    fn pair(&mut self, folder: &Path, row: &BTreeMap<String, String>) -> io::Result<()> {
        let column = |name: &str| row.get(name).map_or("", String::as_str);
        let (name, label) = (column("pair"), column("expected"));
        let read = |side: &str| -> io::Result<Result<Export, Failure>> {
            let bytes = fs::read(folder.join(format!("{name}.{side}.rsc")))?;
            Ok(judge(&unmasked(bytes).0))
        };
        let (a, b) = (read("a")?, read("b")?);
        let expected = match label {
            _ if label.contains("must be rejected") => "b refused",
            "different" | "device-side reorder" => "different",
            _ if label.starts_with("suspect:") => label,
            _ if label.starts_with("equal") || label.starts_with("policy:") => "equal",
            _ => "?",
        };
        let (actual, why) = match (&a, &b) {
            (Ok(a), Ok(b)) => {
                let doubt = b.doubt.clone().map(|doubt| *doubt);
                let lacks = (a.incomplete_menus.clone(), b.incomplete_menus.clone());
                let (a, b) = (normalize(a), normalize(b));
                let same = a.hash == b.hash;
                let suspect =
                    doubt.or_else(|| suspicion(remembered(&a, &lacks.0), remembered(&b, &lacks.1)));
                let doubted = expected == "b refused" && suspect.is_some();
                let named = suspect.as_ref().map(|suspect| suspect.as_str());
                let why = suspect
                    .as_ref()
                    .map_or(String::new(), |suspect| format!("; suspect: {suspect}"));
                let told = expected.strip_prefix("suspect: ");
                match (doubted, same) {
                    _ if told.is_some() && told == named => (expected, why),
                    // The service reads it again, and a router that cuts it another time is refused.
                    (true, _) => ("b refused", format!("; not for itself{why}")),
                    (false, true) => ("equal", why),
                    (false, false) => ("different", why),
                }
            }
            (Ok(_), Err(failure)) => ("b refused", format!("; {failure}")),
            (Err(failure), _) => ("a refused", format!("; {failure}")),
        };
        self.judged += 1;
        self.line(&format!(
            "  {name}\n    label {label:?}: expected {expected}, actual {actual}{why}"
        ));
        if expected != actual {
            self.disagree(format!(
                "pair {name}: expected {expected}, actual {actual}{why}"
            ));
        }
        Ok(())
    }

    /// Holds the conversation that was recorded: each command gets the reply that it got then.
    fn session(&mut self, path: &Path) -> io::Result<()> {
        let name = file_name(path);
        let replies = replies(&fs::read_to_string(path)?);
        let mut dialogue = Dialogue::new(None);
        let judged = loop {
            let command = dialogue.command().as_str();
            let Some(reply) = replies.get(command) else {
                self.line(&format!("  {name}\n    {command:?} was not recorded"));
                return Ok(());
            };
            match dialogue.judge(&answered(reply.as_bytes())) {
                Verdict::Whole(export) => break Ok(export),
                Verdict::Refused(failure) => break Err(failure),
                Verdict::Ask(_) => {}
            }
        };
        self.verdict(&name, Some(true), &judged, "");
        let Ok(export) = judged else { return Ok(()) };
        for law in broken_laws(&export) {
            self.disagree(format!("{name}: {law}"));
        }
        let probe = path.with_file_name(name.replace("simulation", "significant_changes"));
        let Ok(probe) = fs::read_to_string(probe) else {
            return Ok(());
        };
        let normalized = normalize(&export);
        let text = normalized.text.expose();
        for (wanted, probe) in probes(&probe) {
            let there = text.contains(&probe);
            // What was never in the export tells nothing of it.
            if there != wanted && export.text.contains(&probe) {
                let state = if there { "kept" } else { "dropped" };
                self.disagree(format!("{name}: {probe:?} is {state}"));
            }
        }
        Ok(())
    }
}

/// What the service keeps of an export that lacks the menus `lacks`.
fn remembered<'a>(export: &'a Normalized, lacks: &'a [String]) -> Remembered<'a> {
    Remembered {
        incomplete_menus: lacks,
        ..export.into()
    }
}

/// Whether the last line is the prompt of a shell.
fn ends_in_a_prompt(text: &str) -> bool {
    let last = text.lines().next_back().unwrap_or_default();
    last.starts_with('[') && last.contains('@') && last.trim_end().ends_with("] >")
}

/// Whether an index wants a file to be accepted.
fn to_be_accepted(row: &BTreeMap<String, String>) -> Result<bool, String> {
    let expected = row.get("expected").map_or("", String::as_str);
    let wanted = match expected.split_once([' ', ':']).map_or(expected, |it| it.0) {
        "" => None,
        "accepted" | "suspect" => Some(true),
        "refused" => Some(false),
        _ => return Err(format!("{expected:?} is no label of a file")),
    };
    match (wanted, labelled_cut(row)) {
        (Some(true), true) => Err(format!("{expected:?}, but its notes say that it is cut")),
        (wanted, cut) => Ok(wanted.unwrap_or(!cut)),
    }
}

/// Whether an index says that a file is not a whole export.
fn labelled_cut(row: &BTreeMap<String, String>) -> bool {
    let said = ["notes", "expected", "category", "comment"]
        .iter()
        .filter_map(|column| row.get(*column))
        .map(|text| text.to_lowercase())
        .collect::<Vec<_>>()
        .join(" ");
    [
        "no final newline",
        "truncated",
        "cut-off",
        "interrupted export",
        "must not be accepted",
        "must be rejected",
        "must be refused",
    ]
    .iter()
    .any(|sign| said.contains(sign))
}

fn summary(export: &Export, normalized: &Normalized) -> String {
    let mut text = format!(
        "RouterOS {}, {} commands in {} menus, {} secrets",
        export.header.routeros_version,
        commands(normalized.text.expose()).len(),
        normalized.shape.menus.len(),
        normalized.shape.secrets
    );
    for (rule, times) in &normalized.ledger {
        let _ = write!(text, "; {rule} {times}");
    }
    if let Some(doubt) = &export.doubt {
        let _ = write!(text, "; suspect: {doubt}");
    }
    for comment in &normalized.unknown_comments {
        let _ = write!(text, "; unknown comment {comment:?}");
    }
    text
}

/// The text with a date in its header again, where its owner had put one and the same character
/// in the place of each letter and digit.
fn unmasked(bytes: Vec<u8>) -> (Vec<u8>, bool) {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let (first, rest) = bytes.split_at(end);
    let first = String::from_utf8_lossy(first);
    let masked = first
        .strip_prefix("# ")
        .and_then(|line| line.split_once(" by RouterOS "));
    let Some((stamp, version)) = masked else {
        return (bytes, false);
    };
    let kinds: BTreeSet<char> = stamp.chars().filter(|c| !" /:-".contains(*c)).collect();
    let shaped = matches!(stamp.chars().count(), 19 | 20);
    if !shaped || kinds.len() > 1 {
        return (bytes, false);
    }
    let dated = format!("# 2026-01-02 03:04:05 by RouterOS {version}");
    ([dated.as_bytes(), rest].concat(), true)
}
