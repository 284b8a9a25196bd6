//! Sources of ADD that are not files: which are URLs of files, which are repositories. Pure; nothing is fetched.

use super::graph::Git;

/// A source of ADD or COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remote {
    /// A path.
    Local,
    /// A file of a server.
    Http,
    /// A repository; what its query says beside.
    Git { git: Git, keep_git_dir: Option<bool> },
}

/// What a source is.
pub(crate) fn classify(source: &str) -> Result<Remote, String> {
    let lower = source.to_ascii_lowercase();
    let scheme = lower.split_once("://").map(|(scheme, _)| scheme);
    let web = source.starts_with("http://") || source.starts_with("https://");
    let (address, fragment) = source.split_once('#').unwrap_or((source, ""));
    let (address, query) = match address.split_once('?') {
        Some((address, query)) if scheme.is_some() => (address, query),
        _ => (address, ""),
    };
    let is_git = match scheme {
        Some("git" | "ssh") => true,
        Some("http" | "https") => address.split_once("://").is_some_and(|(_, rest)| rest.ends_with(".git") && rest.contains('/')),
        Some(_) => false,
        // `user@host:path`; a path with an `@` in it has a slash before the colon.
        None => address.split_once(':').is_some_and(|(host, path)| {
            host.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty()) && !host.contains('/') && !path.is_empty()
        }),
    };
    if !is_git {
        return Ok(if web { Remote::Http } else { Remote::Local });
    }
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let mut git =
        Git { remote: address.to_owned(), reference: reference.to_owned(), subdir: subdir.to_owned(), checksum: None, keep_git_dir: false };
    let keep_git_dir = apply_query(&mut git, query)?;
    Ok(Remote::Git { git, keep_git_dir })
}

fn apply_query(git: &mut Git, query: &str) -> Result<Option<bool>, String> {
    let quote = sampan_gotext::quote;
    let (mut keep, mut reference) = (None, None::<String>);
    let mut seen: Vec<&str> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if seen.contains(&key) {
            return Err(format!("query {} has multiple values", quote(key)));
        }
        seen.push(key);
        if value.is_empty() && !matches!(key, "submodules" | "keep-git-dir") {
            return Err(format!("query {} has no value", quote(key)));
        }
        let prefixed = |prefix: &str| if value.starts_with(prefix) { value.to_owned() } else { format!("{prefix}{value}") };
        let named = match key {
            "ref" => Some(value.to_owned()),
            "tag" => Some(prefixed("refs/tags/")),
            "branch" => Some(prefixed("refs/heads/")),
            "subdir" if !git.subdir.is_empty() && git.subdir != value => {
                return Err(format!("subdir conflicts: {} vs {}", quote(&git.subdir), quote(value)));
            }
            "subdir" => {
                value.clone_into(&mut git.subdir);
                None
            }
            "checksum" | "commit" => {
                git.checksum = Some(value.to_owned());
                None
            }
            "keep-git-dir" | "submodules" => {
                let truth = match value {
                    "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                    _ => return Err(format!("invalid {key} value: {}", quote(value))),
                };
                if key == "keep-git-dir" {
                    keep = Some(truth);
                }
                None
            }
            _ => return Err(format!("unexpected query {}", quote(key))),
        };
        if let Some(named) = named {
            let known = reference.as_ref().or((!git.reference.is_empty()).then_some(&git.reference));
            if let Some(known) = known.filter(|known| **known != named) {
                return Err(format!("ref conflicts: {} vs {}", quote(known), quote(&named)));
            }
            reference = Some(named);
        }
    }
    if let Some(reference) = reference {
        git.reference = reference;
    }
    Ok(keep)
}

/// A name as a pattern that matches nothing else.
pub(super) fn escaped(name: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\');
    name.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// The name of a downloaded file: the last part of its address.
pub(super) fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match name {
        "" | "." | ".." => "__unnamed__".to_owned(),
        name => unescape(name),
    }
}

/// Replaces `%41`; what would no longer be one file name stays as it is.
fn unescape(name: &str) -> String {
    let bytes = name.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = name.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(b'/' | 0) => return name.to_owned(),
            Some(byte) => (out.push(byte), at += 3).1,
            None => (out.push(bytes[at]), at += 1).1,
        }
    }
    match String::from_utf8(out) {
        Ok(text) if !matches!(text.as_str(), "." | "..") => text,
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        for (source, wanted) in [
            ("a/b", "local"),
            ("http://h/x.tar", "http"),
            ("https://h/x.git/y", "http"),
            ("https://h/x.git#v1:sub", "git"),
            ("git@github.com:a/b", "git"),
            ("git://h/x", "git"),
            ("ssh://git@h/x", "git"),
            ("a@b/c:d", "local"),
            ("ftp://h/x", "local"),
        ] {
            let kind = match classify(source).unwrap() {
                Remote::Local => "local",
                Remote::Http => "http",
                Remote::Git { .. } => "git",
            };
            assert_eq!(kind, wanted, "{source}");
        }
        let Remote::Git { git, keep_git_dir } = classify("https://h/x.git?tag=v1&subdir=d&keep-git-dir=true").unwrap() else {
            panic!("a repository")
        };
        assert_eq!(
            (git.remote.as_str(), git.reference.as_str(), git.subdir.as_str(), keep_git_dir),
            ("https://h/x.git", "refs/tags/v1", "d", Some(true))
        );
        assert_eq!(classify("https://h/x.git?x=1").unwrap_err(), "unexpected query \"x\"");
    }

    #[test]
    fn names_are_no_patterns() {
        for name in ["plain-1.0.tgz", "a*b", "x[1]?", "back\\slash"] {
            assert_eq!(sampan_gotext::pattern::matches(&escaped(name), name), Ok(true), "{name}");
        }
        assert_eq!(sampan_gotext::pattern::matches(&escaped("a*b"), "axb"), Ok(false));
        assert_eq!(escaped("plain-1.0.tgz"), "plain-1.0.tgz");
    }

    #[test]
    fn downloads_have_names() {
        for (url, wanted) in [
            ("http://h/a/b.tar?x=/y", "b.tar"),
            ("http://h", "__unnamed__"),
            ("http://h/", "__unnamed__"),
            ("http://h/a%20b", "a b"),
            ("http://h/..%2f", "..%2f"),
        ] {
            assert_eq!(file_name(url), wanted, "{url}");
        }
    }
}
