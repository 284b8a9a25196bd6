//! `cargo xtask bench`: ours and the real Docker in the same run, a row each, with the ratio.
//!
//! Ours is the release build in a world of its own; Docker is the peers' rig, if it is up. Engines are taken in turn, so that both
//! see the same machine; medians are shown.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};
use sampan_testkit::{World, images, setup};
use serde::Serialize;
use serde_json::Value;

/// One figure.
#[derive(Debug, Serialize)]
struct Row {
    bench: &'static str,
    ours: f64,
    peer: &'static str,
    peer_value: Option<f64>,
    ratio: Option<f64>,
    unit: &'static str,
    better: &'static str,
}

/// Containers for the memory of shims.
const SHIMS: usize = 20;
/// Rounds of each timing.
const ROUNDS: usize = 25;

/// Runs the named benchmarks, or all.
pub(crate) fn bench(names: &[String], json: Option<&Path>) -> anyhow::Result<()> {
    let mut world = World::with_docker();
    let ours = Api { socket: world.socket() };
    let peer = docker_socket().map(|socket| Api { socket });
    let archive = images::docker_archive(&setup::busybox(), "box:latest")?;
    for api in [Some(&ours), peer.as_ref()].into_iter().flatten() {
        api.call("POST", "/images/load?quiet=1", "application/x-tar", &archive)?;
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|one| one == name);
    let mut rows = Vec::new();
    if wanted("lifecycle") {
        rows.push(in_turn("lifecycle", &ours, peer.as_ref(), lifecycle)?);
    }
    if wanted("exec") {
        rows.push(exec(&ours, peer.as_ref())?);
    }
    if wanted("shim_pss") {
        rows.push(shim_memory(&ours, peer.as_ref())?);
    }
    if wanted("daemon_rss") {
        let peer_value = peer.as_ref().and_then(|_| process_memory("dockerd", "VmRSS:")).map(|kib| kib / 1024.0);
        rows.push(row("daemon_rss", resident(world.daemon_pid())? / 1024.0, peer_value, "MiB"));
    }
    if wanted("daemon_start") {
        world.kill_daemon();
        let start = Instant::now();
        world.start_daemon();
        rows.push(row("daemon_start", start.elapsed().as_secs_f64() * 1000.0, None, "ms"));
    }
    if wanted("binary_size") {
        let bytes = std::fs::metadata(setup::sampan())?.len();
        rows.push(row("binary_size", f64::from(u32::try_from(bytes >> 10)?) / 1024.0, None, "MiB"));
    }
    print(&rows, json)
}

fn row(bench: &'static str, ours: f64, peer_value: Option<f64>, unit: &'static str) -> Row {
    Row { bench, ours, peer: "docker", peer_value, ratio: peer_value.map(|peer| ours / peer), unit, better: "lower" }
}

fn print(rows: &[Row], json: Option<&Path>) -> anyhow::Result<()> {
    println!("{:14} {:>10} {:>10} {:>7}  unit", "bench", "ours", "docker", "ratio");
    for row in rows {
        let shown = |value: Option<f64>| value.map_or_else(|| "not there".to_owned(), |value| format!("{value:.2}"));
        println!(
            "{:14} {:>10.2} {:>10} {:>7}  {}",
            row.bench,
            row.ours,
            shown(row.peer_value),
            row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            row.unit
        );
    }
    if let Some(path) = json {
        let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        std::fs::write(path, lines.join("\n") + "\n")?;
    }
    Ok(())
}

