//! What an engine tells while it works on images (pull, push, load, import), shown as it comes.

use std::io::Write;

use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sampan_ui::progress::Progress;
use sampan_ui::terminal;

use crate::error::{CliError, Outcome};

/// Shows the engine's messages, bars where `out` is a terminal.
pub(super) async fn show_messages(response: Response<Incoming>, out: impl Write + std::os::fd::AsFd) -> Outcome<()> {
    let shown_on = if terminal::is_terminal(&out) { out.as_fd().try_clone_to_owned().ok() } else { None };
    let columns = || shown_on.as_ref().map(|out| terminal::size(out).map_or(80, |(_, columns)| columns));
    follow(response, &mut Progress::new(out, columns()), &columns).await
}

/// Shows the engine's messages; the first error ends it.
pub(super) async fn messages(response: Response<Incoming>, progress: &mut Progress<impl Write>) -> Outcome<()> {
    follow(response, progress, &|| None).await
}

/// The same on a terminal whose width may change.
async fn follow(response: Response<Incoming>, progress: &mut Progress<impl Write>, columns: &dyn Fn() -> Option<u16>) -> Outcome<()> {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CliError::new(format!("the engine's answer broke off: {error}")))?;
        let Ok(bytes) = frame.into_data() else { continue };
        text.extend_from_slice(&bytes);
        if let Some(columns) = columns() {
            progress.resize(columns);
        }
        if text.len() > 64 << 20 {
            return Err(CliError::new("a message of the engine is too long"));
        }
        let mut read = serde_json::Deserializer::from_slice(&text).into_iter::<serde_json::Value>();
        let mut done = 0;
        let mut failed = None;
        while let Some(Ok(message)) = read.next() {
            done = read.byte_offset();
            if let Some(error) = progress.show(&message)? {
                failed = Some(error);
                break;
            }
        }
        text.drain(..done);
        if let Some(error) = failed {
            return Err(CliError::new(error));
        }
    }
    Ok(())
}
