//! Dependencies between the rooms of a crate: the folders and the single files of its `src`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{files, read, root};

/// The rooms of a crate, and the rooms that each may use. All of these stand above it, so there is no circle.
type Arrows = &'static [(&'static str, &'static [&'static str])];

/// Crates with a table of their rooms.
const CRATES: &[(&str, Arrows)] = &[("machines/src", MACHINES), ("node/src", NODE)];

const MACHINES: Arrows = &[
    ("machine", &[]),
    ("consumer_group", &["machine"]),
    ("log", &["consumer_group", "machine"]),
    ("meta", &["machine"]),
];

/// Stands for all rooms above.
const ALL_ABOVE: &str = "*";

const NODE: Arrows = &[
    ("config", &[]),
    ("log_limiter", &[]),
    ("filter", &[]),
    ("env", &["config", "log_limiter"]),
    ("metrics", &["config", "env", "log_limiter"]),
    ("listeners", &["config", "env"]),
    ("http2", &["config"]),
    ("unpack", &["config", "env"]),
    ("guard", &["config", "env", "metrics", "log_limiter"]),
    ("peer", &["config", "env", "metrics", "log_limiter"]),
    ("disk", &["config", "env", "metrics", "peer"]),
    ("raft", &["config", "peer"]),
    (
        "cluster",
        &["config", "env", "metrics", "peer", "raft", "log_limiter"],
    ),
    (
        "partition",
        &[
            "cluster",
            "config",
            "env",
            "metrics",
            "peer",
            "raft",
            "unpack",
            "log_limiter",
        ],
    ),
    ("scrub", &["cluster", "config", "metrics", "partition"]),
    (
        "coordinator",
        &[
            "cluster",
            "config",
            "env",
            "metrics",
            "partition",
            "peer",
            "log_limiter",
        ],
    ),
    (
        "service",
        &[
            "cluster",
            "config",
            "coordinator",
            "env",
            "filter",
            "guard",
            "metrics",
            "partition",
            "peer",
            "unpack",
            "log_limiter",
        ],
    ),
    (
        "grpc",
        &[
            "cluster",
            "config",
            "coordinator",
            "env",
            "filter",
            "guard",
            "metrics",
            "partition",
            "peer",
            "service",
            "unpack",
            "log_limiter",
        ],
    ),
    (
        "ops",
        &[
            "cluster",
            "config",
            "coordinator",
            "env",
            "metrics",
            "partition",
            "peer",
            "log_limiter",
        ],
    ),
    ("run", &[ALL_ABOVE]),
    (
        "supervise",
        &["cluster", "config", "env", "run", "log_limiter"],
    ),
];

/// The root of a crate, which names its rooms and uses them.
const ROOT: &str = "lib";

/// Room of a file of a crate, and the number of modules from the root of the crate down to the file.
fn place(inside: &Path) -> (String, usize) {
    let path = inside.with_extension("");
    let mut modules: Vec<String> = path
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if modules.last().is_some_and(|last| last == "mod") {
        modules.pop();
    }
    (modules[0].clone(), modules.len())
}

/// Modules of a crate that are compiled for tests only, each as the path of its file without the extension. Such a
/// file, and those in the folder of its name, may use any room.
fn test_modules(src: &Path) -> BTreeSet<PathBuf> {
    let mut modules = BTreeSet::new();
    for file in files(src, "rs") {
        let inside = file.strip_prefix(src).expect("a file of the crate");
        modules.extend(included_for_tests(inside, &read(&file)));
    }
    modules
}

/// The same of one file, with its text.
fn included_for_tests(inside: &Path, text: &str) -> Vec<PathBuf> {
    let beside = inside.parent().expect("a file in the crate");
    let own = inside.with_extension("");
    let is_folder = ["mod", ROOT].iter().any(|name| own.ends_with(name));
    let below = if is_folder { beside } else { own.as_path() };
    let mut modules = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" {
            continue;
        }
        let next = lines.next().unwrap_or_default();
        let path = next.strip_prefix("#[path = \"");
        let path = path.and_then(|path| path.strip_suffix(".rs\"]"));
        let module = next.strip_suffix(';').unwrap_or_default();
        match (path, module.rsplit_once("mod ")) {
            (Some(path), _) => modules.push(beside.join(path)),
            (None, Some((_, name))) => modules.push(below.join(name)),
            (None, None) => {}
        }
    }
    modules
}

fn is_test(inside: &Path, tests: &BTreeSet<PathBuf>) -> bool {
    let mut modules = tests.iter();
    let module = inside.with_extension("");
    modules.any(|test| module.starts_with(test))
}

/// The code of a file, without its comments and its modules of tests.
fn code(text: &str) -> String {
    const TESTS: &str = "\n#[cfg(test)]\nmod ";
    let mut code = String::new();
    let mut rest = text;
    while let Some((before, tests)) = rest.split_once(TESTS) {
        code.push_str(before);
        let (first, after) = tests.split_once('\n').unwrap_or((tests, ""));
        rest = match first.ends_with(';') {
            true => after,
            false => after.split_once("\n}").map_or("", |(_, after)| after),
        };
        code.push('\n');
    }
    code.push_str(rest);
    let lines = code.lines();
    let lines: Vec<&str> = lines
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    lines.join("\n")
}

