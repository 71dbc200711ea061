//! The documentation names things of the code; here it is held to that.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tde2hsm_protocol::CATALOGUE;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Names of all functions in the repository's Rust files.
fn functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut todo: Vec<PathBuf> = ["host-runner", "lambdas", "orchestrator", "tests"].map(|dir| root().join(dir)).into();
    while let Some(dir) = todo.pop() {
        for path in fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                names.extend(
                    text.split("fn ").skip(1).map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()),
                );
            }
        }
    }
    names
}

#[test]
fn every_hazard_has_its_row_and_every_test_named_there_exists() {
    let page = fs::read_to_string(root().join("docs/hazards.md")).expect("page");
    let functions = functions();
    for number in 1..=50 {
        assert!(page.contains(&format!("| **H{number}** ")), "H{number} has no row");
    }
    let named: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .collect();
    assert!(named.len() > 50, "only {} tests are named", named.len());
    for name in named {
        assert!(functions.contains(name), "`{name}` is named and is not there");
    }
}

/// A path is one that is there, and what is said to be in a file is in it: `a`, `b` and `c` in `path`.
#[test]
fn every_path_that_a_hazard_names_is_there_and_holds_what_is_said() {
    let page = fs::read_to_string(root().join("docs/hazards.md")).expect("page");
    let (mut paths, mut held) = (0, 0);
    for row in page.lines().filter(|line| line.starts_with("| **H")) {
        let pieces: Vec<&str> = row.split('`').collect();
        assert!(pieces.len() % 2 == 1, "a quote is not closed: {row}");
        let mut names: Vec<&str> = Vec::new();
        for pair in pieces[..pieces.len() - 1].chunks(2) {
            let [before, word] = pair else { panic!("a pair") };
            if word.contains('/') && !word.contains(' ') && !word.starts_with("DIR/") {
                let path = root().join(word.trim_end_matches("/…"));
                assert!(path.exists(), "`{word}` is named and is not there");
                paths += 1;
                if *before == " in " && path.is_file() {
                    let text = fs::read_to_string(&path).expect("a text");
                    for name in names.drain(..) {
                        let there = text.split(|c: char| !c.is_alphanumeric() && !"_-".contains(c)).any(|found| found == name);
                        assert!(there, "`{name}` is not in `{word}`");
                        held += 1;
                    }
                }
                names.clear();
            } else {
                if ![", ", " and "].contains(before) {
                    names.clear();
                }
                names.push(word.rsplit("::").next().unwrap_or(word));
            }
        }
    }
    assert!(paths > 100 && held > 80, "{paths} paths and {held} names were looked at");
}

#[test]
fn every_code_has_a_page_with_its_title_and_no_page_is_left_over() {
    let dir = root().join("docs/errors");
    for info in CATALOGUE {
        let page =
            fs::read_to_string(dir.join(format!("{}.md", info.code))).unwrap_or_else(|_| panic!("no page for {}", info.code));
        assert_eq!(page.lines().next(), Some(format!("# {}: {}", info.code, info.title).as_str()));
        assert!(page.lines().count() >= 8, "the page of {} says next to nothing", info.code);
    }
    let pages = fs::read_dir(&dir)
        .expect("pages")
        .filter(|entry| entry.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with("TDE")));
    assert_eq!(pages.count(), CATALOGUE.len(), "pages and codes differ in number");
}

#[test]
fn the_readme_shows_its_two_commands_first() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README");
    let first: Vec<&str> = readme.lines().take(12).collect();
    let make = fs::read_to_string(root().join("Makefile")).expect("Makefile");
    for command in ["demo", "test"] {
        assert!(first.iter().any(|line| line.starts_with(&format!("make {command}"))), "`make {command}` is not at the top");
        assert!(make.contains(&format!("\n{command}:")), "the Makefile has no `{command}`");
    }
}
