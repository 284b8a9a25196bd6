//! `build` and `builder prune`.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_gotext::units::{size, size_with_digits};
use sampan_sys::sock;
use sampan_ui::terminal;
use sampan_wire::{Json, object};

use super::FORCE;
use crate::app::App;
use crate::build::context::{self, Prepared};
use crate::build::progress::{Shown, Style};
use crate::command::{Command, Things, Words};
use crate::create::checks;
use crate::credentials;
use crate::error::{CliError, Outcome};
use crate::remote::{Body, Call, channel};

const BUILD: &[Flag] = &[
    Flag::new("add-host", Kind::List, "Add a line to /etc/hosts of commands (host:ip)").check(checks::extra_host),
    Flag::new("build-arg", Kind::List, "Set a build argument (NAME=VALUE, or NAME from the environment)"),
    Flag::new("cache-from", Kind::Strings, "Images whose steps may be used"),
    Flag::new("cgroup-parent", Kind::Text, "Parent cgroup of commands").later("all builds share the engine's cgroup"),
    Flag::new("compress", Kind::Bool, "Compress the context on its way").later("the context does not leave this machine"),
    Flag::new("cpu-period", Kind::Int, "Period of the CPU limit, in microseconds"),
    Flag::new("cpu-quota", Kind::Int, "CPU time in each period, in microseconds"),
    Flag::new("cpu-shares", Kind::Int, "Relative weight").short('c'),
    Flag::new("cpuset-cpus", Kind::Text, "CPUs that commands may use (0-3, 0,1)"),
    Flag::new("cpuset-mems", Kind::Text, "Memory nodes that commands may use (0-3, 0,1)"),
    Flag::new("disable-content-trust", Kind::Bool, "Do not check signatures of images").default("true"),
    Flag::new("explain", Kind::Bool, "Say for each step why it ran or was cached"),
    Flag::new("file", Kind::Text, "The Dockerfile (default: PATH/Dockerfile; - is standard input)").short('f'),
    Flag::new("force-rm", Kind::Bool, "Remove containers of failed commands (always so)"),
    Flag::new("iidfile", Kind::Text, "Write the image's ID to a file"),
    Flag::new("isolation", Kind::Text, "Container isolation technology"),
    Flag::new("label", Kind::List, "Set a label of the image"),
    Flag::new("memory", Kind::Bytes, "Memory limit of commands").short('m'),
    Flag::new("memory-swap", Kind::Text, "Limit of memory and swap together; -1 for none"),
    Flag::new("network", Kind::Text, "Network of RUN commands: default, none or host").default("default"),
    Flag::new("no-cache", Kind::Bool, "Use no results of earlier builds"),
    Flag::new("platform", Kind::Text, "Platform to build for"),
    Flag::new("progress", Kind::Text, "How progress is shown: auto, plain, tty or quiet").default("auto"),
    Flag::new("pull", Kind::Bool, "Fetch newer versions of base images"),
    Flag::new("quiet", Kind::Bool, "Print the image's ID only").short('q'),
    Flag::new("rm", Kind::Bool, "Remove containers of commands (always so)").default("true"),
    Flag::new("security-opt", Kind::Strings, "Security options of commands").later("commands are confined like containers"),
    Flag::new("shm-size", Kind::Bytes, "Size of /dev/shm of commands"),
    Flag::new("squash", Kind::Bool, "Make one layer of all").later("images keep their layers"),
    Flag::new("tag", Kind::List, "Name of the image (NAME[:TAG])").short('t').check(tag),
    Flag::new("target", Kind::Text, "Stage to build"),
    Flag::new("ulimit", Kind::Other("ulimit"), "Limit of commands (name=soft[:hard])").default("[]").check(checks::ulimit),
];

pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["image build", "build", "builder build"],
        usage: "[OPTIONS] PATH | -",
        about: "Build an image from a Dockerfile",
        more: "With '-' a Dockerfile, or a tar archive of the whole context, is read from\nstandard input.",
        words: Words::Exactly(1),
        things: Things::Files,
        flags: &[BUILD],
        interspersed: true,
        run: |app, matches| Box::pin(build(app, matches)),
    },
    Command {
        paths: &["builder prune"],
        usage: "[OPTIONS]",
        about: "Remove results of earlier builds",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("all", Kind::Bool, "Remove what images with names were built from, too").short('a'),
            Flag::new("filter", Kind::Filter, "Remove only what fits: until="),
            FORCE,
            Flag::new("keep-storage", Kind::Bytes, "How much may stay"),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(prune(app, matches)),
    },
];

