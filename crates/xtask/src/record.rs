//! `cargo xtask record`: refreshes the recorded transcripts from the real Docker engine and its CLI.
//!
//! Needs the peers' docker rig (`peers docker up`) without containers or images of others in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use sampan_testkit::transcript::{self, Case};
use sampan_testkit::{Output, World, images, setup};

/// Records the named transcripts, or all.
pub(crate) fn record(names: &[String]) -> anyhow::Result<()> {
    let oracle = Oracle::find()?;
    for file in files(names)? {
        let mut cases = transcript::parse(&std::fs::read_to_string(&file)?);
        oracle.record(&mut cases)?;
        std::fs::write(&file, transcript::print(&cases))?;
        println!("{}: {} commands", file.display(), cases.len());
    }
    Ok(())
}

/// Replays the named transcripts, or all, on sampan; differences are written into them, with a reason to be filled in.
pub(crate) fn accept(names: &[String]) -> anyhow::Result<()> {
    for file in files(names)? {
        let mut cases = transcript::parse(&std::fs::read_to_string(&file)?);
        let world = World::with_docker();
        let _registry = sampan_testkit::registry::Registry::start(&world, 5000);
        let mut differing = 0;
        for case in &mut cases {
            let ours = transcript::notation(&world.sh(&case.command));
            let trimmed = |lines: &[String]| lines.iter().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
            if trimmed(&ours) == trimmed(&case.expected) {
                case.ours = None;
            } else {
                differing += 1;
                let reason = case.ours.take().map_or_else(|| "not equal yet".to_owned(), |(reason, _)| reason);
                case.ours = Some((reason, ours));
            }
        }
        std::fs::write(&file, transcript::print(&cases))?;
        println!("{}: {} commands, {differing} differ", file.display(), cases.len());
    }
    Ok(())
}

fn files(names: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let folder = setup::root().join("crates/sampan/tests/recorded");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    if !names.is_empty() {
        files.retain(|path| names.iter().any(|name| path.file_stem().is_some_and(|stem| stem == name.as_str())));
    }
    Ok(files)
}

struct Oracle {
    environment: Vec<(String, String)>,
    peers: PathBuf,
}

impl Oracle {
    fn find() -> anyhow::Result<Self> {
        let peers = setup::peers().context("the peers are not here; set SAMPAN_PEERS to their folder")?.join("peers");
        let output = Command::new(&peers).args(["docker", "env"]).output()?;
        if !output.status.success() {
            bail!("`peers docker env` failed; is the rig up? (`peers docker up`)");
        }
        let text = String::from_utf8(output.stdout)?;
        let words = text.lines().filter_map(|line| line.strip_prefix("export ")).flat_map(str::split_whitespace);
        let pairs = words.filter_map(|word| word.split_once('=')).filter(|(key, _)| *key != "PATH");
        let mut environment: Vec<_> = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let home = environment.iter().find(|(key, _)| key == "PEERS_HOME").map_or("/var/cache/sampan-peers", |(_, value)| value);
        environment.push(("PATH".to_owned(), format!("{home}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")));
        Ok(Self { environment, peers })
    }

    fn record(&self, cases: &mut [Case]) -> anyhow::Result<()> {
        let folder = tempdir()?;
        images::write(&folder.join("box.tar"), &images::docker_archive(&setup::busybox(), "box:latest")?)?;
        images::write(&folder.join("rootfs.tar"), &images::rootfs(&setup::busybox())?)?;
        for case in cases {
            case.expected = transcript::notation(&self.run(&folder, &case.command)?);
        }
        std::fs::remove_dir_all(folder)?;
        Ok(())
    }

    fn run(&self, folder: &Path, line: &str) -> anyhow::Result<Output> {
        // In the rig's network namespace, so that published ports answer.
        let mut command = Command::new(&self.peers);
        command.args(["docker", "exec", "--", "bash", "-c", line]).current_dir(folder).stdin(Stdio::null());
        command.env_clear().envs(self.environment.iter().map(|(key, value)| (key, value))).env("HOME", folder).env("LANG", "C.UTF-8");
        let output = command.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Output { stdout: text(&output.stdout), stderr: text(&output.stderr), code: output.status.code().unwrap_or(-1) })
    }
}

fn tempdir() -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("sampan-record-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
