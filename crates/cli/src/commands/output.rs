//! What comes out of containers: `logs`, `export`.

use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_ui::terminal;

use super::run::copy_frames;
use crate::app::App;
use crate::command::{Command, Things, Words};
use crate::error::{CliError, Outcome, errno_text};
use crate::remote::escape;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["container logs", "logs"],
        usage: "[OPTIONS] CONTAINER",
        about: "Show what a container printed",
        more: "",
        words: Words::Exactly(1),
        things: Things::Containers,
        flags: &[&[
            Flag::new("details", Kind::Bool, "Show what else the log holds about each line"),
            Flag::new("follow", Kind::Bool, "Go on as the container prints").short('f'),
            Flag::new("since", Kind::Text, "Only what is newer than a time (2013-01-02T13:23:37Z) or a span (42m)"),
            Flag::new("tail", Kind::Text, "Only so many lines of the end").short('n').default("all"),
            Flag::new("timestamps", Kind::Bool, "Show the time of each line").short('t'),
            Flag::new("until", Kind::Text, "Only what is older than a time or a span"),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(logs(app, matches)),
    },
    Command {
        paths: &["container export", "export"],
        usage: "[OPTIONS] CONTAINER",
        about: "Write a container's file system as a tar archive",
        more: "",
        words: Words::Exactly(1),
        things: Things::Containers,
        flags: &[&[Flag::new("output", Kind::Text, "File to write, instead of standard output").short('o')]],
        interspersed: true,
        run: |app, matches| Box::pin(export(app, matches)),
    },
];

async fn logs(app: &App, matches: &Matches) -> Outcome {
    let client = app.client()?;
    let container = client.get(format!("/containers/{}/json", escape(&matches.words[0]))).json().await?;
    let call = client
        .get(format!("/containers/{}/logs", escape(container.text("Id"))))
        .query("stdout", "1")
        .query("stderr", "1")
        .query_if("details", matches.truth("details"))
        .query_if("follow", matches.truth("follow"))
        .query_if("timestamps", matches.truth("timestamps"))
        .query("tail", matches.text("tail"));
    let call =
        call.query_some("since", &moment("since", matches.text("since"))?).query_some("until", &moment("until", matches.text("until"))?);
    let response = call.send().await?;
    copy_frames(response, !container.get("Config").truth("Tty")).await?;
    Ok(0)
}

/// A time, or a span before now, as seconds with nanoseconds: what the engine takes.
///
/// # Errors
/// `invalid value for "since": …`.
pub(super) fn moment(name: &str, text: &str) -> Outcome<String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let shown = |moment: jiff::Timestamp| format!("{}.{:09}", moment.as_second(), moment.subsec_nanosecond());
    if let Ok(span) = sampan_gotext::duration::parse(text) {
        let before = jiff::Timestamp::now().checked_sub(jiff::SignedDuration::from_nanos(span));
        return before.map(shown).map_err(|error| CliError::new(format!("invalid value for {}: {error}", sampan_gotext::quote(name))));
    }
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(shown(moment));
    }
    let local = text.parse::<jiff::civil::DateTime>().or_else(|_| text.parse::<jiff::civil::Date>().map(|date| date.at(0, 0, 0, 0)));
    if let Ok(local) = local
        && let Ok(zoned) = local.to_zoned(jiff::tz::TimeZone::system())
    {
        return Ok(shown(zoned.timestamp()));
    }
    let number = !text.is_empty() && text.chars().all(|character| character.is_ascii_digit() || character == '.');
    if number {
        return Ok(text.to_owned());
    }
    Err(CliError::new(format!(
        "invalid value for {}: failed to parse value as time or duration: {}",
        sampan_gotext::quote(name),
        sampan_gotext::quote(text)
    )))
}

async fn export(app: &App, matches: &Matches) -> Outcome {
    let output = Output::check(matches.text("output"), "export")?;
    let response = app.client()?.get(format!("/containers/{}/export", escape(&matches.words[0]))).send().await?;
    output.take(response).await?;
    Ok(0)
}

/// Where an archive goes: a file, or standard output unless that is a terminal.
#[derive(Debug)]
pub(super) struct Output {
    path: String,
}

impl Output {
    /// # Errors
    /// A terminal, a folder, a missing folder.
    pub(super) fn check(path: &str, what: &str) -> Outcome<Self> {
        if path.is_empty() {
            if terminal::is_terminal(std::io::stdout()) {
                return Err(CliError::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
            }
            return Ok(Self { path: String::new() });
        }
        let folder = std::path::Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
        let fail = |text: String| CliError::new(format!("failed to {what} {}: {text}", if what == "save" { "image" } else { "container" }));
        if let Some(folder) = folder.filter(|folder| !folder.exists()) {
            return Err(fail(format!("invalid output path: stat {}: no such file or directory", folder.display())));
        }
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(fail("cannot write to a directory".to_owned())),
            _ => Ok(Self { path: path.to_owned() }),
        }
    }

    /// Writes a body. A file is there whole or not at all.
    ///
    /// # Errors
    /// A failing disk, an engine that goes away.
    pub(super) async fn take(self, response: Response<Incoming>) -> Outcome<()> {
        if self.path.is_empty() {
            let mut out = std::io::stdout().lock();
            return copy_body(response, &mut out).await;
        }
        let partial = format!("{}.partial-{}", self.path, std::process::id());
        let fail = |error: std::io::Error| CliError::new(format!("open {}: {}", self.path, errno_text(&error)));
        // What is no regular file (a pipe, /dev/null) is written as it is.
        let special = std::fs::metadata(&self.path).is_ok_and(|found| !found.is_file());
        let target = if special { &self.path } else { &partial };
        let mut file = std::fs::File::options().write(true).create(true).truncate(!special).open(target).map_err(fail)?;
        let written = copy_body(response, &mut file).await;
        if special {
            return written;
        }
        match written.and_then(|()| std::fs::rename(&partial, &self.path).map_err(fail)) {
            Ok(()) => Ok(()),
            Err(error) => {
                drop(std::fs::remove_file(&partial));
                Err(error)
            }
        }
    }
}

async fn copy_body(response: Response<Incoming>, out: &mut impl std::io::Write) -> Outcome<()> {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CliError::new(format!("the engine's answer broke off: {error}")))?;
        if let Ok(bytes) = frame.into_data() {
            out.write_all(&bytes)?;
        }
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(moment("since", "2013-01-02T13:23:37Z").unwrap(), "1357133017.000000000");
        assert_eq!(moment("since", "1357133017.5").unwrap(), "1357133017.5");
        assert!(moment("since", "42m").unwrap().contains('.') && moment("since", "2013-01-02").is_ok());
        assert!(moment("since", "x").unwrap_err().text.starts_with("invalid value for \"since\": failed to parse"));
    }
}
