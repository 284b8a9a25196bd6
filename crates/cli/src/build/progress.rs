//! Progress of a build as the engine tells it: live lines with times and a bar on a terminal, plain lines elsewhere.

use std::io::Write;
use std::time::{Duration, Instant};

use sampan_wire::Json;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Nothing.
    Quiet,
    /// A line for each thing that happens.
    Plain,
    /// Lines that move, on a terminal of so many columns.
    Live(usize),
}

#[derive(Debug, Clone, Default)]
struct Step {
    name: String,
    started: Option<Instant>,
    took: Option<Duration>,
    cached: bool,
    from: bool,
    reason: String,
    /// The last line that it printed.
    last: String,
}

/// A build being shown.
#[derive(Debug)]
pub(crate) struct Shown<W> {
    out: W,
    style: Style,
    steps: Vec<Step>,
    began: Instant,
    /// Lines that stand on the terminal and will be written anew.
    drawn: usize,
    /// What the failing step printed, for the end of a live display.
    tail: Vec<(usize, String)>,
    /// The image, when it is there.
    pub(crate) image: String,
    names: Vec<String>,
}

/// Lines of output that are kept for the case that a step fails.
const TAIL: usize = 200;

impl<W: Write> Shown<W> {
    pub(crate) fn new(out: W, style: Style) -> Self {
        let (steps, tail, names) = Default::default();
        Self { out, style, steps, began: Instant::now(), drawn: 0, tail, image: String::new(), names }
    }

    /// Takes one event.
    pub(crate) fn take(&mut self, event: &Json) -> std::io::Result<()> {
        let number = usize::try_from(event.int("step")).unwrap_or(0);
        match event.text("kind") {
            "planned" => self.planned(event)?,
            "started" => {
                if let Some(step) = self.steps.get_mut(number) {
                    step.started = Some(Instant::now());
                    let name = step.name.clone();
                    self.plain(&format!("#{} {name}\n", number + 1))?;
                }
            }
            "output" => self.output(number, event.text("text"))?,
            "done" => self.done(number, event)?,
            "warning" => self.plain(&format!("WARNING: {}\n", event.text("text")))?,
            "finished" => {
                event.text("image").clone_into(&mut self.image);
                self.names = event.texts("names").iter().map(|name| (*name).to_owned()).collect();
                let unused = event.texts("unused");
                if !unused.is_empty() {
                    let text = format!("WARNING: One or more build-args [{}] were not consumed\n", unused.join(" "));
                    self.above(&text)?;
                }
            }
            _ => {}
        }
        self.draw()
    }

    fn planned(&mut self, event: &Json) -> std::io::Result<()> {
        self.steps = event
            .get("steps")
            .items()
            .iter()
            .map(|step| Step { name: clean(step.text("name")), from: step.truth("from"), ..Step::default() })
            .collect();
        for warning in event.get("warnings").items() {
            let text = format!("WARNING: {}: {} (line {})\n", warning.text("rule"), clean(warning.text("message")), warning.int("line"));
            self.above(&text)?;
        }
        Ok(())
    }

    fn output(&mut self, number: usize, text: &str) -> std::io::Result<()> {
        for line in text.split_terminator('\n') {
            let line = clean(line);
            self.plain(&format!("#{} {line}\n", number + 1))?;
            if let Some(step) = self.steps.get_mut(number) {
                step.last.clone_from(&line);
            }
            self.tail.push((number, line));
        }
        if self.tail.len() > 2 * TAIL {
            self.tail.drain(..TAIL);
        }
        Ok(())
    }

    fn done(&mut self, number: usize, event: &Json) -> std::io::Result<()> {
        let Some(step) = self.steps.get_mut(number) else { return Ok(()) };
        step.took = step.started.map(|started| started.elapsed());
        step.cached = event.truth("cached");
        event.text("reason").clone_into(&mut step.reason);
        let took = step.took.unwrap_or_default().as_secs_f64();
        let text = if step.cached { format!("#{} CACHED\n\n", number + 1) } else { format!("#{} DONE {took:.1}s\n\n", number + 1) };
        self.plain(&text)
    }

    fn plain(&mut self, text: &str) -> std::io::Result<()> {
        if self.style == Style::Plain { self.out.write_all(text.as_bytes()) } else { Ok(()) }
    }

    /// A line that stays, above what moves.
    fn above(&mut self, text: &str) -> std::io::Result<()> {
        if self.style == Style::Quiet {
            return Ok(());
        }
        self.erase()?;
        self.out.write_all(text.as_bytes())
    }

    fn erase(&mut self) -> std::io::Result<()> {
        let drawn = std::mem::take(&mut self.drawn);
        if drawn > 0 { write!(self.out, "\u{1b}[{drawn}A\u{1b}[J") } else { Ok(()) }
    }

