//! `system df` and `system prune`.

use sampan_gotext::Record;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_gotext::units::{size, size_with_digits};
use sampan_ui::table::{DOCKER, ellipsis, tabulate};
use sampan_wire::Json;

use super::build::prune_cache;
use super::images::{prune_images, rows as image_rows};
use super::lifecycle::prune_containers;
use super::networks::prune_networks;
use super::volumes::{prune_volumes, row as volume_row};
use super::{FORCE, FORMAT_TABLE, ago, short_id};
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::error::{CliError, Outcome};
use crate::format::Listing;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["system df"],
        usage: "[OPTIONS]",
        about: "Show how much disk is used",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[FORMAT_TABLE, Flag::new("verbose", Kind::Bool, "Show each image, container and volume").short('v')]],
        interspersed: true,
        run: |app, matches| Box::pin(df(app, matches)),
    },
    Command {
        paths: &["system prune"],
        usage: "[OPTIONS]",
        about: "Remove what nobody uses",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("all", Kind::Bool, "Remove images with names too").short('a'),
            Flag::new("filter", Kind::Filter, "Remove only what fits: until=, label="),
            FORCE,
            Flag::new("volumes", Kind::Bool, "Remove unnamed volumes too"),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(prune(app, matches)),
    },
];

/// One line of the overview.
fn line(kind: &str, total: usize, active: usize, bytes: i64, reclaimable: i64) -> Record {
    #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
    let (all, free) = (bytes as f64, reclaimable as f64);
    let free =
        if bytes > 0 && kind != "Build Cache" { format!("{} ({:.0}%)", size(free), (free * 100.0 / all).trunc()) } else { size(free) };
    Record::new("")
        .with("Active", active.to_string())
        .with("Reclaimable", free)
        .with("Size", size(all))
        .with("TotalCount", total.to_string())
        .with("Type", kind)
}

fn overview(usage: &Json) -> Vec<Record> {
    let images = usage.get("Images").items();
    let active = images.iter().filter(|image| image.int("Containers") > 0);
    let used: i64 =
        active.clone().map(|image| if image.int("SharedSize") < 0 { 0 } else { image.int("Size") - image.int("SharedSize") }).sum();
    let layers = usage.int("LayersSize");
    let containers = usage.get("Containers").items();
    let lives = |container: &&Json| matches!(container.text("State"), "running" | "paused" | "restarting");
    let bytes = |list: &mut dyn Iterator<Item = &Json>| list.map(|container| container.int("SizeRw")).sum::<i64>();
    let volumes = usage.get("Volumes").items();
    let volume_size = |volume: &&Json| volume.at(&["UsageData", "Size"]).as_int().max(0);
    let in_use = |volume: &&Json| volume.at(&["UsageData", "RefCount"]).as_int() > 0;
    let caches = usage.get("BuildCache").items();
    vec![
        line("Images", images.len(), active.count(), layers, layers - used),
        line(
            "Containers",
            containers.len(),
            containers.iter().filter(lives).count(),
            bytes(&mut containers.iter()),
            bytes(&mut containers.iter().filter(|container| !lives(container))),
        ),
        line(
            "Local Volumes",
            volumes.len(),
            volumes.iter().filter(in_use).count(),
            volumes.iter().map(|volume| volume_size(&volume)).sum(),
            volumes.iter().filter(|volume| !in_use(volume)).map(|volume| volume_size(&volume)).sum(),
        ),
        line(
            "Build Cache",
            caches.len(),
            caches.iter().filter(|cache| cache.truth("InUse")).count(),
            caches.iter().filter(|cache| !cache.truth("Shared")).map(|cache| cache.int("Size")).sum(),
            caches.iter().filter(|cache| !cache.truth("Shared") && !cache.truth("InUse")).map(|cache| cache.int("Size")).sum(),
        ),
    ]
}

async fn df(app: &App, matches: &Matches) -> Outcome {
    let usage = app.client()?.get("/system/df").json().await?;
    if matches.truth("verbose") {
        if matches.given("format") && !matches.text("format").starts_with("table") {
            return Err(CliError::unsupported("--verbose with --format", "details are a table"));
        }
        app.print(&details(&usage))?;
        return Ok(0);
    }
    let heads = [("Type", "TYPE"), ("TotalCount", "TOTAL"), ("Active", "ACTIVE"), ("Size", "SIZE"), ("Reclaimable", "RECLAIMABLE")];
    let listing = Listing {
        format: matches.text("format"),
        table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        raw: "",
        heads: &heads,
        type_name: "*formatter.diskUsageImagesContext",
    };
    app.print(&listing.show(&overview(&usage))?)?;
    Ok(0)
}

