//! Alerts and dashboard: valid, explained, tested, and on metrics that exist.

use std::collections::BTreeSet;
use std::process::Command;

use mikrotik_backup::metrics::Metrics;
use mikrotik_backup::metrics::archive::ArchiveMetrics;
use regex::Regex;
use serde_json::Value;

use super::super::services::process;
use super::{document, list, read, root, text};

fn promtool(arguments: &[&str]) {
    let Some(program) = process::require("promtool") else {
        return;
    };
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root().join("deploy/prometheus"))
        .output()
        .expect("run promtool");
    assert!(
        output.status.success(),
        "promtool {arguments:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn alerts_are_valid_and_fire_when_they_should() {
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["test", "rules", "alerts_test.yaml"]);
}

#[test]
fn alerts_are_explained_and_tested() {
    let readme = read("deploy/README.md");
    let tests = read("deploy/prometheus/alerts_test.yaml");
    let rules = document("deploy/prometheus/alerts.yaml");
    let rules = list(&rules, "/groups/0/rules");
    assert!(!rules.is_empty());
    for rule in rules {
        let name = text(rule, "/alert");
        assert!(readme.contains(&format!("| `{name}` |")), "{name}: README");
        assert!(tests.contains(&format!("\"{name}\"")), "{name}: untested");
        for pointer in [
            "/labels/severity",
            "/annotations/summary",
            "/annotations/description",
        ] {
            assert!(!text(rule, pointer).is_empty(), "{name}: {pointer}");
        }
    }
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    let dashboard = read("deploy/grafana/mikrotik-backup.json");
    serde_json::from_str::<Value>(&dashboard).expect("the dashboard is JSON");
    let used = read("deploy/prometheus/alerts.yaml") + &dashboard;
    let page = Metrics::new().expect("metrics").render().expect("a page");
    let archive = ArchiveMetrics::new().expect("metrics");
    let page = page + &archive.render().expect("a page");
    let all = |pattern: &str, text: &str| -> BTreeSet<String> {
        let pattern = Regex::new(pattern).expect("a valid pattern");
        let found = pattern.captures_iter(text);
        found.map(|found| found[1].to_owned()).collect()
    };
    let names = all(r"\b(mikrotik_[a-z_]+)", &used);
    assert!(names.len() >= 8, "found only {names:?}");
    for name in names {
        let samples = [format!("\n{name}{{"), format!("\n{name} ")];
        let there = samples.iter().any(|sample| page.contains(sample));
        assert!(there, "there is no metric {name}");
    }
    let tests = read("deploy/prometheus/alerts_test.yaml");
    for label in [
        "state", "kind", "status", "reason", "result", "known", "part",
    ] {
        let values = all(
            &format!(r#"\b{label}=\\?"([^"\\]+)"#),
            &(used.clone() + &tests),
        );
        assert!(!values.is_empty(), "no {label} is used");
        for value in values {
            let there = page.contains(&format!("{label}=\"{value}\""));
            assert!(there, "no metric has {label}={value:?}");
        }
    }
}
