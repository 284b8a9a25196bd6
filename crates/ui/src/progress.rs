//! Progress messages of the engine: bars that move on a terminal, plain lines without one.

use std::collections::HashMap;
use std::io::{self, Write};

use sampan_gotext::units::size_with_digits;
use serde_json::Value;

use crate::table::ellipsis;

/// Shows the messages of a long work.
#[derive(Debug)]
pub struct Progress<W> {
    out: W,
    /// Columns of the terminal; `None`: plain lines.
    terminal: Option<u16>,
    /// On which line each id stands, from the top.
    lines: HashMap<String, usize>,
}

impl<W: Write> Progress<W> {
    /// A display on a terminal of so many columns, or of plain lines.
    pub fn new(out: W, terminal: Option<u16>) -> Self {
        Self { out, terminal, lines: HashMap::new() }
    }

    /// The terminal has so many columns from now on.
    pub fn resize(&mut self, columns: u16) {
        if let Some(known) = &mut self.terminal {
            *known = columns;
        }
    }

    /// Shows one message. The text of an error message is given back.
    ///
    /// # Errors
    /// When the output is gone.
    pub fn show(&mut self, message: &Value) -> io::Result<Option<String>> {
        let text = |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default();
        if let Some(error) = message.pointer("/errorDetail/message").and_then(Value::as_str) {
            return Ok(Some(error.to_owned()));
        }
        if !text("error").is_empty() {
            return Ok(Some(text("error").to_owned()));
        }
        if message.get("aux").is_some() {
            // For programs.
            return Ok(None);
        }
        let is_part = message.get("progressDetail").is_some();
        let detail = message.get("progressDetail").filter(|detail| detail.get("current").is_some() || detail.get("total").is_some());
        let id = text("id");
        if id.is_empty() || !is_part || (detail.is_none() && self.terminal.is_none()) {
            if self.terminal.is_none() && detail.is_some() {
                return Ok(None);
            }
            let newline = if text("stream").is_empty() { "\n" } else { "" };
            let head = if id.is_empty() { String::new() } else { format!("{id}: ") };
            write!(self.out, "{head}{}{}{newline}", text("status"), text("stream"))?;
            self.lines.clear();
            return Ok(None);
        }
        let Some(columns) = self.terminal else { return Ok(None) };
        let count = self.lines.len();
        let line = *self.lines.entry(id.to_owned()).or_insert(count);
        if line == count {
            writeln!(self.out)?;
        }
        let up = self.lines.len() - line;
        let bar = detail.map(|detail| bar(detail, columns)).unwrap_or_default();
        let status = text("status");
        // A line that wraps would be two.
        let line = format!("{id}: {status}{}{bar}", if bar.is_empty() { "" } else { " " });
        let line = ellipsis(&line, usize::from(columns.max(20)) - 1);
        write!(self.out, "\u{1b}[{up}A\u{1b}[2K\r{line}\r\u{1b}[{up}B")?;
        self.out.flush()?;
        Ok(None)
    }
}

/// `[====>    ]  1.2MB/3MB`.
fn bar(detail: &Value, columns: u16) -> String {
    let number = |key: &str| detail.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let (current, total) = (number("current"), number("total"));
    if current <= 0.0 && total <= 0.0 {
        return String::new();
    }
    let shown = size_with_digits(current, 4);
    if total <= 0.0 {
        return format!("{shown:>8}");
    }
    let counts = format!("{shown:>8}/{}", size_with_digits(total, 4));
    if columns <= 110 {
        return counts;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 50")]
    let filled = (current / total * 50.0).clamp(0.0, 50.0) as usize;
    let arrow = if filled < 50 { ">" } else { "" };
    format!("[{}{arrow}{}] {counts}", "=".repeat(filled), " ".repeat(50_usize.saturating_sub(filled + arrow.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(messages: &[Value], terminal: Option<u16>) -> (String, Option<String>) {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, terminal);
        let error = messages.iter().find_map(|message| progress.show(message).unwrap());
        (String::from_utf8(out).unwrap(), error)
    }

    #[test]
    fn without_a_terminal_bars_are_left_out() {
        let messages = [
            json!({"status":"Loading layer","progressDetail":{"current":1,"total":2},"id":"abc"}),
            json!({"status":"Pull complete","id":"abc"}),
            json!({"stream":"Loaded image: box:latest\n"}),
            json!({"errorDetail":{"message":"broken"},"error":"broken"}),
        ];
        assert_eq!(shown(&messages, None), ("abc: Pull complete\nLoaded image: box:latest\n".into(), Some("broken".into())));
    }

    #[test]
    fn a_line_about_a_part_stands_for_itself() {
        let messages = [
            json!({"status":"Pulling from library/box","id":"latest"}),
            json!({"status":"Waiting","progressDetail":{},"id":"abc"}),
            json!({"progressDetail":{},"aux":{"Tag":"latest"}}),
        ];
        assert_eq!(shown(&messages, None).0, "latest: Pulling from library/box\nabc: Waiting\n");
        let (text, _) = shown(&messages, Some(80));
        assert!(text.starts_with("latest: Pulling from library/box\n\n\u{1b}[1A"), "{text:?}");
    }

    #[test]
    fn a_line_is_never_wider_than_the_terminal() {
        let message = json!({"status":"Downloading \u{7b49}\u{5f85}","progressDetail":{"current":500,"total":1000},"id":"0123456789ab"});
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, Some(200));
        progress.show(&message).unwrap();
        progress.resize(30);
        progress.show(&message).unwrap();
        let text = String::from_utf8(out).unwrap();
        let drawn: Vec<&str> = text.split("\u{1b}[2K\r").skip(1).filter_map(|part| part.split('\r').next()).collect();
        assert_eq!(drawn[1], "0123456789ab: Downloading 等…");
        assert!(drawn[0].ends_with("500B/1kB"), "{drawn:?}");
    }

    #[test]
    fn on_a_terminal_each_id_has_its_line() {
        let messages = [
            json!({"status":"Loading layer","progressDetail":{"current":500,"total":1000},"id":"a"}),
            json!({"status":"Loading layer","progressDetail":{"current":1000,"total":1000},"id":"a"}),
        ];
        let (text, _) = shown(&messages, Some(120));
        assert!(text.contains("a: Loading layer [=========================>                        ]     500B/1kB"), "{text:?}");
        assert!(text.contains("[==================================================]      1kB/1kB"), "{text:?}");
        assert_eq!(text.matches('\n').count(), 1);
    }
}
