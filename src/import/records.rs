//! The rows of a CSV text, read strictly by RFC 4180, and one row written.
//!
//! Strict, because a quote that is never closed swallows the rest of the inventory, and because
//! `""` (the empty password) must stay apart from nothing; readers of data sets forgive both.

use std::borrow::Cow;

/// One field; `quoted` tells `""` from nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Field<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) quoted: bool,
}

/// One row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record<'a> {
    /// The line where it begins, counted from 1.
    pub(super) line: usize,
    pub(super) fields: Vec<Field<'a>>,
}

/// Where the text stops being CSV.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Torn {
    /// The line where the faulty row begins: with a quote too many, the fault shows far below.
    pub(super) line: usize,
    pub(super) why: &'static str,
}

/// Reads rows that end in LF, CRLF or CR, without the empty ones, up to the first fault.
pub(super) fn read(text: &str) -> (Vec<Record<'_>>, Option<Torn>) {
    let mut reader = Reader {
        rest: text,
        line: 1,
    };
    let mut records = Vec::new();
    while !reader.rest.is_empty() {
        let line = reader.line;
        match reader.record() {
            Ok(record) if record.fields.len() == 1 && record.fields[0] == EMPTY => {}
            Ok(record) => records.push(record),
            Err(why) => return (records, Some(Torn { line, why })),
        }
    }
    (records, None)
}

const EMPTY: Field<'static> = Field {
    text: Cow::Borrowed(""),
    quoted: false,
};

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn record(&mut self) -> Result<Record<'a>, &'static str> {
        let line = self.line;
        let mut fields = Vec::new();
        loop {
            fields.push(match self.rest.strip_prefix('"') {
                Some(rest) => self.quoted(rest)?,
                None => self.bare()?,
            });
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
                continue;
            }
            let rest = ["\r\n", "\n", "\r"]
                .iter()
                .find_map(|end| self.rest.strip_prefix(end));
            if let Some(rest) = rest {
                self.rest = rest;
                self.line += 1;
            }
            return Ok(Record { line, fields });
        }
    }

    fn bare(&mut self) -> Result<Field<'a>, &'static str> {
        let end = self.rest.find([',', '\r', '\n']);
        let (text, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if text.contains('"') {
            return Err("a quote is inside a value; put the whole value in quotes and double it");
        }
        self.rest = rest;
        Ok(Field {
            text: Cow::Borrowed(text),
            quoted: false,
        })
    }

    /// A quoted field, of which `rest` is what follows the opening quote.
    fn quoted(&mut self, mut rest: &'a str) -> Result<Field<'a>, &'static str> {
        let mut text = Cow::Borrowed("");
        let mut line = self.line;
        loop {
            let Some(quote) = rest.find('"') else {
                return Err("a quote opens a value and is never closed");
            };
            let (part, after) = (&rest[..quote], &rest[quote + 1..]);
            line += line_ends(part);
            if text.is_empty() {
                text = Cow::Borrowed(part);
            } else {
                text.to_mut().push_str(part);
            }
            if let Some(after) = after.strip_prefix('"') {
                text.to_mut().push('"');
                rest = after;
                continue;
            }
            self.line = line;
            if !(after.is_empty() || after.starts_with([',', '\r', '\n'])) {
                return Err("text follows a closing quote; inside quotes, double it");
            }
            self.rest = after;
            return Ok(Field { text, quoted: true });
        }
    }
}

/// How many lines end in a text: LF, CRLF or CR.
fn line_ends(text: &str) -> usize {
    let carriage_returns = text.matches('\r').count() - text.matches("\r\n").count();
    carriage_returns + text.matches('\n').count()
}

/// Appends a row that [`read`] reads back as it was; a field that is `Some("")` becomes `""`.
pub(super) fn write(row: &[Option<&str>], out: &mut String) {
    for (index, field) in row.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let Some(text) = field else { continue };
        let quote =
            text.is_empty() || text.trim() != *text || text.contains([',', '"', '\r', '\n']);
        if quote {
            out.push('"');
            out.push_str(&text.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(text);
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<(usize, Vec<String>)> {
        let (records, torn) = read(text);
        assert_eq!(torn, None, "{text:?}");
        let row = |record: Record| {
            let fields = record.fields.iter().map(|field| field.text.to_string());
            (record.line, fields.collect())
        };
        records.into_iter().map(row).collect()
    }

    #[test]
    fn rows_know_their_lines() {
        let text = "a,b\r\n\n\"x\ny\",\"say \"\"hi\"\"\"\rlast,";
        let row = |line, fields: [&str; 2]| (line, fields.map(str::to_owned).to_vec());
        assert_eq!(
            texts(text),
            [
                row(1, ["a", "b"]),
                row(3, ["x\ny", "say \"hi\""]),
                row(5, ["last", ""]),
            ]
        );
    }

    #[test]
    fn faults_name_the_line_where_the_row_begins() {
        for (text, line, why) in [
            ("a\nb,\"c\nd\n", 2, "never closed"),
            ("a\n\"b\nc\"d\n", 2, "closing quote"),
            ("a, \"b\"\n", 1, "inside a value"),
            ("a\nb\n\"\nc,\",d\"\n", 3, "inside a value"),
        ] {
            let torn = read(text).1.expect(text);
            assert_eq!(torn.line, line, "{text:?}");
            assert!(torn.why.contains(why), "{text:?}: {}", torn.why);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of(any::<String>()), 2), 0..5)
        ) {
            let mut text = String::new();
            for row in &rows {
                write(&row.iter().map(Option::as_deref).collect::<Vec<_>>(), &mut text);
            }
            let (records, torn) = read(&text);
            prop_assert_eq!(torn, None);
            let back: Vec<Vec<Option<String>>> = records
                .into_iter()
                .map(|record| {
                    let field = |field: Field| (field.quoted || !field.text.is_empty()).then(|| field.text.into_owned());
                    record.fields.into_iter().map(field).collect()
                })
                .collect();
            prop_assert_eq!(back, rows);
        }

        #[test]
        fn no_text_panics_the_reader(text in any::<String>()) {
            let _ = read(&text);
        }

        #[test]
        fn no_arrangement_of_separators_panics_the_reader(text in "[a\",\r\n ]{0,40}") {
            let _ = read(&text);
        }
    }
}
