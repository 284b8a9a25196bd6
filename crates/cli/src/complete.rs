//! What may follow on a command line, for the scripts of shells. Asks the engine with little patience and never starts one.

use std::time::Duration;

use sampan_gotext::flags::{Flag, Kind};

use crate::app::{App, Environment, GLOBAL};
use crate::cli::{block_on, find};
use crate::command::{Command, Things};
use crate::commands::{ALL, GROUPS};
use crate::config::Config;
use crate::credentials;
use crate::error::Outcome;

/// Asks the shell for names of files.
const FILES: &str = ":files";
/// Flags whose values are files.
const FILE_FLAGS: [&str; 21] = [
    "cidfile",
    "config",
    "data-root",
    "device",
    "env-file",
    "file",
    "iidfile",
    "input",
    "label-file",
    "metadata-file",
    "mount",
    "output",
    "password-file",
    "seccomp",
    "secret",
    "tls-cert",
    "tls-key",
    "tlscacert",
    "tlscert",
    "tlskey",
    "build-context",
];
/// How long the engine may take.
const PATIENCE: Duration = Duration::from_millis(800);
/// A larger Dockerfile is not looked into.
const LARGEST_DOCKERFILE: u64 = 1 << 20;

/// Prints candidates for the last word.
pub(crate) fn print(mut environment: Environment, words: &[String]) -> Outcome {
    environment.starter = None;
    let (current, before) = words.split_last().map_or(("", &[][..]), |(current, before)| (current.as_str(), before));
    // The engine and the configuration that the line names.
    let global = sampan_gotext::flags::parse(&[GLOBAL], before, false).unwrap_or_default();
    let named = global.given("config").then(|| global.text("config").into()).or_else(|| environment.config.clone());
    let config = Config::read(named.unwrap_or_else(|| environment.home.join(".docker"))).unwrap_or_default();
    let app = App::new(environment, global, config, String::new());
    let candidates = match current.split_once('=').filter(|(flag, _)| flag.starts_with("--")) {
        // `--flag=value` is `--flag value` with the flag in front.
        Some((flag, value)) => {
            let mut before = before.to_vec();
            before.push(flag.to_owned());
            let values = candidates(&app, &before, value).into_iter().filter(|(value, _)| value != FILES);
            values.map(|(value, about)| (format!("{flag}={value}"), about)).collect()
        }
        None => candidates(&app, before, current),
    };
    let mut text = String::new();
    for (name, about) in candidates.iter().filter(|(name, _)| name.starts_with(current) || name == FILES) {
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
        return values(app, flag, before, current);
    }
    if current.starts_with('-') {
        return flags(command.flags);
    }
    let words = skip_flags(&before[position(before, plain[used - 1])..], command.flags);
    things(app, command.things, words.len(), current)
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

fn values(app: &App, flag: Flag, before: &[String], current: &str) -> Candidates {
    let fixed: &[&str] = match flag.name {
        "restart" => &["no", "on-failure", "always", "unless-stopped"],
        "pull" => &["always", "missing", "never"],
        "format" => &["json", "table"],
        "log-level" => &["debug", "info", "warn", "error", "fatal"],
        "log-driver" => &["json-file", "none", "local"],
        "type" => &["container", "image", "network", "volume"],
        "signal" | "stop-signal" => &["SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"],
        "platform" => {
            &["linux/386", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/ppc64le", "linux/riscv64", "linux/s390x"]
        }
        "progress" => &["auto", "plain", "quiet", "tty"],
        "call" => &["build", "check", "outline", "targets"],
        "builder" => &["default"],
        "cgroupns" => &["host", "private"],
        "ipc" => &["host", "none", "private", "shareable"],
        "pid" | "uts" | "userns" => &["host"],
        "cap-add" | "cap-drop" => {
            &["ALL", "CAP_CHOWN", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_TIME"]
        }
        "filter" => return Vec::new(),
        "host" => return vec![pair("unix://", ""), pair("tcp://", ""), pair("ssh://", "")],
        "context" => return things(app, Things::Contexts, 0, current),
        "network" | "net" => return things(app, Things::Networks, 0, current),
        "volumes-from" | "link" => return things(app, Things::Containers, 0, current),
        "volume" => return things(app, Things::Volumes, 0, current).into_iter().chain([pair(FILES, "")]).collect(),
        "cache-from" => return things(app, Things::Images, 0, current),
        "env" | "build-arg" => return app.environment.variables.iter().map(|(name, _)| pair(name, "")).collect(),
        "target" => return stages(before),
        name if FILE_FLAGS.contains(&name) => return vec![pair(FILES, "")],
        _ => return Vec::new(),
    };
    fixed.iter().map(|value| pair(value, "")).collect()
}

/// Stages of the Dockerfile of a build that is being typed.
fn stages(before: &[String]) -> Candidates {
    let given = |names: [&str; 2]| {
        let behind = before.iter().position(|word| names.contains(&word.as_str())).and_then(|at| before.get(at + 1));
        behind.cloned().or_else(|| before.iter().find_map(|word| word.strip_prefix("--file=").map(str::to_owned)))
    };
    let folder = before.iter().skip(1).rev().find(|word| std::path::Path::new(word).is_dir()).map_or(".", String::as_str);
    let path = given(["-f", "--file"]).unwrap_or_else(|| format!("{folder}/Dockerfile"));
    let regular = std::fs::metadata(&path).is_ok_and(|facts| facts.is_file() && facts.len() < LARGEST_DOCKERFILE);
    let text = if regular { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
    text.lines().filter_map(stage).collect()
}

/// The name in `FROM image AS name`, with the image.
fn stage(line: &str) -> Option<(String, String)> {
    let words: Vec<&str> = line.split_whitespace().filter(|word| !word.starts_with("--")).collect();
    let [from, image, r#as, name] = words.as_slice() else { return None };
    (from.eq_ignore_ascii_case("from") && r#as.eq_ignore_ascii_case("as")).then(|| pair(name, image))
}

fn things(app: &App, things: Things, index: usize, current: &str) -> Candidates {
    let files = || vec![pair(FILES, "")];
    match things {
        Things::Nothing => Vec::new(),
        Things::Files => files(),
        Things::Containers => containers(app, ""),
        Things::Running => containers(app, r#"{"status":{"running":true,"paused":true}}"#),
        Things::Stopped => containers(app, r#"{"status":{"exited":true,"created":true,"dead":true}}"#),
        Things::Images => images(app, current),
        Things::ImageThenFiles => {
            if index == 0 {
                images(app, current)
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
        Things::Registries => credentials::known(&app.config).into_iter().map(|server| (server, String::new())).collect(),
        Things::Shells => ["bash", "zsh", "fish", "powershell"].iter().map(|shell| pair(shell, "")).collect(),
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

/// Names of images; `:latest` is said where a tag is being typed.
fn images(app: &App, current: &str) -> Candidates {
    let Some(list) = ask(app, "/images/json", &[]) else { return Vec::new() };
    let tagged = current.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let short = |name: &str| if tagged { name.to_owned() } else { name.strip_suffix(":latest").unwrap_or(name).to_owned() };
    let names = list.items().iter().flat_map(|image| image.texts("RepoTags")).map(short);
    let mut names: Candidates = names.map(|name| (name, String::new())).collect();
    names.sort();
    names
}

fn names(app: &App, path: &str, keys: &[&str], name: &str) -> Candidates {
    let Some(answer) = ask(app, path, &[]) else { return Vec::new() };
    answer.at(keys).items().iter().map(|one| pair(one.text(name), one.text("Driver"))).collect()
}