/// The peers' Docker, if its rig is up.
fn docker_socket() -> Option<PathBuf> {
    let output = Command::new(setup::peers()?.join("peers")).args(["docker", "env"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let socket = text.split_whitespace().find_map(|word| word.strip_prefix("DOCKER_HOST=unix://"))?;
    UnixStream::connect(socket).ok().map(|_| PathBuf::from(socket))
}

/// A client of the Engine API: one connection a call.
struct Api {
    socket: PathBuf,
}

impl Api {
    fn call(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        let head =
            format!("{method} /v1.43{path} HTTP/1.0\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("an answer without a head")?;
        let status =
            String::from_utf8_lossy(&answer[..end]).split_whitespace().nth(1).and_then(|word| word.parse::<u16>().ok()).unwrap_or(0);
        let content = answer.split_off(end + 4);
        if status >= 300 {
            bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&content));
        }
        Ok(content)
    }

    fn post(&self, path: &str, body: &str) -> anyhow::Result<Value> {
        let content = self.call("POST", path, "application/json", body.as_bytes())?;
        Ok(if content.is_empty() { Value::Null } else { serde_json::from_slice(&content).unwrap_or(Value::Null) })
    }

    fn create(&self, command: &str) -> anyhow::Result<String> {
        let created = self.post("/containers/create", &format!("{{\"Image\":\"box\",\"Cmd\":{command}}}"))?;
        Ok(created["Id"].as_str().context("an id")?.to_owned())
    }

    fn start(&self, id: &str) -> anyhow::Result<()> {
        self.call("POST", &format!("/containers/{id}/start"), "application/json", b"").map(drop)
    }

    fn remove(&self, id: &str) -> anyhow::Result<()> {
        self.call("DELETE", &format!("/containers/{id}?force=1"), "application/json", b"").map(drop)
    }
}

/// Create, start, wait, delete: milliseconds.
fn lifecycle(api: &Api) -> anyhow::Result<f64> {
    let start = Instant::now();
    let id = api.create("[\"true\"]")?;
    api.start(&id)?;
    api.post(&format!("/containers/{id}/wait"), "")?;
    api.remove(&id)?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

fn in_turn(name: &'static str, ours: &Api, peer: Option<&Api>, work: impl Fn(&Api) -> anyhow::Result<f64>) -> anyhow::Result<Row> {
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (value, other) = (work(ours)?, peer.map(&work).transpose()?);
        // The first round warms up.
        if round > 0 {
            mine.push(value);
            theirs.extend(other);
        }
    }
    Ok(row(name, median(mine), (!theirs.is_empty()).then(|| median(theirs)), "ms"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn exec(ours: &Api, peer: Option<&Api>) -> anyhow::Result<Row> {
    let prepare = |api: &Api| -> anyhow::Result<String> {
        let id = api.create("[\"sleep\",\"300\"]")?;
        api.start(&id)?;
        Ok(id)
    };
    let (mine, theirs) = (prepare(ours)?, peer.map(prepare).transpose()?);
    let work = |api: &Api| -> anyhow::Result<f64> {
        let id = if std::ptr::eq(api, ours) { &mine } else { theirs.as_ref().context("a container")? };
        let start = Instant::now();
        let exec = api.post(&format!("/containers/{id}/exec"), "{\"Cmd\":[\"true\"],\"AttachStdout\":true}")?;
        let exec = exec["Id"].as_str().context("an id")?.to_owned();
        api.call("POST", &format!("/exec/{exec}/start"), "application/json", b"{}")?;
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    };
    let row = in_turn("exec", ours, peer, work);
    ours.remove(&mine)?;
    if let (Some(api), Some(id)) = (peer, &theirs) {
        api.remove(id)?;
    }
    row
}

/// Average proportional set size of the parents of idle containers: MiB.
fn shim_memory(ours: &Api, peer: Option<&Api>) -> anyhow::Result<Row> {
    let measure = |api: &Api, name: &str| -> anyhow::Result<f64> {
        let ids = (0..SHIMS).map(|_| api.create("[\"sleep\",\"300\"]")).collect::<anyhow::Result<Vec<_>>>()?;
        ids.iter().try_for_each(|id| api.start(id))?;
        let all: Vec<f64> = processes(name).into_iter().filter_map(|pid| smaps(pid, "Pss:")).collect();
        ids.iter().try_for_each(|id| api.remove(id))?;
        let count = u32::try_from(all.len().max(1))?;
        Ok(all.iter().sum::<f64>() / f64::from(count) / 1024.0)
    };
    let mine = measure(ours, "sampan-shim")?;
    let theirs = peer.map(|api| measure(api, "containerd-shim")).transpose()?;
    Ok(row("shim_pss", mine, theirs, "MiB"))
}

/// Process ids whose command line begins so, behind any folder.
fn processes(name: &str) -> Vec<u32> {
    let pids =
        std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let fits = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(first).rsplit('/').next().is_some_and(|base| base.starts_with(name))
    };
    pids.filter(fits).collect()
}

fn smaps(pid: u32, key: &str) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

fn process_memory(name: &str, key: &str) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", processes(name).first()?)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

fn resident(pid: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok()).context("VmRSS")
}
