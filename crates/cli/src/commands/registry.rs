//! `registry`: the server, and the users of a data root. No engine is asked.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sampan_gotext::Record;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_registry::config::{AccessLog, Config, Transport, is_loopback};
use sampan_registry::store::{make_root, open_database};
use sampan_registry::users::{self, Role};
use sampan_registry::{Running, ServeError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{FORMAT_TABLE, ago};
use crate::app::App;
use crate::command::{Command, Running as RunningCommand, Things, Words};
use crate::error::{CliError, Outcome};
use crate::format::Listing;

/// Where a registry keeps everything.
const DATA_ROOT: Flag = Flag::new("data-root", Kind::Text, "Folder of all that the registry keeps").default("/var/lib/sampan-registry");
const PASSWORD_STDIN: Flag = Flag::new("password-stdin", Kind::Bool, "Take the password from standard input");
const ROLE: Flag =
    Flag::new("role", Kind::Text, "What the user may do: pull, push (and pull), admin (everything)").default("push").check(|value| {
        match Role::parse(value) {
            Some(_) => Ok(value.to_owned()),
            None => Err("must be pull, push or admin".to_owned()),
        }
    });

const SERVE: &[Flag] = &[
    Flag::new("access-log", Kind::Text, "File to which each request is written; \"none\" for no log (default: standard output)"),
    Flag::new("allow-missing-blobs", Kind::Bool, "Take manifests whose layers are not here: for mirrors of parts of images"),
    Flag::new("anonymous", Kind::Text, "What clients without a login may do: none, pull, push or delete").default("none"),
    DATA_ROOT,
    Flag::new("hostname", Kind::List, "Name for the generated certificate (default: this host's names and the address of --listen)"),
    Flag::new("http", Kind::Bool, "Serve without TLS"),
    Flag::new("listen", Kind::Text, "Address and port to listen at").default("127.0.0.1:5000"),
    Flag::new("log-level", Kind::Text, "How much is logged on standard error: debug, info, warn or error").default("info"),
    Flag::new("max-blob-size", Kind::Bytes, "Largest blob that is taken").default("100g"),
    Flag::new("tls-cert", Kind::Text, "Certificate of the server, PEM, followed by those above it"),
    Flag::new("tls-generate", Kind::Bool, "Make a certificate authority in the data root, and a certificate signed by it"),
    Flag::new("tls-key", Kind::Text, "Key of the server's certificate, PEM"),
];

const fn user(
    path: &'static [&'static str],
    usage: &'static str,
    about: &'static str,
    words: Words,
    flags: &'static [&'static [Flag]],
    run: for<'a> fn(&'a App, &'a Matches) -> RunningCommand<'a>,
) -> Command {
    Command { paths: path, usage, about, more: "", words, things: Things::Nothing, flags, interspersed: true, run }
}

pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["registry serve"],
        usage: "[OPTIONS]",
        about: "Run a registry in the foreground",
        more: "It needs no privileges and no engine. One of --tls-cert with --tls-key, --tls-generate and --http\n\
               says how connections are protected; at a loopback address --http needs not be said.\n\
               SIGTERM and SIGINT end it when running transfers are done, at most 30 seconds later.\n\nExamples:\n  \
               PROGRAM registry serve --data-root ./registry                     on loopback, without TLS\n  \
               PROGRAM registry serve --data-root /srv/registry --tls-generate   with a certificate made here\n  \
               PROGRAM registry user add ann                                     then: PROGRAM login HOST:PORT",
        words: Words::Exactly(0),
        things: Things::Files,
        flags: &[SERVE],
        interspersed: true,
        run: |app, matches| Box::pin(serve(app, matches)),
    },
    user(
        &["registry user add"],
        "[OPTIONS] NAME",
        "Add a user; a running registry notices",
        Words::Exactly(1),
        &[&[DATA_ROOT, PASSWORD_STDIN, ROLE]],
        |app, matches| Box::pin(add(app, matches)),
    ),
    user(
        &["registry user ls", "registry user list"],
        "[OPTIONS]",
        "List users",
        Words::Exactly(0),
        &[&[DATA_ROOT, FORMAT_TABLE, Flag::new("quiet", Kind::Bool, "Show names only").short('q')]],
        |app, matches| Box::pin(list(app, matches)),
    ),
    user(
        &["registry user passwd"],
        "[OPTIONS] NAME",
        "Change a user's password; tokens of the old one end",
        Words::Exactly(1),
        &[&[DATA_ROOT, PASSWORD_STDIN]],
        |app, matches| Box::pin(change(app, matches)),
    ),
    user(
        &["registry user rm", "registry user remove"],
        "[OPTIONS] NAME [NAME...]",
        "Remove users",
        Words::AtLeast(1),
        &[&[DATA_ROOT]],
        |app, matches| Box::pin(remove(app, matches)),
    ),
];

