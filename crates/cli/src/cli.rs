//! From words to a command: global flags, the tree, help, errors, exit codes.

use sampan_gotext::flags::{self, Help, Matches};
use sampan_ui::help;

use crate::app::{App, Environment, GLOBAL};
use crate::command::{Command, Words};
use crate::commands::{ALL, GROUPS, later, system};
use crate::config::Config;
use crate::error::{CliError, Outcome};
use crate::{complete, plugins};

/// Runs a command line and gives its exit code. All that is printed is printed here or by the command.
#[must_use]
pub fn run(environment: Environment, words: &[String]) -> u8 {
    let program = environment.program.clone();
    let hints = environment.hints && program != "docker";
    match dispatch(environment, words) {
        Ok(code) => code,
        Err(error) => {
            print_error(&program, hints, &error);
            error.code
        }
    }
}

fn print_error(program: &str, hints: bool, error: &CliError) {
    use std::io::Write as _;
    let mut out = std::io::stderr().lock();
    if !error.text.is_empty() {
        drop(writeln!(out, "{}", error.text));
    }
    if hints && let Some(hint) = error.hint.clone().or_else(|| hint_for(program, &error.text)) {
        drop(writeln!(out, "Hint: {hint}"));
    }
}

/// What to type after an error that many meet.
fn hint_for(program: &str, text: &str) -> Option<String> {
    let hints = [
        ("Cannot connect to the Docker daemon", "start an engine as root: PROGRAM daemon"),
        ("No such container", "list all containers: PROGRAM ps -a"),
        ("No such image", "list images: PROGRAM images"),
        ("no such volume", "list volumes: PROGRAM volume ls"),
        ("is already in use by container", "remove or rename the other one: PROGRAM rm NAME, PROGRAM rename NAME NEW_NAME"),
        ("port is already allocated", "see who publishes it: PROGRAM ps, or let the engine choose: -p 127.0.0.1::PORT"),
        ("container is running: stop the container", "stop it first: PROGRAM stop NAME, or force: PROGRAM rm -f NAME"),
    ];
    hints.iter().find(|(part, _)| text.contains(part)).map(|(_, hint)| hint.replace("PROGRAM", program))
}

/// The command at a path, or at a shortcut.
pub(crate) fn find(path: &str) -> Option<&'static Command> {
    ALL.iter().flat_map(|list| list.iter()).find(|command| command.paths.contains(&path))
}

fn dispatch(environment: Environment, words: &[String]) -> Outcome {
    let program = environment.program.clone();
    if words.first().is_some_and(|word| word == "__complete") {
        return complete::print(environment, &words[1..]);
    }
    let global = flags::parse(&[GLOBAL], words, false).map_err(|error| {
        CliError::new(format!("{error}\n\nUsage:  {program} [OPTIONS] COMMAND [ARG...]\n\nRun '{program} --help' for more information"))
            .code(125)
    })?;
    refuse_later(&[GLOBAL], &global, 125)?;
    if global.truth("version") {
        return print_version(&program);
    }
    check_level(&global)?;
    let app = |called: &str| -> Outcome<App> {
        Ok(App::new(environment.clone(), global.clone(), read_config(&environment, &global)?, called.to_owned()))
    };
    let rest = &global.words;
    let Some(first) = rest.first().filter(|_| global.help.is_none()) else {
        let app = app("")?;
        if global.help == Some(Help::Short) {
            app.line("Flag shorthand -h has been deprecated, use --help")?;
        }
        return app.print(&root_help(&app)).map(|()| 0);
    };
    if first == "help" {
        return help_command(&app("help")?, &rest[1..]);
    }
    // Docker's own plugin knows more than our group of its name.
    if first == "buildx"
        && let Some(plugin) = plugins::list(&app(first)?).into_iter().find(|plugin| plugin.name == *first)
    {
        return run_plugin(&app(first)?, &plugin, rest);
    }
    let Some((command, used)) = longest(rest) else {
        return no_command(&app(first)?, rest);
    };
    let called = rest[..used].join(" ");
    let app = app(&called)?;
    let matches = parse(&app, command, &rest[used..])?;
    if let Some(help) = matches.help {
        if help == Help::Short {
            app.line("Flag shorthand -h has been deprecated, use --help")?;
        }
        return app.print(&command_help(&app, command)).map(|()| 0);
    }
    let runs = called.ends_with("run") || called.ends_with("create") && !called.contains(' ');
    refuse_later(command.flags, &matches, if runs { 125 } else { 1 })?;
    check_words(&app, command, &matches)?;
    block_on((command.run)(&app, &matches))
}

