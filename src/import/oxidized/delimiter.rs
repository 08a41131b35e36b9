//! What Oxidized splits a line at, and Ruby's regular expressions in YAML.

use regex::{Regex, RegexBuilder};

/// What separates the parts of a line.
pub(super) enum Delimiter {
    /// This text.
    Text(String),
    /// Runs of blanks: what Ruby's `String#split` does with a single space.
    Blanks,
    /// Whatever matches.
    Pattern(Regex),
}

impl Delimiter {
    /// A plain text.
    ///
    /// # Errors
    /// If it is empty.
    pub(super) fn text(text: &str) -> Result<Self, &'static str> {
        match text {
            "" => Err("the delimiter is empty"),
            " " => Ok(Self::Blanks),
            text => Ok(Self::Text(text.to_owned())),
        }
    }

    /// A regular expression as YAML has it: `/:/`.
    ///
    /// # Errors
    /// If it is none that we know, or one that matches nothing at all between two characters.
    pub(super) fn pattern(literal: &str) -> Result<Self, &'static str> {
        let pattern = regexp(literal)?;
        if pattern.is_match("") {
            return Err("the delimiter matches the empty text");
        }
        Ok(Self::Pattern(pattern))
    }

    /// `line.split(delimiter, -1)` of Ruby: empty parts are kept, also the last ones; what groups
    /// of a pattern match becomes parts too.
    pub(super) fn split<'a>(&self, line: &'a str) -> Vec<&'a str> {
        match self {
            _ if line.is_empty() => Vec::new(),
            Self::Text(text) => line.split(text.as_str()).collect(),
            Self::Blanks => {
                let mut parts = Vec::new();
                let mut rest = line.trim_start();
                while let Some(end) = rest.find(char::is_whitespace) {
                    parts.push(&rest[..end]);
                    rest = rest[end..].trim_start();
                }
                parts.push(rest);
                parts
            }
            Self::Pattern(pattern) => {
                let mut parts = Vec::new();
                let mut from = 0;
                for found in pattern.captures_iter(line) {
                    let Some(whole) = found.get(0).filter(|whole| !whole.is_empty()) else {
                        continue;
                    };
                    parts.push(&line[from..whole.start()]);
                    let groups = found.iter().skip(1).flatten();
                    parts.extend(groups.map(|group| group.as_str()));
                    from = whole.end();
                }
                parts.push(&line[from..]);
                parts
            }
        }
    }
}

/// Reads a regular expression as Psych does: `/body/` and the letters i, m, x, n behind it.
///
/// # Errors
/// If it is not of that form, or uses what only Ruby knows (look-around, back-references).
pub(super) fn regexp(literal: &str) -> Result<Regex, &'static str> {
    const FORM: &str = "a regular expression has the form !ruby/regexp /…/";
    let rest = literal.strip_prefix('/').ok_or(FORM)?;
    let (body, letters) = rest.rsplit_once('/').ok_or(FORM)?;
    let mut builder = RegexBuilder::new(body);
    // Ruby's ^ and $ are always those of lines; its m lets the dot match line ends.
    builder.multi_line(true);
    for letter in letters.chars() {
        match letter {
            'i' => builder.case_insensitive(true),
            'x' => builder.ignore_whitespace(true),
            'm' => builder.dot_matches_new_line(true),
            'n' => &mut builder,
            _ => return Err(FORM),
        };
    }
    builder.build().map_err(|_| {
        "this regular expression is not understood: look-around and back-references are Ruby's own"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_as_in_ruby() {
        let text = |text: &str| Delimiter::text(text).expect("a delimiter");
        let pattern = |text: &str| Delimiter::pattern(text).expect("a delimiter");
        for (delimiter, line, parts) in [
            (text(":"), "a:b::", vec!["a", "b", "", ""]),
            (text("::"), "a:b::c", vec!["a:b", "c"]),
            (text("."), "a.b", vec!["a", "b"]),
            (text(" "), "  a  b ", vec!["a", "b", ""]),
            (text(":"), "", vec![]),
            (pattern("/:/"), "a:b::", vec!["a", "b", "", ""]),
            (pattern(r"/\s*[;,]\s*/"), "a ; b,c", vec!["a", "b", "c"]),
            (pattern("/X/i"), "1x2X3", vec!["1", "2", "3"]),
            (pattern("/(:)/"), "a:b", vec!["a", ":", "b"]),
            (pattern(r"/\//"), "a/b", vec!["a", "b"]),
            (pattern(r"/\|/"), "a|b", vec!["a", "b"]),
            (pattern(r"/\t/"), "a\tb c", vec!["a", "b c"]),
        ] {
            assert_eq!(delimiter.split(line), parts, "{line:?}");
        }
    }

    #[test]
    fn delimiters_that_cannot_be_used_are_refused() {
        assert!(Delimiter::text("").is_err());
        for bad in [":", "/:", "/:/z", "/(/", "/(?=:)/", "//", "/:*/"] {
            assert!(Delimiter::pattern(bad).is_err(), "{bad}");
        }
    }
}