    /// Draws the moving part anew.
    pub(crate) fn draw(&mut self) -> std::io::Result<()> {
        let Style::Live(columns) = self.style else { return self.out.flush() };
        self.erase()?;
        let lines = self.lines(columns);
        self.drawn = lines.len();
        for line in lines {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    fn lines(&self, columns: usize) -> Vec<String> {
        let total = self.steps.len();
        let ended = self.steps.iter().filter(|step| step.took.is_some()).count();
        let seconds = self.began.elapsed().as_secs_f64();
        let filled = (ended * 20).checked_div(total).unwrap_or(0);
        let bar = format!("{}{}", "#".repeat(filled), "-".repeat(20 - filled));
        let mut lines = vec![cut(&format!("[+] [{bar}] {ended}/{total} steps, {seconds:.1}s"), columns)];
        for step in &self.steps {
            let Some(started) = step.started else { continue };
            let (state, took) = match (step.took, step.cached) {
                (Some(_), true) => ("CACHED ".to_owned(), Duration::ZERO),
                (Some(took), false) => (String::new(), took),
                (None, _) => (String::new(), started.elapsed()),
            };
            let mark = if step.took.is_some() { "=>" } else { "->" };
            let right = format!("{:.1}s", took.as_secs_f64());
            let left = cut(&format!(" {mark} {state}{}", step.name), columns.saturating_sub(right.len() + 1));
            let space = columns.saturating_sub(left.chars().count() + right.len());
            lines.push(format!("{left}{}{right}", " ".repeat(space)));
            if step.took.is_none() && !step.last.is_empty() {
                lines.push(cut(&format!("    {}", step.last), columns));
            }
        }
        // What does not fit on the terminal cannot be drawn anew.
        let most = 20;
        if lines.len() > most {
            lines.drain(1..=lines.len() - most);
        }
        lines
    }

    /// Ends the display: a summary, or what the failing step printed.
    pub(crate) fn end(&mut self, failed: bool, explain: bool) -> std::io::Result<()> {
        self.draw()?;
        self.drawn = 0;
        if failed && matches!(self.style, Style::Live(_)) {
            let failing = self.steps.iter().rposition(|step| step.started.is_some() && step.took.is_none());
            let lines: Vec<String> = self.tail.iter().filter(|(step, _)| Some(*step) == failing).map(|(_, line)| line.clone()).collect();
            for line in lines.iter().rev().take(TAIL).rev() {
                writeln!(self.out, "    {line}")?;
            }
        }
        if explain {
            for step in self.steps.iter().filter(|step| step.took.is_some() && !step.from) {
                let how = if step.cached { "cached" } else { "ran" };
                writeln!(self.out, "{}: {how}: {}", step.name, clean(&step.reason))?;
            }
        }
        if !failed && self.style != Style::Quiet {
            let work = self.steps.iter().filter(|step| !step.from);
            let (count, cached) = (work.clone().count(), work.filter(|step| step.cached).count());
            let seconds = self.began.elapsed().as_secs_f64();
            writeln!(self.out, "{cached} of {count} steps were cached; built {} in {seconds:.1}s", short(&self.image))?;
            for name in &self.names {
                writeln!(self.out, "named {name}")?;
            }
        }
        self.out.flush()
    }
}

fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

/// A line of a stranger without what moves the cursor.
fn clean(text: &str) -> String {
    let text = text.rsplit('\r').find(|part| !part.is_empty()).unwrap_or(text);
    sampan_base::sanitize(&text.replace('\t', "    "))
}

fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<Json> {
        [
            r#"{"kind":"planned","steps":[{"name":"[1/2] FROM box","from":true},{"name":"[2/2] RUN make"}]}"#,
            r#"{"kind":"started","step":0}"#,
            r#"{"kind":"done","step":0}"#,
            r#"{"kind":"started","step":1}"#,
            r#"{"kind":"output","step":1,"text":"a\u001b[2Jb\n"}"#,
            r#"{"kind":"done","step":1,"cached":true,"reason":"unchanged"}"#,
            r#"{"kind":"finished","image":"sha256:0123456789abcdef","names":["x:1"]}"#,
        ]
        .map(|text| Json::parse(text.as_bytes()).unwrap())
        .to_vec()
    }

    fn shown(style: Style) -> String {
        let mut out = Vec::new();
        let mut shown = Shown::new(&mut out, style);
        for event in events() {
            shown.take(&event).unwrap();
        }
        shown.end(false, true).unwrap();
        drop(shown);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_lines() {
        let text = shown(Style::Plain);
        assert!(text.starts_with("#1 [1/2] FROM box\n#1 DONE 0.0s\n\n#2 [2/2] RUN make\n#2 a"), "{text}");
        assert!(!text.contains("\u{1b}[2J"), "{text}");
        assert!(
            text.contains("#2 CACHED\n\n[2/2] RUN make: cached: unchanged\n1 of 1 steps were cached; built 0123456789ab in "),
            "{text}"
        );
        assert!(text.ends_with("named x:1\n"), "{text}");
    }

    #[test]
    fn live_lines_move() {
        let text = shown(Style::Live(60));
        assert!(text.contains("[####################] 2/2 steps") && text.contains("\u{1b}[3A\u{1b}[J"), "{text:?}");
        assert!(text.contains(" => CACHED [2/2] RUN make"), "{text:?}");
        assert_eq!(shown(Style::Quiet), "[2/2] RUN make: cached: unchanged\n");
    }
}
