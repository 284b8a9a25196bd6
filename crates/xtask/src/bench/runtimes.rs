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

const ROUNDS: usize = 25;

/// A row for each runtime.
pub(super) fn runtimes(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    bundle(folder.path())?;
    let mut mine = Vec::new();
    for round in 0..=ROUNDS {
        let value = latency::life_without_network(&engines.ours)?;
        if round > 0 {
            mine.push(value);
        }
    }
    let mine = median(mine);
    let row = |bench, peer| Row { peer, ..Row::new(bench, mine, peer_run(peer, folder.path()), "ms") };
    Ok(vec![row("life_crun", "crun"), row("life_runc", "runc")])
}

/// The median of some runs: milliseconds; `None` without the rig or the runtime.
fn peer_run(runtime: &str, bundle: &Path) -> Option<f64> {
    let script = format!(
        "for round in $(seq 0 {ROUNDS}); do a=${{EPOCHREALTIME/./}}; {runtime} run -b {} bench-$round-$$ </dev/null >/dev/null || exit 1; \
         b=${{EPOCHREALTIME/./}}; echo $((b - a)); done",
        bundle.display()
    );
    let output = Command::new(setup::peers()?.join("peers")).args(["podman", "exec", "-a", "--", "bash", "-c", &script]).output().ok()?;
    if !output.status.success() {
        println!("{runtime}: {}", String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    let values: Vec<f64> = text.lines().skip(1).filter_map(|line| line.parse::<f64>().ok()).map(|micros| micros / 1000.0).collect();
    (!values.is_empty()).then(|| median(values))
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
