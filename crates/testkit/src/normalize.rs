//! Replaces what differs from run to run (ids, digests, times, addresses) by placeholders.
//!
//! Within one text the same value gets the same number, so that `<ID1>` printed twice means the same container twice.

use std::collections::HashMap;

/// Normalises one command's output; `seen` carries the numbering from stdout to stderr.
pub fn normalize(text: &str, seen: &mut HashMap<String, String>) -> String {
    text.lines().map(|line| squeeze(&replace(line, seen))).collect::<Vec<_>>().join("\n")
}

/// Column widths follow the replaced values: two blanks stand for any number of them.
fn squeeze(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut blanks = 0;
    for character in line.trim_end().chars() {
        if character == ' ' || character == '\t' {
            blanks += 1;
            if blanks <= 2 {
                out.push(' ');
            }
        } else {
            blanks = 0;
            out.push(character);
        }
    }
    out
}

fn replace(line: &str, seen: &mut HashMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = line;
    let mut before = None;
    while !rest.is_empty() {
        let boundary = !before.is_some_and(|c: char| c.is_ascii_alphanumeric());
        if let Some((length, placeholder)) = boundary.then(|| recognise(rest, before, seen)).flatten() {
            out.push_str(&placeholder);
            before = rest[..length].chars().next_back();
            rest = &rest[length..];
            continue;
        }
        let Some(character) = rest.chars().next() else { break };
        out.push(character);
        before = Some(character);
        rest = &rest[character.len_utf8()..];
    }
    out
}

/// What starts here, if it is something to replace: its length and its placeholder.
fn recognise(text: &str, before: Option<char>, seen: &mut HashMap<String, String>) -> Option<(usize, String)> {
    if let Some(hex) = text.strip_prefix("sha256:").map(|rest| run(rest, is_hex)).filter(|hex| hex.len() == 64) {
        return Some((71, number("DIGEST", &hex[..12], seen)));
    }
    if let Some(found) = time(text).or_else(|| ago(text)) {
        return Some(found);
    }
    let word = run(text, |c| c.is_ascii_alphanumeric());
    let has = |test: fn(&char) -> bool| word.chars().any(|c| test(&c));
    if word.chars().all(is_hex) && (word.len() == 64 || (word.len() == 12 && has(char::is_ascii_digit))) {
        return Some((word.len(), number("ID", &word[..12], seen)));
    }
    address(text, before, seen)
}

fn number(kind: &str, value: &str, seen: &mut HashMap<String, String>) -> String {
    let prefix = if kind == "DIGEST" { "ID" } else { kind };
    let next = 1 + seen.values().filter(|name| name.trim_end_matches(|c: char| c.is_ascii_digit()) == prefix).count();
    let name = seen.entry(format!("{prefix}:{value}")).or_insert_with(|| format!("{prefix}{next}"));
    format!("<{name}>")
}

fn is_hex(character: char) -> bool {
    matches!(character, '0'..='9' | 'a'..='f')
}

fn run(text: &str, keep: impl Fn(char) -> bool) -> &str {
    &text[..text.find(|c| !keep(c)).unwrap_or(text.len())]
}

/// `2024-01-31T10:00:00.123Z`, `2024-01-31 10:00:00 +0000 UTC` and the like.
fn time(text: &str) -> Option<(usize, String)> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = bytes.len() >= shape.len()
        && bytes.iter().zip(shape).all(|(byte, want)| match want {
            b'd' => byte.is_ascii_digit(),
            b'T' => matches!(byte, b'T' | b' '),
            other => byte == other,
        });
    if !fits {
        return None;
    }
    let mut length = shape.len();
    if bytes.get(length) == Some(&b'.') {
        length += 1 + run(&text[length + 1..], |c| c.is_ascii_digit()).len();
    }
    for zone in ["Z", " +0000", "+00:00", " UTC"] {
        if text[length..].starts_with(zone) {
            length += zone.len();
        }
    }
    Some((length, "<TIME>".to_owned()))
}

/// `3 minutes ago`, `Less than a second`, `About an hour`.
fn ago(text: &str) -> Option<(usize, String)> {
    let count = ["Less than a ", "About an ", "About a "].into_iter().find(|start| text.starts_with(start)).map(str::len);
    let count = count.or_else(|| {
        let digits = run(text, |c| c.is_ascii_digit()).len();
        (digits > 0 && text[digits..].starts_with(' ')).then_some(digits + 1)
    })?;
    let unit = run(&text[count..], |c| c.is_ascii_lowercase());
    let known = ["second", "minute", "hour", "day", "week", "month", "year"].contains(&unit.trim_end_matches('s'));
    let mut length = count + unit.len();
    if text[length..].starts_with(" ago") {
        length += 4;
    }
    known.then(|| (length, "<AGO>".to_owned()))
}

/// Private IPv4 addresses, hardware addresses, ephemeral ports.
fn address(text: &str, before: Option<char>, seen: &mut HashMap<String, String>) -> Option<(usize, String)> {
    let dotted = run(text, |c| c.is_ascii_digit() || c == '.');
    let private = ["10.", "172.", "192."].iter().any(|start| dotted.starts_with(start));
    if private && dotted.split('.').count() == 4 {
        return Some((dotted.len(), number("IP", dotted, seen)));
    }
    let colons = run(text, |c| is_hex(c) || c == ':');
    if colons.len() == 17 && colons.split(':').count() == 6 && colons.split(':').all(|part| part.len() == 2) {
        return Some((17, number("MAC", colons, seen)));
    }
    let digits = run(text, |c| c.is_ascii_digit());
    let ephemeral = digits.len() == 5 && digits.parse::<u32>().is_ok_and(|port| (32768..61000).contains(&port));
    (ephemeral && before == Some(':')).then(|| (5, number("PORT", digits, seen)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::normalize;

    #[test]
    fn what_differs_is_replaced_and_numbered() {
        let mut seen = HashMap::new();
        let text = "abcdef012345   busybox   3 minutes ago\n172.17.0.2 172.17.0.3 172.17.0.2 0.0.0.0:32768->80/tcp\n2024-01-31T10:00:00.5Z x abcdef012345";
        assert_eq!(normalize(text, &mut seen), "<ID1>  busybox  <AGO>\n<IP1> <IP2> <IP1> 0.0.0.0:<PORT1>->80/tcp\n<TIME> x <ID1>");
    }

    #[test]
    fn ordinary_words_stay() {
        let mut seen = HashMap::new();
        // One ID in three hundred has no letter.
        assert_eq!(normalize("Successfully built 254216574809", &mut HashMap::default()), "Successfully built <ID1>");
        assert_eq!(normalize("deadbeef 12 monkeys, exit code 127, 64kB", &mut seen), "deadbeef 12 monkeys, exit code 127, 64kB");
    }
}
