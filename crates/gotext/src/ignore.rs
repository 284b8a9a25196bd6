//! `.dockerignore`: which paths of a context stay behind. Pure; whoever walks asks with relative paths separated by `/`.
//!
//! Not git's rules: patterns are anchored at the root, the last that matches a path *or one of its parents* wins, `!` takes back,
//! `**` is any number of directories, `*` and `?` do not match `/`.

use crate::pattern;

/// More patterns than this are refused.
const MAX_PATTERNS: usize = 100_000;

/// A list of patterns that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A lone `!`.
    #[error("illegal exclusion pattern: \"!\"")]
    Bang,
    /// Malformed.
    #[error("syntax error in pattern")]
    Syntax,
    /// Too many.
    #[error("more than {MAX_PATTERNS} ignore patterns")]
    TooMany,
}

/// The patterns of a `.dockerignore`'s text, cleaned: comments, blanks and leading slashes are gone.
#[must_use]
pub fn read(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut out = Vec::new();
    for line in text.lines() {
        // A comment begins in the first column; behind blanks it is a pattern.
        let line = if line.starts_with('#') { continue } else { line.trim() };
        if line.is_empty() {
            continue;
        }
        let (bang, rest) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest.trim()));
        let cleaned = if rest.is_empty() { String::new() } else { clean(rest) };
        let cleaned = if cleaned.len() > 1 { cleaned.strip_prefix('/').unwrap_or(&cleaned) } else { &cleaned };
        out.push(format!("{bang}{cleaned}"));
    }
    out
}

/// Go's `filepath.Clean` on Unix.
#[must_use]
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Patterns, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
    has_exceptions: bool,
}

/// Which patterns match a directory or one of its parents; what a walker carries down. The default is that of the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    matched: Vec<bool>,
    ignored: bool,
}

impl Level {
    /// Whether the path stays behind.
    #[must_use]
    pub fn ignored(&self) -> bool {
        self.ignored
    }
}

#[derive(Debug, Clone)]
struct Pattern {
    exception: bool,
    text: String,
    tokens: Vec<Token>,
    plain: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `**` at the end, or at the beginning of a text without other specials: anything.
    Anything,
    /// `**/`: nothing, or anything that ends in `/`.
    Directories,
    /// `[…]`, kept as written for [`pattern::matches`].
    Class(String),
}

impl Ignore {
    /// Takes patterns as [`read`] gives them, or as a client lists them.
    ///
    /// # Errors
    /// [`IgnoreError`].
    pub fn new(patterns: &[String]) -> Result<Self, IgnoreError> {
        if patterns.len() > MAX_PATTERNS {
            return Err(IgnoreError::TooMany);
        }
        let mut ignore = Self::default();
        for text in patterns {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let text = clean(text);
            let (exception, text) = match text.strip_prefix('!') {
                Some("") => return Err(IgnoreError::Bang),
                Some(rest) => (true, rest.to_owned()),
                None => (false, text),
            };
            pattern::matches(&text, ".").map_err(|_| IgnoreError::Syntax)?;
            let tokens = tokens(&text);
            let plain = tokens.iter().all(|token| matches!(token, Token::Literal(_))) && !text.contains('\\');
            ignore.has_exceptions |= exception;
            ignore.patterns.push(Pattern { exception, text, tokens, plain });
        }
        Ok(ignore)
    }

    /// Whether there is nothing to ignore.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path stays behind.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let mut level = Level::default();
        for (at, _) in path.match_indices('/') {
            level = self.enter(&level, &path[..at]);
        }
        self.enter(&level, path).ignored
    }

    /// The level of a path whose directory has the level `parent`. Costs one look at each pattern.
    #[must_use]
    pub fn enter(&self, parent: &Level, path: &str) -> Level {
        let mut level = Level { matched: Vec::with_capacity(self.patterns.len()), ignored: false };
        for (number, pattern) in self.patterns.iter().enumerate() {
            let matched = parent.matched.get(number).copied().unwrap_or(false) || pattern.matches(path);
            level.matched.push(matched);
            if matched {
                level.ignored = !pattern.exception;
            }
        }
        level
    }

    /// Whether something below an ignored directory may come along after all, so that a walker has to look.
    #[must_use]
    pub fn may_include_below(&self, directory: &str) -> bool {
        self.has_exceptions && self.patterns.iter().any(|pattern| pattern.exception && pattern.reaches_below(directory))
    }
}

impl Pattern {
    fn matches(&self, path: &str) -> bool {
        if self.plain { self.text == path } else { match_tokens(&self.tokens, path) }
    }

    fn reaches_below(&self, directory: &str) -> bool {
        let mut parts = self.text.split('/');
        for name in directory.split('/') {
            match parts.next() {
                // The exception names a parent: what is below depends on the order of the patterns.
                None => return true,
                Some(part) if part.contains("**") => return true,
                Some(part) => {
                    if !pattern::matches(part, name).unwrap_or(true) {
                        return false;
                    }
                }
            }
        }
        true
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let begins = out.is_empty();
        rest = &rest[character.len_utf8()..];
        match character {
            '*' if rest.starts_with('*') => {
                rest = rest[1..].strip_prefix('/').unwrap_or(&rest[1..]);
                // `**x` at the very beginning matches any ending, not only one behind a slash.
                let whole = rest.is_empty() || (begins && !text.starts_with("**/") && !pattern::has_meta(rest));
                out.push(if whole { Token::Anything } else { Token::Directories });
            }
            '*' => out.push(Token::Many),
            '?' => out.push(Token::One),
            '[' => {
                let end = class_end(rest);
                out.push(Token::Class(format!("[{}", &rest[..end])));
                rest = &rest[end..];
            }
            '\\' => {
                let literal = rest.chars().next().unwrap_or('\\');
                rest = rest.get(literal.len_utf8()..).unwrap_or("");
                out.push(Token::Literal(literal));
            }
            literal => out.push(Token::Literal(literal)),
        }
    }
    out
}

