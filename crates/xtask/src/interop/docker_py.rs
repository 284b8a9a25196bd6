//! `cargo xtask interop docker-py`: the integration tests of docker-py, Docker's own Python library, on our engine.
//!
//! The library is the newest of PyPI; its tests are those of the last source archive that carries them. Both are fetched into
//! `target/docker-py` once (remove the folder to fetch anew). The engine runs in a world, with a registry of ours as its mirror
//! of Docker Hub, which has stand-ins for the images that the tests want. `docker_py.txt` says of each test that is known to fail
//! why; any other failure, and a known one that passes, fails the run. The result is `docs/interop/docker-py.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use sampan_testkit::{images, setup};
use serde::Deserialize;

use super::{Interop, hub, known};
use crate::rig::{self, Registry, Rig, Server};

/// The last version whose source archive has the tests.
const TESTS: &str = "6.1.3";
/// The library and what the tests themselves import.
const TOOLS: &[&str] = &["docker[websockets]", "pytest", "pytest-timeout", "paramiko"];
/// Tests of credential helpers of a desktop, which speak to no engine (and one of which empties the environment of all that follow).
const LEFT_OUT: &str = "--ignore=tests/integration/credentials";
/// The same outside and in a world.
const PYTHON: &str = "/usr/bin/python3";
/// Prints a line of JSON a test.
const PLUGIN: &str = include_str!("docker_py.py");
/// Test and reason.
const KNOWN: &str = include_str!("docker_py.txt");

/// What the plugin says of a test.
#[derive(Debug, Deserialize)]
struct Outcome {
    /// `tests/integration/FILE.py::CLASS::NAME`.
    test: String,
    /// `passed`, `failed` or `skipped`.
    outcome: String,
    /// The last line of the failure.
    message: String,
}

/// The tests of one file.
#[derive(Debug, Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Runs the tests; fails when others fail than those that are known to.
pub(super) fn run(arguments: &Interop) -> anyhow::Result<()> {
    let folder = install()?;
    let rig = Rig::new(4000);
    let registry = rig.registry(&Registry::Ours)?;
    let options = format!("--registry-mirror http://{}", registry.address);
    let engine = if arguments.docker { rig.docker_with(&[&rig.work()], &options)? } else { rig.engine_with(&options)? };
    hub::fill(&rig, &engine, &registry, &["busybox:latest", "alpine:3.10", "alpine:latest", "hello-world:latest"])?;
    hub::pull(&rig, &engine, &["busybox:latest", "alpine:3.10"])?;
    let outcomes = test(&rig, &engine, &folder, arguments.only.as_deref())?;
    let text = report(&outcomes, &version(&folder), &rig::our_version(), date(&rig).trim())?;
    println!("{text}");
    if arguments.docker || arguments.only.is_some() {
        return Ok(());
    }
    images::write(&arguments.report.clone().unwrap_or_else(|| setup::root().join("docs/interop/docker-py.md")), text.as_bytes())?;
    let surprises = surprises(&outcomes);
    ensure!(surprises.is_empty(), "not as crates/xtask/src/interop/docker_py.txt says:\n{}", surprises.join("\n"));
    Ok(())
}

