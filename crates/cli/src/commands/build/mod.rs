//! `build` and `builder prune`: from a context and a Dockerfile to an image, through the engine's classic API.
//!
//! `source` finds out what is meant, `context` makes the archive, `handover` spares it with our own engine, `upload` sends it,
//! `reply` shows what comes back.

mod call;
mod context;
mod deliver;
mod fetch;
mod flags;
mod flatten;
mod handover;
mod named;
mod outputs;
mod reply;
mod request;
mod source;
#[cfg(test)]
mod tests;
mod upload;

use std::io::{self, Read, Write as _};
use std::path::Path;

use sampan_archive::Compression;
use sampan_gotext::flags::Matches;
use sampan_gotext::units::size;
use tokio::signal::unix::{SignalKind, signal};

use self::context::Added;
use self::fetch::Temporary;
pub(super) use self::flags::COMMANDS;
use self::handover::Handed;
use self::outputs::Outputs;
use self::reply::{Built, Show};
use self::source::{Local, Place};
use self::upload::Content;
use crate::app::App;
use crate::credentials;
use crate::error::{CliError, Outcome, errno_text};
use crate::remote::Client;

/// What the original says before a build by its old builder.
const BANNER: &str = "DEPRECATED: The legacy builder is deprecated and will be removed in a future release.
            BuildKit is currently disabled; enable it by removing the DOCKER_BUILDKIT=0
            environment-variable.
";
/// First bytes of a stream that decide what it is.
const HEAD: usize = 512;

async fn build(app: &App, matches: &Matches) -> Outcome {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // With the future its connection goes, and with that the build; folders go too, and the terminal is put right.
    tokio::select! {
        ended = run(app, matches) => ended,
        _ = interrupt.recv() => Err(CliError::silent(130)),
        _ = terminate.recv() => Err(CliError::silent(143)),
    }
}

/// What is sent to the engine, ready.
struct Plan {
    /// The Dockerfile's name; empty: not said.
    dockerfile: String,
    what: What,
    /// A folder that goes at the end.
    _temporary: Option<Temporary>,
}

enum What {
    Archive(Content),
    /// An open directory.
    Handed(Handed),
}

/// Whether the original's old builder is asked for, which has its own texts.
fn classic(app: &App) -> bool {
    let old = |(name, value): &(String, String)| name == "DOCKER_BUILDKIT" && matches!(value.as_str(), "0" | "false");
    app.program() == "docker" && app.environment.variables.iter().any(old)
}

/// Whether the engine is ours and may tell of its steps.
async fn native(app: &App, client: &Client) -> Outcome<bool> {
    Ok(!classic(app) && client.server().await?.ours)
}

async fn run(app: &App, matches: &Matches) -> Outcome {
    app.check_trust(matches)?;
    if classic(app) {
        app.warn(BANNER);
    }
    let (given, file) = (matches.words[0].as_str(), matches.text("file"));
    let place = Place::of(given, file)?;
    let asked = call::call(matches)?;
    let outputs = Outputs::read(matches)?;
    let show = show(app, matches)?;
    let quiet = show == Show::Quiet;
    outputs::check_cache(matches)?;
    let iidfile = matches.text("iidfile");
    remove_old(iidfile)?;
    let client = app.client()?;
    let plan = plan(app, matches, place, quiet).await?;
    // Whoever cannot be reached is told before anything is read.
    let native = native(app, client).await?;
    if matches.truth("explain") && !native {
        return Err(CliError::unsupported("--explain", "this engine does not say why it runs a step"));
    }
    if !native && let Some(flag) = ["build-context", "call", "check", "no-cache-filter"].into_iter().find(|flag| matches.given(flag)) {
        return Err(CliError::unsupported(&format!("--{flag}"), "this engine speaks the classic protocol of builds only"));
    }
    let contexts = named::contexts(app, matches).await.map(|contexts| contexts.map(|contexts| contexts.print()).unwrap_or_default())?;
    let call = request::call(app, client, matches, outputs.tags(), &plan.dockerfile, quiet)?
        .header("X-Registry-Config", &credentials::registry_config(app));
    let call = call.query_if("sampan", native).query_some("sampancontexts", &contexts);
    let call = call.query_some("sampancall", asked.as_ref().map_or("", |asked| &asked.name));
    let (call, sent) = match plan.what {
        What::Archive(content) => {
            let (body, sent) = upload::start(content, matches.truth("compress"), quiet || native);
            (call.stream(body, "application/x-tar"), Some(sent))
        }
        What::Handed(ref handed) => (call.query("sampancontext", &handed.token), None),
    };
    let ended = match call.send().await {
        Ok(response) => reply::follow(response, show).await,
        Err(error) => Err(Failed { error, held: Vec::new() }),
    };
    // A context that could not be read is the cause of the rest, unless the engine had something to say before.
    let sent = sent.and_then(|mut sent| sent.try_recv().ok());
    match (ended, sent) {
        (Ok(Built { answer: Some(answer), .. }), _) => {
            let (text, code) = asked.as_ref().map_or_else(|| Ok((String::new(), 1)), |asked| call::show(asked, &answer))?;
            app.print(&text).map(|()| code)
        }
        (Ok(built), _) => {
            deliver::deliver(app, &outputs, built.id(), quiet).await?;
            deliver::write_metadata(app, matches, &outputs, built.id()).await?;
            finish(app, quiet && outputs.says_id(), iidfile, &built)
        }
        (Err(failed), Some(Err(cause))) if !failed.error.from_engine && !cause.text.is_empty() => Err(cause),
        (Err(failed), sent) => {
            if quiet {
                let mut out = io::stderr().lock();
                if let Some(Ok(bytes)) = sent.filter(|_| !native) {
                    drop(write!(out, "{}\r\n", upload::sent(bytes)));
                }
                drop(out.write_all(&failed.held));
            }
            Err(failed.error)
        }
    }
}