/// First names of a path, or of all paths in a group: `a` and `d` of `{a::{b, c}, d}`.
fn first_names(path: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| is_name(*c))
            .collect()
    };
    let group = path.strip_prefix('{');
    let mut names = vec![name(group.unwrap_or(path))];
    let mut depth = 1;
    for (at, c) in group.unwrap_or_default().char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(name(&path[at + 2..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Names at the root of the crate that code refers to, directly or through its parents. `depth` is the number
/// of modules down to the file.
fn root_names(code: &str, depth: usize) -> BTreeSet<String> {
    const PARENT: &str = "super::";
    let is_inside_name = |at: usize| {
        let before = code[..at].chars().next_back();
        before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    };
    let mut names = BTreeSet::new();
    for (at, start) in code.match_indices("crate::") {
        if !is_inside_name(at) {
            names.extend(first_names(&code[at + start.len()..]));
        }
    }
    for (at, _) in code.match_indices(PARENT) {
        if is_inside_name(at) || code[..at].ends_with(PARENT) {
            continue;
        }
        let path = code[at..].trim_start_matches(PARENT);
        let parents = (code.len() - at - path.len()) / PARENT.len();
        if parents >= depth {
            names.extend(first_names(path));
        }
    }
    names
}

fn check(file: &Path, inside: &Path, arrows: Arrows) {
    let (room, depth) = place(inside);
    if room == ROOT {
        return;
    }
    let row = arrows.iter().position(|(name, _)| *name == room);
    let Some(row) = row else {
        panic!("{room} has no row in the table of rooms: which may it use?");
    };
    let (_, allowed) = arrows[row];
    let above = arrows[..row].iter().map(|(name, _)| *name);
    let above: Vec<&str> = above.filter(|_| allowed.contains(&ALL_ABOVE)).collect();
    for other in root_names(&code(&read(file)), depth) {
        let is_allowed = |names: &[&str]| names.contains(&other.as_str());
        assert!(
            other == room || is_allowed(allowed) || is_allowed(&above),
            "{}: {room} must not use {other}",
            file.display()
        );
    }
}

#[test]
fn arrows_between_rooms_point_one_way() {
    for (folder, arrows) in CRATES {
        let src = root().join(folder);
        let tests = test_modules(&src);
        for file in files(&src, "rs") {
            let inside = file.strip_prefix(&src).expect("a file of the crate");
            if !is_test(inside, &tests) {
                check(&file, inside, arrows);
            }
        }
    }
}

#[test]
fn there_is_no_circle_between_rooms() {
    for (_, arrows) in CRATES {
        for (at, (room, allowed)) in arrows.iter().enumerate() {
            for other in *allowed {
                let above = &arrows[..at];
                assert!(
                    *other == ALL_ABOVE || above.iter().any(|(name, _)| name == other),
                    "{room} uses {other}, which does not stand above it in the table"
                );
            }
        }
    }
}

#[test]
fn names_are_found_in_groups_and_through_parents() {
    let text = "use crate::{a::{b, c}, d};\nuse super::super::e::F;\nuse super::g::H; // crate::i\n\
                pub(crate) fn j() { crate::k::l() }\n\n#[cfg(test)]\nmod tests {\n    use crate::m;\n}\n";
    let found: Vec<String> = root_names(&code(text), 2).into_iter().collect();
    assert_eq!(found, ["a", "d", "e", "k"]);
    let at_the_root: Vec<String> = root_names("use super::g::H;", 1).into_iter().collect();
    assert_eq!(at_the_root, ["g"]);
}

#[test]
fn files_of_tests_are_known_by_how_they_are_included() {
    let text = "mod a;\n#[cfg(test)]\nmod b;\n#[cfg(test)]\npub(crate) mod c;\n\
                #[cfg(test)]\n#[path = \"d_e.rs\"]\nmod f;\n#[cfg(test)]\nmod g {}\n";
    let expected = |names: [&str; 3]| names.map(PathBuf::from).to_vec();
    let of_a_file = included_for_tests(Path::new("x/y.rs"), text);
    assert_eq!(of_a_file, expected(["x/y/b", "x/y/c", "x/d_e"]));
    let of_a_folder = included_for_tests(Path::new("x/mod.rs"), text);
    assert_eq!(of_a_folder, expected(["x/b", "x/c", "x/d_e"]));
    let tests = of_a_folder.into_iter().collect();
    for (file, expected) in [
        ("x/b.rs", true),
        ("x/b/h.rs", true),
        ("x/a_tests.rs", false),
    ] {
        assert_eq!(is_test(Path::new(file), &tests), expected, "{file}");
    }
}
