//! `cargo xtask interop registry`: other people's clients on our registry, and our client on other people's registries.
//!
//! Each case is a shell script of a few lines in `registry.txt` (any client, the registry under test) or `client.txt` (ours, a
//! peer's registry), headed by `## who: what`. All run in one world; what they need beforehand is `prelude.sh`. The result is
//! `docs/interop/registry.md`: one line a case, from this very run. A client that is not installed is a line too, and no success.
//! Other runs are in the modules of their names: `conformance`, `docker_py`, `moby`.

mod conformance;
mod docker_py;
mod hub;
mod junit;
mod moby;
mod outcomes;
mod suites;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use sampan_testkit::{images, setup};

use crate::rig::{self, Registry, Rig, Server, USER};

const PRELUDE: &str = include_str!("prelude.sh");
const REGISTRY: &str = include_str!("registry.txt");
const CLIENT: &str = include_str!("client.txt");

/// What runs against what.
#[derive(Debug, clap::Args)]
pub(crate) struct Interop {
    /// Where the report goes instead of docs/interop/WHAT.md.
    #[arg(long)]
    report: Option<std::path::PathBuf>,
    /// `registry`, `conformance`, `docker-py` or `moby`.
    what: String,
    /// docker-py, moby: run the tests on the real Docker for comparison; nothing is written.
    #[arg(long)]
    docker: bool,
    /// The registry under test: a shell command that serves plain HTTP on `@LISTEN@` for everyone; `@DATA@` is a folder of its own.
    /// Without it: ours. `distribution` and `debian` name the peers' ones.
    #[arg(long)]
    command: Option<String>,
    /// The same with the user captain and the password `a long way to the sea`; without it cases of users fail on another's registry.
    #[arg(long)]
    users_command: Option<String>,
    /// Only cases (of conformance: registries; of docker-py: an expression for pytest's `-k`; of moby: for Go's `-run`) whose title contains this; the report
    /// is printed and not written.
    #[arg(long)]
    only: Option<String>,
}

/// One script.
#[derive(Debug, PartialEq, Eq)]
struct Case<'a> {
    title: &'a str,
    script: &'a str,
}

/// How it went.
#[derive(Debug)]
struct Outcome {
    section: String,
    title: String,
    error: Option<String>,
}

/// The servers that cases speak to.
struct Servers {
    docker: anyhow::Result<Server>,
    engine: anyhow::Result<Server>,
}

/// Runs what was asked for; fails when a case does.
pub(crate) fn interop(arguments: &Interop) -> anyhow::Result<()> {
    match arguments.what.as_str() {
        "registry" => registry(arguments),
        "conformance" => conformance::conformance(arguments),
        "docker-py" => docker_py::run(arguments),
        "moby" => moby::run(arguments),
        other => bail!("nothing of the name {other:?}; there are registry, conformance, docker-py and moby"),
    }
}

/// Other people's clients on our registry, our client on other people's.
fn registry(arguments: &Interop) -> anyhow::Result<()> {
    let rig = Rig::new(4000);
    images::write(&rig.work().join("box.tar"), &images::docker_archive(&setup::busybox(), "box:latest")?)?;
    let servers = Servers { docker: rig.docker(&[]), engine: rig.engine() };
    let kind = |line: &Option<String>, ours: Registry| match line.as_deref() {
        None => ours,
        Some("distribution") => Registry::Distribution,
        Some("debian") => Registry::Debian,
        Some(line) => Registry::Command(line.to_owned()),
    };
    let open = rig.registry(&kind(&arguments.command, Registry::Ours));
    let users = match (&arguments.command, &arguments.users_command) {
        (Some(_), None) => Err(anyhow::anyhow!("no registry with users was given")),
        (_, line) => rig.registry(&kind(line, Registry::OursWithUsers)),
    };
    let name = arguments.command.as_deref().unwrap_or("sampan");
    let mut outcomes = run(&rig, &servers, (&format!("Clients on the registry {name}"), REGISTRY), (&open, &users), arguments);
    for (title, kind) in [("distribution 3.1", Registry::Distribution), ("Debian's docker-registry", Registry::Debian)] {
        let peer = rig.registry(&kind);
        let none = Err(anyhow::anyhow!("no users here"));
        outcomes.extend(run(&rig, &servers, (&format!("Our client on {title}"), CLIENT), (&peer, &none), arguments));
    }
    let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
    let report = report(&rig, &outcomes, name);
    println!("{report}");
    if arguments.only.is_none() {
        let place = arguments.report.clone().unwrap_or_else(|| setup::root().join("docs/interop/registry.md"));
        images::write(&place, report.as_bytes())?;
    }
    ensure!(failed == 0, "{failed} of {} cases failed", outcomes.len());
    Ok(())
}

/// The cases of a file.
fn parse(text: &str) -> Vec<Case<'_>> {
    let parts = text.strip_prefix("## ").unwrap_or_default().split("\n## ");
    parts.filter_map(|part| part.split_once('\n')).map(|(title, script)| Case { title, script }).collect()
}

fn run(
    rig: &Rig,
    servers: &Servers,
    (section, text): (&str, &str),
    (open, users): (&anyhow::Result<Server>, &anyhow::Result<Server>),
    arguments: &Interop,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (number, case) in parse(text).into_iter().enumerate() {
        if arguments.only.as_ref().is_some_and(|wanted| !case.title.contains(wanted.as_str())) {
            continue;
        }
        let needed = [("R", open), ("U", users), ("DOCKER", &servers.docker), ("E", &servers.engine)];
        let error = one(rig, &format!("{number}-{}", outcomes_name(section)), &case, &needed).err().map(|error| format!("{error:#}"));
        eprintln!("{} {}: {}", if error.is_none() { "pass" } else { "FAIL" }, case.title, error.as_deref().unwrap_or(""));
        outcomes.push(Outcome { section: section.to_owned(), title: case.title.to_owned(), error });
    }
    outcomes
}

