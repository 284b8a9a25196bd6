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

/// A Dockerfile that cannot be read. BuildKit and the classic builder say the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// Docker's words, `dockerfile parse error on line 3: …` where docker says so.
    pub message: String,
    /// Where; none for errors of the file as a whole.
    pub lines: Option<Lines>,
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
        let fault = |message: String| ParseError { message, lines: Some(node.lines) };
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
        return Err(ParseError { message: "dockerfile contains no stages to build".to_owned(), lines: None });
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
