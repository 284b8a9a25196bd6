//! The client's configuration file, `config.json` of `DOCKER_CONFIG` or `~/.docker`, and the contexts beside it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::error::{CliError, Outcome, errno_text};

/// Largest file that is read here.
const LARGEST: u64 = 16 << 20;

/// Where the client's files lie, and what `config.json` says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// What the file holds; an empty object without one.
    pub(crate) value: Value,
}

impl Config {
    /// Reads the file of a folder.
    ///
    /// # Errors
    /// When it is there and cannot be read or is no JSON object.
    pub(crate) fn read(folder: PathBuf) -> Outcome<Self> {
        let path = folder.join("config.json");
        let value = match read_small(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| CliError::new(format!("WARNING: Error parsing config file ({}): {error}", path.display())))?,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                Value::Object(serde_json::Map::default())
            }
            Err(error) => {
                return Err(CliError::new(format!("WARNING: Error loading config file: open {}: {}", path.display(), errno_text(&error))));
            }
        };
        Ok(Self { folder, value })
    }

    /// A text of the file.
    #[must_use]
    pub(crate) fn text(&self, key: &str) -> &str {
        self.value.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Changes a key and writes the file; `None` takes the key out. Another program never sees half a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn set(&mut self, key: &str, value: Option<Value>) -> Outcome<()> {
        let path = self.folder.join("config.json");
        let Some(map) = self.value.as_object_mut() else { return Err(CliError::new(format!("{} holds no JSON object", path.display()))) };
        match value {
            Some(value) => drop(map.insert(key.to_owned(), value)),
            None => drop(map.remove(key)),
        }
        make_folder(&self.folder)?;
        let mut text = String::new();
        write_tabbed(&self.value, 0, &mut text);
        sampan_durable::write_atomic_with_mode(&path, text.as_bytes(), 0o600)
            .map_err(|error| CliError::file("write", path.display(), &error))
    }

    /// The folder of a context's description.
    fn meta(&self, name: &str) -> PathBuf {
        self.folder.join("contexts/meta").join(hex::encode(Sha256::digest(name.as_bytes()))).join("meta.json")
    }

    /// The folder of a context's certificates.
    #[must_use]
    pub(crate) fn tls(&self, name: &str) -> PathBuf {
        self.folder.join("contexts/tls").join(hex::encode(Sha256::digest(name.as_bytes())))
    }

    /// A context by name.
    ///
    /// # Errors
    /// `context "x": context not found: open …`.
    pub(crate) fn context(&self, name: &str) -> Outcome<Context> {
        let path = self.meta(name);
        let text = read_small(&path).map_err(|error| {
            CliError::new(format!("context \"{name}\": context not found: open {}: {}", path.display(), errno_text(&error)))
        })?;
        let value = serde_json::from_slice(&text)
            .map_err(|error| CliError::new(format!("context \"{name}\": parsing {}: {error}", path.display())))?;
        Ok(Context { name: name.to_owned(), value })
    }

    /// All contexts that were made, sorted by name.
    #[must_use]
    pub(crate) fn contexts(&self) -> Vec<Context> {
        let Ok(folders) = std::fs::read_dir(self.folder.join("contexts/meta")) else { return Vec::new() };
        let mut contexts: Vec<Context> = folders
            .filter_map(|folder| {
                let value: Value = serde_json::from_slice(&read_small(&folder.ok()?.path().join("meta.json")).ok()?).ok()?;
                Some(Context { name: value.get("Name")?.as_str()?.to_owned(), value })
            })
            .collect();
        contexts.sort_by(|left, right| left.name.cmp(&right.name));
        contexts
    }

    /// Writes a context.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn put_context(&self, context: &Context) -> Outcome<()> {
        let path = self.meta(&context.name);
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let text = context.value.to_string();
        sampan_durable::write_atomic_with_mode(&path, text.as_bytes(), 0o644)
            .map_err(|error| CliError::file("write", path.display(), &error))
    }

    /// Removes a context.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove_context(&self, name: &str) -> Outcome<()> {
        let meta = self.meta(name);
        for folder in [meta.parent(), Some(self.tls(name).as_path())].into_iter().flatten() {
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CliError::file("remove", folder.display(), &error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A named way to an engine.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Its name.
    pub(crate) name: String,
    /// `{"Name":…,"Metadata":{"Description":…},"Endpoints":{"docker":{"Host":…,"SkipTLSVerify":…}}}`.
    pub(crate) value: Value,
}

impl Context {
    /// A context with an endpoint.
    #[must_use]
    pub(crate) fn new(name: &str, description: &str, host: &str, skip_verify: bool) -> Self {
        let metadata = if description.is_empty() { serde_json::json!({}) } else { serde_json::json!({ "Description": description }) };
        let value =
            serde_json::json!({"Name": name, "Metadata": metadata, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip_verify}}});
        Self { name: name.to_owned(), value }
    }

    /// Where the engine listens.
    #[must_use]
    pub(crate) fn host(&self) -> &str {
        self.value.pointer("/Endpoints/docker/Host").and_then(Value::as_str).unwrap_or_default()
    }

    /// What the user wrote about it.
    #[must_use]
    pub(crate) fn description(&self) -> &str {
        self.value.pointer("/Metadata/Description").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A file that is not too large.
fn read_small(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(LARGEST).read_to_end(&mut text)?;
    Ok(text)
}

fn make_folder(path: &Path) -> Outcome<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| CliError::file("mkdir", path.display(), &error))
}

/// JSON with tabs, as Docker writes its file.
fn write_tabbed(value: &Value, depth: usize, out: &mut String) {
    let indent = |out: &mut String, depth: usize| out.extend(std::iter::repeat_n('\t', depth));
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push_str("{\n");
            for (index, (key, value)) in map.iter().enumerate() {
                indent(out, depth + 1);
                out.push_str(&Value::String(key.clone()).to_string());
                out.push_str(": ");
                write_tabbed(value, depth + 1, out);
                out.push_str(if index + 1 < map.len() { ",\n" } else { "\n" });
            }
            indent(out, depth);
            out.push('}');
        }
        Value::Array(list) if !list.is_empty() => {
            out.push_str("[\n");
            for (index, value) in list.iter().enumerate() {
                indent(out, depth + 1);
                write_tabbed(value, depth + 1, out);
                out.push_str(if index + 1 < list.len() { ",\n" } else { "\n" });
            }
            indent(out, depth);
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::read(folder.path().join("new")).unwrap();
        config.set("currentContext", Some("far".into())).unwrap();
        config.put_context(&Context::new("far", "over there", "tcp://10.0.0.1:2375", false)).unwrap();
        let config = Config::read(folder.path().join("new")).unwrap();
        assert_eq!(config.text("currentContext"), "far");
        let context = config.context("far").unwrap();
        assert_eq!((context.host(), context.description()), ("tcp://10.0.0.1:2375", "over there"));
        assert_eq!(config.contexts().len(), 1);
        config.remove_context("far").unwrap();
        assert!(config.context("far").unwrap_err().text.starts_with("context \"far\": context not found: open "));
    }

    #[test]
    fn a_file_that_is_no_json_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), "{").unwrap();
        assert!(Config::read(folder.path().into()).unwrap_err().text.starts_with("WARNING: Error parsing config file"));
    }
}
