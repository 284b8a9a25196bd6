//! `inspect` of everything.

use std::sync::Arc;

use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_gotext::template::Template;
use sampan_gotext::{Record, Value};
use sampan_wire::Json;

use super::FORMAT;
use super::images::{path, platform};
use crate::app::App;
use crate::command::{Command, Running, Things, Words};
use crate::error::{CliError, Outcome};
use crate::format::{plain, pretty};
use crate::remote::{Client, escape};

/// A thing that can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kinds {
    Container,
    Image,
    Network,
    Volume,
}

const fn one(
    paths: &'static [&'static str],
    usage: &'static str,
    about: &'static str,
    things: Things,
    flags: &'static [&'static [Flag]],
    run: for<'a> fn(&'a App, &'a Matches) -> Running<'a>,
) -> Command {
    Command { paths, usage, about, more: "", words: Words::AtLeast(1), things, flags, interspersed: true, run }
}

const SIZE: Flag = Flag::new("size", Kind::Bool, "Show sizes of containers").short('s');

pub(super) const COMMANDS: &[Command] = &[
    one(
        &["inspect"],
        "[OPTIONS] NAME|ID [NAME|ID...]",
        "Show all that is known about objects",
        Things::Containers,
        &[&[FORMAT, SIZE, Flag::new("type", Kind::Text, "Look among objects of a kind only: container, image, network, volume")]],
        |app, matches| Box::pin(any(app, matches)),
    ),
    one(
        &["container inspect"],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Show all that is known about containers",
        Things::Containers,
        &[&[FORMAT, SIZE]],
        |app, matches| Box::pin(of(app, matches, Kinds::Container)),
    ),
    one(
        &["image inspect"],
        "[OPTIONS] IMAGE [IMAGE...]",
        "Show all that is known about images",
        Things::Images,
        &[&[FORMAT, Flag::new("platform", Kind::Text, "Show a platform of the image, as os[/arch[/variant]]")]],
        |app, matches| Box::pin(of(app, matches, Kinds::Image)),
    ),
    one(
        &["network inspect"],
        "[OPTIONS] NETWORK [NETWORK...]",
        "Show all that is known about networks",
        Things::Networks,
        &[&[FORMAT, Flag::new("verbose", Kind::Bool, "Show more for finding faults").short('v')]],
        |app, matches| Box::pin(of(app, matches, Kinds::Network)),
    ),
    one(
        &["volume inspect"],
        "[OPTIONS] VOLUME [VOLUME...]",
        "Show all that is known about volumes",
        Things::Volumes,
        &[&[FORMAT]],
        |app, matches| Box::pin(of(app, matches, Kinds::Volume)),
    ),
];

async fn find(client: &Client, matches: &Matches, kind: Kinds, name: &str) -> Outcome<Json> {
    let call = match kind {
        Kinds::Container => client.get(format!("/containers/{}/json", escape(name))).query_if("size", matches.truth("size")),
        Kinds::Image => {
            // Only `image inspect` knows platforms.
            let platform = if matches.given("platform") { platform(matches)? } else { String::new() };
            client.get(format!("/images/{}/json", path(name))).query_some("platform", &platform)
        }
        Kinds::Network => client.get(format!("/networks/{}", escape(name))).query_if("verbose", matches.truth("verbose")),
        Kinds::Volume => client.get(format!("/volumes/{}", escape(name))),
    };
    call.json().await
}

async fn of(app: &App, matches: &Matches, kind: Kinds) -> Outcome {
    let client = app.client()?;
    show(app, matches, async |name| find(client, matches, kind, name).await).await
}

