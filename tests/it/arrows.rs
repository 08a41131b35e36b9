//! The arrows of ARCHITECTURE.md: which part of the crate may use which.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each part, and the parts that its files may name in `crate::…` paths.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("routeros", &["domain"]),
    ("clock", &["domain"]),
    ("ports", &["domain"]),
    ("credentials", &["domain", "metrics"]),
    ("ssh", &["domain", "credentials"]),
    ("metrics", &["domain"]),
    ("lifecycle", &[]),
    ("config", &["credentials", "domain", "routeros"]),
    ("telemetry", &["config"]),
    ("adapters", &["domain", "ports", "clock", "credentials"]),
    ("archive", &["domain", "ports"]),
    (
        "mirror",
        &[
            "adapters", "archive", "domain", "metrics", "ports", "routeros",
        ],
    ),
    (
        "control",
        &[
            "adapters",
            "api",
            "archive",
            "credentials",
            "domain",
            "fleet",
            "ports",
        ],
    ),
    (
        "intake",
        &[
            "adapters",
            "clock",
            "domain",
            "lifecycle",
            "metrics",
            "ports",
        ],
    ),
    ("report", &["domain", "ports"]),
    ("api", &["domain", "fleet", "metrics", "ports", "report"]),
    ("trigger", &["domain", "fleet", "metrics"]),
    ("http", &["metrics"]),
    ("import", &["domain"]),
    ("sim", &["domain", "clock"]),
    (
        "fleet",
        &[
            "domain",
            "ports",
            "routeros",
            "ssh",
            "credentials",
            "clock",
            "lifecycle",
            "metrics",
        ],
    ),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(place: &Path, found: &mut Vec<PathBuf>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).expect("read a source folder") {
            files(&entry.expect("a directory entry").path(), found);
        }
    } else if place.extension().is_some_and(|extension| extension == "rs") {
        found.push(place.to_owned());
    }
}

/// The first segment of every `crate::…` path in the code of `file`, comments left out.
fn uses(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).expect("read a source file");
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| {
        line.split("crate::")
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    })
    .map(|rest| {
        rest.chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect()
    })
    .filter(|part: &String| !part.is_empty())
    .collect()
}

/// Tests beside the code may stand on anything.
fn is_test(file: &Path) -> bool {
    ["tests.rs", "fakes.rs"]
        .iter()
        .any(|name| file.ends_with(name))
}

#[test]
fn parts_use_only_what_the_arrows_allow() {
    for (part, allowed) in ARROWS {
        let mut found = Vec::new();
        files(&source().join(part), &mut found);
        files(&source().join(format!("{part}.rs")), &mut found);
        found.retain(|file| file.exists() && !is_test(file));
        assert!(!found.is_empty(), "there is no part {part}");
        for file in found {
            for used in uses(&file) {
                assert!(
                    used == *part || allowed.contains(&used.as_str()),
                    "{} uses crate::{used}, which {part} may not",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn no_adapter_imports_a_sibling() {
    let names = [
        "archive",
        "git",
        "postgres",
        "sqlite",
        "redis",
        "jetstream",
        "in_process",
    ];
    for name in names {
        let mut found = Vec::new();
        files(&source().join("adapters").join(name), &mut found);
        files(
            &source().join("adapters").join(format!("{name}.rs")),
            &mut found,
        );
        found.retain(|file| file.exists());
        assert!(!found.is_empty(), "there is no adapter {name}");
        for file in found {
            let text = fs::read_to_string(&file).expect("read a source file");
            for sibling in names.iter().filter(|sibling| **sibling != name) {
                let path = format!("adapters::{sibling}");
                assert!(!text.contains(&path), "{} uses {path}", file.display());
            }
        }
    }
}

#[test]
fn every_file_begins_with_its_owner_sentence() {
    let mut found = Vec::new();
    files(&source(), &mut found);
    for file in found {
        let text = fs::read_to_string(&file).expect("read a source file");
        assert!(
            text.starts_with("//! "),
            "{} does not say what it owns",
            file.display()
        );
    }
}
