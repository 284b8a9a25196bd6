//! Tests of other people on our engine: how they went, which are known to fail and why, and the page that says so.
//!
//! Known failures are lists: test, space, reason; a line each, `#` for comments. A reason begins with `not supported: ` (refused
//! with an error that says so), `differs: ` (answered otherwise than by the real Docker), `Docker too: ` (fails on it in the same
//! world) or `stand-in: ` (what stands for an image or for the world outside lacks it). A `*` at a test's end stands for anything;
//! such a test may also pass.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, ensure};
use sampan_testkit::{images, setup};
use serde::Deserialize;

use super::Interop;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Passed,
    Failed,
    Skipped,
}

/// One test.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Outcome {
    /// `GROUP::NAME`.
    pub(super) test: String,
    #[serde(rename = "outcome")]
    pub(super) status: Status,
    /// What it said last.
    pub(super) message: String,
}

/// What is known beforehand of somebody's tests.
#[derive(Debug)]
pub(super) struct Tests {
    /// As the command and the page are called.
    pub(super) name: &'static str,
    /// The page's title.
    pub(super) title: &'static str,
    /// What the groups are.
    pub(super) group: &'static str,
    /// Known failures.
    pub(super) known: &'static str,
    /// The file that they are in.
    pub(super) known_file: &'static str,
}

impl Tests {
    /// Prints the page and, of a whole run on our engine, writes it; fails when other tests failed than those that are known to.
    pub(super) fn conclude(&self, arguments: &Interop, outcomes: &[Outcome], date: &str, about: &str) -> anyhow::Result<()> {
        let text = self.page(outcomes, date, about)?;
        println!("{text}");
        if arguments.docker || arguments.only.is_some() {
            return Ok(());
        }
        let page = arguments.report.clone().unwrap_or_else(|| setup::root().join(format!("docs/interop/{}.md", self.name)));
        images::write(&page, text.as_bytes())?;
        let surprises = self.surprises(outcomes);
        ensure!(surprises.is_empty(), "not as crates/xtask/src/interop/{} says:\n{}", self.known_file, surprises.join("\n"));
        Ok(())
    }

    /// What differs from what is written down.
    pub(super) fn surprises(&self, outcomes: &[Outcome]) -> Vec<String> {
        let mut found = Vec::new();
        for outcome in outcomes {
            match (outcome.status, reason(self.known, &outcome.test)) {
                (Status::Failed, None) => found.push(format!("{} fails: {}", outcome.test, outcome.message)),
                (Status::Passed, Some((false, _))) => found.push(format!("{} passes", outcome.test)),
                _ => {}
            }
        }
        let ran = |pattern: &str| outcomes.iter().any(|outcome| fits(pattern, &outcome.test));
        found.extend(all(self.known).filter(|(pattern, _)| !ran(pattern)).map(|(pattern, _)| format!("{pattern} is no test")));
        found
    }

    /// The page: a line a group, the failing tests.
    fn page(&self, outcomes: &[Outcome], date: &str, about: &str) -> anyhow::Result<String> {
        let mut groups: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for outcome in outcomes {
            let counts = groups.entry(outcome.test.split("::").next().unwrap_or_default()).or_default();
            counts[outcome.status as usize] += 1;
        }
        let [passed, failed, skipped] = [0, 1, 2].map(|status| groups.values().map(|counts| counts[status]).sum::<usize>());
        let mut text = format!(
            "# {}\n\nWritten by `cargo xtask interop {}` on {date}: {passed} passed, {failed} failed, {skipped} skipped.\n{about}\n\n\
             | {} | passed | failed | skipped |\n|---|---|---|---|\n",
            self.title, self.name, self.group
        );
        for (group, [passed, failed, skipped]) in &groups {
            writeln!(text, "| {group} | {passed} | {failed} | {skipped} |")?;
        }
        text.push_str("\n## Failing tests\n\n| test | why |\n|---|---|\n");
        for outcome in outcomes.iter().filter(|outcome| outcome.status == Status::Failed) {
            let unknown = || format!("**not known**: {}", outcome.message);
            let reason = reason(self.known, &outcome.test).map_or_else(unknown, |(_, reason)| reason.to_owned());
            writeln!(text, "| {} | {} |", super::cell(&outcome.test), super::cell(&reason))?;
        }
        Ok(text)
    }
}

/// Runs a program on this machine; gives what it printed.
pub(super) fn program(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Tests and reasons of a list.
fn all(list: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '))
}

fn fits(pattern: &str, test: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == test, |start| test.starts_with(start))
}

/// Why a test may fail, and whether it may pass as well.
fn reason(list: &'static str, test: &str) -> Option<(bool, &'static str)> {
    all(list).find(|(pattern, _)| fits(pattern, test)).map(|(pattern, reason)| (pattern.ends_with('*'), reason))
}

/// That every reason has its form.
#[cfg(test)]
pub(super) fn check(list: &'static str) {
    for (test, reason) in all(list) {
        assert!(
            ["not supported: ", "differs: ", "Docker too: ", "stand-in: "].iter().any(|word| reason.starts_with(word)),
            "{test} {reason}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# a comment\na::b differs: one\na::* Docker too: other";
    const TESTS: Tests = Tests { name: "x", title: "X", group: "file", known: LIST, known_file: "x.txt" };

    fn outcome(test: &str, status: Status) -> Outcome {
        Outcome { test: test.into(), status, message: "why".into() }
    }

    #[test]
    fn the_first_pattern_that_fits_counts() {
        assert_eq!(reason(LIST, "a::b"), Some((false, "differs: one")));
        assert_eq!(reason(LIST, "a::c"), Some((true, "Docker too: other")));
        assert_eq!(reason(LIST, "b"), None);
        check(LIST);
    }

    #[test]
    fn surprises_are_told() {
        let told = |outcomes: &[Outcome]| TESTS.surprises(outcomes);
        assert_eq!(told(&[outcome("a::b", Status::Failed), outcome("a::c", Status::Passed)]), [""; 0]);
        assert_eq!(told(&[outcome("x::y", Status::Failed), outcome("a::b", Status::Passed)]), ["x::y fails: why", "a::b passes"]);
        assert_eq!(told(&[outcome("a::c", Status::Failed)]), ["a::b is no test"]);
    }

    #[test]
    fn a_page_counts_by_group() {
        let outcomes = [outcome("a::b", Status::Failed), outcome("a::z", Status::Passed), outcome("c::d", Status::Skipped)];
        let page = TESTS.page(&outcomes, "2000-01-01", "About.").unwrap();
        assert!(
            page.starts_with("# X\n\nWritten by `cargo xtask interop x` on 2000-01-01: 1 passed, 1 failed, 1 skipped.\nAbout.\n\n| file |"),
            "{page}"
        );
        assert!(page.contains("| a | 1 | 1 | 0 |\n| c | 0 | 0 | 1 |\n") && page.ends_with("| a::b | differs: one |\n"), "{page}");
    }
}
