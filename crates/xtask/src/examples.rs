//! `cargo xtask examples`: builds and asks every example on the real Docker, so that the examples and their surroundings are proven.
//!
//! Needs the peers' docker rig. The rig gets the index of packages for as long as this runs, and the stand-ins are loaded into it.
//! Sampan does the same in the tests of the whole program.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use sampan_testkit::{index, setup};

/// Each example with the images it begins from.
const ALL: &[(&str, &[&str])] = &[
    ("catalog", &["python:3.9-slim"]),
    ("prices", &["golang:1.19"]),
    ("static", &["alpine:3.14"]),
    ("cart", &["node:14"]),
    ("orders", &["maven:3.8-openjdk-17", "eclipse-temurin:17-jre"]),
];

/// Runs the smoke tests of the named examples, or of all.
pub(crate) fn examples(names: &[String]) -> anyhow::Result<()> {
    if let Some(name) = names.iter().find(|name| !ALL.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        anyhow::bail!("no example {name:?}; there are {}", known.join(", "));
    }
    let rig = Rig::find()?;
    let _index = rig.serve_packages()?;
    for (name, bases) in ALL.iter().filter(|(known, _)| names.is_empty() || names.iter().any(|name| name == known)) {
        for base in *bases {
            let archive = setup::base_image(base);
            ensure!(archive.is_file(), "{} is missing; run `cargo xtask base-images {base}`", archive.display());
            rig.run(&["docker", "load", "-q", "-i", &archive.display().to_string()])?;
        }
        rig.run(&[&setup::root().join("examples").join(name).join("smoke").display().to_string()])?;
    }
    Ok(())
}

/// The peers' docker rig: commands run in its network.
struct Rig {
    peers: PathBuf,
    environment: Vec<(String, String)>,
}

/// The index in the rig's network; the address goes with it.
struct Index<'a> {
    rig: &'a Rig,
    server: Child,
}

impl Rig {
    fn find() -> anyhow::Result<Self> {
        let peers = setup::peers().context("the peers are missing: set SAMPAN_PEERS")?.join("peers");
        let text = String::from_utf8(Command::new(&peers).args(["docker", "env"]).output()?.stdout)?;
        let words = text.lines().filter_map(|line| line.strip_prefix("export ")).flat_map(str::split_whitespace);
        let mut environment: Vec<(String, String)> =
            words.filter_map(|word| word.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        environment.retain(|(key, _)| key != "PATH");
        let docker = setup::docker_cli().context("the docker command line is missing")?;
        let bin = docker.parent().unwrap_or(Path::new("/"));
        environment.push(("PATH".to_owned(), format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", bin.display())));
        environment.push(("NPM_MIRROR".to_owned(), format!("http://{}/npm", index::ADDRESS)));
        Ok(Self { peers, environment })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.peers);
        command.args(["docker", "exec", "--"]).args(words).envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    fn run(&self, words: &[&str]) -> anyhow::Result<()> {
        ensure!(self.command(words).status()?.success(), "{} failed", words.join(" "));
        Ok(())
    }

    fn serve_packages(&self) -> anyhow::Result<Index<'_>> {
        self.run(&["ip", "address", "replace", &format!("{}/32", index::ADDRESS), "dev", "lo"])?;
        let tool = setup::tool("package-index").display().to_string();
        let mut command = self.command(&[&tool, &format!("{}:80", index::ADDRESS), &setup::packages().display().to_string()]);
        let mut server = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(server.stdout.take().context("piped")?).read_line(&mut line)?;
        let index = Index { rig: self, server };
        ensure!(line == "ready\n", "the index of packages does not start in the rig");
        Ok(index)
    }
}

impl Drop for Index<'_> {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
        drop(self.rig.run(&["ip", "address", "del", &format!("{}/32", index::ADDRESS), "dev", "lo"]));
    }
}
