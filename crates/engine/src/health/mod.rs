//! Health: a running container's probe is asked now and then whether the container does its work.
//!
//! `rules` says what is asked and what the answers mean, `schedule` when, `run` asks. A probe is an exec like a user's, events
//! included. The verdict is in the container's state; its row is written when the verdict changes, not at every probe: what a
//! killed daemon forgets of the log its successor asks again, and thousands of idle probes leave the disk in peace.

mod rules;
mod run;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use sampan_base::Cancel;

use self::rules::Rules;
use self::schedule::Watched;
use crate::Engine;
use crate::clock;
use crate::model::{HealthStatus, ProbeResult, Status};
use crate::table::{Container, Facts};

pub(crate) use schedule::Schedule;

impl Facts {
    /// A run begins, or another daemon takes it over: nothing is known of its health yet.
    pub(crate) fn begin_health(&mut self) {
        self.end_health();
        if Rules::of(&self.spec.config).is_some() {
            let health = self.state.health.get_or_insert_default();
            health.status = HealthStatus::Starting;
            health.failing_streak = 0;
        }
    }

    /// Nobody probes any more: what is not watched counts as unhealthy, as in the original.
    pub(crate) fn end_health(&mut self) {
        if let Some(watch) = self.probing.take() {
            watch.cancel();
        }
        if let Some(health) = &mut self.state.health {
            health.status = HealthStatus::Unhealthy;
        }
    }
}

impl Engine {
    /// Has a container probed that runs and has a probe; one that is probed already goes on.
    pub(crate) fn watch_health(&self, container: &Arc<Container>) {
        let mut facts = container.facts();
        let Some(rules) = Rules::of(&facts.spec.config) else { return };
        if facts.state.status != Status::Running || facts.probing.is_some() {
            return;
        }
        let watch = Cancel::new();
        facts.probing = Some(watch.clone());
        self.schedule_probe(container, &facts, &rules, watch);
    }

    fn schedule_probe(&self, container: &Arc<Container>, facts: &Facts, rules: &Rules, watch: Cancel) {
        let age = Duration::from_nanos(u64::try_from(clock::now_nanos() - facts.state.started_at).unwrap_or(0));
        let status = facts.state.health.as_ref().map_or(HealthStatus::Starting, |health| health.status);
        self.health().add(Watched { container: Arc::downgrade(container), watch }, rules.delay(status, age));
    }

    /// Probes a container once, on the caller's thread, and has it probed again later.
    fn probe(&self, watched: &Watched) {
        let Some(container) = watched.container.upgrade() else { return };
        if watched.watch.is_cancelled() || self.is_shutting_down() {
            return;
        }
        let Some(rules) = Rules::of(&container.facts().spec.config) else { return };
        let start = clock::now_nanos();
        let (exit_code, output) = self.run_probe(&container.id(), &rules);
        let result = ProbeResult { start, end: clock::now_nanos(), exit_code, output };
        let changed = {
            let mut facts = container.facts();
            // It was stopped or paused meanwhile: that says nothing of its health.
            if watched.watch.is_cancelled() {
                return;
            }
            let started_at = facts.state.started_at;
            let health = facts.state.health.get_or_insert_default();
            let changed = rules.take(health, result, started_at).then_some(health.status);
            if changed.is_some()
                && let Err(error) = self.rows().update_state(&facts.spec.id, &facts.state)
            {
                tracing::error!(container = %facts.spec.id, error = %crate::chain(&error), "cannot write a container's health");
            }
            self.schedule_probe(&container, &facts, &rules, watched.watch.clone());
            changed
        };
        if let Some(status) = changed {
            self.container_event(&container, &format!("health_status: {}", status.name()), &[]);
        }
    }
}
