//! The house of `docs/architecture.md`, held against `cargo metadata`: arrows point inwards only.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};

/// Workspace crate -> workspace crates it depends on, dev-dependencies left out.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let members: BTreeSet<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    metadata
        .packages
        .iter()
        .map(|p| {
            let deps = p.dependencies.iter().filter(|d| d.kind != DependencyKind::Development && members.contains(&d.name));
            (p.name.to_string(), deps.map(|d| d.name.clone()).collect())
        })
        .collect()
}

fn reachable(arrows: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![from.to_owned()];
    while let Some(name) = todo.pop() {
        for next in arrows.get(&name).into_iter().flatten() {
            if seen.insert(next.clone()) {
                todo.push(next.clone());
            }
        }
    }
    seen
}

/// Third-party crates that the named crate pulls in, over the whole resolved graph.
fn third_party(package: &str) -> BTreeSet<String> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn arrows_point_inwards_only() {
    let arrows = arrows();
    let allowed: &[(&str, &[&str])] = &[
        ("tde2hsm-protocol", &[]),
        ("tde2hsm-campaign", &["tde2hsm-protocol"]),
        ("tde2hsm-dr", &["tde2hsm-protocol"]),
        ("tde2hsm-dr-driver", &["tde2hsm-protocol", "tde2hsm-dr"]),
        ("tde2hsm-model", &["tde2hsm-protocol"]),
        ("tde2hsm-document", &["tde2hsm-protocol"]),
        ("tde2hsm-journal", &["tde2hsm-protocol", "tde2hsm-campaign"]),
        ("tde2hsm-host-runner", &["tde2hsm-protocol"]),
        ("tde2hsm-driver", &["tde2hsm-protocol", "tde2hsm-campaign", "tde2hsm-journal"]),
    ];
    for (from, to) in allowed {
        let found = arrows.get(*from).unwrap_or_else(|| panic!("{from} is not in the workspace"));
        let extra: Vec<_> = found.iter().filter(|name| !to.contains(&name.as_str())).collect();
        assert!(extra.is_empty(), "{from} must not depend on {extra:?}");
    }
}

#[test]
fn nothing_that_ships_depends_on_tests() {
    let arrows = arrows();
    for from in [
        "tde2hsm-cli",
        "tde2hsm-host-runner",
        "tde2hsm-driver",
        "tde2hsm-dr-driver",
        "tde2hsm-lambdas",
        "tde2hsm-cloud",
        "tde2hsm-journal-sqlite",
    ] {
        let bad: Vec<_> = reachable(&arrows, from)
            .into_iter()
            .filter(|name| {
                name.starts_with("sandbox") || ["tde2hsm-model", "tde2hsm-e2e", "tde2hsm-conformance"].contains(&name.as_str())
            })
            .collect();
        assert!(bad.is_empty(), "{from} reaches {bad:?}");
    }
}

#[test]
fn pure_crates_have_no_async_no_clock_no_randomness_no_aws() {
    for package in ["tde2hsm-protocol", "tde2hsm-campaign", "tde2hsm-dr"] {
        let crates = third_party(package);
        assert!(crates.contains("serde"), "cargo tree printed nothing useful for {package}");
        let bad: Vec<_> = crates
            .iter()
            .filter(|name| {
                name.starts_with("aws-")
                    || ["tokio", "async-trait", "rand", "reqwest", "hyper", "rusqlite"].contains(&name.as_str())
            })
            .collect();
        assert!(bad.is_empty(), "{package} pulls in {bad:?}");
    }
}

#[test]
fn functions_need_neither_the_command_line_nor_its_journal() {
    let reached = reachable(&arrows(), "tde2hsm-lambdas");
    assert!(reached.contains("tde2hsm-dr-driver"), "the functions run the jobs of dr-driver: {reached:?}");
    for name in ["tde2hsm-cli", "tde2hsm-journal-sqlite"] {
        assert!(!reached.contains(name), "tde2hsm-lambdas reaches {name}");
    }
    assert!(!third_party("tde2hsm-lambdas").contains("rusqlite"));
}

#[test]
fn only_one_crate_names_the_ec2_sdk() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let users: Vec<_> = metadata
        .packages
        .iter()
        .filter(|p| p.dependencies.iter().any(|d| d.name == "aws-sdk-ec2"))
        .map(|p| p.name.to_string())
        .collect();
    assert_eq!(users, ["tde2hsm-cloud-ec2"]);
}
