//! What health probes cost: a container whose probe, a shell's one word, runs again a millisecond after its end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use super::api::Api;
use super::{Engines, Row, median, processes};

const ROUNDS: usize = 3;
/// Probes of a round.
const PROBES: u64 = 50;

/// Milliseconds from probe to probe, and CPU milliseconds of the engine and of what it starts for each.
pub(super) fn health(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let (mut mine, mut theirs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        for (index, api) in engines.both().enumerate() {
            let (wall, cpu) = once(engines, api)?;
            let into = if index == 0 { &mut mine } else { &mut theirs };
            into[0].push(wall * 1000.0);
            into[1].push(cpu * 1000.0);
        }
    }
    let [wall, cpu] = mine.map(median);
    let [peer_wall, peer_cpu] = theirs.map(|values| (!values.is_empty()).then(|| median(values)));
    Ok(vec![Row::new("health", wall, peer_wall, "ms").goal(0.3), Row::new("health_cpu", cpu, peer_cpu, "CPU ms").goal(0.3)])
}

/// Wall and CPU seconds of one probe.
fn once(engines: &Engines, api: &Api) -> anyhow::Result<(f64, f64)> {
    let folder = tempfile::tempdir()?;
    let probe = json!({"Test": ["CMD-SHELL", "echo >>/mark/count"], "Interval": 1_000_000});
    let binds = json!({"Binds": [format!("{}:/mark", folder.path().display())]});
    let id = api.create_from(&json!({"Image": "box", "Cmd": ["sleep", "1000"], "Healthcheck": probe, "HostConfig": binds}))?;
    api.start(&id)?;
    let first = await_probes(folder.path(), 1)?;
    let servers = engines.servers(api);
    let before = processes::cpu_seconds(&servers);
    let start = Instant::now();
    let last = await_probes(folder.path(), first + PROBES)?;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), processes::cpu_seconds(&servers) - before);
    api.remove(&id)?;
    let count = f64::from(u32::try_from(last - first)?);
    Ok((wall / count, cpu / count))
}

/// Waits for so many probes; each writes a byte.
fn await_probes(folder: &Path, wanted: u64) -> anyhow::Result<u64> {
    let start = Instant::now();
    loop {
        let count = std::fs::metadata(folder.join("count")).map_or(0, |facts| facts.len());
        if count >= wanted {
            return Ok(count);
        }
        ensure!(start.elapsed() < Duration::from_secs(120), "{count} of {wanted} probes ran");
        std::thread::sleep(Duration::from_millis(1));
    }
}
