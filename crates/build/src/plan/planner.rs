//! The state of planning: stages as they grow, the operations and steps made so far, expansion with its checks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sampan_base::ErrorKind;
use sampan_gotext::ignore::Ignore;
use sampan_gotext::shellwords::{Expansion, Lexer};
use sampan_oci::{History, ImageConfig, Platform};

use super::graph::{BaseImage, Op, OpId, Step};
use super::request::{Bases, NamedContext, PlanError, Request};
use super::scope::Variables;
use crate::dockerfile::{CheckConfig, Dockerfile, Head, Instruction, Lines, Warning, rules, suggest};

/// How many bytes the expansions of one plan may move, and how many its configurations may have together.
const MAX_SPENT: usize = 1 << 27;
/// Findings beyond this many are not looked for; each may look through all names for one that is near.
pub(super) const MAX_FINDINGS: usize = 500;
/// The comment of every history entry, as BuildKit's.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// What a command finds programs in where the image does not say.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An instruction with the stages that it reads.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) instruction: Instruction,
    /// One per mount of RUN, one of COPY --from.
    pub(super) sources: Vec<usize>,
    pub(super) trigger: bool,
}

/// A stage, or an image that an instruction names.
#[derive(Debug, Clone, Default)]
pub(super) struct StageState {
    /// Its number in the file; none for images that instructions name.
    pub(super) index: Option<usize>,
    pub(super) head: Option<Head>,
    pub(super) lines: Option<Lines>,
    pub(super) name: String,
    pub(super) display_name: String,
    pub(super) base_name: String,
    pub(super) platform: Option<Platform>,
    pub(super) base: Option<usize>,
    pub(super) context: Option<NamedContext>,
    pub(super) context_name: String,
    pub(super) dependencies: BTreeMap<usize, Lines>,
    pub(super) commands: Vec<Command>,
    pub(super) resolved: bool,
    pub(super) triggers_taken: bool,
    pub(super) dispatched: bool,
    pub(super) no_cache: bool,
    pub(super) counter: usize,
    pub(super) total: usize,
    pub(super) from_name: String,
    pub(super) from_number: Option<(usize, usize)>,
    pub(super) image_op: Option<OpId>,
    pub(super) root: Option<OpId>,
    pub(super) variables: Variables,
    pub(super) config: Arc<ImageConfig>,
    pub(super) build_args: Vec<(String, Option<String>)>,
    pub(super) base_image: Option<BaseImage>,
    pub(super) workdir_set: bool,
    pub(super) cmd: Option<Lines>,
    pub(super) entrypoint: Option<Lines>,
    pub(super) healthcheck: Option<Lines>,
    pub(super) steps: std::ops::Range<usize>,
}

pub(super) struct Planner<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) request: &'a Request,
    pub(super) bases: &'a dyn Bases,
    pub(super) lexer: Lexer,
    pub(super) checks: CheckConfig,
    pub(super) globals: Arc<Variables>,
    pub(super) declared: BTreeSet<String>,
    pub(super) target: Platform,
    pub(super) build: Platform,
    pub(super) stages: Vec<StageState>,
    pub(super) by_name: HashMap<String, usize>,
    /// Images that instructions name, by name; one for all that name it.
    pub(super) implicit: HashMap<String, usize>,
    pub(super) contexts: BTreeMap<String, OpId>,
    pub(super) ops: Vec<Op>,
    pub(super) steps: Vec<Step>,
    pub(super) findings: Vec<Warning>,
    pub(super) ignore: Ignore,
    spent: usize,
}

/// What is wrong with an instruction, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// BuildKit's.
    pub(crate) message: String,
    /// The classic builder's where they differ.
    pub(crate) classic: Option<String>,
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self { message, classic: None }
    }
}

impl Fault {
    /// The fault at its place.
    pub(super) fn at(self, lines: Lines) -> PlanError {
        PlanError { kind: ErrorKind::Invalid, message: self.message, classic: self.classic, lines: Some(lines) }
    }
}

/// A fault at a place.
pub(super) fn fault(message: impl Into<String>, lines: Option<Lines>) -> PlanError {
    PlanError { kind: ErrorKind::Invalid, message: message.into(), classic: None, lines }
}

/// The configuration of an empty image.
pub(super) fn empty_image(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    config.rootfs.kind = "layers".to_owned();
    config.config.working_dir = "/".to_owned();
    config.config.env = Some(vec![format!("PATH={DEFAULT_PATH}")]);
    config
}

impl<'a> Planner<'a> {
    pub(super) fn new(file: &'a Dockerfile, request: &'a Request, bases: &'a dyn Bases) -> Result<Self, PlanError> {
        let check = request.build_args.get("BUILDKIT_DOCKERFILE_CHECK").or(file.check.as_ref());
        let checks = CheckConfig::parse(check.map_or("", String::as_str));
        let checks = checks.map_err(|message| fault(format!("failed to parse check options: {message}"), None))?;
        let ignore = Ignore::new(&request.ignore_patterns).map_err(|error| fault(error.to_string(), None))?;
        let build = request.build_platform.clone().unwrap_or_else(Platform::host);
        let target = request.platform.clone().unwrap_or_else(|| build.clone());
        Ok(Self {
            file,
            request,
            bases,
            lexer: Lexer::new(file.escape),
            checks,
            globals: Arc::default(),
            declared: BTreeSet::new(),
            target,
            build,
            stages: Vec::new(),
            by_name: HashMap::new(),
            implicit: HashMap::new(),
            contexts: BTreeMap::new(),
            ops: Vec::new(),
            steps: Vec::new(),
            findings: file.findings.clone(),
            ignore,
            spent: 0,
        })
    }

