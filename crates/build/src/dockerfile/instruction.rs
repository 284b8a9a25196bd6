//! Split lines to typed instructions: numbers of arguments, flags, forms. Nothing is expanded here.

use sampan_oci::Healthcheck;

use super::ast::{Argument, CommandLine, From, Head, Instruction, Kind, Pair, Run, Transfer, Warning};
use super::checks::rules;
use super::flags::{Flags, Takes};
use super::mounts;
use super::source::{Node, chomped, heredoc};
use super::words::with_suggestion;

/// All keywords.
pub(crate) const KEYWORDS: [&str; 18] = [
    "add",
    "arg",
    "cmd",
    "copy",
    "entrypoint",
    "env",
    "expose",
    "from",
    "healthcheck",
    "label",
    "maintainer",
    "onbuild",
    "run",
    "shell",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

/// Types a line; findings of checks are added to `findings`.
pub(super) fn parse(node: &Node, findings: &mut Vec<Warning>) -> Result<Instruction, String> {
    let head = Head { lines: node.lines, keyword: node.keyword.clone(), code: node.original.trim().to_owned() };
    Ok(Instruction { kind: kind(node, findings)?, head })
}

fn kind(node: &Node, findings: &mut Vec<Warning>) -> Result<Kind, String> {
    let keyword = node.keyword.to_ascii_lowercase();
    Ok(match keyword.as_str() {
        "add" => Kind::Add(add(node)?),
        "arg" => Kind::Arg(arguments(node, findings)?),
        "cmd" => Kind::Cmd(command(node, &no_flags(node)?)),
        "copy" => Kind::Copy(copy(node)?),
        "entrypoint" => Kind::Entrypoint(command(node, &no_flags(node)?)),
        "env" => Kind::Env(pairs(node, "ENV")?),
        "expose" => Kind::Expose(expose(node)?),
        "from" => Kind::From(from(node, findings)?),
        "healthcheck" => Kind::Healthcheck(healthcheck(node)?),
        "label" => Kind::Label(pairs(node, "LABEL")?),
        "maintainer" => {
            findings
                .push(rules::MAINTAINER_DEPRECATED.warn(node.lines, "Maintainer instruction is deprecated in favor of using label".into()));
            Kind::Maintainer(single(node, "MAINTAINER")?)
        }
        "onbuild" => Kind::Onbuild(onbuild(node)?),
        "run" => Kind::Run(run(node)?),
        "shell" => Kind::Shell(shell(node)?),
        "stopsignal" => match node.args.as_slice() {
            [signal] => Kind::StopSignal(signal.clone()),
            _ => return Err(exactly_one("STOPSIGNAL")),
        },
        "user" => Kind::User(single(node, "USER")?),
        "volume" => Kind::Volume(volumes(node)?),
        "workdir" => Kind::Workdir(single(node, "WORKDIR")?),
        _ => {
            let text = format!("unknown instruction: {}", node.keyword);
            return Err(with_suggestion(text, &node.keyword, &KEYWORDS, false));
        }
    })
}

fn at_least_one(keyword: &str) -> String {
    format!("{keyword} requires at least one argument")
}

fn exactly_one(keyword: &str) -> String {
    format!("{keyword} requires exactly one argument")
}

fn blank_names(keyword: &str) -> String {
    format!("{keyword} names can not be blank")
}

fn no_flags(node: &Node) -> Result<Flags, String> {
    Flags::parse(&node.flags, &[])
}

fn single(node: &Node, keyword: &str) -> Result<String, String> {
    let [argument] = node.args.as_slice() else { return Err(exactly_one(keyword)) };
    no_flags(node)?;
    Ok(argument.clone())
}

fn pairs(node: &Node, keyword: &str) -> Result<Vec<Pair>, String> {
    no_flags(node)?;
    if node.args.is_empty() {
        return Err(at_least_one(keyword));
    }
    let pair = |words: &[String]| match words {
        [key, ..] if key.is_empty() => Err(blank_names(keyword)),
        [key, value, separator] => Ok(Pair { key: key.clone(), value: value.clone(), legacy: separator.is_empty() }),
        _ => Err(format!("Bad input to {keyword}, too many arguments")),
    };
    node.args.chunks(3).map(pair).collect()
}

fn arguments(node: &Node, findings: &mut Vec<Warning>) -> Result<Vec<Argument>, String> {
    if node.args.is_empty() {
        return Err(at_least_one("ARG"));
    }
    let argument = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err(blank_names("ARG")),
        Some((key, value)) => Ok(Argument { key: key.to_owned(), value: Some(value.to_owned()) }),
        None => Ok(Argument { key: word.clone(), value: None }),
    };
    let arguments: Vec<Argument> = node.args.iter().map(argument).collect::<Result<_, _>>()?;
    let keys: Vec<&str> = arguments.iter().map(|argument| argument.key.as_str()).collect();
    description("ARG", &keys, node, findings);
    Ok(arguments)
}

