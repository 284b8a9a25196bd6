//! The moving lines at the end of a terminal: which steps run, since when, and what they printed last.

use std::io::{self, Write};
use std::time::Duration;

use super::{State, Step, Steps, Style, shown_seconds};
use crate::table::ellipsis;

/// The moving part is drawn at most so often.
const PAUSE: Duration = Duration::from_millis(80);
/// Lines of output that are shown of a running step.
const SHOWN: usize = 4;

impl<W: Write> Steps<W> {
    /// Puts lines above the moving part and draws that anew, in one write. Without lines it may be left for the next time.
    pub(super) fn draw(&mut self, lines: &[String], now: Duration) -> io::Result<()> {
        let Style::Terminal { rows, columns } = self.style else { return Ok(()) };
        if lines.is_empty() && self.drawn > 0 && now.saturating_sub(self.drawn_at) < PAUSE {
            return Ok(());
        }
        let columns = usize::from(columns.max(20)) - 1;
        let live: Vec<String> = self.live(usize::from(rows.max(4)) - 2, now).iter().map(|line| ellipsis(line, columns)).collect();
        // One write, inside of marks that let the terminal show it at once; each line clears only what is left of the old one.
        let mut text = String::from("\u{1b}[?2026h");
        if self.drawn == 0 && !live.is_empty() {
            text.push_str("\u{1b}[?25l");
        }
        if self.drawn > 0 {
            text.push_str(&format!("\u{1b}[{}A\r", self.drawn));
        }
        for line in lines.iter().chain(&live) {
            text.push_str(line.trim_end_matches('\n'));
            text.push_str("\u{1b}[K\n");
        }
        text.push_str("\u{1b}[J");
        if self.drawn > 0 && live.is_empty() {
            text.push_str("\u{1b}[?25h");
        }
        text.push_str("\u{1b}[?2026l");
        (self.drawn, self.drawn_at) = (live.len(), now);
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    fn live(&self, most: usize, now: Duration) -> Vec<String> {
        let running: Vec<&Step> = self.steps.values().filter(|step| step.state == State::Running).collect();
        let ended = self.steps.values().filter(|step| matches!(step.state, State::Done | State::Cached)).count();
        let mut out = vec![format!("building {}, {ended} of {} steps done", shown_seconds(now.as_secs_f64()), self.steps.len())];
        // Each running step gets its title first; what room is left is for output.
        let room = most.saturating_sub(1 + running.len());
        let each = if running.is_empty() { 0 } else { (room / running.len()).min(SHOWN) };
        for step in running.iter().take(most.saturating_sub(1)) {
            out.push(format!("=> {}  {}", step.title, shown_seconds(now.saturating_sub(step.began).as_secs_f64())));
            let from = step.lines.len().saturating_sub(each);
            out.extend(step.lines[from..].iter().map(|(_, line)| format!("   {line}")));
        }
        if running.is_empty() && !self.note.is_empty() {
            out.push(format!("   {}", self.note));
        }
        out
    }
}
