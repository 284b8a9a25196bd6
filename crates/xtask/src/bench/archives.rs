//! Loading and saving of a large image: what a move between machines costs.
//!
//! The image is made of parts of this machine's /usr, a layer each, and is the same file for both engines. Wall: from the first
//! byte sent to the end of the answer, the file in the page cache and nothing waiting for the disk. CPU: of the daemons.
//!
//! Nothing is removed between the rounds, each has an image of its own: ext4 passes over inodes that were freed in the last
//! minutes, one by one, which would measure the removals before. For the same reason a second run wants to wait for some minutes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use sampan_testkit::images;

use super::api::Api;
use super::{Engines, Row, median, processes};

/// The layers: folders below /, as far as they are there.
const PARTS: &[&[&str]] = &[&["usr/bin", "usr/sbin"], &["usr/share"], &["usr/lib/x86_64-linux-gnu"], &["usr/include", "etc/alternatives"]];
/// So much of each part is taken at most: bytes of file content.
const PART: u64 = 160 << 20;
const ROUNDS: usize = 3;
const NAME: &str = "bench-large";

/// Rows for `load` and `save`, wall and CPU.
pub(super) fn archives(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let engines = &*engines;
    let folder = tempfile::tempdir()?;
    let mut figures: [[Vec<f64>; 4]; 2] = Default::default();
    for round in 0..ROUNDS {
        let archive = make(folder.path(), round)?;
        for (index, api) in engines.both().enumerate() {
            let [into, cpu_into, out, cpu_out] = &mut figures[index];
            let (wall, cpu) = timed(engines, api, || load(api, &archive))?;
            into.push(wall);
            cpu_into.push(cpu);
            let (wall, cpu) = timed(engines, api, || save(api, round, archive.metadata()?.len()))?;
            out.push(wall);
            cpu_out.push(cpu);
        }
    }
    for (api, round) in engines.both().flat_map(|api| (0..ROUNDS).map(move |round| (api, round))) {
        api.call("DELETE", &format!("/images/{NAME}:{round}?force=1"), "application/json", b"")?;
    }
    let [mine, theirs] = figures.map(|engine| engine.map(|values| (!values.is_empty()).then(|| median(values))));
    let rows = ["load", "load_cpu", "save", "save_cpu"].into_iter().zip(mine).zip(theirs);
    rows.map(|((name, mine), theirs)| Ok(Row::new(name, mine.context("a round")?, theirs, "s"))).collect()
}

/// Wall and CPU seconds of a request.
fn timed(engines: &Engines, api: &Api, work: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<(f64, f64)> {
    rustix::fs::sync();
    let servers = engines.servers(api);
    let before = processes::cpu_seconds(&servers);
    let start = Instant::now();
    work()?;
    let wall = start.elapsed().as_secs_f64();
    Ok((wall, processes::cpu_seconds(&servers) - before))
}

fn load(api: &Api, archive: &Path) -> anyhow::Result<()> {
    let mut file = std::fs::File::open(archive)?;
    let length = file.metadata()?.len();
    let mut answer = String::new();
    // An engine may close before it has read the archive's padding; what counts is the answer.
    let ended = api.stream("POST", "/images/load?quiet=1", "application/x-tar", &mut file, length)?.read_to_string(&mut answer);
    ensure!(answer.contains("Loaded image"), "load: {answer} {ended:?}");
    Ok(())
}

fn save(api: &Api, round: usize, at_least: u64) -> anyhow::Result<()> {
    let mut answer = api.stream("GET", &format!("/images/{NAME}:{round}/get"), "application/json", &mut std::io::empty(), 0)?;
    let mut buffer = vec![0; 1 << 20];
    let mut count = 0;
    loop {
        match answer.read(&mut buffer)? {
            0 => break,
            more => count += more as u64,
        }
    }
    ensure!(count > at_least / 10 * 9, "save gave {count} bytes only");
    Ok(())
}

/// A docker-archive with a layer for each part: the form of old `docker save`s, which every engine reads.
fn make(folder: &Path, round: usize) -> anyhow::Result<PathBuf> {
    let mut layers = Vec::new();
    for parts in PARTS {
        let files = files(parts)?;
        if files.is_empty() {
            continue;
        }
        let list = folder.join("list");
        std::fs::write(&list, files.join("\0"))?;
        let layer = folder.join("layer.tar");
        let mtime = format!("--mtime=@{}", 1_700_000_000 + round);
        tar(&[&mtime, "--null", "--no-recursion", "-T"], &[&list], Path::new("/"), &layer)?;
        let name = images::sha256_of_file(&layer)?;
        std::fs::create_dir(folder.join(&name))?;
        std::fs::rename(&layer, folder.join(&name).join("layer.tar"))?;
        layers.push(name);
    }
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{layer}")).collect();
    let paths: Vec<String> = layers.iter().map(|layer| format!("{layer}/layer.tar")).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "config": {}, "created": "2024-09-26T21:31:42Z", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config)?;
    let config_name = format!("{}.json", images::sha256(&config));
    std::fs::write(folder.join(&config_name), &config)?;
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": [format!("{NAME}:{round}")], "Layers": paths}]);
    std::fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
    let members: Vec<&Path> = layers.iter().map(Path::new).chain([Path::new(&config_name), Path::new("manifest.json")]).collect();
    let archive = folder.join(format!("archive-{round}"));
    tar(&[], &members, folder, &archive)?;
    layers.iter().try_for_each(|layer| std::fs::remove_dir_all(folder.join(layer)))?;
    let size = archive.metadata()?.len();
    ensure!(size > 300 << 20, "the parts of /usr make {} MiB only", size >> 20);
    Ok(archive)
}

fn tar(options: &[&str], members: &[&Path], directory: &Path, into: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("tar");
    command.args(["--format=pax", "--numeric-owner", "--pax-option=delete=atime,delete=ctime", "-C"]).arg(directory);
    command.arg("-cf").arg(into).args(options).args(members);
    ensure!(command.status()?.success(), "tar failed");
    Ok(())
}

/// The paths below some folders, sorted, each folder before what is in it, up to so many bytes.
fn files(parts: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut size = 0;
    let mut waiting: Vec<PathBuf> = parts.iter().rev().map(|part| Path::new("/").join(part)).filter(|path| path.is_dir()).collect();
    while let Some(path) = waiting.pop() {
        let facts = path.symlink_metadata()?;
        let Some(text) = path.to_str().filter(|_| size + facts.len() < PART) else { continue };
        found.push(text.trim_start_matches('/').to_owned());
        if facts.is_dir() {
            let mut inside: Vec<PathBuf> = std::fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
            inside.sort();
            waiting.extend(inside.into_iter().rev());
        } else {
            size += facts.len();
        }
    }
    Ok(found)
}
