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

use std::process::ExitCode;

const HELP: &str = "\
Usage:  sampan COMMAND

A container platform in one program.

Commands:
  daemon          Run the engine in the foreground (takes dockerd's flags)
  daemon status   Say whether an engine answers
  daemon stop     Stop the engine; --all stops its containers first
  version         Print the version

The engine speaks the Docker Engine API: use any Docker client with
DOCKER_HOST=unix:///run/sampan/sampan.sock
";

fn main() -> ExitCode {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    let program = program.rsplit('/').next().unwrap_or_default();
    let result = match (program, words.first().map(String::as_str)) {
        ("dockerd", _) => daemon::main(&words, true),
        (_, Some("daemon")) => daemon::main(&words[1..], false),
        (_, None | Some("help" | "--help" | "-h")) => {
            print!("{HELP}");
            Ok(())
        }
        (_, Some("version" | "--version" | "-v")) => {
            println!("sampan version {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        (_, Some(word)) => {
            eprintln!(
                "sampan: not supported: {word} (the command line comes later)\nHint: use the docker command line: DOCKER_HOST=unix:///run/sampan/sampan.sock docker {word} …"
            );
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sampan: {error:#}");
            ExitCode::FAILURE
        }
    }
}
