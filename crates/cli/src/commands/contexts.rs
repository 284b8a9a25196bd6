//! `context`: named ways to engines.

use std::io::{Read as _, Write as _};

use sampan_archive::tar::{Header, Kind as EntryKind, Reader, Writer};
use sampan_gotext::Record;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_gotext::template::Template;
use sampan_wire::Json;

use super::{FORMAT, FORMAT_TABLE};
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::config::{Config, Context};
use crate::error::{CliError, Outcome};
use crate::format::{Listing, plain, pretty};

const DESCRIPTION: Flag = Flag::new("description", Kind::Text, "Description of the context");
const DOCKER: Flag = Flag::new("docker", Kind::Other("stringToString"), "Where the engine is (host=tcp://myserver:2375)").default("[]");

const fn words(
    paths: &'static [&'static str],
    usage: &'static str,
    about: &'static str,
    words: Words,
    flags: &'static [&'static [Flag]],
    run: for<'a> fn(&'a App, &'a Matches) -> crate::command::Running<'a>,
) -> Command {
    Command { paths, usage, about, more: "", words, things: Things::Contexts, flags, interspersed: true, run }
}

pub(super) const COMMANDS: &[Command] = &[
    words(
        &["context create"],
        "[OPTIONS] CONTEXT",
        "Create a context",
        Words::Exactly(1),
        &[&[DESCRIPTION, DOCKER, Flag::new("from", Kind::Text, "Take everything else from another context")]],
        |app, matches| Box::pin(create(app, matches)),
    ),
    words(
        &["context ls", "context list"],
        "[OPTIONS]",
        "List contexts",
        Words::Exactly(0),
        &[&[FORMAT_TABLE, Flag::new("quiet", Kind::Bool, "Show names only").short('q')]],
        |app, matches| Box::pin(list(app, matches)),
    ),
    words(
        &["context inspect"],
        "[OPTIONS] [CONTEXT] [CONTEXT...]",
        "Show all that is known about contexts",
        Words::Any,
        &[&[FORMAT]],
        |app, matches| Box::pin(inspect(app, matches)),
    ),
    words(
        &["context rm", "context remove"],
        "CONTEXT [CONTEXT...]",
        "Remove contexts",
        Words::AtLeast(1),
        &[&[Flag::new("force", Kind::Bool, "Remove the context in use, too").short('f')]],
        |app, matches| Box::pin(remove(app, matches)),
    ),
    words(&["context show"], "", "Print the name of the context in use", Words::Exactly(0), &[], |app, _| Box::pin(show(app))),
    words(&["context update"], "[OPTIONS] CONTEXT", "Change a context", Words::Exactly(1), &[&[DESCRIPTION, DOCKER]], |app, matches| {
        Box::pin(update(app, matches))
    }),
    words(&["context use"], "CONTEXT", "Use a context from now on", Words::Exactly(1), &[], |app, matches| Box::pin(select(app, matches))),
    words(
        &["context export"],
        "[OPTIONS] CONTEXT [FILE|-]",
        "Write a context to a tar archive",
        Words::Between(1, 2),
        &[],
        |app, matches| Box::pin(export(app, matches)),
    ),
    words(&["context import"], "CONTEXT FILE|-", "Read a context from a tar archive", Words::Exactly(2), &[], |app, matches| {
        Box::pin(import(app, matches))
    }),
];

/// Names are letters, digits and a few marks.
fn check_name(name: &str) -> Outcome<()> {
    if name == "default" {
        return Err(CliError::new("\"default\" is a reserved context name"));
    }
    let valid = name.len() > 1
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '+' | '-'));
    if valid {
        return Ok(());
    }
    Err(CliError::new(format!("context name \"{name}\" is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\"")))
}

/// Host of `--docker`, or that of the context named in it.
fn endpoint(app: &App, matches: &Matches) -> Outcome<Option<(String, bool)>> {
    if !matches.given("docker") {
        return Ok(None);
    }
    let (mut host, mut skip) = (String::new(), false);
    for field in matches.list("docker").iter().flat_map(|list| list.split(',')) {
        match field.split_once('=') {
            Some(("host", value)) => value.clone_into(&mut host),
            Some(("from", name)) => host = host_of(app, name)?,
            Some(("skip-tls-verify", value)) => skip = value == "true",
            Some(("ca" | "cert" | "key", _)) => return Err(CliError::unsupported("--docker with certificates", "TLS comes later")),
            Some((key, _)) => {
                return Err(CliError::new(format!("unable to create docker endpoint config: unrecognized config key: {key}")));
            }
            None => return Err(CliError::new(format!("{field} must be formatted as key=value"))),
        }
    }
    crate::remote::Endpoint::parse(&host)
        .map_err(|error| CliError::new(format!("unable to create docker endpoint config: {}", error.text)))?;
    Ok(Some((host, skip)))
}

