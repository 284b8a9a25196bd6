//! What a command is: its place in the tree, its flags, its words, and the function that does it.
//!
//! Parsing, help and completion are all made from this.

use std::pin::Pin;

use sampan_gotext::flags::{Flag, Matches};

use crate::app::App;
use crate::error::Outcome;

/// What a command's function returns.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// How many words a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
    Any,
}

impl Words {
    /// What is wrong with so many words.
    pub(crate) fn mistake(self, count: usize) -> Option<String> {
        let arguments = |count: usize| if count == 1 { "argument" } else { "arguments" };
        match self {
            Self::Exactly(0) if count != 0 => Some("accepts no arguments".into()),
            Self::Exactly(want) if count != want => Some(format!("requires {want} {}", arguments(want))),
            Self::AtLeast(want) if count < want => Some(format!("requires at least {want} {}", arguments(want))),
            Self::AtMost(want) if count > want => Some(format!("requires at most {want} {}", arguments(want))),
            Self::Between(least, most) if count < least || count > most => {
                Some(format!("requires at least {least} and at most {most} {}", arguments(most)))
            }
            _ => None,
        }
    }
}

/// What the words of a command are, for completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Things {
    Nothing,
    Files,
    /// All containers.
    Containers,
    /// Those that run.
    Running,
    /// Those that do not run.
    Stopped,
    Images,
    /// An image first, then a command of it.
    ImageThenFiles,
    /// A container that runs first, then a command in it.
    RunningThenFiles,
    Volumes,
    Networks,
    Contexts,
    /// Containers with a colon, and files.
    CopyEnds,
    Shells,
    /// Registries that the configuration knows logins for.
    Registries,
}

/// A command.
#[derive(Clone, Copy)]
pub(crate) struct Command {
    /// All places in the tree, the first one the main one: `container ls`.
    pub(crate) paths: &'static [&'static str],
    /// What follows the name in the usage line; more lines for more forms.
    pub(crate) usage: &'static str,
    /// One line.
    pub(crate) about: &'static str,
    /// Further help.
    pub(crate) more: &'static str,
    pub(crate) words: Words,
    pub(crate) things: Things,
    pub(crate) flags: &'static [&'static [Flag]],
    /// Flags may stand behind words.
    pub(crate) interspersed: bool,
    pub(crate) run: for<'a> fn(&'a App, &'a Matches) -> Running<'a>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Command").field("paths", &self.paths).finish_non_exhaustive()
    }
}
