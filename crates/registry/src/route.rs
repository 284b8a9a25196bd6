//! From the path and query of a request to what it is about. Pure; takes any bytes.

use crate::name::{Digest, Reference, is_repository, is_tag};

/// What a path names. Names and digests in it are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`.
    Base,
    /// `/v2/_catalog`.
    Catalog,
    /// `/v2/NAME/tags/list`.
    Tags(String),
    /// `/v2/NAME/manifests/REFERENCE`.
    Manifest(String, Reference),
    /// `/v2/NAME/blobs/DIGEST`.
    Blob(String, Digest),
    /// `/v2/NAME/blobs/uploads/`.
    Uploads(String),
    /// `/v2/NAME/blobs/uploads/ID`.
    Upload(String, String),
    /// `/v2/NAME/referrers/DIGEST`.
    Referrers(String, Digest),
    /// `/token`.
    Token,
    /// `/healthz`.
    Health,
    /// `/metrics`.
    Metrics,
}

/// A path that names nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteError {
    /// No such place.
    Nothing,
    /// The name of the repository is wrong.
    Name,
    /// The digest is wrong.
    Digest,
    /// Neither tag nor digest, in this repository.
    Reference(String),
    /// The upload's name is wrong.
    Upload,
}

impl Route {
    /// Reads a path as it came, with `%XX`.
    ///
    /// # Errors
    /// [`RouteError`].
    pub fn parse(path: &str) -> Result<Self, RouteError> {
        let path = percent_decode(path, false).ok_or(RouteError::Nothing)?;
        match path.as_str() {
            "/v2/" | "/v2" => return Ok(Self::Base),
            "/v2/_catalog" => return Ok(Self::Catalog),
            "/token" => return Ok(Self::Token),
            "/healthz" => return Ok(Self::Health),
            "/metrics" => return Ok(Self::Metrics),
            _ => {}
        }
        let rest = path.strip_prefix("/v2/").ok_or(RouteError::Nothing)?;
        let (rest, last) = rest.rsplit_once('/').ok_or(RouteError::Nothing)?;
        let (front, kind) = rest.rsplit_once('/').ok_or(RouteError::Nothing)?;
        if last.is_empty() && kind == "uploads" {
            return Ok(Self::Uploads(name(front.strip_suffix("/blobs").ok_or(RouteError::Nothing)?)?));
        }
        match (kind, last) {
            ("tags", "list") => Ok(Self::Tags(name(front)?)),
            ("manifests", reference) => {
                let name = name(front)?;
                let reference = parse_reference(&name, reference)?;
                Ok(Self::Manifest(name, reference))
            }
            ("blobs", "uploads") => Ok(Self::Uploads(name(front)?)),
            ("blobs", digest) => Ok(Self::Blob(name(front)?, Digest::parse(digest).ok_or(RouteError::Digest)?)),
            ("referrers", digest) => Ok(Self::Referrers(name(front)?, Digest::parse(digest).ok_or(RouteError::Digest)?)),
            ("uploads", id) => {
                let name = name(front.strip_suffix("/blobs").ok_or(RouteError::Nothing)?)?;
                let valid = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                if valid { Ok(Self::Upload(name, id.to_owned())) } else { Err(RouteError::Upload) }
            }
            _ => Err(RouteError::Nothing),
        }
    }

    /// The repository it is about.
    #[must_use]
    pub fn repository(&self) -> Option<&str> {
        match self {
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => Some(name),
            _ => None,
        }
    }

    /// A word for figures.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Tags(_) => "tags",
            Self::Manifest(..) => "manifest",
            Self::Blob(..) => "blob",
            Self::Uploads(_) | Self::Upload(..) => "upload",
            Self::Referrers(..) => "referrers",
            Self::Token => "token",
            Self::Health => "health",
            Self::Metrics => "metrics",
        }
    }
}

fn name(text: &str) -> Result<String, RouteError> {
    if is_repository(text) { Ok(text.to_owned()) } else { Err(RouteError::Name) }
}

fn parse_reference(name: &str, text: &str) -> Result<Reference, RouteError> {
    if text.contains(':') {
        return Digest::parse(text).map(Reference::Digest).ok_or(RouteError::Digest);
    }
    if is_tag(text) { Ok(Reference::Tag(text.to_owned())) } else { Err(RouteError::Reference(name.to_owned())) }
}

