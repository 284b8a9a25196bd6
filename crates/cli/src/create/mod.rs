//! From the flags of `create` and `run` to the body that the engine gets. Reads env files, label files and profiles; talks to nobody.

pub(crate) mod checks;
pub(crate) mod flags;
mod host;
pub(crate) mod mounts;
mod network;
pub(crate) mod ports;

pub(crate) use host::restart_policy;

use std::path::Path;

use sampan_gotext::flags::Matches;
use sampan_wire::{Json, object};

use crate::error::{CliError, Outcome, errno_text};

/// Longest env or label file.
const LARGEST: u64 = 16 << 20;

/// Where values come from that the command line does not hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// The environment.
    pub(crate) variables: &'a [(String, String)],
    /// Rows and columns of the terminal.
    pub(crate) terminal: (u16, u16),
}

/// A container as the command line wishes it.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) body: Json,
    pub(crate) image: String,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) terminal: bool,
    pub(crate) remove: bool,
}

/// Makes the body.
///
/// # Errors
/// What is wrong with a flag, in Docker's words.
pub(crate) fn wish(matches: &Matches, sources: Sources<'_>) -> Outcome<Wish> {
    let fail = |text: String| CliError::new(text);
    let attach = matches.list("attach");
    let chosen = |stream: &str| attach.iter().any(|name| name == stream);
    let stdin = matches.truth("interactive");
    let (stdout, stderr) = if attach.is_empty() { (true, true) } else { (chosen("stdout"), chosen("stderr")) };
    let attach_stdin = chosen("stdin") || stdin;
    let terminal = matches.truth("tty");
    let published = published(matches).map_err(fail)?;
    let mut exposed: Vec<String> = published.iter().map(|one| one.port.clone()).collect();
    for spec in matches.list("expose") {
        exposed.extend(ports::exposed(spec).map_err(fail)?);
    }
    exposed.sort();
    exposed.dedup();
    let (anonymous, binds) = volumes(matches)?;
    let (image, command) = matches.words.split_first().map_or((String::new(), &[][..]), |(image, command)| (image.clone(), command));
    let mut config = vec![
        ("Hostname".to_owned(), Json::from(matches.text("hostname"))),
        ("Domainname".into(), matches.text("domainname").into()),
        ("User".into(), matches.text("user").into()),
        ("AttachStdin".into(), attach_stdin.into()),
        ("AttachStdout".into(), stdout.into()),
        ("AttachStderr".into(), stderr.into()),
        ("Tty".into(), terminal.into()),
        ("OpenStdin".into(), stdin.into()),
        ("StdinOnce".into(), (stdin && attach_stdin).into()),
        ("Env".into(), Json::list(environment(matches, sources.variables)?)),
        ("Cmd".into(), Json::list_or_null(command.iter().map(String::as_str))),
        ("Image".into(), image.as_str().into()),
        ("Volumes".into(), Json::map(anonymous.into_iter().map(|path| (path, Json::Object(Vec::new()))))),
        ("WorkingDir".into(), matches.text("workdir").into()),
        ("Entrypoint".into(), entrypoint(matches)),
        ("Labels".into(), Json::map(pairs(&key_values(matches.list("label-file"), matches.list("label"), |_| None, "label")?))),
    ];
    if !exposed.is_empty() {
        config.push(("ExposedPorts".into(), Json::map(exposed.into_iter().map(|port| (port, Json::Object(Vec::new()))))));
    }
    if let Some(health) = health(matches)? {
        config.push(("Healthcheck".into(), health));
    }
    if matches.given("stop-signal") {
        config.push(("StopSignal".into(), matches.text("stop-signal").into()));
    }
    if matches.given("stop-timeout") {
        config.push(("StopTimeout".into(), matches.int("stop-timeout").into()));
    }
    if matches.given("mac-address") {
        config.push(("MacAddress".into(), matches.text("mac-address").into()));
    }
    let networks = network::networks(matches)?;
    config.push(("HostConfig".into(), host::config(matches, binds, &published, &networks.mode, sources.terminal)?));
    config.push(("NetworkingConfig".into(), object! { "EndpointsConfig": networks.endpoints }));
    Ok(Wish { body: Json::Object(config), image, stdin: attach_stdin, stdout, stderr, terminal, remove: matches.truth("rm") })
}