/// Where a class ends, its `]` included.
fn class_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if std::mem::take(&mut escaped) => {}
            '\\' => escaped = true,
            ']' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Matches by the set of positions that can be reached: linear in pattern times path, whatever the pattern.
fn match_tokens(tokens: &[Token], path: &str) -> bool {
    let characters: Vec<char> = path.chars().collect();
    let mut reached = vec![false; characters.len() + 1];
    reached[0] = true;
    for token in tokens {
        let mut next = vec![false; characters.len() + 1];
        let mut open = false;
        for at in 0..=characters.len() {
            let before = at.checked_sub(1).map(|at| characters[at]);
            match token {
                Token::Anything => {
                    open |= reached[at];
                    next[at] = open;
                }
                Token::Directories => {
                    next[at] = reached[at] || (open && before == Some('/'));
                    open |= reached[at];
                }
                Token::Many => {
                    open = reached[at] || (open && before != Some('/'));
                    next[at] = open;
                }
                one => next[at] = at > 0 && reached[at - 1] && before.is_some_and(|character| is_one(one, character)),
            }
        }
        reached = next;
    }
    reached[characters.len()]
}

fn is_one(token: &Token, character: char) -> bool {
    match token {
        Token::Literal(literal) => *literal == character,
        Token::One => character != '/',
        Token::Class(class) => pattern::matches(class, character.encode_utf8(&mut [0; 4])).unwrap_or(false),
        Token::Many | Token::Anything | Token::Directories => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ignore(patterns: &[&str]) -> Ignore {
        Ignore::new(&patterns.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn single_patterns() {
        for (pattern, path, wanted) in [
            ("**", "file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "file", false),
            ("dir/**", "dir/dir2/file", true),
            ("**/dir", "dir", true),
            ("**/dir", "dir/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "dir/file", true),
            ("**file", "dirfile", true),
            ("**/file", "dirfile", false),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("**/**/f.txt", "dir/dir2/f.txt", true),
            ("a**/*.txt", "a/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/[b-d].txt", "a/c.txt", true),
            ("abc.def", "abcddef", false),
            ("abc?def", "abcZdef", true),
            ("a\\*b", "a*b", true),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("foo", "foo/bar", true),
            ("foo", "a/foo", false),
            ("a(b)c/def", "a(b)c/def", true),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("dist/*.map", "dist/x.map", true),
            ("/a/../b", "b", false),
        ] {
            assert_eq!(ignore(&[pattern]).matches(path), wanted, "{pattern} {path}");
        }
    }

    #[test]
    fn the_last_match_wins_and_parents_count() {
        for (patterns, path, wanted) in [
            (&["**", "!util/docker/web"][..], "util/docker/web/foo", false),
            (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
            (&["dir/*", "!dir/keep"], "dir/keep/a", false),
            (&["dir", "!dir/keep"], "dir/other", true),
            (&["!a", "a"], "a", true),
            (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
            (&["*.md", "!README*.md"], "README-x.md", false),
        ] {
            assert_eq!(ignore(patterns).matches(path), wanted, "{patterns:?} {path}");
        }
    }

    #[test]
    fn walkers_look_only_where_an_exception_reaches() {
        let rules = ignore(&["node_modules", "dist", "!dist/keep/x", "!a*/b"]);
        assert!(!rules.may_include_below("node_modules"));
        assert!(rules.may_include_below("dist") && rules.may_include_below("dist/keep") && !rules.may_include_below("dist/other"));
        assert!(rules.may_include_below("abc") && !ignore(&["x"]).may_include_below("x"));
        assert!(ignore(&["x", "!**/y"]).may_include_below("x/z"));
    }

    #[test]
    fn files_are_read_as_docker_reads_them() {
        let text = "\u{feff}# comment\n  # not one\n\n /abs/../x \n!  keep/ \n./a//b\n!\n/\n";
        assert_eq!(read(text), ["# not one", "x", "!keep", "a/b", "!", "/"]);
        assert_eq!(Ignore::new(&["!".into()]).unwrap_err(), IgnoreError::Bang);
        assert_eq!(Ignore::new(&["a[".into()]).unwrap_err().to_string(), "syntax error in pattern");
    }

    proptest! {
        #[test]
        fn levels_agree_with_whole_paths(patterns in prop::collection::vec(r"!?[ab*?/]{1,6}", 0..5), path in "[ab]{1,2}(/[ab]{1,2}){0,3}") {
            if let Ok(rules) = Ignore::new(&patterns) {
                let mut level = Level::default();
                for (at, _) in path.match_indices('/') {
                    let parent = &path[..at];
                    level = rules.enter(&level, parent);
                    // A directory that is ignored and need not be looked into has nothing that is kept.
                    if level.ignored() && !rules.may_include_below(parent) {
                        prop_assert!(rules.matches(&path), "{:?} {}", patterns, path);
                    }
                }
                prop_assert_eq!(rules.enter(&level, &path).ignored(), rules.matches(&path));
            }
        }

        #[test]
        fn arbitrary_text_does_no_harm(text: String, path: String) {
            if let Ok(rules) = Ignore::new(&read(&text)) {
                let _either = rules.matches(&path);
            }
        }
    }
}
