//! Owns the question in which of its two forms an export is printed.

use super::comments::ErrorLine;
use super::normalizer::Normalizer;
use super::reader::{self, LineKind};
use super::shape::Item;

/// Whether `text` is in the terse form throughout: items carry their menu, and a menu line stands
/// only before items with comments: before each of them (facts sheet, §5), or once before all (7.13.5, file
/// index 15390384751). What `normalizer` ignores may have been wrapped.
pub(super) fn is_terse(text: &str, normalizer: &Normalizer) -> bool {
    #[derive(PartialEq)]
    enum After {
        Nothing,
        Menu,
        Comment,
        Item,
    }
    let mut absolute = false;
    let mut after = After::Nothing;
    let mut last_comment = None;
    for line in reader::lines(text) {
        let comment = std::mem::take(&mut last_comment);
        match line.kind {
            LineKind::Blank | LineKind::Rest => {}
            // What could not be exported stands behind any item, whatever its form.
            LineKind::Comment if ErrorLine::parse(line.raw).is_some() => {}
            LineKind::Comment => {
                last_comment = Some(line.raw);
                if matches!(after, After::Menu | After::Item) {
                    after = After::Comment;
                }
            }
            LineKind::Config if comment.is_some_and(|c| normalizer.ignores_across(c, line.raw)) => {
            }
            LineKind::Config => {
                let item = Item::parse(line.raw);
                after = match (item, after) {
                    (Item::Menu(_), After::Nothing | After::Item) => After::Menu,
                    (Item::Absolute { .. }, After::Nothing | After::Item) => {
                        absolute = true;
                        After::Nothing
                    }
                    (Item::Relative(_), After::Comment) => After::Item,
                    _ => return false,
                };
            }
        }
    }
    absolute && matches!(after, After::Nothing | After::Item)
}
