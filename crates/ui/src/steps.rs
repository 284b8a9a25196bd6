//! A build, step by step: lines that move on a terminal, plain lines without one. The clock is an argument; nothing here waits.
//!
//! What comes in are messages with an event under `sampan`: `planned`, `started`, `output`, `done`, `warning`, `finished`. All text is
//! somebody else's: on a terminal control characters are taken out of it.

mod live;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A line for each thing that happens.
    Plain,
    /// Lines that move, on a terminal of so many rows and columns.
    Terminal {
        /// Rows of the terminal.
        rows: u16,
        /// Columns of the terminal.
        columns: u16,
    },
}

/// Lines of a step's output that are kept for the case that it fails.
const KEPT: usize = 40;
/// Longest line of output that is held together.
const LONGEST: usize = 16 << 10;
/// Steps with higher numbers are taken for nonsense.
const MOST_STEPS: u64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Waiting,
    Running,
    Cached,
    Done,
    Failed,
}

#[derive(Debug, Clone)]
struct Step {
    title: String,
    /// A base: it is neither run nor cached.
    base: bool,
    state: State,
    began: Duration,
    /// Why it ran or was cached.
    why: String,
    /// The last lines that it printed.
    lines: Vec<String>,
    /// Beginnings of lines, of standard output and standard error.
    partial: [String; 2],
}

/// Shows a build.
#[derive(Debug)]
pub struct Steps<W: Write> {
    out: W,
    style: Style,
    explain: bool,
    steps: BTreeMap<u64, Step>,
    image: String,
    names: Vec<String>,
    /// Lines of the moving part that stand on the terminal.
    drawn: usize,
    drawn_at: Duration,
    /// What is going on besides steps, such as a pull.
    note: String,
}

impl Step {
    fn new() -> Self {
        let partial = [String::new(), String::new()];
        let (title, why, lines) = (String::new(), String::new(), Vec::new());
        Self { title, base: false, state: State::Waiting, began: Duration::ZERO, why, lines, partial }
    }
}

impl<W: Write> Steps<W> {
    /// A display. With `explain` each step says why it ran.
    pub fn new(out: W, style: Style, explain: bool) -> Self {
        let drawn_at = Duration::ZERO;
        let (steps, names) = (BTreeMap::new(), Vec::new());
        Self { out, style, explain, steps, image: String::new(), names, drawn: 0, drawn_at, note: String::new() }
    }

    /// Whether a message is one of those that are shown here.
    #[must_use]
    pub fn knows(message: &Value) -> bool {
        message.get("sampan").is_some_and(Value::is_object)
    }

    /// The terminal has so many rows and columns from now on.
    pub fn resize(&mut self, size: (u16, u16)) {
        if let Style::Terminal { rows, columns } = &mut self.style {
            (*rows, *columns) = size;
        }
    }

    /// Shows a message that came at a time since the beginning.
    ///
    /// # Errors
    /// When the output is gone.
    pub fn show(&mut self, message: &Value, now: Duration) -> io::Result<()> {
        let Some(event) = message.get("sampan") else { return self.other(message, now) };
        let number = event.get("step").and_then(Value::as_u64).filter(|number| *number < MOST_STEPS).map(|number| number + 1);
        match (text(event, "kind"), number) {
            ("planned", _) => self.planned(event, now),
            ("started", Some(number)) => self.started(number, now),
            ("output", Some(number)) => self.output(number, event, now),
            ("done", Some(number)) => self.done(number, event, now),
            ("warning", _) => self.put(&[format!("WARNING: {}", clean(text(event, "text")))], now),
            ("finished", _) => self.finished(event, now),
            _ => Ok(()),
        }
    }

    /// The image of a build that ended well.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Draws the times anew.
    ///
    /// # Errors
    /// When the output is gone.
    pub fn tick(&mut self, now: Duration) -> io::Result<()> {
        if matches!(self.style, Style::Terminal { .. }) { self.draw(&[], now) } else { Ok(()) }
    }

    /// Takes the moving lines away and shows the cursor again. To be called at any end.
    ///
    /// # Errors
    /// When the output is gone.
    pub fn restore(&mut self) -> io::Result<()> {
        if self.drawn == 0 {
            return Ok(());
        }
        let up = std::mem::take(&mut self.drawn);
        write!(self.out, "\u{1b}[{up}A\r\u{1b}[J\u{1b}[?25h")?;
        self.out.flush()
    }

