//! Owns the block of comment lines at the top of every export.

use super::reader::{self, LineKind};
use crate::domain::snapshot::Machine;

/// What the header says about the router, as typed metadata of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// The version token of the dated line, such as `7.18.2` or `6.45beta59`.
    pub routeros_version: String,
    /// The values of `# software id =` (which a CHR leaves empty), `# system id =`, `# model =` and
    /// `# serial number =`.
    pub machine: Machine,
}

impl Header {
    /// Reads the block at the top of `text`; `None` when its first non-blank line is not the
    /// dated line that begins every export.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut lines = reader::lines(text).skip_while(|line| line.kind == LineKind::Blank);
        let first = lines.next()?;
        let mut header = Self {
            routeros_version: dated_version(first.raw)?.to_owned(),
            ..Self::default()
        };
        for line in lines {
            match (line.kind, field(line.raw)) {
                (LineKind::Blank, _) => {}
                (LineKind::Comment, Some(Field::Separator)) => {}
                (LineKind::Comment, Some(Field::Named(name, value))) => header.set(name, value),
                _ => break,
            }
        }
        Some(header)
    }

    fn set(&mut self, name: Name, value: &str) {
        let slot = match name {
            Name::SoftwareId => &mut self.machine.software_id,
            Name::SystemId => &mut self.machine.system_id,
            Name::Model => &mut self.machine.model,
            Name::SerialNumber => &mut self.machine.serial_number,
        };
        if slot.is_none() && !value.is_empty() && !value.contains(char::is_control) {
            *slot = Some(value.to_owned());
        }
    }
}

/// Whether the comment `line` is of a kind that stands in the header below the dated line.
pub(super) fn is_header_field(line: &str) -> bool {
    field(line).is_some()
}

/// Whether the comment `line` is a lone `#`.
pub(super) fn is_separator(line: &str) -> bool {
    matches!(field(line), Some(Field::Separator))
}

#[derive(Clone, Copy)]
enum Name {
    SoftwareId,
    SystemId,
    Model,
    SerialNumber,
}

enum Field<'a> {
    /// A lone `#`.
    Separator,
    /// `# name = value`.
    Named(Name, &'a str),
}

fn field(line: &str) -> Option<Field<'_>> {
    let text = line.strip_prefix('#')?.trim();
    if text.is_empty() {
        return Some(Field::Separator);
    }
    let (name, value) = text.split_once('=')?;
    let name = match name.trim_end() {
        "software id" => Name::SoftwareId,
        "system id" => Name::SystemId,
        "model" => Name::Model,
        "serial number" => Name::SerialNumber,
        _ => return None,
    };
    Some(Field::Named(name, value.trim()))
}

/// The version token of the dated line, if `line` is one.
///
/// `# jun/01/2023 12:11:25 by RouterOS 7.9.1` up to 7.9, `# 2023-06-01 12:16:16 by RouterOS 7.10`
/// since; `# 2023/06/01 …` is printed by no RouterOS that we have seen, and was what version 1 of
/// the normalisation looked for. Behind the version may stand its channel, `(stable)`, as other commands
/// of RouterOS print it.
pub(super) fn dated_version(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("# ")?;
    let (date, rest) = rest.split_once(' ')?;
    let (time, rest) = rest.split_once(' ')?;
    let words = rest.strip_prefix("by RouterOS ")?.trim_end();
    let version = match words.split_once(" (") {
        Some((version, channel)) if is_channel(channel) => version,
        _ => words,
    };
    let plausible = is_date(date)
        && shaped(time, "00:00:00")
        && !version.is_empty()
        && !version.contains(|c: char| c.is_whitespace() || c.is_control());
    plausible.then_some(version)
}

