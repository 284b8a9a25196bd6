//! A corpus of Dockerfiles, good and bad, with what docker 28.5.2 (`docker buildx build --call=check`) says of each:
//! whether it is accepted, the error and its line, the findings of the checks, and what its classic builder says where it was asked.
#![allow(clippy::unwrap_used, reason = "test code")]

use sampan_base::ErrorKind;
use sampan_build::dockerfile::parse;
use sampan_build::plan::{Base, BaseError, BaseImage, Bases, Entitlements, Graph, PlanError, Request, plan};
use sampan_oci::{Digest, ImageConfig, ImageId, Platform, Reference};

/// A world of one image.
struct OneImage;

impl Bases for OneImage {
    fn resolve(&self, reference: &Reference, _platform: &Platform) -> Result<Base, BaseError> {
        if reference.familiar_name() != "dfbase" {
            let message = format!("failed to resolve source metadata for {reference}: {reference}: not found");
            return Err(BaseError { kind: ErrorKind::NotFound, message });
        }
        let config = r#"{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/usr/bin:/bin"]},
            "rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]},
            "history":[{"comment":"Imported from -"}]}"#;
        let config = ImageConfig::parse(config.as_bytes()).unwrap();
        let digest: Digest = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
        Ok(Base { image: BaseImage { reference: reference.clone(), digest: None, id: ImageId(digest) }, config })
    }
}

fn planned(text: &str, request: &Request) -> Result<Graph, PlanError> {
    plan(&parse(text.as_bytes())?, request, &OneImage)
}

/// What a case results in, in the form of the recorded lines.
fn outcome(text: &str, request: &Request, classic: bool) -> String {
    let line = |lines: Option<sampan_build::dockerfile::Lines>| lines.map_or(0, |lines| lines.first);
    match planned(text, request) {
        Err(error) if classic => {
            format!("error {}: {}\nclassic {}\n", line(error.lines), error.message, error.classic_message().trim_end())
        }
        Err(error) => format!("error {}: {}\n", line(error.lines), error.message),
        Ok(graph) => {
            let mut found: Vec<String> = graph
                .warnings
                .iter()
                .map(|warning| format!("warn {} {}: {}\n", line(warning.lines), warning.rule, warning.message))
                .collect();
            found.sort();
            if found.is_empty() { "ok\n".to_owned() } else { found.concat() }
        }
    }
}

