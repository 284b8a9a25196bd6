//! `ps`.

use sampan_gotext::Record;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_gotext::template::Template;
use sampan_gotext::units::{size_with_digits, span};
use sampan_ui::table::ellipsis;
use sampan_wire::Json;

use super::{FORMAT_TABLE, ago, short_id};
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::error::{CliError, Outcome};
use crate::format::{Listing, labels};

pub(super) const COMMANDS: &[Command] = &[Command {
    paths: &["container ls", "container list", "container ps", "ps"],
    usage: "[OPTIONS]",
    about: "List containers",
    more: "",
    words: Words::Exactly(0),
    things: Things::Nothing,
    flags: &[&[
        Flag::new("all", Kind::Bool, "Show all containers, not only those that run").short('a'),
        Flag::new("filter", Kind::Filter, "Show only what fits: status=, name=, label=, ancestor=, exited= …").short('f'),
        FORMAT_TABLE,
        Flag::new("last", Kind::Int, "Show the N containers made last").short('n').default("-1"),
        Flag::new("latest", Kind::Bool, "Show the container made last").short('l'),
        Flag::new("no-trunc", Kind::Bool, "Show everything in full"),
        Flag::new("quiet", Kind::Bool, "Show IDs only").short('q'),
        Flag::new("size", Kind::Bool, "Show sizes").short('s'),
    ]],
    interspersed: true,
    run: |app, matches| Box::pin(list(app, matches)),
}];

const TYPE_NAME: &str = "*formatter.ContainerContext";
const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{.State}}\nstatus: {{.Status}}\nnames: {{.Names}}\nlabels:{{if .Labels}} {{.Labels}}{{end}}\nports:{{if .Ports}} {{.Ports}}{{end}}\n";
const HEADS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

async fn list(app: &App, matches: &Matches) -> Outcome {
    let configured = app.config.text("psFormat");
    let format = if matches.given("format") || matches.truth("quiet") { matches.text("format") } else { configured };
    // A template that fits no container is refused before the engine is asked.
    if !matches!(format.trim(), "" | "table" | "raw" | "json") {
        check(format)?;
    }
    let mut filters = matches.list("filter").to_vec();
    let last = if matches.truth("latest") { 1 } else { matches.int("last") };
    // Sizes cost the engine work: they are asked for where they are shown.
    let size = matches.truth("size") || format.contains(".Size");
    filters.retain(|filter| !filter.is_empty());
    let call = app.client()?.get("/containers/json").query_if("all", matches.truth("all") || last > 0);
    let call = if last > 0 { call.query("limit", &last.to_string()) } else { call };
    let containers = call.query_if("size", size).filters(&filters).json().await?;
    let rows: Vec<Record> = containers.items().iter().map(|container| row(container, matches.truth("no-trunc"))).collect();
    let quiet = matches.truth("quiet");
    let table = if size { format!("{TABLE}\t{{{{.Size}}}}") } else { TABLE.to_owned() };
    let table = if quiet { "{{.ID}}".to_owned() } else { table };
    let format = if quiet && !matches.given("format") { "{{.ID}}" } else { format };
    let listing =
        Listing { format, table: &table, raw: if quiet { "container_id: {{.ID}}" } else { RAW }, heads: HEADS, type_name: TYPE_NAME };
    app.print(&listing.show(&rows)?)?;
    Ok(0)
}

/// Tries a template on an empty container.
fn check(format: &str) -> Outcome<()> {
    let parsed = Template::parse(format).map_err(|error| CliError::new(format!("failed to parse template: {error}")))?;
    let mut empty = row(&Json::NULL, false);
    TYPE_NAME.clone_into(&mut empty.type_name);
    parsed.execute(&empty.into()).map(drop).map_err(|error| CliError::new(format!("failed to execute template: {error}")))
}

