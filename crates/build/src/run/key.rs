//! Keys of results: a hash over everything that goes into one, part by part, so that a changed part can be named.

use std::collections::BTreeMap;

/// What goes into a result, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parts(BTreeMap<String, String>);

impl Parts {
    /// Adds a part.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// As text.
    pub(crate) fn print(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// The key.
    pub(crate) fn key(&self) -> String {
        blake3::hash(self.print().as_bytes()).to_hex().to_string()
    }

    /// Which parts differ from those of an earlier result.
    pub(crate) fn changes(&self, earlier: &str) -> String {
        let earlier: BTreeMap<String, String> = serde_json::from_str(earlier).unwrap_or_default();
        let mut changed: Vec<String> = Vec::new();
        for name in self.0.keys().chain(earlier.keys().filter(|name| !self.0.contains_key(*name))) {
            let (before, now) = (earlier.get(name), self.0.get(name));
            if before == now {
                continue;
            }
            let shown = |value: Option<&String>| value.filter(|value| value.len() <= 60 && !is_hash(value)).cloned();
            match (shown(before), shown(now)) {
                (Some(before), Some(now)) => changed.push(format!("{name} changed from {before} to {now}")),
                _ => changed.push(format!("{name} changed")),
            }
        }
        changed.join(", ")
    }
}

fn is_hash(text: &str) -> bool {
    text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
}

/// The hash of a text.
pub(crate) fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts_and_changes_are_named() {
        let parts = Parts::default().with("command", "make").with("files", hash("a"));
        let other = Parts::default().with("command", "make all").with("files", hash("b"));
        assert_ne!(parts.key(), other.key());
        assert_eq!(parts.key(), Parts::default().with("files", hash("a")).with("command", "make").key());
        assert_eq!(other.changes(&parts.print()), "command changed from make to make all, files changed");
        assert_eq!(parts.changes(&parts.print()), "");
        assert!(!parts.changes("no json").is_empty());
    }
}
