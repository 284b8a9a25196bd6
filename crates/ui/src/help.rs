//! Usage texts: options in columns, wrapped to the terminal.

use std::fmt::Write as _;

use sampan_gotext::flags::{Flag, Kind};

/// The lines of options.
#[must_use]
pub fn options(flags: &[&[Flag]], width: usize) -> String {
    let mut shown: Vec<&Flag> = flags.iter().flat_map(|list| list.iter()).filter(|flag| !flag.hidden).collect();
    shown.sort_by_key(|flag| flag.name);
    let left: Vec<String> = shown
        .iter()
        .map(|flag| {
            let short = flag.short.map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
            let kind = flag.shown_as();
            format!("  {short}--{}{}{kind}", flag.name, if kind.is_empty() { "" } else { " " })
        })
        .collect();
    let column = left.iter().map(|text| text.len()).max().unwrap_or(0) + 3;
    let mut out = String::new();
    for (flag, left) in shown.iter().zip(&left) {
        let mut text = flag.help.to_owned();
        match flag.kind {
            _ if flag.default.is_empty() || flag.default == "false" => {}
            Kind::Text => text.push_str(&format!(" (default {})", sampan_gotext::quote(flag.default))),
            _ => text.push_str(&format!(" (default {})", flag.default)),
        }
        if let Some(reason) = flag.later {
            text.push_str(&format!(" [not supported yet: {reason}]"));
        }
        let _infallible = writeln!(out, "{left:column$}{}", wrap(&text, column, width));
    }
    out
}

/// Two columns: names and what they are.
#[must_use]
pub fn list(rows: &[(&str, &str)]) -> String {
    let column = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(11);
    rows.iter().map(|(name, about)| format!("  {name:column$} {about}\n")).collect()
}

/// Breaks lines at blanks so that they fit beside a column.
fn wrap(text: &str, column: usize, width: usize) -> String {
    let room = width.saturating_sub(column).max(24);
    let mut out = String::new();
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
            out.push_str(&" ".repeat(column));
        }
        let mut used = 0;
        for word in line.split(' ') {
            let length = word.chars().count();
            if used > 0 && used + 1 + length > room {
                out.push('\n');
                out.push_str(&" ".repeat(column));
                used = 0;
            } else if used > 0 {
                out.push(' ');
                used += 1;
            }
            out.push_str(word);
            used += length;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::new("tail", Kind::Text, "Lines to show").short('n').default("all"),
        Flag::new("all", Kind::Bool, "Everything, also what one would not expect to be shown by a command of this name").short('a'),
        Flag::new("gpus", Kind::List, "Devices").later("no devices"),
        Flag::new("secret", Kind::Bool, "Hidden").hidden(),
    ];

    #[test]
    fn options_stand_in_columns() {
        let expected = "  -a, --all           Everything, also what one would not
                      expect to be shown by a command of this
                      name
      --gpus list     Devices [not supported yet: no devices]
  -n, --tail string   Lines to show (default \"all\")
";
        assert_eq!(options(&[FLAGS], 62), expected);
    }
}
