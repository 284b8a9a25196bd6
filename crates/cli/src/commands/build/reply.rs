//! What an engine answers to a build: Docker's stream of texts, or steps of our own engine; the image's ID; how it ends.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sampan_ui::progress::Progress;
use sampan_ui::steps::{Steps, Style, clean_lines};
use sampan_ui::terminal;
use serde_json::Value;

use super::Failed;
use crate::error::{CliError, Outcome};

/// Longest message.
const LONGEST: usize = 64 << 20;
/// Most output that a quiet build keeps for the case that it fails.
const MOST_HELD: usize = 4 << 20;
/// How often times are drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// How the answer is shown: Docker's texts on standard output, steps on standard error where the engine tells of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// The ID alone; all that was said where it fails.
    Quiet,
    /// As it comes, and whether to say why steps ran.
    Steps(Style, bool),
}

/// How a build ended well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Built {
    /// `sha256:…`; empty where the engine did not say.
    pub(super) image: String,
    /// What a quiet build printed.
    pub(super) printed: String,
    /// What the engine says of a Dockerfile that it was asked about, in place of an image.
    pub(super) answer: Option<Value>,
}

impl Built {
    /// The image's ID, which some engines say in words alone.
    pub(super) fn id(&self) -> &str {
        if self.image.is_empty() { self.printed.trim() } else { &self.image }
    }
}

/// Reads and shows an answer to its end. Where the future is dropped before, the terminal is put right.
///
/// # Errors
/// The build's error with its exit code; an answer that broke off.
pub(super) async fn follow(response: Response<Incoming>, show: Show) -> Result<Built, Failed> {
    let mut display = Display::new(io::stdout(), io::stderr(), show);
    let began = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    let mut body = response.into_body();
    let mut messages = Messages::default();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = ticks.tick() => {
                display.tick(began.elapsed())?;
                continue;
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| CliError::new(format!("the engine's answer broke off: {error}")));
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return display.fail(error, began.elapsed()),
        };
        let Ok(bytes) = frame.into_data() else { continue };
        messages.take(&bytes)?;
        while let Some(message) = messages.next()? {
            if let Some(error) = display.message(&message, began.elapsed())? {
                return display.fail(error, began.elapsed());
            }
        }
    }
    messages.end()?;
    display.finish(began.elapsed())
}

/// JSON values in pieces of bytes.
#[derive(Debug, Default)]
struct Messages {
    bytes: Vec<u8>,
    used: usize,
}

impl Messages {
    fn take(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.bytes.drain(..std::mem::take(&mut self.used));
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > LONGEST { Err(CliError::new("a message of the engine is too long")) } else { Ok(()) }
    }

    /// The next whole message. Engines end each with a line feed; a message without one waits for its end.
    fn next(&mut self) -> Outcome<Option<Value>> {
        loop {
            let rest = &self.bytes[self.used..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
            let line = rest[..end].trim_ascii();
            self.used += end + 1;
            if !line.is_empty() {
                return parse(line).map(Some);
            }
        }
    }

    fn end(&self) -> Outcome<()> {
        let rest = self.bytes[self.used..].trim_ascii();
        if rest.is_empty() { Ok(()) } else { Err(CliError::new("the engine's answer broke off: unexpected EOF")) }
    }
}

fn parse(line: &[u8]) -> Outcome<Value> {
    serde_json::from_slice(line).map_err(|error| CliError::new(format!("the engine's answer is no JSON: {error}")))
}

/// Shows the messages.
struct Display<O: Write, E: Write> {
    show: Show,
    classic: Progress<O>,
    steps: Steps<E>,
    /// The engine tells of steps.
    native: bool,
    /// What a quiet build says.
    held: Vec<u8>,
    built: Built,
}

impl<O: Write, E: Write> Display<O, E> {
    fn new(out: O, error: E, show: Show) -> Self {
        let (style, explain) = match show {
            Show::Steps(style, explain) => (style, explain),
            Show::Quiet => (Style::Plain, false),
        };
        let columns = match style {
            Style::Terminal { columns, .. } => Some(columns),
            Style::Plain => None,
        };
        let (classic, steps) = (Progress::new(out, columns), Steps::new(error, style, explain));
        Self { show, classic, steps, native: false, held: Vec::new(), built: Built::default() }
    }

