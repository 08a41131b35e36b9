//! Owns the normalisation: what is taken out so that two exports of an unchanged router are equal.
//!
//! The text stays what an operator can paste back. What changes, and why:
//! - Line ends become line feeds; blanks at the end of a line that ends outside quotes go; runs of
//!   blank lines become one, none stands at the top; the text ends in exactly one line feed.
//!   Wrapped lines keep their wraps, and blanks inside quotes or before a continuation stay. Line ends
//!   inside quotes become line feeds, too: RouterOS escapes those of a text (`\r\n`), so that a real one
//!   is there because of what carried the export, which writes all of them in one way. What has been
//!   pasted in is the same with either. A carriage return that ends no line is content.
//! - The dated header line goes: it is new at every export. With it goes the version, so an
//!   upgrade that changes nothing else is no change; the version is metadata of the snapshot.
//! - Bare `#` lines of the header block go: 7.20 prints one where 7.22.1 prints three (facts sheet, §1),
//!   so an upgrade alone would change them. Its fields stay: another id or model is another machine.
//! - State comments go (see `rules`), where one can stand: before an `add` or `set` in a menu.
//! - Comments that the operator ignores go (`CONFIG_BACKUP_IGNORE_COMMENTS`), wherever they stand but
//!   in the header block; never what tells that the export is not whole.
//! - With a comment goes what the router wrapped of it (see `wrapped`). Before a line that might be such
//!   a rest, of whatever comment, none goes: another one might seem to go on in it.
//! - `#error exporting` lines of menus that are not there go: on some versions they come and go
//!   between exports of one configuration. Lines that say that data is missing stay.
//! - In the terse form, an item with a state comment is printed as a menu line, the comment and
//!   the item. With the comments gone the two lines become the one that RouterOS prints without
//!   them, if the whole text is terse; otherwise they stay.
//!
//! Two differences are changes, though a router may make them by itself:
//! - Entries in another order (`/container` was seen to swap some): only the router knows whether
//!   the order means something.
//! - Another wrap width: without a terminal RouterOS wraps at one width, so it does not occur
//!   between our own exports, and joining lines would make the text harder to paste and to read.
//!   The per-menu digests of the shape are of joined lines and do not depend on it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::comments::{self, Class, ErrorLine};
use super::copy::{self, Copied};
use super::dialogue::Export;
use super::form::Form;
use super::header;
use super::normalizer::Normalizer;
use super::reader::{self, Line, LineKind, Scratch, trim_blanks, trim_end};
use super::shape::{Context, Item};
use super::terse::is_terse;
use super::wrapped;
use crate::domain::archive::Renormalize;
use crate::domain::digest::Digest;
use crate::domain::snapshot::{ConfigText, Shape};

/// The version of these rules, published with every snapshot. It is raised when a text that a router
/// may have sent comes out in another way than before, so that the archive makes the texts that it
/// compares with anew. What can be said of comments alone is in the fingerprint of their rules.
pub const NORMALIZATION_VERSION: u32 = 4;

/// The ledger's name for the dated header line.
const DATED_HEADER: &str = "dated-header";
/// The ledger's name for bare `#` lines of the header block.
const BARE_HEADER_LINE: &str = "bare-header-line";
/// The ledger's name for `#error exporting` lines of menus that are not there.
const ERROR_EXPORTING: &str = "error-exporting";
/// The ledger's name for terse items that were put back into one line.
const TERSE_ITEM: &str = "terse-item-rejoined";

/// At most so many different unknown comments are listed, each cut at [`MAX_COMMENT`] characters.
const MAX_UNKNOWN: usize = 50;
/// See [`MAX_UNKNOWN`].
const MAX_COMMENT: usize = 200;

/// A normalised export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Normalized {
    /// The text to hash, store and publish.
    pub text: ConfigText,
    /// SHA-256 of its UTF-8 bytes.
    pub hash: Digest,
    /// How often each rule took something out (line ends and blanks are not counted).
    pub ledger: BTreeMap<String, u64>,
    /// Different comments that no rule knows, at most 50; they are in the text.
    pub unknown_comments: Vec<String>,
    /// How many such comments there are, repetitions included.
    pub unknown_comment_lines: u64,
    /// How many comments a rule knows or the operator ignores.
    pub known_comment_lines: u64,
    /// What to remember of its form.
    pub shape: Shape,
}

