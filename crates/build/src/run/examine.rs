//! What a Dockerfile is asked without building it: its findings, its stages, what it takes.

use std::sync::Mutex;

use sampan_base::{Cancel, ErrorKind};

use super::bases::Local;
use super::builder::Builder;
use super::context::OpenedContext;
use super::error::BuildError;
use super::request::BuildRequest;
use crate::dockerfile::{self, Warning};
use crate::plan::{self, Outline, Target};

/// What is asked of a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What its checks find.
    Check,
    /// What can be given to a stage.
    Outline,
    /// Which stages it has.
    Targets,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Findings, each with the excerpt of the Dockerfile that it is about.
    Check(Vec<(Warning, String)>),
    /// What a stage takes.
    Outline(Outline),
    /// The stages.
    Targets(Vec<Target>),
}

impl Builder {
    /// Answers a question about a Dockerfile, and gives its text. Nothing is run; base images may be fetched.
    ///
    /// # Errors
    /// [`BuildError`]: a context or a Dockerfile that cannot be used.
    pub fn examine(&self, request: BuildRequest<'_>, question: Question, cancel: &Cancel) -> Result<(Answer, Vec<u8>), BuildError> {
        let BuildRequest { plan: mut wish, dockerfile: name, context, pull, pull_always, .. } = request;
        let OpenedContext { text, checkout: _checkout, .. } = self.open_context(context, &name, &mut wish, cancel)?;
        let excerpt = |lines| dockerfile::excerpt(&name, text.as_ref(), lines);
        let mut file = dockerfile::parse(&text).map_err(|error| BuildError::reading(&error, excerpt))?;
        let answer = match question {
            Question::Targets => Answer::Targets(plan::targets(&file, &text)),
            Question::Outline => {
                let missing = || {
                    let wanted = wish.target.as_deref().unwrap_or_default();
                    BuildError::invalid(format!("target stage {} could not be found", sampan_gotext::quote(wanted)))
                };
                Answer::Outline(plan::outline(&file, &text, &wish).ok_or_else(missing)?)
            }
            Question::Check => {
                // Findings are told, not made into an error.
                let told = |text: &str| text.split(';').filter(|part| !part.trim().starts_with("error")).collect::<Vec<_>>().join(";");
                file.check = file.check.as_deref().map(told);
                if let Some(check) = wish.build_args.get_mut("BUILDKIT_DOCKERFILE_CHECK") {
                    *check = told(check);
                }
                wish.checks = true;
                let bases = Local { images: &self.images, pull, pull_always, seen: Mutex::default(), cancel };
                let planned = plan::plan(&file, &wish, &bases).map_err(|error| BuildError::planning(&error, excerpt))?;
                let warnings = planned.warnings.into_iter().map(|warning| {
                    let around = excerpt(warning.lines);
                    (warning, around)
                });
                Answer::Check(warnings.collect())
            }
        };
        if cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        Ok((answer, text))
    }
}

impl Question {
    /// The question of a name: `check` (or `lint`), `outline`, `targets`.
    ///
    /// # Errors
    /// BuildKit's words.
    pub fn parse(name: &str) -> Result<Self, BuildError> {
        match name {
            "check" | "lint" => Ok(Self::Check),
            "outline" => Ok(Self::Outline),
            "targets" => Ok(Self::Targets),
            other => {
                let text = format!("unsupported request frontend.{other}: unsupported request frontend.{other}");
                Err(BuildError::Room { text, kind: ErrorKind::Invalid })
            }
        }
    }
}