fn tag(value: &str) -> Result<String, String> {
    sampan_oci::Reference::parse_normalized(value).map(|_| value.to_owned()).map_err(|error| error.to_string())
}

/// `NAME=VALUE`, or `NAME` with the value of the environment, which may have none.
fn arguments(app: &App, list: &[String]) -> String {
    let variables: BTreeMap<&str, &str> = app.environment.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let one = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Json::from(value)),
        None => (text.clone(), variables.get(text.as_str()).map_or(Json::NULL, |value| Json::from(*value))),
    };
    let map: BTreeMap<String, Json> = list.iter().map(one).collect();
    Json::Object(map.into_iter().collect()).print()
}

fn labels(list: &[String]) -> String {
    let pairs = list.iter().map(|text| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value)
    });
    let map: BTreeMap<String, &str> = pairs.collect();
    Json::map(map).print()
}

fn request<'a>(app: &'a App, matches: &Matches, dockerfile: &str, native: bool) -> Outcome<Call<'a>> {
    let mut call = app.client()?.post("/build").query("version", "1").query_some("dockerfile", dockerfile);
    for name in matches.list("tag") {
        call = call.query("t", name);
    }
    let number = |name: &str| Some(matches.int(name)).filter(|value| *value != 0).map(|value| value.to_string()).unwrap_or_default();
    let bytes = |name: &str| matches.text(name).trim_start_matches('0').to_owned();
    let swap = match matches.text("memory-swap") {
        "" | "-1" => matches.text("memory-swap").to_owned(),
        text => sampan_gotext::units::parse_binary_size(text).map_err(|error| CliError::new(error.to_string()))?.to_string(),
    };
    call = call
        .query_if("q", matches.truth("quiet"))
        .query_if("nocache", matches.truth("no-cache"))
        .query_if("pull", matches.truth("pull"))
        .query_if("forcerm", matches.truth("force-rm"))
        .query("rm", if matches.truth("rm") { "1" } else { "0" })
        .query_some("target", matches.text("target"))
        .query_some("networkmode", matches.text("network"))
        .query_some("memory", &bytes("memory"))
        .query_some("memswap", &swap)
        .query_some("shmsize", &bytes("shm-size"))
        .query_some("cpuperiod", &number("cpu-period"))
        .query_some("cpuquota", &number("cpu-quota"))
        .query_some("cpushares", &number("cpu-shares"))
        .query_some("cpusetcpus", matches.text("cpuset-cpus"))
        .query_some("cpusetmems", matches.text("cpuset-mems"))
        .query_some("isolation", matches.text("isolation"))
        .query("buildargs", &arguments(app, matches.list("build-arg")))
        .query("labels", &labels(matches.list("label")))
        .query("cachefrom", &Json::list(matches.list("cache-from").to_vec()).print())
        .query_if("sampan", native);
    let platform =
        if matches.given("platform") { matches.text("platform") } else { app.environment.platform.as_deref().unwrap_or_default() };
    call = call.query_some("platform", platform);
    if !matches.list("add-host").is_empty() {
        call = call.query("extrahosts", &Json::list(matches.list("add-host").to_vec()).print());
    }
    let limits =
        matches.list("ulimit").iter().map(|limit| checks::parse_ulimit(limit)).collect::<Result<Vec<_>, _>>().map_err(CliError::new)?;
    let limits: Vec<Json> = limits.into_iter().map(|(name, soft, hard)| object! { "Name": name, "Soft": soft, "Hard": hard }).collect();
    if !limits.is_empty() {
        call = call.query("ulimits", &Json::Array(limits).print());
    }
    Ok(call.header("X-Registry-Config", &credentials::registry_config(app)))
}

/// Gives an engine of this machine the folder itself: the open connection and a token for the build. `None` where the engine is
/// another one or does not take it; then the folder is sent as an archive.
fn hand_over(app: &App, prepared: &Prepared) -> Option<(OwnedFd, String)> {
    let root = prepared.context.folder()?;
    let (_, host) = app.context().ok()?;
    let socket = sock::connect(Path::new(&format!("{}.files", host.strip_prefix("unix://")?))).ok()?;
    let folder = sampan_sys::dir::open(root).ok()?;
    sock::send(socket.as_fd(), b"sampan-context-1", &[folder.as_fd()]).ok()?;
    let (token, _) = sock::receive(socket.as_fd(), true).ok()?;
    let token = String::from_utf8(token).ok().filter(|token| !token.is_empty())?;
    Some((socket, token))
}

