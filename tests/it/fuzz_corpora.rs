//! Replays the corpora of the fuzz targets, as ordinary tests: what a fuzzer once found stays fixed.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/checks.rs"]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let corpus = root.join("corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&corpus).expect("a corpus") {
        let path = entry.expect("an entry of the corpus").path();
        // The name of the input that fails is in the output of the test.
        println!("{}", path.display());
        check(&fs::read(&path).expect("read an input"));
        replayed += 1;
    }
    assert!(replayed >= 5, "only {replayed} in {}", corpus.display());
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the fuzz workspace");
    assert!(manifest.contains(&format!("name = \"{target}\"")));
}

#[test]
fn the_corpus_of_the_reader() {
    replay("reader", checks::reader);
}

#[test]
fn the_corpus_of_the_normalizer() {
    replay("normalizer", checks::normalizer);
}

#[test]
fn the_corpus_of_completeness() {
    replay("completeness", checks::completeness);
}

#[test]
fn the_corpus_of_the_event() {
    replay("event", checks::event);
}

#[test]
fn the_corpus_of_router_db() {
    replay("router_db", checks::router_db);
}

#[test]
fn the_corpus_of_csv() {
    replay("csv", checks::csv);
}

#[test]
fn the_corpus_of_credentials() {
    replay("credentials", checks::credentials);
}