    /// The end: why steps ran, what was cached, the image, its names.
    ///
    /// # Errors
    /// When the output is gone.
    pub fn finish(&mut self, now: Duration) -> io::Result<()> {
        self.restore()?;
        let work = self.steps.values().filter(|step| !step.base);
        let (count, cached) = (work.clone().count(), work.filter(|step| step.state == State::Cached).count());
        let id = self.image.strip_prefix("sha256:").unwrap_or(&self.image);
        let id = id.get(..12).unwrap_or(id);
        let mut text = self.explained();
        text.push_str(&format!("{cached} of {count} steps were cached; built {id} in {}\n", shown_seconds(now.as_secs_f64())));
        self.names.iter().for_each(|name| text.push_str(&format!("named {name}\n")));
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// The end of a build that failed: what the steps that were under way printed last, where that is not on the screen already.
    ///
    /// # Errors
    /// When the output is gone.
    pub fn fail(&mut self, now: Duration) -> io::Result<()> {
        let running: Vec<u64> = self.steps.iter().filter(|(_, step)| step.state == State::Running).map(|(number, _)| *number).collect();
        for number in running {
            self.end(number, State::Failed, now)?;
        }
        self.restore()?;
        let mut text = String::new();
        if self.style != Style::Plain {
            for (number, step) in self.steps.iter().filter(|(_, step)| step.state == State::Failed && !step.lines.is_empty()) {
                text.push_str(&format!("------\n #{number} {}:\n", step.title));
                step.lines.iter().for_each(|line| text.push_str(&format!("{line}\n")));
                text.push_str("------\n");
            }
        }
        text.push_str(&self.explained());
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    fn explained(&self) -> String {
        let ended = self.steps.values().filter(|step| self.explain && !step.base && !step.why.is_empty());
        let how = |step: &Step| if step.state == State::Cached { "cached" } else { "ran" };
        ended.map(|step| format!("{}: {}: {}\n", step.title, how(step), step.why)).collect()
    }

    fn planned(&mut self, event: &Value, now: Duration) -> io::Result<()> {
        let list = |key: &str| event.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice).to_vec();
        for (number, step) in (1..=MOST_STEPS).zip(list("steps")) {
            let base = step.get("from").and_then(Value::as_bool).unwrap_or(false);
            self.steps.insert(number, Step { title: clean(text(&step, "name")), base, ..Step::new() });
        }
        let warnings: Vec<String> = list("warnings")
            .iter()
            .map(|warning| {
                let line = warning.get("line").and_then(Value::as_u64).unwrap_or(0);
                format!("WARNING: {}: {} (line {line})", clean(text(warning, "rule")), clean(text(warning, "message")))
            })
            .collect();
        self.put(&warnings, now)
    }

    fn started(&mut self, number: u64, now: Duration) -> io::Result<()> {
        let step = self.steps.entry(number).or_insert_with(Step::new);
        (step.state, step.began) = (State::Running, now);
        let title = step.title.clone();
        match self.style {
            Style::Plain => self.put(&[format!("#{number} {title}")], now),
            Style::Terminal { .. } => self.draw(&[], now),
        }
    }

    fn done(&mut self, number: u64, event: &Value, now: Duration) -> io::Result<()> {
        if let Some(step) = self.steps.get_mut(&number) {
            step.why = clean(text(event, "reason"));
            if step.state == State::Waiting {
                self.started(number, now)?;
            }
        }
        let cached = event.get("cached").and_then(Value::as_bool).unwrap_or(false);
        self.end(number, if cached { State::Cached } else { State::Done }, now)
    }

    fn end(&mut self, number: u64, state: State, now: Duration) -> io::Result<()> {
        let Some(step) = self.steps.get_mut(&number) else { return Ok(()) };
        let rest: Vec<String> = step.partial.iter_mut().map(std::mem::take).filter(|text| !text.is_empty()).collect();
        step.state = state;
        let (title, took) = (step.title.clone(), shown_seconds(now.saturating_sub(step.began).as_secs_f64()));
        // The unfinished lines of a step that ends are its last ones.
        let mut lines: Vec<String> = rest.iter().filter_map(|line| self.line(number, line, now)).collect();
        lines.push(match (self.style, state) {
            (Style::Plain, State::Cached) => format!("#{number} CACHED\n"),
            (Style::Plain, State::Failed) => format!("#{number} ERROR {took}\n"),
            (Style::Plain, _) => format!("#{number} DONE {took}\n"),
            (_, State::Cached) => format!("{title}  CACHED"),
            (_, State::Failed) => format!("{title}  failed after {took}"),
            _ => format!("{title}  {took}"),
        });
        self.put(&lines, now)
    }

    fn finished(&mut self, event: &Value, now: Duration) -> io::Result<()> {
        let list = |key: &str| -> Vec<String> {
            event.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(clean).collect()
        };
        self.image = clean(text(event, "image"));
        self.names = list("names");
        let unused = list("unused");
        if unused.is_empty() {
            return Ok(());
        }
        self.put(&[format!("WARNING: One or more build-args [{}] were not consumed", unused.join(" "))], now)
    }

    fn output(&mut self, number: u64, event: &Value, now: Duration) -> io::Result<()> {
        let Some(step) = self.steps.get_mut(&number) else { return Ok(()) };
        let stream = usize::from(event.get("stderr").and_then(Value::as_bool).unwrap_or(false));
        let mut whole = std::mem::take(&mut step.partial[stream]);
        whole.push_str(text(event, "text"));
        let mut rest = whole.as_str();
        let mut finished = Vec::new();
        while let Some((line, after)) = rest.split_once('\n') {
            finished.push(line.to_owned());
            rest = after;
        }
        if rest.len() > LONGEST {
            finished.push(std::mem::take(&mut rest).to_owned());
        }
        step.partial[stream] = rest.to_owned();
        let lines: Vec<String> = finished.iter().filter_map(|line| self.line(number, line, now)).collect();
        self.put(&lines, now)
    }

    /// A whole line of a step: kept, and as it is shown in the plain style.
    fn line(&mut self, number: u64, line: &str, now: Duration) -> Option<String> {
        let step = self.steps.get_mut(&number)?;
        // What a carriage return overwrote is not shown.
        let line = line.trim_end_matches('\r');
        let line = clean(line.rsplit('\r').next().unwrap_or(line));
        if step.lines.len() == KEPT {
            step.lines.remove(0);
        }
        step.lines.push(line.clone());
        let seconds = now.saturating_sub(step.began).as_secs_f64();
        (self.style == Style::Plain).then(|| format!("#{number} {seconds:.2} {line}"))
    }

    /// Messages of other works, such as pulls.
    fn other(&mut self, message: &Value, now: Duration) -> io::Result<()> {
        let (id, status) = (clean(text(message, "id")), clean(text(message, "status")));
        let stream = text(message, "stream");
        if !stream.is_empty() {
            let lines: Vec<String> = stream.lines().filter(|line| !line.trim().is_empty()).map(clean).collect();
            return self.put(&lines, now);
        }
        if status.is_empty() {
            return Ok(());
        }
        let head = if id.is_empty() { String::new() } else { format!("{id}: ") };
        let moving = message.get("progressDetail").is_some_and(|detail| detail.get("current").is_some());
        if self.style == Style::Plain {
            return if moving { Ok(()) } else { self.put(&[format!("{head}{status}")], now) };
        }
        self.note = format!("{head}{status}");
        self.draw(&[], now)
    }

    fn put(&mut self, lines: &[String], now: Duration) -> io::Result<()> {
        if self.style != Style::Plain {
            return self.draw(lines, now);
        }
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = lines.join("\n");
        text.push('\n');
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Steps<W> {
    fn drop(&mut self) {
        drop(self.restore());
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// `1.2s`.
fn shown_seconds(seconds: f64) -> String {
    format!("{:.1}s", seconds.max(0.0))
}

/// The same for a text of several lines.
#[must_use]
pub fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// Without colours, control characters and what turns the direction of writing; tabs become blanks.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                // Colours and movements: up to their final letter.
                if characters.next_if_eq(&'[').is_some() {
                    for next in characters.by_ref() {
                        if ('@'..='~').contains(&next) {
                            break;
                        }
                    }
                }
            }
            '\t' => out.push_str("    "),
            '\n' => out.push(' '),
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {}
            other if other.is_control() => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests;
