//! What stays in memory: the parents of idle containers, the daemon.

use std::time::Duration;

use sampan_testkit::{images, setup};

use super::api::{self, Api};
use super::latency::one_life;
use super::{Engines, Row, processes};

/// Containers for the memory of shims.
const SHIMS: usize = 20;
/// Life cycles before the daemon's memory is looked at again.
const LIVES: usize = 200;

/// Average proportional set size of the parents of idle containers.
pub(super) fn shims(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let measure = |api: &Api, pids: &dyn Fn() -> Vec<u32>| -> anyhow::Result<f64> {
        let ids = (0..SHIMS).map(|_| api.create(&["sleep", "300"], &[])).collect::<anyhow::Result<Vec<_>>>()?;
        ids.iter().try_for_each(|id| api.start(id))?;
        // Idle is what they are to be: memory of the start is given back soon after.
        std::thread::sleep(Duration::from_secs(1));
        let all: Vec<f64> = pids().into_iter().filter_map(processes::proportional).collect();
        ids.iter().try_for_each(|id| api.remove(id))?;
        let count = u32::try_from(all.len().max(1))?;
        Ok(all.iter().sum::<f64>() / f64::from(count) / 1024.0)
    };
    let mine = measure(&engines.ours, &|| processes::named_beside("sampan-shim", engines.world.init()))?;
    let theirs = engines.peer.as_ref().map(|api| measure(api, &|| processes::named("containerd-shim"))).transpose()?;
    let mut rows = vec![Row::new("shim_pss", mine, theirs, "MiB")];
    if let Some(podman) = api::peer("podman") {
        let archive = images::docker_archive(&setup::busybox(), "docker.io/library/box:latest")?;
        podman.call("POST", "/images/load?quiet=1", "application/x-tar", &archive)?;
        rows.push(Row {
            peer: "conmon",
            ..Row::new("shim_pss_conmon", mine, Some(measure(&podman, &|| processes::named("conmon"))?), "MiB")
        });
    }
    Ok(rows)
}

/// Resident set size of the daemon after what ran before.
pub(super) fn daemon(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    Ok(vec![Row::new("daemon_rss", resident(engines.world.daemon_pid())?, peer_resident(engines), "MiB")])
}

/// The same after many lives of containers: what a busy daemon comes down to.
pub(super) fn daemon_used(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    for api in engines.both() {
        (0..LIVES).try_for_each(|_| one_life(api).map(drop))?;
    }
    std::thread::sleep(Duration::from_secs(2));
    Ok(vec![Row::new("daemon_rss_used", resident(engines.world.daemon_pid())?, peer_resident(engines), "MiB")])
}

fn resident(pid: u32) -> anyhow::Result<f64> {
    Ok(processes::resident(pid)? / 1024.0)
}

fn peer_resident(engines: &Engines) -> Option<f64> {
    engines.peer.as_ref()?;
    resident(*processes::named("dockerd").first()?).ok()
}
