//! `create`, `run`, `start`, `attach`, `exec`.

use std::io::Write as _;

use http_body_util::BodyExt as _;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_oci::Reference;
use sampan_ui::terminal;
use sampan_wire::{Json, object};

use super::images::default_tag;
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::create::flags::{CREATE, RUN};
use crate::create::{self, Sources, Wish};
use crate::error::{CliError, Outcome, errno_text};
use crate::remote::{Client, escape, read_all};
use crate::session::{End, Session, detach_keys};

const DETACH_KEYS: Flag = Flag::new("detach-keys", Kind::Text, "Keys that detach from the container");
const SIG_PROXY: Flag = Flag::new("sig-proxy", Kind::Bool, "Pass signals on to the process").default("true");

pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["container run", "run"],
        usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        about: "Create and run a new container from an image",
        more: "",
        words: Words::AtLeast(1),
        things: Things::ImageThenFiles,
        flags: &[CREATE, RUN],
        interspersed: false,
        run: |app, matches| Box::pin(run(app, matches)),
    },
    Command {
        paths: &["container create", "create"],
        usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        about: "Create a new container",
        more: "",
        words: Words::AtLeast(1),
        things: Things::ImageThenFiles,
        flags: &[CREATE],
        interspersed: false,
        run: |app, matches| Box::pin(create_only(app, matches)),
    },
    Command {
        paths: &["container start", "start"],
        usage: "[OPTIONS] CONTAINER [CONTAINER...]",
        about: "Start one or more stopped containers",
        more: "",
        words: Words::AtLeast(1),
        things: Things::Stopped,
        flags: &[&[
            Flag::new("attach", Kind::Bool, "Attach to standard output and standard error, and pass signals on").short('a'),
            Flag::new("checkpoint", Kind::Text, "Start from a checkpoint").later("checkpoints are not there"),
            Flag::new("checkpoint-dir", Kind::Text, "Where the checkpoint lies").later("checkpoints are not there"),
            DETACH_KEYS,
            Flag::new("interactive", Kind::Bool, "Attach to standard input").short('i'),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(start(app, matches)),
    },
    Command {
        paths: &["container attach", "attach"],
        usage: "[OPTIONS] CONTAINER",
        about: "Attach this terminal to a container that runs",
        more: "",
        words: Words::Exactly(1),
        things: Things::Running,
        flags: &[&[DETACH_KEYS, Flag::new("no-stdin", Kind::Bool, "Do not attach standard input"), SIG_PROXY]],
        interspersed: true,
        run: |app, matches| Box::pin(attach(app, matches)),
    },
    Command {
        paths: &["container exec", "exec"],
        usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
        about: "Execute a command in a running container",
        more: "",
        words: Words::AtLeast(2),
        things: Things::RunningThenFiles,
        flags: &[&[
            Flag::new("detach", Kind::Bool, "Run in the background").short('d'),
            DETACH_KEYS,
            Flag::new("env", Kind::List, "Set an environment variable").short('e').check(create::checks::variable),
            Flag::new("env-file", Kind::List, "Read environment variables from a file"),
            Flag::new("interactive", Kind::Bool, "Keep standard input open").short('i'),
            Flag::new("privileged", Kind::Bool, "Give all rights of the host's root"),
            Flag::new("tty", Kind::Bool, "Give a terminal").short('t'),
            Flag::new("user", Kind::Text, "User and group to run as (name|uid[:group|gid])").short('u'),
            Flag::new("workdir", Kind::Text, "Working directory").short('w'),
        ]],
        interspersed: false,
        run: |app, matches| Box::pin(exec(app, matches)),
    },
];

/// Adds what Docker adds to errors of `run` and `create`.
fn with_usage(app: &App, error: CliError, code: u8) -> CliError {
    if error.text.is_empty() {
        return error;
    }
    let program = app.program();
    let text = format!("{program}: {}\n\nRun '{program} {} --help' for more information", error.text, app.called);
    CliError { text, code, ..error }
}

fn sources(app: &App) -> Sources<'_> {
    Sources { variables: &app.environment.variables, terminal: terminal::size(std::io::stdout()).unwrap_or((0, 0)) }
}

async fn create_only(app: &App, matches: &Matches) -> Outcome {
    let wish = create::wish(matches, sources(app)).map_err(|error| with_usage(app, error, 125))?;
    check_pull(matches).map_err(|error| with_usage(app, error, 125))?;
    app.check_trust(matches).map_err(|error| error.code(125))?;
    let id = create_container(app, matches, &wish).await?;
    app.line(&id)?;
    Ok(0)
}