async fn any(app: &App, matches: &Matches) -> Outcome {
    const KNOWN: [(&str, Kinds); 4] =
        [("container", Kinds::Container), ("image", Kinds::Image), ("network", Kinds::Network), ("volume", Kinds::Volume)];
    const ELSEWHERE: [&str; 6] = ["config", "node", "plugin", "secret", "service", "task"];
    let client = app.client()?;
    let wanted = matches.text("type");
    if ELSEWHERE.contains(&wanted) {
        return Err(CliError::unsupported(&format!("--type {wanted}"), "there is no swarm and there are no plugins"));
    }
    if matches.given("type") && !KNOWN.iter().any(|(name, _)| *name == wanted) {
        let quoted = sampan_gotext::quote(wanted);
        return Err(CliError::new(if wanted.is_empty() {
            "type is empty: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"".to_owned()
        } else {
            format!(
                "unknown type: {quoted}: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\""
            )
        }));
    }
    show(app, matches, async |name| {
        for (kind_name, kind) in KNOWN {
            if !wanted.is_empty() && wanted != kind_name {
                continue;
            }
            match find(client, matches, kind, name).await {
                // The engine says "not found", or that this cannot be such a name: it may be one of another kind.
                Err(error) if wanted.is_empty() && (error.status == 404 || error.status == 400) => {}
                other => return other,
            }
        }
        Err(CliError::new(format!("Error: No such object: {name}")))
    })
    .await
}

/// Shows what is found of each name; errors come after.
async fn show(app: &App, matches: &Matches, find: impl AsyncFn(&str) -> Outcome<Json>) -> Outcome {
    let format = matches.text("format");
    let template = match format {
        "" | "json" => None,
        _ => Some(
            Template::parse(&format.replace("\\t", "\t").replace("\\n", "\n"))
                .map_err(|error| CliError::new(format!("template parsing error: {error}")).code(64))?,
        ),
    };
    let mut errors = Vec::new();
    let mut found = Vec::new();
    for name in &matches.words {
        match find(name).await {
            Ok(json) => match &template {
                None => found.push(json),
                Some(template) => match fill(template, &json) {
                    Ok(text) => app.line(&text)?,
                    Err(error) => {
                        errors.push(error);
                        break;
                    }
                },
            },
            Err(error) => {
                let connection = !error.from_engine && !error.text.starts_with("Error: No such object");
                errors.push(error.text);
                if connection {
                    break;
                }
            }
        }
    }
    if template.is_none() {
        let list = Json::Array(found);
        app.line(&if format == "json" { list.print_plain() } else { pretty(&list, "    ") })?;
    } else if found.is_empty()
        && !errors.is_empty()
        && errors.len() == matches.words.len()
        && errors.iter().all(|error| !error.starts_with("template"))
    {
        app.line("")?;
    }
    if errors.is_empty() { Ok(0) } else { Err(CliError::new(errors.join("\n"))) }
}

/// Fills a template: first as Go does with types, where fields that were left out exist, then as with plain maps.
fn fill(template: &Template, json: &Json) -> Result<String, String> {
    if let Ok(text) = template.execute(&typed("", json)) {
        return Ok(text);
    }
    template.clone().strict().execute(&plain(json)).map_err(|error| format!("template parsing error: {error}"))
}

