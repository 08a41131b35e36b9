//! YAML as a small tree that keeps lines, the text of scalars and Ruby's regular expressions.
//!
//! Oxidized reads its `config` with Psych, which takes the last of two equal keys and knows merge
//! keys (`<<`). Depth and size are bounded, so that no file exhausts stack or memory.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

/// Deeper than any configuration.
const DEEPEST: usize = 64;
const TOO_DEEP: &str = "this is nested too deeply";
/// What aliases may add to a file, in bytes: a few lines of them can stand for any amount.
const MOST_EXPANDED: usize = 1 << 20;

/// A value and the line where it begins, counted from 1.
#[derive(Clone)]
pub(super) struct Value {
    pub(super) line: usize,
    pub(super) node: Node,
}

#[derive(Clone)]
pub(super) enum Node {
    Scalar {
        text: String,
        /// Without quotes: `nil` or `~` are no texts then.
        plain: bool,
        /// With the tag `!ruby/regexp`.
        regexp: bool,
    },
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// The value of a key; the last of several, and that of a merged map if there is none.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Node::Map(pairs) = &self.node else {
            return None;
        };
        let named = |name: &str| {
            let mut pairs = pairs.iter().rev();
            let found = pairs.find(|(key, _)| matches!(&key.node, Node::Scalar { text, regexp: false, .. } if text == name));
            found.map(|(_, value)| value)
        };
        named(key).or_else(|| {
            let merged = named("<<")?;
            match &merged.node {
                Node::List(maps) => maps.iter().find_map(|map| map.get(key)),
                Node::Map(_) => merged.get(key),
                Node::Scalar { .. } => None,
            }
        })
    }

    /// The value at a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// Whether it is null. A plain `nil` is too: the documentation writes `username: nil` for none.
    pub(super) fn is_nil(&self) -> bool {
        let nil = |text: &str| matches!(text, "" | "~" | "null" | "Null" | "NULL" | "nil");
        matches!(&self.node, Node::Scalar { text, plain: true, .. } if nil(text))
    }

    /// About how many bytes it takes.
    fn size(&self) -> usize {
        match &self.node {
            Node::Scalar { text, .. } => size_of::<Self>() + text.len(),
            Node::List(values) => 1 + values.iter().map(Self::size).sum::<usize>(),
            Node::Map(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| key.size() + value.size());
                1 + pairs.sum::<usize>()
            }
        }
    }

    fn depth(&self) -> usize {
        let deepest = match &self.node {
            Node::Scalar { .. } => None,
            Node::List(values) => values.iter().map(Self::depth).max(),
            Node::Map(pairs) => pairs.iter().map(|(k, v)| k.depth().max(v.depth())).max(),
        };
        1 + deepest.unwrap_or(0)
    }
}

/// Why a text is no configuration, and where.
pub(super) struct Unreadable {
    pub(super) line: usize,
    pub(super) why: &'static str,
}

impl From<ScanError> for Unreadable {
    /// Leaves out the parser's own words, which may repeat the text.
    fn from(error: ScanError) -> Self {
        Self {
            line: error.marker().line(),
            why: "this is not YAML",
        }
    }
}

/// Reads the first document; `None` if there is none.
pub(super) fn parse(text: &str) -> Result<Option<Value>, Unreadable> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event?;
        if matches!(event, Event::DocumentEnd | Event::StreamEnd) {
            break;
        }
        let line = span.start.line().max(1);
        builder
            .take(event, line)
            .map_err(|why| Unreadable { line, why })?;
    }
    Ok(builder.root)
}

#[derive(Default)]
struct Builder {
    root: Option<Value>,
    open: Vec<Open>,
    anchors: HashMap<usize, Value>,
    expanded: usize,
}

/// A list or map that is not closed yet.
struct Open {
    line: usize,
    anchor: usize,
    map: bool,
    values: Vec<Value>,
}

impl Builder {
    fn take(&mut self, event: Event, line: usize) -> Result<(), &'static str> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = Node::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                    regexp: tag.is_some_and(|tag| is_regexp(&tag)),
                };
                self.close(Value { line, node }, anchor);
                Ok(())
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor);
                let value = value.ok_or("this alias stands inside its own anchor")?;
                self.expanded += value.size();
                if self.expanded > MOST_EXPANDED {
                    return Err("the aliases stand for too much");
                }
                if self.open.len() + value.depth() > DEEPEST {
                    return Err(TOO_DEEP);
                }
                let value = value.clone();
                self.close(value, 0);
                Ok(())
            }
            Event::SequenceStart(anchor, _) => self.open(line, anchor, false),
            Event::MappingStart(anchor, _) => self.open(line, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Err("this is not YAML");
                };
                let (line, anchor) = (open.line, open.anchor);
                let mut values = open.values.into_iter();
                let node = if open.map {
                    let mut pairs = Vec::new();
                    while let (Some(key), Some(value)) = (values.next(), values.next()) {
                        pairs.push((key, value));
                    }
                    Node::Map(pairs)
                } else {
                    Node::List(values.collect())
                };
                self.close(Value { line, node }, anchor);
                Ok(())
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, line: usize, anchor: usize, map: bool) -> Result<(), &'static str> {
        if self.open.len() >= DEEPEST {
            return Err(TOO_DEEP);
        }
        self.open.push(Open {
            line,
            anchor,
            map,
            values: Vec::new(),
        });
        Ok(())
    }

    fn close(&mut self, value: Value, anchor: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            Some(open) => open.values.push(value),
            None => self.root = Some(value),
        }
    }
}

/// `!ruby/regexp`, in the spellings that Psych reads.
fn is_regexp(tag: &Tag) -> bool {
    matches!(
        tag.suffix.as_str(),
        "ruby/regexp" | "ruby/regexp:Regexp" | "regexp" | "ruby.yaml.org,2002:regexp"
    )
}
