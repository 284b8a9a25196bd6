//! The binary: what is called by which name and word. Everything else is in the crates below.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the composition root reads the environment and prints usage"
)]

mod daemon;
mod options;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;

/// What `daemon --help` prints.
fn daemon_help() -> String {
    let options = sampan_ui::help::options(&[options::FLAGS], 79);
    format!(
        "Usage:  sampan daemon [OPTIONS]\n\tsampan daemon status\n\tsampan daemon stop [--all]\n\n\
         Run the engine in the foreground. Its flags are dockerd's, and so are the keys of its\nconfiguration file.\n\n\
         Options:\n{options}\n\
         daemon status says whether an engine answers; daemon stop ends it, and with --all its\ncontainers first.\n"
    )
}

fn main() -> ExitCode {
    // What is no UTF-8 cannot travel in JSON: it is replaced, as Go does.
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    let program = program.rsplit('/').next().unwrap_or_default();
    let daemon_words = if program == "dockerd" { Some(&words[..]) } else { words.strip_prefix(&["daemon".to_owned()]) };
    let Some(daemon_words) = daemon_words.filter(|_| program != "docker") else {
        return ExitCode::from(sampan_cli::run(environment(program), &words));
    };
    if daemon_words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{}", daemon_help());
        return ExitCode::SUCCESS;
    }
    if daemon_words.iter().any(|word| word == "--version" || word == "-v") {
        println!("sampan version {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match daemon::main(daemon_words, program == "dockerd") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sampan: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the environment once. Under any other name than `docker` the program is `sampan`.
fn environment(program: &str) -> sampan_cli::Environment {
    let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    sampan_cli::Environment {
        program: if program == "docker" { "docker" } else { "sampan" }.to_owned(),
        host: text("SAMPAN_HOST").or_else(|| text("DOCKER_HOST")),
        context: text("DOCKER_CONTEXT"),
        config: text("DOCKER_CONFIG").map(PathBuf::from),
        home: text("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from),
        tls: text("DOCKER_TLS_VERIFY").or_else(|| text("DOCKER_TLS")).is_some(),
        content_trust: text("DOCKER_CONTENT_TRUST").is_some_and(|text| !matches!(text.as_str(), "0" | "false")),
        api_version: text("DOCKER_API_VERSION"),
        platform: text("DOCKER_DEFAULT_PLATFORM"),
        hints: text("DOCKER_CLI_HINTS").is_none_or(|text| !matches!(text.as_str(), "false" | "0")),
        starter: Some(start::start_engine),
        variables: std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect(),
    }
}