/// A section's name as a part of a folder's name.
fn outcomes_name(section: &str) -> String {
    section.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Runs a script. A server that is not there fails those cases only that name it.
fn one(rig: &Rig, name: &str, case: &Case<'_>, servers: &[(&str, &anyhow::Result<Server>)]) -> anyhow::Result<()> {
    let mut line = format!("export CASE='{name}' USER='{}' PASSWORD='{}'\n", USER.0, USER.1);
    for (variable, server) in servers {
        let address = match server {
            Ok(server) => &server.address,
            Err(error) if uses(case.script, variable) => bail!("{error:#}"),
            Err(_) => "127.0.0.1:1",
        };
        writeln!(line, "export {variable}='{address}'").context("a line of text")?;
    }
    let deleting = servers.iter().filter(|(variable, _)| ["U", "R"].contains(variable)).filter_map(|(_, server)| server.as_ref().ok());
    let deleting = deleting.reduce(|_, later| later).map_or("127.0.0.1:1", |server| server.address.as_str());
    writeln!(line, "export D='{deleting}'").context("a line of text")?;
    // A subshell of its own, as its `set -e` does not end what a test's condition calls.
    let output = rig.sh(&format!("{line}{PRELUDE}\n{}", case.script));
    if output.code == 0 {
        return Ok(());
    }
    let lines: Vec<&str> = output.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let told = lines[lines.len().saturating_sub(2)..].join(" / ");
    bail!("exit code {}: {}", output.code, if told.is_empty() { output.stdout.trim() } else { &told })
}

/// Whether a script speaks to a server, by its variable or by the client that has it inside.
fn uses(script: &str, variable: &str) -> bool {
    let words = |wanted: &str| script.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word == wanted);
    match variable {
        "DOCKER" => {
            script.lines().any(|line| line.split([';', '(']).any(|part| part.trim_start_matches(['!', ' ']).starts_with("docker ")))
        }
        "E" => words("ours"),
        "R" => script.contains("$R") || script.contains("ask ") || script.contains("authorize "),
        other => script.contains(&format!("${other}")),
    }
}

/// The page: date, versions, one line a case.
fn report(rig: &Rig, outcomes: &[Outcome], name: &str) -> String {
    let date = rig.sh("date -u +%Y-%m-%d").stdout;
    let passed = outcomes.iter().filter(|outcome| outcome.error.is_none()).count();
    let mut text = format!(
        "# Registry: who works with whom\n\nWritten by `cargo xtask interop registry` on {}: {passed} of {} cases pass. Registry under \
         test: `{name}`.\nEverything runs in one network namespace on plain HTTP; digests are compared with what the registry serves.\n\
         Cases that delete sign in as an administrator where the registry has users: on ours, pushing without a name does not include \
         deleting.\n\n",
        date.trim(),
        outcomes.len()
    );
    text.push_str("| program | version |\n|---|---|\n");
    let mut row = |program: &str, version: &str| {
        let shown = if version.trim().is_empty() { "not installed" } else { version.trim() };
        text.push_str(&format!("| {program} | {shown} |\n"));
    };
    row("sampan", &rig::our_version());
    for (program, version) in rig::peer_versions() {
        row(&program, &version);
    }
    let mut section = "";
    for outcome in outcomes {
        if outcome.section != section {
            section = &outcome.section;
            text.push_str(&format!("\n## {section}\n\n| case | result |\n|---|---|\n"));
        }
        let result = outcome.error.as_ref().map_or_else(|| "pass".to_owned(), |error| format!("**fail**: {}", cell(error)));
        text.push_str(&format!("| {} | {result} |\n", cell(&outcome.title)));
    }
    text
}

/// Text that keeps to its cell; the world's folder is another one in each run.
fn cell(text: &str) -> String {
    let worlds = setup::target().join("worlds");
    let text = text.replace(&*Path::new(&worlds).to_string_lossy(), "…");
    text.replace('|', "\\|").replace(['\n', '\r'], " ").chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_parsed() {
        let cases = parse("## a: one\nx\ny\n## b: two\nz\n");
        assert_eq!(cases, [Case { title: "a: one", script: "x\ny" }, Case { title: "b: two", script: "z\n" }]);
    }

    #[test]
    fn every_case_has_a_title_of_its_own() {
        for text in [REGISTRY, CLIENT] {
            let mut titles: Vec<&str> = parse(text).into_iter().map(|case| case.title).collect();
            let count = titles.len();
            assert!(count > 4, "{count} cases");
            titles.sort_unstable();
            titles.dedup();
            assert_eq!(titles.len(), count);
        }
    }

    #[test]
    fn servers_are_needed_where_they_are_named() {
        assert!(
            uses("x; docker pull a", "DOCKER") && uses("same \"$(docker run x)\"", "DOCKER") && !uses("skopeo copy docker://x", "DOCKER")
        );
        assert!(uses("ours pull $R/x", "E") && !uses("crane ls", "E"));
        assert!(uses("authorize x/y", "R") && uses("a $U/b", "U") && !uses("a $R/b", "U"));
    }
}
