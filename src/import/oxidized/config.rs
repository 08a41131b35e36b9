//! What Oxidized's `config` says about the nodes of a `router.db`.

use regex::Regex;

use super::delimiter::{Delimiter, regexp};
use super::yaml::{self, Node, Value};
use crate::import::{Finding, InputFile};

/// The parts of a `config` that matter for an inventory.
pub(super) struct Config {
    root: Value,
    /// `source.csv.file`.
    pub(super) router_db: Option<String>,
    /// `source.csv.gpg`.
    pub(super) gpg: bool,
    /// `source.csv.delimiter`.
    pub(super) delimiter: Delimiter,
    /// `source.csv.map`: which part of a line is which.
    pub(super) map: Vec<(String, i64)>,
    /// `source.csv.vars_map`.
    pub(super) vars_map: Vec<(String, i64)>,
    /// `input.default`.
    pub(super) input: Option<String>,
    model_map: Vec<(Match, String)>,
    group_map: Vec<(Match, String)>,
}

enum Match {
    Text(String),
    Pattern(Regex),
}

/// A value of the `config` that applies to a node.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) value: &'a Value,
}

impl Setting<'_> {
    pub(super) fn is_nil(self) -> bool {
        self.value.is_nil()
    }

    /// Its text, as it is written; `None` is nil.
    pub(super) fn text(self, key: &str) -> Result<Option<String>, Finding> {
        text(self.value, key)
    }

    /// Its text or texts.
    pub(super) fn texts(self, key: &str) -> Result<Vec<String>, Finding> {
        let Node::List(values) = &self.value.node else {
            return Ok(self.text(key)?.into_iter().collect());
        };
        let texts = values.iter().map(|value| text(value, key));
        Ok(texts
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect())
    }
}

fn problem(line: Option<usize>, text: impl Into<String>) -> Finding {
    Finding {
        file: InputFile::Config,
        line,
        text: text.into(),
    }
}

fn text(value: &Value, key: &str) -> Result<Option<String>, Finding> {
    match &value.node {
        _ if value.is_nil() => Ok(None),
        Node::Scalar { text, .. } => Ok(Some(text.clone())),
        Node::List(_) | Node::Map(_) => Err(problem(
            Some(value.line),
            format!("{key} is not a single text"),
        )),
    }
}

impl Config {
    /// Reads a `config`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Finding>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let root = yaml::parse(text)
            .map_err(|error| vec![problem(Some(error.line), error.why)])?
            .ok_or_else(|| vec![problem(None, "the file is empty")])?;
        let mut problems = Vec::new();
        let config = Self::of(root, &mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    fn of(root: Value, problems: &mut Vec<Finding>) -> Option<Self> {
        let mut keep = |result: Result<Option<String>, Finding>| {
            result.unwrap_or_else(|problem| {
                problems.push(problem);
                None
            })
        };
        let mut text_at =
            |path: &[&str]| keep(root.at(path).map_or(Ok(None), |v| text(v, &path.join("."))));
        let source = text_at(&["source", "default"]);
        let router_db = text_at(&["source", "csv", "file"]);
        let input = text_at(&["input", "default"]);
        let gpg = text_at(&["source", "csv", "gpg"]);
        let gpg = gpg.is_some_and(|gpg| !matches!(gpg.as_str(), "false" | "no" | "off"));
        if source.as_deref().is_some_and(|source| source != "csv") {
            let line = root.at(&["source", "default"]).map(|value| value.line);
            let text = "source.default is not csv; only an inventory in router.db can be imported";
            problems.push(problem(line, text));
            return None;
        }
        let Some(csv) = root.at(&["source", "csv"]) else {
            problems.push(problem(None, "there is no source.csv"));
            return None;
        };
        // What Oxidized writes where nothing is configured: `CSV#setup`.
        let map = csv.get("map").filter(|map| !map.is_nil());
        let map = match map {
            Some(map) => positions(map, "map", problems),
            None => vec![("name".to_owned(), 0), ("model".to_owned(), 1)],
        };
        if !map.iter().any(|(key, _)| key == "name") {
            let line = csv.get("map").map(|map| map.line);
            problems.push(problem(
                line,
                "source.csv.map does not say where the name is",
            ));
        }
        let vars_map = csv.get("vars_map").filter(|map| !map.is_nil());
        let vars_map = vars_map.map_or_else(Vec::new, |map| positions(map, "vars_map", problems));
        let model_map = matches(root.get("model_map"), "model_map", problems);
        let group_map = matches(root.get("group_map"), "group_map", problems);
        let delimiter = delimiter(csv.get("delimiter")).map_err(|problem| problems.push(problem));
        Some(Self {
            router_db,
            gpg,
            delimiter: delimiter.ok()?,
            map,
            vars_map,
            input,
            model_map,
            group_map,
            root,
        })
    }

    /// What `model_map` makes of a model.
    pub(super) fn model_of(&self, model: &str) -> String {
        mapped(&self.model_map, model).to_owned()
    }

    /// What `group_map` makes of a group.
    pub(super) fn group_of(&self, group: Option<&str>) -> Option<String> {
        group.map(|group| mapped(&self.group_map, group).to_owned())
    }

    /// `Node#resolve_key` below the node itself: the first place that has the key.
    pub(super) fn setting(
        &self,
        group: Option<&str>,
        model: &str,
        key: &str,
    ) -> Option<Setting<'_>> {
        self.places(group, Some(model))
            .find_map(|place| place.get(key))
            .map(|value| Setting { value })
    }

