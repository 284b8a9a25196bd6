//! Checks of limits and rights that need facts of the host; Docker's texts.

use sampan_images::Image;
use sampan_oci::Platform;
use sampan_runtime::caps;
use sampan_runtime::options::Seccomp;

use crate::Engine;
use crate::error::EngineError;
use crate::model::{Config, HostConfig, Resources};

/// What `--security-opt` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Seccomp,
    pub(crate) apparmor: String,
    pub(crate) writable_cgroups: bool,
}

fn invalid<T>(text: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::Invalid(text.into()))
}

fn unsupported<T>(what: &str) -> Result<T, EngineError> {
    Err(EngineError::Unsupported(format!("not supported: {what}")))
}

/// Reads `--security-opt` values.
pub(crate) fn security(list: &[String]) -> Result<Security, EngineError> {
    let mut out = Security::default();
    for option in list {
        if option == "no-new-privileges" {
            out.no_new_privileges = true;
            continue;
        }
        if option == "disable" {
            continue;
        }
        if option == "writable-cgroups" {
            out.writable_cgroups = true;
            continue;
        }
        let Some((key, value)) = option.split_once('=').or_else(|| option.split_once(':')) else {
            return invalid(format!("invalid --security-opt 1: \"{option}\""));
        };
        let truth = || match value {
            "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
            "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
            _ => invalid(format!("invalid --security-opt 2: \"{option}\"")),
        };
        match key {
            "label" => {}
            "apparmor" => value.clone_into(&mut out.apparmor),
            "seccomp" if value == "unconfined" => out.seccomp = Seccomp::Unconfined,
            "seccomp" if value == "builtin" => out.seccomp = Seccomp::Default,
            "seccomp" => out.seccomp = Seccomp::Json(value.to_owned()),
            "no-new-privileges" => out.no_new_privileges = truth()?,
            // Only the words themselves: `=1` is a mistake here.
            "writable-cgroups" if matches!(value, "true" | "false") => out.writable_cgroups = value == "true",
            _ => return invalid(format!("invalid --security-opt 2: \"{option}\"")),
        }
    }
    Ok(out)
}

impl Engine {
    /// Checks limits, rights and what is not offered yet. Gives warnings; discards what the kernel cannot do.
    pub(crate) fn check_options(&self, _config: &Config, host: &mut HostConfig) -> Result<Vec<String>, EngineError> {
        not_yet(host)?;
        security(&host.security_opt)?;
        caps::choose(&host.cap_add, &host.cap_drop, host.privileged, caps::ALL).map_err(|(adding, name)| {
            EngineError::Invalid(format!("invalid {}: unknown capability: \"{name}\"", if adding { "CapAdd" } else { "CapDrop" }))
        })?;
        if !(-1000..=1000).contains(&host.oom_score_adj) {
            return invalid(format!("Invalid value {}, range for oom score adj is [-1000, 1000]", host.oom_score_adj));
        }
        check_modes(host)?;
        for key in host.log.options.keys() {
            if !matches!(
                key.as_str(),
                "max-size" | "max-file" | "labels" | "env" | "mode" | "max-buffer-size" | "labels-regex" | "env-regex" | "tag" | "compress"
            ) {
                return invalid(format!("unknown log opt '{key}' for {} log driver", host.log.driver));
            }
        }
        crate::request::log_limits(host)?;
        self.check_limits(&mut host.resources)
    }

