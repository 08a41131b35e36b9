//! What a commit to the git mirror says.

use crate::adapters::git::FilePath;
use crate::routeros::{Side, diff, not_exported};

/// Longest message of a commit, in characters.
const LONGEST_MESSAGE: usize = 120;

/// What git had of a device.
#[derive(Clone, Copy)]
pub(super) enum Before<'a> {
    /// Nothing: there was no version before this one.
    Nothing,
    /// Nothing: the mirror begins in the middle of the device's history.
    NotHere,
    /// This text.
    Text(&'a str),
}

/// What changed, in one line without secrets. What `text` lacks because the router could not export
/// `incomplete` menus is not called removed, nor is it called added when it is back.
pub(super) fn message(
    before: Before<'_>,
    text: &str,
    incomplete: &[String],
    path: &FilePath,
    old: Option<&FilePath>,
) -> String {
    let mut what = Vec::new();
    match before {
        Before::Nothing => what.push(format!("first version, {} lines", text.lines().count())),
        Before::NotHere => {
            let lines = text.lines().count();
            what.push(format!("first version in this mirror, {lines} lines"));
        }
        Before::Text(before) if before == text => {}
        Before::Text(before) => {
            let missing = not_exported(before);
            let old = Side::from(before).incomplete(&missing);
            what.push(diff(old, Side::from(text).incomplete(incomplete), 0).summary());
        }
    }
    if !incomplete.is_empty() {
        what.push(format!("incomplete: no {}", incomplete.join(", ")));
    }
    if let Some(old) = old {
        if old.name() != path.name() {
            what.push(format!("renamed from {}", old.name()));
        }
        if old.folder() != path.folder() {
            what.push(format!("moved from {}", old.folder()));
        }
    }
    let line = format!("{}: {}", path.name(), what.join(", "));
    let mut plain: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if let Some((end, _)) = plain.char_indices().nth(LONGEST_MESSAGE) {
        plain.truncate(end);
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::device::DeviceId;

    #[test]
    fn a_message_says_what_changed_in_one_line_without_secrets() {
        let device = DeviceId(Uuid::from_u128(7));
        let at = |folder, name| FilePath::new(folder, name, device);
        let path = at("core", "edge-1");
        let before = "/ip dns\nset servers=192.0.2.1\n/user\nset admin password=hidden-1\n";
        let after = before.replace("hidden-1", "hidden-2");
        assert_eq!(
            message(Before::Nothing, before, &[], &path, None),
            "edge-1: first version, 4 lines"
        );
        assert_eq!(
            message(Before::NotHere, before, &[], &path, None),
            "edge-1: first version in this mirror, 4 lines"
        );
        assert_eq!(
            message(Before::Text(before), &after, &[], &path, None),
            "edge-1: 1 line added, 1 removed in /user"
        );
        let old = at("edge", "edge\n0");
        assert_eq!(
            message(Before::Text(before), before, &[], &path, Some(&old)),
            "edge-1: renamed from edge 0, moved from edge"
        );
        let many: String = (0..100)
            .map(|menu| format!("/menu{menu} x\nadd a=b\n"))
            .collect();
        let path = at("core", &"é".repeat(85));
        let long = message(Before::Text(""), &many, &[], &path, None);
        assert_eq!(long.chars().count(), LONGEST_MESSAGE + 1, "{long}");
    }

    #[test]
    fn a_menu_that_was_not_exported_is_not_called_removed() {
        let path = FilePath::new("core", "edge-1", DeviceId(Uuid::from_u128(7)));
        let whole = "/ip pool\nadd name=a\n/ipv6 route\nadd gateway=a\nadd gateway=b\n";
        let part = "/ip pool\nadd name=a\n#error exporting \"/ipv6/route\" (timeout)\n";
        let missing = ["/ipv6/route".to_owned()];
        assert_eq!(
            message(Before::Text(whole), part, &missing, &path, None),
            "edge-1: no change; not exported by one side: /ipv6 route, incomplete: no /ipv6/route"
        );
        let changed = part.replace("=a", "=b");
        assert_eq!(
            message(Before::Text(part), &changed, &missing, &path, None),
            "edge-1: 1 line added, 1 removed in /ip pool, incomplete: no /ipv6/route"
        );
        assert_eq!(
            message(Before::Text(part), whole, &[], &path, None),
            "edge-1: no change; not exported by one side: /ipv6 route"
        );
    }
}
