//! Dependencies between the crates of the workspace, and libraries that only some crates may name.

use super::{read, root};

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

/// Libraries that a pure crate never names, not even in its tests: nothing there waits, draws a random number,
/// or touches a clock or a disk.
const NEVER_NAMED_BY: &[(&str, &[&str])] = &[(
    "machines",
    &["tokio", "openraft", "rocksdb", "rand", "parking_lot"],
)];

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

#[test]
fn a_pure_crate_names_no_library_of_the_world_outside() {
    for member in members() {
        let rows = NEVER_NAMED_BY.iter().filter(|(name, _)| *name == member);
        for forbidden in rows.flat_map(|(_, forbidden)| *forbidden) {
            for (section, name) in dependencies(&member) {
                let kin = name.strip_prefix(forbidden);
                let is_it = kin.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
                assert!(!is_it, "{member} must not name {name} in [{section}]");
            }
        }
    }
}
