//! Alerts and dashboard: valid, explained, tested, and on metrics that exist.

use std::collections::BTreeSet;
use std::process::Command;

use regex::Regex;
use serde_json::Value;

use super::super::services::process;
use super::{document, list, read, reference, root, text};

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
    let names: BTreeSet<String> = Regex::new(r"\bmikrotik_[a-z_]+")
        .expect("a valid pattern")
        .find_iter(&(read("deploy/prometheus/alerts.yaml") + &dashboard))
        .map(|found| found.as_str().trim_end_matches("_bucket").to_owned())
        .collect();
    assert!(names.len() >= 8, "found only {names:?}");
    let (Some(contract), Some(design)) =
        (reference("contract.md"), reference("design-examples.md"))
    else {
        return;
    };
    for name in names {
        // The design names the optional ones without their prefix.
        let short = name.replace("mikrotik_config_backup_", "`_");
        assert!(
            contract.contains(&name) || design.contains(&name) || design.contains(&short),
            "{name} is documented nowhere"
        );
    }
}
