//! `cargo xtask interop docker-py`: the integration tests of docker-py, Docker's own Python library, on our engine.
//!
//! The library is the newest of PyPI; its tests are those of the last source archive that carries them. Both are fetched into
//! `target/docker-py` once (remove the folder to fetch anew). The engine runs in a world, with a registry of ours as its mirror
//! of Docker Hub, which has stand-ins for the images that the tests want. `docker_py.txt` says of each test that is known to fail
//! why; any other failure, and a known one that passes, fails the run. The result is `docs/interop/docker-py.md`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use sampan_testkit::{images, setup};

use super::outcomes::{Outcome, Tests, program};
use super::{Interop, hub};
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
const OURS: Tests = Tests {
    name: "docker-py",
    title: "docker-py's integration tests on sampan",
    group: "file",
    known: include_str!("docker_py.txt"),
    known_file: "docker_py.txt",
};

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
    let about = format!(
        "Engine: {}. Library: docker-py {}, the newest of PyPI; tests: those of {TESTS}, the last source archive that has them.\nImages are \
         stand-ins, pulled through a mirror of Docker Hub in the engine's own network namespace, which has no way out.\nThe tests of \
         credential helpers (`credentials/`) are left out: they speak to no engine.",
        rig::our_version(),
        version(&folder)
    );
    OURS.conclude(arguments, &outcomes, date(&rig).trim(), &about)
}

/// The library in a folder of its own, and the tests beside it.
fn install() -> anyhow::Result<PathBuf> {
    let folder = setup::target().join("docker-py");
    if folder.join("stamp").is_file() {
        return Ok(folder);
    }
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(folder.join("tests-of"))?;
    let pip = |words: &[&str]| {
        let mut command = Command::new(PYTHON);
        command.args(["-m", "pip", "-q", "--disable-pip-version-check"]).args(words);
        command
    };
    program(pip(&["install", "--target"]).arg(folder.join("library")).args(TOOLS))?;
    program(pip(&["download", "--no-deps", "--no-binary", ":all:", &format!("docker=={TESTS}"), "-d"]).arg(&folder))?;
    // Only the tests: the library in the archive is an older one.
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(folder.join(format!("docker-{TESTS}.tar.gz"))).arg("-C").arg(folder.join("tests-of"));
    program(unpack.args(["--strip-components=1", &format!("docker-{TESTS}/tests")]))?;
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
    let mut outcomes: Vec<Outcome> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for outcome in &mut outcomes {
        if let Some(name) = outcome.test.strip_prefix("tests/integration/") {
            outcome.test = name.to_owned();
        }
    }
    ensure!(!outcomes.is_empty(), "no test ran:\n{}{}", output.stdout, output.stderr);
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;

    #[test]
    fn reasons_have_their_form() {
        outcomes::check(OURS.known);
    }
}
