//! One logical line: keyword, flags and words, before anything is expanded. The quirks are BuildKit's.

/// The blanks that separate words.
pub(super) fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// A line's parts.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) keyword: String,
    pub(super) flags: Vec<String>,
    pub(super) rest: String,
}

/// Splits a line into keyword, flags and the rest.
pub(super) fn split(line: &str, escape: char) -> Parts {
    let line = line.trim();
    let Some(at) = line.find(is_blank) else {
        return Parts { keyword: line.to_owned(), flags: Vec::new(), rest: String::new() };
    };
    let (flags, rest) = flags(line[at..].trim_start_matches(is_blank), escape);
    Parts { keyword: line[..at].to_owned(), flags, rest: rest.trim().to_owned() }
}

/// The leading words that begin with `--`, their quotes removed, and what follows them.
fn flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while rest.starts_with("--") {
        let (mut word, mut quote, mut was_quoted) = (String::new(), None, false);
        let mut characters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, character)) = characters.next() {
            match quote {
                None if character.is_whitespace() => {
                    end = at;
                    break;
                }
                None if matches!(character, '\'' | '"') => {
                    (quote, was_quoted) = (Some(character), true);
                }
                Some(open) if character == open => quote = None,
                _ if character == escape => word.extend(characters.next().map(|(_, next)| next)),
                _ => word.push(character),
            }
        }
        let behind = &rest[end..];
        if word == "--" {
            return (words, behind);
        }
        if was_quoted || !word.is_empty() {
            words.push(word);
        }
        rest = behind.trim_start();
    }
    (words, rest)
}

/// Words with their quotes and escapes kept, split at blanks outside of quotes.
pub(super) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut out = Vec::new();
    let mut word = String::new();
    let (mut inside, mut quote) = (false, None);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            if inside && !word.is_empty() {
                out.push(std::mem::take(&mut word));
            }
            inside = false;
            continue;
        }
        inside = true;
        match quote {
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some(open) if character == open => quote = None,
            _ => {}
        }
        if character == escape && quote != Some('\'') {
            // An escape at the very end is dropped.
            let Some(next) = characters.next() else { break };
            word.push(character);
            word.push(next);
        } else {
            word.push(character);
        }
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

/// Words separated by blanks, quotes meaning nothing.
pub(super) fn plain_words(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_blank) {
        out.push(rest[..at].to_owned());
        rest = rest[at..].trim_start_matches(is_blank);
    }
    out.push(rest.to_owned());
    out
}

/// What a JSON form is not.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotJson {
    /// No array: another form.
    Other,
    /// An array of something else than texts: an error.
    NotTexts,
}

/// A JSON array of texts.
pub(super) fn json_words(text: &str) -> Result<Vec<String>, NotJson> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Err(NotJson::Other);
    }
    let list: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|_| NotJson::Other)?;
    let text = |item| match item {
        serde_json::Value::String(text) => Ok(text),
        _ => Err(NotJson::NotTexts),
    };
    list.into_iter().map(text).collect()
}

/// The nearest of some names for "did you mean"; none if one is equal or all are far.
pub(crate) fn suggest(word: &str, options: &[&str], case_sensitive: bool) -> Option<String> {
    let folded = |text: &str| if case_sensitive { text.to_owned() } else { text.to_lowercase() };
    let wanted = folded(word);
    let mut best: Option<(usize, String)> = None;
    if word.len() > 64 {
        return None;
    }
    for option in options.iter().take(1000) {
        let option = folded(option);
        if option == wanted {
            return None;
        }
        let limit = best.as_ref().map_or(3, |(distance, _)| *distance);
        let distance = distance(&wanted, &option, limit);
        if distance < limit {
            best = Some((distance, option));
        }
    }
    best.map(|(_, option)| match () {
        () if case_sensitive || word == word.to_lowercase() => option,
        () if word == word.to_uppercase() => option.to_uppercase(),
        () => option,
    })
}

/// `text (did you mean x?)`.
pub(crate) fn with_suggestion(text: String, word: &str, options: &[&str], case_sensitive: bool) -> String {
    match suggest(word, options, case_sensitive) {
        Some(option) => format!("{text} (did you mean {option}?)"),
        None => text,
    }
}

/// Levenshtein's distance, or at least `limit`.
fn distance(left: &str, right: &str, limit: usize) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().take(300).collect(), right.chars().take(300).collect());
    if left.len().abs_diff(right.len()) >= limit {
        return limit;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, one) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in right.iter().enumerate() {
            let above = row[column + 1];
            let replaced = diagonal + usize::from(one != other);
            row[column + 1] = replaced.min(above + 1).min(row[column] + 1);
            diagonal = above;
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fall_into_keyword_flags_and_rest() {
        let parts = split("  COPY --from=a  --chown='b c' --x=\\\"y -- --z  . ", '\\');
        assert_eq!((parts.keyword.as_str(), parts.rest.as_str()), ("COPY", "--z  ."));
        assert_eq!(parts.flags, ["--from=a", "--chown=b c", "--x=\"y"]);
        assert_eq!(split("RUN", '\\').rest, "");
        assert_eq!(split("run\t--mount=a", '\\').flags, ["--mount=a"]);
    }

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(quoted_words("a='b c' d=\"e \\\" f\" g\\ h i\\", '\\'), ["a='b c'", "d=\"e \\\" f\"", "g\\ h", "i"]);
        assert_eq!(plain_words("a \t b"), ["a", "b"]);
    }

    #[test]
    fn near_names_are_suggested() {
        assert_eq!(suggest("FORM", &["from", "run"], false).as_deref(), Some("FROM"));
        assert_eq!(suggest("xyzzy", &["from"], false), None);
        assert_eq!(suggest("from", &["from", "form"], true), None);
    }
}
