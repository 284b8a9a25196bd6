//! Names of repositories and tags, and digests as this registry knows them. Pure.

use std::fmt;

/// The longest name of a repository.
const NAME_LIMIT: usize = 255;
/// The longest tag.
const TAG_LIMIT: usize = 128;

/// Whether a text is the name of a repository: components of lower-case letters and digits with `.`, `_`, `__` or dashes between.
#[must_use]
pub fn is_repository(name: &str) -> bool {
    name.len() <= NAME_LIMIT && name.split('/').all(is_component)
}

fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_well = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    let separators = bytes.split(alphanumeric).filter(|part| !part.is_empty());
    ends_well && separators.into_iter().all(|part| matches!(part, b"." | b"_" | b"__") || part.iter().all(|byte| *byte == b'-'))
}

/// Whether a text is a tag.
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_LIMIT && text.bytes().next().is_some_and(word) && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// The algorithms of digests that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name in digests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The algorithm of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|algorithm| algorithm.name() == name)
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest of an algorithm that is taken. Its text holds nothing but the name, a colon and lower-case hexadecimal digits, so it may
/// stand in paths and headers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// Reads one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, digits) = text.split_once(':')?;
        let algorithm = Algorithm::parse(name)?;
        let hexadecimal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (digits.len() == algorithm.digits() && hexadecimal).then(|| Self(text.to_owned()))
    }

    /// Its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha512:") { Algorithm::Sha512 } else { Algorithm::Sha256 }
    }

    /// The digits.
    #[must_use]
    pub fn digits(&self) -> &str {
        self.0.get(7..).unwrap_or_default()
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A digest in the making.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    context: aws_lc_rs::digest::Context,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Hasher").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Hasher {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let of = match algorithm {
            Algorithm::Sha256 => &aws_lc_rs::digest::SHA256,
            Algorithm::Sha512 => &aws_lc_rs::digest::SHA512,
        };
        Self { algorithm, context: aws_lc_rs::digest::Context::new(of) }
    }

    /// Its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Takes bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of all that was taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(format!("{}:{}", self.algorithm.name(), hex::encode(self.context.finish())))
    }

    /// The digest of some bytes.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Self::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }
}

/// What names a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A tag.
    Tag(String),
    /// A digest.
    Digest(Digest),
}

impl Reference {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag,
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_specification() {
        for good in ["a", "library/box", "a.b/c_d/e__f/g--h/0", &"a".repeat(255)] {
            assert!(is_repository(good), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "-a", "a.", "a._b", "a/../b", "ü", "a b", &"a".repeat(256)] {
            assert!(!is_repository(bad), "{bad}");
        }
    }

    #[test]
    fn tags_follow_the_specification() {
        for good in ["latest", "_", "1.0-rc_1", "A", &"a".repeat(128)] {
            assert!(is_tag(good), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "ü", &"a".repeat(129)] {
            assert!(!is_tag(bad), "{bad}");
        }
    }

    #[test]
    fn digests_are_checked_and_made() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Hasher::of(algorithm, b"hello");
            assert_eq!(Digest::parse(digest.as_str()), Some(digest.clone()));
            assert_eq!((digest.algorithm(), digest.digits().len()), (algorithm, algorithm.digits()));
            assert_eq!(Digest::parse(&digest.as_str().to_uppercase()), None);
        }
        let known = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(Hasher::of(Algorithm::Sha256, b"hello").as_str(), known);
        for bad in ["", "sha256", "sha256:", "sha256:00", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha384:00", "sha256:../../etc"] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