fn check_pull(matches: &Matches) -> Outcome<()> {
    let when = matches.text("pull");
    if matches!(when, "always" | "missing" | "never") {
        return Ok(());
    }
    Err(CliError::new(format!("invalid pull option: '{when}': must be one of \"always\", \"missing\" or \"never\"")))
}

/// Creates a container; pulls the image where it is wished or missing. Gives the ID.
async fn create_container(app: &App, matches: &Matches, wish: &Wish) -> Outcome<String> {
    let client = app.client()?;
    let mut id_file = IdFile::open(matches.text("cidfile"))?;
    let image = default_tag(&wish.image)?;
    let platform =
        if matches.given("platform") { matches.text("platform") } else { app.environment.platform.as_deref().unwrap_or_default() };
    if matches.text("pull") == "always" {
        pull(app, &image, platform, matches.truth("quiet")).await?;
    }
    let send = async || {
        let call = client.post("/containers/create").query_some("name", matches.text("name")).query_some("platform", platform);
        call.body(&wish.body).json().await
    };
    let answer = match send().await {
        Err(error) if error.status == 404 && error.text.contains("No such image") && matches.text("pull") == "missing" => {
            if !matches.truth("quiet") {
                app.warn(&format!("Unable to find image '{image}' locally"));
            }
            pull(app, &image, platform, matches.truth("quiet")).await?;
            send().await?
        }
        other => other?,
    };
    let id = answer.text("Id").to_owned();
    for warning in answer.texts("Warnings") {
        app.warn(&format!("WARNING: {warning}"));
    }
    id_file.write(&id)?;
    Ok(id)
}

async fn pull(app: &App, image: &str, platform: &str, quiet: bool) -> Outcome<()> {
    let reference = Reference::parse_normalized(image).map_err(|error| CliError::new(error.to_string()))?;
    super::registries::pull_image(app, &reference, platform, (!quiet).then(std::io::stderr)).await
}

/// `--cidfile`: made before the container, so that nothing runs when it cannot be.
#[derive(Debug)]
struct IdFile(Option<(String, std::fs::File)>);

impl IdFile {
    fn open(path: &str) -> Outcome<Self> {
        if path.is_empty() {
            return Ok(Self(None));
        }
        match std::fs::File::create_new(path) {
            Ok(file) => Ok(Self(Some((path.to_owned(), file)))),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(CliError::new(format!("container ID file found, make sure the other container isn't running or delete {path}")))
            }
            Err(error) => Err(CliError::new(format!("failed to create the container ID file: open {path}: {}", errno_text(&error)))),
        }
    }

    fn write(&mut self, id: &str) -> Outcome<()> {
        let Some((_, mut file)) = self.0.take() else { return Ok(()) };
        file.write_all(id.as_bytes())
            .map_err(|error| CliError::new(format!("failed to write the container ID ({id}) to file: {}", errno_text(&error))))
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        // Nothing was made: an empty file would stop the next try.
        if let Some((path, _)) = self.0.take() {
            drop(std::fs::remove_file(path));
        }
    }
}

async fn run(app: &App, matches: &Matches) -> Outcome {
    let usage = |error: CliError| with_usage(app, error, 125);
    let mut wish = create::wish(matches, sources(app)).map_err(usage)?;
    check_pull(matches).map_err(usage)?;
    app.check_trust(matches).map_err(|error| error.code(125))?;
    let detach = matches.truth("detach");
    if detach {
        if matches.given("attach") {
            return Err(CliError::new("conflicting options: cannot specify both --attach and --detach"));
        }
        wish.detach();
    } else if wish.stdin && wish.terminal && !terminal::is_terminal(std::io::stdin()) {
        return Err(CliError::new("the input device is not a TTY"));
    }
    let keys = keys(app, matches)?;
    let client = app.client().map_err(usage)?;
    let id = create_container(app, matches, &wish).await.map_err(|error| start_failed(app, error))?;
    if detach {
        // The ID is printed in any case: the container is there, also when it cannot be started.
        let started = client.post(format!("/containers/{id}/start")).done().await;
        app.line(&id)?;
        return started.map(|()| 0).map_err(|error| start_failed(app, error));
    }
    let attached = wish.stdin || wish.stdout || wish.stderr;
    let hijacked = if attached { Some(attach_call(client, &id, &wish, matches).hijack().await.map_err(usage)?) } else { None };
    let condition = if wish.remove { "removed" } else { "next-exit" };
    let waiting = client.post(format!("/containers/{id}/wait")).query("condition", condition).send().await.map_err(usage)?;
    if let Err(error) = client.post(format!("/containers/{id}/start")).done().await {
        if wish.remove {
            // The engine removes it; until then its name is taken.
            drop(read_all(waiting.into_body()).await);
        }
        return Err(start_failed(app, error));
    }
    if let Some(hijacked) = hijacked {
        let proxy = matches.truth("sig-proxy") && !wish.terminal;
        let session = Session {
            app,
            resize: format!("/containers/{id}"),
            signals: proxy.then(|| id.clone()),
            stdin: wish.stdin,
            terminal: wish.terminal,
            detach_keys: keys,
        };
        if wish.terminal {
            session.send_size().await;
        }
        if session.run(hijacked).await? == End::Detached {
            return Ok(0);
        }
    } else {
        app.line(&id)?;
        if !matches.truth("sig-proxy") {
            return Ok(0);
        }
    }
    exit_code(&read_all(waiting.into_body()).await?)
}

