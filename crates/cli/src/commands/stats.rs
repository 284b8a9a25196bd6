//! `stats`: what containers use, once or again and again.

use std::collections::BTreeMap;
use std::io::Write as _;

use http_body_util::BodyExt as _;
use sampan_gotext::Record;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_gotext::units::{binary_size, size_with_digits};
use sampan_ui::terminal;
use sampan_wire::Json;
use tokio::sync::mpsc;

use super::{FORMAT_TABLE, short_id};
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::error::{CliError, Outcome};
use crate::format::Listing;
use crate::remote::{Client, escape};

pub(super) const COMMANDS: &[Command] = &[Command {
    paths: &["container stats", "stats"],
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Show what containers use",
    more: "",
    words: Words::Any,
    things: Things::Running,
    flags: &[&[
        Flag::new("all", Kind::Bool, "Show all containers, not only those that run").short('a'),
        FORMAT_TABLE,
        Flag::new("no-stream", Kind::Bool, "Show it once"),
        Flag::new("no-trunc", Kind::Bool, "Show everything in full"),
    ]],
    interspersed: true,
    run: |app, matches| Box::pin(stats(app, matches)),
}];

const HEADS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
const TABLE: &str = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

async fn stats(app: &App, matches: &Matches) -> Outcome {
    let client = app.client()?;
    let format = if matches.given("format") { matches.text("format") } else { app.config.text("statsFormat") };
    let listing = Listing { format, table: TABLE, raw: "", heads: HEADS, type_name: "*container.statsContext" };
    let full = matches.truth("no-trunc");
    if matches.truth("no-stream") {
        let rows = once(client, matches, full).await?;
        app.print(&listing.show(&rows)?)?;
        return Ok(0);
    }
    stream(client, matches, &listing, full).await
}

/// The containers that are meant.
async fn wanted(client: &Client, matches: &Matches) -> Outcome<Vec<String>> {
    if !matches.words.is_empty() {
        return Ok(matches.words.clone());
    }
    let list = client.get("/containers/json").query_if("all", matches.truth("all")).json().await?;
    Ok(list.items().iter().map(|container| container.text("Id").to_owned()).collect())
}

async fn once(client: &Client, matches: &Matches, full: bool) -> Outcome<Vec<Record>> {
    let names = wanted(client, matches).await?;
    // The engine takes a second for two samples: all are asked at the same time.
    let mut asked = Vec::new();
    let mut errors = Vec::new();
    for name in &names {
        let call = client.get(format!("/containers/{}/stats", escape(name))).query("stream", "0");
        match call.send().await {
            Ok(response) => asked.push((name, response)),
            Err(error) => errors.push(error.text),
        }
    }
    let mut rows = Vec::new();
    for (name, response) in asked {
        let bytes = crate::remote::read_all(response.into_body()).await?;
        if let Ok(sample) = Json::parse(&bytes) {
            rows.push(row(name, &sample, full));
        }
    }
    if errors.is_empty() { Ok(rows) } else { Err(CliError::new(errors.join("\n"))) }
}

async fn stream(client: &Client, matches: &Matches, listing: &Listing<'_>, full: bool) -> Outcome {
    let (sender, mut samples) = mpsc::channel::<(String, Option<Json>)>(64);
    let mut rows = BTreeMap::<String, Record>::new();
    let all = matches.words.is_empty();
    let mut known = Vec::new();
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(500));
    let mut round = 0_u32;
    let on_terminal = terminal::is_terminal(std::io::stdout());
    loop {
        tokio::select! {
            _ = tick.tick() => {
                if round.is_multiple_of(4) {
                    for name in wanted(client, matches).await? {
                        if !known.contains(&name) {
                            watch(client, &name, sender.clone()).await?;
                            known.push(name);
                        }
                    }
                }
                round += 1;
                let list: Vec<Record> = rows.values().cloned().collect();
                let text = listing.show(&list)?;
                let mut out = std::io::stdout().lock();
                if on_terminal {
                    // Home, the new text with each line's rest erased, and what was below erased.
                    out.write_all(format!("\u{1b}[H{}\u{1b}[J", text.replace('\n', "\u{1b}[K\n")).as_bytes())?;
                } else {
                    out.write_all(text.as_bytes())?;
                }
                out.flush()?;
                drop(out);
                if !all && known.is_empty() {
                    return Ok(0);
                }
            }
            Some((name, sample)) = samples.recv() => match sample {
                Some(sample) => drop(rows.insert(name.clone(), row(&name, &sample, full))),
                None => {
                    rows.remove(&name);
                    known.retain(|other| *other != name);
                }
            },
        }
    }
}

