//! Go's `filepath.Match` on Unix: `*`, `?`, `[a-z]`, `[^a]`, `\x`. Text in, verdict out; no file is looked at.

/// A pattern that is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether a whole name matches. A `*` and a `?` do not match `/`.
///
/// # Errors
/// [`BadPattern`], also where the malformed part was not needed for the verdict.
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let (mut pattern, mut name) = (pattern, name);
    while !pattern.is_empty() {
        let (star, chunk, rest) = scan_chunk(pattern);
        pattern = rest;
        if star && chunk.is_empty() {
            return Ok(!name.contains('/'));
        }
        if let Some(after) = match_chunk(chunk, name)?
            && (after.is_empty() || !pattern.is_empty())
        {
            name = after;
            continue;
        }
        if star && let Some(after) = match_behind_star(chunk, name, pattern.is_empty())? {
            name = after;
            continue;
        }
        // No match; what is left must still be well formed.
        while !pattern.is_empty() {
            let (_, chunk, rest) = scan_chunk(pattern);
            pattern = rest;
            match_chunk(chunk, "")?;
        }
        return Ok(false);
    }
    Ok(name.is_empty())
}

/// Whether a text has characters that a pattern interprets.
#[must_use]
pub fn has_meta(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

fn match_behind_star<'a>(chunk: &str, name: &'a str, last: bool) -> Result<Option<&'a str>, BadPattern> {
    for (at, character) in name.char_indices() {
        if character == '/' {
            break;
        }
        let behind = &name[at + character.len_utf8()..];
        match match_chunk(chunk, behind)? {
            Some(after) if last && !after.is_empty() => {}
            Some(after) => return Ok(Some(after)),
            None => {}
        }
    }
    Ok(None)
}

/// The next part: whether stars begin it, what follows up to the next star, the rest.
fn scan_chunk(pattern: &str) -> (bool, &str, &str) {
    let body = pattern.trim_start_matches('*');
    let star = body.len() != pattern.len();
    let (mut in_range, mut escaped) = (false, false);
    for (at, character) in body.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match character {
            '\\' => escaped = true,
            '[' => in_range = true,
            ']' => in_range = false,
            '*' if !in_range => return (star, &body[..at], &body[at..]),
            _ => {}
        }
    }
    (star, body, "")
}

/// Matches a part without stars at the beginning of a name; what is left of the name.
/// After a mismatch the part is still checked to its end.
fn match_chunk<'a>(chunk: &str, name: &'a str) -> Result<Option<&'a str>, BadPattern> {
    let mut failed = false;
    let (mut chunk, mut name) = (chunk, name);
    while let Some(first) = chunk.chars().next() {
        failed |= name.is_empty();
        let head = name.chars().next().unwrap_or('\0');
        let behind = if failed { name } else { &name[head.len_utf8()..] };
        match first {
            '[' => {
                name = behind;
                let (matched, rest) = match_class(&chunk[1..], head)?;
                failed |= !matched;
                chunk = rest;
            }
            '?' => {
                failed |= head == '/';
                name = behind;
                chunk = &chunk[1..];
            }
            _ => {
                if first == '\\' {
                    chunk = &chunk[1..];
                }
                let literal = chunk.chars().next().ok_or(BadPattern)?;
                failed |= literal != head;
                name = if failed { name } else { behind };
                chunk = &chunk[literal.len_utf8()..];
            }
        }
    }
    Ok((!failed).then_some(name))
}

/// A class behind its `[`: whether it has the character, and what follows it.
fn match_class(text: &str, head: char) -> Result<(bool, &str), BadPattern> {
    let (negated, mut text) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
    let (mut matched, mut ranges) = (false, 0);
    loop {
        if ranges > 0
            && let Some(rest) = text.strip_prefix(']')
        {
            return Ok((matched != negated, rest));
        }
        let (low, rest) = class_character(text)?;
        let (high, rest) = match rest.strip_prefix('-') {
            Some(rest) => class_character(rest)?,
            None => (low, rest),
        };
        matched |= low <= head && head <= high;
        (text, ranges) = (rest, ranges + 1);
    }
}

fn class_character(text: &str) -> Result<(char, &str), BadPattern> {
    if text.starts_with(['-', ']']) {
        return Err(BadPattern);
    }
    let text = text.strip_prefix('\\').unwrap_or(text);
    let character = text.chars().next().ok_or(BadPattern)?;
    let rest = &text[character.len_utf8()..];
    if rest.is_empty() { Err(BadPattern) } else { Ok((character, rest)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_match_as_gos_documentation_says() {
        for (pattern, name, wanted) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), Ok(wanted), "{pattern} {name}");
        }
    }

    #[test]
    fn malformed_patterns_are_errors_wherever_the_fault_lies() {
        for (pattern, name) in [
            ("[]a]", "]"),
            ("[-]", "-"),
            ("[x-]", "x"),
            ("[-x]", "x"),
            ("\\", "a"),
            ("[a-b-c]", "a"),
            ("[", "a"),
            ("[^", "a"),
            ("[^bc", "a"),
            ("a[", "a"),
            ("a[", "ab"),
            ("a[", "x"),
            ("a/b[", "x"),
            ("*[", "x"),
        ] {
            assert_eq!(matches(pattern, name), Err(BadPattern), "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_patterns_do_no_harm(pattern in r"[ab*?\[\]\\^/☺-]{0,12}", name in "[ab/☺]{0,8}") {
            let _either = matches(&pattern, &name);
        }
    }
}
