//! What leads to a registry: pull, push, login, logout, search.

use std::io::{IsTerminal as _, Read as _, Write as _};

use sampan_gotext::Record;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_oci::Reference;
use sampan_ui::progress::Progress;
use sampan_ui::table::ellipsis;
use sampan_ui::terminal;
use sampan_wire::{Json, object};

use super::images::{path, platform, split_tag};
use super::messages::{messages, show_messages};
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::credentials::{self, HUB, Login};
use crate::error::{CliError, Outcome};
use crate::format::Listing;

const PLATFORM: Flag = Flag::new("platform", Kind::Text, "Platform, as os[/arch[/variant]]");
const TRUST: Flag = Flag::new("disable-content-trust", Kind::Bool, "Do not check the image's signature").default("true");
/// Longest password that is read from standard input.
const MAX_SECRET: u64 = 1 << 20;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["image pull", "pull"],
        usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
        about: "Download an image from a registry",
        more: "Examples:\n  \
               PROGRAM pull alpine                              from Docker Hub, tag latest\n  \
               PROGRAM pull host:5000/team/app:1.2              from another registry\n  \
               PROGRAM pull alpine@sha256:…                     exactly these bytes\n  \
               PROGRAM pull --platform linux/arm64 alpine       for another kind of machine",
        words: Words::Exactly(1),
        things: Things::Images,
        flags: &[&[
            Flag::new("all-tags", Kind::Bool, "Download all tags of the repository").short('a'),
            TRUST,
            PLATFORM,
            Flag::new("quiet", Kind::Bool, "Print the image's name only").short('q'),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(pull(app, matches)),
    },
    Command {
        paths: &["image push", "push"],
        usage: "[OPTIONS] NAME[:TAG]",
        about: "Upload an image to a registry",
        more: "The name says where to: HOST[:PORT]/REPOSITORY:TAG, Docker Hub without a host.\n\nExamples:\n  \
               PROGRAM tag app host:5000/team/app:1.2\n  \
               PROGRAM push host:5000/team/app:1.2\n  \
               PROGRAM push --all-tags host:5000/team/app",
        words: Words::Exactly(1),
        things: Things::Images,
        flags: &[&[
            Flag::new("all-tags", Kind::Bool, "Upload all tags of the repository").short('a'),
            Flag::new("disable-content-trust", Kind::Bool, "Do not sign the image").default("true"),
            PLATFORM,
            Flag::new("quiet", Kind::Bool, "Print the image's name only").short('q'),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(push(app, matches)),
    },
    Command {
        paths: &["login"],
        usage: "[OPTIONS] [SERVER]",
        about: "Log in to a registry (Docker Hub by default)",
        more: "The login is kept in config.json, or by the helper that credsStore or credHelpers names there.\n\nExamples:\n  \
               PROGRAM login host:5000                          ask for name and password\n  \
               PROGRAM login -u ann --password-stdin host:5000 < password.txt",
        words: Words::AtMost(1),
        things: Things::Registries,
        flags: &[&[
            Flag::new("password", Kind::Text, "Password or token; other users may see it").short('p'),
            Flag::new("password-stdin", Kind::Bool, "Read the password or token from standard input"),
            Flag::new("username", Kind::Text, "User name").short('u'),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(login(app, matches)),
    },
    Command {
        paths: &["logout"],
        usage: "[SERVER]",
        about: "Forget the login to a registry (Docker Hub by default)",
        more: "",
        words: Words::AtMost(1),
        things: Things::Registries,
        flags: &[],
        interspersed: true,
        run: |app, matches| Box::pin(logout(app, matches)),
    },
    Command {
        paths: &["search"],
        usage: "[OPTIONS] TERM",
        about: "Search Docker Hub, or with HOST/TERM another registry, for images",
        more: "",
        words: Words::Exactly(1),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("filter", Kind::Filter, "Show only what fits: is-official=, stars=").short('f'),
            super::FORMAT_TABLE,
            Flag::new("limit", Kind::Int, "Most results").default("0"),
            Flag::new("no-trunc", Kind::Bool, "Show everything in full"),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(search(app, matches)),
    },
];

/// `--platform`, or what the environment presets.
fn wished_platform<'a>(app: &'a App, matches: &'a Matches) -> &'a str {
    if matches.given("platform") { matches.text("platform") } else { app.environment.platform.as_deref().unwrap_or_default() }
}

/// Asks the engine to pull; without `out` nothing is shown.
pub(super) async fn pull_image(
    app: &App,
    reference: &Reference,
    platform: &str,
    out: Option<impl std::io::Write + std::os::fd::AsFd>,
) -> Outcome<()> {
    let name = reference.familiar();
    let (repository, tag) = split_tag(&name);
    let auth = credentials::header_for(app, &credentials::server_of(reference));
    let call = app.client()?.post("/images/create").query("fromImage", repository).query_some("tag", tag).query_some("platform", platform);
    let response = call.header("X-Registry-Auth", &auth).send().await?;
    match out {
        Some(out) => show_messages(response, out).await,
        None => messages(response, &mut Progress::new(std::io::sink(), None)).await,
    }
}

async fn pull(app: &App, matches: &Matches) -> Outcome {
    let given = &matches.words[0];
    let mut reference = Reference::parse_normalized(given).map_err(|error| CliError::new(error.to_string()))?;
    let (all, quiet) = (matches.truth("all-tags"), matches.truth("quiet"));
    let is_bare = reference.tag().is_none() && reference.digest().is_none();
    if all && !is_bare {
        return Err(CliError::new("tag can't be used with --all-tags/-a"));
    }
    app.check_trust(matches)?;
    if is_bare && !all {
        reference = reference.with_default_tag();
        if !quiet {
            app.line("Using default tag: latest")?;
        }
    }
    pull_image(app, &reference, wished_platform(app, matches), (!quiet).then(std::io::stdout)).await?;
    app.line(&reference.to_string())?;
    Ok(0)
}

async fn push(app: &App, matches: &Matches) -> Outcome {
    let mut reference = Reference::parse_normalized(&matches.words[0]).map_err(|error| CliError::new(error.to_string()))?;
    let (all, quiet) = (matches.truth("all-tags"), matches.truth("quiet"));
    let is_bare = reference.tag().is_none() && reference.digest().is_none();
    let platform = platform(matches)?;
    if !platform.is_empty() {
        app.print(
            "\n Info -> Using --platform pushes only the specified platform manifest of a multi-platform image index.\n         Other components, like attestations, will not be included.\n         To push the complete multi-platform image, remove the --platform flag.\n         \n",
        )?;
    }
    if all && !is_bare {
        return Err(CliError::new("tag can't be used with --all-tags/-a"));
    }
    if is_bare && !all {
        reference = reference.with_default_tag();
        if !quiet {
            app.line("Using default tag: latest")?;
        }
    }
    app.check_trust(matches)?;
    let auth = credentials::header_for(app, &credentials::server_of(&reference));
    if reference.digest().is_some() {
        return Err(CliError::new("cannot push a digest reference"));
    }
    let name = reference.familiar();
    let (repository, tag) = split_tag(&name);
    let call = app.client()?.post(format!("/images/{}/push", path(repository))).query("tag", tag).query_some("platform", &platform);
    let response = call.header("X-Registry-Auth", &auth).send().await?;
    if quiet {
        messages(response, &mut Progress::new(std::io::sink(), None)).await?;
        app.line(&reference.to_string())?;
    } else {
        show_messages(response, std::io::stdout()).await?;
    }
    Ok(0)
}

/// The name under which a server's login is kept: Docker Hub's own, or a host.
fn server(matches: &Matches) -> String {
    match matches.words.first().map(String::as_str) {
        None | Some("" | "docker.io" | HUB) => HUB.to_owned(),
        Some(typed) => credentials::hostname(typed),
    }
}

async fn login(app: &App, matches: &Matches) -> Outcome {
    let given = options(app, matches)?;
    let server = server(matches);
    let mut known = Login { server: server.clone(), ..Login::default() };
    if given.username.is_empty() && given.password.is_empty() {
        known = credentials::find(app, &server)?;
        known.server.clone_from(&server);
    }
    let mut status = None;
    if !known.username.is_empty() && !known.password.is_empty() {
        status = with_known(app, &known).await?;
    }
    let status = match status {
        Some(status) => status,
        None => {
            let login = ask(app, Login { server, ..given }, &known.username)?;
            let (status, login) = send(app, login).await?;
            credentials::store(app, &login)?;
            status
        }
    };
    if !status.is_empty() {
        app.line(&status)?;
    }
    Ok(0)
}

/// What flags and standard input say.
fn options(app: &App, matches: &Matches) -> Outcome<Login> {
    let username = matches.text("username").trim().to_owned();
    let mut password = matches.text("password").to_owned();
    if matches.given("username") && username.is_empty() {
        return Err(CliError::new("username is empty"));
    }
    if matches.given("password") {
        if password.is_empty() {
            return Err(CliError::new("password is empty"));
        }
        if matches.truth("password-stdin") {
            return Err(CliError::new("conflicting options: cannot specify both --password and --password-stdin"));
        }
        app.warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if matches.truth("password-stdin") {
        if username.is_empty() {
            return Err(CliError::new("the --password-stdin option requires --username to be set"));
        }
        std::io::stdin().take(MAX_SECRET).read_to_string(&mut password)?;
        let line = password.strip_suffix('\n').unwrap_or(&password);
        password = line.strip_suffix('\r').unwrap_or(line).to_owned();
    }
    Ok(Login { username, password, ..Login::default() })
}

/// Tries the login that is kept; `None` when the registry does not take it any more.
async fn with_known(app: &App, known: &Login) -> Outcome<Option<String>> {
    app.warn(&format!("Authenticating with existing credentials... [Username: {}]", known.username));
    app.warn("\n Info -> To login with a different account, run 'docker logout' followed by 'docker login'\n\n");
    match send(app, known.clone()).await {
        Ok((status, login)) => {
            credentials::store(app, &login)?;
            Ok(Some(status))
        }
        Err(error) => {
            if error.status == 401 {
                app.warn("Stored credentials invalid or expired");
            } else {
                app.warn(&format!("Login did not succeed, error: {}", error.text));
            }
            Ok(None)
        }
    }
}

/// Asks for what is missing.
fn ask(app: &App, mut login: Login, known: &str) -> Outcome<Login> {
    if !login.username.is_empty() && !login.password.is_empty() {
        return Ok(login);
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::new("Error: Cannot perform an interactive login from a non TTY device"));
    }
    if login.username.is_empty() {
        if login.server == HUB {
            app.line("Log in with your Docker ID or email address to push and pull images from Docker Hub. If you don't have a Docker ID, head over to https://hub.docker.com/ to create one.")?;
        }
        let preset = if known.is_empty() { String::new() } else { format!(" ({known})") };
        app.print(&format!("Username{preset}: "))?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        login.username = line.trim().to_owned();
        if login.username.is_empty() {
            known.clone_into(&mut login.username);
        }
        if login.username.is_empty() {
            return Err(CliError::new("Error: Non-null Username Required"));
        }
    }
    if login.password.is_empty() {
        app.print("Password: ")?;
        login.password = terminal::read_hidden()?;
        app.line("")?;
        if login.password.is_empty() {
            return Err(CliError::new("Error: Password Required"));
        }
    }
    Ok(login)
}

/// Has the engine prove a login; a token that the registry gave takes the password's place.
async fn send(app: &App, login: Login) -> Outcome<(String, Login)> {
    let body = object! {
        "username": login.username.clone(), "password": login.password.clone(), "serveraddress": login.server.clone(),
        "identitytoken": login.identity_token.clone(),
    };
    let answer = app.client()?.post("/auth").body(&body).json().await?;
    let token = answer.text("IdentityToken");
    let login = if token.is_empty() { login } else { Login { password: String::new(), identity_token: token.to_owned(), ..login } };
    Ok((answer.text("Status").to_owned(), login))
}

async fn logout(app: &App, matches: &Matches) -> Outcome {
    let server = server(matches);
    let mut servers = vec![server.clone()];
    if server != HUB {
        let typed = matches.words.first().cloned().unwrap_or_default();
        servers.extend([typed, format!("http://{server}"), format!("https://{server}")]);
        servers.dedup();
    }
    app.line(&format!("Removing login credentials for {server}"))?;
    credentials::erase(app, &servers).map_err(|error| CliError::new(format!("WARNING: could not erase credentials:\n{}", error.text)))?;
    Ok(0)
}

const SEARCH_HEADS: &[(&str, &str)] =
    &[("Name", "NAME"), ("Description", "DESCRIPTION"), ("StarCount", "STARS"), ("IsOfficial", "OFFICIAL"), ("IsAutomated", "AUTOMATED")];

async fn search(app: &App, matches: &Matches) -> Outcome {
    let term = &matches.words[0];
    let server = match term.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host.to_owned(),
        _ => HUB.to_owned(),
    };
    let auth = credentials::header_for(app, &server);
    let mut call = app.client()?.get("/images/search").query("term", term).filters(matches.list("filter"));
    let limit = matches.text("limit");
    if limit != "0" {
        call = call.query("limit", limit);
    }
    let found = call.header("X-Registry-Auth", &auth).json().await?;
    let mut items: Vec<&Json> = found.items().iter().collect();
    items.sort_by_key(|item| std::cmp::Reverse(item.int("star_count")));
    let full = matches.truth("no-trunc");
    let mark = |truth: bool| if truth { "[OK]" } else { "" };
    let rows: Vec<Record> = items
        .into_iter()
        .map(|item| {
            let description = item.text("description").replace(['\n', '\r'], " ");
            Record::new("")
                .with("Name", item.text("name"))
                .with("Description", if full { description } else { ellipsis(&description, 45) })
                .with("StarCount", item.int("star_count").to_string())
                .with("IsOfficial", mark(item.truth("is_official")))
                .with("IsAutomated", mark(item.truth("is_automated")))
        })
        .collect();
    let listing = Listing {
        format: matches.text("format"),
        table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
        raw: "",
        heads: SEARCH_HEADS,
        type_name: "*formatter.searchContext",
    };
    app.print(&listing.show(&rows)?)?;
    std::io::stdout().flush()?;
    Ok(0)
}
