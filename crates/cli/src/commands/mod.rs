//! All commands, a file a theme. A new command goes into the file of its theme, and its table is in [`ALL`].

mod build;
mod contexts;
mod copy;
mod images;
mod inspect;
pub(crate) mod later;
mod lifecycle;
mod list;
mod messages;
mod networks;
mod output;
mod registries;
mod registry;
mod run;
mod stats;
pub(crate) mod system;
mod usage;
mod volumes;

use sampan_gotext::flags::{Flag, Kind};

use crate::command::Command;

/// Every command.
pub(crate) const ALL: &[&[Command]] = &[
    run::COMMANDS,
    list::COMMANDS,
    lifecycle::COMMANDS,
    output::COMMANDS,
    stats::COMMANDS,
    copy::COMMANDS,
    inspect::COMMANDS,
    images::COMMANDS,
    build::COMMANDS,
    registries::COMMANDS,
    registry::COMMANDS,
    volumes::COMMANDS,
    networks::COMMANDS,
    system::COMMANDS,
    usage::COMMANDS,
    contexts::COMMANDS,
];

/// Groups of commands, and what they are about.
pub(crate) const GROUPS: &[(&str, &str)] = &[
    ("builder", "Manage builds"),
    ("buildx", "Build images, by the name that Docker's plugin has"),
    ("container", "Manage containers"),
    ("context", "Manage contexts"),
    ("image", "Manage images"),
    ("network", "Manage networks"),
    ("registry", "Run a registry, and manage its users"),
    ("system", "Manage the engine"),
    ("volume", "Manage volumes"),
];

/// `--format` of a list.
const FORMAT_TABLE: Flag = Flag::new(
    "format",
    Kind::Text,
    "How to show it:\n'table':           a table with heads (default)\n'table TEMPLATE':  a table of a Go template\n'json':            JSON, an object a line\n'TEMPLATE':        a Go template for each line",
);
/// `--format` of something that is no list.
const FORMAT: Flag = Flag::new("format", Kind::Text, "How to show it: 'json', or a Go template").short('f');
/// `--force` of a prune.
const FORCE: Flag = Flag::new("force", Kind::Bool, "Do not ask").short('f');

/// Twelve digits of an ID.
fn short_id(id: &str, full: bool) -> String {
    if full {
        return id.to_owned();
    }
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

/// `3 hours ago`.
fn ago(seconds: i64) -> String {
    format!("{} ago", list::since(seconds))
}
