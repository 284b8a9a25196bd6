//! `registry`: a server of images, and who may use it. Needs no engine; users are changed in the data root itself.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_registry::{Anonymous, Meta, Ready, Role, ServeConfig, TlsChoice};
use sampan_ui::table::{DOCKER, tabulate};
use sampan_ui::terminal;

use crate::app::App;
use crate::command::{Command, Running, Things, Words};
use crate::error::{CliError, Outcome};

/// Where a registry keeps everything if nobody says otherwise.
const DATA_ROOT: &str = "/var/lib/sampan-registry";
/// Where it listens.
const LISTEN: &str = "127.0.0.1:5000";
/// Largest password that is read.
const MAX_PASSWORD: u64 = 4096;

const ROOT: Flag = Flag::new("data-root", Kind::Text, "Folder of everything the registry keeps").default(DATA_ROOT);
const STDIN: Flag = Flag::new("password-stdin", Kind::Bool, "Read the password from standard input");
const ROLE: Flag = Flag::new("role", Kind::Text, "What the user may do: pull, push (with pull and delete), or admin");

const SERVE_MORE: &str = "\
Serve the OCI distribution API: docker, podman, skopeo, crane and others push to and pull
from it. It needs no root; run it as a user of its own that owns the data root.

TLS is one of --tls-cert with --tls-key, --tls-generate (makes an authority of its own in the
data root and says where clients must put it), or --http (no TLS: for loopback addresses, or
behind a proxy that speaks TLS). On a loopback address --http is the default.

There is no default password: add users with 'registry user add'. SIGTERM ends the server
when the requests under way are answered.";

const fn command(
    paths: &'static [&'static str],
    usage: &'static str,
    about: &'static str,
    more: &'static str,
    words: Words,
    flags: &'static [&'static [Flag]],
    run: for<'a> fn(&'a App, &'a Matches) -> Running<'a>,
) -> Command {
    Command { paths, usage, about, more, words, things: Things::Nothing, flags, interspersed: true, run }
}

pub(super) const COMMANDS: &[Command] = &[
    command(
        &["registry serve"],
        "[OPTIONS]",
        "Run a registry in the foreground",
        SERVE_MORE,
        Words::Exactly(0),
        &[&[
            Flag::new("access-log", Kind::Text, "Append a line for each request to this file instead of standard output"),
            Flag::new("anonymous", Kind::Text, "What clients may do without a login: none, pull or push").default("none"),
            ROOT,
            Flag::new("gc-interval", Kind::Duration, "How often blobs that no image needs are removed; 0: never").default("15m"),
            Flag::new("hostname", Kind::List, "Name or address for the certificate of --tls-generate, as clients call the registry"),
            Flag::new("http", Kind::Bool, "Serve without TLS"),
            Flag::new("listen", Kind::Text, "Address and port to listen at").default(LISTEN),
            Flag::new("max-blob-size", Kind::Bytes, "Largest blob that is taken").default("100g"),
            Flag::new("tls-cert", Kind::Text, "Certificate chain, PEM"),
            Flag::new("tls-generate", Kind::Bool, "Make an authority and a certificate in the data root"),
            Flag::new("tls-key", Kind::Text, "Key of the certificate, PEM"),
        ]],
        |app, matches| Box::pin(async move { serve(app, matches) }),
    ),
    command(
        &["registry user add"],
        "[OPTIONS] NAME",
        "Add a user to a registry",
        "The password is read from standard input with --password-stdin, else it is asked for twice.\nA registry that runs knows the user at once.",
        Words::Exactly(1),
        &[&[ROOT, STDIN, ROLE.default("push")]],
        |app, matches| Box::pin(async move { add(app, matches) }),
    ),
    command(
        &["registry user passwd"],
        "[OPTIONS] NAME",
        "Give a user of a registry another password",
        "Logins with the old password and what they were given end at once.",
        Words::Exactly(1),
        &[&[ROOT, STDIN]],
        |app, matches| Box::pin(async move { passwd(app, matches) }),
    ),
    command(
        &["registry user role"],
        "[OPTIONS] NAME ROLE",
        "Change what a user of a registry may do",
        "",
        Words::Exactly(2),
        &[&[ROOT]],
        |app, matches| Box::pin(async move { role(app, matches) }),
    ),
    command(
        &["registry user rm", "registry user remove"],
        "[OPTIONS] NAME [NAME...]",
        "Remove users from a registry",
        "",
        Words::AtLeast(1),
        &[&[ROOT]],
        |app, matches| Box::pin(async move { remove(app, matches) }),
    ),
    command(
        &["registry user ls", "registry user list"],
        "[OPTIONS]",
        "List the users of a registry",
        "",
        Words::Exactly(0),
        &[&[ROOT, Flag::new("quiet", Kind::Bool, "Show names only").short('q')]],
        |app, matches| Box::pin(async move { list(app, matches) }),
    ),
];

