//! `network`.

use sampan_gotext::Record;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_wire::{Json, object};

use super::{FORCE, FORMAT_TABLE, list::created_at, short_id};
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::create::{checks, key_value_map};
use crate::error::{CliError, Outcome};
use crate::format::{Listing, labels};
use crate::remote::escape;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["network ls", "network list"],
        usage: "[OPTIONS]",
        about: "List networks",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("filter", Kind::Filter, "Show only what fits: driver=, id=, label=, name=, scope=, type=").short('f'),
            FORMAT_TABLE,
            Flag::new("no-trunc", Kind::Bool, "Show everything in full"),
            Flag::new("quiet", Kind::Bool, "Show IDs only").short('q'),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(list(app, matches)),
    },
    Command {
        paths: &["network create"],
        usage: "[OPTIONS] NETWORK",
        about: "Create a network",
        more: "",
        words: Words::Exactly(1),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("attachable", Kind::Bool, "Let containers be attached by hand"),
            Flag::new("aux-address", Kind::Map, "Addresses that the driver uses itself").default("map[]"),
            Flag::new("config-from", Kind::Text, "Network to take the configuration from"),
            Flag::new("config-only", Kind::Bool, "Make a configuration only"),
            Flag::new("driver", Kind::Text, "Driver of the network").short('d').default("bridge"),
            Flag::new("gateway", Kind::Strings, "Gateway of a subnet"),
            Flag::new("ingress", Kind::Bool, "Make a swarm's routing mesh"),
            Flag::new("internal", Kind::Bool, "Let nothing in or out"),
            Flag::new("ip-range", Kind::Strings, "Give addresses of a part of the subnet only"),
            Flag::new("ipam-driver", Kind::Text, "Driver of addresses").default("default"),
            Flag::new("ipam-opt", Kind::Map, "Option of the driver of addresses").default("map[]"),
            Flag::new("ipv4", Kind::Bool, "Give IPv4 addresses").default("true"),
            Flag::new("ipv6", Kind::Bool, "Give IPv6 addresses"),
            Flag::new("label", Kind::List, "Set a label").check(checks::label),
            Flag::new("opt", Kind::Map, "Option of the driver").short('o').default("map[]"),
            Flag::new("scope", Kind::Text, "Scope of the network"),
            Flag::new("subnet", Kind::Strings, "Subnet in CIDR form"),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(create(app, matches)),
    },
    Command {
        paths: &["network rm", "network remove"],
        usage: "NETWORK [NETWORK...]",
        about: "Remove networks",
        more: "",
        words: Words::AtLeast(1),
        things: Things::Networks,
        flags: &[&[Flag::new("force", Kind::Bool, "Do not fail where a network is gone already").short('f')]],
        interspersed: true,
        run: |app, matches| Box::pin(remove(app, matches)),
    },
    Command {
        paths: &["network connect"],
        usage: "[OPTIONS] NETWORK CONTAINER",
        about: "Connect a container to a network",
        more: "",
        words: Words::Exactly(2),
        things: Things::Networks,
        flags: &[&[
            Flag::new("alias", Kind::Strings, "Further name in the network"),
            Flag::new("driver-opt", Kind::Strings, "Option of the driver"),
            Flag::new("gw-priority", Kind::Int, "The highest one gives the default route"),
            Flag::new("ip", Kind::Text, "IPv4 address"),
            Flag::new("ip6", Kind::Text, "IPv6 address"),
            Flag::new("link", Kind::List, "Link to another container").check(checks::link),
            Flag::new("link-local-ip", Kind::Strings, "Link-local address"),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(connect(app, matches)),
    },
    Command {
        paths: &["network disconnect"],
        usage: "[OPTIONS] NETWORK CONTAINER",
        about: "Disconnect a container from a network",
        more: "",
        words: Words::Exactly(2),
        things: Things::Networks,
        flags: &[&[Flag::new("force", Kind::Bool, "Disconnect also what does not exist any more").short('f')]],
        interspersed: true,
        run: |app, matches| Box::pin(disconnect(app, matches)),
    },
    Command {
        paths: &["network prune"],
        usage: "[OPTIONS]",
        about: "Remove all networks that no container uses",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[Flag::new("filter", Kind::Filter, "Remove only what fits: until=, label="), FORCE]],
        interspersed: true,
        run: |app, matches| Box::pin(prune(app, matches)),
    },
];

const HEADS: &[(&str, &str)] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

async fn list(app: &App, matches: &Matches) -> Outcome {
    let networks = app.client()?.get("/networks").filters(matches.list("filter")).json().await?;
    let mut networks: Vec<&Json> = networks.items().iter().collect();
    networks.sort_by_key(|network| network.text("Name"));
    let full = matches.truth("no-trunc");
    let rows: Vec<Record> = networks
        .into_iter()
        .map(|network| {
            let (text, map) = labels(network.get("Labels"));
            let created =
                network.text("Created").parse::<jiff::Timestamp>().map_or_else(|_| String::new(), |moment| created_at(moment.as_second()));
            let mut record = Record::new("")
                .with("CreatedAt", created)
                .with("Driver", network.text("Driver"))
                .with("ID", short_id(network.text("Id"), full))
                .with("IPv4", network.truth("EnableIPv4").to_string())
                .with("IPv6", network.truth("EnableIPv6").to_string())
                .with("Internal", network.truth("Internal").to_string())
                .with("Labels", text)
                .with("Name", network.text("Name"))
                .with("Scope", network.text("Scope"));
            record.labels = Some(map);
            record
        })
        .collect();
    let quiet = matches.truth("quiet");
    let format = if matches.given("format") {
        matches.text("format")
    } else if quiet {
        "{{.ID}}"
    } else {
        app.config.text("networksFormat")
    };
    let listing = Listing {
        format,
        table: if quiet { "{{.ID}}" } else { "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}" },
        raw: "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
        heads: HEADS,
        type_name: "*network.networkContext",
    };
    app.print(&listing.show(&rows)?)?;
    Ok(0)
}

