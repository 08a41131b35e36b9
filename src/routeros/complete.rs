//! Owns the question whether an export is whole: RouterOS prints no end marker, so every sign of
//! a cut counts.

use super::comments::{self, ErrorLine};
use super::console;
use super::reader::{self, LineKind};
use super::shape::Context;

/// What reading an export from top to bottom showed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Findings {
    /// Why it is not whole, in words that carry no configuration; `None` when it is.
    pub(super) cut: Option<String>,
    /// Menus that did not answer, in order: their configuration is missing.
    pub(super) incomplete_menus: Vec<String>,
    /// Menus that this machine does not have, in order: nothing is missing.
    pub(super) unavailable_menus: Vec<String>,
}

/// At most so many menus are listed; RouterOS has a few hundred.
const MAX_LISTED: usize = 1000;

/// Reads `text`, which begins with an export header.
///
/// Measured on 20 real cuts and 1,688 other exports, the signs for a missing line feed, an open
/// quote, a due continuation and a menu without an item find all cuts and raise no false alarm on
/// what no editor has touched (facts sheet, §4).
pub(super) fn examine(text: &str) -> Findings {
    let mut findings = Findings::default();
    let mut context = Context::default();
    // What the last line that is not blank leaves open.
    let mut announced: Option<&'static str> = None;
    let mut terminated = true;
    for line in reader::lines(text) {
        terminated = line.terminated;
        let cut = match line.kind {
            LineKind::Blank => None,
            LineKind::Comment => match ErrorLine::parse(line.raw) {
                Some(ErrorLine::Interrupted) => {
                    Some("the router interrupted the export (\"#interrupted\")")
                }
                Some(ErrorLine::Failed { menu, harmless }) => {
                    let menus = if harmless {
                        &mut findings.unavailable_menus
                    } else {
                        &mut findings.incomplete_menus
                    };
                    if menus.len() < MAX_LISTED && !menus.iter().any(|known| known == menu) {
                        menus.push(menu.to_owned());
                    }
                    None
                }
                None => {
                    let menu = context.menu();
                    if menu.is_some_and(|menu| comments::is_known(menu, line.raw)) {
                        announced = Some("the state comment of an item that is missing");
                    }
                    None
                }
            },
            LineKind::Config if line.open_quote => Some("it ends inside a quoted string"),
            LineKind::Config if line.dangling => Some("it ends where a line goes on"),
            LineKind::Config => {
                let bare_menu = context.enter(line.raw);
                announced = bare_menu.then_some("a menu without an item");
                stray_error(line.raw)
            }
        };
        if let Some(cut) = cut {
            findings.cut = Some(located(cut, line.end, &context));
            return findings;
        }
    }
    let cut = if text.ends_with('\r') {
        Some("it ends between carriage return and line feed".to_owned())
    } else if !terminated {
        Some("its last line does not end".to_owned())
    } else {
        announced.map(|what| format!("it ends after {what}"))
    };
    findings.cut = cut.map(|cut| located(&cut, text.len(), &context));
    findings
}

/// A line of the console where configuration should stand. Configuration begins with `/`, `add`
/// or `set`, which no error of the console does.
fn stray_error(line: &str) -> Option<&'static str> {
    if line.starts_with(['/', ' ']) || line.starts_with("add ") || line.starts_with("set ") {
        return None;
    }
    console::error_line(line).map(|_| "an error of the router's console stands in it")
}

fn located(cut: &str, bytes: usize, context: &Context) -> String {
    match context.menu() {
        Some(menu) => format!("{cut}, after {bytes} bytes, in menu {menu}"),
        None => format!("{cut}, after {bytes} bytes"),
    }
}