fn host_of(app: &App, name: &str) -> Outcome<String> {
    if name == "default" { Ok(default_host(app)) } else { Ok(app.config.context(name)?.host().to_owned()) }
}

/// The address of the context `default`: that of the environment.
fn default_host(app: &App) -> String {
    app.environment.host.clone().unwrap_or_else(|| app.default_host())
}

/// The name of the context in use.
fn current(app: &App) -> String {
    app.context().map_or_else(|_| app.config.text("currentContext").to_owned(), |(name, _)| name)
}

async fn create(app: &App, matches: &Matches) -> Outcome {
    let name = &matches.words[0];
    check_name(name)?;
    if app.config.context(name).is_ok() {
        return Err(CliError::new(format!("context \"{name}\" already exists")));
    }
    let from = if matches.given("from") { Some(matches.text("from")) } else { None };
    let (host, skip) = match (endpoint(app, matches)?, from) {
        (Some(_), Some(_)) => return Err(CliError::new("cannot use --docker flag when --from is set")),
        (Some(found), None) => found,
        (None, Some(from)) => (host_of(app, from)?, false),
        (None, None) => (app.context()?.1, false),
    };
    app.config.put_context(&Context::new(name, matches.text("description"), &host, skip))?;
    app.line(name)?;
    app.warn(&format!("Successfully created context \"{name}\""));
    Ok(0)
}

async fn update(app: &App, matches: &Matches) -> Outcome {
    let name = &matches.words[0];
    check_name(name)?;
    let old = app.config.context(name)?;
    let (host, skip) = endpoint(app, matches)?.unwrap_or_else(|| (old.host().to_owned(), false));
    let description = if matches.given("description") { matches.text("description") } else { old.description() };
    app.config.put_context(&Context::new(name, description, &host, skip))?;
    app.line(name)?;
    app.warn(&format!("Successfully updated context \"{name}\""));
    Ok(0)
}

async fn list(app: &App, matches: &Matches) -> Outcome {
    let current = current(app);
    let row = |name: &str, description: &str, host: &str| {
        let mut row = Record::new("")
            .with("Current", name == current)
            .with("Description", description)
            .with("DockerEndpoint", host)
            .with("Error", "")
            .with("Name", name);
        row.hidden.push(("Shown".into(), if name == current { format!("{name} *") } else { name.to_owned() }.into()));
        row
    };
    let mut rows = vec![row("default", "Current DOCKER_HOST based configuration", &default_host(app))];
    rows.extend(app.config.contexts().iter().map(|context| row(&context.name, context.description(), context.host())));
    if matches.truth("quiet") {
        for row in rows {
            app.line(&row.get("Name").map(sampan_gotext::print).unwrap_or_default())?;
        }
        return Ok(0);
    }
    let listing = Listing {
        format: matches.text("format"),
        table: "{{.Shown}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
        raw: "",
        heads: &[
            ("Name", "NAME"),
            ("Shown", "NAME"),
            ("Description", "DESCRIPTION"),
            ("DockerEndpoint", "DOCKER ENDPOINT"),
            ("Error", "ERROR"),
            ("Current", "CURRENT"),
        ],
        type_name: "*formatter.clientContextContext",
    };
    app.print(&listing.show(&rows)?)?;
    if app.environment.host.is_some() {
        app.warn("Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.");
    }
    Ok(0)
}

async fn inspect(app: &App, matches: &Matches) -> Outcome {
    let names = if matches.words.is_empty() { vec![current(app)] } else { matches.words.clone() };
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for name in &names {
        let context = if name == "default" { Ok(Context::new("default", "", &default_host(app), false)) } else { app.config.context(name) };
        match context {
            Ok(context) => found.push(described(&app.config, &context)),
            Err(error) => {
                errors.push(error.text);
                break;
            }
        }
    }
    match matches.text("format") {
        "" => app.line(&pretty(&Json::Array(found), "    "))?,
        "json" => app.line(&Json::Array(found).print())?,
        text => {
            let template = Template::parse(text).map_err(|error| CliError::new(format!("template parsing error: {error}")))?;
            for context in &found {
                app.line(&template.execute(&plain(context))?)?;
            }
        }
    }
    if errors.is_empty() { Ok(0) } else { Err(CliError::new(errors.join("\n"))) }
}

