//! Image references: `[domain/]path[:tag][@digest]`, in the form users type and in full.

use std::fmt;

use crate::Digest;

/// A reference, normalised: `busybox` is `docker.io/library/busybox`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is no reference; the texts are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Anything else.
    #[error("invalid reference format")]
    Format,
    /// Upper case in the path.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// A name of 64 hexadecimal digits would look like an id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The path is longer than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
}

impl Reference {
    /// Parses what a user typed.
    ///
    /// # Errors
    /// [`ReferenceError`].
    pub fn parse_normalized(text: &str) -> Result<Self, ReferenceError> {
        if looks_like_id(text) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|_| ReferenceError::Format)?)),
        };
        // A colon behind the last slash begins a tag; before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        let (domain, path) = split_domain(name);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            let lower = path.to_ascii_lowercase();
            let kept = if is_path(&lower) { ReferenceError::Uppercase(path) } else { ReferenceError::Format };
            return Err(kept);
        }
        if !is_domain(&domain) || !is_path(&path) {
            return Err(ReferenceError::Format);
        }
        if path.len() > 255 {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain, path, tag: tag.map(str::to_owned), digest })
    }

    /// `docker.io`, `localhost:5000`, …
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `library/busybox`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same without tag and digest.
    #[must_use]
    pub fn repository(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// The same with a tag, without a digest.
    ///
    /// # Errors
    /// [`ReferenceError::Format`] when it is no tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if is_tag(tag) { Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }) } else { Err(ReferenceError::Format) }
    }

    /// The same with a digest, without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// The same with `latest` where there is neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The form users type: without `docker.io/library/`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.suffixed(&self.familiar_name())
    }

    /// The familiar form without tag and digest.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.domain != "docker.io" {
            return format!("{}/{}", self.domain, self.path);
        }
        match self.path.split_once('/') {
            Some(("library", rest)) if !rest.contains('/') && !looks_like_id(rest) => rest.to_owned(),
            Some(("library", rest)) if !rest.contains('/') => format!("{}/{}", self.domain, self.path),
            // Without the domain it would name another repository.
            Some((first, _)) if is_domain_like(first) => format!("{}/{}", self.domain, self.path),
            _ => self.path.clone(),
        }
    }

    fn suffixed(&self, name: &str) -> String {
        let mut text = name.to_owned();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(&format!("{}/{}", self.domain, self.path)))
    }
}

fn looks_like_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the first component of a name is a domain, not a user.
fn is_domain_like(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase())
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_domain_like(first) => (first, rest),
        _ => ("docker.io", name),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    let path = if domain == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    (domain.to_owned(), path)
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.is_none_or(|port| !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()));
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let host = match bracketed {
        Some(address) => !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'),
        None => host.split('.').all(label),
    };
    port && host
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_component)
}

/// `[a-z0-9]+` joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let edges = bytes.first().is_some_and(|byte| alphanumeric(*byte)) && bytes.last().is_some_and(|byte| alphanumeric(*byte));
    let separators = text.split(|c: char| c.is_ascii() && alphanumeric(u8::try_from(c).unwrap_or(0))).filter(|part| !part.is_empty());
    edges && separators.into_iter().all(|part| matches!(part, "." | "_" | "__") || part.bytes().all(|byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut characters = text.chars();
    text.len() <= 128 && characters.next().is_some_and(word) && characters.all(|c| word(c) || matches!(c, '.' | '-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(text: &str) -> Result<String, String> {
        Reference::parse_normalized(text).map(|reference| reference.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_normalised() {
        for (typed, wanted) in [
            ("busybox", "docker.io/library/busybox"),
            ("user/app:1.0", "docker.io/user/app:1.0"),
            ("localhost/x", "localhost/x"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("index.docker.io/busybox", "docker.io/library/busybox"),
            ("[::1]:5000/x", "[::1]:5000/x"),
            ("a__b.c--d", "docker.io/library/a__b.c--d"),
        ] {
            assert_eq!(full(typed).as_deref(), Ok(wanted), "{typed}");
        }
        for name in ["docker.io/localhost/x", "docker.io/a.b/x"] {
            let reference = Reference::parse_normalized(name).unwrap();
            assert_eq!(Reference::parse_normalized(&reference.familiar()), Ok(reference), "{name} is not another registry's");
        }
        let digest = format!("busybox@sha256:{}", "0".repeat(64));
        assert_eq!(Reference::parse_normalized(&digest).unwrap().familiar(), digest);
    }

    #[test]
    fn others_get_dockers_words() {
        assert_eq!(full("UPPER"), Err("invalid reference format: repository name (library/UPPER) must be lowercase".into()));
        for bad in ["", ":", "a:", "a b", "a:b c", "-a", "a-", "a..b", "a___b", "/a", "a/", "a@sha256:1", "a:-x"] {
            assert_eq!(full(bad), Err("invalid reference format".into()), "{bad}");
        }
        assert!(full(&"a".repeat(64)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed(text in "[a-zA-Z0-9./:@_ -]{0,40}") {
            if let Ok(reference) = Reference::parse_normalized(&text) {
                prop_assert_eq!(Reference::parse_normalized(&reference.to_string()), Ok(reference.clone()));
                prop_assert_eq!(Reference::parse_normalized(&reference.familiar()), Ok(reference));
            }
        }

        #[test]
        fn arbitrary_text_does_no_harm(text: String) {
            let _either = Reference::parse_normalized(&text);
        }
    }
}