fn row(container: &Json, full: bool) -> Record {
    let names: Vec<&str> = container.texts("Names").into_iter().map(|name| name.trim_start_matches('/')).collect();
    // Names of links hold a further slash; they are shown in full lists only.
    let names = names.into_iter().filter(|name| full || !name.contains('/')).collect::<Vec<_>>().join(",");
    let command = container.text("Command");
    let command = sampan_gotext::quote(&if full { command.to_owned() } else { ellipsis(command, 20) });
    let image = container.text("Image");
    let image = match image {
        "" => "<no image>".to_owned(),
        _ if full => image.to_owned(),
        // A container of an image that lost its name shows the ID.
        _ if container.text("ImageID").contains(image.trim_start_matches("sha256:")) || image.starts_with("sha256:") => {
            short_id(image, false)
        }
        _ => image.split('@').next().unwrap_or(image).to_owned(),
    };
    let created = container.int("Created");
    let (label_text, label_map) = labels(container.get("Labels"));
    let mounts = container.get("Mounts").items();
    let mount_names = mounts.iter().map(|mount| {
        let name = if mount.text("Name").is_empty() { mount.text("Source") } else { mount.text("Name") };
        if full { name.to_owned() } else { ellipsis(name, 15) }
    });
    let local = mounts.iter().filter(|mount| mount.text("Driver") == "local").count();
    let networks =
        container.at(&["NetworkSettings", "Networks"]).entries().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",");
    let (own, whole) = (container.int("SizeRw"), container.int("SizeRootFs"));
    #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
    let shown = |bytes: i64| size_with_digits(bytes as f64, 3);
    let size = if whole > 0 { format!("{} (virtual {})", shown(own), shown(whole)) } else { shown(own) };
    let mut record = Record::new("")
        .with("Command", command)
        .with("CreatedAt", created_at(created))
        .with("ID", short_id(container.text("Id"), full))
        .with("Image", image)
        .with("Labels", label_text)
        .with("LocalVolumes", local.to_string())
        .with("Mounts", mount_names.collect::<Vec<_>>().join(","))
        .with("Names", names)
        .with("Networks", networks)
        .with("Platform", platform(container))
        .with("Ports", ports(container.get("Ports").items()))
        .with("RunningFor", ago(created))
        .with("Size", size)
        .with("State", container.text("State"))
        .with("Status", container.text("Status"));
    record.labels = Some(label_map);
    record
}

/// The image's platform, where the engine tells it.
fn platform(container: &Json) -> sampan_gotext::Value {
    let found = container.at(&["ImageManifestDescriptor", "platform"]);
    if found.is_null() { sampan_gotext::Value::Nil } else { format!("{}/{}", found.text("os"), found.text("architecture")).into() }
}

/// A moment as Go prints it: `2024-01-02 03:04:05 +0000 UTC`.
pub(super) fn created_at(seconds: i64) -> String {
    let Ok(moment) = jiff::Timestamp::from_second(seconds) else { return String::new() };
    let zoned = moment.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// Ports, equal ones that follow each other as ranges.
fn ports(list: &[Json]) -> String {
    #[derive(Clone, Copy)]
    struct Range {
        first: i64,
        last: i64,
    }
    let mut all: Vec<&Json> = list.iter().collect();
    all.sort_by(|left, right| {
        let key = |port: &Json| (port.int("PrivatePort"), port.text("IP").to_owned(), port.int("PublicPort"), port.text("Type").to_owned());
        key(left).cmp(&key(right))
    });
    let mut groups: Vec<(String, Range)> = Vec::new();
    let mut plain: Vec<String> = Vec::new();
    let mut published: Vec<String> = Vec::new();
    for port in all {
        let (private, public, kind) = (port.int("PrivatePort"), port.int("PublicPort"), port.text("Type"));
        let ip = port.text("IP");
        if public != 0 && public != private {
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            published.push(format!("{host}:{public}->{private}/{kind}"));
            continue;
        }
        let key = if public == 0 { kind.to_owned() } else { format!("{ip}/{kind}") };
        match groups.iter_mut().find(|(known, range)| *known == key && range.last + 1 == private) {
            Some((_, range)) => range.last = private,
            None => groups.push((key, Range { first: private, last: private })),
        }
    }
    for (key, range) in groups {
        let span = if range.first == range.last { range.first.to_string() } else { format!("{}-{}", range.first, range.last) };
        match key.rsplit_once('/') {
            Some((ip, kind)) => {
                let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                plain.push(format!("{host}:{span}->{span}/{kind}"));
            }
            None => plain.push(format!("{span}/{key}")),
        }
    }
    plain.extend(published);
    plain.join(", ")
}

/// `3 hours` since a moment, for other lists.
pub(super) fn since(seconds: i64) -> String {
    span(jiff::Timestamp::now().as_second() - seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ports_are_grouped() {
        let list = Json::parse(
            br#"[{"PrivatePort":81,"Type":"tcp"},{"PrivatePort":80,"Type":"tcp"},
                {"IP":"0.0.0.0","PrivatePort":8000,"PublicPort":8000,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":8001,"PublicPort":8001,"Type":"tcp"},
                {"IP":"::","PrivatePort":90,"PublicPort":9090,"Type":"udp"}]"#,
        )
        .unwrap();
        assert_eq!(ports(list.items()), "80-81/tcp, 0.0.0.0:8000-8001->8000-8001/tcp, [::]:9090->90/udp");
    }
}