/// What Docker says of a context that was sent.
#[derive(Clone)]
enum Tell {
    Nothing,
    AtOnce,
    /// When the build fails.
    Later(Arc<Mutex<String>>),
}

/// A tar on its way.
fn upload(prepared: Prepared, tell: Tell) -> Body {
    let (sender, body) = channel();
    std::thread::spawn(move || {
        let counts = !matches!((&tell, &prepared.context), (Tell::Nothing, _));
        let mut counting = Counting { sender, sent: 0 };
        match context::send(prepared, &mut counting) {
            Ok(()) if counts => {
                #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
                let shown = size_with_digits(counting.sent as f64, 4);
                let text = format!("Sending build context to Docker daemon {shown:>8}\r\r\n");
                match tell {
                    Tell::Later(held) => *held.lock().unwrap_or_else(PoisonError::into_inner) = text,
                    _ => drop(io::stdout().write_all(text.as_bytes())),
                }
            }
            Ok(()) => {}
            Err(error) => {
                if error.kind() != io::ErrorKind::BrokenPipe {
                    drop(writeln!(io::stderr(), "error checking context: {error}"));
                }
                counting.sender.fail(error);
            }
        }
    });
    body
}

struct Counting {
    sender: crate::remote::Sender,
    sent: u64,
}

impl io::Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sender.write(bytes)?;
        self.sent += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sender.flush()
    }
}

const BANNER: &str = "DEPRECATED: The legacy builder is deprecated and will be removed in a future release.\n            BuildKit is currently disabled; enable it by removing the DOCKER_BUILDKIT=0\n            environment-variable.\n";

async fn build(app: &App, matches: &Matches) -> Outcome {
    app.check_trust(matches)?;
    let old = app.environment.variables.iter().any(|(name, value)| name == "DOCKER_BUILDKIT" && matches!(value.as_str(), "0" | "false"));
    let classic = app.program() == "docker" && old;
    if classic {
        app.warn(BANNER);
    }
    let prepared = context::prepare(&matches.words[0], matches.text("file"))?;
    let quiet = matches.truth("quiet");
    let native = !classic;
    let iidfile = matches.text("iidfile");
    if !iidfile.is_empty() {
        match std::fs::remove_file(iidfile) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(CliError::new(format!("removing image ID file: {error}"))),
            _ => {}
        }
    }
    let call = request(app, matches, &prepared.dockerfile, native)?;
    let call = match prepared.context.address() {
        Some(address) => call.query("remote", address),
        None => call,
    };
    let image = if native {
        let style = style(matches, quiet)?;
        let handed = hand_over(app, &prepared);
        let call = match &handed {
            Some((_, token)) => call.query("sampancontext", token),
            None if prepared.context.address().is_some() => call,
            None => call.stream(upload(prepared, Tell::Nothing), "application/x-tar"),
        };
        let response = call.send().await?;
        let image = events(response, &mut Shown::new(io::stderr(), style), matches.truth("explain")).await?;
        if quiet {
            app.line(&image)?;
        }
        image
    } else {
        let held = Arc::new(Mutex::new(String::new()));
        let tell = if prepared.context.address().is_some() {
            Tell::Nothing
        } else if quiet {
            Tell::Later(Arc::clone(&held))
        } else {
            Tell::AtOnce
        };
        let mut said = String::new();
        let image = match call.stream(upload(prepared, tell), "application/x-tar").send().await {
            Ok(response) => texts(app, response, quiet.then_some(&mut said)).await,
            Err(error) => Err(error),
        };
        if image.is_err() {
            // What a quiet build kept to itself.
            let held = std::mem::take(&mut *held.lock().unwrap_or_else(PoisonError::into_inner));
            drop(io::stderr().write_all(format!("{held}{said}").as_bytes()));
        } else {
            app.print(&said)?;
        }
        image?
    };
    if !iidfile.is_empty() {
        std::fs::write(Path::new(iidfile), &image).map_err(|error| CliError::file("open", iidfile, &error))?;
    }
    Ok(0)
}

