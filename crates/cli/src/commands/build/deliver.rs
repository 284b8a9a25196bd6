//! Takes a finished image to where it is wanted (see `outputs`): to registries, into folders and archives; and writes down what was
//! built (`--metadata-file`).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use http_body_util::BodyExt as _;
use sampan_gotext::flags::Matches;
use sampan_oci::Reference;
use sampan_ui::progress::Progress;
use sampan_wire::Json;
use tokio::sync::mpsc;

use super::aside;
use super::fetch::Temporary;
use super::flatten;
use super::outputs::{Outputs, Target};
use crate::app::App;
use crate::commands::copy::{self, FrameReader};
use crate::commands::images::{path, split_tag};
use crate::commands::messages::{messages, show_messages};
use crate::credentials;
use crate::error::{CliError, Outcome};
use crate::format::pretty;

/// Pieces of an archive that wait between the connection and the disk.
const QUEUE: usize = 16;

/// Delivers an image that has its names.
///
/// # Errors
/// A registry that refuses, a full disk.
pub(super) async fn deliver(app: &App, outputs: &Outputs, image: &str, quiet: bool) -> Outcome<()> {
    for target in &outputs.targets {
        match target {
            Target::Image | Target::Nowhere => {}
            Target::Registry => {
                for name in &outputs.names {
                    push(app, name, quiet).await?;
                }
            }
            Target::Folder(folder) => files(app, image, Files::Folder(folder.clone())).await?,
            Target::Tar(dest) => files(app, image, Files::Tar(dest.clone())).await?,
            Target::Docker(dest) => archive(app, &wanted(outputs, image), dest, |source, out| Ok(io::copy(source, out).map(drop)?)).await?,
            Target::Oci(dest) => archive(app, &wanted(outputs, image), dest, |source, out| flatten::layout(source, out)).await?,
        }
    }
    Ok(())
}

/// What an archive is asked for: the image by its names, else by its ID.
fn wanted(outputs: &Outputs, image: &str) -> Vec<String> {
    if outputs.names.is_empty() { vec![image.to_owned()] } else { outputs.names.clone() }
}

async fn push(app: &App, name: &str, quiet: bool) -> Outcome<()> {
    let reference = Reference::parse_normalized(name).map_err(|error| CliError::new(error.to_string()))?.with_default_tag();
    let auth = credentials::header_for(app, &credentials::server_of(&reference));
    let familiar = reference.familiar();
    let (repository, tag) = split_tag(&familiar);
    let call = app.client()?.post(format!("/images/{}/push", path(repository))).query("tag", tag);
    let response = call.header("X-Registry-Auth", &auth).send().await?;
    // Standard output may be an archive or the image's ID.
    if quiet {
        return messages(response, &mut Progress::new(io::sink(), None)).await;
    }
    show_messages(response, io::stderr()).await
}

/// Carries pieces from the connection to whoever reads them.
type Pump = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// An image's archive as a stream that another thread can read.
async fn fetch(app: &App, names: &[String]) -> Outcome<(FrameReader, Pump)> {
    let mut call = app.client()?.get("/images/get");
    for name in names {
        call = call.query("names", name);
    }
    let mut body = call.send().await?.into_body();
    let (sender, frames) = mpsc::channel(QUEUE);
    let pump = Box::pin(async move {
        while let Some(frame) = body.frame().await {
            let piece = match frame {
                Ok(frame) => frame.into_data().ok(),
                Err(error) => {
                    let failed = io::Error::other(format!("the engine's answer broke off: {error}"));
                    drop(sender.send(Err(failed)).await);
                    return;
                }
            };
            if let Some(piece) = piece
                && sender.send(Ok(piece)).await.is_err()
            {
                return;
            }
        }
    });
    Ok((FrameReader::new(frames), pump))
}

