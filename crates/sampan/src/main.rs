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

use std::process::ExitCode;

use std::path::PathBuf;

const DAEMON_HELP: &str = "\
Usage:  PROGRAM daemon [OPTIONS]
        PROGRAM daemon status
        PROGRAM daemon stop [--all]

Run the engine in the foreground. Its flags are dockerd's, and so are the keys of its
configuration file (/etc/sampan/daemon.json; as dockerd /etc/docker/daemon.json).

Options:
  -b, --bridge string          Bridge of the default network; \"none\" for no such network
      --bip string             Address of the bridge, as CIDR
      --cgroup-parent string   Parent of the containers' cgroups
      --config-file string     Configuration file
      --data-root string       Folder of all lasting state (default \"/var/lib/sampan\")
  -D, --debug                  Log more
      --exec-root string       Folder of the state of this boot (default \"/run/sampan\")
  -G, --group string           Group of the socket
  -H, --host list              Where to listen: unix://PATH (default: sampan.sock in the exec root)
      --init                   Run a small init in every container
      --insecure-registry list Registry that needs no TLS: a name with its port, or a network
      --live-restore           Containers outlive the engine (default true; as dockerd false)
  -l, --log-level string       debug, info, warn, error or fatal (default \"info\")
      --mtu int                Packet size of the default network (default 1500)
      --registry-mirror list   Registry that is asked before Docker Hub
  -p, --pidfile string         File of the process id (default: sampan.pid in the exec root)

daemon status says whether an engine answers; daemon stop ends it, and with --all its containers first.
";

fn main() -> ExitCode {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    let program = program.rsplit('/').next().unwrap_or_default();
    let daemon_words = if program == "dockerd" { Some(&words[..]) } else { words.strip_prefix(&["daemon".to_owned()]) };
    let Some(daemon_words) = daemon_words.filter(|_| program != "docker") else {
        return ExitCode::from(sampan_cli::run(environment(program), &words));
    };
    if daemon_words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{}", DAEMON_HELP.replace("PROGRAM", "sampan"));
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
        api_version: text("DOCKER_API_VERSION"),
        platform: text("DOCKER_DEFAULT_PLATFORM"),
        hints: text("DOCKER_CLI_HINTS").is_none_or(|text| !matches!(text.as_str(), "false" | "0")),
        starter: Some(start::start_engine),
        variables: std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect(),
    }
}