    fn tick(&mut self, now: Duration) -> Outcome<()> {
        if self.native && self.show != Show::Quiet {
            if let Some(size) = terminal::size(io::stderr()) {
                self.steps.resize(size);
            }
            self.steps.tick(now)?;
        }
        Ok(())
    }

    /// Shows a message. An error is given back.
    fn message(&mut self, message: &Value, now: Duration) -> Outcome<Option<CliError>> {
        if let Some(error) = error_of(message) {
            return Ok(Some(error));
        }
        let id = message.get("id").and_then(Value::as_str).unwrap_or_default();
        if let Some(image) = message.pointer("/aux/ID").and_then(Value::as_str).filter(|_| id.is_empty() || id == "moby.image.id") {
            image.clone_into(&mut self.built.image);
            return Ok(None);
        }
        if let Some(answer) = message.get("sampan").filter(|event| event.get("kind").and_then(Value::as_str) == Some("examined")) {
            self.built.answer = Some(answer.clone());
            return Ok(None);
        }
        self.native |= Steps::<E>::knows(message);
        if self.show == Show::Quiet {
            self.hold(message)?;
        } else if self.native {
            self.steps.show(message, now)?;
            self.steps.image().clone_into(&mut self.built.image);
        } else if message.get("aux").is_none() {
            self.classic.show(message)?;
        }
        Ok(None)
    }

