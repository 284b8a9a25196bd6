//! What may follow on a command line, for the scripts of shells. Asks the engine with little patience and never starts one.

use std::time::Duration;

use sampan_gotext::flags::{Flag, Kind};

use crate::app::{App, Environment, GLOBAL};
use crate::cli::{block_on, find};
use crate::command::{Command, Things};
use crate::commands::{ALL, GROUPS};
use crate::config::Config;
use crate::error::Outcome;

/// How long the engine may take.
const PATIENCE: Duration = Duration::from_millis(800);

/// Prints candidates for the last word.
pub(crate) fn print(mut environment: Environment, words: &[String]) -> Outcome {
    environment.starter = None;
    let folder = environment.config.clone().unwrap_or_else(|| environment.home.join(".docker"));
    let config = Config::read(folder).unwrap_or_default();
    let app = App::new(environment, sampan_gotext::flags::Matches::default(), config, String::new());
    let (current, before) = words.split_last().map_or(("", &[][..]), |(current, before)| (current.as_str(), before));
    let candidates = candidates(&app, before, current);
    let mut text = String::new();
    for (name, about) in candidates.iter().filter(|(name, _)| name.starts_with(current) || name == ":files") {
        text.push_str(name);
        if !about.is_empty() {
            text.push('\t');
            text.push_str(about.lines().next().unwrap_or_default());
        }
        text.push('\n');
    }
    app.print(&text)?;
    Ok(0)
}

type Candidates = Vec<(String, String)>;

fn pair(name: &str, about: &str) -> (String, String) {
    (name.to_owned(), about.to_owned())
}

fn candidates(app: &App, before: &[String], current: &str) -> Candidates {
    let plain = skip_flags(before, &[GLOBAL]);
    let Some(first) = plain.first() else {
        return if current.starts_with('-') { flags(&[GLOBAL]) } else { roots() };
    };
    let grouped = (2..=plain.len().min(3)).rev().find_map(|used| find(&plain[..used].join(" ")).map(|command| (command, used)));
    let Some((command, used)) = grouped.or_else(|| find(first).map(|command| (command, 1))) else {
        return if GROUPS.iter().any(|(group, _)| group == first) { members(&plain.join(" ")) } else { Vec::new() };
    };
    // The flag before this word may want a value: then nothing is known but files.
    let wants = before.last().and_then(|word| flag_of(command, word)).filter(|flag| flag.kind != Kind::Bool);
    if let Some(flag) = wants {
        return values(app, flag);
    }
    if current.starts_with('-') {
        return flags(command.flags);
    }
    let words = skip_flags(&before[position(before, plain[used - 1])..], command.flags);
    things(app, command.things, words.len())
}

/// Where the words after a command's name begin.
fn position(before: &[String], name: &str) -> usize {
    before.iter().rposition(|word| word == name).map_or(before.len(), |index| index + 1)
}

/// Words that are neither flags nor their values.
fn skip_flags<'a>(words: &'a [String], known: &[&[Flag]]) -> Vec<&'a str> {
    let mut out = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if !word.starts_with('-') {
            out.push(word.as_str());
            continue;
        }
        let flag = known.iter().flat_map(|list| list.iter()).find(|flag| spelled(flag, word));
        if flag.is_some_and(|flag| flag.kind != Kind::Bool) {
            rest.next();
        }
    }
    out
}

fn spelled(flag: &Flag, word: &str) -> bool {
    word.strip_prefix("--") == Some(flag.name) || flag.short.is_some_and(|letter| word == format!("-{letter}"))
}

fn flag_of(command: &Command, word: &str) -> Option<Flag> {
    command.flags.iter().flat_map(|list| list.iter()).find(|flag| spelled(flag, word)).copied()
}

fn flags(lists: &[&[Flag]]) -> Candidates {
    let shown = lists.iter().flat_map(|list| list.iter()).filter(|flag| !flag.hidden && flag.later.is_none());
    shown.map(|flag| pair(&format!("--{}", flag.name), flag.help)).collect()
}

fn roots() -> Candidates {
    let commands = ALL.iter().flat_map(|list| list.iter());
    let mut all: Candidates = commands
        .flat_map(|command| command.paths.iter().filter(|path| !path.contains(' ')).map(|path| pair(path, command.about)))
        .chain(GROUPS.iter().map(|(group, about)| pair(group, about)))
        .collect();
    all.push(pair("help", "Show help"));
    all.sort();
    all
}

