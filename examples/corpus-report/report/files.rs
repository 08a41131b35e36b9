//! What lies in the folder of a corpus: tables, recordings, probes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use saphyr::{LoadableYamlNode as _, Yaml};

/// What was answered to each command of a recorded session.
pub fn replies(yaml: &str) -> BTreeMap<String, String> {
    let documents = Yaml::load_from_str(yaml).unwrap_or_default();
    let commands = documents
        .first()
        .and_then(|root| root.as_mapping_get("commands"));
    let Some(commands) = commands.and_then(Yaml::as_mapping) else {
        return BTreeMap::new();
    };
    commands
        .iter()
        .filter_map(|(command, reply)| {
            let command = command.as_str()?;
            let command = command.trim_end().trim_end_matches("\\n").to_owned();
            // Blanks that the form would lose are escaped in it.
            let reply = reply.as_str().unwrap_or_default().replace("\\x20", " ");
            Some((command, reply + "\n"))
        })
        .collect()
}

/// Texts that must stay, and texts that must not.
pub fn probes(yaml: &str) -> Vec<(bool, String)> {
    let documents = Yaml::load_from_str(yaml).unwrap_or_default();
    let Some(root) = documents.first() else {
        return Vec::new();
    };
    let list = |key: &str, wanted: bool| -> Vec<(bool, String)> {
        let probes = root.as_mapping_get(key).and_then(|list| list.as_vec());
        let probes = probes.into_iter().flatten();
        probes
            .filter_map(|probe| Some((wanted, probe.as_str()?.to_owned())))
            .collect()
    };
    [list("pass", true), list("fail", false)].concat()
}

/// Rows of a table by its column names.
pub fn table(path: &Path) -> io::Result<Vec<BTreeMap<String, String>>> {
    let text = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let mut rows = text.lines().map(|line| line.split('\t').map(str::to_owned));
    let names: Vec<String> = rows.next().map(Iterator::collect).unwrap_or_default();
    Ok(rows
        .map(|row| names.iter().cloned().zip(row).collect())
        .collect())
}

/// The files of a folder whose name ends so, in order.
pub fn files(folder: &Path, end: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && file_name(&path).ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

pub fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
