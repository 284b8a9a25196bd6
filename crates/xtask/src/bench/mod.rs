//! `cargo xtask bench`: ours and the real Docker in the same run, a row each, with the ratio.
//!
//! Ours is the release build in a world of its own; Docker is the peers' rig, if it is up. Engines are taken in turn, so that both
//! see the same machine; medians are shown. Here are the rows and their table; each theme has a file.

mod api;
mod archives;
mod builds;
mod cli;
mod health;
mod large;
mod latency;
mod logs;
mod memory;
mod processes;
mod registry;
mod runtimes;
mod transfers;

use std::path::Path;
use std::time::Instant;

use sampan_testkit::{World, images, setup};
use serde::Serialize;

use api::Api;

/// One figure.
#[derive(Debug, Serialize)]
struct Row {
    bench: &'static str,
    ours: Option<f64>,
    peer: &'static str,
    peer_value: Option<f64>,
    ratio: Option<f64>,
    /// What the ratio is to be at most.
    goal: Option<f64>,
    unit: &'static str,
    better: &'static str,
}

/// A figure of ours and a peer's, each if it could be had.
#[derive(Debug, Clone, Copy)]
struct Side {
    ours: Option<f64>,
    peer: Option<f64>,
}

impl Side {
    fn map(self, work: impl Fn(f64) -> f64) -> Self {
        Self { ours: self.ours.map(&work), peer: self.peer.map(&work) }
    }
}

impl Row {
    /// A figure beside Docker's; less is better.
    fn new(bench: &'static str, ours: f64, peer_value: Option<f64>, unit: &'static str) -> Self {
        Self::beside(bench, "docker", Side { ours: Some(ours), peer: peer_value }, unit)
    }

    /// A figure beside some peer's, of which either may be missing; less is better.
    fn beside(bench: &'static str, peer: &'static str, Side { ours, peer: peer_value }: Side, unit: &'static str) -> Self {
        let ratio = ours.zip(peer_value).map(|(ours, peer)| ours / peer);
        Self { bench, ours, peer, peer_value, ratio, goal: None, unit, better: "lower" }
    }

    /// What was promised of the ratio.
    fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }

    fn higher_is_better(self) -> Self {
        Self { better: "higher", ..self }
    }
}

/// What the benchmarks work on: our daemon in its world, and Docker's if its rig is up.
struct Engines {
    world: World,
    ours: Api,
    peer: Option<Api>,
}

type Work = fn(&mut Engines) -> anyhow::Result<Vec<Row>>;

/// Every benchmark, in the order in which they run: what ends the daemon comes last.
const ALL: &[(&str, Work)] = &[
    ("lifecycle", latency::lifecycle),
    ("exec", latency::exec),
    ("health", health::health),
    ("cli", cli::cli),
    ("runtimes", runtimes::runtimes),
    ("log", logs::log),
    ("log_lines", logs::log_lines),
    ("archives", archives::archives),
    ("pull", transfers::pull),
    ("push", transfers::push),
    ("build", builds::context),
    ("run_true", builds::run_true),
    ("registry_manifest", registry::manifest),
    ("registry_get", registry::get),
    ("registry_put", registry::put),
    ("shim_pss", memory::shims),
    ("daemon_rss", memory::daemon),
    ("daemon_rss_used", memory::daemon_used),
    ("daemon_start", daemon_start),
    ("binary_size", binary_size),
];

/// Runs the named benchmarks, or all.
pub(crate) fn bench(names: &[String], json: Option<&Path>) -> anyhow::Result<()> {
    if let Some(name) = names.iter().find(|name| !ALL.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        anyhow::bail!("no benchmark {name:?}; there are {}", known.join(", "));
    }
    let world = World::with_docker();
    let ours = Api::new(world.socket());
    let mut engines = Engines { ours, peer: api::peer("docker"), world };
    let archive = images::docker_archive(&setup::busybox(), "box:latest")?;
    for api in engines.both() {
        api.call("POST", "/images/load?quiet=1", "application/x-tar", &archive)?;
    }
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (name, work) in ALL {
        if names.is_empty() || names.iter().any(|one| one == name) {
            match work(&mut engines) {
                Ok(more) => rows.extend(more),
                Err(error) => failed.push(format!("{name}: {error:#}")),
            }
        }
    }
    print(&rows, json)?;
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join("\n"));
    Ok(())
}

impl Engines {
    fn both(&self) -> impl Iterator<Item = &Api> {
        std::iter::once(&self.ours).chain(&self.peer)
    }

    /// The processes that serve containers and their output.
    fn servers(&self, api: &Api) -> Vec<u32> {
        if std::ptr::eq(api, &raw const self.ours) {
            let mut pids = processes::named_beside("sampan-shim", self.world.init());
            pids.push(self.world.daemon_pid());
            return pids;
        }
        ["dockerd", "containerd"].into_iter().flat_map(processes::named).collect()
    }
}

fn print(rows: &[Row], json: Option<&Path>) -> anyhow::Result<()> {
    println!("{:22} {:>10} {:>10} {:>7} {:>7}  unit", "bench", "ours", "peer", "ratio", "goal");
    for row in rows {
        let shown = |value: Option<f64>| value.map_or_else(|| "not there".to_owned(), |value| format!("{value:.2}"));
        println!(
            "{:22} {:>10} {:>10} {:>7} {:>7}  {} ({}, {} is better)",
            row.bench,
            shown(row.ours),
            shown(row.peer_value),
            row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            row.goal.map_or_else(String::new, |goal| format!("<={goal:.2}")),
            row.unit,
            row.peer,
            row.better
        );
    }
    if let Some(path) = json {
        let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        std::fs::write(path, lines.join("\n") + "\n")?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// From the program's start until its socket answers.
fn daemon_start(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    engines.world.kill_daemon();
    let start = Instant::now();
    engines.world.start_daemon();
    Ok(vec![Row::new("daemon_start", start.elapsed().as_secs_f64() * 1000.0, None, "ms")])
}

fn binary_size(_: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let bytes = std::fs::metadata(setup::sampan())?.len();
    Ok(vec![Row::new("binary_size", f64::from(u32::try_from(bytes >> 10)?) / 1024.0, None, "MiB")])
}