fn members(group: &str) -> Candidates {
    let commands = ALL.iter().flat_map(|list| list.iter());
    let mut all: Candidates = commands
        .flat_map(|command| command.paths.iter().filter_map(|path| Some((path.strip_prefix(group)?.strip_prefix(' ')?, command.about))))
        // A group inside of a group is offered once, without what one of its commands is about.
        .map(|(rest, about)| rest.split_once(' ').map_or_else(|| pair(rest, about), |(inner, _)| pair(inner, "")))
        .collect();
    all.sort();
    all.dedup();
    all
}

fn values(app: &App, flag: Flag) -> Candidates {
    let fixed: &[&str] = match flag.name {
        "restart" => &["no", "on-failure", "always", "unless-stopped"],
        "pull" => &["always", "missing", "never"],
        "format" => &["json", "table"],
        "log-level" => &["debug", "info", "warn", "error", "fatal"],
        "log-driver" => &["json-file", "none", "local"],
        "type" => &["container", "image", "network", "volume"],
        "signal" | "stop-signal" => &["SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"],
        "network" | "net" => return things(app, Things::Networks, 0),
        "volumes-from" | "link" => return things(app, Things::Containers, 0),
        _ => return vec![pair(":files", "")],
    };
    fixed.iter().map(|value| pair(value, "")).collect()
}

fn things(app: &App, things: Things, index: usize) -> Candidates {
    let files = || vec![pair(":files", "")];
    match things {
        Things::Nothing => Vec::new(),
        Things::Files => files(),
        Things::Containers => containers(app, ""),
        Things::Running => containers(app, r#"{"status":{"running":true,"paused":true}}"#),
        Things::Stopped => containers(app, r#"{"status":{"exited":true,"created":true,"dead":true}}"#),
        Things::Images => images(app),
        Things::ImageThenFiles => {
            if index == 0 {
                images(app)
            } else {
                files()
            }
        }
        Things::RunningThenFiles => {
            if index == 0 {
                containers(app, r#"{"status":{"running":true}}"#)
            } else {
                files()
            }
        }
        Things::Volumes => names(app, "/volumes", &["Volumes"], "Name"),
        Things::Networks => names(app, "/networks", &[], "Name"),
        Things::Contexts => std::iter::once("default".to_owned())
            .chain(app.config.contexts().into_iter().map(|context| context.name))
            .map(|name| (name, String::new()))
            .collect(),
        Things::CopyEnds => containers(app, "").into_iter().map(|(name, about)| (name + ":", about)).chain(files()).collect(),
        Things::Shells => ["bash", "zsh", "fish"].iter().map(|shell| pair(shell, "")).collect(),
    }
}

fn ask(app: &App, path: &str, query: &[(&str, &str)]) -> Option<sampan_wire::Json> {
    let asked = block_on(async {
        let mut call = app.client()?.get(path);
        for (key, value) in query {
            call = call.query_some(key, value);
        }
        Ok(tokio::time::timeout(PATIENCE, call.json()).await.ok().and_then(Result::ok))
    });
    asked.ok().flatten()
}

fn containers(app: &App, filters: &str) -> Candidates {
    let Some(list) = ask(app, "/containers/json", &[("all", "1"), ("filters", filters)]) else { return Vec::new() };
    let name = |container: &sampan_wire::Json| container.texts("Names").first().map(|name| name.trim_start_matches('/').to_owned());
    list.items().iter().filter_map(|container| Some((name(container)?, container.text("Status").to_owned()))).collect()
}

fn images(app: &App) -> Candidates {
    let Some(list) = ask(app, "/images/json", &[]) else { return Vec::new() };
    list.items()
        .iter()
        .flat_map(|image| image.texts("RepoTags"))
        .map(|name| pair(name.strip_suffix(":latest").unwrap_or(name), ""))
        .collect()
}

fn names(app: &App, path: &str, keys: &[&str], name: &str) -> Candidates {
    let Some(answer) = ask(app, path, &[]) else { return Vec::new() };
    answer.at(keys).items().iter().map(|one| pair(one.text(name), one.text("Driver"))).collect()
}
