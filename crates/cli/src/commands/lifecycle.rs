//! What happens to containers that exist: start to removal, and small questions about them.

use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_gotext::units::size;
use sampan_ui::table::{Columns, tabulate};
use sampan_wire::{Json, object};

use super::FORCE;
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::create::checks;
use crate::error::{CliError, Outcome};

const SIGNAL: Flag = Flag::new("signal", Kind::Text, "Signal to send").short('s');
const TIMEOUT: Flag = Flag::new("timeout", Kind::Int, "Seconds to wait before the container is killed").short('t');
/// The older name of `--timeout`.
const TIME: Flag = Flag::new("time", Kind::Int, "Seconds to wait before the container is killed").hidden();

const MANY: &str = "CONTAINER [CONTAINER...]";

/// A command for many containers.
const fn many(
    paths: &'static [&'static str],
    about: &'static str,
    things: Things,
    flags: &'static [&'static [Flag]],
    run: for<'a> fn(&'a App, &'a Matches) -> crate::command::Running<'a>,
) -> Command {
    let usage = if flags[0].is_empty() { MANY } else { "[OPTIONS] CONTAINER [CONTAINER...]" };
    Command { paths, usage, about, more: "", words: Words::AtLeast(1), things, flags, interspersed: true, run }
}

pub(super) const COMMANDS: &[Command] = &[
    many(&["container stop", "stop"], "Stop containers", Things::Running, &[&[SIGNAL, TIMEOUT, TIME]], |app, matches| {
        Box::pin(stop(app, matches, "stop"))
    }),
    many(
        &["container restart", "restart"],
        "Stop containers and start them again",
        Things::Containers,
        &[&[SIGNAL, TIMEOUT, TIME]],
        |app, matches| Box::pin(stop(app, matches, "restart")),
    ),
    many(
        &["container kill", "kill"],
        "Send a signal to containers; SIGKILL if no other is named",
        Things::Running,
        &[&[SIGNAL]],
        |app, matches| Box::pin(kill(app, matches)),
    ),
    many(&["container pause", "pause"], "Freeze all processes of containers", Things::Running, &[&[]], |app, matches| {
        Box::pin(simple(app, matches, "pause"))
    }),
    many(&["container unpause", "unpause"], "Let the processes of frozen containers go on", Things::Running, &[&[]], |app, matches| {
        Box::pin(simple(app, matches, "unpause"))
    }),
    many(&["container wait", "wait"], "Wait until containers end and print their exit codes", Things::Running, &[&[]], |app, matches| {
        Box::pin(wait(app, matches))
    }),
    many(
        &["container rm", "container remove", "rm"],
        "Remove containers",
        Things::Containers,
        &[&[
            Flag::new("force", Kind::Bool, "Remove containers that run too: they are killed").short('f'),
            Flag::new("link", Kind::Bool, "Remove a link, and not the container").short('l'),
            Flag::new("volumes", Kind::Bool, "Remove the unnamed volumes of the container too").short('v'),
        ]],
        |app, matches| Box::pin(remove(app, matches)),
    ),
    Command {
        paths: &["container rename", "rename"],
        usage: "CONTAINER NEW_NAME",
        about: "Rename a container",
        more: "",
        words: Words::Exactly(2),
        things: Things::Containers,
        flags: &[],
        interspersed: true,
        run: |app, matches| Box::pin(rename(app, matches)),
    },
    Command {
        paths: &["container port", "port"],
        usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
        about: "Show where ports of a container are published",
        more: "",
        words: Words::Between(1, 2),
        things: Things::Running,
        flags: &[],
        interspersed: true,
        run: |app, matches| Box::pin(port(app, matches)),
    },
    Command {
        paths: &["container top", "top"],
        usage: "CONTAINER [ps OPTIONS]",
        about: "Show the processes of a container",
        more: "",
        words: Words::AtLeast(1),
        things: Things::Running,
        flags: &[],
        interspersed: false,
        run: |app, matches| Box::pin(top(app, matches)),
    },
    Command {
        paths: &["container diff", "diff"],
        usage: "CONTAINER",
        about: "Show what a container changed in its file system",
        more: "A: added, C: changed, D: deleted.",
        words: Words::Exactly(1),
        things: Things::Containers,
        flags: &[],
        interspersed: true,
        run: |app, matches| Box::pin(diff(app, matches)),
    },
    Command {
        paths: &["container update", "update"],
        usage: "[OPTIONS] CONTAINER [CONTAINER...]",
        about: "Change limits and restart policy of containers",
        more: "",
        words: Words::AtLeast(1),
        things: Things::Containers,
        flags: &[UPDATE],
        interspersed: true,
        run: |app, matches| Box::pin(update(app, matches)),
    },
    Command {
        paths: &["container prune"],
        usage: "[OPTIONS]",
        about: "Remove all containers that do not run",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[Flag::new("filter", Kind::Filter, "Remove only what fits: until=, label="), FORCE]],
        interspersed: true,
        run: |app, matches| Box::pin(prune(app, matches)),
    },
];