/// Runs a command on a runtime of one thread; what still waits at the end (a thread that reads standard input) is left behind.
pub(crate) fn block_on<T>(future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_background();
    outcome
}

/// The command of the most words at the beginning, and how many they are.
fn longest(words: &[String]) -> Option<(&'static Command, usize)> {
    let names = words.iter().take(3).enumerate().take_while(|(at, word)| *at == 0 || !word.starts_with('-')).count();
    (1..=names).rev().find_map(|count| find(&words[..count].join(" ")).map(|command| (command, count)))
}

fn print_version(program: &str) -> Outcome {
    use std::io::Write as _;
    let ours = env!("CARGO_PKG_VERSION");
    let mut out = std::io::stdout().lock();
    if program == "docker" {
        writeln!(out, "Docker version {}, build {ours}", system::DOCKER_VERSION)?;
    } else {
        writeln!(out, "{program} version {ours}")?;
    }
    Ok(0)
}

fn check_level(global: &Matches) -> Outcome<()> {
    let level = global.text("log-level");
    if ["debug", "info", "warn", "error", "fatal"].contains(&level) {
        Ok(())
    } else {
        Err(CliError::new(format!("Unable to parse logging level: {level}")))
    }
}

fn read_config(environment: &Environment, global: &Matches) -> Outcome<Config> {
    let folder = if global.given("config") { Some(global.text("config").into()) } else { environment.config.clone() };
    let folder = folder.unwrap_or_else(|| environment.home.join(".docker"));
    Config::read(folder.clone()).or_else(|error| {
        // A broken file is told and left alone; the command goes on.
        print_error(&environment.program, false, &error);
        Ok(Config { folder, value: serde_json::Value::Object(serde_json::Map::default()) })
    })
}

/// Flags that are known and not there yet.
fn refuse_later(flags: &[&[flags::Flag]], matches: &Matches, code: u8) -> Outcome<()> {
    let given = flags.iter().flat_map(|list| list.iter()).filter(|flag| matches.given(flag.name));
    match given.filter_map(|flag| flag.later.map(|reason| (flag.name, reason))).next() {
        Some((name, reason)) => Err(CliError::unsupported(&format!("--{name}"), reason).code(code)),
        None => Ok(()),
    }
}

fn parse(app: &App, command: &Command, words: &[String]) -> Outcome<Matches> {
    let mut matches = flags::parse(command.flags, words, command.interspersed).map_err(|error| {
        let program = app.program();
        CliError::new(format!("{error}\n\nUsage:  {}\n\nRun '{program} {} --help' for more information", usage(app, command), app.called))
            .code(125)
    })?;
    // `run` and `create` list `--help` themselves, because `-h` is the host name there.
    if matches.truth("help") {
        matches.help = Some(Help::Long);
    }
    Ok(matches)
}

fn check_words(app: &App, command: &Command, matches: &Matches) -> Outcome<()> {
    let Some(mistake) = command.words.mistake(matches.words.len()) else { return Ok(()) };
    let (program, called) = (app.program(), &app.called);
    let verb = if matches!(command.words, Words::AtLeast(_)) { "See" } else { "Run" };
    Err(CliError::new(format!(
        "{program}: '{program} {called}' {mistake}\n\nUsage:  {}\n\n{verb} '{program} {called} --help' for more information",
        usage(app, command)
    )))
}

