//! The bare runtimes beside the whole of ours: crun and runc take a bundle that is ready and run `true` in it.
//!
//! Theirs is one command (`run`: create, start, wait, delete) without a daemon, an image, a layer, a log, a network or a seccomp
//! filter; ours is the four requests of the API, with all of that but the network. They run in the Podman rig, if it is up.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use sampan_testkit::{images, setup};
use serde_json::json;

use super::{Engines, Row, latency, median};

/// All are taken in turn, in blocks of so many rounds, so that all see the same machine.
const ROUNDS: usize = 6;
const BLOCKS: usize = 5;
const RUNTIMES: [&str; 2] = ["crun", "runc"];

/// A row for each runtime.
pub(super) fn runtimes(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    bundle(folder.path())?;
    let (mut mine, mut theirs) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..BLOCKS {
        mine.extend(counted(|| latency::life_without_network(&engines.ours))?);
        for (runtime, values) in RUNTIMES.into_iter().zip(&mut theirs) {
            values.extend(peer_runs(runtime, folder.path()));
        }
    }
    let mine = median(mine);
    let rows = ["life_crun", "life_runc"].into_iter().zip(RUNTIMES).zip(theirs);
    let peer_value = |values: Vec<f64>| (!values.is_empty()).then(|| median(values));
    Ok(rows.map(|((bench, peer), values)| Row { peer, ..Row::new(bench, mine, peer_value(values), "ms") }).collect())
}

/// A block of figures after one that warms up.
fn counted(work: impl Fn() -> anyhow::Result<f64>) -> anyhow::Result<Vec<f64>> {
    work()?;
    (0..ROUNDS).map(|_| work()).collect()
}

/// A block of runs after one that warms up: milliseconds; none without the rig or the runtime.
fn peer_runs(runtime: &str, bundle: &Path) -> Vec<f64> {
    let script = format!(
        "for round in $(seq 0 {ROUNDS}); do a=${{EPOCHREALTIME/./}}; {runtime} run -b {} bench-$round-$$ </dev/null >/dev/null || exit 1; \
         b=${{EPOCHREALTIME/./}}; echo $((b - a)); done",
        bundle.display()
    );
    let Some(peers) = setup::peers() else { return Vec::new() };
    let output = Command::new(peers.join("peers")).args(["podman", "exec", "-a", "--", "bash", "-c", &script]).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().skip(1).filter_map(|line| line.parse::<f64>().ok()).map(|micros| micros / 1000.0).collect()
}

/// An OCI bundle: busybox's root file system and a configuration such as Docker gives, without a filter.
fn bundle(folder: &Path) -> anyhow::Result<()> {
    let root = folder.join("rootfs");
    std::fs::create_dir(&root)?;
    std::fs::write(folder.join("rootfs.tar"), images::rootfs(&setup::busybox())?)?;
    let status = Command::new("tar").arg("-C").arg(&root).arg("-xf").arg(folder.join("rootfs.tar")).status().context("tar")?;
    ensure!(status.success(), "tar failed");
    for name in ["proc", "sys"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    let capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"];
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["true"], "env": ["PATH=/bin"], "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    Ok(std::fs::write(folder.join("config.json"), serde_json::to_vec(&config)?)?)
}
