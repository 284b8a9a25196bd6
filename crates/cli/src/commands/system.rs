//! `version`, `info`, `events`, `system dial-stdio`, `completion`.

use http_body_util::BodyExt as _;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_gotext::template::Template;
use sampan_gotext::units::binary_size;
use sampan_gotext::{Record, Value};
use sampan_wire::{Json, object};

use super::FORMAT;
use super::output::moment;
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::error::{CliError, Outcome};
use crate::format::value;

/// What clients compare versions with.
pub(crate) const DOCKER_VERSION: &str = "28.5.2+sampan";

const EVENTS_FORMAT: Flag = Flag::new("format", Kind::Text, "How to show it: 'json', or a Go template");

pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["version"],
        usage: "[OPTIONS]",
        about: "Show versions of the client and the engine",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[FORMAT]],
        interspersed: true,
        run: |app, matches| Box::pin(version(app, matches)),
    },
    Command {
        paths: &["system info", "info"],
        usage: "[OPTIONS]",
        about: "Show what the engine is and has",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[FORMAT]],
        interspersed: true,
        run: |app, matches| Box::pin(info(app, matches)),
    },
    Command {
        paths: &["system events", "events"],
        usage: "[OPTIONS]",
        about: "Show what happens as it happens",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("filter", Kind::Filter, "Show only what fits: container=, event=, image=, label=, type= …").short('f'),
            EVENTS_FORMAT,
            Flag::new("since", Kind::Text, "Begin with what happened since a time or a span"),
            Flag::new("until", Kind::Text, "End at a time or a span"),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(events(app, matches)),
    },
    Command {
        paths: &["system dial-stdio"],
        usage: "",
        about: "Connect standard input and output with the engine's socket",
        more: "Used at the other end of ssh:// hosts.",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[],
        interspersed: true,
        run: |app, _| Box::pin(dial_stdio(app)),
    },
    Command {
        paths: &["completion"],
        usage: "bash|zsh|fish",
        about: "Print the completion script of a shell",
        more: "Load it with, for instance:  source <(PROGRAM completion bash)",
        words: Words::Exactly(1),
        things: Things::Shells,
        flags: &[],
        interspersed: true,
        run: |app, matches| Box::pin(completion(app, matches)),
    },
];

fn template(text: &str) -> Outcome<Template> {
    Template::parse(&text.replace("\\t", "\t").replace("\\n", "\n"))
        .map_err(|error| CliError::new(format!("template parsing error: {error}")).code(64))
}

async fn version(app: &App, matches: &Matches) -> Outcome {
    let parsed = match matches.text("format") {
        "" | "json" => None,
        text => Some(template(text)?),
    };
    let (context, _) = app.context()?;
    let client = app.client()?;
    let server = client.get("/version").json().await;
    let api = client.server().await.map_or_else(|_| crate::remote::NEWEST.to_owned(), |server| server.api.clone());
    let ours = object! {
        "Version": DOCKER_VERSION,
        "ApiVersion": api,
        "DefaultAPIVersion": crate::remote::NEWEST,
        "GitCommit": env!("CARGO_PKG_VERSION"),
        "GoVersion": "none",
        "Os": std::env::consts::OS,
        "Arch": architecture(),
        "BuildTime": "",
        "Context": context,
    };
    let json = object! { "Client": ours, "Server": server.as_ref().map_or(Json::NULL, Clone::clone) };
    let text = match parsed {
        None if matches.text("format") == "json" => json.print(),
        None => versions(&json),
        Some(template) => {
            let fail = |error: sampan_gotext::template::TemplateError| CliError::new(error.0);
            template.named("version").execute(&with_go_names(&json)).map_err(fail)?
        }
    };
    app.line(text.trim_end_matches('\n'))?;
    server.map(|_| 0)
}

