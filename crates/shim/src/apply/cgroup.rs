//! Cgroups of a container, v1 and v2: made, limited, joined, asked.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::Fault;
use crate::plan::CgroupPlan;
use crate::protocol::Stage;

/// Makes the directories with their parents and writes the limits.
///
/// # Errors
/// With the file that refused a value.
pub fn make(plan: &CgroupPlan) -> Result<(), Fault> {
    for directory in &plan.directories {
        let path = Path::new(&directory.path);
        if let Err(error) = fs::create_dir_all(path) {
            if directory.optional {
                continue;
            }
            return Err(Fault::new(Stage::Cgroup {}, &directory.path)(error));
        }
        for (file, value) in &directory.writes {
            let place = path.join(file);
            if let Err(error) = write(&place, value)
                && !directory.optional
                && !(error.kind() == io::ErrorKind::NotFound && is_optional_file(file))
            {
                return Err(Fault::new(Stage::Cgroup {}, format!("{}={value}", place.display()))(error));
            }
        }
    }
    if !plan.device_program.is_empty()
        && let Some(directory) = plan.directories.first()
    {
        let cgroup = open(&directory.path)?;
        sampan_sys::bpf::attach_device_filter(&cgroup, &plan.device_program).map_err(Fault::new(Stage::Cgroup {}, "device filter"))?;
    }
    Ok(())
}

/// Files that some kernels lack without harm. Block traffic has one file of two for its weight, if any.
#[must_use]
pub fn is_optional_file(file: &str) -> bool {
    file.contains("memsw") || file.contains("swap") || BLOCK_WEIGHTS.contains(&file)
}

/// Where the weight of block traffic is written, v1 and v2, whichever scheduler there is.
pub const BLOCK_WEIGHTS: [&str; 4] = ["blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight"];

fn write(path: &Path, value: &str) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    io::Write::write_all(&mut &file, value.as_bytes())
}

fn open(path: &str) -> Result<OwnedFd, Fault> {
    File::open(path).map(OwnedFd::from).map_err(Fault::new(Stage::Cgroup {}, path))
}

/// v2: the directory that a process is to be born in.
pub(crate) fn birth_place(plan: &CgroupPlan) -> Result<Option<OwnedFd>, Fault> {
    match plan.directories.first() {
        Some(directory) if plan.unified => open(&directory.path).map(Some),
        _ => Ok(None),
    }
}

/// v1: puts a process into every directory.
pub(crate) fn join(plan: &CgroupPlan, pid: u32) -> Result<(), Fault> {
    if plan.unified {
        return Ok(());
    }
    for directory in &plan.directories {
        let procs = Path::new(&directory.path).join("cgroup.procs");
        if let Err(error) = write(&procs, &pid.to_string())
            && !directory.optional
        {
            return Err(Fault::new(Stage::Cgroup {}, procs.display().to_string())(error));
        }
    }
    Ok(())
}

/// Whether the kernel killed a process of these cgroups for memory (`oom_kill` counters, v1 since Linux 4.13).
#[must_use]
pub fn oom_killed(plan: &CgroupPlan) -> bool {
    let counted = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
    };
    plan.directories.iter().any(|directory| {
        let path = Path::new(&directory.path);
        counted(path.join("memory.events")) || counted(path.join("memory.oom_control"))
    })
}

/// Kills every process in these cgroups: for what outlives process 1 in a shared pid namespace.
pub(crate) fn kill(plan: &CgroupPlan) {
    for directory in &plan.directories {
        let path = Path::new(&directory.path);
        if plan.unified && write(&path.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in text.lines().filter_map(|line| line.parse::<u32>().ok()) {
            if let Ok(pidfd) = sampan_sys::process::pidfd_open(pid) {
                drop(sampan_sys::process::send_signal(std::os::fd::AsFd::as_fd(&pidfd), 9));
            }
        }
        if !text.is_empty() {
            return;
        }
    }
}
