//! The Dockerfile, read without Docker: not root, nothing secret in it, and its sources exist.

use std::path::Path;

use regex::Regex;

use super::{SECRETS, read, root};

/// The instructions of the Dockerfile, each with its arguments, continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let lines: Vec<String> = read("Dockerfile")
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(str::to_owned)
        .collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    joined
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(name, rest)| (name.to_ascii_uppercase(), rest.trim().to_owned()))
        .collect()
}

#[test]
fn the_image_is_small_and_not_root() {
    let all = instructions();
    let stages: Vec<usize> = (0..all.len()).filter(|i| all[*i].0 == "FROM").collect();
    assert_eq!(stages.len(), 2, "a stage to build, a stage to run");
    let last = &all[stages[1]..];
    let of = |name: &str| -> Vec<&str> {
        let matching = last.iter().filter(|(found, _)| found == name);
        matching.map(|(_, rest)| rest.as_str()).collect()
    };
    let user = Regex::new("^[1-9][0-9]*:[1-9][0-9]*$").expect("a valid pattern");
    assert!(matches!(of("USER")[..], [one] if user.is_match(one)));
    assert!(of("RUN").is_empty(), "the base has no shell");
    assert!(of("VOLUME").is_empty());
    assert_eq!(of("EXPOSE"), ["9091"]);
    assert_eq!(of("STOPSIGNAL"), ["SIGTERM"]);
    assert_eq!(of("ENTRYPOINT"), [r#"["/usr/local/bin/mikrotik-backup"]"#]);
    let [check] = of("HEALTHCHECK")[..] else {
        panic!("one health check");
    };
    assert!(check.ends_with(r#"CMD ["/usr/local/bin/mikrotik-backup", "healthcheck"]"#));

    for (name, rest) in &all {
        if name == "ENV" || name == "ARG" {
            let secret = SECRETS.iter().find(|secret| rest.contains(**secret));
            assert_eq!(secret, None, "{name} {rest} stays in the image");
        }
    }
    let version = |text: &str| -> Vec<u32> {
        text.split('.')
            .map(|part| part.parse().expect("a version"))
            .collect()
    };
    let compiler = all
        .iter()
        .find_map(|(_, rest)| rest.strip_prefix("RUST_VERSION="))
        .expect("the version of the compiler");
    assert!(version(compiler) >= version(env!("CARGO_PKG_RUST_VERSION")));
}

#[test]
fn the_image_is_built_from_files_that_reach_the_builder() {
    let ignored: Vec<String> = read(".dockerignore")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    // Plain names only, so that what they exclude can be told without Docker.
    let plain = |line: &String| !line.contains(['*', '?', '!', '[']);
    assert!(ignored.iter().all(plain), "{ignored:?}");
    for secret in [".env", "data", ".git"] {
        assert!(ignored.iter().any(|line| line == secret), "{secret}");
    }

    let mut sources = vec!["Cargo.toml".to_owned(), "Cargo.lock".to_owned()];
    sources.extend(["src/main.rs", "src/lib.rs"].map(str::to_owned));
    for optional in ["migrations", "tests/fixtures", "README.md"] {
        if root().join(optional).exists() {
            sources.push(optional.to_owned());
        }
    }
    for (name, rest) in instructions() {
        if name == "COPY" && !rest.contains("--from=") {
            let mut words: Vec<_> = rest.split_whitespace().map(str::to_owned).collect();
            words.pop();
            sources.extend(words);
        }
    }
    for source in sources {
        assert!(root().join(&source).exists(), "{source} does not exist");
        let first = Path::new(&source).iter().next().expect("not empty");
        assert!(
            !ignored
                .iter()
                .any(|line| Path::new(line) == Path::new(first)),
            "{source} is not sent to the builder"
        );
    }
}