/// Go's names of some fields differ from those of the JSON.
fn with_go_names(json: &Json) -> Value {
    let named = |key: &str| {
        let part = json.get(key);
        if part.is_null() {
            return Value::Nil;
        }
        let Value::Record(record) = value(part) else { return Value::Nil };
        let mut record = (*record).clone();
        for (from, to) in [("ApiVersion", "APIVersion"), ("MinAPIVersion", "MinAPIVersion")] {
            if let Some(found) = record.get(from).cloned() {
                record.hidden.push((to.to_owned(), found));
            }
        }
        Value::from(record)
    };
    let mut record = Record::new("system.versionInfo");
    record.fields = vec![("Client".to_owned(), named("Client")), ("Server".to_owned(), named("Server"))];
    let server = !json.get("Server").is_null();
    record.hidden.push(("ServerOK".into(), server.into()));
    Value::from(record)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn versions(json: &Json) -> String {
    let client = json.get("Client");
    let mut out = "Client:\n".to_owned();
    let row = |out: &mut String, indent: &str, name: &str, text: &str| {
        out.push_str(&format!("{indent}{:width$}{text}\n", format!("{name}:"), width = 20 - indent.len()))
    };
    let api = match (client.text("ApiVersion"), client.text("DefaultAPIVersion")) {
        (api, default) if api == default => api.to_owned(),
        (api, default) => format!("{api} (downgraded from {default})"),
    };
    row(&mut out, " ", "Version", client.text("Version"));
    row(&mut out, " ", "API version", &api);
    row(&mut out, " ", "sampan", client.text("GitCommit"));
    row(&mut out, " ", "OS/Arch", &format!("{}/{}", client.text("Os"), client.text("Arch")));
    row(&mut out, " ", "Context", client.text("Context"));
    let server = json.get("Server");
    if server.is_null() {
        return out;
    }
    let platform = server.at(&["Platform", "Name"]).as_text();
    out.push_str(&format!("\nServer:{}{platform}\n", if platform.is_empty() { "" } else { " " }));
    for component in server.get("Components").items() {
        out.push_str(&format!(" {}:\n", component.text("Name")));
        let details = component.get("Details");
        row(&mut out, "  ", "Version", component.text("Version"));
        if component.text("Name") == "Engine" {
            row(
                &mut out,
                "  ",
                "API version",
                &format!("{} (minimum version {})", details.text("ApiVersion"), details.text("MinAPIVersion")),
            );
            row(&mut out, "  ", "Go version", details.text("GoVersion"));
            row(&mut out, "  ", "Git commit", details.text("GitCommit"));
            row(&mut out, "  ", "Built", details.text("BuildTime"));
            row(&mut out, "  ", "OS/Arch", &format!("{}/{}", details.text("Os"), details.text("Arch")));
            row(&mut out, "  ", "Experimental", details.text("Experimental"));
        } else {
            row(&mut out, "  ", "GitCommit", details.text("GitCommit"));
        }
    }
    out
}

async fn info(app: &App, matches: &Matches) -> Outcome {
    let parsed = match matches.text("format") {
        "" | "json" => None,
        text => Some(template(text)?),
    };
    let (context, _) = app.context()?;
    let found = app.client()?.get("/info").json().await;
    let plugins = crate::plugins::list(app);
    let client = object! {
        "Debug": app.global.truth("debug"),
        "Version": DOCKER_VERSION,
        "GitCommit": env!("CARGO_PKG_VERSION"),
        "GoVersion": "none",
        "Os": std::env::consts::OS,
        "Arch": architecture(),
        "BuildTime": "",
        "Context": context,
        "Plugins": Json::list(plugins.iter().map(|plugin| object! { "Name": plugin.name.as_str(), "Path": plugin.path.display().to_string() })),
        "Warnings": Json::NULL,
    };
    let mut json = found.clone().unwrap_or(Json::Object(Vec::new()));
    if let Json::Object(pairs) = &mut json {
        if let Err(error) = &found {
            pairs.push(("ServerErrors".into(), Json::list([error.text.as_str()])));
        }
        pairs.push(("ClientInfo".into(), client));
    }
    match parsed {
        None if matches.text("format") == "json" => app.line(&json.print())?,
        None => {
            app.print(&described(&json, found.is_ok()))?;
            for warning in json.texts("Warnings") {
                app.warn(warning);
            }
        }
        Some(template) => app.line(&template.execute(&value(&json))?)?,
    }
    found.map(|_| 0)
}

/// What `info` prints.
fn described(json: &Json, server: bool) -> String {
    let client = json.get("ClientInfo");
    let mut out = format!(
        "Client:\n Version:    {}\n Context:    {}\n Debug Mode: {}\n",
        client.text("Version"),
        client.text("Context"),
        client.truth("Debug")
    );
    let plugins = client.get("Plugins").items();
    if !plugins.is_empty() {
        out.push_str(" Plugins:\n");
        for plugin in plugins {
            out.push_str(&format!("  {}\n    Path:     {}\n", plugin.text("Name"), plugin.text("Path")));
        }
    }
    out.push_str("\nServer:\n");
    if server {
        engine(json, &mut out);
    }
    out
}

fn engine(json: &Json, out: &mut String) {
    let mut line = |name: &str, text: &str| {
        if !text.is_empty() {
            out.push_str(&format!(" {name}: {text}\n"));
        }
    };
    line("Containers", &json.int("Containers").to_string());
    for (name, key) in [(" Running", "ContainersRunning"), (" Paused", "ContainersPaused"), (" Stopped", "ContainersStopped")] {
        line(name, &json.int(key).to_string());
    }
    line("Images", &json.int("Images").to_string());
    line("Server Version", json.text("ServerVersion"));
    line("Storage Driver", json.text("Driver"));
    for pair in json.get("DriverStatus").items() {
        if let [name, text] = pair.items() {
            line(&format!(" {}", name.as_text()), text.as_text());
        }
    }
    line("Logging Driver", json.text("LoggingDriver"));
    line("Cgroup Driver", json.text("CgroupDriver"));
    line("Cgroup Version", json.text("CgroupVersion"));
    let plugins = |kind: &str| json.get("Plugins").texts(kind).join(" ");
    out.push_str(&format!(" Plugins:\n  Volume: {}\n  Network: {}\n  Log: {}\n", plugins("Volume"), plugins("Network"), plugins("Log")));
    let folders = json.texts("CDISpecDirs");
    if !folders.is_empty() {
        out.push_str(&format!(" CDI spec directories:\n{}", folders.iter().map(|folder| format!("  {folder}\n")).collect::<String>()));
    }
    let mut line = |name: &str, text: &str| {
        if !text.is_empty() {
            out.push_str(&format!(" {name}: {text}\n"));
        }
    };
    line("Swarm", json.at(&["Swarm", "LocalNodeState"]).as_text());
    let runtimes = json.get("Runtimes").entries().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
    line("Runtimes", &runtimes);
    line("Default Runtime", json.text("DefaultRuntime"));
    line("Init Binary", json.text("InitBinary"));
    for (name, key) in [("containerd version", "ContainerdCommit"), ("runc version", "RuncCommit"), ("init version", "InitCommit")] {
        line(name, json.get(key).text("ID"));
    }
    let security = json.texts("SecurityOptions");
    if !security.is_empty() {
        out.push_str(" Security Options:\n");
        for option in security {
            let mut fields = option.split(',');
            let name = fields.next().unwrap_or_default();
            out.push_str(&format!("  {}\n", name.strip_prefix("name=").unwrap_or(name)));
            for field in fields {
                let (key, text) = field.split_once('=').unwrap_or((field, ""));
                let key = key[..1].to_uppercase() + &key[1..];
                out.push_str(&format!("   {key}: {text}\n"));
            }
        }
    }
    machine(json, out);
}

#[expect(clippy::cast_precision_loss, reason = "sizes for people")]
fn machine(json: &Json, out: &mut String) {
    let mut line = |name: &str, text: &str| {
        if !text.is_empty() {
            out.push_str(&format!(" {name}: {text}\n"));
        }
    };
    line("Kernel Version", json.text("KernelVersion"));
    line("Operating System", json.text("OperatingSystem"));
    line("OSType", json.text("OSType"));
    line("Architecture", json.text("Architecture"));
    line("CPUs", &json.int("NCPU").to_string());
    line("Total Memory", &binary_size(json.int("MemTotal") as f64));
    line("Name", json.text("Name"));
    line("ID", json.text("ID"));
    line("Docker Root Dir", json.text("DockerRootDir"));
    line("Debug Mode", if json.truth("Debug") { "true" } else { "false" });
    line("HTTP Proxy", json.text("HttpProxy"));
    line("HTTPS Proxy", json.text("HttpsProxy"));
    line("No Proxy", json.text("NoProxy"));
    line("Experimental", if json.truth("ExperimentalBuild") { "true" } else { "false" });
    let registry = json.get("RegistryConfig");
    let named = registry
        .get("IndexConfigs")
        .entries()
        .iter()
        .filter(|(_, index)| index.get("Secure").print() == "false")
        .map(|(name, _)| name.as_str());
    let insecure: Vec<&str> = named.chain(registry.texts("InsecureRegistryCIDRs")).collect();
    if !insecure.is_empty() {
        out.push_str(&format!(" Insecure Registries:\n{}", insecure.iter().map(|name| format!("  {name}\n")).collect::<String>()));
    }
    let mirrors = registry.texts("Mirrors");
    if !mirrors.is_empty() {
        out.push_str(&format!(" Registry Mirrors:\n{}", mirrors.iter().map(|name| format!("  {name}\n")).collect::<String>()));
    }
    out.push_str(&format!(" Live Restore Enabled: {}\n", json.truth("LiveRestoreEnabled")));
    let license = json.text("ProductLicense");
    if !license.is_empty() {
        out.push_str(&format!(" Product License: {license}\n"));
    }
    out.push('\n');
}

async fn events(app: &App, matches: &Matches) -> Outcome {
    let parsed = match matches.text("format") {
        "" => None,
        "json" => Some(template("{{json .}}")?),
        text => Some(
            template(text)
                .map_err(|error| CliError { text: error.text.replacen("template parsing error", "Error parsing format", 1), ..error })?,
        ),
    };
    // The engine's own complaint has no flag in it, and neither has ours.
    let time = |name: &str| {
        moment(name, matches.text(name)).map_err(|error| {
            let text = error.text.strip_prefix(&format!("invalid value for \"{name}\": ")).unwrap_or(&error.text).to_owned();
            CliError { text, ..error }
        })
    };
    let call = app.client()?.get("/events").filters(matches.list("filter"));
    let call = call.query_some("since", &time("since")?).query_some("until", &time("until")?);
    let mut body = call.send().await?.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { break };
        let Ok(bytes) = frame.into_data() else { continue };
        text.extend_from_slice(&bytes);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let event = Json::parse(&line).map_err(|error| CliError::new(format!("an event is no JSON: {error}")))?;
            match &parsed {
                None => app.line(&event_line(&event))?,
                Some(template) => app.line(&template.execute(&event_value(&event))?)?,
            }
        }
    }
    Ok(0)
}

