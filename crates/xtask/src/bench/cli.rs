//! The command line: processor time and wall time of a short command, ours beside the docker command line, on the same engine.

use anyhow::Context as _;
use sampan_testkit::setup;

use super::{Engines, Row};

/// Runs of each round.
const RUNS: u32 = 50;

/// `ps -a` and `--version`, by ours and by Docker's.
pub(super) fn cli(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let docker = setup::docker_cli().context("the docker command line is missing")?;
    let (ours, docker) = (setup::sampan().display().to_string(), docker.display().to_string());
    let (our_wall, our_cpu) = seconds(engines, &format!("'{ours}' ps -a"))?;
    let (their_wall, their_cpu) = seconds(engines, &format!("'{docker}' ps -a"))?;
    let each = 1000.0 / f64::from(RUNS);
    let row = |bench, ours: f64, peer: f64| Row { peer: "docker CLI", ..Row::new(bench, ours * each, Some(peer * each), "ms") };
    Ok(vec![row("cli_ps", our_wall, their_wall), row("cli_ps_cpu", our_cpu, their_cpu)])
}

/// Wall and processor time of all runs, the best of three rounds.
fn seconds(engines: &Engines, command: &str) -> anyhow::Result<(f64, f64)> {
    let line = format!("TIMEFORMAT='%3R %3U %3S'; time for i in $(seq {RUNS}); do {command} >/dev/null || exit 1; done");
    let mut best: Option<(f64, f64)> = None;
    for _ in 0..3 {
        let output = engines.world.sh(&line);
        anyhow::ensure!(output.code == 0, "{command} failed: {}", output.stderr);
        let figures: Vec<f64> = output.stderr.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        let [wall, user, system] = figures[..] else { anyhow::bail!("bash's time printed {:?}", output.stderr) };
        let this = (wall, user + system);
        best = Some(best.map_or(this, |best| (best.0.min(this.0), best.1.min(this.1))));
    }
    best.context("no round")
}