/// The library in a folder of its own, and the tests beside it.
fn install() -> anyhow::Result<PathBuf> {
    let folder = setup::target().join("docker-py");
    if folder.join("stamp").is_file() {
        return Ok(folder);
    }
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(folder.join("tests-of"))?;
    let run = |command: &mut Command| {
        let output = command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        ensure!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let pip = |words: &[&str]| {
        let mut command = Command::new(PYTHON);
        command.args(["-m", "pip", "-q", "--disable-pip-version-check"]).args(words);
        command
    };
    run(pip(&["install", "--target"]).arg(folder.join("library")).args(TOOLS))?;
    run(pip(&["download", "--no-deps", "--no-binary", ":all:", &format!("docker=={TESTS}"), "-d"]).arg(&folder))?;
    // Only the tests: the library in the archive is an older one.
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(folder.join(format!("docker-{TESTS}.tar.gz"))).arg("-C").arg(folder.join("tests-of"));
    run(unpack.args(["--strip-components=1", &format!("docker-{TESTS}/tests")]))?;
    std::fs::write(folder.join("stamp"), "")?;
    Ok(folder)
}

fn version(folder: &Path) -> String {
    let script = "import docker, sys; print(docker.__version__, 'on Python', sys.version.split()[0])";
    let output = Command::new(PYTHON).args(["-c", script]).env("PYTHONPATH", folder.join("library")).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn date(rig: &Rig) -> String {
    rig.sh("date -u +%Y-%m-%d").stdout
}

/// Runs pytest in the world; what it says of each test.
fn test(rig: &Rig, engine: &Server, folder: &Path, only: Option<&str>) -> anyhow::Result<Vec<Outcome>> {
    let (plugins, lines) = (rig.work().join("plugins"), rig.work().join("outcomes"));
    images::write(&plugins.join("sampan_outcomes.py"), PLUGIN.as_bytes())?;
    let only = only.map_or_else(String::new, |only| format!("-k '{only}'"));
    let line = format!(
        "export DOCKER_HOST={} PYTHONPATH='{}:{}' PYTHONDONTWRITEBYTECODE=1 OUTCOMES='{}' TMPDIR=\"$PWD/tmp\"; mkdir -p tmp; cd '{}' && \
         {PYTHON} -m pytest -p sampan_outcomes -p no:cacheprovider --timeout=120 -q --tb=short -rxs {only} {LEFT_OUT} tests/integration",
        engine.address,
        plugins.display(),
        folder.join("library").display(),
        lines.display(),
        folder.join("tests-of").display(),
    );
    let output = rig.sh(&line);
    std::fs::write(folder.join("pytest.log"), format!("{}{}", output.stdout, output.stderr))?;
    std::fs::write(folder.join("engine.log"), engine.log())?;
    let text = std::fs::read_to_string(&lines).unwrap_or_default();
    let outcomes: Vec<Outcome> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(!outcomes.is_empty(), "no test ran:\n{}{}", output.stdout, output.stderr);
    Ok(outcomes)
}

/// What differs from what is written down.
fn surprises(outcomes: &[Outcome]) -> Vec<String> {
    let mut found = Vec::new();
    for outcome in outcomes {
        let name = name(&outcome.test);
        match (outcome.outcome.as_str(), known::reason(KNOWN, name)) {
            ("failed", None) => found.push(format!("{name} fails: {}", outcome.message)),
            ("passed", Some((false, _))) => found.push(format!("{name} passes")),
            _ => {}
        }
    }
    let ran = |pattern: &str| outcomes.iter().any(|outcome| known::fits(pattern, name(&outcome.test)));
    found.extend(known::all(KNOWN).filter(|(pattern, _)| !ran(pattern)).map(|(pattern, _)| format!("{pattern} is no test")));
    found
}

/// A test's name without the folder.
fn name(test: &str) -> &str {
    test.strip_prefix("tests/integration/").unwrap_or(test)
}

/// The page: versions, a line a file, the failing tests.
fn report(outcomes: &[Outcome], library: &str, engine: &str, date: &str) -> anyhow::Result<String> {
    let mut files: BTreeMap<&str, Counts> = BTreeMap::new();
    for outcome in outcomes {
        let file = name(&outcome.test).split("::").next().unwrap_or_default();
        let counts = files.entry(file).or_default();
        *match outcome.outcome.as_str() {
            "passed" => &mut counts.passed,
            "failed" => &mut counts.failed,
            _ => &mut counts.skipped,
        } += 1;
    }
    let sum = |part: fn(&Counts) -> usize| files.values().map(part).sum::<usize>();
    let (passed, failed, skipped) = (sum(|counts| counts.passed), sum(|counts| counts.failed), sum(|counts| counts.skipped));
    let mut text = format!(
        "# docker-py's integration tests on sampan\n\nWritten by `cargo xtask interop docker-py` on {date}: {passed} passed, {failed} failed, \
         {skipped} skipped.\nEngine: {engine}. Library: docker-py {library}, the newest of PyPI; tests: those of {TESTS}, the last source \
         archive that has them.\nImages are stand-ins, pulled through a mirror of Docker Hub in the engine's own network namespace, which \
         has no way out.\nThe tests of credential helpers (`credentials/`) are left out: they speak to no engine.\n\n| file | passed | failed | skipped |\n|---|---|---|---|\n"
    );
    for (file, counts) in &files {
        writeln!(text, "| {file} | {} | {} | {} |", counts.passed, counts.failed, counts.skipped)?;
    }
    text.push_str("\n## Failing tests\n\n| test | why |\n|---|---|\n");
    for outcome in outcomes.iter().filter(|outcome| outcome.outcome == "failed") {
        let name = name(&outcome.test);
        let reason =
            known::reason(KNOWN, name).map_or_else(|| format!("**not known**: {}", outcome.message), |(_, reason)| reason.to_owned());
        writeln!(text, "| {} | {} |", name, super::cell(&reason))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_their_form() {
        known::check(KNOWN);
        assert_eq!(known::reason(KNOWN, "api_service_test.py::ServiceTest::test_x"), Some((true, "not supported: swarm mode")));
    }

    #[test]
    fn surprises_are_told() {
        let outcome = |test: &str, outcome: &str| Outcome { test: test.into(), outcome: outcome.into(), message: "why".into() };
        let told = surprises(&[
            outcome("tests/integration/x.py::A::b", "failed"),
            outcome("tests/integration/api_container_test.py::LinkTest::test_remove_link", "passed"),
            outcome("tests/integration/api_swarm_test.py::SwarmTest::test_x", "passed"),
        ]);
        assert_eq!(told[..2], ["x.py::A::b fails: why", "api_container_test.py::LinkTest::test_remove_link passes"]);
        assert!(told[2..].iter().all(|line| line.ends_with(" is no test")), "{told:?}");
    }
}
