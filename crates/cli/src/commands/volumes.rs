//! `volume`.

use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_gotext::units::size;
use sampan_gotext::{Record, Value};
use sampan_wire::{Json, object};

use super::{FORCE, FORMAT_TABLE};
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::create::{checks, key_value_map};
use crate::error::{CliError, Outcome};
use crate::format::{Listing, labels};
use crate::remote::escape;

const CLUSTER: &str = "cluster volumes need a swarm";

pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["volume create"],
        usage: "[OPTIONS] [VOLUME]",
        about: "Create a volume",
        more: "",
        words: Words::AtMost(1),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("availability", Kind::Text, "Availability of a cluster volume").default("active").later(CLUSTER),
            Flag::new("driver", Kind::Text, "Driver of the volume").short('d').default("local"),
            Flag::new("group", Kind::Text, "Group of a cluster volume").later(CLUSTER),
            Flag::new("label", Kind::List, "Set a label").check(checks::label),
            Flag::new("limit-bytes", Kind::Bytes, "Smallest size of a cluster volume").later(CLUSTER),
            Flag::new("name", Kind::Text, "Name of the volume").hidden(),
            Flag::new("opt", Kind::Map, "Option of the driver").short('o').default("map[]"),
            Flag::new("required-bytes", Kind::Bytes, "Largest size of a cluster volume").later(CLUSTER),
            Flag::new("scope", Kind::Text, "Scope of a cluster volume").default("single").later(CLUSTER),
            Flag::new("secret", Kind::Map, "Secrets of a cluster volume").later(CLUSTER),
            Flag::new("sharing", Kind::Text, "Sharing of a cluster volume").default("none").later(CLUSTER),
            Flag::new("topology-preferred", Kind::List, "Preferred place of a cluster volume").later(CLUSTER),
            Flag::new("topology-required", Kind::List, "Required place of a cluster volume").later(CLUSTER),
            Flag::new("type", Kind::Text, "Type of a cluster volume").default("block").later(CLUSTER),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(create(app, matches)),
    },
    Command {
        paths: &["volume ls", "volume list"],
        usage: "[OPTIONS]",
        about: "List volumes",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("cluster", Kind::Bool, "Show cluster volumes only").later(CLUSTER),
            Flag::new("filter", Kind::Filter, "Show only what fits: dangling=, driver=, label=, name=").short('f'),
            FORMAT_TABLE,
            Flag::new("quiet", Kind::Bool, "Show names only").short('q'),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(list(app, matches)),
    },
    Command {
        paths: &["volume rm", "volume remove"],
        usage: "[OPTIONS] VOLUME [VOLUME...]",
        about: "Remove volumes that no container uses",
        more: "",
        words: Words::AtLeast(1),
        things: Things::Volumes,
        flags: &[&[Flag::new("force", Kind::Bool, "Do not fail where a volume is gone already").short('f')]],
        interspersed: true,
        run: |app, matches| Box::pin(remove(app, matches)),
    },
    Command {
        paths: &["volume prune"],
        usage: "[OPTIONS]",
        about: "Remove volumes that no container uses",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("all", Kind::Bool, "Remove named volumes too").short('a'),
            Flag::new("filter", Kind::Filter, "Remove only what fits: label="),
            FORCE,
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(prune(app, matches)),
    },
];

async fn create(app: &App, matches: &Matches) -> Outcome {
    let name = match matches.words.first() {
        Some(_) if matches.given("name") => {
            return Err(CliError::new("conflicting options: cannot specify a volume-name through both --name and as a positional arg"));
        }
        Some(name) => name,
        None => matches.text("name"),
    };
    let body = object! { "Name": name, "Driver": matches.text("driver"), "DriverOpts": key_value_map(matches.list("opt")), "Labels": key_value_map(matches.list("label")) };
    let made = app.client()?.post("/volumes/create").body(&body).json().await?;
    app.line(made.text("Name"))?;
    Ok(0)
}

const HEADS: &[(&str, &str)] = &[
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Group", "GROUP"),
    ("Availability", "AVAILABILITY"),
    ("Status", "STATUS"),
];

async fn list(app: &App, matches: &Matches) -> Outcome {
    let answer = app.client()?.get("/volumes").filters(matches.list("filter")).json().await?;
    let mut volumes: Vec<&Json> = answer.get("Volumes").items().iter().collect();
    volumes.sort_by_key(|volume| volume.text("Name"));
    let rows: Vec<Record> = volumes.into_iter().map(row).collect();
    let quiet = matches.truth("quiet");
    let format = if matches.given("format") {
        matches.text("format")
    } else if quiet {
        "{{.Name}}"
    } else {
        app.config.text("volumesFormat")
    };
    let listing = Listing {
        format,
        table: if quiet { "{{.Name}}" } else { "{{.Driver}}\t{{.Name}}" },
        raw: if quiet { "name: {{.Name}}" } else { "name: {{.Name}}\ndriver: {{.Driver}}\n" },
        heads: HEADS,
        type_name: "*formatter.volumeContext",
    };
    app.print(&listing.show(&rows)?)?;
    Ok(0)
}

/// A volume of a list.
pub(super) fn row(volume: &Json) -> Record {
    let (text, map) = labels(volume.get("Labels"));
    let usage = volume.get("UsageData");
    #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
    let (links, bytes) = if usage.is_null() {
        ("N/A".to_owned(), "N/A".to_owned())
    } else {
        (usage.int("RefCount").to_string(), size(usage.int("Size") as f64))
    };
    let mut record = Record::new("")
        .with("Availability", "N/A")
        .with("Driver", volume.text("Driver"))
        .with("Group", "N/A")
        .with("Labels", text)
        .with("Links", links)
        .with("Mountpoint", volume.text("Mountpoint"))
        .with("Name", volume.text("Name"))
        .with("Scope", volume.text("Scope"))
        .with("Size", bytes)
        .with("Status", Value::from("N/A"));
    record.labels = Some(map);
    record
}

async fn remove(app: &App, matches: &Matches) -> Outcome {
    let client = app.client()?;
    let force = matches.truth("force");
    app.each(&matches.words, async |name| {
        client.delete(format!("/volumes/{}", escape(name))).query_if("force", force).done().await?;
        Ok(name.to_owned())
    })
    .await
}

async fn prune(app: &App, matches: &Matches) -> Outcome {
    let all = matches.truth("all");
    if all && matches.list("filter").iter().any(|filter| filter.starts_with("all=")) {
        return Err(CliError::new("conflicting options: cannot specify both --all and --filter all=1"));
    }
    let what = if all {
        "all local volumes not used by at least one container"
    } else {
        "anonymous local volumes not used by at least one container"
    };
    if !matches.truth("force") && !app.confirm(&format!("WARNING! This will remove {what}.\nAre you sure you want to continue?"))? {
        return Ok(0);
    }
    let mut filters = matches.list("filter").to_vec();
    if all {
        filters.push("all=true".into());
    }
    let freed = prune_volumes(app, &filters).await?;
    app.line(&format!("Total reclaimed space: {}", size(freed)))?;
    Ok(0)
}

/// Removes unused volumes, lists them, and gives the bytes.
pub(super) async fn prune_volumes(app: &App, filters: &[String]) -> Outcome<f64> {
    let done = app.client()?.post("/volumes/prune").filters(filters).json().await?;
    let removed = done.texts("VolumesDeleted");
    if !removed.is_empty() {
        app.print(&format!("Deleted Volumes:\n{}\n\n", removed.join("\n")))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
    Ok(done.int("SpaceReclaimed") as f64)
}