fn described(config: &Config, context: &Context) -> Json {
    let (meta, tls) = if context.name == "default" {
        ("<IN MEMORY>".to_owned(), "<IN MEMORY>".to_owned())
    } else {
        let folder = config.tls(&context.name);
        (folder.display().to_string().replacen("/contexts/tls/", "/contexts/meta/", 1), folder.display().to_string())
    };
    let endpoint = context.value.pointer("/Endpoints/docker").cloned().unwrap_or_default();
    let host = endpoint.get("Host").and_then(|host| host.as_str()).unwrap_or_default().to_owned();
    let skip = endpoint.get("SkipTLSVerify").and_then(serde_json::Value::as_bool).unwrap_or_default();
    sampan_wire::object! {
        "Name": context.name.as_str(),
        "Metadata": context.value.get("Metadata").cloned().unwrap_or_default(),
        "Endpoints": sampan_wire::object! { "docker": sampan_wire::object! { "Host": host, "SkipTLSVerify": skip } },
        "TLSMaterial": Json::Object(Vec::new()),
        "Storage": sampan_wire::object! { "MetadataPath": meta, "TLSPath": tls },
    }
}

async fn remove(app: &App, matches: &Matches) -> Outcome {
    let force = matches.truth("force");
    let mut errors = Vec::new();
    for name in &matches.words {
        let removed = (|| {
            if name == "default" {
                return Err(CliError::new("context \"default\" cannot be removed"));
            }
            if !force {
                app.config.context(name)?;
            }
            if app.config.text("currentContext") == name {
                if !force {
                    return Err(CliError::new(format!("context \"{name}\" is in use, set -f flag to force remove")));
                }
                app.config.clone().set("currentContext", None)?;
            }
            app.config.remove_context(name)
        })();
        match removed {
            Ok(()) => app.line(name)?,
            Err(error) => errors.push(error.text),
        }
    }
    if errors.is_empty() { Ok(0) } else { Err(CliError::new(errors.join("\n"))) }
}

async fn show(app: &App) -> Outcome {
    app.line(&current(app))?;
    Ok(0)
}

async fn select(app: &App, matches: &Matches) -> Outcome {
    let name = &matches.words[0];
    if name != "default" {
        app.config.context(name)?;
    }
    let value = if name == "default" { None } else { Some(name.as_str().into()) };
    app.config.clone().set("currentContext", value)?;
    app.line(name)?;
    app.warn(&format!("Current context is now \"{name}\""));
    if app.environment.host.is_some() && name != "default" {
        app.warn(&format!("Warning: DOCKER_HOST environment variable overrides the active context. To use \"{name}\", either set the global --context flag, or unset DOCKER_HOST environment variable."));
    }
    Ok(0)
}

async fn export(app: &App, matches: &Matches) -> Outcome {
    let name = &matches.words[0];
    let context = app.config.context(name)?;
    let target = matches.words.get(1).cloned().unwrap_or_else(|| format!("{name}.dockercontext"));
    let text = context.value.to_string();
    let mut writer = Writer::new(Vec::new());
    let mut header = Header::new(EntryKind::File, "meta.json");
    header.size = text.len() as u64;
    writer.append(&header, &mut text.as_bytes())?;
    writer.append(&Header::new(EntryKind::Directory, "tls"), &mut std::io::empty())?;
    let archive = writer.finish()?;
    if target == "-" {
        let mut out = std::io::stdout().lock();
        out.write_all(&archive)?;
        out.flush()?;
        return Ok(0);
    }
    let mut file = std::fs::File::create_new(&target).map_err(|error| CliError::file("open", &target, &error))?;
    file.write_all(&archive)?;
    app.line(&format!("Written file \"{target}\""))?;
    Ok(0)
}

async fn import(app: &App, matches: &Matches) -> Outcome {
    let (name, source) = (&matches.words[0], &matches.words[1]);
    check_name(name)?;
    if app.config.context(name).is_ok() {
        return Err(CliError::new(format!("context \"{name}\" already exists")));
    }
    let mut archive = Vec::new();
    let input: Box<dyn std::io::Read> = if source == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(source).map_err(|error| CliError::file("open", source, &error))?)
    };
    input.take(10 << 20).read_to_end(&mut archive)?;
    let mut reader = Reader::new(&archive[..]);
    let bad = |error: &dyn std::fmt::Display| CliError::new(format!("cannot read {source}: {error}"));
    while let Some(header) = reader.next_entry().map_err(|error| bad(&error))? {
        if header.path != b"meta.json" {
            continue;
        }
        let mut text = Vec::new();
        reader.read_to_end(&mut text)?;
        let mut value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| bad(&error))?;
        let Some(map) = value.as_object_mut() else { return Err(bad(&"meta.json holds no object")) };
        map.insert("Name".into(), name.as_str().into());
        app.config.put_context(&Context { name: name.clone(), value })?;
        app.line(name)?;
        app.warn(&format!("Successfully imported context \"{name}\""));
        return Ok(0);
    }
    Err(CliError::new("invalid context: no metadata found"))
}