fn failed(error: &dyn std::error::Error) -> CliError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(&format!(": {next}"));
        source = next.source();
    }
    CliError::new(text)
}

fn serve(app: &App, matches: &Matches) -> Outcome {
    let config = configuration(matches)?;
    let (anonymous, program, root) = (config.anonymous, app.program().to_owned(), config.data_root.clone());
    let announce = |ready: &Ready| {
        let mut text = announcement(ready, &root);
        if ready.users == 0 && anonymous != Anonymous::Push {
            text.push_str(&format!("no users yet: add one with: {program} registry user add NAME --data-root {}\n", root.display()));
        }
        // Whoever does not read this still gets a registry.
        drop(std::io::stdout().write_all(text.as_bytes()));
    };
    // The server brings a runtime of its own, which cannot begin inside of another.
    let served = std::thread::scope(|scope| scope.spawn(|| sampan_registry::run(&config, announce)).join());
    match served {
        Ok(Ok(())) => Ok(0),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(CliError::new("the registry ended early: this is a bug")),
    }
}

fn configuration(matches: &Matches) -> Outcome<ServeConfig> {
    let text = matches.text("listen");
    let listen: std::net::SocketAddr = text.parse().map_err(|_| {
        CliError::new(format!("invalid --listen {text}: an address with a port is expected, such as 127.0.0.1:5000 or [::]:5000"))
    })?;
    let anonymous = match matches.text("anonymous") {
        "none" => Anonymous::None,
        "pull" => Anonymous::Pull,
        "push" => Anonymous::Push,
        other => return Err(CliError::new(format!("invalid --anonymous {other}: none, pull or push is expected"))),
    };
    let (certificate, key) = (matches.text("tls-cert"), matches.text("tls-key"));
    let files = !certificate.is_empty() || !key.is_empty();
    let chosen = [files, matches.truth("tls-generate"), matches.truth("http")];
    let tls = match chosen {
        [true, false, false] if certificate.is_empty() || key.is_empty() => {
            return Err(CliError::new("--tls-cert and --tls-key are needed together"));
        }
        [true, false, false] => TlsChoice::Files { certificate: certificate.into(), key: key.into() },
        [false, true, false] => TlsChoice::Generate { names: matches.list("hostname").to_vec() },
        [false, false, true] => TlsChoice::Off,
        [false, false, false] if listen.ip().is_loopback() => TlsChoice::Off,
        [false, false, false] => {
            return Err(CliError::new(format!(
                "{listen} can be reached from other machines: give --tls-cert and --tls-key, or --tls-generate, or --http if something in front of it speaks TLS"
            )));
        }
        _ => return Err(CliError::new("--tls-cert with --tls-key, --tls-generate and --http exclude each other")),
    };
    if !matches.list("hostname").is_empty() && !matches.truth("tls-generate") {
        return Err(CliError::new("--hostname belongs to --tls-generate"));
    }
    let log = matches.text("access-log");
    Ok(ServeConfig {
        data_root: matches.text("data-root").into(),
        listen,
        tls,
        anonymous,
        max_blob: blob_size(matches.text("max-blob-size"))?,
        collect_every: interval(matches.text("gc-interval"))?,
        access_log: (!log.is_empty()).then(|| PathBuf::from(log)),
    })
}

fn blob_size(text: &str) -> Outcome<u64> {
    let size = sampan_gotext::units::parse_binary_size(text).map_err(CliError::new)?;
    u64::try_from(size).map_err(|_| CliError::new(format!("invalid --max-blob-size {text}: it is negative")))
}

