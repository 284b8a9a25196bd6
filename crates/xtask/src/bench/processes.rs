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

/// CPU seconds that processes have used so far, all threads; what has ended counts nothing.
pub(super) fn cpu_seconds(pids: &[u32]) -> f64 {
    // The nanoseconds on a processor of each thread: finer than the ticks of `stat`, and what ended threads used is small.
    let thread = |path: std::path::PathBuf| -> Option<f64> {
        std::fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    let threads = pids.iter().flat_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
    threads.filter_map(|entry| thread(entry.path())).sum::<f64>() / 1e9
}
