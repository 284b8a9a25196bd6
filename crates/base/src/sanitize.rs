//! Names chosen by strangers, made safe to show on a terminal or in a log.

/// Escapes control characters, bidirectional overrides and line separators, and cuts at 1,024 characters.
///
/// `\n` becomes `\u{a}`; a text without such characters comes back unchanged.
#[must_use]
pub fn sanitize(name: &str) -> String {
    const LIMIT: usize = 1024;
    let mut out = String::with_capacity(name.len().min(LIMIT));
    for (count, character) in name.chars().enumerate() {
        if count == LIMIT {
            out.push('…');
            break;
        }
        if character.is_control() || is_invisible_control(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

fn is_invisible_control(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::sanitize;

    #[test]
    fn hostile_names_lose_their_teeth() {
        assert_eq!(sanitize("plain-ü 名"), "plain-ü 名");
        assert_eq!(sanitize("a\x1b[31mred\n"), "a\\u{1b}[31mred\\u{a}");
        assert_eq!(sanitize("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(sanitize(&"a".repeat(5000)).chars().count(), 1025);
    }
}
