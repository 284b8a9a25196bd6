//! What a build tells, as JSON lines: the classic builder's texts, in the order of the Dockerfile whatever runs at once; or
//! events for our own command line, as they come.

use sampan_base::Failure as _;
use sampan_build::plan::{FileAction, Graph, Op};
use sampan_build::{BuildError, Event, StepOutput};
use sampan_oci::{ImageId, Reference};
use sampan_wire::{Json, object};

use crate::progress::Lines;
use crate::respond::ApiError;

/// How a build is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Show {
    /// Only the image's id.
    pub(crate) quiet: bool,
    /// Events instead of texts.
    pub(crate) native: bool,
    /// Say that containers are removed.
    pub(crate) remove: bool,
}

/// A build being shown.
pub(crate) struct Shower<'a> {
    show: Show,
    lines: &'a Lines,
    /// Texts of the steps that are not shown yet; the first one is being shown.
    waiting: Vec<Waiting>,
    first: usize,
    /// What a quiet build would have said.
    held: Vec<Json>,
    unused: Vec<String>,
    begun: bool,
}

/// Texts of a step whose turn has not come.
#[derive(Debug, Clone, Default)]
struct Waiting {
    texts: Vec<Json>,
    /// Whether a container is made up for it: the classic builder makes one for what changes the configuration.
    pretended: bool,
    /// Whether what it resulted in is not said: triggers of the base image follow.
    silent: bool,
    /// Whether another stage follows: what this one resulted in is told to programs too.
    ends_stage: bool,
    done: bool,
}

/// Shows a build.
pub(crate) fn shower(show: Show, lines: &Lines) -> Shower<'_> {
    Shower { show, lines, waiting: Vec::new(), first: 0, held: Vec::new(), unused: Vec::new(), begun: false }
}

fn stream(text: impl Into<String>) -> Json {
    object! { "stream": text.into() }
}

/// Twelve digits that look like a container's.
fn pretended(number: usize, image: &ImageId) -> String {
    sampan_oci::Digest::sha256_of(format!("{number} {image}").as_bytes()).short().to_owned()
}

impl Shower<'_> {
    fn send(&mut self, document: Json) {
        self.begun = true;
        if self.show.quiet { self.held.push(document) } else { self.lines.send(&document) }
    }

    fn tell(&mut self, step: usize, document: Json) {
        if self.first == step {
            self.send(document);
        } else if let Some(waiting) = self.waiting.get_mut(step) {
            waiting.texts.push(document);
        }
    }

    /// Takes one event.
    pub(crate) fn take(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Printed(..)) {
            self.lines.await_room();
        }
        if let Event::Planned(graph) = event {
            self.unused.clone_from(&graph.unused_build_args);
        }
        if self.show.native {
            if let Some(document) = native(event) {
                self.lines.send(&object! { "sampan": document });
            }
            return;
        }
        match event {
            Event::Planned(graph) => self.begin(graph),
            Event::Started(_) => {}
            Event::Running(step, id) => self.tell(*step, stream(format!(" ---> Running in {}\n", &id[..12]))),
            Event::Removed(step, id) if self.show.remove => {
                self.tell(*step, stream(format!(" ---> Removed intermediate container {}\n", &id[..12])));
            }
            Event::Removed(..) => {}
            Event::Printed(step, output, bytes) => {
                let text = String::from_utf8_lossy(bytes);
                let text = if *output == StepOutput::Stderr { format!("\u{1b}[91m{text}\u{1b}[0m") } else { text.into_owned() };
                self.tell(*step, stream(text));
            }
            Event::Done { step, image, cached, .. } => self.done(*step, image.as_ref(), *cached),
            Event::Warning(text) => self.send(stream(format!("[Warning] {text}\n"))),
        }
    }

    fn begin(&mut self, graph: &Graph) {
        let total = graph.prologue.len() + graph.steps.iter().filter(|step| !step.trigger).count();
        for (number, text) in graph.prologue.iter().enumerate() {
            self.send(stream(format!("Step {}/{total} : {text}\n", number + 1)));
        }
        let is_trigger = |number: usize| graph.steps.get(number).is_some_and(|step| step.trigger);
        let mut shown = graph.prologue.len();
        let steps = graph.steps.iter().enumerate().map(|(number, step)| {
            let mut texts = Vec::new();
            if !step.trigger {
                shown += 1;
                texts.push(stream(format!("Step {shown}/{total} : {}\n", step.text)));
            } else if !is_trigger(number.wrapping_sub(1)) {
                let count = (number..).take_while(|number| is_trigger(*number)).count();
                texts.push(stream(format!("# Executing {count} build trigger{}\n", if count == 1 { "" } else { "s" })));
            }
            let op = step.op.and_then(|op| graph.ops.get(op.0));
            let folders =
                matches!(op, Some(Op::File(file)) if file.actions.iter().all(|action| matches!(action, FileAction::Mkdir { .. })));
            let ends_stage = graph.steps.get(number + 1).is_some_and(|next| next.from);
            Waiting { texts, pretended: !step.from && (op.is_none() || folders), silent: is_trigger(number + 1), ends_stage, done: false }
        });
        self.waiting = steps.collect();
        self.flush();
    }

    /// Says what the step whose turn it is has to say.
    fn flush(&mut self) {
        if let Some(waiting) = self.waiting.get_mut(self.first) {
            for text in std::mem::take(&mut waiting.texts) {
                self.send(text);
            }
        }
    }

    fn done(&mut self, step: usize, image: Option<&ImageId>, cached: bool) {
        let made_up = self.waiting.get(step).is_some_and(|waiting| waiting.pretended);
        if cached {
            self.tell(step, stream(" ---> Using cache\n"));
        } else if let (true, Some(image)) = (made_up, image) {
            let container = pretended(step, image);
            self.tell(step, stream(format!(" ---> Running in {container}\n")));
            if self.show.remove {
                self.tell(step, stream(format!(" ---> Removed intermediate container {container}\n")));
            }
        }
        if self.waiting.get(step).is_some_and(|waiting| !waiting.silent) {
            self.tell(step, stream(format!(" ---> {}\n", image.map_or("", |image| image.0.short()))));
        }
        if let (true, Some(image)) = (self.waiting.get(step).is_some_and(|waiting| waiting.ends_stage), image) {
            self.tell(step, object! { "aux": object! { "ID": image.to_string() } });
        }
        if let Some(waiting) = self.waiting.get_mut(step) {
            waiting.done = true;
        }
        while self.waiting.get(self.first).is_some_and(|waiting| waiting.done) {
            self.flush();
            self.first += 1;
            self.flush();
        }
    }

    /// Ends a build that succeeded.
    pub(crate) fn finish(&mut self, image: &ImageId, names: &[Reference]) {
        let names: Vec<String> = names.iter().map(Reference::familiar).collect();
        if self.show.native {
            let document = object! { "kind": "finished", "image": image.to_string(), "names": Json::list(names), "unused": Json::list(self.unused.clone()) };
            self.lines.send(&object! { "sampan": document });
            return;
        }
        if self.show.quiet {
            self.lines.send(&object! { "aux": object! { "ID": image.to_string() } });
            self.lines.send(&stream(format!("{image}\n")));
            return;
        }
        self.lines.send(&object! { "aux": object! { "ID": image.to_string() } });
        if !self.unused.is_empty() {
            let list = self.unused.join(" ");
            self.lines.send(&stream(format!("[Warning] One or more build-args [{list}] were not consumed\n")));
        }
        self.lines.send(&stream(format!("Successfully built {}\n", image.0.short())));
        for name in names {
            self.lines.send(&stream(format!("Successfully tagged {name}\n")));
        }
    }

    /// Ends a build that failed: a status where nothing was said yet, else the last line.
    pub(crate) fn fail(&mut self, error: &BuildError) -> Result<(), ApiError> {
        let text = sampan_engine::chain(error.bare());
        if !self.begun && !self.show.native {
            return Err(match error.kind() {
                sampan_base::ErrorKind::Cancelled => ApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, text),
                _ => ApiError::from(Failed { text, kind: error.kind() }),
            });
        }
        for held in std::mem::take(&mut self.held) {
            self.lines.send(&held);
        }
        if self.show.native {
            self.lines.send(&object! { "errorDetail": native_failure(error, &text), "error": text });
            return Ok(());
        }
        let detail = match command_code(error) {
            0 => object! { "message": text.clone() },
            code => object! { "code": code, "message": text.clone() },
        };
        self.lines.send(&object! { "errorDetail": detail, "error": text });
        Ok(())
    }
}

