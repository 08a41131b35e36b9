//! The report on the corpus of real exports, where that is there: everything comes out as its label
//! says. The labels are read, and argued with, in `examples/corpus-report/report.rs`.

use std::path::Path;

#[path = "../../examples/corpus-report/report.rs"]
mod report;

#[test]
fn the_corpus_comes_out_as_labelled() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    if !folder.join("INDEX.tsv").is_file() {
        eprintln!("skipped: no corpus of real exports at {}", folder.display());
        return;
    }
    let report = report::report(&folder).expect("read the corpus");
    println!("{}", report.text);
    assert!(report.judged > 90, "only {} judged", report.judged);
    assert_eq!(report.disagreements, Vec::<String>::new());
}
