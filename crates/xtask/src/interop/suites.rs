//! The conformance suites of the distribution specification: fetched as a Go module, compiled below `target/conformance`, kept there.
//!
//! Nothing of them is in the repository. One program a suite, named by its version, so that only a new version is built again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use sampan_testkit::setup;
use serde_json::Value;

const MODULE: &str = "github.com/opencontainers/distribution-spec/conformance";

/// A version of the module.
#[derive(Debug)]
pub(crate) struct Suite {
    /// For headings and folders.
    pub(crate) name: &'static str,
    /// The pseudo-version of the module.
    pub(crate) version: &'static str,
    /// The arguments of `go` that compile it, before `-o`.
    compile: &'static [&'static str],
    /// The lines that say what it tests, in a shell; `@HOST@` and `@SCHEME@` are replaced.
    pub(crate) environment: &'static str,
    /// How the names of its tests begin.
    pub(crate) prefix: &'static str,
    /// At least so many tests pass on a registry that works: a suite that did not run is no success.
    pub(crate) least: usize,
}

/// Both.
pub(crate) const SUITES: [Suite; 2] = [
    Suite {
        name: "v1.1",
        version: "v0.0.0-20231101194043-f2182352d4cc",
        compile: &["test", "-c"],
        environment: "export OCI_ROOT_URL=@SCHEME@://@HOST@ OCI_NAMESPACE=conformance/old OCI_CROSSMOUNT_NAMESPACE=conformance/mounted
export OCI_TEST_PULL=1 OCI_TEST_PUSH=1 OCI_TEST_CONTENT_DISCOVERY=1 OCI_TEST_CONTENT_MANAGEMENT=1
export OCI_HIDE_SKIPPED_WORKFLOWS=0 OCI_DELETE_MANIFEST_BEFORE_BLOBS=1 OCI_REPORT_DIR=$PWD/results",
        prefix: "[It] OCI Distribution Conformance Tests ",
        least: 50,
    },
    Suite {
        name: "v1.2-dev",
        version: "v0.0.0-20260831232431-97274622c111",
        compile: &["build"],
        environment: "export OCI_REGISTRY=@HOST@ OCI_REPO1=conformance/repo1 OCI_REPO2=conformance/repo2 OCI_RESULTS_DIR=$PWD/results
case @SCHEME@ in http) export OCI_TLS=disabled ;; *) export OCI_TLS=enabled ;; esac
export OCI_VERSION=dev OCI_DATA_SPARSE=true",
        prefix: "OCI Conformance Test/",
        least: 500,
    },
];

impl Suite {
    fn program(&self) -> PathBuf {
        folder().join(format!("{}-{}", self.name, self.version))
    }
}

fn folder() -> PathBuf {
    setup::target().join("conformance")
}

/// The compiled suites, in the order of [`SUITES`].
pub(crate) fn programs() -> anyhow::Result<Vec<PathBuf>> {
    if SUITES.iter().any(|suite| !suite.program().is_file()) {
        std::fs::create_dir_all(folder())?;
        let scratch = tempfile::tempdir_in(folder())?;
        for suite in SUITES.iter().filter(|suite| !suite.program().is_file()) {
            compile(suite, scratch.path())?;
        }
    }
    Ok(SUITES.iter().map(Suite::program).collect())
}

fn compile(suite: &Suite, scratch: &Path) -> anyhow::Result<()> {
    let module = format!("{MODULE}@{}", suite.version);
    let downloaded = go(scratch, &["mod", "download", "-json", &module], scratch)
        .with_context(|| format!("the Go module {module} cannot be fetched: the conformance suites need Go and its module proxy"))?;
    let facts: Value = serde_json::from_str(&downloaded)?;
    let source = facts["Dir"].as_str().context("`go mod download` names no folder")?;
    let new = scratch.join(suite.name);
    let arguments: Vec<&str> = suite.compile.iter().copied().chain(["-o", new.to_str().context("a path in UTF-8")?, "."]).collect();
    go(scratch, &arguments, Path::new(source)).with_context(|| format!("the Go module {module} does not compile"))?;
    Ok(std::fs::rename(new, suite.program())?)
}

/// Runs `go` with caches of its own; gives its standard output.
fn go(scratch: &Path, arguments: &[&str], place: &Path) -> anyhow::Result<String> {
    let mut command = Command::new("go");
    command.args(arguments).current_dir(place).env("GOMODCACHE", scratch.join("modules")).env("GOCACHE", scratch.join("cache"));
    command.env("GOFLAGS", "-modcacherw -buildvcs=false").env("GOWORK", "off").env("CGO_ENABLED", "0");
    let output = command.output().context("cannot start go")?;
    let told = [&output.stderr[..], &output.stdout[..]].concat();
    ensure!(output.status.success(), "go {}: {}", arguments.join(" "), String::from_utf8_lossy(&told).trim());
    Ok(String::from_utf8(output.stdout)?)
}
