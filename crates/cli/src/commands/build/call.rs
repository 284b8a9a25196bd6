//! `--call check|outline|targets`: what the engine found out about a Dockerfile, as BuildKit's client shows it.

use sampan_gotext::flags::Matches;
use sampan_ui::table::{Columns, tabulate};
use sampan_wire::Json;
use serde_json::Value;

use crate::error::{CliError, Outcome};
use crate::format::pretty;

/// What is asked, and whether the answer is shown as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    json: bool,
}

/// The question of a command line; `None` for a build.
///
/// # Errors
/// Options of `--call` that mean nothing.
pub(super) fn call(matches: &Matches) -> Outcome<Option<Call>> {
    let text = if matches.truth("check") && !matches.given("call") { "check" } else { matches.text("call") };
    let mut parts = text.split(',');
    let (mut name, mut json) = (parts.next().unwrap_or_default(), false);
    for part in parts {
        match part.split_once('=') {
            Some(("format", format)) => json = format == "json",
            Some((_, _)) => {}
            None => return Err(CliError::new(format!("invalid call option {part}, expected key=value"))),
        }
    }
    name = name.strip_prefix("frontend.").unwrap_or(name);
    Ok((!matches!(name, "" | "build")).then(|| Call { name: name.to_owned(), json }))
}

/// The text of an answer, and the exit code: findings are a failure.
///
/// # Errors
/// An answer that is not understood.
pub(super) fn show(call: &Call, answer: &Value) -> Outcome<(String, u8)> {
    let text = answer.get("text").and_then(Value::as_str).unwrap_or_default();
    let broken = |error: serde_json::Error| CliError::new(format!("the engine's answer is no JSON: {error}"));
    let document: Value = serde_json::from_str(text).map_err(broken)?;
    let findings = list(&document, "warnings");
    let code = u8::from(!findings.is_empty());
    if call.json {
        let ordered: Json = serde_json::from_str(text).map_err(broken)?;
        return Ok((pretty(&ordered, "  ") + "\n", code));
    }
    let shown = match answer.get("call").and_then(Value::as_str).unwrap_or_default() {
        "check" => check(findings, list(answer, "excerpts")),
        "outline" => outline(&document),
        _ => targets(&document),
    };
    Ok((shown, code))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text of the Dockerfile, without what moves a terminal's cursor.
fn field(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => sampan_base::sanitize(text).to_string(),
        Some(Value::Bool(truth)) => truth.to_string(),
        _ => String::new(),
    }
}

fn check(findings: &[Value], excerpts: &[Value]) -> String {
    let mut out = match findings.len() {
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for (number, finding) in findings.iter().enumerate() {
        let excerpt = excerpts.get(number).and_then(Value::as_str).unwrap_or_default();
        let excerpt: String = excerpt.lines().map(|line| format!("{}\n", sampan_base::sanitize(line))).collect();
        out.push_str(&format!(
            "\nWARNING: {} - {}\n{}\n{excerpt}",
            field(finding, "ruleName"),
            field(finding, "url"),
            field(finding, "detail")
        ));
    }
    out
}

/// A table with an empty line below.
fn table(head: &str, rows: &[Value], columns: &[&str], out: &mut String) {
    if rows.is_empty() {
        return;
    }
    let mut text = format!("{head}\n");
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|key| field(row, key)).collect();
        text.push_str(&format!("{}\n", cells.join("\t")));
    }
    out.push_str(&tabulate(&text, Columns { least: 0, padding: 3 }));
    out.push('\n');
}

fn outline(document: &Value) -> String {
    let mut out = String::new();
    let name = field(document, "name");
    if !name.is_empty() {
        let description = field(document, "description");
        let described = if description.is_empty() { String::new() } else { format!("DESCRIPTION:\t{description}\n") };
        out.push_str(&tabulate(&format!("TARGET:\t{name}\n{described}\n"), Columns { least: 0, padding: 1 }));
    }
    table("BUILD ARG\tVALUE\tDESCRIPTION", list(document, "args"), &["name", "value", "description"], &mut out);
    table("SECRET\tREQUIRED", list(document, "secrets"), &["name", "required"], &mut out);
    table("SSH\tREQUIRED", list(document, "ssh"), &["name", "required"], &mut out);
    out
}

fn targets(document: &Value) -> String {
    let mut text = "TARGET\tDESCRIPTION\n".to_owned();
    for target in list(document, "targets") {
        let name = match (field(target, "name"), field(target, "default") == "true") {
            (name, true) if name.is_empty() => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name,
        };
        text.push_str(&format!("{name}\t{}\n", field(target, "description")));
    }
    tabulate(&text, Columns { least: 0, padding: 1 })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(kind: &str, document: &Value, excerpts: &[&str]) -> (String, u8) {
        let call = Call { name: kind.to_owned(), json: false };
        show(&call, &json!({"call": kind, "text": document.to_string(), "excerpts": excerpts})).unwrap()
    }

    #[test]
    fn answers_look_as_buildkits_client_shows_them() {
        let document = json!({"targets": [{"name": "base", "description": "is first"}, {"name": "x"}, {"default": true}]});
        let expected = "TARGET    DESCRIPTION\nbase      is first\nx         \n(default) \n";
        assert_eq!(shown("targets", &document, &[]), (expected.into(), 0));
        let document = json!({"name": "b", "description": "makes it", "args": [{"name": "VERSION", "value": "1", "description": "is"}, {"name": "NONE"}], "secrets": [{"name": "tok", "required": true}]});
        let expected = "TARGET:      b\nDESCRIPTION: makes it\n\nBUILD ARG   VALUE   DESCRIPTION\nVERSION     1       is\nNONE                \n\nSECRET   REQUIRED\ntok      true\n\n";
        assert_eq!(shown("outline", &document, &[]), (expected.into(), 0));
        assert_eq!(shown("check", &json!({"warnings": null}), &[]), ("Check complete, no warnings found.\n".into(), 0));
        let document = json!({"warnings": [{"ruleName": "R", "url": "u", "detail": "d\u{1b}[2J"}]});
        let expected = "Check complete, 1 warning has been found!\n\nWARNING: R - u\n";
        let (text, code) = shown("check", &document, &["Dockerfile:1\n"]);
        assert!(text.starts_with(expected) && text.ends_with("\nDockerfile:1\n") && !text.contains('\u{1b}') && code == 1, "{text}");
    }

    #[test]
    fn answers_as_json_keep_their_order() {
        let call = Call { name: "targets".into(), json: true };
        let answer = json!({"call": "targets", "text": "{\"targets\":[{\"name\":\"a\",\"base\":\"x\"}]}"});
        let expected = "{\n  \"targets\": [\n    {\n      \"name\": \"a\",\n      \"base\": \"x\"\n    }\n  ]\n}\n";
        assert_eq!(show(&call, &answer).unwrap(), (expected.into(), 0));
    }
}