    /// Checks limits of memory and processors. Gives warnings; discards what the kernel cannot do.
    ///
    /// # Errors
    /// Docker's texts.
    pub fn check_limits(&self, limits: &mut Resources) -> Result<Vec<String>, EngineError> {
        const MEGABYTE: i64 = 1 << 20;
        let mut warnings = Vec::new();
        let cpus = self.sandboxes().host().cpus;
        if limits.memory != 0 && limits.memory < 6 * MEGABYTE {
            return invalid("Minimum memory limit allowed is 6MB");
        }
        if limits.memory > 0 && limits.memory_swap > 0 && limits.memory_swap < limits.memory {
            return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
        }
        if limits.memory == 0 && limits.memory_swap > 0 {
            return invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
        }
        if limits.memory_reservation > 0 && limits.memory > 0 && limits.memory < limits.memory_reservation {
            return invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
        }
        if limits.memory_reservation != 0 && limits.memory_reservation < 6 * MEGABYTE {
            return invalid("Minimum memory reservation allowed is 6MB");
        }
        if limits.memory_swappiness.is_some_and(|value| !(-1..=100).contains(&value)) {
            return invalid(format!(
                "Invalid value: {}, valid memory swappiness range is 0-100",
                limits.memory_swappiness.unwrap_or_default()
            ));
        }
        for (value, what) in [(limits.cpu_period, "Period"), (limits.cpu_quota, "Quota")] {
            if limits.nano_cpus > 0 && value > 0 {
                return invalid(format!("Conflicting options: Nano CPUs and CPU {what} cannot both be set"));
            }
        }
        if limits.nano_cpus < 0 || limits.nano_cpus > i64::from(cpus) * 1_000_000_000 {
            return invalid(format!("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"));
        }
        if limits.cpu_shares < 0 {
            return invalid(format!("invalid CPU shares ({}): value must be a positive integer", limits.cpu_shares));
        }
        if limits.cpu_period != 0 && !(1000..=1_000_000).contains(&limits.cpu_period) {
            return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
        }
        if limits.cpu_quota > 0 && limits.cpu_quota < 1000 {
            return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
        }
        if limits.blkio_weight > 0 && !(10..=1000).contains(&limits.blkio_weight) {
            return invalid("Range of blkio weight is from 10 to 1000");
        }
        check_cpusets(limits, &self.sandboxes().host().cpuset)?;
        let unified = self.sandboxes().host().unified;
        if unified && limits.oom_kill_disable == Some(true) {
            warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".into());
            limits.oom_kill_disable = None;
        }
        if unified && limits.memory_swappiness.is_some_and(|value| value != -1) {
            warnings.push(
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."
                    .into(),
            );
            limits.memory_swappiness = None;
        }
        if limits.blkio_weight > 0 && !self.sandboxes().weighs_blocks() {
            warnings.push("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".into());
            limits.blkio_weight = 0;
        }
        Ok(warnings)
    }

    pub(crate) fn check_platform(&self, wish: &str, image: &Image, name: &str) -> Result<(), EngineError> {
        if wish.is_empty() {
            return Ok(());
        }
        let Some(platform) = Platform::parse(wish) else {
            return invalid(format!(
                "\"{wish}\" is an invalid OS component of \"{wish}\": OSAndVersion specifier component must match \"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.-]*)\\\\))?$\": invalid argument"
            ));
        };
        let have = image.config.platform();
        if have.fits(&platform) {
            return Ok(());
        }
        Err(EngineError::NotFound(format!(
            "image with reference {name} was found but its platform ({have}) does not match the specified platform ({platform})"
        )))
    }
}

/// Refuses CPUs and memory nodes that are none, or that this machine does not give.
fn check_cpusets(limits: &Resources, available: &(String, String)) -> Result<(), EngineError> {
    let sets =
        [(&limits.cpuset_cpus, &available.0, "cpuset cpus", "CPUs"), (&limits.cpuset_mems, &available.1, "cpuset mems", "memory nodes")];
    for (wanted, available, kind, what) in sets {
        let Some(wanted_ranges) = ranges(wanted) else { return invalid(format!("Invalid value {wanted} for {kind}")) };
        // Where the machine does not tell, the kernel decides.
        let Some(given) = ranges(available).filter(|given| !given.is_empty()) else { continue };
        let is_given = |number: u32| given.iter().any(|(first, last)| (*first..=*last).contains(&number));
        if !wanted_ranges.iter().all(|(first, last)| (*first..=*last).all(is_given)) {
            return invalid(format!("Requested {what} are not available - requested {wanted}, available: {available}"));
        }
    }
    Ok(())
}

/// `0-2,7` as first and last of each part; `None` when it is no such list.
fn ranges(list: &str) -> Option<Vec<(u32, u32)>> {
    /// More than any machine has.
    const HIGHEST: u32 = 8191;
    list.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last && last <= HIGHEST).then_some((first, last))
        })
        .collect()
}

