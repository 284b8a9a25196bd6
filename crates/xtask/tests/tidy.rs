//! The house rules that a machine can check; each failure says how to mend it.
#![allow(clippy::disallowed_methods, reason = "asks cargo and git about the workspace")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Licences that may be linked (architecture: Apache, MIT, BSD, ISC, Zlib, Unicode, MPL).
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "MPL-2.0",
    "Unlicense",
    "CC0-1.0",
    "0BSD",
    "BSL-1.0",
    "bzip2-1.0.6",
];

/// Crates of which two versions are linked today, with the reason.
const KNOWN_DUPLICATES: &[(&str, &str)] = &[
    ("syn", "runs in the compiler only: thiserror and serde moved to 3, others not yet"),
    ("base64", "reqwest still has 0.22"),
    ("pem", "jsonwebtoken moved to 4, rcgen not yet"),
    ("untrusted", "aws-lc-rs keeps 0.7 beside rustls-webpki's 0.9; a few hundred lines"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/xtask lies two levels down").to_owned()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output().expect("program starts");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8 output")
}

fn metadata() -> Value {
    let host = "x86_64-unknown-linux-gnu";
    serde_json::from_str(&run(env!("CARGO"), &["metadata", "--format-version=1", "--locked", "--filter-platform", host])).expect("JSON")
}

/// The workspace's packages: short name to (layer, may-use, all dependencies' short names, manifest directory).
struct Member {
    layer: Option<u64>,
    may_use: BTreeSet<String>,
    uses: BTreeSet<String>,
    directory: PathBuf,
}

fn short(name: &str) -> &str {
    name.strip_prefix("sampan-").unwrap_or(name)
}

fn members() -> BTreeMap<String, Member> {
    let metadata = metadata();
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        if !package["source"].is_null() {
            continue;
        }
        let name = short(package["name"].as_str().expect("name")).to_owned();
        let facts = &package["metadata"]["sampan"];
        let strings = |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let uses = package["dependencies"].as_array().expect("dependencies").iter().filter(|edge| !edge["path"].is_null());
        let uses = uses.filter(|edge| edge["kind"].is_null()).map(|edge| short(edge["name"].as_str().expect("name")).to_owned()).collect();
        let directory = Path::new(package["manifest_path"].as_str().expect("path")).parent().expect("directory").to_owned();
        assert!(!facts.is_null(), "crate {name} has no [package.metadata.sampan]; add its layer and may-use as ARCHITECTURE.md lists them");
        found.insert(name, Member { layer: facts["layer"].as_u64(), may_use: strings(&facts["may-use"]), uses, directory });
    }
    found
}

#[test]
fn crates_use_only_lower_layers_and_only_those_listed() {
    let members = members();
    let mut faults = Vec::new();
    for (name, member) in &members {
        let Some(layer) = member.layer else { continue };
        for used in &member.uses {
            match members[used].layer {
                None => faults.push(format!("{name} uses the development crate {used}; move it to [dev-dependencies]")),
                Some(lower) if lower >= layer => faults.push(format!(
                    "{name} (layer {layer}) uses {used} (layer {lower}); pass data down instead, or move the code to a lower crate"
                )),
                Some(_) if !member.may_use.contains(used) => faults.push(format!(
                    "{name} uses {used}, which its may-use does not list; if the edge is right, change ARCHITECTURE.md and may-use in one commit"
                )),
                Some(_) => {}
            }
        }
        for listed in &member.may_use {
            let lower = members.get(listed).and_then(|other| other.layer);
            if lower.is_none_or(|lower| lower >= layer) {
                faults.push(format!("{name}: may-use lists {listed}, which is no crate of a lower layer"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_crate_takes_the_workspace_lints_and_forbids_unsafe() {
    for (name, member) in members() {
        let manifest = std::fs::read_to_string(member.directory.join("Cargo.toml")).expect("manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "crate {name}: add `[lints] workspace = true` to its Cargo.toml");
        let library = member.directory.join("src/lib.rs");
        if name != "sys" && library.exists() {
            let text = std::fs::read_to_string(library).expect("lib.rs");
            assert!(
                text.contains("#![forbid(unsafe_code)]"),
                "crate {name}: put #![forbid(unsafe_code)] into lib.rs; unsafe stands in sys alone"
            );
        }
    }
}

fn tracked(extension: &str) -> Vec<PathBuf> {
    let listed = run("git", &["ls-files", "--cached", "--others", "--exclude-standard"]);
    listed.lines().filter(|line| line.ends_with(extension)).map(|line| root().join(line)).filter(|path| path.is_file()).collect()
}

#[test]
fn every_module_starts_with_its_documentation() {
    let missing: Vec<_> = tracked(".rs")
        .into_iter()
        .filter(|path| {
            let text = std::fs::read_to_string(path).expect("source");
            let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
            !first.is_some_and(|line| line.starts_with("//!"))
        })
        .collect();
    assert!(missing.is_empty(), "start these files with `//!`: what it is, what it is not: {missing:#?}");
}

#[test]
fn nothing_large_is_committed() {
    let large: Vec<_> = tracked("").into_iter().filter(|path| path.metadata().expect("metadata").len() > 600_000).collect();
    assert!(large.is_empty(), "generate these when they are needed instead of committing them: {large:#?}");
}

#[test]
fn files_and_functions_stay_small() {
    let mut faults = Vec::new();
    for path in tracked(".rs") {
        let text = std::fs::read_to_string(&path).expect("source");
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//")).count();
        let is_table = text.lines().take(12).any(|line| line.contains("This file is a table"));
        if lines > 900 && !is_table {
            faults.push(format!("{}: {lines} code lines; ask which two things it is", path.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn licences_are_on_the_list() {
    let metadata = metadata();
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let licence = package["license"].as_str().unwrap_or("(none)").replace('/', " OR ");
        let allowed =
            licence.replace(['(', ')'], "").split(" AND ").all(|part| part.split(" OR ").any(|one| LICENCES.contains(&one.trim())));
        if !allowed {
            faults.push(format!("{} {}: {licence}", package["name"], package["version"]));
        }
    }
    assert!(faults.is_empty(), "choose other crates, or say in ARCHITECTURE.md why the licence is acceptable:\n{}", faults.join("\n"));
}

#[test]
fn no_dependency_is_linked_twice() {
    let tree = run(env!("CARGO"), &["tree", "--locked", "-p", "sampan", "-e", "normal", "--prefix", "none", "--no-dedupe"]);
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            versions.entry(name).or_default().insert(version);
        }
    }
    let known: BTreeSet<_> = KNOWN_DUPLICATES.iter().map(|(name, _)| *name).collect();
    let twice: Vec<_> = versions.iter().filter(|(name, set)| set.len() > 1 && !known.contains(*name)).collect();
    assert!(twice.is_empty(), "align the versions, or list the crate in KNOWN_DUPLICATES with the reason: {twice:#?}");
}
