//! `cargo xtask interop conformance`: the specification's own conformance suites on our registry, and beside it on other people's.
//!
//! Each registry starts with nothing in it, once for each suite; suites and registries share one world. The result is
//! `docs/interop/conformance.md`: counts for each group of tests, from this very run, and the name of every test that failed.
//! Fails when a test fails on ours; what others fail is only written down.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use sampan_testkit::{images, setup};

use super::junit::{self, Status, Test};
use super::suites::{self, SUITES, Suite};
use super::{Interop, cell};
use crate::rig::{self, Registry, Rig, USER};

/// A registry, and how it is spoken to.
struct Place {
    title: &'static str,
    registry: Registry,
    ours: bool,
    /// Lines of shell that come before a suite; `@DATA@` is the registry's folder.
    more: &'static str,
}

/// The older suite asks for mounts without a source only if told; a token finds nothing outside of the repositories it names.
const MOUNTS: &str = "export OCI_AUTOMATIC_CROSSMOUNT=1";
const TRUST: &str = "export SSL_CERT_FILE=@DATA@/tls/ca.crt";

fn places() -> Vec<Place> {
    vec![
        Place { title: "sampan, tokens", registry: Registry::OursForSuites { users: true, tls: false }, ours: true, more: "" },
        Place { title: "sampan, tokens, TLS", registry: Registry::OursForSuites { users: true, tls: true }, ours: true, more: TRUST },
        Place { title: "sampan, anonymous", registry: Registry::OursForSuites { users: false, tls: false }, ours: true, more: MOUNTS },
        Place { title: "distribution 3.1", registry: Registry::Distribution, ours: false, more: "" },
        Place { title: "docker-registry 2.8", registry: Registry::Debian, ours: false, more: "" },
    ]
}

/// The tests of one suite on one registry.
type Results = anyhow::Result<Vec<Test>>;