/// What stands after `Usage:`.
fn usage(app: &App, command: &Command) -> String {
    let start = format!("{} {}", app.program(), app.called);
    let lines: Vec<String> = command.usage.split('\n').map(|line| format!("{start} {line}").trim_end().to_owned()).collect();
    lines.join("\n\t")
}

fn no_command(app: &App, words: &[String]) -> Outcome {
    if let Some(error) = later::reason(words) {
        return Err(error);
    }
    let program = app.program();
    let group = GROUPS.iter().find(|(name, _)| *name == words[0]);
    let Some((group, _)) = group else {
        if let Some(plugin) = plugins::list(app).into_iter().find(|plugin| plugin.name == words[0]) {
            return run_plugin(app, &plugin, words);
        }
        return Err(CliError::new(format!(
            "{program}: unknown command: {program} {}\n\nRun '{program} --help' for more information",
            words[0]
        )));
    };
    let matches = flags::parse(&[], &words[1..], true).map_err(|error| {
        CliError::new(format!("{error}\n\nUsage:  {program} {group}\n\nRun '{program} {group} --help' for more information")).code(125)
    })?;
    if matches.help.is_some() {
        return app.print(&group_help(app, group)).map(|()| 0);
    }
    match matches.words.first() {
        None => {
            app.warn(group_help(app, group).trim_end_matches('\n'));
            Ok(0)
        }
        Some(word) => Err(CliError::new(format!(
            "{program}: unknown command: {program} {group} {word}\n\nUsage:  {program} {group}\n\nRun '{program} {group} --help' for more information"
        ))),
    }
}

/// Becomes a plugin; the engine is there when it asks for it.
fn run_plugin(app: &App, plugin: &plugins::Plugin, words: &[String]) -> Outcome {
    drop(block_on(async { app.client()?.server().await.map(drop) }));
    Err(plugins::run(app, plugin, words))
}

fn help_command(app: &App, words: &[String]) -> Outcome {
    let Some(first) = words.first() else { return app.print(&root_help(app)).map(|()| 0) };
    if let Some((group, _)) = GROUPS.iter().find(|(name, _)| name == first).filter(|_| words.len() == 1) {
        return app.print(&group_help(app, group)).map(|()| 0);
    }
    let called = words.join(" ");
    let Some(command) = find(&called) else { return Err(CliError::new(format!("unknown help topic: {called}"))) };
    let app = App::new(app.environment.clone(), app.global.clone(), app.config.clone(), called);
    app.print(&command_help(&app, command)).map(|()| 0)
}

fn command_help(app: &App, command: &Command) -> String {
    let mut out = format!("Usage:  {}\n\n{}\n", usage(app, command), command.about);
    if !command.more.is_empty() {
        out.push_str(&format!("\n{}\n", command.more.replace("PROGRAM", app.program())));
    }
    if command.paths.len() > 1 {
        let all: Vec<String> = command.paths.iter().map(|path| format!("{} {path}", app.program())).collect();
        out.push_str(&format!("\nAliases:\n  {}\n", all.join(", ")));
    }
    if command.flags.iter().any(|list| !list.is_empty()) {
        out.push_str(&format!("\nOptions:\n{}", help::options(command.flags, app.columns().saturating_sub(1))));
    }
    out
}

fn group_help(app: &App, group: &str) -> String {
    let about = GROUPS.iter().find(|(name, _)| *name == group).map_or("", |(_, about)| about);
    let mut rows: Vec<(&str, &str)> = ALL
        .iter()
        .flat_map(|list| list.iter())
        .filter_map(|command| {
            let path = command.paths.iter().find_map(|path| path.strip_prefix(group)?.strip_prefix(' '))?;
            (path != "dial-stdio").then_some((path, command.about))
        })
        .collect();
    rows.sort_unstable();
    let program = app.program();
    format!(
        "Usage:  {program} {group} COMMAND\n\n{about}\n\nCommands:\n{}\nRun '{program} {group} COMMAND --help' for more information on a command.\n",
        help::list(&rows)
    )
}