/// An event for templates: its attributes are a map, and the old names are there.
fn event_value(event: &Json) -> Value {
    let Value::Record(record) = value(event) else { return Value::Nil };
    let mut record = (*record).clone();
    let attributes = crate::format::plain(event.at(&["Actor", "Attributes"]));
    let actor = Record::new("events.Actor").with("ID", event.at(&["Actor", "ID"]).as_text()).with("Attributes", attributes);
    for (name, slot) in &mut record.fields {
        if name == "Actor" {
            *slot = Value::from(actor.clone());
        }
    }
    for (name, key) in
        [("Status", "status"), ("ID", "id"), ("From", "from"), ("Scope", "scope"), ("Time", "time"), ("TimeNano", "timeNano")]
    {
        let found = record.get(key).cloned().unwrap_or(Value::from(""));
        record.hidden.push((name.to_owned(), found));
    }
    Value::from(record)
}

/// `2024-01-02T03:04:05.000000006Z container start ID (image=box, name=web)`.
fn event_line(event: &Json) -> String {
    let nanoseconds = event.int("timeNano");
    let moment = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    let when = moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string();
    let when = when.strip_suffix("+00:00").map_or(when.clone(), |when| format!("{when}Z"));
    let actor = event.get("Actor");
    let mut attributes: Vec<String> =
        actor.get("Attributes").entries().iter().map(|(key, text)| format!("{key}={}", text.as_text())).collect();
    attributes.sort();
    let attributes = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{when} {} {} {}{attributes}", event.text("Type"), event.text("Action"), actor.text("ID"))
}

async fn dial_stdio(app: &App) -> Outcome {
    let client = app.client()?;
    client.server().await?;
    let connection = client.endpoint().dial().await.map_err(CliError::from)?;
    let (mut from, mut to) = tokio::io::split(connection);
    let input = tokio::spawn(async move {
        let mut stdin = tokio::io::stdin();
        drop(tokio::io::copy(&mut stdin, &mut to).await);
        drop(tokio::io::AsyncWriteExt::shutdown(&mut to).await);
    });
    let mut stdout = tokio::io::stdout();
    tokio::io::copy(&mut from, &mut stdout).await?;
    tokio::io::AsyncWriteExt::flush(&mut stdout).await?;
    input.abort();
    Ok(0)
}

async fn completion(app: &App, matches: &Matches) -> Outcome {
    let shell = &matches.words[0];
    match sampan_ui::complete::script(shell, app.program()) {
        Some(script) => app.print(&script).map(|()| 0),
        None => Err(CliError::unsupported(&format!("completion for {shell}"), "there are scripts for bash, zsh, fish and powershell")),
    }
}