/// An error with its causes on one line.
fn failure(error: &(dyn std::error::Error + 'static)) -> CliError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    CliError::new(text)
}

fn listen_address(text: &str) -> Outcome<SocketAddr> {
    let invalid = |reason: &str| CliError::new(format!("invalid argument {text:?} for --listen: {reason}"));
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().map_err(|_| invalid("not a port"))?;
        return Ok(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], port)));
    }
    let mut found = text.to_socket_addrs().map_err(|error| invalid(&crate::error::errno_text(&error)))?;
    found.next().ok_or_else(|| invalid("it names no address"))
}

/// The names of this host, and the address that is listened at.
fn own_names(listen: IpAddr) -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut names = vec![host, "localhost".to_owned()];
    names.retain(|name| !name.is_empty() && name != "(none)");
    if listen.is_unspecified() {
        names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
    } else {
        names.push(listen.to_canonical().to_string());
    }
    names.dedup();
    names
}

fn transport(app: &App, matches: &Matches, listen: IpAddr) -> Outcome<Transport> {
    let (certificate, key) = (matches.text("tls-cert"), matches.text("tls-key"));
    if certificate.is_empty() != key.is_empty() {
        return Err(CliError::new("--tls-cert and --tls-key belong together"));
    }
    let (files, generate, plain) = (!certificate.is_empty(), matches.truth("tls-generate"), matches.truth("http"));
    if matches.given("hostname") && !generate {
        return Err(CliError::new("--hostname is for the certificate of --tls-generate"));
    }
    match (files, generate, plain) {
        (true, false, false) => Ok(Transport::Files { certificate: certificate.into(), key: key.into() }),
        (false, true, false) => {
            let given = matches.list("hostname");
            Ok(Transport::Generated { names: if given.is_empty() { own_names(listen) } else { given.to_vec() } })
        }
        (false, false, true) => Ok(Transport::Plain),
        (false, false, false) if is_loopback(listen) => {
            app.warn("Without TLS, as if --http was given: the address is a loopback address.");
            Ok(Transport::Plain)
        }
        (false, false, false) => Err(CliError::new(
            "say how connections are protected: --tls-cert FILE --tls-key FILE, --tls-generate, or --http for not at all",
        )),
        _ => Err(CliError::new("conflicting options: give one of --tls-cert with --tls-key, --tls-generate and --http")),
    }
}

fn config(app: &App, matches: &Matches) -> Outcome<Config> {
    let listen = listen_address(matches.text("listen"))?;
    let strangers = match matches.text("anonymous") {
        "none" => None,
        "pull" => Some(Role::Pull),
        "push" => Some(Role::Push),
        "delete" => Some(Role::Admin),
        other => return Err(CliError::new(format!("invalid argument {other:?} for --anonymous: must be none, pull, push or delete"))),
    };
    let mut config = Config::new(matches.text("data-root").into(), listen, transport(app, matches, listen.ip())?);
    config.strangers = strangers;
    config.allow_missing_blobs = matches.truth("allow-missing-blobs");
    config.access_log = match matches.text("access-log") {
        "" | "-" => AccessLog::Stdout,
        "none" => AccessLog::Off,
        file => AccessLog::File(file.into()),
    };
    if matches.given("max-blob-size") {
        config.limits.blob = u64::try_from(matches.int("max-blob-size")).unwrap_or(0);
    }
    Ok(config)
}

