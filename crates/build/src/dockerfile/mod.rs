//! Dockerfiles: text to typed instructions with the positions of everything. Pure, total, with limits on every size.
//!
//! Not here: what the instructions mean together (stages, variables, history) is [`crate::plan`].

mod ast;
mod checks;
mod excerpt;
mod flags;
mod instruction;
mod mounts;
mod source;
mod words;

pub use ast::{
    Argument, CommandLine, Dockerfile, From, Head, Heredoc, Instruction, Kind, Lines, Pair, Run, StageSource, Transfer, Warning,
};
pub use checks::{CheckConfig, Rule, rules};
pub use excerpt::excerpt;
pub(crate) use mounts::{MountOptions, from_of as mount_from, parse as parse_mount};
pub(crate) use source::{chomped, heredoc};
pub(crate) use words::{suggest, with_suggestion};

/// A Dockerfile that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// BuildKit's words, `dockerfile parse error on line 3: …` where it says so.
    pub message: String,
    /// The classic builder's words.
    pub classic: String,
    /// Where; none for errors of the file as a whole.
    pub lines: Option<Lines>,
}

impl ParseError {
    /// The same words for both builders.
    fn of_both(message: String, lines: Option<Lines>) -> Self {
        Self { classic: message.clone(), message, lines }
    }

    /// A fault in the form of a line, to which the classic builder adds what it was doing.
    fn of_form(message: String, lines: Option<Lines>) -> Self {
        Self { classic: format!("failed to parse Dockerfile: {message}"), message, lines }
    }
}

impl sampan_base::Failure for ParseError {
    fn kind(&self) -> sampan_base::ErrorKind {
        sampan_base::ErrorKind::Invalid
    }
}

/// Reads a Dockerfile.
///
/// # Errors
/// [`ParseError`] of the first fault. Faults of the form of any line come before faults of single instructions, as in docker.
pub fn parse(text: &[u8]) -> Result<Dockerfile, ParseError> {
    if text.is_empty() {
        return Err(ParseError::of_both("the Dockerfile cannot be empty".to_owned(), None));
    }
    let source = source::read(text)?;
    let mut file = Dockerfile {
        escape: source.escape,
        syntax: source.syntax.clone(),
        check: source.check.clone(),
        global_args: Vec::new(),
        stages: Vec::new(),
        findings: source.findings.clone(),
    };
    for node in &source.nodes {
        let fault = |message: String| ParseError::of_both(message, Some(node.lines));
        let parsed = instruction::parse(node, &mut file.findings);
        let instruction = parsed.map_err(|message| fault(format!("dockerfile parse error on line {}: {message}", node.lines.first)))?;
        match (instruction.kind, file.stages.last_mut()) {
            (Kind::From(from), _) => file.stages.push(StageSource { from, head: instruction.head, instructions: Vec::new() }),
            (kind, Some(stage)) => stage.instructions.push(Instruction { kind, head: instruction.head }),
            (kind @ Kind::Arg(_), None) => file.global_args.push(Instruction { kind, head: instruction.head }),
            (_, None) => return Err(fault("no build stage in current context".to_owned())),
        }
    }
    if file.stages.is_empty() {
        return Err(ParseError::of_both("dockerfile contains no stages to build".to_owned(), None));
    }
    Ok(file)
}

/// Reads a single instruction: a trigger of a base image, or a line of `commit -c`.
pub(crate) fn parse_one(text: &str, lines: Lines) -> Result<Instruction, String> {
    let source = source::read(text.as_bytes()).map_err(|error| error.message)?;
    let [node] = source.nodes.as_slice() else { return Err("onbuild trigger should be a single expression".to_owned()) };
    let node = source::Node { lines, ..node.clone() };
    instruction::parse(&node, &mut Vec::new())
}

/// Reads instructions that change a configuration and nothing else; the name of one that does not is the error's `Err`.
pub(crate) fn parse_changes(text: &str, allowed: &[&str]) -> Result<Vec<Instruction>, Result<String, String>> {
    let source = source::read(text.as_bytes()).map_err(|error| Ok(error.message))?;
    let strange = source.nodes.iter().find(|node| !allowed.contains(&node.keyword.to_ascii_lowercase().as_str()));
    if let Some(node) = strange {
        return Err(Err(node.keyword.clone()));
    }
    source.nodes.iter().map(|node| instruction::parse(node, &mut Vec::new()).map_err(Ok)).collect()
}

#[cfg(test)]
mod tests;