/// Refuses what is known but not offered, so that nothing is silently dropped.
fn not_yet(host: &HostConfig) -> Result<(), EngineError> {
    let limits = &host.resources;
    let checks: [(bool, &str); 11] = [
        (!host.links.is_empty(), "--link (legacy links come later)"),
        (!host.storage_opt.is_empty(), "--storage-opt (the overlay store has no options)"),
        (!limits.device_requests.is_empty(), "--gpus (device requests come later)"),
        (!host.cgroup.is_empty(), "a cgroup of another container"),
        (!matches!(host.isolation.as_str(), "" | "default"), "--isolation (Windows only)"),
        (limits.cpu_realtime_period != 0 || limits.cpu_realtime_runtime != 0, "--cpu-rt-period and --cpu-rt-runtime"),
        (!limits.blkio_weight_device.is_empty(), "--blkio-weight-device"),
        (
            !(limits.blkio_device_read_bps.is_empty()
                && limits.blkio_device_write_bps.is_empty()
                && limits.blkio_device_read_iops.is_empty()
                && limits.blkio_device_write_iops.is_empty()),
            "--device-read-bps and its like",
        ),
        (!limits.cgroup_parent.is_empty(), "--cgroup-parent of a container (the daemon's holds for all)"),
        (!matches!(host.userns_mode.as_str(), "" | "host"), "--userns (user namespaces come later)"),
        (!matches!(host.volume_driver.as_str(), "" | "local"), "--volume-driver (plugins)"),
    ];
    for (wanted, what) in checks {
        if wanted {
            return unsupported(what);
        }
    }
    if !matches!(host.runtime.as_str(), "" | "runc" | "io.containerd.runc.v2" | "sampan") {
        return invalid(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    match host.log.driver.as_str() {
        "" | "json-file" | "local" | "none" => Ok(()),
        other => Err(EngineError::Invalid(format!("error looking up logging plugin {other}: plugin \"{other}\" not found"))),
    }
}

fn check_modes(host: &HostConfig) -> Result<(), EngineError> {
    let joined = |mode: &str| mode.starts_with("container:");
    if !(matches!(host.pid_mode.as_str(), "" | "private" | "host") || joined(&host.pid_mode)) {
        return invalid(format!("invalid PID mode: {}", host.pid_mode));
    }
    if !(matches!(host.ipc_mode.as_str(), "" | "private" | "host" | "none" | "shareable") || joined(&host.ipc_mode)) {
        return invalid(format!("invalid IPC mode: {}", host.ipc_mode));
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return invalid(format!("invalid UTS mode: {}", host.uts_mode));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return invalid(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpusets_name_what_the_machine_has() {
        let check = |cpus: &str, mems: &str| {
            let limits = Resources { cpuset_cpus: cpus.into(), cpuset_mems: mems.into(), ..Resources::default() };
            check_cpusets(&limits, &("0-1,4".into(), "0".into())).map_err(|error| error.to_string())
        };
        assert_eq!(check("0,4", "0"), Ok(()));
        assert_eq!(check("", ""), Ok(()));
        assert_eq!(check("0-2", "").unwrap_err(), "Requested CPUs are not available - requested 0-2, available: 0-1,4");
        assert_eq!(check("", "1").unwrap_err(), "Requested memory nodes are not available - requested 1, available: 0");
        for wrong in ["x", "1-0", "0--1", "0-99999999"] {
            assert_eq!(check(wrong, "").unwrap_err(), format!("Invalid value {wrong} for cpuset cpus"));
        }
    }

    #[test]
    fn security_options() {
        let read = |options: &[&str]| security(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>());
        assert!(read(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(!read(&["no-new-privileges=false"]).unwrap().no_new_privileges);
        assert!(read(&["writable-cgroups"]).unwrap().writable_cgroups);
        assert!(!read(&["writable-cgroups=false"]).unwrap().writable_cgroups);
        assert_eq!(read(&["writable-cgroups=1"]).unwrap_err().to_string(), "invalid --security-opt 2: \"writable-cgroups=1\"");
        assert_eq!(read(&["seccomp=unconfined"]).unwrap().seccomp, Seccomp::Unconfined);
        assert_eq!(read(&["nosuch=1"]).unwrap_err().to_string(), "invalid --security-opt 2: \"nosuch=1\"");
        assert_eq!(read(&["nosuch"]).unwrap_err().to_string(), "invalid --security-opt 1: \"nosuch\"");
    }
}
