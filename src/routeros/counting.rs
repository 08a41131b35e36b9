//! Owns the question whether a router's firewall counts who connects to it.

use memchr::memmem;

use super::reader::{self, Line, LineKind, Scratch};

/// What a rule does that remembers the source of a connection on a list, as MikroTik's recipe against
/// brute force does with four of them.
const REMEMBERS: &str = "add-src-to-address-list";

/// Whether the configuration `text` holds anything that puts the sources of connections on address
/// lists: a rule of whichever firewall, disabled or not, or a script that might add one.
pub fn counts_connections(text: &str) -> bool {
    let remembers = memmem::Finder::new(REMEMBERS);
    let in_one_piece = remembers.find(text.as_bytes()).is_some();
    let mut scratch = Scratch::default();
    let mut found = |line: &Line<'_>| {
        let logical = scratch.logical(line).0;
        remembers.find(logical.as_bytes()).is_some()
    };
    reader::lines(text)
        .filter(|line| line.kind == LineKind::Config && (in_one_piece || line.wrapped))
        .any(|line| found(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_is_found_however_it_is_printed() {
        let wrapped = "/ip firewall filter\nadd action=add-src-to-addre\\\n    ss-list \
                       address-list=connection1 chain=input dst-port=22\n";
        let terse = "/ip firewall raw add action=add-src-to-address-list address-list=x\n";
        for text in [wrapped, terse, &wrapped.replace('\n', "\r\n")] {
            assert!(counts_connections(text), "{text}");
        }
        let without = "# add-src-to-address-list\n/ip firewall filter\nadd action=accept \
                       chain=input src-address-list=trusted\n";
        assert!(!counts_connections(without));
        assert!(!counts_connections(""));
    }
}
