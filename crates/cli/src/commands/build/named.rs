//! `--build-context NAME=VALUE`: images and folders that stand for a stage or an image of the Dockerfile.
//!
//! A folder becomes an image of its files first (one COPY, cached by content), so that FROM, COPY --from and RUN --mount all take it.

use std::path::Path;

use sampan_gotext::flags::Matches;
use sampan_oci::Reference;
use sampan_wire::Json;

use super::reply::{self, Show};
use super::source::{self, Local};
use super::upload::{self, Content};
use super::{Failed, aside};
use crate::app::App;
use crate::error::{CliError, Outcome, errno_text};

/// The Dockerfile of a folder's image. Its own name is not among the folder's.
const WHOLE: &str = "FROM scratch\nCOPY --exclude=.dockerfile.* . /\n";

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Image(String),
    Folder(String),
}

/// The parameter of the request: a JSON map of names and images; `None` without any.
///
/// # Errors
/// Words that mean nothing, folders that cannot be read.
pub(super) async fn contexts(app: &App, matches: &Matches) -> Outcome<Option<Json>> {
    let mut all = Vec::new();
    for text in matches.list("build-context") {
        let (name, named) = read(text)?;
        let image = match named {
            Named::Image(image) => image,
            Named::Folder(folder) => build(app, &folder).await.map_err(|failed| {
                let text = format!("failed to get build context {name}: {}", failed.error.text);
                CliError { text, ..failed.error }
            })?,
        };
        all.push((name, image));
    }
    Ok((!all.is_empty()).then(|| Json::map(all)))
}

fn read(text: &str) -> Outcome<(String, Named)> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(CliError::new(format!("invalid context value: {text}, expected key=value")));
    };
    let reference = Reference::parse_normalized(name).map_err(|error| CliError::new(format!("invalid context name {name}: {error}")))?;
    let familiar = reference.familiar();
    let name = familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned();
    if let Some(image) = value.strip_prefix("docker-image://") {
        let image = Reference::parse_normalized(image).map_err(|error| CliError::new(format!("invalid context {name}: {error}")))?;
        return Ok((name, Named::Image(image.with_default_tag().to_string())));
    }
    if value.contains("://") || value.starts_with("git@") || value.starts_with("target:") {
        return Err(CliError::unsupported(
            &format!("--build-context {text}"),
            "contexts with names are folders and docker-image:// so far",
        ));
    }
    let found = std::fs::metadata(value)
        .map_err(|error| CliError::new(format!("failed to get build context {name}: stat {value}: {}", errno_text(&error))))?;
    if !found.is_dir() {
        return Err(CliError::new(format!("failed to get build context {name}: not a directory {value}")));
    }
    Ok((name, Named::Folder(value.to_owned())))
}

/// Makes an image of a folder, and gives its ID.
async fn build(app: &App, folder: &str) -> Result<String, Failed> {
    let folder = folder.to_owned();
    let random = source::random_name(10)?;
    let (name, selection) = aside(move || Local::find(Path::new(&folder), "", Some(WHOLE.into()))?.sent(&random)).await?;
    let (body, sent) = upload::start(Content::Directory(selection), false, true);
    let call = app.client()?.post("/build").query("version", "1").query("dockerfile", &name).query_if("q", true).query_if("sampan", true);
    let ended = match call.stream(body, "application/x-tar").send().await {
        Ok(response) => reply::follow(response, Show::Quiet).await,
        Err(error) => Err(error.into()),
    };
    match (ended, sent.await) {
        (Err(failed), Ok(Err(cause))) if !failed.error.from_engine && !cause.text.is_empty() => Err(cause.into()),
        (ended, _) => ended.map(|built| built.image),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_an_image_or_a_folder() {
        let image = |text: &str| Named::Image(text.to_owned());
        assert_eq!(read("Box=docker-image://other:1").unwrap_err().text.split(':').next(), Some("invalid context name Box"));
        assert_eq!(read("box=docker-image://other:1").unwrap(), ("box".into(), image("docker.io/library/other:1")));
        assert_eq!(read("box:latest=docker-image://other").unwrap(), ("box".into(), image("docker.io/library/other:latest")));
        assert_eq!(read("here=/").unwrap(), ("here".into(), Named::Folder("/".into())));
        for (text, error) in [
            ("nosuch", "invalid context value: nosuch, expected key=value"),
            ("a=/nosuch", "failed to get build context a: stat /nosuch: no such file or directory"),
            ("a=/dev/null", "failed to get build context a: not a directory /dev/null"),
            (
                "a=https://x/y.git",
                "not supported: --build-context a=https://x/y.git (contexts with names are folders and docker-image:// so far)",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().text, error);
        }
    }
}
