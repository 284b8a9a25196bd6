//! Image configs: the JSON document whose digest is the image's id.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{DiffId, Platform};

/// The largest config that is read.
const LIMIT: usize = 8 << 20;

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Larger than 8 MiB.
    #[error("image config is larger than 8 MiB")]
    TooLarge,
    /// Not JSON of the right form.
    #[error("invalid image config: {0}")]
    Malformed(String),
    /// Fewer layers than history says. Layers that history does not know are common.
    #[error("invalid image config: {0} layers, but history has {1} that are not empty")]
    Layers(usize, usize),
}

/// `null` and a missing field both mean the default.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// An image config. Fields we do not know are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `amd64`, …
    #[serde(deserialize_with = "nullable")]
    pub architecture: String,
    /// What runs.
    #[serde(deserialize_with = "nullable")]
    pub config: ContainerConfig,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub author: String,
    /// Legacy: message of a commit.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub comment: String,
    /// How it was made.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub history: Vec<History>,
    /// `linux`.
    #[serde(deserialize_with = "nullable")]
    pub os: String,
    /// `v8`, …
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub variant: String,
    /// Its layers.
    #[serde(deserialize_with = "nullable")]
    pub rootfs: RootFs,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// What an image presets for containers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `user[:group]`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub user: String,
    /// `80/tcp` to nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `KEY=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Health probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Windows.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "nullable")]
    pub args_escaped: bool,
    /// Paths to nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub volumes: BTreeMap<String, Value>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub working_dir: String,
    /// Triggers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`, …
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub stop_signal: String,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell of shell-form instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A health probe; times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", line]`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub test: Vec<String>,
    /// Between probes.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "nullable")]
    pub interval: i64,
    /// For one probe.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "nullable")]
    pub timeout: i64,
    /// Start-up.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "nullable")]
    pub start_period: i64,
    /// Between probes of the start-up.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "nullable")]
    pub start_interval: i64,
    /// Failures in a row.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "nullable")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub created_by: String,
    /// Who.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub author: String,
    /// A message.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub comment: String,
    /// It made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "nullable")]
    pub empty_layer: bool,
}

/// An image's layers, lowest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Lowest first.
    #[serde(deserialize_with = "nullable")]
    pub diff_ids: Vec<DiffId>,
}

impl ImageConfig {
    /// What the image runs on.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform { os: self.os.clone(), architecture: self.architecture.clone(), variant: self.variant.clone() }
    }

    /// Reads a config.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() > LIMIT {
            return Err(ConfigError::TooLarge);
        }
        let config: Self = serde_json::from_slice(bytes).map_err(|error| ConfigError::Malformed(error.to_string()))?;
        let made = config.history.iter().filter(|entry| !entry.empty_layer).count();
        if made > config.rootfs.diff_ids.len() {
            return Err(ConfigError::Layers(config.rootfs.diff_ids.len(), made));
        }
        Ok(config)
    }

    /// The document's bytes.
    #[must_use]
    pub fn print(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unknown_fields_and_nulls_survive() {
        let text = r#"{"architecture":"amd64","config":{"Cmd":["sh"],"Env":null,"Labels":null,"Odd":1},"created":"2024-01-01T00:00:00Z","os":"linux","rootfs":{"type":"layers","diff_ids":null},"x":{"y":2}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd, Some(vec!["sh".to_owned()]));
        let again = ImageConfig::parse(&config.print()).unwrap();
        assert_eq!(again, config);
        assert!(String::from_utf8(again.print()).unwrap().contains("\"Odd\":1"));
    }

    #[test]
    fn history_and_layers_must_agree() {
        let text = r#"{"history":[{"created_by":"x"}],"rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert!(ImageConfig::parse(text.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either = ImageConfig::parse(&bytes);
        }
    }
}
