//! A build, step by step: lines that move on a terminal, plain lines without one. The clock is an argument; nothing here waits.
//!
//! What comes in are messages whose id is `sampan.step`, `sampan.log` or `sampan.warning`. All text is somebody else's: on a terminal
//! control characters are taken out of it.

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
/// Most warnings that are shown.
const MOST_WARNINGS: usize = 100;
/// Steps with higher numbers are taken for nonsense.
const MOST_STEPS: u64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Running,
    Skipped,
    Cached,
    Done,
    Failed,
}

#[derive(Debug, Clone)]
struct Step {
    title: String,
    state: State,
    began: Duration,
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
    warnings: Vec<Warning>,
    /// Lines of the moving part that stand on the terminal.
    drawn: usize,
    drawn_at: Duration,
    /// What is going on besides steps, such as a pull.
    note: String,
}

#[derive(Debug, Clone)]
struct Warning {
    check: String,
    text: String,
    line: u64,
    excerpt: String,
}

impl<W: Write> Steps<W> {
    /// A display. With `explain` each step says why it ran.
    pub fn new(out: W, style: Style, explain: bool) -> Self {
        let drawn_at = Duration::ZERO;
        Self { out, style, explain, steps: BTreeMap::new(), warnings: Vec::new(), drawn: 0, drawn_at, note: String::new() }
    }

    /// Whether a message is one of those that are shown here.
    #[must_use]
    pub fn knows(message: &Value) -> bool {
        matches!(text(message, "id"), "sampan.step" | "sampan.log" | "sampan.warning")
    }

