//! The report on two corpora: invented exports in the forms that routers print, which are part of the
//! project, and real ones where their folder is there. Everything comes out as its label says. The
//! labels are read, and argued with, in `examples/corpus-report/report.rs`.

use std::fs;
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

#[test]
fn a_label_that_is_not_met_or_not_understood_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let export = "# 2026-01-02 03:04:05 by RouterOS 7.20\n# software id = ABCD-EF12\n#\n\
                  /system identity\nset name=example\n";
    let labels = [
        ("accepted", "", None),
        ("", "", None),
        ("refused", "", Some("expected refused")),
        ("refused truncated_output", "", Some("expected refused")),
        ("fine", "", Some("is no label")),
        ("accepted", "must be refused", Some("its notes say")),
    ];
    let mut index = "file\texpected\tnotes\n".to_owned();
    for (n, (expected, notes, _)) in labels.iter().enumerate() {
        fs::write(folder.path().join(format!("{n}.rsc")), export).expect("written");
        index.push_str(&format!("{n}.rsc\t{expected}\t{notes}\n"));
    }
    fs::write(folder.path().join("INDEX.tsv"), index).expect("written");
    let told = report::report(folder.path())
        .expect("read the corpus")
        .disagreements;
    for (n, (.., wanted)) in labels.iter().enumerate() {
        let told = told
            .iter()
            .find(|told| told.starts_with(&format!("{n}.rsc: ")));
        let as_wanted = match (told, wanted) {
            (Some(told), Some(wanted)) => told.contains(wanted),
            (told, wanted) => told.is_some() == wanted.is_some(),
        };
        assert!(as_wanted, "{n}: {told:?}");
    }
}