const UPDATE: &[Flag] = &[
    Flag::new("blkio-weight", Kind::Uint16, "Share of block I/O between 10 and 1000; 0 for none").default("0"),
    Flag::new("cpu-period", Kind::Int, "Period of the CPU limit in microseconds"),
    Flag::new("cpu-quota", Kind::Int, "CPU time per period in microseconds"),
    Flag::new("cpu-rt-period", Kind::Int, "Period of the real-time CPU limit in microseconds"),
    Flag::new("cpu-rt-runtime", Kind::Int, "Real-time CPU time per period in microseconds"),
    Flag::new("cpu-shares", Kind::Int, "Share of CPU time against other containers").short('c'),
    Flag::new("cpus", Kind::Other("decimal"), "Number of CPUs").check(checks::cpus),
    Flag::new("cpuset-cpus", Kind::Text, "CPUs to run on (0-3, 0,1)"),
    Flag::new("cpuset-mems", Kind::Text, "Memory nodes to use (0-3, 0,1)"),
    Flag::new("kernel-memory", Kind::Bytes, "Limit of kernel memory").hidden(),
    Flag::new("memory", Kind::Bytes, "Memory limit").short('m'),
    Flag::new("memory-reservation", Kind::Bytes, "Soft memory limit"),
    Flag::new("memory-swap", Kind::Bytes, "Limit of memory and swap together; -1 for no limit of swap"),
    Flag::new("pids-limit", Kind::Int, "Most processes; -1 for no limit"),
    Flag::new("restart", Kind::Text, "When to start again: no, on-failure[:TIMES], always or unless-stopped"),
];

async fn stop(app: &App, matches: &Matches, verb: &'static str) -> Outcome {
    if matches.given("time") && matches.given("timeout") {
        return Err(CliError::new("conflicting options: cannot specify both --timeout and --time"));
    }
    let client = app.client()?;
    let seconds = if matches.given("time") { matches.text("time") } else { matches.text("timeout") };
    app.each(&matches.words, async |id| {
        client
            .post(format!("/containers/{}/{verb}", crate::remote::escape(id)))
            .query_some("t", seconds)
            .query_some("signal", matches.text("signal"))
            .done()
            .await?;
        Ok(id.to_owned())
    })
    .await
}

async fn kill(app: &App, matches: &Matches) -> Outcome {
    let client = app.client()?;
    app.each(&matches.words, async |id| {
        client.post(format!("/containers/{}/kill", crate::remote::escape(id))).query_some("signal", matches.text("signal")).done().await?;
        Ok(id.to_owned())
    })
    .await
}

async fn simple(app: &App, matches: &Matches, verb: &'static str) -> Outcome {
    let client = app.client()?;
    app.each(&matches.words, async |id| {
        client.post(format!("/containers/{}/{verb}", crate::remote::escape(id))).done().await?;
        Ok(id.to_owned())
    })
    .await
}

async fn wait(app: &App, matches: &Matches) -> Outcome {
    let client = app.client()?;
    app.each(&matches.words, async |id| {
        let ended = client.post(format!("/containers/{}/wait", crate::remote::escape(id))).json().await?;
        Ok(ended.int("StatusCode").to_string())
    })
    .await
}

async fn remove(app: &App, matches: &Matches) -> Outcome {
    let client = app.client()?;
    let force = matches.truth("force");
    let mut errors = Vec::new();
    let mut failed = false;
    for name in &matches.words {
        let id = name.trim_matches('/');
        if id.is_empty() {
            errors.push("container name cannot be empty".to_owned());
            failed = true;
            continue;
        }
        let call = client.delete(format!("/containers/{}", crate::remote::escape(id)));
        let call = call.query_if("v", matches.truth("volumes")).query_if("link", matches.truth("link")).query_if("force", force);
        match call.done().await {
            Ok(()) => app.line(name)?,
            Err(error) => {
                // What is gone already is no failure where removal is forced.
                failed |= !(force && error.status == 404);
                errors.push(error.text);
            }
        }
    }
    match (errors.is_empty(), failed) {
        (true, _) => Ok(0),
        (false, true) => Err(CliError::new(errors.join("\n"))),
        (false, false) => Err(CliError::new(errors.join("\n")).code(0)),
    }
}

async fn rename(app: &App, matches: &Matches) -> Outcome {
    let (old, new) = (matches.words[0].trim(), matches.words[1].trim());
    if old.is_empty() || new.is_empty() {
        return Err(CliError::new("Error: Neither old nor new names may be empty"));
    }
    match app.client()?.post(format!("/containers/{}/rename", crate::remote::escape(old))).query("name", new).done().await {
        Ok(()) => Ok(0),
        Err(error) => Err(CliError { text: format!("{}\nError: failed to rename container named {old}", error.text), ..error }),
    }
}