async fn create(app: &App, matches: &Matches) -> Outcome {
    let subnets = matches.list("subnet");
    let (ranges, gateways) = (matches.list("ip-range"), matches.list("gateway"));
    if subnets.is_empty() && !(ranges.is_empty() && gateways.is_empty()) {
        return Err(CliError::new("every ip-range or gateway must have a corresponding subnet"));
    }
    let pools = subnets.iter().enumerate().map(|(index, subnet)| {
        let auxiliary = if index == 0 { key_value_map(matches.list("aux-address")) } else { Json::Object(Vec::new()) };
        let part = |list: &[String]| list.get(index).cloned().unwrap_or_default();
        object! { "Subnet": subnet.as_str(), "IPRange": part(ranges), "Gateway": part(gateways), "AuxiliaryAddresses": auxiliary }
    });
    let mut body = vec![
        ("Name".to_owned(), Json::from(matches.words[0].as_str())),
        ("Driver".into(), matches.text("driver").into()),
        ("Scope".into(), matches.text("scope").into()),
        (
            "IPAM".into(),
            object! { "Driver": matches.text("ipam-driver"), "Options": key_value_map(matches.list("ipam-opt")), "Config": Json::list(pools) },
        ),
        ("Internal".into(), matches.truth("internal").into()),
        ("Attachable".into(), matches.truth("attachable").into()),
        ("Ingress".into(), matches.truth("ingress").into()),
        ("ConfigOnly".into(), matches.truth("config-only").into()),
        ("Options".into(), key_value_map(matches.list("opt"))),
        ("Labels".into(), key_value_map(matches.list("label"))),
    ];
    for (key, flag) in [("EnableIPv4", "ipv4"), ("EnableIPv6", "ipv6")] {
        if matches.given(flag) {
            body.push((key.into(), matches.truth(flag).into()));
        }
    }
    if matches.given("config-from") {
        body.push(("ConfigFrom".into(), object! { "Network": matches.text("config-from") }));
    }
    let made = app.client()?.post("/networks/create").body(&Json::Object(body)).json().await?;
    if !made.text("Warning").is_empty() {
        app.warn(&format!("WARNING: {}", made.text("Warning")));
    }
    app.line(made.text("Id"))?;
    Ok(0)
}

async fn remove(app: &App, matches: &Matches) -> Outcome {
    let client = app.client()?;
    let force = matches.truth("force");
    let mut failed = false;
    for name in &matches.words {
        match client.delete(format!("/networks/{}", escape(name))).done().await {
            Ok(()) => app.line(name)?,
            Err(error) if force && error.status == 404 => {}
            Err(error) => {
                app.warn(&error.text);
                failed = true;
            }
        }
    }
    if failed { Err(CliError::new("exit status 1")) } else { Ok(0) }
}

async fn connect(app: &App, matches: &Matches) -> Outcome {
    let options = matches.list("driver-opt");
    let body = object! {
        "Container": matches.words[1].as_str(),
        "EndpointConfig": object! {
            "IPAMConfig": object! {
                "IPv4Address": matches.text("ip"),
                "IPv6Address": matches.text("ip6"),
                "LinkLocalIPs": Json::list_or_null(matches.list("link-local-ip").iter().map(String::as_str)),
            },
            "Links": Json::list_or_null(matches.list("link").iter().map(String::as_str)),
            "Aliases": Json::list_or_null(matches.list("alias").iter().map(String::as_str)),
            "DriverOpts": if options.is_empty() { Json::NULL } else { key_value_map(options) },
            "GwPriority": matches.int("gw-priority"),
        },
    };
    app.client()?.post(format!("/networks/{}/connect", escape(&matches.words[0]))).body(&body).done().await?;
    Ok(0)
}

async fn disconnect(app: &App, matches: &Matches) -> Outcome {
    let body = object! { "Container": matches.words[1].as_str(), "Force": matches.truth("force") };
    app.client()?.post(format!("/networks/{}/disconnect", escape(&matches.words[0]))).body(&body).done().await?;
    Ok(0)
}

async fn prune(app: &App, matches: &Matches) -> Outcome {
    if !matches.truth("force")
        && !app.confirm(
            "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?",
        )?
    {
        return Ok(0);
    }
    prune_networks(app, matches.list("filter")).await?;
    Ok(0)
}

/// Removes unused networks and lists them.
pub(super) async fn prune_networks(app: &App, filters: &[String]) -> Outcome<()> {
    let done = app.client()?.post("/networks/prune").filters(filters).json().await?;
    let removed = done.texts("NetworksDeleted");
    if !removed.is_empty() {
        app.print(&format!("Deleted Networks:\n{}\n\n", removed.join("\n")))?;
    }
    Ok(())
}
