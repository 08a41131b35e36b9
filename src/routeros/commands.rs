//! Owns the reading of a text as the list of commands that it is: what "the same configuration"
//! means, whatever the wraps, line ends, state comments and form.

use super::reader::{self, LineKind};
use super::shape::{Context, Item};

/// One logical configuration line. It may hold secrets; `Debug` shows none.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The menu that it works in, as the text writes it; empty before the first one.
    pub menu: String,
    /// The command with its wraps undone, such as `add address=192.0.2.1/24`.
    pub text: String,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({} bytes in {})", self.text.len(), self.menu)
    }
}

/// The commands of `text` in order, each with its menu. Comments, blank lines and the rest of a
/// wrapped state comment are none. What the normalisation makes of a text has the same commands.
pub fn commands(text: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    each_command(text, |menu, command| {
        commands.push(Command {
            menu: menu.to_owned(),
            text: command.to_owned(),
        });
    });
    commands
}

/// Gives each command of `text` to `take`, behind its menu (empty before the first one), in order.
pub(super) fn each_command(text: &str, mut take: impl FnMut(&str, &str)) {
    let mut context = Context::default();
    for line in reader::lines(text) {
        match line.kind {
            LineKind::Blank | LineKind::Comment | LineKind::Rest => {}
            LineKind::Config => {
                let logical = line.logical();
                match Item::parse(&logical) {
                    Item::Menu(_) => {
                        context.enter(&logical);
                    }
                    Item::Absolute { menu, command } => take(menu, command),
                    Item::Relative(command) => take(context.menu().unwrap_or_default(), command),
                }
            }
        }
    }
}