    pub(super) fn op(&mut self, op: Op) -> OpId {
        self.ops.push(op);
        OpId(self.ops.len() - 1)
    }

    /// The operation of a context; one for each name.
    pub(super) fn context(&mut self, name: &str) -> OpId {
        if let Some(known) = self.contexts.get(name) {
            return *known;
        }
        let op = self.op(Op::Context { name: name.to_owned() });
        self.contexts.insert(name.to_owned(), op);
        op
    }

    pub(super) fn spend(&mut self, cost: usize) -> Result<(), String> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > MAX_SPENT { Err("the Dockerfile's variables and configurations are too large".to_owned()) } else { Ok(()) }
    }

    /// Expands a text with a stage's variables.
    pub(super) fn expand_with(&mut self, stage: usize, text: &str, lexer: Lexer) -> Result<Expansion, String> {
        let variables = &self.stages[stage].variables;
        let lookup = |name: &str| variables.get(name).map(str::to_owned);
        let expansion = lexer.expand(text, &lookup).map_err(|error| error.to_string())?;
        self.spend(expansion.cost)?;
        Ok(expansion)
    }

    /// Expands one word of an instruction and checks that its variables exist.
    pub(super) fn word(&mut self, stage: usize, lines: Lines, text: &str) -> Result<String, String> {
        let expansion = self.expand_with(stage, text, self.lexer)?;
        self.report_unset(stage, lines, &expansion);
        Ok(expansion.text)
    }

    pub(super) fn words(&mut self, stage: usize, lines: Lines, texts: &[String]) -> Result<Vec<String>, String> {
        texts.iter().map(|text| self.word(stage, lines, text)).collect()
    }

    pub(super) fn report_unset(&mut self, stage: usize, lines: Lines, expansion: &Expansion) {
        if expansion.unmatched.is_empty() {
            return;
        }
        let stage = &self.stages[stage];
        let keys = stage.variables.keys();
        for name in &expansion.unmatched {
            if self.findings.len() >= MAX_FINDINGS {
                return;
            }
            if stage.build_args.iter().any(|(key, _)| key == name) {
                continue;
            }
            let mut text = format!("Usage of undefined variable '${name}'");
            if let Some(other) = suggest(name, &keys, true) {
                text.push_str(&format!(" (did you mean ${other}?)"));
            }
            self.findings.push(rules::UNDEFINED_VAR.warn(lines, text));
        }
    }

    pub(super) fn config(&mut self, stage: usize) -> &mut ImageConfig {
        Arc::make_mut(&mut self.stages[stage].config)
    }

    /// Adds to the history; with the suffix that BuildKit gives to what a command or a copy made.
    pub(super) fn commit(&mut self, stage: usize, message: String, layer: bool) -> History {
        let entry = History { created_by: message, comment: COMMENT.to_owned(), empty_layer: !layer, ..History::default() };
        self.config(stage).history.push(entry.clone());
        entry
    }

    /// `[build 2/6] ` before a step's text, counted.
    pub(super) fn numbered(&mut self, stage: usize, text: &str, trigger: bool) -> (String, Option<(usize, usize)>) {
        let stage = &mut self.stages[stage];
        if stage.total == 0 {
            return (text.to_owned(), None);
        }
        stage.counter += 1;
        let width = stage.total.to_string().len();
        let display = if stage.display_name.is_empty() { String::new() } else { format!("{} ", stage.display_name) };
        let onbuild = if trigger { "ONBUILD " } else { "" };
        (format!("[{display}{:width$}/{}] {onbuild}{text}", stage.counter, stage.total), Some((stage.counter, stage.total)))
    }

    /// The text of a step with its variables, for progress.
    pub(super) fn shown(&mut self, stage: usize, code: &str, lexer: Lexer) -> String {
        let expanded = self.expand_with(stage, code, lexer).map_or_else(|_| code.to_owned(), |expansion| expansion.text);
        match expanded.split_once(' ') {
            Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
            None => expanded.to_uppercase(),
        }
    }

    /// About how many bytes a stage's configuration has; each step keeps one.
    pub(super) fn weight(&self, stage: usize) -> usize {
        let config = &self.stages[stage].config;
        let inner = &config.config;
        let list = |texts: &Option<Vec<String>>| texts.iter().flatten().map(|text| text.len() + 24).sum::<usize>();
        let history: usize = config.history.iter().map(|entry| entry.created_by.len() + 120).sum();
        let labels: usize = inner.labels.iter().map(|(key, value)| key.len() + value.len() + 48).sum();
        let keys = |map: &BTreeMap<String, serde_json::Value>| map.keys().map(|key| key.len() + 80).sum::<usize>();
        history + labels + keys(&inner.volumes) + keys(&inner.exposed_ports) + list(&inner.env) + list(&inner.on_build) + list(&inner.cmd)
    }
}