/// Normalises a whole export by the table's rules alone.
pub fn normalize(export: &Export) -> Normalized {
    Normalizer::default().normalize(export)
}

/// Normalises any text by the table's rules alone.
pub fn normalize_text(text: &str) -> String {
    Normalizer::default().text(text)
}

/// The normalisation of the table's rules alone, to be applied to texts that earlier ones made.
pub fn renormalize() -> Renormalize {
    Normalizer::default().renormalize()
}

/// Normalises a whole export.
pub(super) fn whole(normalizer: &Normalizer, text: &str) -> Normalized {
    let (text, hash, told) = copy::hashed(text, |out| {
        let mut run = Run::new(normalizer, text, out);
        run.form = Some(Form::of(text));
        run.all();
        let form = run.form.map(Form::finish).unwrap_or_default();
        (
            run.out,
            (
                run.ledger,
                run.unknown,
                [run.unknown_lines, run.known_lines],
                form,
            ),
        )
    });
    let (ledger, unknown_comments, [unknown_comment_lines, known_comment_lines], shape) = told;
    Normalized {
        hash,
        text: ConfigText::new(text),
        ledger: ledger
            .into_iter()
            .map(|(rule, count)| (rule.to_owned(), count))
            .collect(),
        unknown_comments,
        unknown_comment_lines,
        known_comment_lines,
        shape,
    }
}

/// Normalises any text, whole or not, raw or normalised by an earlier version.
pub(super) fn any(normalizer: &Normalizer, text: &str) -> String {
    let mut run = Run::new(normalizer, text, Copied::of(text));
    run.all();
    run.out.finish()
}

/// What comments stand before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// An item, as state comments do.
    Item,
    /// A line that might be the rest of some comment: with a comment before it gone, another one
    /// might seem to go on in it, so none goes.
    Stray,
    /// Another line, or nothing.
    Other,
}

/// One pass over a text.
struct Run<'a> {
    normalizer: &'a Normalizer,
    text: &'a str,
    out: Copied<'a>,
    context: Context,
    /// Nothing but fields of the header has stayed yet.
    in_header: bool,
    /// A menu line that is not written yet: the item after it may have to join it.
    menu: Option<Line<'a>>,
    /// An item has joined it, so that it is written only before one that does not.
    joined: bool,
    /// Comments (with their rests) that are not written yet: what follows decides.
    comments: Option<Range<usize>>,
    last_comment: Option<&'a str>,
    /// A blank line is due before the next line written.
    blank: bool,
    /// Whether the whole text is in the terse form, once it was asked.
    terse: Option<bool>,
    /// Few rules take anything out of one text.
    ledger: Vec<(&'a str, u64)>,
    unknown: Vec<String>,
    unknown_lines: u64,
    known_lines: u64,
    form: Option<Form<'a>>,
    /// Where wrapped lines are put together.
    scratch: Scratch,
}

impl<'a> Run<'a> {
    fn new(normalizer: &'a Normalizer, text: &'a str, out: Copied<'a>) -> Self {
        Self {
            normalizer,
            text,
            out,
            context: Context::default(),
            in_header: true,
            menu: None,
            joined: false,
            comments: None,
            last_comment: None,
            blank: false,
            terse: None,
            ledger: Vec::new(),
            unknown: Vec::new(),
            unknown_lines: 0,
            known_lines: 0,
            form: None,
            scratch: Scratch::default(),
        }
    }

    fn all(&mut self) {
        for line in reader::lines(self.text) {
            match line.kind {
                LineKind::Blank if self.last_comment.is_some_and(wrapped::may_lack_a_letter) => {
                    self.hold(&line);
                    self.last_comment = None;
                }
                LineKind::Blank => {
                    self.settle(None);
                    self.blank = !self.out.is_empty();
                }
                LineKind::Comment => {
                    self.hold(&line);
                    self.last_comment = Some(line.raw);
                }
                LineKind::Rest => {
                    self.hold(&line);
                    self.last_comment = None;
                }
                LineKind::Config => {
                    let ignores = |c: &str| self.normalizer.ignores_across(c, line.raw);
                    if self.last_comment.is_some_and(ignores) {
                        self.hold(&line);
                        self.last_comment = None;
                    } else {
                        self.config(&line);
                    }
                }
            }
        }
        self.settle(None);
        if self.out.is_empty() {
            self.out.push_str("\n");
        }
    }