/// Objects under these keys are maps in Go; all others are structs.
const MAPS: [&str; 21] = [
    "Labels",
    "Ports",
    "Networks",
    "ExposedPorts",
    "Volumes",
    "Sysctls",
    "Options",
    "PortBindings",
    "StorageOpt",
    "Tmpfs",
    "Annotations",
    "Data",
    "DriverOpts",
    "Containers",
    "Status",
    "AuxiliaryAddresses",
    "Config",
    "IPAMConfig",
    "Services",
    "OnBuild",
    "DriverOptsMap",
];
/// Fields that hold a list even when they are `null`.
const LISTS: [&str; 24] = [
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "Entrypoint",
    "Env",
    "OnBuild",
    "Shell",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "VolumesFrom",
    "SecurityOpt",
    "Devices",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Ulimits",
    "Mounts",
    "ExecIDs",
    "MaskedPaths",
    "ReadonlyPaths",
];
/// Other spellings of fields: those of Go's structs.
const SPELLINGS: [(&str, &str); 4] = [("Id", "ID"), ("HostIp", "HostIP"), ("GlobalIPv6Address", "GlobalIPv6Addr"), ("Os", "OS")];
/// What is left out of the JSON where it is not set, by the object that would hold it.
const LEFT_OUT: [(&str, &[&str]); 4] = [
    ("State", &["Health"]),
    ("Config", &["Healthcheck", "StopTimeout", "Shell", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal", "ExposedPorts"]),
    ("HostConfig", &["Mounts", "Init", "Tmpfs", "Sysctls", "StorageOpt", "Annotations"]),
    ("", &["SizeRw", "SizeRootFs", "GraphDriver", "Parent", "Comment"]),
];

/// The fields of a mount of a container; empty ones are left out of the JSON.
const MOUNT: [&str; 8] = ["Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation"];

/// What a struct prints where its JSON has left fields out.
fn printed(key: &str, record: &Record) -> Option<Vec<(String, Value)>> {
    if record.get("Destination").is_some() && record.get("RW").is_some() {
        return Some(MOUNT.iter().map(|name| ((*name).to_owned(), record.get(name).cloned().unwrap_or(Value::from("")))).collect());
    }
    if key == "State" && record.get("Health").is_none() {
        let mut fields = record.fields.clone();
        fields.push(("Health".to_owned(), Value::Nil));
        return Some(fields);
    }
    None
}

/// Stands for the name of a port: an unpublished one is an empty list.
const PORT: &str = "a port";

fn typed(key: &str, json: &Json) -> Value {
    match json {
        Json::Value(serde_json::Value::Null) if LISTS.contains(&key) || key == PORT => Value::List(Arc::default()),
        Json::Value(serde_json::Value::Null) if MAPS.contains(&key) => Value::Map(Arc::default()),
        Json::Value(value) => Value::from(value),
        Json::Array(list) => Value::List(Arc::new(list.iter().map(|item| typed("", item)).collect())),
        // `Config` is a struct in a container and in an image, and a map in the options of a log.
        Json::Object(pairs)
            if MAPS.contains(&key) && !(key == "Config" && json.entries().iter().any(|(name, _)| name == "Cmd" || name == "Env")) =>
        {
            let inner = if key == "Ports" { PORT } else { "" };
            Value::Map(Arc::new(pairs.iter().map(|(name, item)| (name.clone(), typed(inner, item))).collect()))
        }
        Json::Object(pairs) => {
            let mut record = Record::new("struct");
            record.fields = pairs.iter().map(|(name, item)| (name.clone(), typed(name, item))).collect();
            record.printed = printed(key, &record);
            for (from, to) in SPELLINGS {
                if let Some(value) = record.get(from).cloned() {
                    record.hidden.push((to.to_owned(), value));
                }
            }
            let left_out = LEFT_OUT.iter().filter(|(owner, _)| *owner == key).flat_map(|(_, names)| names.iter());
            for name in left_out {
                if record.get(name).is_none() && !key.is_empty() {
                    record.hidden.push(((*name).to_owned(), Value::Nil));
                }
            }
            Value::Record(Arc::new(record))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_gos_structs() {
        let json = Json::parse(
            br#"{"Id":"abc","State":{"Status":"running"},"Config":{"Cmd":["sh"],"Labels":{"b":"2","a":"1"},"Env":null},
                "Mounts":[{"Type":"bind","Source":"/a","Destination":"/b","Mode":"ro","RW":false}],
                "HostConfig":{"Binds":null,"LogConfig":{"Type":"json-file","Config":{}}},
                "NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]}}}"#,
        )
        .unwrap();
        let shown = |template: &str| fill(&Template::parse(template).unwrap(), &json);
        for (template, expected) in [
            ("{{.ID}} {{.Id}} {{.State.Status}}", "abc abc running"),
            ("{{if .State.Health}}x{{else}}none{{end}}", "none"),
            ("{{.Config.Labels}} {{.HostConfig.Binds}}", "map[a:1 b:2] []"),
            ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{.NetworkSettings.Ports}}", "map[80/tcp:[{0.0.0.0 8080}]]"),
            ("{{json .NetworkSettings.Ports}}", "{\"80/tcp\":[{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"8080\"}]}"),
            (
                "{{.Mounts}} {{json .Mounts}}",
                "[{bind  /a /b  ro false }] [{\"Type\":\"bind\",\"Source\":\"/a\",\"Destination\":\"/b\",\"Mode\":\"ro\",\"RW\":false}]",
            ),
            ("{{.State}}", "{running <nil>}"),
            ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a=1 b=2 "),
        ] {
            assert_eq!(shown(template).as_deref(), Ok(expected), "{template}");
        }
        assert_eq!(
            shown("{{.Nosuch}}").unwrap_err(),
            "template parsing error: template: :1:2: executing \"\" at <.Nosuch>: map has no entry for key \"Nosuch\""
        );
    }
}