/// A build that failed, and what a quiet one said before.
#[derive(Debug)]
struct Failed {
    error: CliError,
    held: Vec<u8>,
}

impl<E: Into<CliError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), held: Vec::new() }
    }
}

/// How the build is shown, by the flags and `BUILDKIT_PROGRESS`.
fn show(app: &App, matches: &Matches) -> Outcome<Show> {
    let variable = app.environment.variables.iter().find(|(name, _)| name == "BUILDKIT_PROGRESS").map_or("", |(_, value)| value);
    let progress = if matches.given("progress") { matches.text("progress") } else { variable };
    let style = reply::style(progress)?;
    Ok(match style.filter(|_| !matches.truth("quiet")) {
        Some(style) => Show::Steps(style, matches.truth("explain")),
        None => Show::Quiet,
    })
}

/// As Go's `os.Remove`: a file, or an empty folder.
fn remove_old(iidfile: &str) -> Outcome<()> {
    if iidfile.is_empty() {
        return Ok(());
    }
    let removed = match std::fs::remove_file(iidfile) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => std::fs::remove_dir(iidfile),
        other => other,
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CliError::new(format!("Removing image ID file: remove {iidfile}: {}", errno_text(&error))))
        }
        _ => Ok(()),
    }
}

fn finish(app: &App, quiet: bool, iidfile: &str, built: &Built) -> Outcome {
    let image = if quiet { &built.printed } else { &built.image };
    if quiet {
        app.print(image)?;
    }
    if iidfile.is_empty() {
        return Ok(0);
    }
    if image.is_empty() {
        return Err(CliError::new(format!("server did not provide an image ID. Cannot write {iidfile}")));
    }
    std::fs::write(iidfile, image).map_err(|error| CliError::file("open", iidfile, &error))?;
    Ok(0)
}

/// Works that wait run on a thread of their own, so that signals are heard.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Outcome<T> + Send + 'static) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| CliError::new(error.to_string()))?
}

async fn plan(app: &App, matches: &Matches, place: Place, quiet: bool) -> Outcome<Plan> {
    let (given, file) = (matches.words[0].clone(), matches.text("file").to_owned());
    let stdin = if file == "-" { Some(aside(|| source::read_text(io::stdin().lock(), "-")).await?) } else { None };
    match place {
        Place::Directory => directory(app, matches, Path::new(&given), stdin, None).await,
        Place::Git => {
            let temporary = Temporary::new("docker-build-git")?;
            let root = temporary.path().to_owned();
            let folder = aside(move || fetch::git(&given, &root)).await?;
            directory(app, matches, &folder, stdin, Some(temporary)).await
        }
        Place::Stdin => archive(io::stdin(), &file, None, true).await,
        Place::Http => archive(fetch::http(&given, quiet).await?, &file, stdin, false).await,
    }
}

