//! From instructions to a graph of operations: the counterpart of BuildKit's `dockerfile2llb`. Pure; images are seen through [`Bases`].

mod copy;
mod dispatch;
mod graph;
mod lint;
mod outline;
mod planner;
mod ports;
mod remote;
mod request;
mod run;
mod scope;
mod signal;
mod stages;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use graph::{
    BaseImage, Copy, Exec, File, FileAction, Git, Graph, Http, Mode, Mount, MountKind, Network, Op, OpId, Output, Security, Sharing, Stage,
    Step, Unpack,
};
pub use outline::{Input, Outline, Target, outline, targets};
pub use request::{Base, BaseError, Bases, Entitlements, NamedContext, NoCache, PlanError, Request};

pub(crate) use ports::parse as parse_port;
pub(crate) use remote::{Remote, classify};
pub(crate) use scope::{join, set_line};
pub(crate) use signal::is_signal;

use crate::dockerfile::{Dockerfile, Kind, ParseError};
use planner::{Planner, fault};

impl From<ParseError> for PlanError {
    fn from(error: ParseError) -> Self {
        Self { kind: sampan_base::ErrorKind::Invalid, message: error.message, classic: Some(error.classic), lines: error.lines }
    }
}

/// Plans a build.
///
/// # Errors
/// [`PlanError`] with the position of the fault where it has one.
pub fn plan(dockerfile: &Dockerfile, request: &Request, bases: &dyn Bases) -> Result<Graph, PlanError> {
    let mut planner = Planner::new(dockerfile, request, bases)?;
    lint::file(&mut planner);
    planner.plan_globals()?;
    planner.plan_stages()?;
    let target = planner.target_stage()?;
    planner.connect()?;
    let reachable = planner.resolve(target)?;
    for stage in 0..planner.stages.len() {
        if reachable.contains(&stage) && !planner.stages[stage].dispatched {
            planner.dispatch_stage(stage)?;
        }
    }
    finish(planner, target, &reachable)
}

fn finish(mut planner: Planner<'_>, target: usize, reachable: &BTreeSet<usize>) -> Result<Graph, PlanError> {
    let request = planner.request;
    let config = planner.config(target);
    config.config.labels.extend(request.labels.clone());
    if let Some(platform) = &request.platform {
        let same = platform.os == config.os && platform.architecture == config.architecture;
        (config.os, config.architecture) = (platform.os.clone(), platform.architecture.clone());
        if !platform.variant.is_empty() || !same {
            config.variant.clone_from(&platform.variant);
        }
    }
    let checks = planner.checks.clone();
    let mut warnings = std::mem::take(&mut planner.findings);
    warnings.retain(|warning| request.checks && checks.wants(warning));
    if checks.error && !warnings.is_empty() {
        let rules: BTreeSet<&str> = warnings.iter().map(|warning| warning.rule).collect();
        let rules: Vec<&str> = rules.into_iter().collect();
        return Err(fault(format!("lint violation found for rules: {}", rules.join(", ")), None));
    }
    warnings.sort_by_key(|warning| warning.lines.map_or(0, |lines| lines.first));
    let output =
        |stage: &planner::StageState| Output { root: stage.root, config: Arc::clone(&stage.config), base: stage.base_image.clone() };
    let result = output(&planner.stages[target]);
    let stage = |number: &usize| {
        let stage = &planner.stages[*number];
        Some(Stage {
            index: stage.index?,
            name: stage.name.clone(),
            display_name: stage.display_name.clone(),
            base_name: stage.base_name.clone(),
            platform: stage.platform.clone().unwrap_or_else(|| planner.target.clone()),
            steps: stage.steps.clone(),
            output: output(stage),
        })
    };
    let mut stages: Vec<Stage> = reachable.iter().filter_map(stage).collect();
    stages.sort_by_key(|stage| stage.index);
    Ok(Graph {
        stages,
        result,
        prologue: planner.file.global_args.iter().map(|instruction| instruction.head.code.clone()).collect(),
        unused_build_args: unused(&planner),
        warnings_are_errors: checks.error,
        warnings,
        ops: planner.ops,
        steps: planner.steps,
    })
}

/// Build arguments that nothing declares. Every ARG of the file counts, also in stages that are not built.
fn unused(planner: &Planner<'_>) -> Vec<String> {
    let mut declared = planner.declared.clone();
    for instruction in planner.file.stages.iter().flat_map(|stage| &stage.instructions) {
        if let Kind::Arg(arguments) = &instruction.kind {
            declared.extend(arguments.iter().map(|argument| argument.key.clone()));
        }
    }
    let known = |key: &String| {
        let platform = ["BUILD", "TARGET"].iter().any(|side| key.strip_prefix(side).is_some_and(is_platform_fact));
        declared.contains(key) || run::is_proxy(key) || key.starts_with("BUILDKIT_") || key == "SOURCE_DATE_EPOCH" || platform
    };
    let named: BTreeSet<&String> = planner.request.build_args.keys().chain(&planner.request.valueless_args).collect();
    named.into_iter().filter(|key| !known(key)).cloned().collect()
}

fn is_platform_fact(rest: &str) -> bool {
    matches!(rest, "PLATFORM" | "OS" | "OSVERSION" | "ARCH" | "VARIANT" | "STAGE")
}

#[cfg(test)]
mod tests;
