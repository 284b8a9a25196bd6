//! The patterns of `${x#…}` and `${x/…}`: `*` and `?` alone, `\` before them. Linear in text times pattern.

/// How much work one substitution may cost.
const MAX_WORK: usize = 1 << 26;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Many,
}

fn tokens(pattern: &str, value: &str) -> Result<Vec<Token>, String> {
    if pattern.len().saturating_mul(value.len()) > MAX_WORK {
        return Err("pattern and value of a substitution are too long".to_owned());
    }
    let mut out = Vec::new();
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        out.push(match character {
            '*' => Token::Many,
            '?' => Token::One,
            // These need an escape inside of `${}`; it is not part of the pattern.
            '\\' if matches!(characters.peek(), Some('}' | '/')) => continue,
            '\\' => match characters.next() {
                Some(escaped @ ('*' | '?' | '\\')) => Token::Literal(escaped),
                other => {
                    let other = other.unwrap_or(char::REPLACEMENT_CHARACTER);
                    return Err(format!("invalid pattern ({pattern}) in substitution: invalid escape '\\{other}'"));
                }
            },
            literal => Token::Literal(literal),
        });
    }
    Ok(out)
}

/// The leftmost match; there the longest or the shortest. Only matches at the beginning where `anchored`.
fn find(tokens: &[Token], value: &[char], from: usize, greedy: bool, anchored: bool) -> Option<(usize, usize)> {
    // For each place in the pattern the earliest beginning with which it was reached.
    let mut reached: Vec<Option<usize>> = vec![None; tokens.len() + 1];
    let mut best: Option<(usize, usize)> = None;
    for at in from..=value.len() {
        if best.is_none() && (!anchored || at == from) && reached[0].is_none() {
            reached[0] = Some(at);
        }
        // A star may also match nothing.
        for place in 0..tokens.len() {
            if tokens[place] == Token::Many
                && let Some(start) = reached[place]
            {
                reached[place + 1] = Some(reached[place + 1].map_or(start, |other| other.min(start)));
            }
        }
        if let Some(start) = reached[tokens.len()]
            && best.is_none_or(|(known, _)| start <= known)
        {
            best = Some((start, at));
            if !greedy {
                break;
            }
        }
        let Some(&character) = value.get(at) else { break };
        let mut next: Vec<Option<usize>> = vec![None; tokens.len() + 1];
        for (place, token) in tokens.iter().enumerate() {
            let Some(start) = reached[place] else { continue };
            let target = match token {
                Token::Literal(literal) if *literal == character => place + 1,
                Token::One if character != '\n' => place + 1,
                Token::Many if character != '\n' => place,
                _ => continue,
            };
            next[target] = Some(next[target].map_or(start, |other| other.min(start)));
        }
        if best.is_some_and(|(known, _)| next.iter().flatten().all(|start| *start > known))
            || (anchored && next.iter().all(Option::is_none))
        {
            break;
        }
        reached = next;
    }
    best
}

pub(super) fn trim_prefix(pattern: &str, value: &str, greedy: bool) -> Result<String, String> {
    let tokens = tokens(pattern, value)?;
    let characters: Vec<char> = value.chars().collect();
    let end = find(&tokens, &characters, 0, greedy, true).map_or(0, |(_, end)| end);
    Ok(characters[end..].iter().collect())
}

pub(super) fn trim_suffix(pattern: &str, value: &str, greedy: bool) -> Result<String, String> {
    let mut tokens = tokens(pattern, value)?;
    tokens.reverse();
    let mut characters: Vec<char> = value.chars().rev().collect();
    let end = find(&tokens, &characters, 0, greedy, true).map_or(0, |(_, end)| end);
    characters.drain(..end);
    Ok(characters.iter().rev().collect())
}

pub(super) fn replace(pattern: &str, value: &str, replacement: &str, all: bool) -> Result<String, String> {
    let tokens = tokens(pattern, value)?;
    let characters: Vec<char> = value.chars().collect();
    let mut out = String::new();
    let (mut at, mut last_end) = (0, None);
    while at <= characters.len() {
        let Some((start, end)) = find(&tokens, &characters, at, true, false) else { break };
        out.extend(&characters[at..start]);
        // Nothing is not found again right behind a match.
        if end > start || last_end != Some(start) {
            out.push_str(replacement);
        }
        if out.len() > super::MAX_RESULT {
            return Err("the result is longer than 1 MiB".to_owned());
        }
        at = end;
        last_end = Some(end);
        if end == start {
            out.extend(characters.get(at));
            at += 1;
        }
        if !all {
            break;
        }
    }
    out.extend(characters.get(at..).unwrap_or_default());
    Ok(out)
}
