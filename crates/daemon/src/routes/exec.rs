//! Further processes.

use std::sync::Arc;

use http::{Method, StatusCode};
use sampan_wire::{Json, object};

use super::not_found;
use crate::body::json_body;
use crate::hijack;
use crate::respond::{ApiError, Reply, bad_field, empty, ok};
use crate::server::{Call, Context, blocking};

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
    let (detach, console) = crate::shape::create::exec_start(&fields).map_err(bad_field)?;
    let wants_frames = !fields.truth("Tty").map_err(bad_field)?;
    let (engine, id) = (Arc::clone(&context.engine), id.to_owned());
    let (known, shown) = (Arc::clone(&engine), id.clone());
    match blocking(move || engine.exec_start(&id, detach, console)).await?? {
        None => Ok(empty(StatusCode::OK)),
        Some(attached) => {
            let end = known.exec_wait(&shown).ok();
            Ok(hijack::join(upgrade, &headers, attached, hijack::Framing { announced: call.api >= (1, 42), wanted: wants_frames }, end))
        }
    }
}
