//! What a Dockerfile was asked, as the documents that BuildKit's clients print: findings, what a stage takes, stages.

use base64::Engine as _;
use sampan_build::Answer;
use sampan_build::dockerfile::Lines;
use sampan_build::plan::{Input, Target};
use sampan_wire::{Json, object};

/// The line of the answer: the document, and the excerpts of its findings.
pub(crate) fn line(answer: &Answer, text: &[u8], name: &str) -> Json {
    let data = base64::engine::general_purpose::STANDARD.encode(text);
    let (kind, document, excerpts) = match answer {
        Answer::Check(findings) => {
            let warnings = findings.iter().map(|(warning, _)| {
                object! {
                    "ruleName": warning.rule, "description": warning.description, "url": warning.url,
                    "detail": warning.message.clone(), "location": location(warning.lines),
                }
            });
            let warnings = if findings.is_empty() { Json::NULL } else { Json::Array(warnings.collect()) };
            let source = object! { "filename": name, "data": data, "language": "Dockerfile" };
            let document = object! { "warnings": warnings, "sources": Json::Array(vec![source]) };
            ("check", document, findings.iter().map(|(_, excerpt)| excerpt.clone()).collect())
        }
        Answer::Outline(outline) => {
            let mut document = named(&outline.name, &outline.description);
            document.push(("args".to_owned(), inputs(&outline.args)));
            for (key, list) in [("secrets", &outline.secrets), ("ssh", &outline.ssh)] {
                if !list.is_empty() {
                    document.push((key.to_owned(), inputs(list)));
                }
            }
            document.push(("sources".to_owned(), Json::list([data])));
            ("outline", Json::Object(document), Vec::new())
        }
        Answer::Targets(targets) => {
            let targets = targets.iter().map(target).collect();
            ("targets", object! { "targets": Json::Array(targets), "sources": Json::list([data]) }, Vec::new())
        }
    };
    object! { "sampan": object! { "kind": "examined", "call": kind, "text": document.print(), "excerpts": Json::list(excerpts) } }
}

/// Name and description where they are there.
fn named(name: &str, description: &str) -> Vec<(String, Json)> {
    let both = [("name", name), ("description", description)];
    both.into_iter().filter(|(_, text)| !text.is_empty()).map(|(key, text)| (key.to_owned(), text.into())).collect()
}

fn inputs(list: &[Input]) -> Json {
    let one = |input: &Input| {
        let mut out = named(&input.name, &input.description);
        if let Some(value) = &input.value {
            out.push(("value".to_owned(), value.clone().into()));
        }
        if input.required {
            out.push(("required".to_owned(), true.into()));
        }
        out.push(("location".to_owned(), location(Some(input.lines))));
        Json::Object(out)
    };
    Json::Array(list.iter().map(one).collect())
}

fn target(target: &Target) -> Json {
    let mut out = named(&target.name, "");
    if target.default {
        out.push(("default".to_owned(), true.into()));
    }
    out.extend(named("", &target.description));
    out.push(("base".to_owned(), target.base.clone().into()));
    out.push(("location".to_owned(), location(Some(target.lines))));
    Json::Object(out)
}

fn location(lines: Option<Lines>) -> Json {
    let point = |line: usize| object! { "line": line as u64 };
    let range = |lines: Lines| object! { "start": point(lines.first), "end": point(lines.last) };
    object! { "ranges": Json::Array(lines.map(range).into_iter().collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_the_fields_of_buildkits() {
        let lines = Lines { first: 2, last: 3 };
        let target = Target { name: "a".into(), base: "scratch".into(), description: "is".into(), default: true, lines };
        let range = r#""location":{"ranges":[{"start":{"line":2},"end":{"line":3}}]}"#;
        let of = |answer: &Answer| line(answer, b"x", "Dockerfile").get("sampan").text("text").to_owned();
        let shown = of(&Answer::Targets(vec![target]));
        let document =
            format!(r#"{{"targets":[{{"name":"a","default":true,"description":"is","base":"scratch",{range}}}],"sources":["eA=="]}}"#);
        assert_eq!(shown, document);
        let document = r#"{"warnings":null,"sources":[{"filename":"Dockerfile","data":"eA==","language":"Dockerfile"}]}"#;
        assert_eq!(of(&Answer::Check(Vec::new())), document);
    }
}
