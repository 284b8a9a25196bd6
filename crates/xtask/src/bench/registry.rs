//! What a request costs the registry: ours with tokens beside distribution 3.1 without any, both on plain HTTP, blobs in memory.
//!
//! CPU is the server's alone; what signs in, prepares and warms up is not counted. The client is `cargo xtask load`, the same for
//! both, in the servers' world. Servers are taken in turn; medians of the rounds.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use anyhow::{Context as _, ensure};

use crate::rig::{Registry, Rig, Server, USER};

use super::{Engines, Row, Side, median, processes};

const ROUNDS: u32 = 5;
/// Memory for blobs: every round puts new ones.
const MEMORY: u32 = 8000;

/// What is asked in a round.
struct Work {
    name: &'static str,
    requests: u32,
    connections: u32,
}

/// GET of a manifest by its tag, kept connections.
pub(super) fn manifest(_: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let [cpu, wall] = measure(&Work { name: "manifest", requests: 10_000, connections: 4 })?;
    Ok(vec![
        Row::beside("registry_manifest", "distribution", cpu.map(|seconds| seconds * 1e6), "CPU us").goal(0.12),
        Row::beside("registry_manifest_s", "distribution", wall.map(f64::recip), "1/s").higher_is_better(),
    ])
}

/// GET of 100 MB, with the machine's congestion control and with one that does not pace: with BBR the timers outweigh the rest.
pub(super) fn get(_: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let work = Work { name: "get", requests: 20, connections: 1 };
    let [cpu, wall] = measure(&work)?;
    let [cpu_reno, wall_reno] = measure_in(&reno_rig()?, &work)?;
    let row = |name, figure: Side| Row::beside(name, "distribution", figure.map(|seconds| seconds * 1e3), "ms");
    Ok(vec![
        row("registry_get_cpu", cpu).goal(0.6),
        row("registry_get", wall),
        row("registry_get_cpu_reno", cpu_reno).goal(0.6),
        row("registry_get_reno", wall_reno),
    ])
}

/// A world in which no server paces.
fn reno_rig() -> anyhow::Result<Rig> {
    let rig = Rig::new(MEMORY);
    rig.ok("echo reno >/proc/sys/net/ipv4/tcp_congestion_control")?;
    Ok(rig)
}

/// POST and PUT of 100 MB.
pub(super) fn put(_: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let [cpu, wall] = measure(&Work { name: "put", requests: 5, connections: 1 })?;
    let row = |name, figure: Side| Row::beside(name, "distribution", figure.map(|seconds| seconds * 1e3), "ms");
    Ok(vec![row("registry_put_cpu", cpu), row("registry_put", wall)])
}

/// CPU and wall seconds of one request.
fn measure(work: &Work) -> anyhow::Result<[Side; 2]> {
    measure_in(&Rig::new(MEMORY), work)
}

fn measure_in(rig: &Rig, work: &Work) -> anyhow::Result<[Side; 2]> {
    let start = |kind: Registry| match rig.registry(&kind) {
        Ok(server) => Some(server),
        Err(error) => {
            eprintln!("{}: {kind:?} is not measured: {error:#}", work.name);
            None
        }
    };
    let servers = [start(Registry::OursWithUsers), start(Registry::Distribution)];
    let mut figures: [[Vec<f64>; 2]; 2] = Default::default();
    for round in 0..ROUNDS {
        for (server, [cpu, wall]) in servers.iter().zip(&mut figures) {
            if let Some(server) = server {
                let (seconds, processor) = once(rig, server, work, u64::from(round) + 1)?;
                wall.push(seconds / f64::from(work.requests));
                cpu.push(processor / f64::from(work.requests));
            }
        }
    }
    let [[our_cpu, our_wall], [their_cpu, their_wall]] =
        figures.map(|side| side.map(|values| (!values.is_empty()).then(|| median(values))));
    Ok([Side { ours: our_cpu, peer: their_cpu }, Side { ours: our_wall, peer: their_wall }])
}

/// Wall seconds of a round, and CPU seconds of the server.
fn once(rig: &Rig, server: &Server, work: &Work, seed: u64) -> anyhow::Result<(f64, f64)> {
    let own = std::env::current_exe()?;
    let mut command = rig.command(own.to_str().context("this program's path is no text")?);
    command.args(["load", work.name, &server.address, "--seed", &seed.to_string(), "--user", &format!("{}:{}", USER.0, USER.1)]);
    command.args(["--requests", &work.requests.to_string(), "--connections", &work.connections.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("nsenter does not start")?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let ready = lines.next().transpose()?;
    let mut figure = None;
    let mut processor = 0.0;
    if ready.as_deref() == Some("ready") {
        let pids = server.processes();
        let before = processes::cpu_seconds(&pids);
        child.stdin.take().context("piped")?.write_all(b"\n")?;
        figure = lines.next().transpose()?;
        processor = processes::cpu_seconds(&pids) - before;
    }
    let status = child.wait()?;
    ensure!(status.success(), "the client failed on {}: {}", server.address, server.log());
    Ok((figure.context("no figure")?.parse()?, processor))
}
