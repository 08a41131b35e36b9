//! Owns which menu each physical line of an export stands in.

use std::collections::HashMap;

use super::super::comments::ErrorLine;
use super::super::reader::{self, LineKind};
use super::super::shape::{Item, is_at_or_below, plain_menu};

/// The menus of the lines of a text.
pub(super) struct Places {
    /// Each menu's path, and whether the other side could not export it. The first is the place
    /// before any menu.
    menus: Vec<(String, bool)>,
    /// Where lines of another place begin: the line, counted from 0, and what it begins.
    runs: Vec<(usize, Run)>,
    /// The run of the line that was asked for last.
    at: usize,
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

impl Places {
    /// Reads `text`; the other side could not export `unknown_menus`.
    pub(super) fn read(text: &str, unknown_menus: &[String]) -> Self {
        let mut names = Names::new(unknown_menus);
        let mut runs: Vec<(usize, Run)> = Vec::new();
        // The menu that relative items are in, and the one of the line before.
        let (mut context, mut place) = (0, 0);
        let mut at = 0;
        for line in reader::lines(text) {
            let mut run = None;
            match line.kind {
                LineKind::Blank | LineKind::Rest => {}
                LineKind::Comment => {
                    if let Some(ErrorLine::Failed { menu, .. }) = ErrorLine::parse(line.raw) {
                        run = Some(Run::Error(place, names.number(menu)));
                    }
                }
                LineKind::Config if !line.wrapped => match Item::parse(line.raw) {
                    Item::Menu(menu) => {
                        context = names.number(menu);
                        place = context;
                    }
                    Item::Absolute { menu, .. } => place = names.number(menu),
                    Item::Relative(_) => place = context,
                },
                LineKind::Config if !line.raw.starts_with('/') => place = context,
                // The path itself may be wrapped.
                LineKind::Config => match Item::parse(&line.logical()) {
                    Item::Menu(menu) => {
                        context = names.number(menu);
                        place = context;
                    }
                    Item::Absolute { menu, .. } => place = names.number(menu),
                    Item::Relative(_) => place = context,
                },
            }
            let run = run.unwrap_or(Run::Menu(place));
            if runs.last().is_none_or(|(_, last)| *last != run) {
                runs.push((at, run));
            }
            let end = &text.as_bytes()[line.start..line.end];
            at += memchr::memchr_iter(b'\n', end).count();
        }
        Self {
            menus: names.menus,
            runs,
            at: 0,
        }
    }

    /// The place of `line`, counted from 0. Lines are asked for in order.
    pub(super) fn of(&mut self, line: usize) -> Place<'_> {
        while self
            .runs
            .get(self.at + 1)
            .is_some_and(|(at, _)| *at <= line)
        {
            self.at += 1;
        }
        let run = self.runs.get(self.at).map_or(Run::Menu(0), |(_, run)| *run);
        match run {
            Run::Menu(menu) => {
                let (menu, unknown) = &self.menus[menu];
                Place {
                    menu,
                    unknown: unknown.then_some(menu.as_str()),
                }
            }
            Run::Error(menu, failed) => Place {
                menu: &self.menus[menu].0,
                unknown: Some(&self.menus[failed].0),
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

    fn number(&mut self, menu: &str) -> usize {
        if self.last.0 == menu {
            return self.last.1;
        }
        let plain = plain_menu(menu);
        let number = match self.index.get(plain.as_ref()) {
            Some(number) => *number,
            None => {
                let number = self.menus.len();
                let unknown = self
                    .unknown
                    .iter()
                    .any(|known| is_at_or_below(&plain, known));
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