fn description(keyword: &str, names: &[&str], node: &Node, findings: &mut Vec<Warning>) {
    let Some(comment) = node.comments.last() else { return };
    if names.is_empty() || names.contains(&comment.split(' ').next().unwrap_or_default()) {
        return;
    }
    let name = if names.len() > 1 { "<arg_key>" } else { names[0] };
    let text = format!("Comment for {keyword} should follow the format: `# {name} <description>`");
    findings.push(rules::INVALID_DEFINITION_DESCRIPTION.warn(node.lines, text));
}

fn command(node: &Node, _flags: &Flags) -> CommandLine {
    let words = if node.json || node.args.is_empty() { node.args.clone() } else { vec![node.args.join(" ")] };
    CommandLine { words, shell_form: !node.json }
}

fn run(node: &Node) -> Result<Run, String> {
    let known = [("mount", Takes::Texts), ("network", Takes::Text), ("security", Takes::Text)];
    let flags = Flags::parse(&node.flags, &known)?;
    let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    let network = if flags.given("network") { flags.text("network") } else { "default".to_owned() };
    let security = or(flags.text("security"), if flags.given("security") { "" } else { "sandbox" });
    let mounts = flags.texts("mount");
    for mount in &mounts {
        mounts::check(mount)?;
    }
    if !matches!(network.as_str(), "default" | "none" | "host") {
        return Err(format!("invalid network mode {}", sampan_gotext::quote(&network)));
    }
    if !matches!(security.as_str(), "sandbox" | "insecure") {
        return Err(format!("security {} is not valid", sampan_gotext::quote(&security)));
    }
    Ok(Run { command: command(node, &flags), heredocs: node.heredocs.clone(), mounts, network, security })
}

fn transfer(node: &Node, keyword: &str) -> Result<Transfer, String> {
    let Some((dest, sources)) = node.args.split_last() else { return Ok(Transfer::default()) };
    if matches!(heredoc(dest), Ok(Some(_))) {
        return Err(format!("{keyword} cannot accept a heredoc as a destination"));
    }
    let mut transfer = Transfer { dest: dest.clone(), ..Transfer::default() };
    for source in sources {
        let Ok(Some(announced)) = heredoc(source) else {
            transfer.sources.push(source.clone());
            continue;
        };
        let content =
            node.heredocs.iter().rfind(|other| other.name == announced.name).map(|other| other.content.as_str()).unwrap_or_default();
        let content = if announced.chomp { chomped(content) } else { content.to_owned() };
        transfer.contents.push((announced.name, content, announced.expand));
    }
    Ok(transfer)
}

fn no_destination(node: &Node, keyword: &str) -> Result<(), String> {
    if node.args.len() < 2 {
        return Err(format!("{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"));
    }
    Ok(())
}

fn copy(node: &Node) -> Result<Transfer, String> {
    no_destination(node, "COPY")?;
    let known = [
        ("chown", Takes::Text),
        ("from", Takes::Text),
        ("chmod", Takes::Text),
        ("link", Takes::Truth),
        ("parents", Takes::Truth),
        ("exclude", Takes::Texts),
    ];
    let flags = Flags::parse(&node.flags, &known)?;
    Ok(Transfer {
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.truth("link"),
        parents: flags.truth("parents"),
        excludes: flags.texts("exclude"),
        ..transfer(node, "COPY")?
    })
}

fn add(node: &Node) -> Result<Transfer, String> {
    no_destination(node, "ADD")?;
    let known = [
        ("chown", Takes::Text),
        ("chmod", Takes::Text),
        ("link", Takes::Truth),
        ("keep-git-dir", Takes::Truth),
        ("checksum", Takes::Text),
        ("unpack", Takes::Truth),
        ("exclude", Takes::Texts),
    ];
    let flags = Flags::parse(&node.flags, &known)?;
    Ok(Transfer {
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.truth("link"),
        keep_git_dir: flags.given_truth("keep-git-dir"),
        checksum: flags.text("checksum"),
        unpack: flags.given_truth("unpack"),
        excludes: flags.texts("exclude"),
        ..transfer(node, "ADD")?
    })
}

