//! Further processes.

use std::sync::Arc;

use http::{Method, StatusCode};
use sampan_wire::{Json, object};

use super::not_found;
use crate::body::json_body;
use crate::escape::Escape;
use crate::hijack::{self, Leave, Session};
use crate::respond::{ApiError, Reply, bad_field, empty, ok};
use crate::server::{Call, Context, blocking};

/// What a client is told that left an exec by its keys; the original's words.
const FAREWELL: &str = "exec attach failed: error on attach stdin: read escape sequence\r\n";

pub(crate) async fn dispatch(context: Arc<Context>, call: Call, method: &Method, words: &[&str]) -> Reply {
    let engine = Arc::clone(&context.engine);
    match (method.as_str(), words) {
        ("POST", [id, "start"]) => start(context, call, id).await,
        ("GET", [id, "json"]) => {
            let id = (*id).to_owned();
            let view = blocking(move || engine.exec_inspect(&id)).await??;
            let request = &view.request;
            let mut process = object! {
                "tty": request.tty,
                "entrypoint": request.cmd.first().cloned().unwrap_or_default(),
                "arguments": Json::list(request.cmd.iter().skip(1).cloned()),
                "privileged": request.privileged,
            }
            .pairs();
            if !request.user.is_empty() {
                process.push(("user".into(), request.user.clone().into()));
            }
            ok(&object! {
                "ID": view.id.clone(),
                "Running": view.running,
                "ExitCode": Json::option(view.exit_code),
                "ProcessConfig": Json::Object(process),
                "OpenStdin": request.attach_stdin,
                "OpenStderr": request.attach_stderr,
                "OpenStdout": request.attach_stdout,
                "CanRemove": false,
                "ContainerID": view.container_id.clone(),
                "DetachKeys": "",
                "Pid": view.pid,
            })
        }
        ("POST", [id, "resize"]) => {
            let id = (*id).to_owned();
            let (width, height) = size(&call)?;
            blocking(move || engine.exec_resize(&id, width, height)).await??;
            Ok(empty(StatusCode::OK))
        }
        _ => Err(not_found()),
    }
}

/// `h` and `w` of a resize.
pub(crate) fn size(call: &Call) -> Result<(u16, u16), ApiError> {
    let cell = |key: &str, name: &str| {
        let text = call.query.text(key);
        let wrong = |why: &str| ApiError::invalid(format!("invalid resize {name} \"{text}\": {why}"));
        let value: i64 = text.parse().map_err(|_| wrong("invalid syntax"))?;
        u16::try_from(value).map_err(|_| wrong("value out of range"))
    };
    let height = cell("h", "height")?;
    Ok((cell("w", "width")?, height))
}

async fn start(context: Arc<Context>, mut call: Call, id: &str) -> Reply {
    let upgrade = hyper::upgrade::on(&mut call.request);
    let headers = call.request.headers().clone();
    let fields = json_body(call.request).await?;
    let (detach, plain, console) = crate::shape::create::exec_start(&fields).map_err(bad_field)?;
    let (engine, id) = (Arc::clone(&context.engine), id.to_owned());
    let (known, shown) = (Arc::clone(&engine), id.clone());
    let Some(attached) = blocking(move || engine.exec_start(&id, detach, console)).await?? else { return Ok(empty(StatusCode::OK)) };
    let request = known.exec_inspect(&shown)?.request;
    let end = known.exec_wait(&shown).ok();
    // Checked when the exec was made.
    let keys = Escape::parse(&request.detach_keys).filter(|_| request.tty && request.attach_stdin);
    let leave = keys.map(|keys| Leave { keys, farewell: FAREWELL, tell: Box::new(move || known.exec_detached(&shown)) });
    // Whether there are frames is what the start says, whatever the process has.
    let session = Session {
        log: None,
        socket: Some(attached.socket),
        process_is_plain: attached.tty,
        client_is_plain: plain,
        names_frames: call.api >= (1, 42),
        end,
        leave,
    };
    Ok(hijack::join(upgrade, &headers, session))
}