    /// Shows a message that came at a time since the beginning.
    ///
    /// # Errors
    /// When the output is gone.
    pub fn show(&mut self, message: &Value, now: Duration) -> io::Result<()> {
        let aux = message.get("aux").unwrap_or(&Value::Null);
        match text(message, "id") {
            "sampan.step" => self.step(aux, now),
            "sampan.log" => self.log(aux, now),
            "sampan.warning" => {
                self.warning(aux);
                Ok(())
            }
            _ => self.other(message, now),
        }
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

    /// The end: what was cached, the image, its names, the warnings.
    ///
    /// # Errors
    /// When the output is gone.
    pub fn finish(&mut self, image: &str, names: &[String]) -> io::Result<()> {
        self.restore()?;
        let count = |state: State| self.steps.values().filter(|step| step.state == state).count();
        let (cached, ran) = (count(State::Cached), count(State::Done));
        let mut text = String::new();
        if cached + ran > 0 {
            text.push_str(&format!("{cached} of {} steps cached\n", cached + ran));
        }
        if !image.is_empty() {
            text.push_str(&format!("image {}\n", clean(image)));
        }
        for name in names {
            text.push_str(&format!("named {name}\n"));
        }
        text.push_str(&self.shown_warnings());
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// The end of a build that failed: what the failed steps printed last, where that is not on the screen already.
    ///
    /// # Errors
    /// When the output is gone.
    pub fn fail(&mut self) -> io::Result<()> {
        self.restore()?;
        let mut text = String::new();
        if self.style != Style::Plain {
            for (number, step) in self.steps.iter().filter(|(_, step)| step.state == State::Failed && !step.lines.is_empty()) {
                text.push_str(&format!("------\n #{number} {}:\n", step.title));
                step.lines.iter().for_each(|line| text.push_str(&format!("{line}\n")));
                text.push_str("------\n");
            }
        }
        text.push_str(&self.shown_warnings());
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    fn shown_warnings(&self) -> String {
        let count = self.warnings.len();
        if count == 0 {
            return String::new();
        }
        let mut out = format!("\n {count} warning{} found:\n", if count == 1 { "" } else { "s" });
        for Warning { check, text, line, excerpt } in &self.warnings {
            let place = if *line > 0 { format!(" (line {line})") } else { String::new() };
            out.push_str(&format!(" - {check}: {text}{place}\n"));
            excerpt.lines().for_each(|line| out.push_str(&format!("   {}\n", clean(line))));
        }
        out
    }

    fn step(&mut self, aux: &Value, now: Duration) -> io::Result<()> {
        let Some(number) = number(aux, "step").filter(|number| *number <= MOST_STEPS) else { return Ok(()) };
        let state = match text(aux, "state") {
            "started" => State::Running,
            "cached" => State::Cached,
            "done" => State::Done,
            "failed" => State::Failed,
            "skipped" => State::Skipped,
            _ => return Ok(()),
        };
        let mut lines = Vec::new();
        let fresh = !self.steps.contains_key(&number);
        let step = self.steps.entry(number).or_insert_with(|| Step {
            title: title(aux, number),
            state,
            began: now,
            lines: Vec::new(),
            partial: [String::new(), String::new()],
        });
        let seconds = aux.get("seconds").and_then(Value::as_f64).unwrap_or_else(|| now.saturating_sub(step.began).as_secs_f64());
        let rest: Vec<String> = step.partial.iter_mut().map(std::mem::take).filter(|text| !text.is_empty()).collect();
        step.state = state;
        let title = step.title.clone();
        // The unfinished lines of a step that ends are its last ones.
        for line in rest {
            lines.extend(self.line(number, &line, now));
        }
        let why = text(aux, "why");
        let why = if self.explain && !why.is_empty() { format!("#{number} why: {}", clean(why)) } else { String::new() };
        if self.style == Style::Plain {
            if fresh && (state != State::Skipped || self.explain) {
                lines.push(format!("#{number} {title}"));
            }
            lines.push(why);
            match state {
                State::Cached => lines.push(format!("#{number} CACHED\n")),
                State::Done => lines.push(format!("#{number} DONE {}\n", shown_seconds(seconds))),
                State::Failed => lines.push(format!("#{number} ERROR {}\n", shown_seconds(seconds))),
                State::Skipped if self.explain => lines.push(format!("#{number} SKIPPED\n")),
                State::Skipped | State::Running => {}
            }
        } else {
            let word = match state {
                State::Cached => "cached".to_owned(),
                State::Done => shown_seconds(seconds),
                State::Failed => format!("failed after {}", shown_seconds(seconds)),
                State::Skipped if self.explain => "skipped".to_owned(),
                State::Skipped | State::Running => String::new(),
            };
            if !word.is_empty() {
                lines.push(format!("{title}  {word}"));
            }
            if state != State::Running {
                lines.push(why);
            }
        }
        lines.retain(|line| !line.is_empty());
        self.put(&lines, now)
    }

    fn log(&mut self, aux: &Value, now: Duration) -> io::Result<()> {
        let Some(number) = number(aux, "step") else { return Ok(()) };
        let Some(step) = self.steps.get_mut(&number) else { return Ok(()) };
        let stream = usize::from(text(aux, "stream") == "stderr");
        let mut whole = std::mem::take(&mut step.partial[stream]);
        whole.push_str(text(aux, "text"));
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
        let lines: Vec<String> = finished.iter().flat_map(|line| self.line(number, line, now)).collect();
        self.put(&lines, now)
    }

    /// A whole line of a step: kept, and as it is shown in the plain style.
    fn line(&mut self, number: u64, line: &str, now: Duration) -> Option<String> {
        let step = self.steps.get_mut(&number)?;
        // What a carriage return overwrote is not shown.
        let line = line.trim_end_matches('\r');
        let line = line.rsplit('\r').next().unwrap_or(line);
        if step.lines.len() == KEPT {
            step.lines.remove(0);
        }
        step.lines.push(clean(line));
        let seconds = now.saturating_sub(step.began).as_secs_f64();
        (self.style == Style::Plain).then(|| format!("#{number} {seconds:.2} {line}"))
    }

    fn warning(&mut self, aux: &Value) {
        if self.warnings.len() < MOST_WARNINGS {
            self.warnings.push(Warning {
                check: clean(text(aux, "check")),
                text: clean(text(aux, "text")),
                line: number(aux, "line").unwrap_or(0),
                excerpt: text(aux, "excerpt").chars().take(LONGEST).collect(),
            });
        }
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

fn number(value: &Value, key: &str) -> Option<u64> {
    value.get(key).and_then(Value::as_u64)
}

/// `[build 3/7] RUN make`.
fn title(aux: &Value, step: u64) -> String {
    let stage = clean(text(aux, "stage"));
    let head = match number(aux, "of").filter(|of| *of > 0) {
        Some(of) if stage.is_empty() => format!("[{step}/{of}] "),
        Some(of) => format!("[{stage} {step}/{of}] "),
        None if stage.is_empty() => String::new(),
        None => format!("[{stage}] "),
    };
    format!("{head}{}", clean(text(aux, "text")))
}

/// `1.2s`.
fn shown_seconds(seconds: f64) -> String {
    format!("{:.1}s", seconds.max(0.0))
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