/// The commands that most people need first.
const COMMON: [&str; 7] = ["run", "exec", "ps", "pull", "images", "version", "info"];

fn root_help(app: &App) -> String {
    let program = app.program();
    let about = |name: &&'static str| find(name).map(|command| (*name, command.about));
    let common: Vec<(&str, &str)> = COMMON.iter().filter_map(about).collect();
    let mut others: Vec<(&str, &str)> = ALL
        .iter()
        .flat_map(|list| list.iter())
        .flat_map(|command| command.paths.iter().filter(|path| !path.contains(' ')).map(|path| (*path, command.about)))
        .filter(|(name, _)| !COMMON.contains(name))
        .collect();
    others.sort_unstable();
    let plugins = plugins::list(app);
    let plugins: Vec<(&str, &str)> = plugins.iter().map(|plugin| (plugin.name.as_str(), "(plugin)")).collect();
    let engine = if program == "docker" {
        String::new()
    } else {
        format!(
            "Engine:\n{}\n",
            help::list(&[
                ("daemon", "Run the engine in the foreground; takes dockerd's flags"),
                ("daemon status", "Say whether an engine answers"),
                ("daemon stop", "Stop the engine; containers live on unless --all is given"),
            ])
        )
    };
    let plugins = if plugins.is_empty() { String::new() } else { format!("Plugins:\n{}\n", help::list(&plugins)) };
    format!(
        "Usage:  {program} [OPTIONS] COMMAND\n\nA container platform in one program\n\nCommon Commands:\n{}\nManagement Commands:\n{}\nCommands:\n{}\n{engine}{plugins}Global Options:\n{}\nRun '{program} COMMAND --help' for more information on a command.\n",
        help::list(&common),
        help::list(GROUPS),
        help::list(&others),
        help::options(&[GLOBAL], app.columns().saturating_sub(1)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        let mut paths: Vec<&str> = ALL.iter().flat_map(|list| list.iter()).flat_map(|command| command.paths.iter().copied()).collect();
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count, "a path has one command");
        for command in ALL.iter().flat_map(|list| list.iter()) {
            let mut names: Vec<&str> = command.flags.iter().flat_map(|list| list.iter()).map(|flag| flag.name).collect();
            let mut letters: Vec<char> = command.flags.iter().flat_map(|list| list.iter()).filter_map(|flag| flag.short).collect();
            let (many, short) = (names.len(), letters.len());
            names.sort_unstable();
            names.dedup();
            letters.sort_unstable();
            letters.dedup();
            assert_eq!((names.len(), letters.len()), (many, short), "flags of {command:?} are unique");
            for path in command.paths.iter().filter(|path| path.contains(' ')) {
                let group = path.split(' ').next().unwrap();
                assert!(GROUPS.iter().any(|(name, _)| *name == group), "{path} has a group");
            }
        }
    }

    #[test]
    fn mistakes_have_dockers_exit_codes() {
        let code = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            dispatch(Environment { program: "docker".into(), ..Environment::default() }, &words).unwrap_err()
        };
        assert_eq!(code(&["nosuch"]).text, "docker: unknown command: docker nosuch\n\nRun 'docker --help' for more information");
        assert_eq!(code(&["run", "--nosuch"]).code, 125);
        assert_eq!(code(&["run"]).code, 1);
        assert_eq!(code(&["swarm", "init"]).text, "not supported: swarm (there is no swarm)");
        assert_eq!(code(&["trust"]).text, "not supported: trust (signatures come later)");
        assert_eq!(code(&["run", "--cpu-count", "1", "x"]).code, 125);
        assert_eq!(code(&["image", "nosuch"]).code, 1);
    }
}
