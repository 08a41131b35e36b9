//! Warnings about variables that look like one of ours but are not: a typing error there would
//! silently leave a default in effect.

use super::environment::Environment;
use super::settings::settings;

/// What only our own variables begin with.
const PREFIXES: &[&str] = &[
    "CONFIG_BACKUP_",
    "OUTBOX_",
    "NATS_STREAM_",
    "DEVICE_REFRESH",
];

/// How many letters a name may be off.
const NEAR: usize = 2;

/// One warning for each variable that is probably meant for us and has no effect.
pub(super) fn warnings(environment: &Environment) -> Vec<String> {
    let mut known = Vec::new();
    for setting in settings() {
        known.push(setting.name.to_owned());
        if setting.secret {
            known.push(format!("{}_FILE", setting.name));
        }
    }
    let strange = environment
        .names()
        .filter(|name| !known.iter().any(|k| k == name));
    strange.filter_map(|name| warning(name, &known)).collect()
}

fn warning(name: &str, known: &[String]) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let meant = known
        .iter()
        .map(|candidate| (distance(&upper, candidate), candidate))
        // Short names are near to many that have nothing to do with us.
        .filter(|(distance, candidate)| *distance <= NEAR && candidate.len() >= 8)
        .min()
        .map(|(_, candidate)| candidate);
    // Kubernetes describes each Service of the namespace in variables of such a form.
    let linked = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
        .iter()
        .any(|part| upper.contains(part));
    let ours = PREFIXES.iter().any(|prefix| upper.starts_with(prefix)) && !linked;
    match meant {
        Some(meant) => Some(format!(
            "the variable {name} has no effect; did you mean {meant}?"
        )),
        None if ours => Some(format!(
            "the variable {name} has no effect: there is no such setting (--help lists them all)"
        )),
        None => None,
    }
}

/// The Levenshtein distance, cut off where it cannot be near any more.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > NEAR {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(name: &str) -> Option<String> {
        warnings(&Environment::from_pairs([(name, "secret-value")])).pop()
    }

    #[test]
    fn typing_errors_are_answered_with_the_name_that_was_meant() {
        for (typed, meant) in [
            ("CONFIG_BACKUP_INTERVALL", "CONFIG_BACKUP_INTERVAL"),
            ("CONFIG_BACKUP_INTERVAl", "CONFIG_BACKUP_INTERVAL"),
            ("config_backup_interval", "CONFIG_BACKUP_INTERVAL"),
            ("DATABASE_URI", "DATABASE_URL"),
            ("DATABASE_URL_FIEL", "DATABASE_URL_FILE"),
            ("DEVICE_REFRESH_SECOND", "DEVICE_REFRESH_SECONDS"),
        ] {
            let warning = warned(typed).unwrap_or_else(|| panic!("{typed} is not warned about"));
            assert!(
                warning.contains(&format!("did you mean {meant}?")),
                "{warning}"
            );
            assert!(!warning.contains("secret-value"), "{warning}");
        }
        let stranger = warned("CONFIG_BACKUP_COLOUR").expect("a warning");
        assert!(stranger.contains("no such setting"), "{stranger}");
    }

    #[test]
    fn other_variables_are_left_alone() {
        for name in [
            "PATH",
            "HOME",
            "NATS_PORT",
            "NATS_PORT_4222_TCP",
            "REDIS_SERVICE_HOST",
            "CONFIG_BACKUP_SERVICE_PORT",
            "LOGNAME",
            "API_TOKEN_FILE",
            "CONFIG_BACKUP_INTERVAL",
        ] {
            assert_eq!(warned(name), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn the_distance_is_zero_exactly_between_equals(a in "[A-C_]{0,6}", b in "[A-C_]{0,6}") {
            proptest::prop_assert_eq!(distance(&a, &b) == 0, a == b);
            proptest::prop_assert_eq!(distance(&a, &b), distance(&b, &a));
        }
    }
}
