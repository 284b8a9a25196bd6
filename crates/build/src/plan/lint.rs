//! The checks that look at more than one instruction, or at values. They only add findings.

use std::collections::BTreeSet;

use sampan_gotext::shellwords::Expansion;
use sampan_oci::{Platform, Reference};

use super::planner::{MAX_FINDINGS, Planner};
use super::scope::Variables;
use crate::dockerfile::{Head, Lines, StageSource, rules, suggest};

/// Words that make a name sound secret.
const SECRETS: [&str; 10] = ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Names of stages, case of keywords.
pub(super) fn file(planner: &mut Planner<'_>) {
    let mut names = BTreeSet::new();
    let (mut lower, mut upper) = (0, 0);
    let mut heads: Vec<&Head> = Vec::new();
    for stage in &planner.file.stages {
        let (name, lines) = (&stage.from.name, stage.head.lines);
        if matches!(name.as_str(), "context" | "scratch") {
            let text = format!("Stage name should not use the same name as reserved stage {}", sampan_gotext::quote(name));
            planner.findings.push(rules::RESERVED_STAGE_NAME.warn(lines, text));
        }
        if !name.is_empty() && !names.insert(name) {
            let text = format!("Duplicate stage name {}, stage names should be unique", sampan_gotext::quote(name));
            planner.findings.push(rules::DUPLICATE_STAGE_NAME.warn(lines, text));
        }
        heads.push(&stage.head);
        heads.extend(stage.instructions.iter().map(|instruction| &instruction.head));
    }
    for head in &heads {
        if head.keyword == head.keyword.to_lowercase() {
            lower += 1;
        } else if head.keyword == head.keyword.to_uppercase() {
            upper += 1;
        }
    }
    for head in heads {
        let (wanted, fits) = match lower > upper {
            true => ("lowercase", head.keyword == head.keyword.to_lowercase()),
            false => ("uppercase", head.keyword == head.keyword.to_uppercase()),
        };
        if !fits {
            let text = format!("Command '{}' should match the case of the command majority ({wanted})", head.keyword);
            planner.findings.push(rules::CONSISTENT_INSTRUCTION_CASING.warn(head.lines, text));
        }
    }
}

/// Base names with the defaults of the global ARGs.
pub(super) fn default_bases(planner: &mut Planner<'_>, globals: &Variables) {
    for stage in &planner.file.stages {
        let expanded = planner.lexer.expand(&stage.from.base, &|name| globals.get(name).map(str::to_owned));
        let Ok(expanded) = expanded else { return };
        if Reference::parse_normalized(&expanded.text).is_err() {
            let text = format!("Default value for ARG {} results in empty or invalid base image name", stage.from.base);
            planner.findings.push(rules::INVALID_DEFAULT_ARG_IN_FROM.warn(stage.head.lines, text));
        }
    }
}

/// Variables of FROM that nothing declares.
pub(super) fn undeclared(planner: &mut Planner<'_>, unmatched: &BTreeSet<String>, lines: Lines) {
    if unmatched.is_empty() || planner.findings.len() >= MAX_FINDINGS {
        return;
    }
    let known: Vec<&str> = planner.globals.keys().into_iter().chain(planner.declared.iter().map(String::as_str)).collect();
    let mut found = Vec::new();
    for name in unmatched.iter().filter(|name| !known.contains(&name.as_str())) {
        let mut text = format!("FROM argument '{name}' is not declared");
        if let Some(other) = suggest(name, &known, true) {
            text.push_str(&format!(" (did you mean {other}?)"));
        }
        found.push(rules::UNDEFINED_ARG_IN_FROM.warn(lines, text));
    }
    planner.findings.extend(found);
}

/// `--platform` of FROM.
pub(super) fn stage_platform(planner: &mut Planner<'_>, source: &StageSource, expanded: &Expansion) {
    let lines = source.head.lines;
    if expanded.unmatched.is_empty() && expanded.matched.len() == 1 && expanded.matched.contains("TARGETPLATFORM") {
        let text = &source.from.platform;
        let text = format!("Setting platform to predefined {text} in FROM is redundant as this is the default behavior");
        planner.findings.push(rules::REDUNDANT_TARGET_PLATFORM.warn(lines, text));
    }
    let constant = expanded.matched.is_empty() && expanded.unmatched.is_empty();
    let Some(platform) = Platform::parse(&expanded.text).filter(|_| constant) else { return };
    if !source.from.name.contains(&platform.os) && !source.from.name.contains(&platform.architecture) {
        let text = format!("FROM --platform flag should not use constant value {}", sampan_gotext::quote(&expanded.text));
        planner.findings.push(rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED.warn(lines, text));
    }
}

/// Names of ARG and ENV that sound secret.
pub(super) fn secret(planner: &mut Planner<'_>, keyword: &str, key: &str, lines: Lines) {
    let parts: Vec<String> = key.split('_').map(str::to_lowercase).collect();
    if parts.iter().any(|part| SECRETS.contains(&part.as_str())) && !parts.iter().any(|part| part == "public") {
        let text = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {})", sampan_gotext::quote(key));
        planner.findings.push(rules::SECRETS_USED_IN_ARG_OR_ENV.warn(lines, text));
    }
}

/// `ENV a b`.
pub(super) fn legacy(planner: &mut Planner<'_>, head: &Head) {
    let name = &head.keyword;
    let text = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
    planner.findings.push(rules::LEGACY_KEY_VALUE_FORMAT.warn(head.lines, text));
}

/// CMD and ENTRYPOINT in shell form.
pub(super) fn shell_form(planner: &mut Planner<'_>, head: &Head) {
    let text = format!("JSON arguments recommended for {} to prevent unintended behavior related to OS signals", head.keyword);
    planner.findings.push(rules::JSON_ARGS_RECOMMENDED.warn(head.lines, text));
}

/// The second CMD of a stage; the finding is at the first.
pub(super) fn once(planner: &mut Planner<'_>, head: &Head, before: Option<Lines>) {
    if let Some(lines) = before {
        let name = &head.keyword;
        let text = format!("Multiple {name} instructions should not be used in the same stage because only the last one will be used");
        planner.findings.push(rules::MULTIPLE_INSTRUCTIONS_DISALLOWED.warn(lines, text));
    }
}
