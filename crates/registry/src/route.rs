//! Paths of the distribution specification: text in, route out. Pure.
//!
//! Repository names contain slashes, so a path is read from its end. Names, tags and digests are checked here; what is left of a
//! path that is none is for the caller to refuse.

use sampan_oci::Digest;

/// Longest repository name.
const MAX_NAME: usize = 255;

/// What a tag or digest in a path names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Tag(String),
    Digest(Digest),
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`.
    Root,
    /// `/v2/_catalog`.
    Catalog,
    /// `/v2/NAME/tags/list`.
    Tags { name: String },
    /// `/v2/NAME/manifests/REFERENCE`.
    Manifest { name: String, target: Target },
    /// `/v2/NAME/blobs/DIGEST`.
    Blob { name: String, digest: Digest },
    /// `/v2/NAME/blobs/uploads/`.
    Uploads { name: String },
    /// `/v2/NAME/blobs/uploads/ID`.
    Upload { name: String, id: String },
    /// `/v2/NAME/referrers/DIGEST`.
    Referrers { name: String, digest: Digest },
    /// `/token`.
    Token,
    /// `/healthz`.
    Health,
    /// `/metrics`.
    Metrics,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// Not one of ours.
    Unknown,
    /// The repository's name is not one.
    Name,
    /// The tag is not one.
    Tag,
    /// The digest is not one, or of an algorithm that is not offered.
    Digest,
}

/// Finds the route of a path, which is taken as it came: escapes are not decoded, as no name needs any.
pub(crate) fn parse(path: &str) -> Result<Route, NoRoute> {
    match path {
        "/v2" | "/v2/" => return Ok(Route::Root),
        "/v2/_catalog" => return Ok(Route::Catalog),
        "/token" => return Ok(Route::Token),
        "/healthz" => return Ok(Route::Health),
        "/metrics" => return Ok(Route::Metrics),
        _ => {}
    }
    let rest = path.strip_prefix("/v2/").ok_or(NoRoute::Unknown)?;
    if let Some(before) = rest.strip_suffix("/tags/list") {
        return Ok(Route::Tags { name: name(before)? });
    }
    if let Some(before) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
        return Ok(Route::Uploads { name: name(before)? });
    }
    let (before, last) = rest.rsplit_once('/').ok_or(NoRoute::Unknown)?;
    if let Some(before) = before.strip_suffix("/blobs/uploads") {
        return Ok(Route::Upload { name: name(before)?, id: last.to_owned() });
    }
    if let Some(before) = before.strip_suffix("/manifests") {
        return Ok(Route::Manifest { name: name(before)?, target: target(last)? });
    }
    if let Some(before) = before.strip_suffix("/blobs") {
        return Ok(Route::Blob { name: name(before)?, digest: digest(last)? });
    }
    if let Some(before) = before.strip_suffix("/referrers") {
        return Ok(Route::Referrers { name: name(before)?, digest: digest(last)? });
    }
    Err(NoRoute::Unknown)
}

/// Whether a text is a repository's name: components `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` between slashes.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && !text.is_empty() && text.split('/').all(is_component)
}

fn is_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut at = 0;
    loop {
        let start = at;
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
        if at == start {
            return false;
        }
        if at == bytes.len() {
            return true;
        }
        let between = bytes[at..].iter().take_while(|byte| !is_word(**byte)).count();
        let separator = &bytes[at..at + between];
        let fits = matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-');
        if !fits {
            return false;
        }
        at += between;
    }
}

/// Whether a text is a tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub(crate) fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128 && text.bytes().next().is_some_and(is_word) && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

fn name(text: &str) -> Result<String, NoRoute> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(NoRoute::Name) }
}

/// A digest of an algorithm that we store by.
pub(crate) fn digest(text: &str) -> Result<Digest, NoRoute> {
    let digest: Digest = text.parse().map_err(|_| NoRoute::Digest)?;
    if matches!(digest.algorithm(), "sha256" | "sha512") { Ok(digest) } else { Err(NoRoute::Digest) }
}

fn target(text: &str) -> Result<Target, NoRoute> {
    if text.contains(':') {
        return digest(text).map(Target::Digest);
    }
    if is_tag(text) { Ok(Target::Tag(text.to_owned())) } else { Err(NoRoute::Tag) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn paths_lead_where_they_should() {
        let digest: Digest = DIGEST.parse().unwrap();
        let name = || "a/b/c".to_owned();
        let table = [
            ("/v2/", Ok(Route::Root)),
            ("/v2", Ok(Route::Root)),
            ("/v2/_catalog", Ok(Route::Catalog)),
            ("/v2/a/b/c/tags/list", Ok(Route::Tags { name: name() })),
            ("/v2/a/b/c/manifests/v1.0", Ok(Route::Manifest { name: name(), target: Target::Tag("v1.0".into()) })),
            ("/v2/a/b/c/blobs/uploads/", Ok(Route::Uploads { name: name() })),
            ("/v2/a/b/c/blobs/uploads", Ok(Route::Uploads { name: name() })),
            ("/v2/a/b/c/blobs/uploads/x-1", Ok(Route::Upload { name: name(), id: "x-1".into() })),
            ("/v2/tags/list/tags/list", Ok(Route::Tags { name: "tags/list".into() })),
            ("/v2/blobs/uploads/blobs/uploads/", Ok(Route::Uploads { name: "blobs/uploads".into() })),
            ("/v1/", Err(NoRoute::Unknown)),
            ("/v2/a", Err(NoRoute::Unknown)),
            ("/v2/a/../b/tags/list", Err(NoRoute::Name)),
            ("/v2//tags/list", Err(NoRoute::Name)),
            ("/v2/A/tags/list", Err(NoRoute::Name)),
            ("/v2/a%2fb/tags/list", Err(NoRoute::Name)),
            ("/v2/a/manifests/.hidden", Err(NoRoute::Tag)),
            ("/v2/a/manifests/sha256:00", Err(NoRoute::Digest)),
            ("/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", Err(NoRoute::Digest)),
        ];
        for (path, wanted) in table {
            assert_eq!(parse(path), wanted, "{path}");
        }
        assert_eq!(parse(&format!("/v2/x/blobs/{DIGEST}")), Ok(Route::Blob { name: "x".into(), digest: digest.clone() }));
        assert_eq!(parse(&format!("/v2/x/referrers/{DIGEST}")), Ok(Route::Referrers { name: "x".into(), digest: digest.clone() }));
        assert_eq!(parse(&format!("/v2/x/manifests/{DIGEST}")), Ok(Route::Manifest { name: "x".into(), target: Target::Digest(digest) }));
    }

    #[test]
    fn names_are_the_specifications() {
        for good in ["a", "a0/b", "a.b", "a_b", "a__b", "a-b", "a---b/c.d"] {
            assert!(is_name(good), "{good}");
        }
        let long = "a".repeat(256);
        for bad in ["", "/", "a/", "/a", "a//b", "a..b", "a___b", "-a", "a-", "a._b", "é", "a b", long.as_str()] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_tag("_x") && is_tag(&"t".repeat(128)) && !is_tag(&"t".repeat(129)) && !is_tag("") && !is_tag("-x") && !is_tag("a:b"));
    }

    proptest! {
        #[test]
        fn no_path_does_harm(path: String) {
            let _either = parse(&path);
        }

        #[test]
        fn a_name_never_leaves_its_place(path in "/v2/[a-z./_%-]{0,40}/(tags/list|blobs/uploads/|manifests/x)") {
            if let Ok(Route::Tags { name } | Route::Uploads { name } | Route::Manifest { name, .. }) = parse(&path) {
                prop_assert!(!name.contains("..") && !name.starts_with('/') && !name.contains("//"));
            }
        }
    }
}
