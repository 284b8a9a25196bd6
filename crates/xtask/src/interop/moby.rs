//! `cargo xtask interop moby`: the integration suites of moby, the original's own source, on our engine.
//!
//! The source is a Go module; it is fetched and its suites are compiled into `target/moby` once (remove the folder to do so anew).
//! Suites run one after the other in worlds with an engine of ours, as on a remote engine, without the tests that start a dockerd of
//! their own. Images are stand-ins of the names that the suites want. `moby.txt` says of each test that is known to fail why;
//! any other failure, and a known one that passes, fails the run. The result is `docs/interop/moby.md`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use sampan_testkit::setup;

use super::outcomes::{Outcome, Status, Tests, program};
use super::{Interop, hub};
use crate::rig::{self, Registry, Rig, Server};

const MODULE: &str = "github.com/docker/docker";
const VERSION: &str = "v28.5.2+incompatible";
/// Folders below `integration`. Those of swarm, plugins, secrets and the daemon's own start are not for an engine without them.
const SUITES: &[&str] = &["build", "container", "image", "session", "system", "volume"];
/// What is in the engine before.
const IMAGES: &[&str] = &["busybox:latest", "busybox:glibc", "debian:bookworm-slim", "hello-world:latest"];
const TESTS: Tests = Tests {
    name: "moby",
    title: "moby's integration suites on sampan",
    group: "suite",
    known: include_str!("moby.txt"),
    known_file: "moby.txt",
};

/// Runs the suites; fails when other tests fail than those that are known to.
pub(super) fn run(arguments: &Interop) -> anyhow::Result<()> {
    let folder = install()?;
    let mut outcomes = Vec::new();
    let mut date = String::new();
    for suite in SUITES {
        // Each in a world of its own: what one leaves behind is not the next one's.
        let rig = Rig::new(4000);
        let registry = rig.registry(&Registry::Ours)?;
        let options = format!("--registry-mirror http://{}", registry.address);
        let engine = if arguments.docker { rig.docker_with(&[&rig.work()], &options)? } else { rig.engine_with(&options)? };
        hub::fill(&rig, &engine, &registry, IMAGES)?;
        hub::pull(&rig, &engine, IMAGES)?;
        for tag in ["frozen", "amd64", "arm64"] {
            let _told = rig.ok(&format!("sampan -H {} tag hello-world:latest hello-world:{tag}", engine.address))?;
        }
        let found = test(&rig, &engine, &folder, suite, arguments.only.as_deref())?;
        let count = |status| found.iter().filter(|outcome| outcome.status == status).count();
        eprintln!("{suite}: {} passed, {} failed, {} skipped", count(Status::Passed), count(Status::Failed), count(Status::Skipped));
        outcomes.extend(found);
        date = rig.sh("date -u +%Y-%m-%d").stdout.trim().to_owned();
    }
    let about = format!(
        "Engine: {}. Suites: {MODULE} {VERSION}, compiled from the Go module, run as on a remote engine, without the tests that start a \
         dockerd of their own.\nImages are stand-ins; the network namespace has no way out. Left out: config, daemon, network, networking, \
         plugin, secret and service, which are for swarm mode, managed plugins, networks of one's own and dockerd's own start.",
        rig::our_version()
    );
    TESTS.conclude(arguments, &outcomes, &date, &about)
}

/// The source as a module of its own, and a program for each suite.
fn install() -> anyhow::Result<PathBuf> {
    let folder = setup::target().join("moby");
    if folder.join("stamp").is_file() {
        return Ok(folder);
    }
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(folder.join("bin"))?;
    let printed = program(Command::new("go").args(["mod", "download", "-json", &format!("{MODULE}@{VERSION}")]).current_dir(&folder))?;
    let printed: serde_json::Value = serde_json::from_slice(&printed)?;
    let source = folder.join("source");
    program(Command::new("cp").args(["-r", "--no-preserve=mode", printed["Dir"].as_str().context("a folder")?]).arg(&source))?;
    // Its module file has another name, and of its vendored packages only the list is there.
    for kind in ["mod", "sum"] {
        std::fs::rename(source.join(format!("vendor.{kind}")), source.join(format!("go.{kind}")))?;
    }
    std::fs::remove_dir_all(source.join("vendor"))?;
    for suite in SUITES {
        let mut build = Command::new("go");
        build.args(["test", "-mod=mod", "-c", "-o"]).arg(folder.join("bin").join(suite)).arg(format!("./integration/{suite}"));
        program(build.current_dir(&source))?;
    }
    std::fs::write(folder.join("stamp"), "")?;
    Ok(folder)
}

