//! What an engine answers to a build: Docker's stream of texts, or steps of our own engine; the image's ID; how it ends.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sampan_ui::progress::Progress;
use sampan_ui::steps::{Steps, Style};
use sampan_ui::terminal;
use serde_json::Value;

use super::Failed;
use crate::error::{CliError, Outcome};

/// Longest message.
const LONGEST: usize = 64 << 20;
/// How often times are drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// How the answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// The ID alone; all that was said where it fails.
    Quiet,
    /// Docker's texts, or steps where the engine tells of them.
    Steps(Style, bool),
}

/// How a build ended well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Built {
    /// `sha256:…`; empty where the engine did not say.
    pub(super) image: String,
    /// What a quiet build printed.
    pub(super) printed: String,
}

/// Reads and shows an answer to its end. Where the future is dropped before, the terminal is put right.
///
/// # Errors
/// The build's error with its exit code; an answer that broke off.
pub(super) async fn follow(response: Response<Incoming>, show: Show, names: &[String]) -> Result<Built, Failed> {
    let mut display = Display::new(io::stdout(), show, names);
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
            Err(error) => return display.fail(error),
        };
        let Ok(bytes) = frame.into_data() else { continue };
        messages.take(&bytes)?;
        while let Some(message) = messages.next()? {
            if let Some(error) = display.message(&message, began.elapsed())? {
                return display.fail(error);
            }
        }
    }
    messages.end()?;
    display.finish()
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

/// Shows the messages; begins with Docker's texts and changes to steps with the first of them.
struct Display<W: Write + Again> {
    out: W,
    show: Show,
    names: Vec<String>,
    classic: Option<Progress<W>>,
    steps: Option<Steps<W>>,
    /// What a quiet build says.
    held: Vec<u8>,
    built: Built,
}

/// An output that can be had twice.
trait Again {
    fn again(&self) -> Self;
}

impl Again for io::Stdout {
    fn again(&self) -> Self {
        io::stdout()
    }
}

impl<W: Write + Again> Display<W> {
    fn new(out: W, show: Show, names: &[String]) -> Self {
        let columns = match show {
            Show::Steps(Style::Terminal { columns, .. }, _) => Some(columns),
            _ => None,
        };
        let classic = Some(Progress::new(out.again(), columns));
        Self { out, show, names: names.to_vec(), classic, steps: None, held: Vec::new(), built: Built::default() }
    }

    fn tick(&mut self, now: Duration) -> Outcome<()> {
        Ok(self.steps.as_mut().map_or(Ok(()), |steps| steps.tick(now))?)
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
        if self.show == Show::Quiet {
            Progress::new(&mut self.held, None).show(message)?;
            return Ok(None);
        }
        if let (None, Show::Steps(style, explain)) = (&self.steps, self.show)
            && Steps::<W>::knows(message)
        {
            self.steps = Some(Steps::new(self.out.again(), style, explain));
        }
        if let Some(steps) = &mut self.steps {
            // The end is told by us, with the names.
            let text = message.get("stream").and_then(Value::as_str).unwrap_or_default();
            if !text.starts_with("Successfully ") {
                steps.show(message, now)?;
            }
        } else if message.get("aux").is_none()
            && let Some(classic) = &mut self.classic
        {
            classic.show(message)?;
        }
        Ok(None)
    }

    fn finish(mut self) -> Result<Built, Failed> {
        if let Some(steps) = &mut self.steps {
            steps.finish(&self.built.image, &self.names)?;
        }
        self.built.printed = String::from_utf8_lossy(&self.held).into_owned();
        Ok(self.built)
    }

    fn fail(mut self, error: CliError) -> Result<Built, Failed> {
        if let Some(steps) = &mut self.steps {
            steps.fail()?;
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
    Some(CliError::new(format!("{excerpt}{text}")).code(code))
}

/// How a build is shown where nobody says: moving lines on a terminal.
///
/// # Errors
/// An unknown way; moving lines without a terminal.
pub(super) fn style(progress: &str) -> Outcome<Option<Style>> {
    let terminal = terminal::is_terminal(io::stdout()).then(|| {
        let (rows, columns) = terminal::size(io::stdout()).unwrap_or((24, 80));
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
    use std::cell::RefCell;
    use std::rc::Rc;

    use serde_json::json;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Again for Shared {
        fn again(&self) -> Self {
            self.clone()
        }
    }

    fn play(show: Show, messages: &[Value]) -> (String, Result<Built, Failed>) {
        let out = Shared::default();
        let mut display = Display::new(out.again(), show, &["a:1".to_owned()]);
        for message in messages {
            if let Some(error) = display.message(message, Duration::ZERO).unwrap() {
                let ended = display.fail(error);
                return (String::from_utf8(out.0.borrow().clone()).unwrap(), ended);
            }
        }
        let ended = display.finish();
        let text = String::from_utf8(out.0.borrow().clone()).unwrap();
        (text, ended)
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
        let (text, ended) = play(plain, &messages);
        assert_eq!(text, "Step 1/1 : FROM scratch\nSuccessfully built 1\n");
        assert_eq!(ended.unwrap().image, "sha256:1");
        let (text, ended) = play(Show::Quiet, &[json!({"stream":"sha256:1\n"})]);
        assert_eq!((text.as_str(), ended.unwrap().printed.as_str()), ("", "sha256:1\n"));
    }

    #[test]
    fn our_engines_steps_are_told_with_names() {
        let messages = [
            json!({"id":"sampan.step","aux":{"step":1,"of":1,"stage":"build","text":"FROM scratch","state":"cached"}}),
            json!({"aux":{"ID":"sha256:1"}}),
            json!({"stream":"Successfully built 1\n"}),
        ];
        let (text, _) = play(Show::Steps(Style::Plain, false), &messages);
        assert_eq!(text, "#1 [build 1/1] FROM scratch\n#1 CACHED\n\n1 of 1 steps cached\nimage sha256:1\nnamed a:1\n");
    }

    #[test]
    fn errors_have_dockers_exit_codes() {
        let of = |message: Value| error_of(&message).map(|error| (error.text, error.code));
        assert_eq!(of(json!({"errorDetail":{"code":3,"message":"m"},"error":"m"})), Some(("m".into(), 3)));
        assert_eq!(of(json!({"errorDetail":{"message":"m"}})), Some(("m".into(), 1)));
        assert_eq!(of(json!({"error":"old"})), Some(("old".into(), 1)));
        assert_eq!(of(json!({"errorDetail":{"message":"m","excerpt":"Dockerfile:2\n>>> RUN"}})), Some(("Dockerfile:2\n>>> RUN\nm".into(), 1)));
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
