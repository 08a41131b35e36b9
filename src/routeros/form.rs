//! Owns the form of an export while it is read: its lines, as items of menus and with their secrets.

use std::ops::Range;

use super::commands::each_command;
use super::reader::{Line, trim_end};
use super::secrets::{SecretNames, count_secrets, name_across};
use super::shape::{Item, ShapeBuilder, plain_menu};
use crate::domain::snapshot::Shape;

/// What a pass over a text remembers of its form.
pub(super) struct Form<'a> {
    shape: ShapeBuilder,
    /// Where the shape keeps the current menu, once an item was in it, until one of another was.
    current: Option<usize>,
    names: SecretNames<'a>,
    text: &'a str,
    /// Where the last item stands in it.
    last: Option<Range<usize>>,
}

impl<'a> Form<'a> {
    /// Of `text`, before its first line.
    pub(super) fn of(text: &'a str) -> Self {
        Self {
            shape: ShapeBuilder::default(),
            current: None,
            names: SecretNames::of(text),
            text,
            last: None,
        }
    }

    /// Adds `item`, which is `line`: given in one piece as well, and where its wraps were. `current`
    /// is the menu that it stands in.
    pub(super) fn add(
        &mut self,
        line: &Line<'_>,
        item: &Item<'_>,
        current: Option<&str>,
        (logical, wraps): (&str, &[usize]),
    ) {
        let (slot, menu, command) = match *item {
            Item::Absolute { menu, command } => {
                // What follows in the current menu stands behind this.
                self.current = None;
                (self.shape.slot(menu), menu, command)
            }
            Item::Menu(_) => {
                self.current = None;
                return;
            }
            Item::Relative(command) => {
                let menu = current.unwrap_or_default();
                let slot = self.current.unwrap_or_else(|| self.shape.slot(menu));
                self.current = Some(slot);
                (slot, menu, command)
            }
        };
        let secrets = if line.plain {
            let end = line.start + trim_end(line.raw).len();
            self.names.count_plain(menu, end - command.len()..end)
        } else if self.names.first_in(line.start..line.end).is_some() || name_across(logical, wraps)
        {
            count_secrets(menu, command)
        } else {
            0
        };
        self.shape.add(slot, command, secrets);
        self.last = Some(line.start..line.end);
    }

    /// A menu that could not be exported would stand here: without an item, as far as this text tells.
    pub(super) fn gap(&mut self, menu: &str) {
        self.shape.slot(&plain_menu(menu));
        self.current = None;
    }

    /// The form of everything added.
    pub(super) fn finish(self) -> Shape {
        let mut end = None;
        if let Some(last) = self.last {
            each_command(&self.text[last], |_, command| {
                end = Some(command.to_owned())
            });
        }
        self.shape.finish(end.as_deref())
    }
}