/// Runs both suites everywhere; fails when ours does.
pub(crate) fn conformance(arguments: &Interop) -> anyhow::Result<()> {
    let programs = suites::programs()?;
    let rig = Rig::new(2000);
    let places: Vec<Place> = places().into_iter().filter(|place| wanted(arguments, place.title)).collect();
    let mut report = heading(&rig);
    let mut failures = Vec::new();
    for (suite, program) in SUITES.iter().zip(&programs) {
        let mut all = Vec::new();
        for place in &places {
            let results = run(&rig, suite, program, place);
            let trouble = trouble(suite, &results);
            eprintln!("{} {} on {}: {}", if trouble.is_none() { "pass" } else { "FAIL" }, suite.name, place.title, counts(&results));
            failures.extend(trouble.filter(|_| place.ours).map(|why| format!("{} on {}: {why}", suite.name, place.title)));
            all.push(results);
        }
        report.push_str(&section(suite, &places, &all));
    }
    println!("{report}");
    if arguments.only.is_none() {
        let page = arguments.report.clone().unwrap_or_else(|| setup::root().join("docs/interop/conformance.md"));
        images::write(&page, report.as_bytes())?;
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

fn wanted(arguments: &Interop, title: &str) -> bool {
    arguments.only.as_ref().is_none_or(|only| title.contains(only.as_str()))
}

/// One suite on a new registry.
fn run(rig: &Rig, suite: &Suite, program: &Path, place: &Place) -> Results {
    let server = rig.registry(&place.registry)?;
    let (users, tls) = match place.registry {
        Registry::OursForSuites { users, tls } => (users, tls),
        _ => (false, false),
    };
    let folder = rig.work().join(format!("conformance-{}", server.address.replace(':', "-")));
    std::fs::create_dir_all(folder.join("results"))?;
    let mut script = format!("cd '{}'\n{}\n{}\n", folder.display(), suite.environment, place.more);
    for (word, value) in [("@HOST@", server.address.as_str()), ("@SCHEME@", if tls { "https" } else { "http" }), ("@DATA@", server.data())]
    {
        script = script.replace(word, value);
    }
    if users {
        writeln!(script, "export OCI_USERNAME='{}' OCI_PASSWORD='{}'", USER.0, USER.1)?;
    }
    writeln!(script, "timeout 900 '{}' >output 2>&1", program.display())?;
    let output = rig.sh(&script);
    let printed = || std::fs::read_to_string(folder.join("output")).unwrap_or_default();
    let xml = std::fs::read_to_string(folder.join("results/junit.xml"));
    let xml = xml.with_context(|| format!("no report came (exit code {}): {}", output.code, printed().trim()))?;
    rig.discard(server);
    Ok(junit::tests(&xml).into_iter().filter(|test| test.name.starts_with(suite.prefix)).collect())
}

fn count(tests: &[&Test], status: Status) -> usize {
    tests.iter().filter(|test| test.status == status).count()
}

/// Why a run is no success.
fn trouble(suite: &Suite, results: &Results) -> Option<String> {
    let tests = match results {
        Ok(tests) => tests,
        Err(error) => return Some(format!("{error:#}")),
    };
    let failed: Vec<String> =
        tests.iter().filter(|test| test.status == Status::Failed).map(|test| format!("{}: {}", test.name, test.why)).collect();
    if !failed.is_empty() {
        return Some(format!("{} of {} tests failed:\n  {}", failed.len(), tests.len(), failed.join("\n  ")));
    }
    let passed = count(&tests.iter().collect::<Vec<_>>(), Status::Passed);
    (passed < suite.least).then(|| format!("only {passed} tests ran"))
}

/// Counts in words, for a table.
fn counts(results: &Results) -> String {
    results.as_ref().map_or_else(|error| format!("**not run**: {error:#}"), |tests| words(&tests.iter().collect::<Vec<_>>()))
}

fn words(tests: &[&Test]) -> String {
    let mut parts = vec![count(tests, Status::Passed).to_string()];
    match count(tests, Status::Failed) {
        0 => {}
        failed => parts.push(format!("**{failed} failed**")),
    }
    match count(tests, Status::Skipped) {
        0 => {}
        skipped => parts.push(format!("{skipped} skipped")),
    }
    parts.join(", ")
}

/// The part of a test's name that a line of the table stands for.
fn group(suite: &Suite, name: &str) -> String {
    let rest = name.strip_prefix(suite.prefix).unwrap_or(name);
    // The older suite's names are words: the workflow, and for two of them a second one.
    if suite.prefix.ends_with('/') {
        return rest.split('/').next().unwrap_or_default().to_owned();
    }
    let words = if rest.starts_with("Content") { 2 } else { 1 };
    rest.split(' ').take(words).collect::<Vec<_>>().join(" ")
}

fn heading(rig: &Rig) -> String {
    let date = rig.sh("date -u +%Y-%m-%d").stdout;
    let versions = rig::peer_versions();
    let version = |wanted: &str| versions.iter().find(|(name, _)| name == wanted).map_or("not installed", |(_, version)| version);
    let mut text = format!(
        "# Registry: conformance with the distribution specification\n\nWritten by `cargo xtask interop conformance` on {}. Cells are numbers \
         of tests that passed. The suites are the specification's own, from its Go module, with every switch on (the newer one: version \
         `dev` and manifests with parts that are missing). Each registry begins empty, in one network namespace with the suite. Ours runs \
         with `--allow-missing-blobs`: without it, as delivered, it refuses images whose layers it does not have, which the \
         specification leaves to the registry. `anonymous` is plain HTTP with `--anonymous delete`, `tokens` a user with a password, who \
         gets tokens.\n\n| program | version |\n|---|---|\n",
        date.trim()
    );
    for (program, version) in [
        ("sampan", rig::our_version()),
        ("distribution 3.1", version("registry3").to_owned()),
        ("docker-registry 2.8", version("registry2").to_owned()),
    ] {
        text.push_str(&format!("| {program} | {version} |\n"));
    }
    text
}

/// A suite's table, and the tests that did not pass.
fn section(suite: &Suite, places: &[Place], all: &[Results]) -> String {
    let mut groups: Vec<String> = Vec::new();
    let mut cells: HashMap<(String, usize), Vec<&Test>> = HashMap::new();
    for (column, results) in all.iter().enumerate() {
        for test in results.iter().flatten() {
            let group = group(suite, &test.name);
            if !groups.contains(&group) {
                groups.push(group.clone());
            }
            cells.entry((group, column)).or_default().push(test);
        }
    }
    let titles: Vec<&str> = places.iter().map(|place| place.title).collect();
    let mut text = format!("\n## Suite {} ({})\n\n| tests | {} |\n|---|", suite.name, suite.version, titles.join(" | "));
    text.push_str(&"---|".repeat(titles.len()));
    let totals: Vec<String> = all.iter().map(|results| cell(&counts(results))).collect();
    text.push_str(&format!("\n| **all** | {} |\n", totals.join(" | ")));
    for group in &groups {
        let line = (0..all.len()).map(|column| cells.get(&(group.clone(), column)).map_or_else(|| "–".to_owned(), |tests| words(tests)));
        text.push_str(&format!("| {} | {} |\n", cell(group), line.collect::<Vec<_>>().join(" | ")));
    }
    for (place, results) in places.iter().zip(all) {
        for (status, title) in [(Status::Failed, "failed"), (Status::Skipped, "skipped")] {
            let names = names(suite, results, status, place.ours);
            if !names.is_empty() && (place.ours || status == Status::Failed) {
                text.push_str(&format!("\n### {}: {title}\n\n{names}", place.title));
            }
        }
    }
    text
}

/// A line for each name of a test that went so, with the reason or, shorter, with how often the name was there.
fn names(suite: &Suite, results: &Results, status: Status, reasons: bool) -> String {
    let mut lines: Vec<(String, usize)> = Vec::new();
    for test in results.iter().flatten().filter(|test| test.status == status) {
        let name = cell(test.name.strip_prefix(suite.prefix).unwrap_or(&test.name));
        let line = if reasons && !test.why.is_empty() { format!("{name}: {}", cell(&test.why)) } else { name };
        match lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, count)) => *count += 1,
            None => lines.push((line, 1)),
        }
    }
    let times = |count: usize| if count == 1 { String::new() } else { format!(" ({count} times)") };
    lines.into_iter().map(|(line, count)| format!("- {line}{}\n", times(count))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, status: Status) -> Test {
        Test { name: name.to_owned(), status, why: "x | y".to_owned() }
    }

    #[test]
    fn tests_are_counted_in_groups() {
        let (old, new) = (&SUITES[0], &SUITES[1]);
        assert_eq!(group(old, "[It] OCI Distribution Conformance Tests Content Discovery Setup x"), "Content Discovery");
        assert_eq!(group(old, "[It] OCI Distribution Conformance Tests Pull Setup x"), "Pull");
        assert_eq!(group(new, "OCI Conformance Test/blobs sha256/a/b"), "blobs sha256");
        let places = vec![places().remove(0)];
        let tests = vec![test("OCI Conformance Test/a/b", Status::Passed), test("OCI Conformance Test/a/c", Status::Failed)];
        assert_eq!(trouble(new, &Ok(tests.clone())).unwrap().lines().count(), 2);
        let text = section(new, &places, &[Ok(tests)]);
        assert!(text.contains("| a | 1, **1 failed** |\n") && text.contains("- a/c: x \\| y\n"), "{text}");
        assert!(trouble(new, &Ok(vec![test("a", Status::Passed)])).unwrap().contains("only 1"), "a suite that did not run");
    }
}