    fn hold(&mut self, line: &Line<'a>) {
        let start = self.comments.as_ref().map_or(line.start, |held| held.start);
        self.comments = Some(start..line.end);
    }

    fn config(&mut self, line: &Line<'a>) {
        let whole = !line.wrapped && !line.open_quote;
        let held = self.comments.is_some() || self.menu.is_some();
        if whole && !held && !line.raw.starts_with('/') {
            self.item(line);
            return;
        }
        if whole {
            self.command(line, trim_end(line.raw), &[]);
            return;
        }
        // Of an item in the current menu nothing has to be known but that it is one. What begins with
        // a backslash may go on with a menu.
        let menu_like = line.raw.starts_with(['/', '\\']);
        if self.form.is_none() && self.comments.is_none() && !menu_like {
            self.command(line, line.raw, &[]);
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let (logical, wraps) = scratch.logical(line);
        self.command(line, logical, wraps);
        self.scratch = scratch;
    }

    /// Goes on with an item of one physical line, where nothing is held: so are most lines of an export.
    fn item(&mut self, line: &Line<'a>) {
        self.write(line);
        self.in_header = false;
        if let Some(form) = &mut self.form {
            let command = trim_blanks(line.raw);
            let logical = trim_end(line.raw);
            form.add(
                line,
                &Item::Relative(command),
                self.context.menu(),
                (logical, &[]),
            );
        }
    }

    /// Goes on with a line of configuration, given in one piece as well, and where its wraps were.
    fn command(&mut self, line: &Line<'a>, logical: &str, wraps: &[usize]) {
        let item = Item::parse(logical);
        if let Item::Menu(_) = item {
            self.settle(None);
            self.context.enter(logical);
            self.menu = Some(*line);
            self.joined = false;
        } else {
            self.settle(Some((line, &item)));
        }
        self.in_header = false;
        if let Some(form) = &mut self.form {
            form.add(line, &item, self.context.menu(), (logical, wraps));
        }
    }

    /// Writes what is held, then `next`.
    fn settle(&mut self, next: Option<(&Line<'a>, &Item<'_>)>) {
        self.last_comment = None;
        if let (None, None, Some((line, _))) = (&self.comments, &self.menu, next) {
            self.write(line);
            return;
        }
        let (dropped, kept) = match self.comments.take() {
            Some(range) => {
                let before = match next {
                    Some((_, item)) if item.is_relative_item() => Before::Item,
                    Some((line, _)) if wrapped::may_be_rest(line.first()) => Before::Stray,
                    _ => Before::Other,
                };
                self.sift(range, before)
            }
            None => (0, 0),
        };
        if let Some((line, item)) = next
            && item.is_relative_item()
            && dropped > 0
            && kept == 0
            && self.rejoin(line)
        {
            return;
        }
        // What has been joined stays held: behind other lines may stand one more item of its menu.
        let joined = self.joined && !matches!(next, Some((_, Item::Relative(_))));
        if !joined && let Some(menu) = self.menu.take() {
            self.write(&menu);
        }
        if let Some((line, _)) = next {
            self.write(line);
        }
    }

    /// Writes an item whose comments have gone as the terse form has it, in one line with its menu;
    /// `false` where the text is not terse.
    fn rejoin(&mut self, line: &Line<'_>) -> bool {
        let menu = match (&self.menu, self.context.menu()) {
            (Some(menu), _) => menu.logical().into_owned(),
            (None, Some(menu)) => menu.to_owned(),
            (None, None) => return false,
        };
        if !self.is_terse() {
            return false;
        }
        self.due_blank();
        self.out.push_str(&menu);
        self.out.push_str(" ");
        line.write_normalized(&mut self.out);
        self.count(TERSE_ITEM);
        self.joined = true;
        true
    }

    fn write(&mut self, line: &Line<'_>) {
        self.due_blank();
        line.write_normalized(&mut self.out);
    }

    /// Writes the comments that stay, behind the menu line that is held; how many state comments do not,
    /// and how many comments do.
    fn sift(&mut self, held: Range<usize>, before: Before) -> (u64, u64) {
        let (mut dropped, mut kept) = (0, 0);
        let mut top = self.out.is_empty() && self.menu.is_none();
        let mut lines = reader::lines_in(self.text, held).peekable();
        while let Some(line) = lines.next() {
            let mut end = line.end;
            while let Some(rest) = lines.next_if(|next| next.kind != LineKind::Comment) {
                end = rest.end;
            }
            let rest = (end > line.end).then(|| &self.text[line.end..end]);
            if top && rest.is_none() && header::dated_version(line.raw).is_some() {
                self.count(DATED_HEADER);
                continue;
            }
            if self.in_header && before != Before::Stray && header::is_separator(line.raw) {
                self.count(BARE_HEADER_LINE);
                continue;
            }
            match self.rule(line.raw, rest, before) {
                Some(name) => {
                    self.count(name);
                    dropped += u64::from(name != ERROR_EXPORTING);
                }
                None => {
                    self.in_header &= rest.is_none() && header::is_header_field(line.raw);
                    top = false;
                    // What could not be exported is no comment of the next item.
                    let held = self.joined && ErrorLine::parse(line.raw).is_some();
                    let menu = match held {
                        true => None,
                        false => {
                            kept += 1;
                            self.menu.take()
                        }
                    };
                    let lines = reader::lines_in(self.text, line.start..end);
                    for line in menu.into_iter().chain(lines) {
                        match line.kind {
                            LineKind::Blank => self.blank = true,
                            _ => self.write(&line),
                        }
                    }
                }
            }
        }
        (dropped, kept)
    }

    /// The rule that takes `comment` (and its `rest` on further lines) out, if one does. Takes note of unknown ones.
    fn rule(&mut self, comment: &str, rest: Option<&str>, before: Before) -> Option<&'a str> {
        match ErrorLine::parse(comment) {
            Some(ErrorLine::Failed { harmless: true, .. }) if before != Before::Stray => {
                return Some(ERROR_EXPORTING);
            }
            Some(ErrorLine::Failed { menu, .. }) => {
                if let Some(form) = &mut self.form {
                    form.gap(menu);
                }
                return None;
            }
            Some(ErrorLine::Interrupted) => return None,
            None => {}
        }
        if before != Before::Stray
            && !(self.context.menu().is_none() && header::is_header_field(comment))
            && let Some(name) = match rest.filter(|rest| !rest.trim().is_empty()) {
                Some(rest) => self.normalizer.ignores_wrapped(comment, rest),
                None => self.normalizer.ignores(comment),
            }
        {
            self.known_lines += 1;
            return Some(name);
        }
        let Some(menu) = self.context.menu() else {
            if !header::is_header_field(comment) {
                self.report(comment);
            }
            return None;
        };
        let class = match rest {
            Some(rest) => wrapped::classify_wrapped(menu, comment, rest),
            None => comments::classify(menu, comment),
        };
        match class {
            Class::Known(rule) if before == Before::Item => {
                self.known_lines += 1;
                Some(rule.name)
            }
            Class::Known(_) | Class::Unknown => {
                self.report(comment);
                None
            }
        }
    }

    fn report(&mut self, comment: &str) {
        self.unknown_lines += 1;
        if self.unknown.len() == MAX_UNKNOWN {
            return;
        }
        let comment = comment.trim_end();
        let cut = comment.char_indices().nth(MAX_COMMENT);
        let shown = cut.map_or(comment, |(end, _)| &comment[..end]);
        if !self.unknown.iter().any(|known| known == shown) {
            self.unknown.push(shown.to_owned());
        }
    }

    fn count(&mut self, rule: &'a str) {
        match self.ledger.iter_mut().find(|(known, _)| *known == rule) {
            Some((_, count)) => *count += 1,
            None => self.ledger.push((rule, 1)),
        }
    }

    fn due_blank(&mut self) {
        if std::mem::take(&mut self.blank) {
            self.out.push_str("\n");
        }
    }

    fn is_terse(&mut self) -> bool {
        *self
            .terse
            .get_or_insert_with(|| is_terse(self.text, self.normalizer))
    }
}