fn published(matches: &Matches) -> Result<Vec<ports::Published>, String> {
    let mut all = Vec::new();
    for spec in matches.list("publish") {
        all.extend(ports::parse(spec)?);
    }
    Ok(all)
}

fn entrypoint(matches: &Matches) -> Json {
    if !matches.given("entrypoint") {
        return Json::NULL;
    }
    Json::list([matches.text("entrypoint")])
}

/// Paths of unnamed volumes, and binds.
fn volumes(matches: &Matches) -> Outcome<(Vec<String>, Vec<String>)> {
    let (mut anonymous, mut binds) = (Vec::new(), Vec::new());
    for spec in matches.list("volume") {
        if spec.is_empty() {
            return Err(CliError::new("invalid empty volume spec"));
        }
        let Some((source, rest)) = spec.split_once(':') else {
            anonymous.push(spec.clone());
            continue;
        };
        if source.is_empty() || rest.is_empty() {
            return Err(CliError::new(format!("invalid spec: {spec}: empty section between colons")));
        }
        if source.starts_with('.') {
            let here = std::env::current_dir()?;
            binds.push(format!("{}:{rest}", mounts::clean(&here.join(source))));
        } else {
            binds.push(spec.clone());
        }
    }
    Ok((anonymous, binds))
}

/// Variables of files, then those of flags; a name without a value takes that of the environment.
pub(crate) fn environment(matches: &Matches, variables: &[(String, String)]) -> Outcome<Vec<String>> {
    let look_up = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    key_values(matches.list("env-file"), matches.list("env"), look_up, "variable")
}

/// Lines of files and given ones as `key=value`, or `key` where no value is known.
fn key_values(files: &[String], given: &[String], look_up: impl Fn(&str) -> Option<String>, what: &str) -> Outcome<Vec<String>> {
    let mut out = Vec::new();
    for file in files {
        for (number, line) in lines(file)?.lines().enumerate() {
            let line = if number == 0 { line.trim_start_matches('\u{feff}') } else { line };
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once('=') {
                Some((name, value)) => {
                    let name = name.trim_start();
                    if name.is_empty() {
                        return Err(CliError::new(format!("invalid env file ({file}): no variable name on line '{line}'")));
                    }
                    if name.contains([' ', '\t']) {
                        return Err(CliError::new(format!("invalid env file ({file}): {what} '{name}' contains whitespaces")));
                    }
                    out.push(format!("{name}={value}"));
                }
                None if line.trim_end().contains([' ', '\t']) => {
                    return Err(CliError::new(format!("invalid env file ({file}): {what} '{line}' contains whitespaces")));
                }
                None => {
                    if let Some(value) = look_up(line.trim_end()) {
                        out.push(format!("{}={value}", line.trim_end()));
                    }
                }
            }
        }
    }
    for one in given {
        match (one.contains('='), look_up(one)) {
            (false, Some(value)) => out.push(format!("{one}={value}")),
            _ => out.push(one.clone()),
        }
    }
    Ok(out)
}

fn lines(file: &str) -> Outcome<String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let read = std::fs::File::open(Path::new(file)).and_then(|opened| opened.take(LARGEST).read_to_end(&mut text));
    read.map_err(|error| CliError::new(format!("open {file}: {}", errno_text(&error))))?;
    String::from_utf8(text).map_err(|_| CliError::new(format!("invalid env file ({file}): not UTF-8")))
}

/// `key=value` as a JSON object; the last one of a key counts.
pub(crate) fn key_value_map(list: &[String]) -> Json {
    Json::map(pairs(list))
}

/// `key=value` as pairs; the last one of a key counts.
fn pairs(list: &[String]) -> std::collections::BTreeMap<String, Json> {
    list.iter()
        .map(|one| one.split_once('=').map_or((one.clone(), Json::from("")), |(key, value)| (key.to_owned(), value.into())))
        .collect()
}

