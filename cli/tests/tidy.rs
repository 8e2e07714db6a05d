//! House rules that can be checked from outside the code. They cover dependencies between crates, libraries
//! that only some crates may name, the length of files, the first word of doc comments, and links in the docs.

use std::fs;
use std::path::{Path, PathBuf};

/// Allowed dependencies inside the workspace. All others are forbidden.
const CRATE_ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("tls", &[]),
    ("machines", &["ropewalk-proto"]),
    ("raft-store", &["ropewalk-machines", "ropewalk-proto"]),
    (
        "node",
        &[
            "ropewalk-machines",
            "ropewalk-proto",
            "ropewalk-raft-store",
            "ropewalk-tls",
        ],
    ),
    ("client", &["ropewalk-proto", "ropewalk-tls"]),
    (
        "cli",
        &[
            "ropewalk-client",
            "ropewalk-machines",
            "ropewalk-node",
            "ropewalk-proto",
            "ropewalk-raft-store",
        ],
    ),
    ("examples/demo", &["ropewalk-client"]),
    ("examples/streams", &["ropewalk-client", "ropewalk-demo"]),
    ("deploy/observe", &["ropewalk-client", "ropewalk-demo"]),
    ("simulation/torture", &["ropewalk-client", "ropewalk-demo"]),
    (
        "simulation",
        &[
            "ropewalk-client",
            "ropewalk-machines",
            "ropewalk-node",
            "ropewalk-proto",
            "ropewalk-raft-store",
        ],
    ),
];

/// Rooms of the node, and the rooms that each may use. Only `run.rs` may use all of them. `supervise/` runs it.
const ROOM_ARROWS: &[(&str, &[&str])] = &[
    ("env", &[]),
    ("metrics", &[]),
    ("peer", &[]),
    ("cluster", &["peer"]),
    ("filter", &[]),
    ("guard", &[]),
    ("partition", &["cluster", "peer"]),
    ("coordinator", &["cluster", "partition", "peer"]),
    (
        "service",
        &[
            "cluster",
            "coordinator",
            "filter",
            "guard",
            "partition",
            "peer",
        ],
    ),
    ("grpc", &["guard", "partition", "service"]),
    ("ops", &["cluster", "coordinator", "partition", "peer"]),
    ("supervise", &["cluster"]),
];

/// Libraries that only these crates may name.
const NAMED_ONLY_BY: &[(&str, &[&str])] = &[
    ("rocksdb", &["raft-store"]),
    ("openraft", &["raft-store", "node"]),
    ("rustls", &["tls"]),
];

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

/// The `[dependencies]` section of a manifest, without dev-dependencies.
fn dependencies(manifest: &Path) -> String {
    let text = read(manifest);
    let start = text
        .find("[dependencies]")
        .map_or(text.len(), |at| at + "[dependencies]".len());
    let section = &text[start..];
    section[..section.find("\n[").unwrap_or(section.len())].to_string()
}

#[test]
fn arrows_between_crates_point_one_way() {
    for (name, allowed) in CRATE_ARROWS {
        let section = dependencies(&root().join(name).join("Cargo.toml"));
        for line in section.lines().filter(|line| line.starts_with("ropewalk-")) {
            let target = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(
                allowed.contains(&target),
                "{name} must not depend on {target}"
            );
        }
    }
}

#[test]
fn a_library_behind_a_seam_is_named_only_behind_it() {
    for (library, owners) in NAMED_ONLY_BY {
        for (name, _) in CRATE_ARROWS {
            let named = dependencies(&root().join(name).join("Cargo.toml"))
                .lines()
                .any(|line| line.split(['.', ' ', '=']).next() == Some(library));
            assert!(
                !named || owners.contains(name),
                "{name} must not name {library}"
            );
        }
    }
}

#[test]
fn arrows_between_rooms_of_the_node_point_one_way() {
    let src = root().join("node/src");
    for file in files(&src, "rs") {
        let inside = file.strip_prefix(&src).expect("a file of the node");
        for (room, allowed) in ROOM_ARROWS
            .iter()
            .filter(|(room, _)| inside.starts_with(room))
        {
            let text = read(&file);
            for (other, _) in ROOM_ARROWS {
                let used = text.contains(&format!("crate::{other}::"));
                let fine =
                    other == room || ["env", "metrics"].contains(other) || allowed.contains(other);
                assert!(
                    !used || fine,
                    "{}: {room} must not use {other}",
                    file.display()
                );
            }
        }
    }
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
    let manifest = read(&root().join("Cargo.toml"));
    let mut lines = manifest.lines();
    let members = lines.find_map(|line| line.strip_prefix("members = "));
    for member in members.expect("members").split('"').skip(1).step_by(2) {
        let is_under = |rule: &&str| Path::new(member).starts_with(rule.trim_start_matches('!'));
        let last = rules.lines().rfind(is_under);
        assert!(
            last.is_none_or(|rule| rule.starts_with('!')),
            "{member} is a member that cargo looks for, and {last:?} leaves it out"
        );
    }
}
