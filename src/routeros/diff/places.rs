//! Owns which menu each physical line of an export stands in.

use std::collections::HashMap;

use super::super::comments::ErrorLine;
use super::super::reader::{self, LineKind};
use super::super::shape::{Item, is_at_or_below, plain_menu};

/// At most so many menus are told apart; RouterOS has a few hundred. What comes after counts as one
/// more, so that noise cannot fill the memory.
const MAX_MENUS: usize = 4096;

/// The names of what comes after [`MAX_MENUS`]: what both sides exported, and what one did not.
const OTHER_MENUS: [&str; 2] = ["(other menus)", "(other menus, not exported)"];

/// The menus of the lines of a text, which is read as they are asked for.
pub(super) struct Places<'a> {
    text: &'a str,
    lines: reader::Lines<'a>,
    names: Names,
    /// The menu that relative items are in, and the one of the logical line that was read last.
    context: usize,
    place: usize,
    /// What that line is in, and the number of the physical line behind it.
    run: Run,
    behind: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Lines in a menu.
    Menu(usize),
    /// A comment in the first menu which says that the second could not be exported.
    Error(usize, usize),
}

/// The place of a line.
pub(super) struct Place<'a> {
    /// The path of its menu, words divided by blanks; empty before the first menu.
    pub(super) menu: &'a str,
    /// The menu about which one side says nothing, so that this line is no change.
    pub(super) unknown: Option<&'a str>,
}

impl<'a> Places<'a> {
    /// Those of `text`; the other side could not export `unknown_menus`.
    pub(super) fn read(text: &'a str, unknown_menus: &[String]) -> Self {
        Self {
            text,
            lines: reader::lines(text),
            names: Names::new(unknown_menus),
            context: 0,
            place: 0,
            run: Run::Menu(0),
            behind: 0,
        }
    }

    fn enter(&mut self, item: &Item<'_>) {
        match item {
            Item::Menu(menu) => {
                self.context = self.names.number(menu);
                self.place = self.context;
            }
            Item::Absolute { menu, .. } => self.place = self.names.number(menu),
            Item::Relative(_) => self.place = self.context,
        }
    }

    fn read_on(&mut self, line: &reader::Line<'a>) {
        let mut run = None;
        match line.kind {
            LineKind::Blank | LineKind::Rest => {}
            LineKind::Comment => {
                if let Some(ErrorLine::Failed { menu, .. }) = ErrorLine::parse(line.raw) {
                    run = Some(Run::Error(self.place, self.names.number(menu)));
                }
            }
            LineKind::Config if !line.wrapped => self.enter(&Item::parse(line.raw)),
            LineKind::Config if !line.raw.starts_with('/') => self.place = self.context,
            // The path itself may be wrapped.
            LineKind::Config => self.enter(&Item::parse(&line.logical())),
        }
        self.run = run.unwrap_or(Run::Menu(self.place));
        let bytes = &self.text.as_bytes()[line.start..line.end];
        let feeds = memchr::memchr_iter(b'\n', bytes).count();
        self.behind += feeds + usize::from(!bytes.ends_with(b"\n"));
    }

    /// The place of `line`, counted from 0. Lines are asked for in order.
    pub(super) fn of(&mut self, line: usize) -> Place<'_> {
        while self.behind <= line
            && let Some(next) = self.lines.next()
        {
            self.read_on(&next);
        }
        let menus = &self.names.menus;
        match self.run {
            Run::Menu(menu) => {
                let (menu, unknown) = &menus[menu];
                Place {
                    menu,
                    unknown: unknown.then_some(menu.as_str()),
                }
            }
            Run::Error(menu, failed) => Place {
                menu: &menus[menu].0,
                unknown: Some(&menus[failed].0),
            },
        }
    }
}

struct Names {
    menus: Vec<(String, bool)>,
    index: HashMap<String, usize>,
    unknown: Vec<String>,
    /// The menu named last, as it stood there.
    last: (String, usize),
}

impl Names {
    fn new(unknown: &[String]) -> Self {
        Self {
            menus: vec![(String::new(), false)],
            index: HashMap::from([(String::new(), 0)]),
            unknown: unknown
                .iter()
                .map(|menu| plain_menu(menu).into_owned())
                .collect(),
            last: (String::new(), 0),
        }
    }

    fn is_unknown(&self, plain: &str) -> bool {
        let mut unknown = self.unknown.iter();
        unknown.any(|known| is_at_or_below(plain, known))
    }

    fn number(&mut self, menu: &str) -> usize {
        if self.last.0 == menu {
            return self.last.1;
        }
        let mut plain = plain_menu(menu);
        let unknown = self.is_unknown(&plain);
        if self.menus.len() >= MAX_MENUS && !self.index.contains_key(plain.as_ref()) {
            plain = OTHER_MENUS[usize::from(unknown)].into();
        }
        let number = match self.index.get(plain.as_ref()) {
            Some(number) => *number,
            None => {
                let number = self.menus.len();
                self.index.insert(plain.clone().into_owned(), number);
                self.menus.push((plain.into_owned(), unknown));
                number
            }
        };
        menu.clone_into(&mut self.last.0);
        self.last.1 = number;
        number
    }
}
