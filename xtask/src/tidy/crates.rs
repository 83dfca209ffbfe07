//! Rules over manifests: the order of the crates, and versions that live once.

use super::{Fault, File, Rule};

/// Which crates of ours a crate may use. The order is the way data goes; an edge is a thing to learn, so adding one here is a
/// decision to argue for in the commit. `None`: everything (tools and whole-system tests).
const EDGES: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("proto", &[]),
    ("tls", &["base"]),
    ("engine", &["base", "proto"]),
    ("raftstore", &["base", "proto", "engine"]),
    ("txn", &["base", "proto", "engine"]),
    ("pd", &["base", "proto", "engine", "raftstore"]),
    (
        "server",
        &["base", "proto", "tls", "engine", "raftstore", "txn", "pd", "client"],
    ),
    ("client", &["base", "proto", "tls"]),
    ("sim", &["base", "proto", "engine", "raftstore", "txn", "pd"]),
    ("blob-store", &["base"]),
    ("build-cache", &["base", "tls", "client", "blob-store"]),
    ("cache-proxy", &["base", "tls", "client"]),
    ("thumbnails", &["base", "client", "blob-store"]),
];

/// Names by which our crates stand in `[dependencies]`.
const OURS: &[&str] = &[
    "base",
    "proto",
    "tls",
    "engine",
    "raftstore",
    "txn",
    "copr",
    "pd",
    "server",
    "client",
    "sim",
    "blob-store",
];

pub fn rules() -> Vec<Rule> {
    vec![
        Rule {
            name: "crate-order",
            reason: "crates stand in the order data goes (STYLE.md, \"Where things live\"); a new edge is reviewed harder than a \
                     thousand lines inside a crate",
            find: crate_order,
        },
        Rule {
            name: "one-version",
            reason: "versions live once, in the workspace's Cargo.toml, so that all packages share one build of a dependency",
            find: one_version,
        },
    ]
}

fn crate_order(file: &File) -> Vec<Fault> {
    let Some(name) = file
        .path
        .strip_prefix("crates/")
        .or_else(|| file.path.strip_prefix("services/"))
        .and_then(|path| path.strip_suffix("/Cargo.toml"))
    else {
        return vec![];
    };
    let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
        return vec![Fault {
            line: 1,
            what: format!("crate `{name}` has no place in the order yet (xtask/src/tidy/crates.rs)"),
        }];
    };
    dependencies(file, &["dependencies"])
        .filter(|(_, used, _)| OURS.contains(used) && !allowed.contains(used))
        .map(|(line, used, _)| Fault {
            line,
            what: format!("`{name}` may not use `{used}`"),
        })
        .collect()
}

fn one_version(file: &File) -> Vec<Fault> {
    if !file.path.ends_with("/Cargo.toml") || file.path.starts_with("fuzz/") {
        return vec![];
    }
    dependencies(file, &["dependencies", "dev-dependencies", "build-dependencies"])
        .filter(|(_, _, entry)| !entry.contains("workspace = true"))
        .map(|(line, used, _)| Fault {
            line,
            what: format!("`{used}` does not take its version from the workspace"),
        })
        .collect()
}

/// Entries of the given tables: line, name, whole line.
fn dependencies<'a>(file: &'a File, tables: &'a [&str]) -> impl Iterator<Item = (usize, &'a str, &'a str)> {
    let mut inside = false;
    file.lines().filter_map(move |(line, text)| {
        if text.starts_with('[') {
            let table = text.trim_matches(['[', ']']);
            inside = tables
                .iter()
                .any(|wanted| table == *wanted || (table.starts_with("target.") && table.ends_with(&format!(".{wanted}"))));
            return None;
        }
        let name = text.split(['.', '=', ' ']).next().unwrap_or_default();
        let entry = inside && !name.is_empty() && !name.starts_with('#');
        entry.then_some((line, name, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::must_find;

    #[test]
    fn the_engine_may_not_know_the_server() {
        let text = "[package]\nname = \"x\"\n[dependencies]\nbase.workspace = true\nserver.workspace = true\n[dev-dependencies]\nserver.workspace = true\n";
        assert_eq!(must_find(rules(), "crate-order", "crates/engine/Cargo.toml", text), [5]);
    }

    #[test]
    fn a_service_has_no_back_door() {
        let text = "[dependencies]\nclient.workspace = true\nengine.workspace = true\n";
        assert_eq!(
            must_find(rules(), "crate-order", "services/build-cache/Cargo.toml", text),
            [3]
        );
    }

    #[test]
    fn a_new_crate_must_be_given_its_place() {
        assert_eq!(
            must_find(rules(), "crate-order", "crates/novel/Cargo.toml", "[dependencies]\n"),
            [1]
        );
    }

    #[test]
    fn versions_outside_the_workspace_are_found() {
        let text = "[dependencies]\nbase.workspace = true\nbytes = \"1\"\nprost = { workspace = true, features = [] }\n";
        assert_eq!(must_find(rules(), "one-version", "crates/engine/Cargo.toml", text), [3]);
    }
}
