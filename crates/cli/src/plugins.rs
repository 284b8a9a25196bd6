//! Plugins of the docker command line (compose, buildx): found beside the configuration, run in our place.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use crate::app::App;
use crate::error::CliError;

/// A program that adds a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Folders in the order in which they win.
fn folders(app: &App) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let extra = app.config.value.get("cliPluginsExtraDirs").and_then(|list| list.as_array());
    folders.extend(extra.into_iter().flatten().filter_map(|folder| folder.as_str()).map(PathBuf::from));
    folders.push(app.config.folder.join("cli-plugins"));
    folders.extend(
        ["/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"].map(|place| PathBuf::from(place).join("docker/cli-plugins")),
    );
    folders
}

/// All plugins, sorted by name.
pub(crate) fn list(app: &App) -> Vec<Plugin> {
    let mut found: Vec<Plugin> = Vec::new();
    for folder in folders(app) {
        let Ok(files) = std::fs::read_dir(folder) else { continue };
        for file in files.flatten() {
            let file_name = file.file_name();
            let Some(name) = file_name.to_str().and_then(|name| name.strip_prefix("docker-")) else { continue };
            let runs = std::fs::metadata(file.path()).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0);
            if runs && !found.iter().any(|plugin| plugin.name == name) {
                found.push(Plugin { name: name.to_owned(), path: file.path() });
            }
        }
    }
    found.sort_by(|left, right| left.name.cmp(&right.name));
    found
}

/// Becomes the plugin; comes back only with an error.
pub(crate) fn run(app: &App, plugin: &Plugin, words: &[String]) -> CliError {
    #[expect(clippy::disallowed_methods, reason = "the named exception for plugins of the docker command line")]
    let mut command = std::process::Command::new(&plugin.path);
    command.args(words);
    if let Ok(program) = std::env::current_exe() {
        command.env("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", program);
    }
    // A plugin knows Docker's default socket only.
    if let Ok((name, host)) = app.context()
        && name == "default"
    {
        command.env("DOCKER_HOST", host);
    }
    let error = command.exec();
    CliError::file("run", plugin.path.display(), &error)
}
