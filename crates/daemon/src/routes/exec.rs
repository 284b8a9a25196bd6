//! Further processes.

use std::sync::Arc;

use http::{Method, StatusCode};
use sampan_wire::{Json, object};

use super::not_found;
use crate::query::parse_body;
use crate::respond::{ApiError, Reply, bad_field, empty, ok};
use crate::server::{Call, Context, blocking};
use crate::{body, hijack};

pub(crate) async fn dispatch(context: Arc<Context>, call: Call, method: &Method, words: &[&str]) -> Reply {
    let engine = Arc::clone(&context.engine);
    match (method.as_str(), words) {
        ("POST", [id, "start"]) => start(context, call, id).await,
        ("GET", [id, "json"]) => {
            let id = (*id).to_owned();
            let view = blocking(move || engine.exec_inspect(&id)).await??;
            let request = &view.request;
            let process = object! {
                "tty": request.tty,
                "entrypoint": request.cmd.first().cloned().unwrap_or_default(),
                "arguments": Json::list(request.cmd.iter().skip(1).cloned()),
                "privileged": request.privileged,
                "user": request.user.clone(),
            };
            ok(&object! {
                "ID": view.id.clone(),
                "Running": view.running,
                "ExitCode": Json::option(view.exit_code),
                "ProcessConfig": process,
                "OpenStdin": request.attach_stdin,
                "OpenStderr": request.attach_stderr,
                "OpenStdout": request.attach_stdout,
                "CanRemove": !view.running && view.exit_code.is_some(),
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
    let cell = |key: &str| {
        call.query
            .number(key)?
            .and_then(|value| u16::try_from(value).ok())
            .ok_or_else(|| ApiError::invalid(format!("invalid resize parameter {key}")))
    };
    Ok((cell("w")?, cell("h")?))
}

async fn start(context: Arc<Context>, mut call: Call, id: &str) -> Reply {
    let upgrade = hyper::upgrade::on(&mut call.request);
    let headers = call.request.headers().clone();
    let fields = parse_body(&body::collect(call.request.into_body()).await?)?;
    let detach = fields.truth("Detach").map_err(bad_field)?;
    let list = fields.get("ConsoleSize").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let cell = |index: usize| list.get(index).and_then(serde_json::Value::as_u64).and_then(|value| u16::try_from(value).ok());
    let console = cell(0).zip(cell(1)).map(|(height, width)| [height, width]);
    let (engine, id) = (Arc::clone(&context.engine), id.to_owned());
    match blocking(move || engine.exec_start(&id, detach, console)).await?? {
        None => Ok(empty(StatusCode::OK)),
        Some(attached) => Ok(hijack::join(upgrade, &headers, attached.socket, attached.tty, call.api >= (1, 42))),
    }
}