fn from(node: &Node, findings: &mut Vec<Warning>) -> Result<From, String> {
    if let [_, word, name] = node.args.as_slice() {
        if *name != name.to_lowercase() {
            findings.push(rules::STAGE_NAME_CASING.warn(node.lines, format!("Stage name '{name}' should be lowercase")));
        }
        let keyword = &node.keyword;
        let (lower, upper) = (*keyword == keyword.to_lowercase(), *keyword == keyword.to_uppercase());
        if (lower && *word != word.to_lowercase()) || (!lower && upper && *word != word.to_uppercase()) {
            findings.push(rules::FROM_AS_CASING.warn(node.lines, format!("'{word}' and '{keyword}' keywords' casing do not match")));
        }
    }
    let name = match node.args.as_slice() {
        [_] => String::new(),
        [_, word, name] if word.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
            if !lower.starts_with(|first: char| first.is_ascii_lowercase()) || !lower.bytes().all(valid) {
                let name = sampan_gotext::quote(name);
                return Err(format!("invalid name for build stage: {name}, name can't start with a number or contain symbols"));
            }
            lower
        }
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    let flags = Flags::parse(&node.flags, &[("platform", Takes::Text)])?;
    if !name.is_empty() {
        description("FROM", &[&name], node, findings);
    }
    Ok(From { base: node.args[0].clone(), name, platform: flags.text("platform") })
}

fn onbuild(node: &Node) -> Result<String, String> {
    let Some(trigger) = node.args.first() else { return Err(at_least_one("ONBUILD")) };
    no_flags(node)?;
    match trigger.trim().to_uppercase().as_str() {
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        name @ ("MAINTAINER" | "FROM") => return Err(format!("{name} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    let line = node.original.trim_start();
    let mut text = line.get("ONBUILD".len()..).unwrap_or_default().trim_start().to_owned();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}

fn expose(node: &Node) -> Result<Vec<String>, String> {
    if node.args.is_empty() {
        return Err(at_least_one("EXPOSE"));
    }
    no_flags(node)?;
    let mut ports = node.args.clone();
    ports.sort();
    Ok(ports)
}

fn volumes(node: &Node) -> Result<Vec<String>, String> {
    if node.args.is_empty() {
        return Err(at_least_one("VOLUME"));
    }
    no_flags(node)?;
    let volume = |path: &String| match path.trim() {
        "" => Err("VOLUME specified can not be an empty string".to_owned()),
        path => Ok(path.to_owned()),
    };
    node.args.iter().map(volume).collect()
}

fn shell(node: &Node) -> Result<Vec<String>, String> {
    no_flags(node)?;
    if node.args.is_empty() {
        return Err(at_least_one("SHELL"));
    }
    if node.json {
        return Ok(node.args.clone());
    }
    Err("SHELL requires the arguments to be in JSON form".to_owned())
}

fn healthcheck(node: &Node) -> Result<Healthcheck, String> {
    let Some((form, args)) = node.args.split_first() else { return Err(at_least_one("HEALTHCHECK")) };
    let form = form.to_uppercase();
    if form == "NONE" {
        if !args.is_empty() {
            return Err("HEALTHCHECK NONE takes no arguments".to_owned());
        }
        return Ok(Healthcheck { test: vec![form], ..Healthcheck::default() });
    }
    let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let flags = Flags::parse(&node.flags, &names.map(|name| (name, Takes::Text)))?;
    if form != "CMD" {
        return Err(format!("Unknown type {} in HEALTHCHECK (try CMD)", sampan_gotext::quote(&form)));
    }
    let words = if node.json { args.to_vec() } else { (!args.is_empty()).then(|| args.join(" ")).into_iter().collect() };
    if words.is_empty() {
        return Err("Missing command after HEALTHCHECK CMD".to_owned());
    }
    let form = if node.json { "CMD" } else { "CMD-SHELL" };
    Ok(Healthcheck {
        test: std::iter::once(form.to_owned()).chain(words).collect(),
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags.text("retries"))?,
    })
}

fn interval(flags: &Flags, name: &str) -> Result<i64, String> {
    let text = flags.text(name);
    if text.is_empty() {
        return Ok(0);
    }
    match sampan_gotext::duration::parse(&text)? {
        0 => Ok(0),
        short if short < 1_000_000 => Err(format!("Interval \"{name}\" cannot be less than 1ms")),
        long => Ok(long),
    }
}

fn retries(text: &str) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("strconv.ParseInt: parsing {}: invalid syntax", sampan_gotext::quote(text)));
    }
    match text.parse::<i32>() {
        Err(_) => Err(format!("strconv.ParseInt: parsing {}: value out of range", sampan_gotext::quote(text))),
        Ok(negative) if negative < 0 => Err(format!("--retries cannot be negative ({negative})")),
        Ok(count) => Ok(i64::from(count)),
    }
}
