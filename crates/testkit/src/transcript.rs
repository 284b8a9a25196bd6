//! Transcripts: command lines with the output users see, recorded from one engine and replayed on another.
//!
//! ```text
//! # comments stand before the first command
//! $ docker run --rm busybox sh -c 'echo out; echo err >&2; exit 3'
//! out
//! 2> err
//! ! 3
//! ~ why ours may differ
//! out, as ours prints it
//! ```
//! Standard output stands as it is, standard error behind `2> `, an exit code other than 0 behind `! `. After `~ REASON` follows
//! what ours prints instead: an accepted difference. Outputs are normalised, see [`crate::normalize`].

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::normalize::normalize;
use crate::world::Output;

/// One command of a transcript.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Case {
    /// Comment lines before it, with their `#`.
    pub comments: Vec<String>,
    /// The shell command line.
    pub command: String,
    /// What it printed: lines in the notation of the file.
    pub expected: Vec<String>,
    /// An accepted difference: the reason, and what ours prints.
    pub ours: Option<(String, Vec<String>)>,
}

/// Reads a transcript.
///
/// # Panics
/// When output stands before the first command.
#[must_use]
pub fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut comments = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            cases.push(Case { comments: std::mem::take(&mut comments), command: command.to_owned(), ..Case::default() });
        } else if cases.is_empty() && line.starts_with('#') {
            comments.push(line.to_owned());
        } else if let Some(reason) = line.strip_prefix("~ ") {
            cases.last_mut().expect("a command before a difference").ours = Some((reason.to_owned(), Vec::new()));
        } else {
            let case = cases.last_mut().expect("a command before its output");
            match &mut case.ours {
                Some((_, lines)) => lines.push(line.to_owned()),
                None => case.expected.push(line.to_owned()),
            }
        }
    }
    cases
}

/// Writes a transcript.
#[must_use]
pub fn print(cases: &[Case]) -> String {
    let mut out = String::new();
    let mut put = |line: &str| {
        let _infallible = writeln!(out, "{line}");
    };
    for case in cases {
        case.comments.iter().for_each(|line| put(line));
        put(&format!("$ {}", case.command));
        case.expected.iter().for_each(|line| put(line));
        if let Some((reason, lines)) = &case.ours {
            put(&format!("~ {reason}"));
            lines.iter().for_each(|line| put(line));
        }
    }
    out
}

/// What a command printed, in the notation of the file, normalised.
#[must_use]
pub fn notation(output: &Output) -> Vec<String> {
    let mut seen = HashMap::new();
    let stdout = normalize(&output.stdout, &mut seen);
    let stderr = normalize(&output.stderr, &mut seen);
    let mut lines: Vec<String> = stdout.lines().map(str::to_owned).collect();
    lines.extend(stderr.lines().map(|line| format!("2> {line}")));
    if output.code != 0 {
        lines.push(format!("! {}", output.code));
    }
    // A blank line at the end would not survive the file.
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Runs every case and describes each difference.
pub fn replay(cases: &[Case], mut run: impl FnMut(&str) -> Output) -> Vec<String> {
    let mut differences = Vec::new();
    for case in cases {
        let wanted = case.ours.as_ref().map_or(&case.expected, |(_, lines)| lines);
        let wanted: Vec<_> = wanted.iter().map(|line| line.trim_end().to_owned()).collect();
        let got: Vec<_> = notation(&run(&case.command)).iter().map(|line| line.trim_end().to_owned()).collect();
        if wanted != got {
            let indent = |lines: &[String], mark: char| lines.iter().map(|line| format!("  {mark} {line}\n")).collect::<String>();
            differences.push(format!("$ {}\n{}{}", case.command, indent(&wanted, '-'), indent(&got, '+')));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_survives_reading_and_writing() {
        let text = "# first\n$ echo a\na\n$ false\n! 1\n~ ours is kinder\nok\n";
        let cases = parse(text);
        assert_eq!(cases.len(), 2);
        assert_eq!(print(&cases), text);
    }

    #[test]
    fn a_difference_is_described() {
        let cases = parse("$ echo a\na\n");
        let run = |_: &str| Output { stdout: "b\n".into(), stderr: "e\n".into(), code: 2 };
        assert_eq!(replay(&cases, run), ["$ echo a\n  - a\n  + b\n  + 2> e\n  + ! 2\n"]);
    }
}