    /// What a quiet build says is shown where it fails.
    fn hold(&mut self, message: &Value) -> Outcome<()> {
        let Some(event) = message.get("sampan") else {
            return Ok(Progress::new(&mut self.held, None).show(message).map(drop)?);
        };
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("kind") {
            "output" if self.held.len() < MOST_HELD => self.held.extend_from_slice(clean_lines(text("text")).as_bytes()),
            "finished" => {
                text("image").clone_into(&mut self.built.image);
                self.held = format!("{}\n", text("image")).into_bytes();
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self, now: Duration) -> Result<Built, Failed> {
        if self.built.answer.is_some() {
            return Ok(self.built);
        }
        if self.native && self.built.image.is_empty() {
            return self.fail(CliError::new("the engine's answer broke off"), now);
        }
        if self.native && self.show != Show::Quiet {
            self.steps.finish(now)?;
        }
        self.built.printed = String::from_utf8_lossy(&self.held).into_owned();
        Ok(self.built)
    }

    fn fail(mut self, error: CliError, now: Duration) -> Result<Built, Failed> {
        if self.native && self.show != Show::Quiet {
            self.steps.fail(now)?;
        }
        Err(Failed { error, held: self.held })
    }
}

/// The error that a message is, with the exit code that Docker's client gives it, and an excerpt of the Dockerfile where there is one.
fn error_of(message: &Value) -> Option<CliError> {
    let detail = message.get("errorDetail");
    let text = detail.and_then(|detail| detail.get("message")).and_then(Value::as_str);
    let text = text.or_else(|| message.get("error").and_then(Value::as_str).filter(|text| !text.is_empty()))?;
    let code = detail.and_then(|detail| detail.get("code")).and_then(Value::as_i64).unwrap_or(0);
    // The kernel keeps eight bits of an exit code.
    let code = if code == 0 { 1 } else { u8::try_from(code & 0xff).unwrap_or(1) };
    let excerpt = detail.and_then(|detail| detail.get("excerpt")).and_then(Value::as_str).unwrap_or_default();
    let excerpt: String = excerpt.lines().map(|line| format!("{}\n", sampan_base::sanitize(line))).collect();
    Some(CliError::new(format!("{excerpt}{}", clean_lines(text))).code(code))
}

/// How a build is shown where nobody says: moving lines on a terminal.
///
/// # Errors
/// An unknown way; moving lines without a terminal.
pub(super) fn style(progress: &str) -> Outcome<Option<Style>> {
    let terminal = terminal::is_terminal(io::stderr()).then(|| {
        let (rows, columns) = terminal::size(io::stderr()).unwrap_or((24, 80));
        Style::Terminal { rows, columns }
    });
    match progress {
        "auto" | "" => Ok(Some(terminal.unwrap_or(Style::Plain))),
        "plain" => Ok(Some(Style::Plain)),
        "quiet" | "none" => Ok(None),
        "tty" => terminal.map(Some).ok_or_else(|| CliError::new("failed to get console: provided file is not a console")),
        "rawjson" => Err(CliError::unsupported("--progress=rawjson", "it needs BuildKit's protocol, which comes later")),
        other => Err(CliError::new(format!("invalid progress mode: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn play(show: Show, messages: &[Value]) -> (String, String, Result<Built, Failed>) {
        let (mut out, mut error) = (Vec::new(), Vec::new());
        let mut display = Display::new(&mut out, &mut error, show);
        let failed = messages.iter().find_map(|message| display.message(message, Duration::ZERO).unwrap());
        let ended = match failed {
            Some(failed) => display.fail(failed, Duration::ZERO),
            None => display.finish(Duration::ZERO),
        };
        (String::from_utf8(out).unwrap(), String::from_utf8(error).unwrap(), ended)
    }

    #[test]
    fn another_engines_texts_are_shown_as_they_are() {
        let messages = [
            json!({"stream":"Step 1/1 : FROM scratch"}),
            json!({"stream":"\n"}),
            json!({"aux":{"ID":"sha256:1"}}),
            json!({"stream":"Successfully built 1\n"}),
        ];
        let plain = Show::Steps(Style::Plain, false);
        let (out, error, ended) = play(plain, &messages);
        assert_eq!((out.as_str(), error.as_str()), ("Step 1/1 : FROM scratch\nSuccessfully built 1\n", ""));
        assert_eq!(ended.unwrap().image, "sha256:1");
        let (out, _, ended) = play(Show::Quiet, &[json!({"stream":"sha256:1\n"})]);
        let built = ended.unwrap();
        assert_eq!((out.as_str(), built.printed.as_str(), built.id()), ("", "sha256:1\n", "sha256:1"));
    }

    #[test]
    fn our_engines_steps_are_told() {
        let messages = [
            json!({"sampan":{"kind":"planned","steps":[{"name":"[1/1] RUN x"}]}}),
            json!({"sampan":{"kind":"output","step":0,"text":"said"}}),
            json!({"sampan":{"kind":"done","step":0,"cached":true}}),
            json!({"sampan":{"kind":"finished","image":"sha256:0123456789abcdef","names":["a:1"]}}),
        ];
        let (out, error, ended) = play(Show::Steps(Style::Plain, false), &messages);
        assert_eq!(out, "");
        assert!(error.ends_with("#1 CACHED\n\n1 of 1 steps were cached; built 0123456789ab in 0.0s\nnamed a:1\n"), "{error}");
        assert_eq!(ended.unwrap().image, "sha256:0123456789abcdef");
        let (out, error, ended) = play(Show::Quiet, &messages);
        assert_eq!((out.as_str(), error.as_str(), ended.unwrap().printed.as_str()), ("", "", "sha256:0123456789abcdef\n"));
        let (_, _, ended) = play(Show::Quiet, &messages[..2]);
        assert_eq!(ended.unwrap_err().held, b"said");
    }

    #[test]
    fn errors_have_dockers_exit_codes() {
        let of = |message: Value| error_of(&message).map(|error| (error.text, error.code));
        assert_eq!(of(json!({"errorDetail":{"code":3,"message":"m"},"error":"m"})), Some(("m".into(), 3)));
        assert_eq!(of(json!({"errorDetail":{"message":"m"}})), Some(("m".into(), 1)));
        assert_eq!(of(json!({"error":"old"})), Some(("old".into(), 1)));
        assert_eq!(
            of(json!({"errorDetail":{"message":"m","excerpt":"Dockerfile:2\n>>> RUN"}})),
            Some(("Dockerfile:2\n>>> RUN\nm".into(), 1))
        );
        assert_eq!(of(json!({"stream":"x"})), None);
    }

    #[test]
    fn messages_may_come_in_any_pieces() {
        let bytes = b"{\"stream\":\"a\\n\"}\r\n\r\n{\"stream\":\"b\"}\n";
        for size in 1..=bytes.len() {
            let mut messages = Messages::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                messages.take(piece).unwrap();
                while let Some(message) = messages.next().unwrap() {
                    seen.push(message);
                }
            }
            messages.end().unwrap();
            assert_eq!(seen, [json!({"stream":"a\n"}), json!({"stream":"b"})]);
        }
        let mut cut = Messages::default();
        cut.take(b"{\"stream\":").unwrap();
        assert!(cut.next().unwrap().is_none() && cut.end().is_err());
    }
}
