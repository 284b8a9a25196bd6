//! When a container that ended starts again. Pure.

use crate::model::{RestartPolicy, RestartPolicyName, State};

/// The first delay, in milliseconds.
const FIRST_DELAY: u64 = 100;
/// The longest delay, in milliseconds.
const LONGEST_DELAY: u64 = 60_000;
/// A run of this many nanoseconds counts as healthy and resets the delay.
const HEALTHY: i64 = 10_000_000_000;

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It stays ended.
    Stay,
    /// It starts again after so many milliseconds.
    After(u64),
}

/// Decides after an end. `last_delay` is the delay before the run that ended, 0 for the first.
pub(crate) fn after_exit(policy: RestartPolicy, state: &State, stopping: bool, last_delay: u64) -> Next {
    if stopping {
        return Next::Stay;
    }
    let again = match policy.name {
        RestartPolicyName::No => false,
        RestartPolicyName::Always | RestartPolicyName::UnlessStopped => true,
        RestartPolicyName::OnFailure => {
            state.exit_code != 0 && (policy.maximum_retry_count == 0 || state.restart_count < policy.maximum_retry_count)
        }
    };
    if !again {
        return Next::Stay;
    }
    let healthy = state.finished_at.saturating_sub(state.started_at) >= HEALTHY;
    let delay = if last_delay == 0 || healthy { FIRST_DELAY } else { (last_delay * 2).min(LONGEST_DELAY) };
    Next::After(delay)
}

/// Whether a container that does not run is started when the daemon starts.
pub(crate) fn at_boot(policy: RestartPolicy, state: &State, was_running: bool) -> bool {
    match policy.name {
        RestartPolicyName::Always => state.has_been_started,
        RestartPolicyName::UnlessStopped => state.has_been_started && !state.manually_stopped,
        RestartPolicyName::OnFailure => was_running && state.exit_code != 0,
        RestartPolicyName::No => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(exit_code: i32, restart_count: u32, ran_seconds: i64) -> State {
        State {
            exit_code,
            restart_count,
            started_at: 1,
            finished_at: 1 + ran_seconds * 1_000_000_000,
            has_been_started: true,
            ..State::default()
        }
    }

    fn policy(name: RestartPolicyName, maximum_retry_count: u32) -> RestartPolicy {
        RestartPolicy { name, maximum_retry_count }
    }

    #[test]
    fn the_delay_doubles_up_to_a_minute_and_resets_after_a_healthy_run() {
        let always = policy(RestartPolicyName::Always, 0);
        let mut delay = 0;
        let mut seen = Vec::new();
        for _ in 0..12 {
            let Next::After(next) = after_exit(always, &state(0, 0, 1), false, delay) else { panic!("always restarts") };
            seen.push(next);
            delay = next;
        }
        assert_eq!(seen[..4], [100, 200, 400, 800]);
        assert_eq!(seen[11], 60_000);
        assert_eq!(after_exit(always, &state(0, 0, 10), false, delay), Next::After(100));
    }

    #[test]
    fn on_failure_counts() {
        let twice = policy(RestartPolicyName::OnFailure, 2);
        assert_eq!(after_exit(twice, &state(1, 1, 0), false, 100), Next::After(200));
        assert_eq!(after_exit(twice, &state(1, 2, 0), false, 200), Next::Stay);
        assert_eq!(after_exit(twice, &state(0, 0, 0), false, 0), Next::Stay);
        assert_eq!(after_exit(policy(RestartPolicyName::OnFailure, 0), &state(1, 99, 0), false, 100), Next::After(200));
    }

    #[test]
    fn a_stop_wins_over_every_policy_and_unless_stopped_remembers_it() {
        assert_eq!(after_exit(policy(RestartPolicyName::Always, 0), &state(1, 0, 0), true, 0), Next::Stay);
        let stopped = State { manually_stopped: true, ..state(0, 0, 1) };
        assert!(at_boot(policy(RestartPolicyName::Always, 0), &stopped, false));
        assert!(!at_boot(policy(RestartPolicyName::UnlessStopped, 0), &stopped, false));
    }
}