/// Runs one suite in the world.
fn test(rig: &Rig, engine: &Server, folder: &Path, suite: &str, only: Option<&str>) -> anyhow::Result<Vec<Outcome>> {
    let only = only.map_or_else(String::new, |only| format!("-test.run '{only}'"));
    let left_out = own_daemons(&folder.join("source/integration").join(suite))?;
    let skip = if left_out.is_empty() { String::new() } else { format!("-test.skip '^({})$'", left_out.join("|")) };
    let line = format!(
        "export DOCKER_HOST={} DOCKER_REMOTE_DAEMON=1 TMPDIR=\"$PWD/tmp\"; mkdir -p tmp; cd '{}/source/integration/{suite}' && \
         '{}/bin/{suite}' -test.v -test.timeout 15m {only} {skip} 2>&1",
        engine.address,
        folder.display(),
        folder.display(),
    );
    let output = rig.sh(&line).stdout;
    std::fs::write(folder.join(format!("{suite}.log")), &output)?;
    std::fs::write(folder.join(format!("{suite}.engine.log")), engine.log())?;
    let outcomes = read(suite, &output);
    // A panic ends all tests that were to come.
    ensure!(output.lines().any(|line| line == "PASS" || line == "FAIL"), "the suite {suite} ended early:\n{}", tail(&output));
    Ok(outcomes)
}

/// The tests of a suite that start a dockerd: without the program they end the whole suite.
fn own_daemons(suite: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(suite)?.flatten() {
        let text = if entry.path().is_file() { std::fs::read_to_string(entry.path()).unwrap_or_default() } else { String::new() };
        found.extend(starters(&text).map(str::to_owned));
    }
    found.sort();
    Ok(found)
}

/// The tests of a source file that make a daemon.
fn starters(text: &str) -> impl Iterator<Item = &str> {
    let functions = text.split("\nfunc ").skip(1).filter(|function| function.starts_with("Test") && function.contains("daemon.New("));
    functions.filter_map(|function| function.split('(').next())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// What Go's `-test.v` prints: `=== RUN`, `=== CONT`, `=== NAME` before what a test says, `--- PASS: NAME (0.00s)` at its end.
fn read(suite: &str, output: &str) -> Vec<Outcome> {
    let (mut said, mut present): (HashMap<String, String>, String) = Default::default();
    let mut outcomes = Vec::new();
    for line in output.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["===", _, name, ..] => name.clone_into(&mut present),
            ["---", status, name, ..] if status.ends_with(':') => {
                let status = match status {
                    "PASS:" => Status::Passed,
                    "FAIL:" => Status::Failed,
                    _ => Status::Skipped,
                };
                outcomes.push((name.to_owned(), status));
            }
            [place, ..] if place.contains(".go:") => {
                let text = line.trim().split_once(": ").map_or(line, |(_, text)| text);
                // The first complaint is the cause.
                let known = said.entry(present.clone()).or_default();
                if known.is_empty() || !known.contains("assertion failed") {
                    text.clone_into(known);
                }
            }
            _ => {}
        }
    }
    let has_inner = |name: &str| outcomes.iter().any(|(other, _)| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')));
    let leaves = outcomes.iter().filter(|(name, status)| {
        // One that failed itself, after the tests inside it passed.
        let inner_failed = || outcomes.iter().any(|(other, status)| *status == Status::Failed && other.starts_with(&format!("{name}/")));
        !has_inner(name) || (*status == Status::Failed && !inner_failed())
    });
    leaves
        .map(|(name, status)| Outcome {
            test: format!("{suite}::{name}"),
            status: *status,
            message: said.get(name).cloned().unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;

    #[test]
    fn reasons_have_their_form() {
        outcomes::check(TESTS.known);
    }

    #[test]
    fn what_go_prints_is_read() {
        let output = "INFO: Testing\n=== RUN   TestOne\n    one_test.go:12: assertion failed: 1 != 2\n    one_test.go:13: more\n--- FAIL: TestOne (0.10s)\n\
                      === RUN   TestTwo\n=== RUN   TestTwo/a\n=== RUN   TestTwo/b_c\n    two_test.go:1: why not\n--- FAIL: TestTwo (0.00s)\n    \
                      --- PASS: TestTwo/a (0.00s)\n    --- SKIP: TestTwo/b_c (0.00s)\n=== RUN   TestThree\n=== RUN   TestThree/in\n\
                      --- PASS: TestThree (0.00s)\n    --- PASS: TestThree/in (0.00s)\nFAIL\n";
        let told: Vec<(String, Status, String)> =
            read("s", output).into_iter().map(|outcome| (outcome.test, outcome.status, outcome.message)).collect();
        let line = |test: &str, status, message: &str| (format!("s::{test}"), status, message.to_owned());
        assert_eq!(
            told,
            [
                line("TestOne", Status::Failed, "assertion failed: 1 != 2"),
                line("TestTwo", Status::Failed, ""),
                line("TestTwo/a", Status::Passed, ""),
                line("TestTwo/b_c", Status::Skipped, "why not"),
                line("TestThree/in", Status::Passed, ""),
            ]
        );
    }

    #[test]
    fn tests_that_start_a_daemon_are_found() {
        let source = "package x\n\nfunc TestA(t *testing.T) {\n\td := daemon.New(t)\n}\n\nfunc TestB(t *testing.T) {\n}\n\nfunc help() { daemon.New(t) }\n";
        assert_eq!(starters(source).collect::<Vec<_>>(), ["TestA"]);
    }
}
