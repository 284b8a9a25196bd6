//! Signals to a program that is only beginning.
//!
//! The kernel drops a signal for the first process of a pid namespace that has no handler for it (`pid_namespaces`(7)). Containers
//! start faster here than programs install their handlers: a stop right after a start would be lost, and end in a kill when its
//! whole time is over. So in the first moments of a container its signals wait for the handler.

use std::time::{Duration, Instant};

use sampan_base::Cancel;

/// How old a container is whose program has certainly begun.
const CHILDHOOD: Duration = Duration::from_millis(500);
/// How often is looked.
const PACE: Duration = Duration::from_millis(1);

/// What no process can handle, or what works without a handler: KILL, CONT, STOP.
const UNHANDLED: [i32; 3] = [9, 18, 19];

/// Waits until process `pid`, a program since `since`, would notice a signal; not longer than `patience`, nor than it is young.
pub(super) fn await_handler(pid: u32, since: Instant, number: i32, patience: Duration) {
    if UNHANDLED.contains(&number) {
        return;
    }
    let end = (since + CHILDHOOD).min(Instant::now() + patience.min(CHILDHOOD));
    let pause = Cancel::new();
    let drops = || std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| drops(&status, number));
    while Instant::now() < end && drops() {
        let _timed_out = pause.wait_timeout(PACE);
    }
}

/// Whether the kernel drops a signal for a process whose `/proc/PID/status` (proc(5)) that is.
fn drops(status: &str, number: i32) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map_or("", str::trim);
    // One that ended has handlers no more.
    if field("State:").starts_with(['Z', 'X']) {
        return false;
    }
    let mut ids = field("NSpid:").split_whitespace();
    let is_first = ids.clone().count() > 1 && ids.next_back() == Some("1");
    let Some(bit) = u32::try_from(number - 1).ok().and_then(|place| 1_u64.checked_shl(place)) else { return false };
    let has = |name: &str| u64::from_str_radix(field(name), 16).is_ok_and(|mask| mask & bit != 0);
    is_first && !["SigBlk:", "SigIgn:", "SigCgt:"].into_iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ids: &str, blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tsh\nState:\tS (sleeping)\nNSpid:\t{ids}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
        )
    }

    #[test]
    fn only_a_first_process_without_a_handler_drops_a_signal() {
        let term = 1 << 14;
        assert!(drops(&status("4711\t1", 0, 0, 0), 15));
        assert!(drops(&status("4711\t1", 0, 0, term), 2));
        assert!(!drops(&status("4711\t1", 0, 0, term), 15));
        assert!(!drops(&status("4711\t1", 0, term, 0), 15));
        // It is kept until it is taken.
        assert!(!drops(&status("4711\t1", term, 0, 0), 15));
        // Another process, or one in the namespace of the host, ends of it.
        assert!(!drops(&status("4711\t7", 0, 0, 0), 15));
        assert!(!drops(&status("1", 0, 0, 0), 15));
        assert!(!drops(&status("4711\t1", 0, 0, 0).replace("S (sleeping)", "Z (zombie)"), 15));
    }

    #[test]
    fn nonsense_drops_nothing() {
        for text in ["", "NSpid:", "NSpid:\t1\t1", "SigCgt:\tzz\n"] {
            let _either = drops(text, 15);
        }
        assert!(!drops(&status("4711\t1", 0, 0, 0), 0) && !drops(&status("4711\t1", 0, 0, 0), 200));
    }

    #[test]
    fn a_signal_waits_no_longer_than_allowed() {
        let begun = Instant::now();
        await_handler(std::process::id(), begun, 15, Duration::from_secs(60));
        await_handler(u32::MAX, begun, 15, Duration::from_secs(60));
        assert!(begun.elapsed() < CHILDHOOD);
    }
}
