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
//! - Where an index has the columns, `expected` may name the kind of failure (`refused KIND`), `words`
//!   what an error must quote of the device, `unknown` how many comments no rule may know, and
//!   `incomplete` the menus that are missing (`-`: none).
//! - A header whose date its owner masked is none that a router prints, and no router's answer is
//!   accepted with one. Here it is given a date again, so that the rest can be judged.
//! - The recording of a session has no line feed at its end where its form drops it (YAML's `|-`), and
//!   is given one again. What Oxidized stores of a session begins with lines of its own: no export.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use mikrotik_backup::domain::failure::Failure;
use mikrotik_backup::routeros::{
    Answer, Dialogue, Export, Normalized, Remembered, Verdict, commands, decode, encode, normalize,
    normalize_text, suspicion,
};
use saphyr::{LoadableYamlNode as _, Yaml};

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
        let expected = row.map(|row| !labelled_cut(row));
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

/// What must hold of every whole export, and does not of this one.
fn broken_laws(export: &Export) -> Vec<&'static str> {
    let normalized = normalize(export);
    let text = normalized.text.expose();
    let raw = encode(&export.text);
    let unix = export.text.replace("\r\n", "\n");
    let dos = unix.replace('\n', "\r\n");
    let (_, rest) = unix.split_once('\n').unwrap_or_default();
    let version = &export.header.routeros_version;
    let later = format!("# 2031-12-31 23:59:59 by RouterOS {version}\n{rest}");
    let earlier = format!("# jan/01/1970 00:00:01 by RouterOS {version}\n{rest}");
    let mut broken = Vec::new();
    let mut law = |holds: bool, what| {
        if !holds {
            broken.push(what);
        }
    };
    law(
        normalize_text(text) == text,
        "normalising twice is not normalising once",
    );
    law(
        commands(text) == commands(&export.text),
        "the commands are not the same",
    );
    law(decode(&raw) == export.text, "its bytes do not come back");
    law(
        normalized.hash == normalized.text.digest(),
        "the hash is not the text's",
    );
    law(
        [unix, dos, later, earlier]
            .iter()
            .all(|other| normalize_text(other) == text),
        "line ends or the date make a difference",
    );
    law(
        suspicion((&normalized).into(), (&normalized).into()).is_none(),
        "it is a suspect beside itself",
    );
    law(
        (1..32).all(|part| {
            let at = raw.len() * part / 32;
            raw.get(at.saturating_sub(1)) == Some(&b'\n') || judge(&raw[..at]).is_err()
        }),
        "it is accepted where it is cut inside a line",
    );
    law(
        !export.incomplete_menus.is_empty()
            || line_ends(&raw).all(|at| is_doubted(&normalized, &raw[..at])),
        "a cut between two of its lines is neither refused nor suspected",
    );
    law(
        edits(&raw)
            .all(|edited| judge(&edited).is_ok_and(|e| normalize(&e).hash != normalized.hash)),
        "an edited character of its configuration is no change, or is refused",
    );
    broken
}

/// The text with one letter or digit of its configuration replaced by another, in some places.
fn edits(raw: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    const SOME: usize = 24;
    let mut places = Vec::new();
    let (mut start, mut goes_on, mut wide) = (0, false, false);
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let comment = line.starts_with(b"#") && !goes_on;
        let letters = line.iter().enumerate().filter(|(at, byte)| {
            // Not what a backslash makes another character of, nor the words of an item's form.
            let escaped =
                (1..=2).any(|back| at.checked_sub(back).is_some_and(|b| line[b] == b'\\'));
            byte.is_ascii_alphanumeric() && !escaped && *at > 4
        });
        // What the router wrapped of a comment is none.
        let item = [&b"add"[..], b"set", b"remove"];
        let rest = wide && !item.iter().any(|verb| line.starts_with(verb));
        if !comment && !rest && !line.starts_with(b"/") {
            places.extend(letters.map(|(at, _)| start + at));
        }
        goes_on = line.trim_ascii_end().ends_with(b"\\");
        wide = comment && line.len() >= 79;
        start += line.len();
    }
    let few = SOME.min(places.len());
    (0..few).map(move |part| {
        let at = places[part * places.len() / few];
        let mut edited = raw.to_vec();
        edited[at] = if edited[at] == b'7' { b'8' } else { b'7' };
        edited
    })
}

/// Some of the places right behind a line feed, the first and the last among them.
fn line_ends(raw: &[u8]) -> impl Iterator<Item = usize> {
    const SOME: usize = 48;
    let feeds = raw.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let ends: Vec<usize> = feeds.map(|(at, _)| at + 1).collect();
    let last = ends.len().saturating_sub(1);
    let few = SOME.min(last);
    (0..few).map(move |part| ends[part * last / few])
}

/// Whether `cut` is refused, is read again beside the `whole` export, or lacks nothing.
fn is_doubted(whole: &Normalized, cut: &[u8]) -> bool {
    let Ok(export) = judge(cut) else { return true };
    let doubted = export.doubt.is_some();
    let cut = normalize(&export);
    doubted || cut.hash == whole.hash || suspicion(whole.into(), (&cut).into()).is_some()
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

fn answered(stdout: &[u8]) -> Answer<'_> {
    Answer {
        stdout,
        stderr: b"",
        exit_status: Some(0),
        closed: true,
    }
}

/// The verdict on `stdout`, as the answer to whatever is asked.
fn judge(stdout: &[u8]) -> Result<Export, Failure> {
    let mut dialogue = Dialogue::new(None);
    loop {
        match dialogue.judge(&answered(stdout)) {
            Verdict::Whole(export) => return Ok(export),
            Verdict::Refused(failure) => return Err(failure),
            // Each command is asked for once.
            Verdict::Ask(_) => {}
        }
    }
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

/// What was answered to each command of a recorded session.
fn replies(yaml: &str) -> BTreeMap<String, String> {
    let documents = Yaml::load_from_str(yaml).unwrap_or_default();
    let commands = documents
        .first()
        .and_then(|root| root.as_mapping_get("commands"));
    let Some(commands) = commands.and_then(Yaml::as_mapping) else {
        return BTreeMap::new();
    };
    commands
        .iter()
        .filter_map(|(command, reply)| {
            let command = command.as_str()?;
            let command = command.trim_end().trim_end_matches("\\n").to_owned();
            // Blanks that the form would lose are escaped in it.
            let reply = reply.as_str().unwrap_or_default().replace("\\x20", " ");
            Some((command, reply + "\n"))
        })
        .collect()
}

/// Texts that must stay, and texts that must not.
fn probes(yaml: &str) -> Vec<(bool, String)> {
    let documents = Yaml::load_from_str(yaml).unwrap_or_default();
    let Some(root) = documents.first() else {
        return Vec::new();
    };
    let list = |key: &str, wanted: bool| -> Vec<(bool, String)> {
        let probes = root.as_mapping_get(key).and_then(|list| list.as_vec());
        let probes = probes.into_iter().flatten();
        probes
            .filter_map(|probe| Some((wanted, probe.as_str()?.to_owned())))
            .collect()
    };
    [list("pass", true), list("fail", false)].concat()
}

/// Rows of a table by its column names.
fn table(path: &Path) -> io::Result<Vec<BTreeMap<String, String>>> {
    let text = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let mut rows = text.lines().map(|line| line.split('\t').map(str::to_owned));
    let names: Vec<String> = rows.next().map(Iterator::collect).unwrap_or_default();
    Ok(rows
        .map(|row| names.iter().cloned().zip(row).collect())
        .collect())
}

/// The files of a folder whose name ends so, in order.
fn files(folder: &Path, end: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && file_name(&path).ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
