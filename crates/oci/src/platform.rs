//! Platforms: operating system, architecture, variant.

use serde::{Deserialize, Serialize};

/// What Docker's parser takes as an operating system, with a version in parentheses; we take it without.
const OS_PATTERN: &str = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$";

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

    /// The same in the form in which platforms are compared (containerd's `platforms.Normalize`).
    #[must_use]
    pub fn normalized(&self) -> Self {
        let (architecture, variant) = (self.architecture.to_ascii_lowercase(), self.variant.to_ascii_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        Self { os: self.os.to_ascii_lowercase(), architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// What a machine of this platform can run, the best first (containerd's `platforms.Only`).
    #[must_use]
    pub fn runnable(&self) -> Vec<Self> {
        let own = self.normalized();
        let with = |architecture: &str, variant: String| Self { os: own.os.clone(), architecture: architecture.to_owned(), variant };
        let version = own.variant.strip_prefix('v').and_then(|digits| digits.parse::<u8>().ok());
        let mut all = vec![own.clone()];
        match own.architecture.as_str() {
            "amd64" => {
                // v1 is the plain one.
                let below = (2..version.unwrap_or(1)).rev().map(|number| with("amd64", format!("v{number}")));
                all.extend(below);
                if version.is_some_and(|version| version > 1) {
                    all.push(with("amd64", String::new()));
                }
                all.push(with("386", String::new()));
            }
            "arm" => all.extend((5..version.unwrap_or(5)).rev().map(|number| with("arm", format!("v{number}")))),
            "arm64" => {
                all = arm64(&own.variant).into_iter().map(|variant| with("arm64", variant)).collect();
                all.extend((5..=8).rev().map(|number| with("arm", format!("v{number}"))));
            }
            _ => {}
        }
        all
    }

    /// How well something of another platform runs here: 0 is best, `None` not at all.
    #[must_use]
    pub fn rank(&self, other: &Self) -> Option<usize> {
        let other = other.normalized();
        self.runnable().iter().position(|own| *own == other)
    }

    /// Parses what a user typed: `linux/arm/v7`, `linux/amd64`, or one of both parts.
    ///
    /// # Errors
    /// The text of containerd's parser.
    pub fn parse_specifier(text: &str) -> Result<Self, String> {
        let quote = |text: &str| format!("{text:?}");
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 3 {
            return Err(format!("{}: cannot parse platform specifier: invalid argument", quote(text)));
        }
        let word =
            |part: &&&str| part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        let wrong = parts.iter().position(|part| word(&part));
        if wrong == Some(0) {
            let (part, pattern) = (quote(parts[0]), quote(OS_PATTERN));
            let rule = format!("OSAndVersion specifier component must match {pattern}: invalid argument");
            return Err(format!("{part} is an invalid OS component of {}: {rule}", quote(text)));
        }
        if let Some(wrong) = wrong.map(|at| parts[at]) {
            return Err(format!(
                "{} is an invalid component of {}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument",
                quote(wrong),
                quote(text)
            ));
        }
        if let [one] = parts[..] {
            let one = one.to_ascii_lowercase();
            let host = Self::host();
            if matches!(one.as_str(), "linux" | "windows" | "darwin" | "freebsd" | "macos") {
                return Ok(Self { os: if one == "macos" { "darwin".into() } else { one }, ..host });
            }
            let known = [
                "386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "x86_64", "aarch64", "armhf",
                "armel", "i386",
            ];
            if known.contains(&one.as_str()) {
                return Ok(Self { architecture: one, os: host.os, variant: String::new() }.normalized());
            }
            return Err(format!("{}: unknown operating system or architecture: invalid argument", quote(text)));
        }
        Self::parse(text).ok_or_else(|| format!("{}: cannot parse platform specifier: invalid argument", quote(text)))
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

/// The variants of arm64 that run on one: v9.x is v8.(x+5) and more.
fn arm64(variant: &str) -> Vec<String> {
    let digits = variant.strip_prefix('v').unwrap_or("8");
    let (major, minor) = digits.split_once('.').unwrap_or((digits, "0"));
    let (Ok(major), Ok(minor)) = (major.parse::<u8>(), minor.parse::<u8>()) else { return vec![variant.to_owned()] };
    if !(8..=9).contains(&major) || minor > 9 {
        return vec![variant.to_owned()];
    }
    let name = |major: u8, minor: u8| if minor == 0 { format!("v{major}") } else { format!("v{major}.{minor}") };
    let mut all = Vec::new();
    let eight = if major == 9 {
        all.extend((0..=minor).rev().map(|minor| name(9, minor)));
        minor + 5
    } else {
        minor
    };
    all.extend((1..=eight).rev().map(|minor| name(8, minor)));
    all.push(String::new());
    all
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runnable(text: &str) -> String {
        let all = Platform::parse(text).unwrap().runnable();
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_runs_where() {
        for (own, wanted) in [
            ("linux/amd64", "linux/amd64 linux/386"),
            ("linux/amd64/v3", "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386"),
            ("linux/arm", "linux/arm/v7 linux/arm/v6 linux/arm/v5"),
            ("linux/arm/v6", "linux/arm/v6 linux/arm/v5"),
            ("linux/arm64", "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5"),
            ("linux/arm64/v8.1", "linux/arm64/v8.1 linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5"),
            ("linux/s390x", "linux/s390x"),
        ] {
            assert_eq!(runnable(own), wanted, "{own}");
        }
        assert!(runnable("linux/arm64/v9").starts_with("linux/arm64/v9 linux/arm64/v8.5 linux/arm64/v8.4 "));
        let host = Platform::parse("linux/arm64").unwrap();
        assert_eq!(host.rank(&Platform::parse("linux/arm64/v8").unwrap()), Some(0));
        assert_eq!(host.rank(&Platform::parse("linux/amd64").unwrap()), None);
    }
}
