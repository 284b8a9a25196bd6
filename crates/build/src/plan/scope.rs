//! What a stage has in scope while it is planned: variables in the order in which they were set.

use std::collections::BTreeMap;

/// Variables. Setting one again moves it to the end, as BuildKit does; that order is the order of a command's environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables {
    values: BTreeMap<String, (usize, String)>,
    next: usize,
}

impl Variables {
    pub(super) fn set(&mut self, key: &str, value: &str) {
        self.values.insert(key.to_owned(), (self.next, value.to_owned()));
        self.next += 1;
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|(_, value)| value.as_str())
    }

    /// About how many bytes they have.
    pub(super) fn weight(&self) -> usize {
        self.values.iter().map(|(key, (_, value))| key.len() + value.len() + 96).sum()
    }

    /// The names, in order.
    pub(super) fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<(usize, &str)> = self.values.iter().map(|(key, (number, _))| (*number, key.as_str())).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// `KEY=value`, in order.
    pub(super) fn lines(&self) -> Vec<String> {
        self.keys().into_iter().map(|key| format!("{key}={}", self.get(key).unwrap_or_default())).collect()
    }
}

/// Sets a line of an image's environment, where it stands or at the end.
pub(crate) fn set_line(lines: &mut Vec<String>, key: &str, value: &str) {
    let line = format!("{key}={value}");
    match lines.iter_mut().find(|other| other.split('=').next() == Some(key)) {
        Some(other) => *other = line,
        None => lines.push(line),
    }
}

/// Go's `path.Join` of a directory and a path, cleaned; the result is absolute.
pub(crate) fn join(directory: &str, path: &str) -> String {
    sampan_gotext::ignore::clean(&if path.starts_with('/') { path.to_owned() } else { format!("/{directory}/{path}") })
}

/// A destination: relative to the working directory, its trailing slash kept because it means a directory.
pub(super) fn destination(directory: &str, path: &str) -> String {
    let path = if path.is_empty() || path == "." { "./" } else { path };
    let mut out = join(directory, path);
    if out != "/" && (path.ends_with('/') || path.ends_with("/.")) {
        out.push('/');
    }
    out
}