/// `df -v`.
#[expect(clippy::cast_precision_loss, reason = "sizes for people")]
fn details(usage: &Json) -> String {
    let field = |record: &Record, name: &str| record.get(name).map(sampan_gotext::print).unwrap_or_default();
    let table = |head: &str, rows: Vec<Vec<String>>| {
        let lines: String = rows.into_iter().map(|cells| cells.join("\t") + "\n").collect();
        tabulate(&format!("{head}\n{lines}"), DOCKER)
    };
    let images = usage.get("Images").items().iter().filter_map(|image| image_rows(image, false, false).into_iter().next());
    let columns = ["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"];
    let images = images.map(|row| columns.iter().map(|name| field(&row, name)).collect()).collect();
    let containers = usage.get("Containers").items().iter().map(|container| {
        let names = container.texts("Names").into_iter().map(|name| name.trim_start_matches('/').to_owned()).collect::<Vec<_>>().join(",");
        let local = container.get("Mounts").items().iter().filter(|mount| mount.text("Driver") == "local").count();
        vec![
            short_id(container.text("Id"), false),
            container.text("Image").to_owned(),
            sampan_gotext::quote(&ellipsis(container.text("Command"), 20)),
            local.to_string(),
            size_with_digits(container.int("SizeRw") as f64, 3),
            ago(container.int("Created")),
            container.text("Status").to_owned(),
            names,
        ]
    });
    let volumes = usage.get("Volumes").items().iter().map(volume_row);
    let volumes = volumes.map(|row| ["Name", "Links", "Size"].iter().map(|name| field(&row, name)).collect()).collect();
    let caches = usage.get("BuildCache").items();
    let cached: i64 = caches.iter().filter(|cache| !cache.truth("Shared")).map(|cache| cache.int("Size")).sum();
    let cache_rows = caches.iter().map(|cache| {
        let when = |key: &str| cache.text(key).parse::<jiff::Timestamp>().map_or_else(|_| String::new(), |moment| ago(moment.as_second()));
        vec![
            short_id(cache.text("ID"), false),
            cache.text("Type").to_owned(),
            size_with_digits(cache.int("Size") as f64, 3),
            when("CreatedAt"),
            when("LastUsedAt"),
            cache.int("UsageCount").to_string(),
            cache.truth("Shared").to_string(),
        ]
    });
    format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: {}\n\n{}",
        table("REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS", images),
        table("CONTAINER ID\tIMAGE\tCOMMAND\tLOCAL VOLUMES\tSIZE\tCREATED\tSTATUS\tNAMES", containers.collect()),
        table("VOLUME NAME\tLINKS\tSIZE", volumes),
        size(cached as f64),
        table("CACHE ID\tCACHE TYPE\tSIZE\tCREATED\tLAST USED\tUSAGE\tSHARED", cache_rows.collect()),
    )
}

async fn prune(app: &App, matches: &Matches) -> Outcome {
    let (all, volumes) = (matches.truth("all"), matches.truth("volumes"));
    let filters = matches.list("filter");
    if volumes && filters.iter().any(|filter| filter.starts_with("until=")) {
        return Err(CliError::new("ERROR: The \"until\" filter is not supported with \"--volumes\""));
    }
    if !matches.truth("force") && !app.confirm(&warning(all, volumes, filters))? {
        return Ok(0);
    }
    let mut freed = prune_containers(app, filters).await?;
    prune_networks(app, filters).await?;
    if volumes {
        freed += prune_volumes(app, filters).await?;
    }
    freed += prune_images(app, filters, all).await?;
    // What builds keep has no labels to choose by.
    if !filters.iter().any(|filter| filter.starts_with("label")) {
        freed += prune_cache(app, filters, all, "").await?;
    }
    app.line(&format!("Total reclaimed space: {}", size(freed)))?;
    Ok(0)
}

fn warning(all: bool, volumes: bool, filters: &[String]) -> String {
    let mut list = vec!["all stopped containers", "all networks not used by at least one container"];
    if volumes {
        list.push("all anonymous volumes not used by at least one container");
    }
    list.push(if all { "all images without at least one container associated to them" } else { "all dangling images" });
    list.push(if all { "all build cache" } else { "unused build cache" });
    let mut text = "WARNING! This will remove:\n".to_owned();
    list.iter().for_each(|what| text.push_str(&format!("  - {what}\n")));
    if !filters.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        filters.iter().for_each(|filter| text.push_str(&format!("  - {filter}\n")));
    }
    text + "\nAre you sure you want to continue?"
}