fn interval(text: &str) -> Outcome<Duration> {
    let nanoseconds = sampan_gotext::duration::parse(text).map_err(CliError::new)?;
    let nanoseconds = u64::try_from(nanoseconds).map_err(|_| CliError::new(format!("invalid --gc-interval {text}: it is negative")))?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// What a server says when it can be used.
fn announcement(ready: &Ready, root: &Path) -> String {
    let scheme = if ready.is_tls { "https" } else { "http" };
    let mut text = String::new();
    if let Some(authority) = &ready.authority {
        let name = ready.names.first().map_or("localhost", String::as_str);
        let place = format!("{name}:{}", ready.address.port());
        text.push_str(&format!("the certificate is for {}\n", ready.names.join(", ")));
        text.push_str("clients must trust the registry's authority; on each of them, as root:\n");
        for folder in ["/etc/docker/certs.d", "/etc/sampan/certs.d"] {
            text.push_str(&format!("  mkdir -p {folder}/{place} && cp {} {folder}/{place}/ca.crt\n", authority.display()));
        }
    }
    if !ready.is_tls {
        text.push_str("without TLS: passwords and images can be read on the way, unless the way is this machine's own\n");
    }
    text.push_str(&format!("listening on {scheme}://{} with data root {}\n", ready.address, root.display()));
    text
}

/// Does something with the users of a data root, as the user whom it belongs to: what root leaves there must stay theirs.
fn with_users<T: Send>(matches: &Matches, work: impl FnOnce(&Meta) -> Outcome<T> + Send) -> Outcome<T> {
    let root = PathBuf::from(matches.text("data-root"));
    let owner = match std::fs::metadata(&root) {
        Ok(data) => Some((data.uid(), data.gid())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(CliError::file("open", root.display(), &error)),
    };
    let is_root = rustix::process::geteuid().is_root();
    let worker = move || {
        if let Some((uid, gid)) = owner.filter(|(uid, _)| is_root && *uid != 0) {
            sampan_sys::user::become_user(uid, gid)
                .map_err(|error| CliError::new(format!("become the owner of the data root: {error}")))?;
        }
        let meta = Meta::open(&root).map_err(|error| failed(&error))?;
        work(&meta)
    };
    // A thread of its own: it alone becomes the other user.
    match std::thread::scope(|scope| scope.spawn(worker).join()) {
        Ok(outcome) => outcome,
        Err(_) => Err(CliError::new("the work on the users ended early: this is a bug")),
    }
}

fn check_name(name: &str) -> Outcome<()> {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b'+');
    if name.is_empty() || name.len() > 128 || !name.bytes().all(is_fit) {
        return Err(CliError::new(format!(
            "invalid user name \"{}\": up to 128 letters, digits and . _ - @ + are expected",
            sampan_base::sanitize(name)
        )));
    }
    Ok(())
}

fn parse_role(text: &str) -> Outcome<Role> {
    Role::parse(text)
        .ok_or_else(|| CliError::new(format!("invalid role \"{}\": pull, push or admin is expected", sampan_base::sanitize(text))))
}

/// A new password, from standard input or asked for twice.
fn new_password(app: &App, matches: &Matches) -> Outcome<String> {
    if matches.truth("password-stdin") {
        let mut bytes = Vec::new();
        std::io::stdin().take(MAX_PASSWORD).read_to_end(&mut bytes)?;
        let text = String::from_utf8(bytes).map_err(|_| CliError::new("the password is not UTF-8"))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(text.strip_suffix('\r').unwrap_or(text).to_owned());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::new("standard input is no terminal: give the password there with --password-stdin"));
    }
    let ask = |question: &str| -> Outcome<String> {
        app.print(question)?;
        let answer = terminal::read_hidden()?;
        app.line("")?;
        Ok(answer)
    };
    let first = ask("Password: ")?;
    if ask("Password again: ")? != first {
        return Err(CliError::new("the two passwords differ"));
    }
    Ok(first)
}

fn no_user(name: &str) -> CliError {
    CliError::new(format!("no user \"{}\"", sampan_base::sanitize(name)))
}

fn add(app: &App, matches: &Matches) -> Outcome {
    let name = &matches.words[0];
    check_name(name)?;
    let role = parse_role(matches.text("role"))?;
    let hash = sampan_registry::hash(&new_password(app, matches)?).map_err(|error| failed(&error))?;
    let is_new = with_users(matches, |meta| meta.add_user(name, &hash, role).map_err(|error| failed(&error)))?;
    if !is_new {
        let hint = format!("give another password: {} registry user passwd {name}", app.program());
        return Err(CliError::new(format!("there is a user \"{name}\" already")).hint(hint));
    }
    app.line(&format!("added {name} ({})", role.name()))?;
    Ok(0)
}

fn passwd(app: &App, matches: &Matches) -> Outcome {
    let name = &matches.words[0];
    let hash = sampan_registry::hash(&new_password(app, matches)?).map_err(|error| failed(&error))?;
    if with_users(matches, |meta| meta.change_user(name, Some(&hash), None).map_err(|error| failed(&error)))? {
        Ok(0)
    } else {
        Err(no_user(name))
    }
}

fn role(_: &App, matches: &Matches) -> Outcome {
    let (name, role) = (&matches.words[0], parse_role(&matches.words[1])?);
    if with_users(matches, |meta| meta.change_user(name, None, Some(role)).map_err(|error| failed(&error)))? {
        Ok(0)
    } else {
        Err(no_user(name))
    }
}

fn remove(app: &App, matches: &Matches) -> Outcome {
    let mut errors = Vec::new();
    for name in &matches.words {
        match with_users(matches, |meta| meta.remove_user(name).map_err(|error| failed(&error)))? {
            true => app.line(name)?,
            false => errors.push(no_user(name).text),
        }
    }
    if errors.is_empty() { Ok(0) } else { Err(CliError::new(errors.join("\n"))) }
}

fn list(app: &App, matches: &Matches) -> Outcome {
    let users = with_users(matches, |meta| meta.users().map_err(|error| failed(&error)))?;
    if matches.truth("quiet") {
        users.iter().try_for_each(|user| app.line(&user.name))?;
        return Ok(0);
    }
    let lines: String = users.iter().map(|user| format!("{}\t{}\n", user.name, user.role.name())).collect();
    app.print(&tabulate(&format!("NAME\tROLE\n{lines}"), DOCKER))?;
    Ok(0)
}
