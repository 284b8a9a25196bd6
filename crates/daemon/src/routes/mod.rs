//! Which path leads where.

mod build;
mod containers;
mod exec;
mod images;
mod registries;
pub(crate) mod streams;
mod system;
mod volumes;

use std::sync::Arc;

use http::{Method, StatusCode};

use crate::respond::{ApiError, Reply};
use crate::server::{Call, Context};

/// Answers a request.
pub(crate) async fn dispatch(context: Arc<Context>, call: Call) -> Reply {
    let path = call.path.clone();
    let words: Vec<&str> = path.strip_prefix('/').unwrap_or(&path).split('/').collect();
    let method = call.request.method().clone();
    match words[0] {
        "containers" => containers::dispatch(context, call, &method, &words[1..]).await,
        "exec" => exec::dispatch(context, call, &method, &words[1..]).await,
        "images" => images::dispatch(context, call, &method, &path).await,
        "commit" if method == Method::POST && words.len() == 1 => images::commit(context, call).await,
        "volumes" => volumes::volumes(context, call, &method, &words[1..]).await,
        "networks" => volumes::networks(context, call, &method, &words[1..]).await,
        "_ping" | "version" | "info" | "events" | "system" if words.len() <= 2 => system::dispatch(context, call, &method, &words).await,
        "swarm" if method == Method::POST && matches!(words.get(1), Some(&("init" | "join"))) => {
            Err(ApiError::unsupported("swarm mode (an engine here is one machine; several are an orchestrator's work)"))
        }
        "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs" => Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        )),
        "plugins" if method == Method::GET && words.len() == 1 => crate::respond::ok(&sampan_wire::Json::Array(Vec::new())),
        "plugins" if matches!(words.get(1), Some(&("pull" | "create" | "privileges"))) => {
            Err(ApiError::unsupported("managed plugins (the drivers local, bridge, host and none are built in)"))
        }
        "plugins" => Err(ApiError::not_found(format!("plugin \"{}\" not found", words.get(1).unwrap_or(&"")))),
        "build" => build::dispatch(context, call, &method, &words[1..]).await,
        "distribution" if method == Method::GET => {
            let name = path.strip_prefix("/distribution/").and_then(|rest| rest.strip_suffix("/json")).filter(|name| !name.is_empty());
            registries::distribution(context, call, name.ok_or_else(not_found)?).await
        }
        "auth" if method == Method::POST && words.len() == 1 => registries::auth(context, call).await,
        "session" | "grpc" => Err(ApiError::unsupported("BuildKit sessions (set DOCKER_BUILDKIT=0)")),
        _ => Err(not_found()),
    }
}

/// The answer to a path or method that does not exist.
pub(crate) fn not_found() -> ApiError {
    ApiError::not_found("page not found")
}
