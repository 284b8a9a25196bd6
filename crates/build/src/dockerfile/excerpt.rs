//! The lines around a fault, as docker prints them below an error.

use super::ast::Lines;

/// A longer line is cut; an excerpt is for people.
const MAX_LINE: usize = 4096;

/// The excerpt: heading, rule, numbered lines, rule; empty where the lines are not in the file.
///
/// Faulty lines have `>>>`. Characters that move a terminal's cursor are left out.
#[must_use]
pub fn excerpt(file_name: &str, text: &[u8], lines: Option<Lines>) -> String {
    let Some(Lines { first, last }) = lines else { return String::new() };
    let text = String::from_utf8_lossy(&text[..text.len().min(8 << 20)]);
    // What follows the last line break counts as a line, even where it is empty.
    let total = text.split('\n').count();
    if first == 0 || first > total {
        return String::new();
    }
    let (mut begin, mut end) = (first, last.clamp(first, total));
    let wanted = if first == end { 4 } else { 2 };
    let mut padding = 0;
    while padding < wanted {
        padding += 1;
        if begin > 1 {
            (begin, padding) = (begin - 1, padding + 1);
        }
        if end != total {
            (end, padding) = (end + 1, padding + 1);
        }
    }
    let mut out = format!("{file_name}:{first}\n--------------------\n");
    for (number, line) in text.split('\n').enumerate().skip(begin - 1).take(end + 1 - begin) {
        let number = number + 1;
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let line: String = line.chars().take(MAX_LINE).filter(|c| *c == '\t' || !c.is_control()).collect();
        out.push_str(&format!(" {number:3} | {mark} {line}\n"));
    }
    out.push_str("--------------------\n");
    out
}