    /// The same without the global place.
    pub(super) fn local_setting(
        &self,
        group: Option<&str>,
        model: &str,
        key: &str,
    ) -> Option<Setting<'_>> {
        self.local_places(group, Some(model))
            .find_map(|place| place.get(key))
            .map(|value| Setting { value })
    }

    /// The same for `model`, while the node's model is not known yet.
    pub(super) fn model_setting(&self, group: Option<&str>) -> Option<Setting<'_>> {
        self.places(group, None)
            .find_map(|place| place.get("model"))
            .map(|value| Setting { value })
    }

    /// `vars` below the node itself: the first place that has the variable.
    pub(super) fn variable(
        &self,
        group: Option<&str>,
        model: &str,
        name: &str,
    ) -> Option<Setting<'_>> {
        self.places(group, Some(model))
            .find_map(|place| place.at(&["vars", name]))
            .map(|value| Setting { value })
    }

    /// Where settings stand, the nearest to the node first.
    fn places(&self, group: Option<&str>, model: Option<&str>) -> impl Iterator<Item = &Value> {
        self.local_places(group, model)
            .chain(std::iter::once(&self.root))
    }

    fn local_places(
        &self,
        group: Option<&str>,
        model: Option<&str>,
    ) -> impl Iterator<Item = &Value> {
        let group = group.and_then(|group| self.root.at(&["groups", group]));
        let in_group = group
            .zip(model)
            .and_then(|(group, model)| group.at(&["models", model]));
        let model = model.and_then(|model| self.root.at(&["models", model]));
        [in_group, group, model].into_iter().flatten()
    }
}

fn mapped<'a>(map: &'a [(Match, String)], original: &'a str) -> &'a str {
    let found = map.iter().find(|(key, _)| match key {
        Match::Text(text) => text == original,
        Match::Pattern(pattern) => pattern.is_match(original),
    });
    found.map_or(original, |(_, value)| value)
}

fn positions(map: &Value, name: &str, problems: &mut Vec<Finding>) -> Vec<(String, i64)> {
    let Node::Map(pairs) = &map.node else {
        let text = format!("source.csv.{name} is not a list of names and positions");
        problems.push(problem(Some(map.line), text));
        return Vec::new();
    };
    let mut positions = Vec::new();
    for (key, value) in pairs {
        let (Node::Scalar { text: key, .. }, Node::Scalar { text: position, .. }) =
            (&key.node, &value.node)
        else {
            let text = format!("source.csv.{name} has an entry that is no name and position");
            problems.push(problem(Some(key.line), text));
            continue;
        };
        match position.parse::<i64>() {
            Ok(position) => positions.push((key.clone(), position)),
            Err(_) => {
                let key = key.escape_debug();
                let text = format!(
                    "the position of {key} in source.csv.{name} is not a number; it counts from 0"
                );
                problems.push(problem(Some(value.line), text));
            }
        }
    }
    positions
}

fn matches(map: Option<&Value>, name: &str, problems: &mut Vec<Finding>) -> Vec<(Match, String)> {
    let Some(map) = map.filter(|map| !map.is_nil()) else {
        return Vec::new();
    };
    let Node::Map(pairs) = &map.node else {
        problems.push(problem(
            Some(map.line),
            format!("{name} is not a list of names and names"),
        ));
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, value) in pairs {
        let (
            Node::Scalar {
                text: from,
                regexp: is_regexp,
                ..
            },
            Node::Scalar { text: to, .. },
        ) = (&key.node, &value.node)
        else {
            let text = format!("{name} has an entry that is no pair of names");
            problems.push(problem(Some(key.line), text));
            continue;
        };
        if *is_regexp {
            match regexp(from) {
                Ok(pattern) => found.push((Match::Pattern(pattern), to.clone())),
                Err(why) => problems.push(problem(Some(key.line), why)),
            }
        } else {
            found.push((Match::Text(from.clone()), to.clone()));
        }
    }
    found
}

fn delimiter(value: Option<&Value>) -> Result<Delimiter, Finding> {
    let default = || Delimiter::text(":").map_err(|why| problem(None, why));
    let Some(value) = value.filter(|value| !value.is_nil()) else {
        return default();
    };
    let delimiter = match &value.node {
        Node::Scalar {
            text, regexp: true, ..
        } => Delimiter::pattern(text),
        Node::Scalar { text, .. } => Delimiter::text(text),
        Node::List(_) | Node::Map(_) => Err("source.csv.delimiter is not a text"),
    };
    delimiter.map_err(|why| problem(Some(value.line), why))
}
