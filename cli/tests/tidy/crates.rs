//! Dependencies between the crates of the workspace, and libraries that only some crates may name.

use super::{files, read, root};

/// Allowed dependencies inside the workspace. All others are forbidden, and so is a member without a row.
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

/// Libraries that only these crates may name.
const NAMED_ONLY_BY: &[(&str, &[&str])] = &[
    ("rocksdb", &["raft-store"]),
    ("openraft", &["raft-store", "node"]),
    ("rustls", &["tls"]),
];

/// The only lines that the sections of dependencies of a pure crate may have: nothing there waits, draws a random
/// number, or touches a clock or a disk.
const PURE: &[(&str, &[&str])] = &[(
    "machines",
    &[
        "bytes.workspace = true",
        "hashring.workspace = true",
        "humantime.workspace = true",
        "prost.workspace = true",
        "ropewalk-proto.workspace = true",
        "thiserror.workspace = true",
        // For its tests.
        "proptest.workspace = true",
    ],
)];

/// Words of the standard library for what a pure crate must not touch, or that come in another order each time.
const IMPURE: &[&str] = &[
    "HashMap",
    "HashSet",
    "SystemTime",
    "Instant",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
];

/// Folders of the members of the workspace.
pub fn members() -> Vec<String> {
    let manifest = read(&root().join("Cargo.toml"));
    let (_, members) = manifest.split_once("members = [").expect("members");
    let (members, _) = members.split_once(']').expect("the end of the members");
    let quoted = members.split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// Libraries that a crate depends on, and the section of its manifest that names each.
fn dependencies(member: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut section = String::new();
    for line in read(&root().join(member).join("Cargo.toml")).lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
        } else if section.ends_with("dependencies") {
            let name = line.split(['.', ' ', '=', '#']).next().unwrap_or_default();
            if !name.is_empty() {
                found.push((section.clone(), name.to_owned()));
            }
        }
    }
    found
}

/// Libraries that the product needs: all but those of tests.
fn product_dependencies(member: &str) -> Vec<String> {
    let all = dependencies(member).into_iter();
    let of_product = all.filter(|(section, _)| !section.ends_with("dev-dependencies"));
    of_product.map(|(_, name)| name).collect()
}

#[test]
fn arrows_between_crates_point_one_way() {
    for member in members() {
        let row = CRATE_ARROWS.iter().find(|(name, _)| *name == member);
        let Some((_, allowed)) = row else {
            panic!("{member} has no row in the table of crates: which may it depend on?");
        };
        for target in product_dependencies(&member) {
            assert!(
                !target.starts_with("ropewalk-") || allowed.contains(&target.as_str()),
                "{member} must not depend on {target}"
            );
        }
    }
}

#[test]
fn a_library_behind_a_seam_is_named_only_behind_it() {
    for member in members() {
        let named = product_dependencies(&member);
        for (library, owners) in NAMED_ONLY_BY {
            assert!(
                !named.iter().any(|name| name == library) || owners.contains(&member.as_str()),
                "{member} must not name {library}"
            );
        }
    }
}

/// Dependency of the benches of a pure crate.
const BENCHES: &str = "divan.workspace = true";

#[test]
fn a_pure_crate_names_no_library_of_the_world_outside() {
    for (member, allowed) in PURE {
        let manifest = read(&root().join(member).join("Cargo.toml"));
        let sections = manifest.split("\n[").skip(1);
        let named = sections.filter(|section| section.contains("dependencies"));
        for section in named {
            let (header, lines) = section.split_once('\n').expect("a section");
            assert!(
                ["dependencies]", "dev-dependencies]"].contains(&header),
                "{member} must have no [{header}"
            );
            for line in lines
                .lines()
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
            {
                let of_benches = header.starts_with("dev-") && line == BENCHES;
                assert!(
                    allowed.contains(&line) || of_benches,
                    "{member} must not depend on {line}"
                );
            }
        }
    }
}

#[test]
fn a_pure_crate_touches_nothing_outside() {
    for (member, _) in PURE {
        let sources = files(&root().join(member).join("src"), "rs");
        assert!(!sources.is_empty(), "{member} has no sources");
        for source in sources {
            let text = read(&source);
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                let found = IMPURE.iter().find(|word| line.contains(*word));
                assert!(found.is_none(), "{} names {found:?}", source.display());
            }
        }
    }
}
