//! What a container's probe is, when it is due, and what its results mean. Pure.

use std::time::Duration;

use crate::model::{Config, Health, HealthStatus, ProbeResult};

/// Results that are kept.
const KEPT: usize = 5;

/// A probe with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// What runs.
    pub(super) arguments: Vec<String>,
    /// How long it may run.
    pub(super) timeout: Duration,
    interval: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Rules {
    /// The probe of a container, if it has one.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let probe = config.healthcheck.as_ref()?;
        let (kind, rest) = probe.test.split_first()?;
        let shell = || config.shell.clone().filter(|shell| !shell.is_empty()).unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
        let mut arguments = match kind.as_str() {
            "CMD" => Vec::new(),
            "CMD-SHELL" => shell(),
            _ => return None,
        };
        arguments.extend_from_slice(rest);
        let time = |nanoseconds: i64, seconds: u64| match u64::try_from(nanoseconds) {
            Ok(0) | Err(_) => Duration::from_secs(seconds),
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
        };
        Some(Self {
            arguments,
            timeout: time(probe.timeout, 30),
            interval: time(probe.interval, 30),
            start_period: time(probe.start_period, 0),
            start_interval: time(probe.start_interval, 5),
            retries: u32::try_from(probe.retries).ok().filter(|retries| *retries > 0).unwrap_or(3),
        })
    }

    /// How long after a start or a probe the next one is due. `age`: since the start.
    pub(super) fn delay(&self, status: HealthStatus, age: Duration) -> Duration {
        let is_starting = age < self.start_period && status == HealthStatus::Starting;
        if is_starting { self.start_interval } else { self.interval }
    }

    /// Takes a result; true: the verdict changed. `started_at` in nanoseconds since the epoch.
    pub(super) fn take(&self, health: &mut Health, result: ProbeResult, started_at: i64) -> bool {
        let before = health.status;
        let age = Duration::from_nanos(u64::try_from(result.start - started_at).unwrap_or(0));
        if result.exit_code == 0 {
            health.failing_streak = 0;
            health.status = HealthStatus::Healthy;
        } else if before != HealthStatus::Starting || age >= self.start_period {
            health.failing_streak = health.failing_streak.saturating_add(1);
            if health.failing_streak >= self.retries {
                health.status = HealthStatus::Unhealthy;
            }
        }
        health.log.push(result);
        let surplus = health.log.len().saturating_sub(KEPT);
        health.log.drain(..surplus);
        health.status != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HealthProbe;

    const SECOND: i64 = 1_000_000_000;

    fn config(test: &[&str]) -> Config {
        let test = test.iter().map(|word| (*word).to_owned()).collect();
        Config { healthcheck: Some(HealthProbe { test, ..HealthProbe::default() }), ..Config::default() }
    }

    fn rules(start_period: i64, retries: i64) -> Rules {
        let mut config = config(&["CMD", "true"]);
        config.healthcheck = config.healthcheck.map(|probe| HealthProbe { start_period: start_period * SECOND, retries, ..probe });
        Rules::of(&config).unwrap()
    }

    fn result(second: i64, exit_code: i32) -> ProbeResult {
        ProbeResult { start: second * SECOND, end: second * SECOND, exit_code, output: String::new() }
    }

    fn starting() -> Health {
        Health { status: HealthStatus::Starting, ..Health::default() }
    }

    #[test]
    fn defaults_and_shells_are_filled_in() {
        let rules = Rules::of(&config(&["CMD-SHELL", "curl -f localhost || exit 1"])).unwrap();
        assert_eq!(rules.arguments, ["/bin/sh", "-c", "curl -f localhost || exit 1"]);
        assert_eq!((rules.interval, rules.timeout), (Duration::from_secs(30), Duration::from_secs(30)));
        assert_eq!((rules.start_period, rules.start_interval, rules.retries), (Duration::ZERO, Duration::from_secs(5), 3));
        let own = Config { shell: Some(vec!["/bin/ash".into(), "-ec".into()]), ..config(&["CMD-SHELL", "x"]) };
        assert_eq!(Rules::of(&own).unwrap().arguments, ["/bin/ash", "-ec", "x"]);
        assert_eq!(Rules::of(&config(&["CMD", "a", "b"])).unwrap().arguments, ["a", "b"]);
    }

    #[test]
    fn nothing_to_run_is_no_probe() {
        for test in [&[][..], &["NONE"], &["OTHER", "x"]] {
            assert_eq!(Rules::of(&config(test)), None, "{test:?}");
        }
        assert_eq!(Rules::of(&Config::default()), None);
    }

    #[test]
    fn failures_count_once_the_start_period_is_over() {
        let (rules, mut health) = (rules(10, 2), starting());
        for second in [1, 5, 9] {
            assert!(!rules.take(&mut health, result(second, 1), 0));
        }
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
        assert!(!rules.take(&mut health, result(10, 1), 0));
        assert!(rules.take(&mut health, result(11, -1), 0));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Unhealthy, 2));
        assert!(rules.take(&mut health, result(12, 0), 0));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 0));
    }

    #[test]
    fn a_success_ends_the_start_period() {
        let (rules, mut health) = (rules(100, 2), starting());
        assert!(rules.take(&mut health, result(1, 0), 0));
        assert!(!rules.take(&mut health, result(2, 2), 0));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 1));
        assert!(rules.take(&mut health, result(3, 2), 0));
    }

    #[test]
    fn five_results_are_kept() {
        let (rules, mut health) = (rules(0, 100), starting());
        for second in 1..=8 {
            rules.take(&mut health, result(second, 1), 0);
        }
        assert_eq!(health.log.iter().map(|result| result.start / SECOND).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    }

    #[test]
    fn the_start_interval_holds_while_starting() {
        let rules = rules(10, 1);
        let delay = |status, seconds| rules.delay(status, Duration::from_secs(seconds)).as_secs();
        assert_eq!(delay(HealthStatus::Starting, 0), 5);
        assert_eq!(delay(HealthStatus::Starting, 10), 30);
        assert_eq!(delay(HealthStatus::Healthy, 0), 30);
    }
}
