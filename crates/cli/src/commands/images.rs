//! Images here: list, history, load, save, import, tag, remove, prune, commit.

use std::io::Write as _;

use sampan_gotext::Record;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_gotext::units::{size, size_with_digits};
use sampan_oci::{Reference, ReferenceError};
use sampan_ui::table::ellipsis;
use sampan_ui::terminal;
use sampan_wire::Json;

use super::list::created_at;
use super::messages::show_messages;
use super::output::Output;
use super::{FORCE, FORMAT_TABLE, ago, short_id};
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::error::{CliError, Outcome};
use crate::format::Listing;
use crate::remote::{Body, channel, escape};

const PLATFORM: Flag = Flag::new("platform", Kind::Text, "Platform, as os[/arch[/variant]]");
const CHANGE: Flag = Flag::new("change", Kind::List, "Apply a Dockerfile instruction to the new image").short('c');

pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["image ls", "image list", "images"],
        usage: "[OPTIONS] [REPOSITORY[:TAG]]",
        about: "List images",
        more: "",
        words: Words::AtMost(1),
        things: Things::Images,
        flags: &[&[
            Flag::new("all", Kind::Bool, "Show images without a name that others are built on, too").short('a'),
            Flag::new("digests", Kind::Bool, "Show digests"),
            Flag::new("filter", Kind::Filter, "Show only what fits: dangling=, label=, before=, since=, reference=, until=").short('f'),
            FORMAT_TABLE,
            Flag::new("no-trunc", Kind::Bool, "Show everything in full"),
            Flag::new("quiet", Kind::Bool, "Show IDs only").short('q'),
            Flag::new("tree", Kind::Bool, "Show platforms of images as a tree").later("images have one platform so far"),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(list(app, matches)),
    },
    Command {
        paths: &["image history", "history"],
        usage: "[OPTIONS] IMAGE",
        about: "Show how an image was made",
        more: "",
        words: Words::Exactly(1),
        things: Things::Images,
        flags: &[&[
            FORMAT_TABLE,
            Flag::new("human", Kind::Bool, "Show sizes and times for people").short('H').default("true"),
            Flag::new("no-trunc", Kind::Bool, "Show everything in full"),
            PLATFORM,
            Flag::new("quiet", Kind::Bool, "Show IDs only").short('q'),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(history(app, matches)),
    },
    Command {
        paths: &["image load", "load"],
        usage: "[OPTIONS]",
        about: "Load images from a tar archive or standard input",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("input", Kind::Text, "Archive to read, instead of standard input").short('i'),
            PLATFORM,
            Flag::new("quiet", Kind::Bool, "Show no progress").short('q'),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(load(app, matches)),
    },
    Command {
        paths: &["image save", "save"],
        usage: "[OPTIONS] IMAGE [IMAGE...]",
        about: "Save images to a tar archive (standard output by default)",
        more: "",
        words: Words::AtLeast(1),
        things: Things::Images,
        flags: &[&[Flag::new("output", Kind::Text, "File to write, instead of standard output").short('o'), PLATFORM]],
        interspersed: true,
        run: |app, matches| Box::pin(save(app, matches)),
    },
    Command {
        paths: &["image import", "import"],
        usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        about: "Make an image of a tar archive of a file system",
        more: "",
        words: Words::AtLeast(1),
        things: Things::Files,
        flags: &[&[CHANGE, Flag::new("message", Kind::Text, "Comment of the image").short('m'), PLATFORM]],
        interspersed: true,
        run: |app, matches| Box::pin(import(app, matches)),
    },
    Command {
        paths: &["image tag", "tag"],
        usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        about: "Give an image a further name",
        more: "",
        words: Words::Exactly(2),
        things: Things::Images,
        flags: &[],
        interspersed: true,
        run: |app, matches| Box::pin(tag(app, matches)),
    },
    Command {
        paths: &["image rm", "image remove", "rmi"],
        usage: "[OPTIONS] IMAGE [IMAGE...]",
        about: "Remove images",
        more: "",
        words: Words::AtLeast(1),
        things: Things::Images,
        flags: &[&[
            Flag::new("force", Kind::Bool, "Remove images that stopped containers use, too").short('f'),
            Flag::new("no-prune", Kind::Bool, "Leave parents without a name"),
            Flag::new("platform", Kind::Strings, "Remove only a platform of an image").later("images have one platform so far"),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(remove(app, matches)),
    },
    Command {
        paths: &["image prune"],
        usage: "[OPTIONS]",
        about: "Remove images that nobody uses",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("all", Kind::Bool, "Remove images with names too").short('a'),
            Flag::new("filter", Kind::Filter, "Remove only what fits: until=, label="),
            FORCE,
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(prune(app, matches)),
    },
    Command {
        paths: &["container commit", "commit"],
        usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        about: "Make an image of what a container changed",
        more: "",
        words: Words::Between(1, 2),
        things: Things::Containers,
        flags: &[&[
            Flag::new("author", Kind::Text, "Author of the image (\"Ann Author <ann@example.com>\")").short('a'),
            CHANGE,
            Flag::new("message", Kind::Text, "Comment of the image").short('m'),
            Flag::new("pause", Kind::Bool, "Freeze the container meanwhile").short('p').default("true"),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(commit(app, matches)),
    },
];

const HEADS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// A reference with a tag where it has neither tag nor digest.
pub(super) fn default_tag(name: &str) -> Outcome<String> {
    let reference = parse_any(name).map_err(|error| CliError::new(error.to_string()))?;
    Ok(reference.map_or_else(|| name.to_owned(), |reference| reference.with_default_tag().familiar()))
}

/// Name and tag or digest.
pub(super) fn split_tag(name: &str) -> (&str, &str) {
    if let Some((name, digest)) = name.split_once('@') {
        return (name, digest);
    }
    match name.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => (rest, tag),
        _ => (name, ""),
    }
}

async fn list(app: &App, matches: &Matches) -> Outcome {
    let mut filters = matches.list("filter").to_vec();
    if let Some(name) = matches.words.first() {
        filters.push(format!("reference={name}"));
    }
    let call = app.client()?.get("/images/json").query_if("all", matches.truth("all")).filters(&filters);
    let images = call.json().await?;
    let quiet = matches.truth("quiet");
    let format = if matches.given("format") {
        matches.text("format")
    } else if quiet {
        "{{.ID}}"
    } else {
        app.config.text("imagesFormat")
    };
    let digests = matches.truth("digests") || format.contains(".Digest");
    let rows: Vec<Record> = images.items().iter().flat_map(|image| rows(image, matches.truth("no-trunc"), digests)).collect();
    let table = match (quiet, digests) {
        (true, _) => "{{.ID}}",
        (false, true) => {
            "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}"
        }
        (false, false) => "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}",
    };
    let raw = "repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n";
    let listing =
        Listing { format, table, raw: if quiet { "image_id: {{.ID}}" } else { raw }, heads: HEADS, type_name: "*formatter.imageContext" };
    app.print(&listing.show(&rows)?)?;
    Ok(0)
}

/// A row for each name of an image.
pub(super) fn rows(image: &Json, full: bool, digests: bool) -> Vec<Record> {
    let mut by_repository: Vec<(&str, Vec<&str>)> = Vec::new();
    for one in image.texts("RepoDigests") {
        let Some((repository, digest)) = one.split_once('@') else { continue };
        match by_repository.iter_mut().find(|(known, _)| *known == repository) {
            Some((_, list)) => list.push(digest),
            None => by_repository.push((repository, vec![digest])),
        }
    }
    let mut found: Vec<(String, String, String)> = Vec::new();
    let mut tagged: Vec<&str> = Vec::new();
    for name in image.texts("RepoTags") {
        let (repository, tag) = split_tag(name);
        tagged.push(repository);
        let known = by_repository.iter().find(|(known, _)| *known == repository).filter(|_| digests);
        // Each digest of the repository has a row for each tag.
        let list = known.map_or_else(|| vec!["<none>"], |(_, list)| list.clone());
        found.extend(list.into_iter().map(|digest| (repository.to_owned(), tag.to_owned(), digest.to_owned())));
    }
    for (repository, list) in by_repository.into_iter().filter(|(repository, _)| !tagged.contains(repository)) {
        let list = if digests { list } else { vec![""] };
        found.extend(list.into_iter().map(|digest| (repository.to_owned(), "<none>".into(), digest.to_owned())));
    }
    if found.is_empty() {
        found.push(("<none>".into(), "<none>".into(), "<none>".into()));
    }
    found.into_iter().map(|(repository, tag, digest)| row(image, full, (&repository, &tag, &digest))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "sizes for people")]
fn row(image: &Json, full: bool, (repository, tag, digest): (&str, &str, &str)) -> Record {
    let created = image.int("Created");
    let whole = size_with_digits(image.int("Size") as f64, 3);
    let (shared, containers) = (image.int("SharedSize"), image.int("Containers"));
    let not_known = || "N/A".to_owned();
    Record::new("")
        .with("Containers", if containers < 0 { not_known() } else { containers.to_string() })
        .with("CreatedAt", created_at(created))
        .with("CreatedSince", if created < 1 { String::new() } else { ago(created) })
        .with("Digest", digest)
        .with("ID", short_id(image.text("Id"), full))
        .with("Repository", repository)
        .with("SharedSize", if shared < 0 { not_known() } else { size(shared as f64) })
        .with("Size", whole)
        .with("Tag", tag)
        .with("UniqueSize", if shared < 0 { not_known() } else { size((image.int("Size") - shared) as f64) })
        .with("VirtualSize", size(image.int("Size") as f64))
}

#[expect(clippy::cast_precision_loss, reason = "sizes for people")]
async fn history(app: &App, matches: &Matches) -> Outcome {
    let call = app.client()?.get(format!("/images/{}/history", path(&matches.words[0])));
    let steps = call.query_some("platform", &platform(matches)?).json().await?;
    let (full, human) = (matches.truth("no-trunc"), matches.truth("human"));
    let rows: Vec<Record> = steps
        .items()
        .iter()
        .map(|step| {
            let by = step.text("CreatedBy").replace('\t', " ");
            let created = step.int("Created");
            Record::new("")
                .with("Comment", step.text("Comment"))
                .with("CreatedAt", created_at_rfc(created))
                .with("CreatedBy", if full { by } else { ellipsis(&by, 45) })
                .with(
                    "CreatedSince",
                    if created <= 0 {
                        "N/A".into()
                    } else if human {
                        ago(created)
                    } else {
                        created_at_rfc(created)
                    },
                )
                .with("ID", short_id(step.text("Id"), full))
                .with("Size", if human { size_with_digits(step.int("Size") as f64, 3) } else { step.int("Size").to_string() })
        })
        .collect();
    let quiet = matches.truth("quiet");
    let heads = [
        ("ID", "IMAGE"),
        ("CreatedBy", "CREATED BY"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ];
    let listing = Listing {
        format: if quiet && !matches.given("format") { "{{.ID}}" } else { matches.text("format") },
        table: if human {
            "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
        } else {
            "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
        },
        raw: "",
        heads: &heads,
        type_name: "*image.historyContext",
    };
    app.print(&listing.show(&rows)?)?;
    Ok(0)
}

/// `2024-01-02T03:04:05Z`, in the local zone.
fn created_at_rfc(seconds: i64) -> String {
    let Ok(moment) = jiff::Timestamp::from_second(seconds) else { return String::new() };
    let text = moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    text.strip_suffix("+00:00").map_or(text.clone(), |text| format!("{text}Z"))
}

/// An image's name as a part of a path: slashes stay.
pub(super) fn path(name: &str) -> String {
    name.split('/').map(escape).collect::<Vec<_>>().join("/")
}

/// `--platform` as the engine's JSON.
pub(super) fn platform(matches: &Matches) -> Outcome<String> {
    let text = matches.text("platform");
    if text.is_empty() {
        return Ok(String::new());
    }
    let parts: Vec<&str> = text.split('/').collect();
    let valid =
        |part: &str| !part.is_empty() && part.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.'));
    let quoted = sampan_gotext::quote(text);
    if parts.len() > 3 {
        return Err(CliError::new(format!("invalid platform: {quoted}: cannot parse platform specifier: invalid argument")));
    }
    if let Some(wrong) = parts.iter().position(|part| !valid(part)) {
        let (what, pattern) = if wrong == 0 {
            (
                "an invalid OS component",
                r#"OSAndVersion specifier component must match "^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$""#,
            )
        } else {
            ("an invalid component", r#"platform specifier component must match "^[A-Za-z0-9_.-]+$""#)
        };
        let part = sampan_gotext::quote(parts[wrong]);
        return Err(CliError::new(format!("invalid platform: {part} is {what} of {quoted}: {pattern}: invalid argument")));
    }
    let mut pairs =
        vec![("architecture".to_owned(), Json::from(parts.get(1).copied().unwrap_or_default())), ("os".to_owned(), parts[0].into())];
    if let Some(variant) = parts.get(2) {
        pairs.push(("variant".to_owned(), (*variant).into()));
    }
    Ok(Json::Object(pairs).print())
}

async fn load(app: &App, matches: &Matches) -> Outcome {
    let input = matches.text("input");
    let source: Box<dyn std::io::Read + Send> = if input.is_empty() {
        if terminal::is_terminal(std::io::stdin()) {
            return Err(CliError::new("requested load from stdin, but stdin is empty"));
        }
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(input).map_err(|error| CliError::file("open", input, &error))?)
    };
    let quiet = matches.truth("quiet") || !terminal::is_terminal(std::io::stdout());
    let call = app.client()?.post("/images/load").query("quiet", if quiet { "1" } else { "0" }).query_some("platform", &platform(matches)?);
    let response = call.stream(feed(source), "application/x-tar").send().await?;
    show_messages(response, std::io::stdout()).await?;
    Ok(0)
}

/// A body that a thread reads from a source. Where the source fails, the request breaks off.
fn feed(mut source: Box<dyn std::io::Read + Send>) -> Body {
    let (mut sender, body) = channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return sender.fail(error),
            }
        }
    });
    body
}

async fn save(app: &App, matches: &Matches) -> Outcome {
    let output = Output::check(matches.text("output"), "save")?;
    let mut call = app.client()?.get("/images/get");
    for name in &matches.words {
        call = call.query("names", name);
    }
    let response = call.query_some("platform", &platform(matches)?).send().await?;
    output.take(response).await?;
    Ok(0)
}

async fn import(app: &App, matches: &Matches) -> Outcome {
    let source = matches.words[0].as_str();
    let target = matches.words.get(1).map_or("", String::as_str);
    let (name, tag) = if target.is_empty() { ("", "") } else { split_tag(target) };
    if !target.is_empty() {
        Reference::parse_normalized(target).map_err(|error| CliError::new(error.to_string()))?;
    }
    let remote = source.starts_with("http://") || source.starts_with("https://");
    let body: Option<Box<dyn std::io::Read + Send>> = match source {
        "-" => Some(Box::new(std::io::stdin())),
        _ if remote => None,
        path => Some(Box::new(std::fs::File::open(path).map_err(|error| CliError::file("open", path, &error))?)),
    };
    let mut call = app
        .client()?
        .post("/images/create")
        .query("fromSrc", if remote { source } else { "-" })
        .query_some("repo", name)
        .query_some("tag", tag)
        .query_some("message", matches.text("message"))
        .query_some("platform", matches.text("platform"));
    for change in matches.list("change") {
        call = call.query("changes", change);
    }
    let call = match body {
        Some(source) => call.stream(feed(source), "text/plain"),
        None => call,
    };
    show_messages(call.send().await?, std::io::stdout()).await?;
    Ok(0)
}

async fn tag(app: &App, matches: &Matches) -> Outcome {
    let (source, target) = (&matches.words[0], &matches.words[1]);
    let bad = |name: &str, error: &dyn std::fmt::Display| {
        CliError::new(format!("Error parsing reference: {} is not a valid repository/tag: {error}", sampan_gotext::quote(name)))
    };
    parse_any(source).map_err(|error| bad(source, &error))?;
    Reference::parse_normalized(target).map_err(|error| bad(target, &error))?;
    if target.contains('@') {
        return Err(CliError::new("refusing to create a tag with a digest reference"));
    }
    let (name, tag) = split_tag(target);
    let call = app.client()?.post(format!("/images/{}/tag", path(source))).query("repo", name);
    call.query_some("tag", tag).done().await?;
    Ok(0)
}

async fn remove(app: &App, matches: &Matches) -> Outcome {
    let client = app.client()?;
    let force = matches.truth("force");
    let mut errors = Vec::new();
    let mut fatal = false;
    for name in &matches.words {
        let call = client.delete(format!("/images/{}", path(name))).query_if("force", force);
        let call = if matches.truth("no-prune") { call.query("noprune", "1") } else { call };
        match call.json().await {
            Ok(done) => {
                for one in done.items() {
                    let deleted = one.text("Deleted");
                    app.line(&if deleted.is_empty() {
                        format!("Untagged: {}", one.text("Untagged"))
                    } else {
                        format!("Deleted: {deleted}")
                    })?;
                }
            }
            Err(error) => {
                fatal |= error.status != 404;
                errors.push(error.text);
            }
        }
    }
    match (errors.is_empty(), fatal || !force) {
        (true, _) => Ok(0),
        (false, true) => Err(CliError::new(errors.join("\n"))),
        (false, false) => Err(CliError::new(errors.join("\n")).code(0)),
    }
}

async fn prune(app: &App, matches: &Matches) -> Outcome {
    let all = matches.truth("all");
    let what = if all { "all images without at least one container associated to them" } else { "all dangling images" };
    if !matches.truth("force") && !app.confirm(&format!("WARNING! This will remove {what}.\nAre you sure you want to continue?"))? {
        return Ok(0);
    }
    let freed = prune_images(app, matches.list("filter"), all).await?;
    app.line(&format!("Total reclaimed space: {}", size(freed)))?;
    Ok(0)
}

/// Removes unused images, lists them, and gives the bytes.
pub(super) async fn prune_images(app: &App, filters: &[String], all: bool) -> Outcome<f64> {
    let mut filters = filters.to_vec();
    filters.push(format!("dangling={}", !all));
    let done = app.client()?.post("/images/prune").filters(&filters).json().await?;
    let removed = done.get("ImagesDeleted").items();
    if !removed.is_empty() {
        let mut text = "Deleted Images:\n".to_owned();
        for one in removed {
            let untagged = one.text("Untagged");
            text.push_str(&if untagged.is_empty() {
                format!("deleted: {}\n", one.text("Deleted"))
            } else {
                format!("untagged: {untagged}\n")
            });
        }
        app.line(&text)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
    Ok(done.int("SpaceReclaimed") as f64)
}

async fn commit(app: &App, matches: &Matches) -> Outcome {
    let target = matches.words.get(1).map_or("", String::as_str);
    let (name, tag) = if target.is_empty() { ("", "") } else { split_tag(target) };
    if !target.is_empty() {
        Reference::parse_normalized(target).map_err(|error| CliError::new(error.to_string()))?;
    }
    let mut call = app
        .client()?
        .post("/commit")
        .query("container", &matches.words[0])
        .query_some("repo", name)
        .query_some("tag", tag)
        .query_some("author", matches.text("author"))
        .query_some("comment", matches.text("message"));
    for change in matches.list("change") {
        call = call.query("changes", change);
    }
    if !matches.truth("pause") {
        call = call.query("pause", "0");
    }
    app.line(call.json().await?.text("Id"))?;
    Ok(0)
}

/// A name, or `None` for a whole ID.
fn parse_any(name: &str) -> Result<Option<Reference>, ReferenceError> {
    let id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if id || name.starts_with("sha256:") { Ok(None) } else { Reference::parse_normalized(name).map(Some) }
}