/// Whether `text` is what stands behind the opening parenthesis of a channel, `long-term)`.
fn is_channel(text: &str) -> bool {
    let name = text.strip_suffix(')').unwrap_or_default();
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

fn is_date(date: &str) -> bool {
    ["aaa/00/0000", "0000-00-00", "0000/00/00"]
        .iter()
        .any(|shape| shaped(date, shape))
}

/// Whether `text` has a digit where `shape` has `0`, a lower-case letter where it has `a`, and the
/// same character elsewhere.
fn shaped(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text
            .bytes()
            .zip(shape.bytes())
            .all(|(byte, wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                b'a' => byte.is_ascii_lowercase(),
                _ => byte == wanted,
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_date_form_is_read_and_nothing_like_it() {
        for (line, version) in [
            ("# jan/02/1970 00:41:07 by RouterOS 6.47.8", "6.47.8"),
            ("# 2025-11-21 21:13:02 by RouterOS 7.20_ab294", "7.20_ab294"),
            ("# 2024/01/02 03:04:05 by RouterOS 7.14", "7.14"),
            ("# 2024-01-02 03:04:05 by RouterOS 7.14 \r", "7.14"),
            (
                "# 2024-01-02 03:04:05 by RouterOS 7.14 (long-term)\r",
                "7.14",
            ),
        ] {
            assert_eq!(dated_version(line), Some(version), "{line}");
        }
        for line in [
            "",
            "#",
            "# ____-__-__ __:__:__ by RouterOS 7.18",
            "# 2024-01-02 03:04:05 by RouterOS ",
            "# 2024-01-02 03:04:05 by RouterOS 7.\0",
            "# 2024-01-02 03:04:05 by RouterOS 7.14 (",
            "# 2024-01-02 03:04:05 by RouterOS 7.14 ()",
            "# 2024-01-02 03:04:05 by RouterOS 7.14 (on RB750)",
            "# 2024-01-02 03:04:05 by RouterOS 7.14 stable",
            "# Jan/02/1970 00:41:07 by RouterOS 6.47.8",
            " # 2024-01-02 03:04:05 by RouterOS 7.14",
            "#2024-01-02 03:04:05 by RouterOS 7.14",
            "\u{feff}# 2024-01-02 03:04:05 by RouterOS 7.14",
            "# 2024-01-02 03:04 by RouterOS 7.14",
            "# 2024-01-02 03:04:05 by SwOS 2.16",
        ] {
            assert_eq!(dated_version(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_block_of_hardware_is_taken_as_typed_values() {
        let text = "\r\n# 2026-01-02 03:04:05 by RouterOS 7.19.1\r\n# software id = ABCD-EF12\r\n#\r\n\
            # model = D53G-5HacD2HnD&EG120K-EA\r\n# serial number = A1B2C3D4E5F6\r\n/ip address\r\n\
            # model = not the header\r\nadd address=192.0.2.1/24 interface=ether1\r\n";
        let header = Header::read(text).unwrap();
        assert_eq!(header.routeros_version, "7.19.1");
        assert_eq!(header.machine.software_id.as_deref(), Some("ABCD-EF12"));
        assert_eq!(header.machine.system_id, None);
        assert_eq!(
            header.machine.model.as_deref(),
            Some("D53G-5HacD2HnD&EG120K-EA")
        );
        assert_eq!(
            header.machine.serial_number.as_deref(),
            Some("A1B2C3D4E5F6")
        );
    }

    #[test]
    fn the_empty_software_id_of_a_chr_is_none_and_its_system_id_is_read() {
        let v6 = "# jun/30/2019 01:22:31 by RouterOS 6.45\n# software id = \n#\n#\n#\n/port\n";
        let header = Header::read(v6).unwrap();
        assert_eq!(header.machine, Machine::default());
        let v7 =
            "# 2026-01-02 03:04:05 by RouterOS 7.22.1\n# system id = wa/Md4+LR6P\n#\n#\n#\n/port\n";
        assert_eq!(
            Header::read(v7).unwrap().machine.system_id.as_deref(),
            Some("wa/Md4+LR6P")
        );
    }
}