impl Wish {
    /// Nobody sits at it.
    fn detach(&mut self) {
        (self.stdin, self.stdout, self.stderr) = (false, false, false);
        if let Json::Object(pairs) = &mut self.body {
            for (key, value) in pairs {
                if matches!(key.as_str(), "AttachStdin" | "AttachStdout" | "AttachStderr" | "StdinOnce") {
                    *value = false.into();
                }
            }
        }
    }
}

/// The exit code that a wait tells.
fn exit_code(bytes: &[u8]) -> Outcome {
    let ended = Json::parse(bytes).map_err(|error| CliError::new(format!("error waiting for container: {error}")).code(125))?;
    let message = ended.at(&["Error", "Message"]).as_text();
    if !message.is_empty() {
        return Err(CliError::new(format!("error waiting for container: {message}")).code(125));
    }
    Ok(u8::try_from(ended.int("StatusCode") & 255).unwrap_or(125))
}

/// 127: not found, 126: cannot be executed, 125: anything else.
fn start_failed(app: &App, error: CliError) -> CliError {
    let text = error.text.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let code = if has(&["executable file not found", "no such file or directory", "system cannot find the file specified"]) {
        127
    } else if has(&["permission denied"]) {
        126
    } else {
        125
    };
    with_usage(app, error, code)
}

fn keys(app: &App, matches: &Matches) -> Outcome<Vec<u8>> {
    detach_keys(if matches.given("detach-keys") { matches.text("detach-keys") } else { app.config.text("detachKeys") })
}

fn attach_call<'a>(client: &'a Client, id: &str, wish: &Wish, matches: &Matches) -> crate::remote::Call<'a> {
    client
        .post(format!("/containers/{}/attach", escape(id)))
        .query("stream", "1")
        .query_if("stdin", wish.stdin)
        .query_if("stdout", wish.stdout)
        .query_if("stderr", wish.stderr)
        .query_some("detachKeys", matches.text("detach-keys"))
}

async fn start(app: &App, matches: &Matches) -> Outcome {
    let client = app.client()?;
    let sits = matches.truth("attach") || matches.truth("interactive");
    if !sits {
        let mut failed = Vec::new();
        for name in &matches.words {
            match client.post(format!("/containers/{}/start", escape(name))).done().await {
                Ok(()) => app.line(name)?,
                Err(error) => {
                    app.warn(&error.text);
                    failed.push(name.as_str());
                }
            }
        }
        if failed.is_empty() {
            return Ok(0);
        }
        return Err(CliError::new(format!("Error: failed to start containers: {}", failed.join(", "))));
    }
    let [name] = &matches.words[..] else { return Err(CliError::new("you cannot start and attach multiple containers at once")) };
    let keys = keys(app, matches)?;
    let container = client.get(format!("/containers/{}/json", escape(name))).json().await?;
    let id = container.text("Id").to_owned();
    let terminal = container.at(&["Config"]).truth("Tty");
    let wish = Wish {
        body: Json::NULL,
        image: String::new(),
        stdin: matches.truth("interactive") && container.get("Config").truth("OpenStdin"),
        stdout: true,
        stderr: true,
        terminal,
        remove: container.get("HostConfig").truth("AutoRemove"),
    };
    let hijacked = attach_call(client, &id, &wish, matches).hijack().await?;
    let condition = if wish.remove { "removed" } else { "next-exit" };
    let waiting = client.post(format!("/containers/{id}/wait")).query("condition", condition).send().await?;
    client.post(format!("/containers/{id}/start")).done().await?;
    let session = Session {
        app,
        resize: format!("/containers/{id}"),
        signals: (!terminal).then(|| id.clone()),
        stdin: wish.stdin,
        terminal,
        detach_keys: keys,
    };
    if terminal {
        session.send_size().await;
    }
    if session.run(hijacked).await? == End::Detached {
        return Ok(0);
    }
    exit_code(&read_all(waiting.into_body()).await?)
}