/// The owner of a data root, if it is there and another user.
fn other_owner(root: &Path) -> Option<(u32, u32)> {
    let facts = std::fs::metadata(root).ok()?;
    let is_root = rustix::process::geteuid().is_root();
    (is_root && facts.uid() != 0).then_some((facts.uid(), facts.gid()))
}

async fn serve(app: &App, matches: &Matches) -> Outcome {
    let level = matches.text("log-level");
    if !["debug", "info", "warn", "error"].contains(&level) {
        return Err(CliError::new(format!("invalid argument {level:?} for --log-level: must be debug, info, warn or error")));
    }
    let config = config(app, matches)?;
    if let Some((uid, gid)) = other_owner(&config.data_root) {
        let root = config.data_root.display();
        return Err(CliError::new(format!("the data root {root} belongs to user {uid}: root would leave files that he cannot read")).hint(
            format!("start it as that user: setpriv --reuid {uid} --regid {gid} --clear-groups {} registry serve …", app.program()),
        ));
    }
    let filter = format!("{level},hyper=warn,h2=warn,rustls=warn");
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init());
    let (stop, stopped) = watch::channel(false);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (tell, mut ended) = tokio::sync::oneshot::channel();
    let program = app.program().to_owned();
    let root = config.data_root.clone();
    // The server has a runtime of its own, with more threads than a command has.
    std::thread::Builder::new().name("serve".into()).spawn(move || {
        let outcome = sampan_registry::serve(&config, stopped, |running| announce(&program, &root, running));
        drop(tell.send(outcome));
    })?;
    let outcome: Result<Result<(), ServeError>, _> = tokio::select! {
        outcome = &mut ended => outcome,
        _ = terminate.recv() => { stop.send_replace(true); ended.await }
        _ = interrupt.recv() => { stop.send_replace(true); ended.await }
    };
    match outcome {
        Ok(Ok(())) => Ok(0),
        Ok(Err(error)) => Err(failure(&error)),
        Err(_) => Err(CliError::new("the registry ended by a fault of its own")),
    }
}

/// Says where the registry is and what may be missing.
fn announce(program: &str, root: &Path, running: &Running) {
    let mut text = String::new();
    if let Some(authority) = &running.authority {
        let file = std::path::absolute(authority).unwrap_or_else(|_| authority.clone());
        let (file, port) = (file.display(), running.address.port());
        text.push_str(&format!(
            "clients must trust the authority in {file}, on each of them (HOST as they name it):\n  \
             install -D -m 644 {file} /etc/docker/certs.d/HOST:{port}/ca.crt\n  \
             install -D -m 644 {file} /etc/sampan/certs.d/HOST:{port}/ca.crt\n"
        ));
    }
    if running.nobody_may {
        let root = root.display();
        text.push_str(&format!("nobody may log in yet: add a user with: {program} registry user add NAME --data-root {root}\n"));
    }
    let scheme = if running.tls { "https" } else { "http" };
    text.push_str(&format!("listening on {scheme}://{}\n", running.address));
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Does something with the users of a data root, as the user who owns it.
fn on_users<T: Send>(matches: &Matches, work: impl FnOnce(&sampan_durable::Db) -> Outcome<T> + Send) -> Outcome<T> {
    let root = PathBuf::from(matches.text("data-root"));
    if !root.exists() {
        make_root(&root).map_err(|error| CliError::file("mkdir", root.display(), &error))?;
    }
    let owner = other_owner(&root);
    let run = move || {
        if let Some((uid, gid)) = owner {
            sampan_sys::user::become_user(uid, gid)?;
        }
        let db = open_database(&root)
            .map_err(|error| CliError::new(format!("open the users of {}: {}", root.display(), failure(&error).text)))?;
        work(&db)
    };
    // A thread of its own: what it becomes ends with it.
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|_| Err(CliError::new("the command ended by a fault of its own")))
}