fn health(matches: &Matches) -> Outcome<Option<Json>> {
    let names = ["health-cmd", "health-interval", "health-retries", "health-start-interval", "health-start-period", "health-timeout"];
    let given = names.iter().any(|name| matches.given(name));
    if matches.truth("no-healthcheck") {
        if given {
            return Err(CliError::new("--no-healthcheck conflicts with --health-* options"));
        }
        return Ok(Some(object! { "Test": Json::list(["NONE"]) }));
    }
    if !given {
        return Ok(None);
    }
    let span = |name: &str| {
        let nanoseconds = matches.text(name).parse::<i64>().unwrap_or(0);
        if nanoseconds < 0 { Err(CliError::new(format!("--{name} cannot be negative"))) } else { Ok(nanoseconds) }
    };
    let retries = matches.int("health-retries");
    if retries < 0 {
        return Err(CliError::new("--health-retries cannot be negative"));
    }
    let test = if matches.text("health-cmd").is_empty() { Json::NULL } else { Json::list(["CMD-SHELL", matches.text("health-cmd")]) };
    Ok(Some(object! {
        "Test": test,
        "Interval": span("health-interval")?,
        "Timeout": span("health-timeout")?,
        "StartPeriod": span("health-start-period")?,
        "StartInterval": span("health-start-interval")?,
        "Retries": retries,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(words: &[&str]) -> Result<Json, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let matches = sampan_gotext::flags::parse(&[flags::CREATE, flags::RUN], &words, false).map_err(|error| error.0)?;
        let variables = [("HOME_PORT".to_owned(), "Genoa".to_owned())];
        wish(&matches, Sources { variables: &variables, terminal: (24, 80) }).map(|wish| wish.body).map_err(|error| error.text)
    }

    #[test]
    fn flags_become_the_body() {
        let body = made(&[
            "-it",
            "-e",
            "A=1",
            "-e",
            "HOME_PORT",
            "-e",
            "NOPE",
            "-p",
            "80:8080",
            "-v",
            "/data",
            "-v",
            "vol:/v:ro",
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "--init",
            "box",
            "sh",
            "-c",
            "x",
        ])
        .unwrap();
        assert_eq!(body.texts("Env"), ["A=1", "HOME_PORT=Genoa", "NOPE"]);
        assert_eq!(body.texts("Cmd"), ["sh", "-c", "x"]);
        assert_eq!(body.get("Volumes").print(), "{\"/data\":{}}");
        assert_eq!(body.get("ExposedPorts").print(), "{\"8080/tcp\":{}}");
        let host = body.get("HostConfig");
        assert_eq!(host.texts("Binds"), ["vol:/v:ro"]);
        assert_eq!((host.int("Memory"), host.int("NanoCpus"), host.truth("Init")), (64 << 20, 500_000_000, true));
        assert_eq!(host.get("PortBindings").print(), "{\"8080/tcp\":[{\"HostIp\":\"\",\"HostPort\":\"80\"}]}");
        assert!(body.truth("StdinOnce") && body.truth("Tty") && body.get("Entrypoint").is_null());
    }

    #[test]
    fn mistakes_are_told_in_dockers_words() {
        for (words, error) in [
            (&["-v", "", "box"][..], "invalid empty volume spec"),
            (&["--pid", "foo", "box"], "--pid: invalid PID mode"),
            (&["--restart", "on-failure:x", "box"], "invalid restart policy format: maximum retry count must be an integer"),
            (&["--security-opt", "x", "box"], "Invalid --security-opt: \"x\""),
            (&["--memory-swappiness", "200", "box"], "invalid value: 200. Valid memory swappiness range is 0-100"),
            (&["--network", "", "box"], "no name set for network"),
            (&["--storage-opt", "x", "box"], "invalid storage option"),
            (&["--health-cmd", "x", "--no-healthcheck", "box"], "--no-healthcheck conflicts with --health-* options"),
            (&["--rm", "--restart", "always", "box"], "conflicting options: cannot specify both --restart and --rm"),
            (&["--env-file", "/nosuch", "box"], "open /nosuch: no such file or directory"),
        ] {
            assert_eq!(made(words).unwrap_err(), error);
        }
    }
}
