//! Pull and push of an image of four layers and 380 MB or more of gzip: ours, Docker, and skopeo into containers-storage.
//!
//! One registry (distribution 3.1) on loopback gives to all. Each round begins with nothing: an engine with an empty data root,
//! a storage in an empty folder, all on the same tmpfs; engines are taken in turn. Wall: of the command. CPU: of the engine and all
//! that it started, and of skopeo itself, which needs no engine.

use anyhow::{Context as _, ensure};

use crate::rig::{Registry, Rig, Server};

use super::{Engines, Row, Side, large, median, processes};

const ROUNDS: usize = 3;
const MEMORY: u32 = 9000;

/// Who moves images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mover {
    Ours,
    Docker,
    Skopeo,
}

const MOVERS: [Mover; 3] = [Mover::Ours, Mover::Docker, Mover::Skopeo];

/// Seconds of a round: wall and CPU, of the pull and of the push where there is one.
#[derive(Debug, Default)]
struct Times {
    pull: Vec<f64>,
    pull_cpu: Vec<f64>,
    push: Vec<f64>,
    push_cpu: Vec<f64>,
}

/// Rows of pulls.
pub(super) fn pull(_: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let times = measure(false)?;
    let [ours, docker, skopeo] = times.map(|times| [times.pull, times.pull_cpu].map(middle));
    let side = |peer: &[Option<f64>; 2], index: usize| Side { ours: ours[index], peer: peer[index] };
    Ok(vec![
        Row::beside("pull", "docker", side(&docker, 0), "s").goal(0.5),
        Row::beside("pull_cpu", "docker", side(&docker, 1), "s"),
        Row::beside("pull_skopeo", "skopeo", side(&skopeo, 0), "s"),
        Row::beside("pull_skopeo_cpu", "skopeo", side(&skopeo, 1), "s"),
    ])
}

/// Rows of pushes: of the same content as if it had been built here, so that every engine has to compress it.
pub(super) fn push(_: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let times = measure(true)?;
    let [ours, docker, _] = times.map(|times| [times.push, times.push_cpu].map(middle));
    let side = |index: usize| Side { ours: ours[index], peer: docker[index] };
    Ok(vec![Row::beside("push", "docker", side(0), "s"), Row::beside("push_cpu", "docker", side(1), "s")])
}

fn middle(values: Vec<f64>) -> Option<f64> {
    (!values.is_empty()).then(|| median(values))
}

fn measure(with_push: bool) -> anyhow::Result<[Times; 3]> {
    let layout = large::layout()?;
    let rig = Rig::new(MEMORY);
    let registry = rig.registry(&Registry::Distribution)?;
    let image = format!("{}/bench/large:latest", registry.address);
    rig.ok(&format!("skopeo copy -q --dest-tls-verify=false oci:'{}':latest docker://{image}", layout.display()))?;
    let mut times: [Times; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (mover, times) in MOVERS.into_iter().zip(&mut times) {
            let done = match (mover, with_push) {
                (Mover::Skopeo, true) => Ok(()),
                (Mover::Skopeo, false) => skopeo(&rig, &image, times),
                (_, true) => pushed(&rig, mover, &registry.address, &layout.display().to_string(), times),
                (_, false) => pulled(&rig, mover, &image, times),
            };
            if let Err(error) = done {
                eprintln!("{mover:?} is not measured: {error:#}");
            }
        }
    }
    Ok(times)
}

/// An engine that has nothing yet, and the command line that speaks to it.
fn engine(rig: &Rig, mover: Mover) -> anyhow::Result<(Server, String)> {
    let (server, program) = match mover {
        Mover::Ours => (rig.engine()?, "sampan"),
        _ => (rig.docker(&[])?, "docker"),
    };
    let command = format!("{program} -H {}", server.address);
    Ok((server, command))
}

/// Wall seconds of a command line, and CPU seconds of it and of an engine meanwhile.
pub(super) fn timed(rig: &Rig, server: &Server, line: &str) -> anyhow::Result<(f64, f64)> {
    let before = processes::cpu_seconds(&server.processes());
    let [wall, client] = clocked(rig, line)?;
    Ok((wall, client + processes::cpu_seconds(&server.processes()) - before))
}

/// Wall and CPU seconds of a command line that must succeed.
fn clocked(rig: &Rig, line: &str) -> anyhow::Result<[f64; 2]> {
    let output = rig.sh(&format!("TIMEFORMAT='%3R %3U %3S'; time {{ {line}; }}"));
    ensure!(output.code == 0, "$ {line}\n{}{}", output.stdout, output.stderr);
    let last = output.stderr.lines().last().unwrap_or_default();
    let figures: Vec<f64> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [wall, user, system] = figures[..] else { anyhow::bail!("bash's time printed {last:?}") };
    Ok([wall, user + system])
}

fn pulled(rig: &Rig, mover: Mover, image: &str, times: &mut Times) -> anyhow::Result<()> {
    let (server, command) = engine(rig, mover)?;
    let (wall, cpu) = timed(rig, &server, &format!("{command} pull -q {image}"))?;
    times.pull.push(wall);
    times.pull_cpu.push(cpu);
    rig.discard(server);
    Ok(())
}

/// Loads the layers without their compression and pushes them where none of them is: a layer that was built has no blob yet.
fn pushed(rig: &Rig, mover: Mover, registry: &str, layout: &str, times: &mut Times) -> anyhow::Result<()> {
    let (server, command) = engine(rig, mover)?;
    let archive = format!("{layout}.docker.tar");
    rig.ok(&format!("test -s '{archive}' || skopeo copy -q oci:'{layout}':latest docker-archive:'{archive}':bench/large:latest"))?;
    rig.ok(&format!("{command} load -q -i '{archive}'"))?;
    // A registry of its own: another's layers would be mounted, or be there already.
    let own = rig.registry(&Registry::Distribution).with_context(|| format!("a second registry beside {registry}"))?;
    let image = format!("{}/bench/large:latest", own.address);
    rig.ok(&format!("{command} tag bench/large:latest {image}"))?;
    let (wall, cpu) = timed(rig, &server, &format!("{command} push -q {image}"))?;
    times.push.push(wall);
    times.push_cpu.push(cpu);
    rig.discard(own);
    rig.discard(server);
    Ok(())
}

/// skopeo into an overlay storage of containers-storage: it is its own engine.
fn skopeo(rig: &Rig, image: &str, times: &mut Times) -> anyhow::Result<()> {
    let folder = "/var/lib/sampan/skopeo";
    rig.ok(&format!("rm -rf {folder}; mkdir -p {folder}/run"))?;
    let [wall, cpu] = clocked(
        rig,
        &format!(
            "skopeo copy -q --src-tls-verify=false docker://{image} 'containers-storage:[overlay@{folder}/root+{folder}/run]bench/large:latest'"
        ),
    )?;
    times.pull.push(wall);
    times.pull_cpu.push(cpu);
    // What it mounts over its storage is the world's alone.
    drop(rig.sh(&format!("umount {folder}/root/overlay; rm -rf {folder}")));
    Ok(())
}
