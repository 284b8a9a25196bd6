//! Platforms: operating system, architecture, variant.

use serde::{Deserialize, Serialize};

/// `os/architecture[/variant]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v7`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// This machine's.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: String::new() }
    }

    /// Whether this is what a wish asks for; what the wish leaves open fits.
    #[must_use]
    pub fn fits(&self, wanted: &Self) -> bool {
        let part = |have: &str, wanted: &str| wanted.is_empty() || have == wanted;
        part(&self.os, &wanted.os) && part(&self.architecture, &wanted.architecture) && part(&self.variant, &wanted.variant)
    }

    /// Parses `linux/amd64`, `linux/arm/v7`; aliases become their proper names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (os, architecture, variant) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
        let word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        if parts.next().is_some() || os.is_empty() || architecture.is_empty() || ![os, architecture, variant].iter().all(|part| word(part))
        {
            return None;
        }
        let (architecture, variant) = match (architecture.to_ascii_lowercase().as_str(), variant) {
            ("x86_64" | "x86-64", variant) => ("amd64".to_owned(), variant),
            ("aarch64", "v8" | "8") => ("arm64".to_owned(), ""),
            ("aarch64", variant) => ("arm64".to_owned(), variant),
            ("armhf", _) => ("arm".to_owned(), "v7"),
            ("armel", _) => ("arm".to_owned(), "v6"),
            (other, variant) => (other.to_owned(), variant),
        };
        Some(Self { architecture, os: os.to_ascii_lowercase(), variant: variant.to_owned() })
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}