async fn attach(app: &App, matches: &Matches) -> Outcome {
    let client = app.client()?;
    let container = client.get(format!("/containers/{}/json", escape(&matches.words[0]))).json().await?;
    let state = container.get("State");
    for (is, text) in [
        (!state.truth("Running"), "cannot attach to a stopped container, start it first"),
        (state.truth("Paused"), "cannot attach to a paused container, unpause it first"),
        (state.truth("Restarting"), "cannot attach to a restarting container, wait until it is running"),
    ] {
        if is {
            return Err(CliError::new(text));
        }
    }
    let keys = keys(app, matches)?;
    let id = container.text("Id").to_owned();
    let config = container.get("Config");
    let terminal = config.truth("Tty");
    let stdin = !matches.truth("no-stdin") && config.truth("OpenStdin");
    if stdin && terminal && !terminal::is_terminal(std::io::stdin()) {
        return Err(CliError::new("the input device is not a TTY"));
    }
    let wish = Wish { body: Json::NULL, image: String::new(), stdin, stdout: true, stderr: true, terminal, remove: false };
    let waiting = client.post(format!("/containers/{id}/wait")).send().await?;
    let hijacked = attach_call(client, &id, &wish, matches).hijack().await?;
    let proxy = matches.truth("sig-proxy") && !terminal;
    let session =
        Session { app, resize: format!("/containers/{id}"), signals: proxy.then(|| id.clone()), stdin, terminal, detach_keys: keys };
    if terminal {
        session.send_size().await;
    }
    if session.run(hijacked).await? == End::Detached {
        return Ok(0);
    }
    exit_code(&read_all(waiting.into_body()).await?)
}

async fn exec(app: &App, matches: &Matches) -> Outcome {
    let (detach, terminal, stdin) = (matches.truth("detach"), matches.truth("tty"), matches.truth("interactive"));
    if stdin && terminal && !detach && !terminal::is_terminal(std::io::stdin()) {
        return Err(CliError::new("the input device is not a TTY"));
    }
    let keys = keys(app, matches)?;
    let environment = create::environment(matches, &app.environment.variables)?;
    let client = app.client()?;
    let size = terminal::size(std::io::stdout()).filter(|_| terminal);
    let size = size.map(|(rows, columns)| Json::list([i64::from(rows), i64::from(columns)]));
    let body = object! {
        "User": matches.text("user"),
        "Privileged": matches.truth("privileged"),
        "Tty": terminal,
        "ConsoleSize": Json::option(size.clone()),
        "AttachStdin": stdin && !detach,
        "AttachStderr": !detach,
        "AttachStdout": !detach,
        "DetachKeys": matches.text("detach-keys"),
        "Env": Json::list_or_null(environment),
        "WorkingDir": matches.text("workdir"),
        "Cmd": Json::list(matches.words[1..].iter().map(String::as_str)),
    };
    let made = client.post(format!("/containers/{}/exec", escape(&matches.words[0]))).body(&body).json().await?;
    let id = made.text("Id").to_owned();
    if id.is_empty() {
        return Err(CliError::new("exec ID empty"));
    }
    let begin = object! { "Detach": detach, "Tty": terminal, "ConsoleSize": Json::option(size) };
    let call = client.post(format!("/exec/{id}/start")).body(&begin);
    if detach {
        call.done().await.map_err(exec_failed)?;
        return Ok(0);
    }
    let hijacked = call.hijack().await.map_err(exec_failed)?;
    let session = Session { app, resize: format!("/exec/{id}"), signals: None, stdin, terminal, detach_keys: keys };
    if terminal {
        session.send_size().await;
    }
    if session.run(hijacked).await? == End::Detached {
        return Ok(0);
    }
    let ended = client.get(format!("/exec/{id}/json")).json().await?;
    Ok(u8::try_from(ended.int("ExitCode") & 255).unwrap_or(1))
}

/// 126 and 127 as `run` gives them; the text stays.
fn exec_failed(error: CliError) -> CliError {
    let text = error.text.to_lowercase();
    let code = if text.contains("executable file not found") || text.contains("no such file or directory") {
        127
    } else if text.contains("permission denied") {
        126
    } else {
        1
    };
    error.code(code)
}

/// Reads a stream to its end and passes frames on.
pub(super) async fn copy_frames(response: http::Response<hyper::body::Incoming>, multiplexed: bool) -> Outcome<()> {
    let mut demux = crate::remote::Demux::new(multiplexed);
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CliError::new(format!("the engine's answer broke off: {error}")))?;
        if let Ok(bytes) = frame.into_data() {
            demux.feed(&bytes, &mut |stream, piece| crate::session::write(stream, piece))?;
        }
    }
    Ok(())
}
