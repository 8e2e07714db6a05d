//! House rules that can be checked from outside the code. They cover dependencies between crates and between
//! rooms of the node, libraries that only some crates may name, the compiler that dependencies need, the length of
//! files, the first word of doc comments, and links in the docs.

mod crates;
mod rooms;
mod versions;

use std::fs;
use std::path::{Path, PathBuf};

const LINES_OF_A_FILE: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_path_buf()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_file_can_be_read_in_one_sitting() {
    for file in files(&root(), "rs") {
        let lines = read(&file).lines().count();
        assert!(
            lines <= LINES_OF_A_FILE,
            "{} has {lines} lines, over {LINES_OF_A_FILE}: which room is missing?",
            file.display()
        );
    }
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    // Spelled in parts, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[ig", "nore"),
    ];
    for file in files(&root(), "rs") {
        let text = read(&file);
        for mark in marks {
            assert!(!text.contains(mark), "{} holds a {mark}", file.display());
        }
    }
}

#[test]
fn no_log_line_of_the_command_or_the_client_prints_debug_text() {
    for dir in ["cli/src", "client/src"] {
        for file in files(&root().join(dir), "rs") {
            for line in read(&file).lines() {
                // Debug output, as in `warn!(?field)`; an operator that propagates errors follows its
                // expression.
                let mut marks = line.match_indices('?');
                let shown = marks.any(|(at, _)| {
                    let (before, after) = (&line[..at], &line[at + 1..]);
                    let first = before.is_empty() || before.ends_with([' ', '(']);
                    first && after.starts_with(|next: char| next.is_ascii_lowercase())
                });
                assert!(!shown, "{}: {line}: use %, or words", file.display());
            }
        }
    }
}

#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    const CLAUSES: &[&str] = &["What", "Who", "Whether", "How", "Which", "Where", "When"];
    for file in files(&root(), "rs") {
        let place = file.strip_prefix(root()).expect("a file of the workspace");
        for (number, line) in (1..).zip(read(&file).lines()) {
            let line = line.trim_start();
            let doc = line.strip_prefix("/// ").or(line.strip_prefix("//! "));
            let first = doc.and_then(|doc| doc.split(|c: char| !c.is_alphanumeric()).next());
            assert!(
                first.is_none_or(|first| !CLAUSES.contains(&first)),
                "{}:{number}: begin with a noun or a verb: {line}",
                place.display()
            );
        }
    }
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    for file in files(&root(), "md") {
        let text = read(&file);
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = file.parent().expect("a folder").join(target);
            assert!(
                path.exists(),
                "{} links to {target}, which is not there",
                file.display()
            );
        }
    }
}

/// If several rules of `.dockerignore` match a path, the last one counts.
#[test]
fn the_image_is_built_from_every_member_of_the_workspace() {
    let rules = read(&root().join(".dockerignore"));
    for member in crates::members() {
        let is_under = |rule: &&str| Path::new(&member).starts_with(rule.trim_start_matches('!'));
        let last = rules.lines().rfind(is_under);
        assert!(
            last.is_none_or(|rule| rule.starts_with('!')),
            "{member} is a member that cargo looks for, and {last:?} leaves it out"
        );
    }
}