/// Writes an archive to a file, which is there whole or not at all, or to standard output.
async fn archive(
    app: &App,
    names: &[String],
    dest: &str,
    write: impl FnOnce(&mut FrameReader, &mut dyn Write) -> Outcome<()> + Send + 'static,
) -> Outcome<()> {
    let (mut reader, pump) = fetch(app, names).await?;
    let dest = dest.to_owned();
    let work = aside(move || to_place(&dest, |out| write(&mut reader, out)));
    tokio::join!(pump, work).1
}

fn to_place(dest: &str, write: impl FnOnce(&mut dyn Write) -> Outcome<()>) -> Outcome<()> {
    if dest == "-" {
        return write(&mut io::stdout().lock());
    }
    let partial = format!("{dest}.partial-{}", std::process::id());
    let fail = |error: io::Error| CliError::file("open", dest, &error);
    if let Some(folder) = Path::new(dest).parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    let mut file = File::create(&partial).map_err(fail)?;
    let written = write(&mut file).and_then(|()| std::fs::rename(&partial, dest).map_err(fail));
    if written.is_err() {
        drop(std::fs::remove_file(&partial));
    }
    written
}

/// Where the files of an image go.
enum Files {
    Folder(String),
    Tar(String),
}

async fn files(app: &App, image: &str, to: Files) -> Outcome<()> {
    let (reader, pump) = fetch(app, &[image.to_owned()]).await?;
    let work = aside(move || {
        let temporary = Temporary::new("docker-build-output")?;
        let layers = flatten::unpack(reader, temporary.path())?;
        match to {
            Files::Tar(dest) => to_place(&dest, |out| flatten::flatten(&layers, out)),
            Files::Folder(folder) => into_folder(&layers, &folder),
        }
    });
    tokio::join!(pump, work).1
}

/// The files become those of whoever runs this; what else is in the folder stays.
fn into_folder(layers: &[std::path::PathBuf], folder: &str) -> Outcome<()> {
    std::fs::create_dir_all(folder).map_err(|error| CliError::file("mkdir", folder, &error))?;
    let (reader, writer) = io::pipe()?;
    std::thread::scope(|scope| {
        let flattening = scope.spawn(|| flatten::flatten(layers, writer));
        let written = copy::unpack_all(reader, folder);
        let flattened = flattening.join().map_err(|_| CliError::new("the writing thread failed"))?;
        // A broken layer is the cause of what follows from it; a pipe that nobody reads any more is not.
        match flattened {
            Err(error) if !error.text.is_empty() => Err(error),
            _ => written,
        }
    })
}

/// Writes down what was built, with BuildKit's names for it.
///
/// # Errors
/// A file that cannot be written.
pub(super) async fn write_metadata(app: &App, matches: &Matches, outputs: &Outputs, image: &str) -> Outcome<()> {
    let file = matches.text("metadata-file");
    if file.is_empty() {
        return Ok(());
    }
    let mut facts =
        vec![("containerimage.config.digest".to_owned(), Json::from(image)), ("containerimage.digest".to_owned(), image.into())];
    let names: Vec<String> = outputs.tags().iter().filter_map(|name| Some(Reference::parse_normalized(name).ok()?.to_string())).collect();
    if outputs.targets.contains(&Target::Registry)
        && let Some(digest) = pushed(app, &outputs.names).await?
    {
        facts[1].1 = digest.into();
    }
    if !names.is_empty() {
        facts.push(("image.name".to_owned(), names.join(",").into()));
    }
    let text = pretty(&Json::Object(facts), "  ");
    to_place(file, |out| Ok(out.write_all(text.as_bytes())?))
}

/// The digest under which a registry knows the image.
async fn pushed(app: &App, names: &[String]) -> Outcome<Option<String>> {
    let Some(first) = names.first().and_then(|name| Reference::parse_normalized(name).ok()) else { return Ok(None) };
    let shown = app.client()?.get(format!("/images/{}/json", path(&first.clone().with_default_tag().familiar()))).json().await?;
    let repository = format!("{}@", first.familiar_name());
    let digest = shown.texts("RepoDigests").into_iter().find_map(|one| Some(one.strip_prefix(&repository)?.to_owned()));
    Ok(digest)
}
