//! Owns the question in which of its two forms an export is printed.

use super::normalizer::Normalizer;
use super::reader::{self, LineKind};
use super::shape::Item;

/// Whether `text` is in the terse form throughout: items carry their menu, and a menu line stands
/// only before the comments of exactly one item. What `normalizer` ignores may have been wrapped.
pub(super) fn is_terse(text: &str, normalizer: &Normalizer) -> bool {
    #[derive(PartialEq)]
    enum After {
        Nothing,
        Menu,
        Comment,
    }
    let mut absolute = false;
    let mut after = After::Nothing;
    let mut last_comment = None;
    for line in reader::lines(text) {
        let comment = std::mem::take(&mut last_comment);
        match line.kind {
            LineKind::Blank | LineKind::Rest => {}
            LineKind::Comment => {
                last_comment = Some(line.raw);
                if after == After::Menu {
                    after = After::Comment;
                }
            }
            LineKind::Config if comment.is_some_and(|c| normalizer.ignores_across(c, line.raw)) => {
            }
            LineKind::Config => {
                let item = Item::parse(line.raw);
                after = match (item, after) {
                    (Item::Menu(_), After::Nothing) => After::Menu,
                    (Item::Absolute { .. }, After::Nothing) => {
                        absolute = true;
                        After::Nothing
                    }
                    (Item::Relative(_), After::Comment) => After::Nothing,
                    _ => return false,
                };
            }
        }
    }
    absolute && after == After::Nothing
}
