//! What /proc says of processes: which there are, their memory, their CPU time.

use anyhow::Context as _;

/// Process ids whose command line begins so, behind any folder.
pub(super) fn named(name: &str) -> Vec<u32> {
    let pids =
        std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let fits = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(first).rsplit('/').next().is_some_and(|base| base.starts_with(name))
    };
    pids.filter(fits).collect()
}

/// The same, of those alone that live in the pid namespace of another process: other engines may run on the machine.
pub(super) fn named_beside(name: &str, pid: u32) -> Vec<u32> {
    let space = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = space(pid);
    named(name).into_iter().filter(|pid| wanted.is_some() && space(*pid) == wanted).collect()
}

/// Proportional set size: KiB.
pub(super) fn proportional(pid: u32) -> Option<f64> {
    field(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")
}

/// Resident set size: KiB.
pub(super) fn resident(pid: u32) -> anyhow::Result<f64> {
    field(&std::fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:").context("VmRSS")
}

fn field(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

/// CPU seconds that processes and their children that ended have used so far.
pub(super) fn cpu_seconds(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| own_cpu(*pid) + children_cpu(*pid)).sum()
}

/// Nanoseconds on a processor where only one thread counts, as they are finer; else ticks, which keep those of ended threads.
fn own_cpu(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, std::iter::Iterator::count);
    let fine = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let nanoseconds = fine.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    if threads == 1 { nanoseconds / 1e9 } else { ticks(pid, 11) }
}

fn children_cpu(pid: u32) -> f64 {
    ticks(pid, 13)
}

/// Two neighbouring fields of `stat`, counted from behind the name, in seconds.
fn ticks(pid: u32, first: usize) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(first).take(2);
    fields.filter_map(|word| word.parse::<f64>().ok()).sum::<f64>() / 100.0
}