/// A directory: handed over where the engine takes it, else an archive. A cloned one holds its own Dockerfile.
async fn directory(app: &App, matches: &Matches, folder: &Path, stdin: Option<Vec<u8>>, temporary: Option<Temporary>) -> Outcome<Plan> {
    let file = matches.text("file");
    let cloned = temporary.is_some() && stdin.is_none();
    let named = if cloned && !file.is_empty() { folder.join(file).display().to_string() } else { file.to_owned() };
    let outside = || CliError::new(format!("unable to prepare context: the Dockerfile ({file}) must be within the build context"));
    if cloned && !Path::new(&crate::create::mounts::clean(Path::new(&named))).starts_with(folder) && !named.is_empty() {
        return Err(outside());
    }
    let local = Local::find(folder, &named, stdin)?;
    if cloned && local.inside().is_none() {
        return Err(outside());
    }
    let random = source::random_name(10)?;
    let client = app.client()?;
    if native(app, client).await? && !matches.truth("compress") {
        // A Dockerfile from elsewhere needs an archive to come with.
        if let Some(dockerfile) = local.inside()
            && let Some(handed) = handover::hand_over(client.endpoint(), &local.root)
        {
            return Ok(Plan { dockerfile: dockerfile.to_owned(), what: What::Handed(handed), _temporary: temporary });
        }
    }
    let (dockerfile, selection) = local.sent(&random)?;
    Ok(Plan { dockerfile, what: What::Archive(Content::Directory(selection)), _temporary: temporary })
}

/// A stream that is an archive or a Dockerfile. `stdin` is a Dockerfile that takes the place of the archive's.
async fn archive(mut stream: impl Read + Send + 'static, file: &str, stdin: Option<Vec<u8>>, from_stdin: bool) -> Outcome<Plan> {
    let file = file.to_owned();
    let prepare = if from_stdin { "unable to prepare context from STDIN" } else { "unable to prepare context" };
    let (content, dockerfile) = aside(move || {
        let mut head = Vec::new();
        let read = stream.by_ref().take(HEAD as u64).read_to_end(&mut head);
        read.map_err(|error| CliError::new(format!("{prepare}: failed to peek context header from STDIN: {error}")))?;
        let is_archive = is_archive(&head);
        let whole = io::Cursor::new(head).chain(stream);
        if is_archive {
            let Some(content) = stdin else { return Ok((Content::Stream(Box::new(whole)), file)) };
            let name = format!(".dockerfile.{}", source::random_name(10)?);
            return Ok((Content::Rewritten(Box::new(whole), Added { name: name.clone(), content }), name));
        }
        if file == "-" {
            return Err(CliError::new("unable to prepare context: build context is not an archive"));
        }
        if !file.is_empty() {
            let text = "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles";
            return Err(CliError::new(format!("{prepare}: {text}")));
        }
        let text = source::read_text(whole, "-")?;
        let archive = context::small(&[(source::DEFAULT, &text)])?;
        Ok((Content::Stream(Box::new(io::Cursor::new(archive))), source::DEFAULT.to_owned()))
    })
    .await?;
    Ok(Plan { dockerfile, what: What::Archive(content), _temporary: None })
}

/// Whether a stream that begins so is compressed or a tar archive.
fn is_archive(head: &[u8]) -> bool {
    if Compression::detect(head) != Compression::None {
        return true;
    }
    // The first header decides: its content may lie behind what was read.
    head.len() == HEAD && matches!(sampan_archive::tar::Reader::new(head).next_entry(), Ok(Some(_)))
}

async fn prune(app: &App, matches: &Matches) -> Outcome {
    let all = matches.truth("all");
    let what = if all { "all build cache" } else { "all dangling build cache" };
    if !matches.truth("force") && !app.confirm(&format!("WARNING! This will remove {what}. Are you sure you want to continue?"))? {
        return Ok(0);
    }
    let freed = prune_cache(app, matches.list("filter"), all, matches.text("keep-storage")).await?;
    app.line(&format!("Total reclaimed space: {}", size(freed)))?;
    Ok(0)
}

/// Removes what builds keep, lists it, and gives the bytes.
pub(super) async fn prune_cache(app: &App, filters: &[String], all: bool, keep: &str) -> Outcome<f64> {
    let call = app.client()?.post("/build/prune").query_if("all", all);
    let keep = if keep == "0" { "" } else { keep };
    // The older and the newer name of the same.
    let done = call.query_some("keep-storage", keep).query_some("reserved-space", keep).filters(filters).json().await?;
    let removed = done.get("CachesDeleted").items();
    if !removed.is_empty() {
        let mut text = "Deleted build cache objects:\n".to_owned();
        removed.iter().for_each(|id| text.push_str(&format!("{}\n", id.as_text())));
        app.line(&text)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
    Ok(done.int("SpaceReclaimed") as f64)
}