#[test]
fn every_case_is_judged_as_docker_judges_it() {
    let corpus = include_str!("corpus.txt");
    let mut faults = Vec::new();
    let mut count = 0;
    for case in corpus.split("=== ").skip(1) {
        let (heading, rest) = case.split_once('\n').unwrap();
        let (text, wanted) = rest.rsplit_once("\n---\n").unwrap();
        let text = text.replace("<CR>", "\r").replace("<BOM>", "\u{feff}");
        let text = text.strip_suffix("<EOF>").map_or_else(|| format!("{text}\n"), str::to_owned);
        let mut request = Request { checks: true, classic: true, ..Request::default() };
        for option in heading.split(' ').skip(1) {
            match option.split_once('=').unwrap() {
                ("target", name) => (request.target, request.classic) = (Some(name.to_owned()), false),
                (_, pair) => {
                    let (key, value) = pair.split_once('=').unwrap();
                    request.build_args.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        let found = outcome(&text, &request, wanted.contains("\nclassic "));
        if found != wanted {
            faults.push(format!(
                "{heading}\n  docker: {}  sampan: {found}",
                wanted.replace('\n', "\n          ").trim_end().to_owned() + "\n"
            ));
        }
        count += 1;
    }
    assert!(count >= 150, "only {count} cases");
    assert!(faults.is_empty(), "{} of {count} differ:\n{}", faults.len(), faults.join("\n"));
}

/// What an image looks like, in the form of the recorded lines.
fn described(graph: &Graph) -> String {
    let mut out = String::new();
    for step in graph.steps.iter().filter(|step| !step.name.is_empty()) {
        out.push_str(&format!("name {}\n", step.name));
    }
    for entry in graph.result.config.history.iter().filter(|entry| entry.comment != "Imported from -") {
        let sort = if entry.empty_layer { "empty" } else { "layer" };
        out.push_str(&format!("{sort} {}\n", serde_json::to_string(&entry.created_by).unwrap()));
        assert_eq!(entry.comment, "buildkit.dockerfile.v0");
    }
    let config = serde_json::to_value(&graph.result.config.config).unwrap();
    out.push_str(&format!("config {config}\nauthor {}\n", graph.result.config.author));
    out
}

#[test]
fn images_are_described_as_buildkit_describes_them() {
    let mut faults = Vec::new();
    let mut count = 0;
    for case in include_str!("history.txt").split("=== ").skip(1) {
        let (heading, rest) = case.split_once('\n').unwrap();
        let (text, wanted) = rest.rsplit_once("\n---\n").unwrap();
        let mut request = Request::default();
        for option in heading.split(' ').skip(1) {
            let (map, pair) = match option.strip_prefix("label:") {
                Some(pair) => (&mut request.labels, pair),
                None => (&mut request.build_args, option),
            };
            let (key, value) = pair.split_once('=').unwrap();
            map.insert(key.to_owned(), value.to_owned());
        }
        let found = described(&planned(&format!("{text}\n"), &request).unwrap());
        let (wanted_lines, found_lines): (Vec<_>, Vec<_>) =
            (wanted.lines().filter_map(canonical).collect(), found.lines().filter_map(canonical).collect());
        if wanted_lines != found_lines {
            let differing = |here: &[String], there: &[String]| -> String {
                here.iter().filter(|line| !there.contains(line)).map(|line| format!("    {line}\n")).collect()
            };
            let (docker, sampan) = (differing(&wanted_lines, &found_lines), differing(&found_lines, &wanted_lines));
            faults.push(format!("{heading}\n  docker:\n{docker}  sampan:\n{sampan}"));
        }
        count += 1;
    }
    assert!(faults.is_empty(), "{} of {count} differ:\n{}", faults.len(), faults.join("\n"));
}

/// What a Dockerfile results in, in the form of the generated lines.
fn judged(text: &str) -> String {
    let entitlements = Entitlements { network_host: true, security_insecure: true };
    let request = Request { checks: true, entitlements, ..Request::default() };
    let Ok(graph) = planned(text, &request) else { return outcome(text, &request, false) };
    let mut lines: Vec<String> = Vec::new();
    for entry in graph.result.config.history.iter().filter(|entry| entry.comment != "Imported from -") {
        let sort = if entry.empty_layer { "empty" } else { "layer" };
        lines.push(serde_json::to_string(&format!("{sort} {}", entry.created_by)).unwrap());
    }
    let findings = outcome(text, &request, false);
    lines.extend(findings.lines().filter(|line| *line != "ok").map(str::to_owned));
    lines.push(format!("config {}", serde_json::to_value(&graph.result.config.config).unwrap()));
    lines.join("\n") + "\n"
}

/// Dockerfiles put together by chance, as BuildKit 0.25.2's own library (the one in docker 28.5.2) judges them.
#[test]
fn generated_files_are_judged_as_buildkit_judges_them() {
    let mut count = 0;
    for case in include_str!("generated.txt").split("=== ").skip(1) {
        let (heading, rest) = case.split_once('\n').unwrap();
        let (text, wanted) = rest.rsplit_once("\n---\n").unwrap();
        let text = text.strip_suffix("<EOF>").map_or_else(|| format!("{text}\n"), str::to_owned);
        let found = judged(&text);
        let lines = |text: &str| text.lines().filter_map(canonical).collect::<Vec<_>>();
        assert_eq!(lines(&found), lines(wanted), "{heading}:\n{text}");
        count += 1;
    }
    assert!(count >= 150, "only {count} cases");
}

/// A recorded line; JSON with its keys in order. Which name an image has that several stages begin with is a matter of chance.
fn canonical(line: &str) -> Option<String> {
    match line.strip_prefix("config ") {
        Some(json) => Some(serde_json::from_str::<serde_json::Value>(json).unwrap().to_string()),
        None if line.starts_with("name ") && line.contains(" FROM ") => None,
        None => Some(line.to_owned()),
    }
}
