//! What must hold of every whole export.

use mikrotik_backup::routeros::{
    Export, Normalized, commands, decode, encode, normalize, normalize_text, suspicion,
};

use super::judging::judge;

/// What must hold of every whole export, and does not of this one.
pub fn broken_laws(export: &Export) -> Vec<&'static str> {
    let normalized = normalize(export);
    let text = normalized.text.expose();
    let raw = encode(&export.text);
    let unix = export.text.replace("\r\n", "\n");
    let dos = unix.replace('\n', "\r\n");
    let (_, rest) = unix.split_once('\n').unwrap_or_default();
    let version = &export.header.routeros_version;
    let later = format!("# 2031-12-31 23:59:59 by RouterOS {version}\n{rest}");
    let earlier = format!("# jan/01/1970 00:00:01 by RouterOS {version}\n{rest}");
    let mut broken = Vec::new();
    let mut law = |holds: bool, what| {
        if !holds {
            broken.push(what);
        }
    };
    law(
        normalize_text(text) == text,
        "normalising twice is not normalising once",
    );
    law(
        commands(text) == commands(&export.text),
        "the commands are not the same",
    );
    law(decode(&raw) == export.text, "its bytes do not come back");
    law(
        normalized.hash == normalized.text.digest(),
        "the hash is not the text's",
    );
    law(
        [unix, dos, later, earlier]
            .iter()
            .all(|other| normalize_text(other) == text),
        "line ends or the date make a difference",
    );
    law(
        suspicion((&normalized).into(), (&normalized).into()).is_none(),
        "it is a suspect beside itself",
    );
    law(
        (1..32).all(|part| {
            let at = raw.len() * part / 32;
            raw.get(at.saturating_sub(1)) == Some(&b'\n') || judge(&raw[..at]).is_err()
        }),
        "it is accepted where it is cut inside a line",
    );
    law(
        !export.incomplete_menus.is_empty()
            || line_ends(&raw).all(|at| is_doubted(&normalized, &raw[..at])),
        "a cut between two of its lines is neither refused nor suspected",
    );
    law(
        edits(&raw)
            .all(|edited| judge(&edited).is_ok_and(|e| normalize(&e).hash != normalized.hash)),
        "an edited character of its configuration is no change, or is refused",
    );
    broken
}

/// The text with one letter or digit of its configuration replaced by another, in some places.
fn edits(raw: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    const SOME: usize = 24;
    let mut places = Vec::new();
    let (mut start, mut goes_on, mut wide) = (0, false, false);
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let comment = line.starts_with(b"#") && !goes_on;
        let letters = line.iter().enumerate().filter(|(at, byte)| {
            // Not what a backslash makes another character of, nor the words of an item's form.
            let escaped =
                (1..=2).any(|back| at.checked_sub(back).is_some_and(|b| line[b] == b'\\'));
            byte.is_ascii_alphanumeric() && !escaped && *at > 4
        });
        // What the router wrapped of a comment is none.
        let item = [&b"add"[..], b"set", b"remove"];
        let rest = wide && !item.iter().any(|verb| line.starts_with(verb));
        if !comment && !rest && !line.starts_with(b"/") {
            places.extend(letters.map(|(at, _)| start + at));
        }
        goes_on = line.trim_ascii_end().ends_with(b"\\");
        wide = comment && line.len() >= 79;
        start += line.len();
    }
    let few = SOME.min(places.len());
    (0..few).map(move |part| {
        let at = places[part * places.len() / few];
        let mut edited = raw.to_vec();
        edited[at] = if edited[at] == b'7' { b'8' } else { b'7' };
        edited
    })
}

/// Some of the places right behind a line feed, the first and the last among them.
fn line_ends(raw: &[u8]) -> impl Iterator<Item = usize> {
    const SOME: usize = 48;
    let feeds = raw.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let ends: Vec<usize> = feeds.map(|(at, _)| at + 1).collect();
    let last = ends.len().saturating_sub(1);
    let few = SOME.min(last);
    (0..few).map(move |part| ends[part * last / few])
}

/// Whether `cut` is refused, is read again beside the `whole` export, or lacks nothing.
fn is_doubted(whole: &Normalized, cut: &[u8]) -> bool {
    let Ok(export) = judge(cut) else { return true };
    let doubted = export.doubt.is_some();
    let cut = normalize(&export);
    doubted || cut.hash == whole.hash || suspicion(whole.into(), (&cut).into()).is_some()
}