fn style(matches: &Matches, quiet: bool) -> Outcome<Style> {
    let columns = || terminal::size(io::stderr()).map_or(80, |(_, columns)| usize::from(columns));
    match matches.text("progress") {
        _ if quiet => Ok(Style::Quiet),
        "quiet" => Ok(Style::Quiet),
        "auto" | "" if terminal::is_terminal(io::stderr()) => Ok(Style::Live(columns())),
        "auto" | "" | "plain" => Ok(Style::Plain),
        "tty" if terminal::is_terminal(io::stderr()) => Ok(Style::Live(columns())),
        "tty" => Err(CliError::new("failed to get console: provided file is not a console")),
        other => Err(CliError::new(format!("invalid progress mode {other}"))),
    }
}

/// Reads JSON lines until one says that the build failed; `take` gets the others.
struct Messages {
    body: Incoming,
    text: Vec<u8>,
}

impl Messages {
    fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), text: Vec::new() }
    }

    /// The next messages; `None` at the end.
    async fn next(&mut self) -> Outcome<Option<Vec<Json>>> {
        let Some(frame) = self.body.frame().await else { return Ok(None) };
        let frame = frame.map_err(|error| CliError::new(format!("the engine's answer broke off: {error}")))?;
        let Ok(bytes) = frame.into_data() else { return Ok(Some(Vec::new())) };
        self.text.extend_from_slice(&bytes);
        if self.text.len() > 64 << 20 {
            return Err(CliError::new("a message of the engine is too long"));
        }
        let mut found = Vec::new();
        while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.text.drain(..=end).collect();
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let message = Json::parse(&line).map_err(|error| CliError::new(format!("the engine's answer is no JSON: {error}")))?;
            found.push(message);
        }
        Ok(Some(found))
    }
}

/// The error that a message is, with the exit code of the failing command.
fn failure(message: &Json) -> Option<CliError> {
    let detail = message.get("errorDetail");
    let text = if detail.is_null() { message.text("error") } else { detail.text("message") };
    let code = u8::try_from(detail.int("code")).unwrap_or(1).max(1);
    (!detail.is_null() || !text.is_empty()).then(|| CliError::new(text).code(code))
}

async fn events(response: Response<Incoming>, shown: &mut Shown<impl io::Write>, explain: bool) -> Outcome<String> {
    let mut messages = Messages::new(response);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let failed = loop {
        let found = tokio::select! {
            found = messages.next() => found?,
            _ = tick.tick() => {
                shown.draw()?;
                continue;
            }
        };
        let Some(found) = found else { break None };
        let mut failed = None;
        for message in &found {
            failed = failed.or(failure(message));
            let event = message.get("sampan");
            if !event.is_null() {
                shown.take(event)?;
            }
        }
        if failed.is_some() {
            break failed;
        }
    };
    shown.end(failed.is_some(), explain)?;
    match failed {
        Some(error) => Err(error),
        None if shown.image.is_empty() => Err(CliError::new("the engine's answer broke off")),
        None => Ok(shown.image.clone()),
    }
}

/// The classic builder's texts, as they come.
async fn texts(app: &App, response: Response<Incoming>, mut quiet: Option<&mut String>) -> Outcome<String> {
    let mut messages = Messages::new(response);
    let mut image = String::new();
    while let Some(found) = messages.next().await? {
        for message in &found {
            if let Some(error) = failure(message) {
                return Err(error);
            }
            let id = message.get("aux").text("ID");
            if !id.is_empty() {
                id.clone_into(&mut image);
            }
            match &mut quiet {
                Some(said) => said.push_str(message.text("stream")),
                None => app.print(message.text("stream"))?,
            }
            let status = message.text("status");
            if !status.is_empty() && message.get("progressDetail").is_null() {
                let head = message.text("id");
                app.line(&if head.is_empty() { status.to_owned() } else { format!("{head}: {status}") })?;
            }
        }
    }
    Ok(image)
}

async fn prune(app: &App, matches: &Matches) -> Outcome {
    let all = matches.truth("all");
    let what = if all { "all build cache" } else { "all dangling build cache" };
    if !matches.truth("force") && !app.confirm(&format!("WARNING! This will remove {what}. Are you sure you want to continue?"))? {
        return Ok(0);
    }
    let mut call = app.client()?.post("/build/prune").query_if("all", all).filters(matches.list("filter"));
    if matches.given("keep-storage") {
        call = call.query("keep-storage", matches.text("keep-storage"));
    }
    let done = call.json().await?;
    let gone = done.texts("CachesDeleted");
    if !gone.is_empty() {
        app.line(&format!("Deleted build cache objects:\n{}\n", gone.join("\n")))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
    let freed = done.int("SpaceReclaimed") as f64;
    app.line(&format!("Total reclaimed space: {}", size(freed)))?;
    Ok(0)
}
