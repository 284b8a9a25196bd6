//! Volumes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A volume of the local driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeView {
    /// Its name.
    pub name: String,
    /// Always `local`.
    pub driver: String,
    /// Nanoseconds since the epoch.
    pub created: i64,
    /// Directory on the host.
    pub mountpoint: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Made without a name.
    pub anonymous: bool,
    /// How many containers use it, and its bytes, when asked for.
    #[serde(skip)]
    pub usage: Option<(u64, u64)>,
}