/// A password from standard input, or typed twice.
fn password(app: &App, matches: &Matches) -> Outcome<String> {
    if matches.truth("password-stdin") {
        let mut text = String::new();
        std::io::stdin().lock().take(64 << 10).read_to_string(&mut text)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(text.strip_suffix('\r').unwrap_or(text).to_owned());
    }
    if !sampan_ui::terminal::is_terminal(std::io::stdin()) {
        return Err(CliError::new("standard input is no terminal: give the password with --password-stdin"));
    }
    let first = ask(app, "Password: ")?;
    let second = ask(app, "Again: ")?;
    if first == second { Ok(first) } else { Err(CliError::new("the two passwords are not the same")) }
}

/// Asks without showing what is typed.
fn ask(app: &App, question: &str) -> Outcome<String> {
    let mut err = std::io::stderr().lock();
    err.write_all(question.as_bytes())?;
    err.flush()?;
    drop(err);
    let read = sampan_ui::terminal::read_hidden();
    app.warn("");
    Ok(read?)
}

async fn add(app: &App, matches: &Matches) -> Outcome {
    let password = password(app, matches)?;
    let role = Role::parse(matches.text("role")).unwrap_or(Role::Push);
    let name = &matches.words[0];
    on_users(matches, |db| users::add(db, name, &password, role).map_err(|error| failure(&error)))?;
    app.line(name)?;
    Ok(0)
}

async fn change(app: &App, matches: &Matches) -> Outcome {
    let password = password(app, matches)?;
    let name = &matches.words[0];
    on_users(matches, |db| users::change_password(db, name, &password).map_err(|error| failure(&error)))?;
    app.line(name)?;
    Ok(0)
}

async fn remove(app: &App, matches: &Matches) -> Outcome {
    app.each(&matches.words, |name| async move {
        on_users(matches, |db| users::remove(db, name).map_err(|error| failure(&error)))?;
        Ok(name.to_owned())
    })
    .await
}

async fn list(app: &App, matches: &Matches) -> Outcome {
    let users = on_users(matches, |db| users::list(db).map_err(|error| failure(&error)))?;
    if matches.truth("quiet") {
        for user in users {
            app.line(&user.name)?;
        }
        return Ok(0);
    }
    let row = |user: &users::User| {
        let created = jiff::Timestamp::from_second(user.created_at).unwrap_or_default().to_string();
        Record::new("")
            .with("CreatedAt", created)
            .with("CreatedSince", ago(user.created_at))
            .with("Name", user.name.as_str())
            .with("Role", user.role.name())
    };
    let rows: Vec<Record> = users.iter().map(row).collect();
    let listing = Listing {
        format: matches.text("format"),
        table: "{{.Name}}\t{{.Role}}\t{{.CreatedSince}}",
        raw: "",
        heads: &[("Name", "NAME"), ("Role", "ROLE"), ("CreatedSince", "CREATED"), ("CreatedAt", "CREATED AT")],
        type_name: "*formatter.registryUserContext",
    };
    app.print(&listing.show(&rows)?)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        assert_eq!(listen_address("127.0.0.1:5000").unwrap().port(), 5000);
        assert!(listen_address(":5000").unwrap().ip().is_unspecified());
        for bad in ["5000", "x:y", ":70000", ""] {
            assert!(listen_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_certificate_has_the_address_that_is_listened_at() {
        assert!(own_names("10.0.0.1".parse().unwrap()).contains(&"10.0.0.1".to_owned()));
        assert!(own_names("::".parse().unwrap()).contains(&"::1".to_owned()));
    }
}
