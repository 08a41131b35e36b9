//! The report on two corpora: invented exports in the forms that routers print, which are part of the
//! project, and real ones where their folder is there. Everything comes out as its label says. The
//! labels are read, and argued with, in `examples/corpus-report/report.rs`.

use std::path::Path;

#[path = "../../examples/corpus-report/report.rs"]
pub mod report;

fn comes_out_as_labelled(folder: &Path, at_least: usize) {
    let report = report::report(folder).expect("read the corpus");
    println!("{}", report.text);
    assert!(
        report.judged >= at_least,
        "only {} of {} judged",
        report.judged,
        folder.display()
    );
    assert_eq!(report.disagreements, Vec::<String>::new());
}

#[test]
fn the_corpus_of_invented_exports_comes_out_as_labelled() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/corpus");
    comes_out_as_labelled(&folder, 115);
}

#[test]
fn the_corpus_of_real_exports_comes_out_as_labelled() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    if !folder.join("INDEX.tsv").is_file() {
        eprintln!("skipped: no corpus of real exports at {}", folder.display());
        return;
    }
    comes_out_as_labelled(&folder, 100);
}
