//! What the prune commands share, and the pruning of containers.

use std::collections::BTreeMap;

use sampan_base::{Event, EventKind, EventSink as _};

use crate::Engine;
use crate::error::EngineError;
use crate::lifecycle::RemoveOptions;
use crate::model::Status;

/// Which things a prune may take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneFilter {
    /// Only things made before this moment, in nanoseconds since the epoch.
    pub until: Option<i64>,
    /// Only things with all of these labels (`None`: any value).
    pub labels: Vec<(String, Option<String>)>,
    /// Only things without any of these labels.
    pub not_labels: Vec<(String, Option<String>)>,
}

/// What a prune took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Ids or names.
    pub deleted: Vec<String>,
    /// Bytes.
    pub space: u64,
}

impl PruneFilter {
    /// Whether the label conditions hold.
    #[must_use]
    pub fn fits_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): &(String, Option<String>)| {
            labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|wanted| wanted == found))
        };
        self.labels.iter().all(has) && !self.not_labels.iter().any(has)
    }
}

impl Engine {
    /// Removes every container that does not run.
    ///
    /// # Errors
    /// A failing disk.
    pub fn prune_containers(&self, filter: &PruneFilter) -> Result<PruneReport, EngineError> {
        let mut report = PruneReport::default();
        for container in self.table().all() {
            let (id, fits) = {
                let facts = container.facts();
                let idle = matches!(facts.state.status, Status::Created | Status::Exited | Status::Dead);
                let old = filter.until.is_none_or(|until| facts.spec.created < until);
                (facts.spec.id.clone(), idle && old && filter.fits_labels(&facts.spec.config.labels))
            };
            if !fits {
                continue;
            }
            let size = crate::disk::tree_size(&self.container_folder(&id).join("upper"));
            if self.remove(&id, RemoveOptions::default()).is_ok() {
                report.space += size;
                report.deleted.push(id);
            }
        }
        self.events().publish(Event {
            kind: EventKind::Container,
            action: "prune".into(),
            id: String::new(),
            attributes: vec![("reclaimed".into(), report.space.to_string())],
            time_nano: 0,
        });
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_conditions() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        let filter = |labels: &[(&str, Option<&str>)], not: &[(&str, Option<&str>)]| {
            let own = |list: &[(&str, Option<&str>)]| list.iter().map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned))).collect();
            PruneFilter { until: None, labels: own(labels), not_labels: own(not) }
        };
        assert!(filter(&[], &[]).fits_labels(&labels));
        assert!(filter(&[("a", None), ("a", Some("1"))], &[("c", None)]).fits_labels(&labels));
        assert!(!filter(&[("a", Some("2"))], &[]).fits_labels(&labels));
        assert!(!filter(&[], &[("b", None)]).fits_labels(&labels));
    }
}