/// The pairs of a query or a form, in their order. What cannot be read is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads one; no more than 256 pairs are kept.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(256);
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.filter_map(|(name, value)| Some((percent_decode(name, true)?, percent_decode(value, true)?))).collect())
    }

    /// The first value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Undoes `%XX`, and in forms `+`. None for broken escapes, zero bytes, and what is no UTF-8.
fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    if out.contains(&0) { None } else { String::from_utf8(out).ok() }
}

/// Writes a text so that it may stand in a query.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn paths_are_read_from_their_end() {
        let digest = Digest::parse(&format!("sha256:{HEX}")).unwrap();
        let id = "0".repeat(32);
        let table = [
            ("/v2/".to_owned(), Ok(Route::Base)),
            ("/v2/_catalog".into(), Ok(Route::Catalog)),
            ("/v2/a/b/tags/list".into(), Ok(Route::Tags("a/b".into()))),
            ("/v2/a/manifests/x".into(), Ok(Route::Manifest("a".into(), Reference::Tag("x".into())))),
            ("/v2/blobs/manifests/tags/list".into(), Ok(Route::Tags("blobs/manifests".into()))),
            (format!("/v2/a/manifests/sha256%3A{HEX}"), Ok(Route::Manifest("a".into(), Reference::Digest(digest.clone())))),
            (format!("/v2/a/blobs/sha256:{HEX}"), Ok(Route::Blob("a".into(), digest.clone()))),
            ("/v2/a/blobs/uploads/".into(), Ok(Route::Uploads("a".into()))),
            ("/v2/a/blobs/uploads".into(), Ok(Route::Uploads("a".into()))),
            (format!("/v2/a/blobs/uploads/{id}"), Ok(Route::Upload("a".into(), id.clone()))),
            (format!("/v2/a/referrers/sha256:{HEX}"), Ok(Route::Referrers("a".into(), digest))),
            ("/v2/a/blobs/uploads/../../x".into(), Err(RouteError::Nothing)),
            ("/v2/a/blobs/uploads/xyz".into(), Err(RouteError::Upload)),
            ("/v2/a/blobs/sha256:00".into(), Err(RouteError::Digest)),
            ("/v2/a/manifests/sha256:00".into(), Err(RouteError::Digest)),
            ("/v2/a/manifests/.x".into(), Err(RouteError::Reference("a".into()))),
            ("/v2/A/manifests/x".into(), Err(RouteError::Name)),
            ("/v2/../manifests/x".into(), Err(RouteError::Name)),
            ("/v2/%2e%2e/manifests/x".into(), Err(RouteError::Name)),
            ("/v2/a%00/manifests/x".into(), Err(RouteError::Nothing)),
            ("/v2/a%zz/manifests/x".into(), Err(RouteError::Nothing)),
            ("/v2/manifests/x".into(), Err(RouteError::Nothing)),
            ("/v2//manifests/x".into(), Err(RouteError::Name)),
            ("/".into(), Err(RouteError::Nothing)),
            (String::new(), Err(RouteError::Nothing)),
        ];
        for (path, expected) in table {
            assert_eq!(Route::parse(&path), expected, "{path}");
        }
    }

    #[test]
    fn queries_keep_repeated_names() {
        let query = Query::parse("tag=a&tag=b%2Fc&&n=5&x&broken=%f&plus=a+b");
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a", "b/c"]);
        assert_eq!((query.get("n"), query.get("x"), query.get("broken"), query.get("plus")), (Some("5"), Some(""), None, Some("a b")));
        assert_eq!(percent_encode("a b&c/ü"), "a%20b%26c/%C3%BC");
    }

    proptest! {
        #[test]
        fn any_path_is_safe(path in ".{0,80}|/v2/[a-z./%0-9:]{0,60}/(manifests|blobs|referrers|uploads)/[a-z0-9:%./]{0,40}") {
            if let Ok(route) = Route::parse(&path) && let Some(name) = route.repository() {
                prop_assert!(is_repository(name) && !name.contains(".."));
            }
        }

        #[test]
        fn what_was_encoded_is_decoded(text in "[^\0]{0,60}") {
            let query = Query::parse(&format!("x={}", percent_encode(&text)));
            prop_assert_eq!(query.get("x"), Some(text.as_str()));
        }
    }
}