/// Reads samples of a container until it is gone.
async fn watch(client: &Client, name: &str, sender: mpsc::Sender<(String, Option<Json>)>) -> Outcome<()> {
    let response = client.get(format!("/containers/{}/stats", escape(name))).query("stream", "1").send().await?;
    let name = name.to_owned();
    tokio::spawn(async move {
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(bytes) = frame.into_data() else { continue };
            text.extend_from_slice(&bytes);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if let Ok(sample) = Json::parse(&line)
                    && sender.send((name.clone(), Some(sample))).await.is_err()
                {
                    return;
                }
            }
        }
        drop(sender.send((name, None)).await);
    });
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn row(name: &str, sample: &Json, full: bool) -> Record {
    let cpu = |when: &str, keys: &[&str]| {
        let mut path = vec![when];
        path.extend_from_slice(keys);
        sample.at(&path).as_int() as f64
    };
    let busy = cpu("cpu_stats", &["cpu_usage", "total_usage"]) - cpu("precpu_stats", &["cpu_usage", "total_usage"]);
    let system = cpu("cpu_stats", &["system_cpu_usage"]) - cpu("precpu_stats", &["system_cpu_usage"]);
    let mut cpus = cpu("cpu_stats", &["online_cpus"]);
    if cpus == 0.0 {
        cpus = sample.at(&["cpu_stats", "cpu_usage", "percpu_usage"]).items().len() as f64;
    }
    let percent = if system > 0.0 && busy > 0.0 { busy / system * cpus * 100.0 } else { 0.0 };
    let memory = sample.get("memory_stats");
    let usage = memory.int("usage");
    // Pages of files that the kernel may drop at once are no use: their name differs between cgroup versions.
    let details = memory.get("stats");
    let inactive =
        if details.get("total_inactive_file").is_null() { details.int("inactive_file") } else { details.int("total_inactive_file") };
    let used = if inactive < usage { usage - inactive } else { usage } as f64;
    let limit = memory.int("limit") as f64;
    let share = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    let networks = sample.get("networks").entries();
    let sum = |key: &str| networks.iter().map(|(_, network)| network.int(key)).sum::<i64>() as f64;
    let blocks = sample.at(&["blkio_stats", "io_service_bytes_recursive"]).items();
    let blocks = |kind: char| {
        let of_kind = blocks.iter().filter(|entry| entry.text("op").to_lowercase().starts_with(kind));
        of_kind.map(|entry| entry.int("value")).sum::<i64>() as f64
    };
    let short = |bytes: f64| size_with_digits(bytes, 3);
    Record::new("")
        .with("BlockIO", format!("{} / {}", short(blocks('r')), short(blocks('w'))))
        .with("CPUPerc", format!("{percent:.2}%"))
        .with("Container", name)
        .with("ID", short_id(sample.text("id"), full))
        .with("MemPerc", format!("{share:.2}%"))
        .with("MemUsage", format!("{} / {}", binary_size(used), binary_size(limit)))
        .with("Name", sample.text("name").trim_start_matches('/'))
        .with("NetIO", format!("{} / {}", short(sum("rx_bytes")), short(sum("tx_bytes"))))
        .with("PIDs", sample.at(&["pids_stats", "current"]).as_int().to_string())
}