async fn port(app: &App, matches: &Matches) -> Outcome {
    let name = &matches.words[0];
    let container = app.client()?.get(format!("/containers/{}/json", crate::remote::escape(name))).json().await?;
    let ports = container.at(&["NetworkSettings", "Ports"]).entries();
    let address = |binding: &Json| {
        let ip = binding.text("HostIp");
        if ip.contains(':') { format!("[{ip}]:{}", binding.text("HostPort")) } else { format!("{ip}:{}", binding.text("HostPort")) }
    };
    let mut lines: Vec<String> = Vec::new();
    if let Some(wanted) = matches.words.get(1) {
        let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        if number.parse::<u16>().is_err() {
            return Err(CliError::new(format!(
                "Error: invalid port ({number}): strconv.ParseUint: parsing {}: invalid syntax",
                sampan_gotext::quote(number)
            )));
        }
        let found = ports.iter().find(|(port, bindings)| *port == format!("{number}/{protocol}") && !bindings.items().is_empty());
        let Some((_, bindings)) = found else {
            return Err(CliError::new(format!("Error: No public port '{wanted}' published for {name}")));
        };
        lines.extend(bindings.items().iter().map(address));
    } else {
        for (port, bindings) in ports {
            lines.extend(bindings.items().iter().map(|binding| format!("{port} -> {}", address(binding))));
        }
        lines.sort_by_key(|line| line.split('/').next().and_then(|number| number.parse::<u16>().ok()));
    }
    for line in lines {
        app.line(&line)?;
    }
    Ok(0)
}

async fn top(app: &App, matches: &Matches) -> Outcome {
    let call = app.client()?.get(format!("/containers/{}/top", crate::remote::escape(&matches.words[0])));
    let processes = call.query_some("ps_args", &matches.words[1..].join(" ")).json().await?;
    let mut text = processes.texts("Titles").join("\t");
    for process in processes.get("Processes").items() {
        text.push('\n');
        text.push_str(&process.items().iter().map(Json::as_text).collect::<Vec<_>>().join("\t"));
    }
    app.line(&tabulate(&text, Columns { least: 20, padding: 3 }))?;
    Ok(0)
}

async fn diff(app: &App, matches: &Matches) -> Outcome {
    let changes = app.client()?.get(format!("/containers/{}/changes", crate::remote::escape(&matches.words[0]))).json().await?;
    for change in changes.items() {
        let kind = match change.int("Kind") {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        app.line(&format!("{kind} {}", change.text("Path")))?;
    }
    Ok(0)
}

async fn update(app: &App, matches: &Matches) -> Outcome {
    if matches.names().next().is_none() {
        return Err(CliError::new("you must provide one or more flags when using this command"));
    }
    let (restart, retries) = crate::create::restart_policy(matches.text("restart"))?;
    let mut body: Vec<(String, Json)> = Vec::new();
    for (key, flag) in [
        ("BlkioWeight", "blkio-weight"),
        ("CpuPeriod", "cpu-period"),
        ("CpuQuota", "cpu-quota"),
        ("CpuRealtimePeriod", "cpu-rt-period"),
        ("CpuRealtimeRuntime", "cpu-rt-runtime"),
        ("CpuShares", "cpu-shares"),
        ("NanoCpus", "cpus"),
        ("KernelMemory", "kernel-memory"),
        ("Memory", "memory"),
        ("MemoryReservation", "memory-reservation"),
        ("MemorySwap", "memory-swap"),
    ] {
        body.push((key.to_owned(), matches.int(flag).into()));
    }
    body.push(("CpusetCpus".into(), matches.text("cpuset-cpus").into()));
    body.push(("CpusetMems".into(), matches.text("cpuset-mems").into()));
    // Nothing is no change; no limit is -1.
    if matches.int("pids-limit") != 0 {
        body.push(("PidsLimit".into(), matches.int("pids-limit").into()));
    }
    body.push(("RestartPolicy".into(), object! { "Name": restart, "MaximumRetryCount": retries }));
    let body = Json::Object(body);
    let client = app.client()?;
    let mut errors = Vec::new();
    for name in &matches.words {
        match client.post(format!("/containers/{}/update", crate::remote::escape(name))).body(&body).json().await {
            Ok(answer) => {
                app.line(name)?;
                answer.texts("Warnings").iter().for_each(|warning| app.warn(warning));
            }
            Err(error) => errors.push(error.text),
        }
    }
    if errors.is_empty() { Ok(0) } else { Err(CliError::new(errors.join("\n"))) }
}

async fn prune(app: &App, matches: &Matches) -> Outcome {
    if !matches.truth("force") && !app.confirm("WARNING! This will remove all stopped containers.\nAre you sure you want to continue?")? {
        return Ok(0);
    }
    let done = prune_containers(app, matches.list("filter")).await?;
    app.line(&format!("Total reclaimed space: {}", size(done)))?;
    Ok(0)
}

/// Removes what does not run, lists it, and gives the bytes.
pub(super) async fn prune_containers(app: &App, filters: &[String]) -> Outcome<f64> {
    let done = app.client()?.post("/containers/prune").filters(filters).json().await?;
    let removed = done.texts("ContainersDeleted");
    if !removed.is_empty() {
        app.print(&format!("Deleted Containers:\n{}\n\n", removed.join("\n")))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
    Ok(done.int("SpaceReclaimed") as f64)
}