/// The code of the command that failed; 0 where it was no command.
fn command_code(error: &BuildError) -> i64 {
    if let BuildError::Command { code, .. } = error.bare() { i64::from(*code) } else { 0 }
}

/// A failure as our own command line reads it: BuildKit's words, the place in the Dockerfile, the step.
fn native_failure(error: &BuildError, text: &str) -> Json {
    let (step, excerpt) = match error {
        BuildError::Step { step, excerpt, .. } => (i64::try_from(*step).unwrap_or(-1), excerpt.as_str()),
        BuildError::Dockerfile { excerpt, .. } => (-1, excerpt.as_str()),
        _ => (-1, ""),
    };
    let message = error.solve_text().unwrap_or_else(|| text.to_owned());
    object! { "code": command_code(error), "message": message, "excerpt": excerpt.to_owned(), "step": step }
}

/// A failure in words.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Failed {
    text: String,
    kind: sampan_base::ErrorKind,
}

impl sampan_base::Failure for Failed {
    fn kind(&self) -> sampan_base::ErrorKind {
        self.kind
    }
}

/// An event as our own command line reads it.
fn native(event: &Event<'_>) -> Option<Json> {
    Some(match event {
        Event::Planned(graph) => {
            let steps = graph.steps.iter().map(|step| {
                let name = if step.name.is_empty() { step.text.clone() } else { step.name.clone() };
                object! { "name": name, "text": step.text.clone(), "work": step.op.is_some(), "from": step.from }
            });
            let warnings = graph.warnings.iter().map(|warning| {
                let line = warning.lines.map_or(0, |lines| lines.first as u64);
                object! { "rule": warning.rule, "message": warning.message.clone(), "line": line }
            });
            object! { "kind": "planned", "steps": Json::Array(steps.collect()), "warnings": Json::Array(warnings.collect()) }
        }
        Event::Started(step) => object! { "kind": "started", "step": *step as u64 },
        Event::Printed(step, output, bytes) => object! {
            "kind": "output", "step": *step as u64, "stderr": *output == StepOutput::Stderr, "text": String::from_utf8_lossy(bytes).into_owned(),
        },
        Event::Done { step, image, cached, reason } => object! {
            "kind": "done", "step": *step as u64, "cached": *cached, "reason": reason.clone(),
            "image": image.as_ref().map(ToString::to_string).unwrap_or_default(),
        },
        Event::Warning(text) => object! { "kind": "warning", "text": text.clone() },
        Event::Running(..) | Event::Removed(..) => return None,
    })
}
