//! Containers: everything that is not a stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use http::{HeaderValue, Method, Response, StatusCode, header};
use sampan_base::Cancel;
use sampan_engine::model::{ContainerView, Status};
use sampan_engine::{ChangeKind, CreateRequest, EngineError, PathStat, RemoveOptions};
use sampan_wire::{Json, object};

use super::{exec, not_found, streams};
use crate::body::json_body;
use crate::escape::Escape;
use crate::names::Names;
use crate::query::{label, only, prune_filter};
use crate::respond::{ApiError, Reply, bad_field, empty, json, no_content, ok};
use crate::server::{Call, Context, blocking};
use crate::{body, shape};

pub(crate) async fn dispatch(context: Arc<Context>, call: Call, method: &Method, words: &[&str]) -> Reply {
    match (method.as_str(), words) {
        ("GET", ["json"]) => list(context, call).await,
        ("POST", ["create"]) => create(context, call).await,
        ("POST", ["prune"]) => prune(context, call).await,
        ("GET", [name, "json"]) => inspect(context, call, name).await,
        ("GET", [name, "logs"]) => streams::logs(context, call, name).await,
        ("GET", [name, "stats"]) => streams::stats(context, call, name).await,
        ("POST", [name, "attach"]) => streams::attach(context, call, name).await,
        ("POST", [name, "wait"]) => streams::wait(context, call, name).await,
        ("GET", [_, "attach", "ws"]) => Err(ApiError::unsupported("attach by websocket")),
        ("GET", [name, "top"]) => top(context, call, name).await,
        ("GET", [name, "changes"]) => changes(context, name).await,
        ("GET", [name, "export"]) => export(context, name).await,
        ("POST", [name, "exec"]) => exec_create(context, call, name).await,
        ("POST", [name, "update"]) => update(context, call, name).await,
        ("POST", [name, "resize"]) => {
            let (width, height) = exec::size(&call)?;
            let (engine, name) = (Arc::clone(&context.engine), (*name).to_owned());
            blocking(move || engine.resize(&name, width, height)).await??;
            Ok(empty(StatusCode::OK))
        }
        ("HEAD" | "GET" | "PUT", [name, "archive"]) => archive(context, call, method, name).await,
        ("POST", [name, verb]) => verbs(context, call, name, verb).await,
        ("DELETE", [name]) => {
            let options =
                RemoveOptions { force: call.query.truth("force"), volumes: call.query.truth("v"), link: call.query.truth("link") };
            let (engine, name) = (Arc::clone(&context.engine), (*name).to_owned());
            blocking(move || engine.remove(&name, options)).await??;
            no_content()
        }
        _ => Err(not_found()),
    }
}

/// The verbs that answer nothing.
async fn verbs(context: Arc<Context>, call: Call, name: &str, verb: &str) -> Reply {
    let (engine, name) = (Arc::clone(&context.engine), name.to_owned());
    let signal = call.query.get("signal").filter(|text| !text.is_empty()).map(str::to_owned);
    let timeout = call.query.number("t")?;
    let verb = verb.to_owned();
    if verb == "start"
        && call
            .request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .is_some_and(|length| length > 7)
    {
        return Err(ApiError::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    let new_name = call.query.text("name").to_owned();
    let done = blocking(move || -> Option<Result<(), EngineError>> {
        Some(match verb.as_str() {
            "start" => engine.start(&name),
            "stop" => engine.stop(&name, signal.as_deref(), timeout),
            "restart" => engine.restart(&name, signal.as_deref(), timeout),
            "kill" => engine.kill(&name, signal.as_deref().unwrap_or_default()),
            "pause" => engine.pause(&name),
            "unpause" => engine.unpause(&name),
            "rename" => engine.rename(&name, &new_name),
            _ => return None,
        })
    });
    done.await?.ok_or_else(not_found)??;
    no_content()
}

async fn create(context: Arc<Context>, call: Call) -> Reply {
    let name = call.query.get("name").map(str::to_owned);
    let platform = call.query.text("platform").to_owned();
    let fields = json_body(call.request).await?;
    if fields.text("Image").map_err(bad_field)?.is_empty() {
        return Err(ApiError::invalid("config cannot be empty in order to create a container"));
    }
    let mut request = shape::create::parse(&fields, name, &platform)?;
    for_old_clients(&mut request, call.api)?;
    let engine = Arc::clone(&context.engine);
    let created = blocking(move || engine.create(request)).await??;
    Ok(json(StatusCode::CREATED, &object! { "Id": created.id, "Warnings": Json::list(created.warnings) }))
}

/// What a request means in earlier versions of the API.
fn for_old_clients(request: &mut CreateRequest, api: (u32, u32)) -> Result<(), ApiError> {
    if api < (1, 40) && request.host.ipc_mode.is_empty() {
        request.host.ipc_mode = "shareable".into();
    }
    if api < (1, 44) && request.endpoints.len() > 1 {
        let names = request.endpoints.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(ApiError::invalid(format!("Container cannot be created with multiple network endpoints: {names}")));
    }
    Ok(())
}

async fn inspect(context: Arc<Context>, call: Call, name: &str) -> Reply {
    let (engine, name, size) = (Arc::clone(&context.engine), name.to_owned(), call.query.truth("size"));
    let (view, facts) = blocking(move || engine.inspect(&name, size).map(|view| (view, engine.facts().cgroup_version == 2))).await??;
    ok(&shape::container::inspect(&view, facts))
}

async fn list(context: Arc<Context>, call: Call) -> Reply {
    let filters = call.query.filters()?;
    let known = [
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    ];
    only(&filters, &known)?;
    for wanted in filters.get("status").into_iter().flatten() {
        if !["created", "running", "paused", "restarting", "removing", "exited", "dead"].contains(&wanted.as_str()) {
            return Err(ApiError::invalid(format!(
                "invalid filter 'status={wanted}': invalid value for state ({wanted}): must be one of created, running, paused, restarting, removing, exited, dead"
            )));
        }
    }
    for wanted in filters.get("health").into_iter().flatten() {
        if !["none", "starting", "healthy", "unhealthy"].contains(&wanted.as_str()) {
            return Err(ApiError::invalid(format!(
                "invalid filter 'health={wanted}': invalid value for health ({wanted}): must be one of none, starting, healthy, unhealthy"
            )));
        }
    }
    let limit = call.query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let all = call.query.truth("all") || limit.is_some() || filters.contains_key("status") || filters.contains_key("exited");
    let size = call.query.truth("size");
    let (engine, api) = (Arc::clone(&context.engine), call.api);
    let rows = blocking(move || -> Vec<Json> {
        let views = engine.list(size);
        let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let created = |name: &String| {
            views.iter().find(|view| view.spec.name == *name || view.spec.id.starts_with(name.as_str())).map(|view| view.spec.created)
        };
        let ancestor = |name: &String| engine.images().resolve_with_descendants(name).unwrap_or_default();
        let ancestors: Vec<String> = filters.get("ancestor").into_iter().flatten().flat_map(ancestor).collect();
        let edges = |key: &str| filters.get(key).into_iter().flatten().filter_map(created).collect::<Vec<_>>();
        let (before, since) = (edges("before"), edges("since"));
        let names = Names::of(&filters);
        let fits = |view: &&ContainerView| {
            (all || view.state.status.is_running() || view.state.status == Status::Restarting)
                && before.iter().all(|edge| view.spec.created < *edge)
                && since.iter().all(|edge| view.spec.created > *edge)
                && names.fit_container(&view.spec.name)
                && filters.iter().all(|(key, values)| fits_one(view, key, values, &ancestors))
        };
        views.iter().filter(fits).take(limit.unwrap_or(usize::MAX)).map(|view| shape::container::summary(view, now, api)).collect()
    });
    ok(&Json::Array(rows.await?))
}

/// Whether a container has one of the values of a filter (all of them for labels).
fn fits_one(view: &ContainerView, key: &str, values: &[String], ancestors: &[String]) -> bool {
    let spec = &view.spec;
    let has_label = |wanted: &String| {
        let (key, value) = label(wanted);
        spec.config.labels.get(&key).is_some_and(|found| value.as_ref().is_none_or(|wanted| wanted == found))
    };
    match key {
        "label" => values.iter().all(has_label),
        "ancestor" => ancestors.contains(&spec.image_id),
        "before" | "since" | "name" => true,
        _ => values.iter().any(|wanted| match key {
            "id" => spec.id.starts_with(wanted.as_str()),
            "status" => view.state.status.name() == wanted,
            "exited" => view.state.status == Status::Exited && wanted.parse() == Ok(view.state.exit_code),
            "network" => {
                let has_id =
                    view.state.endpoints.values().any(|endpoint| !wanted.is_empty() && endpoint.network_id.starts_with(wanted.as_str()));
                spec.host.network_mode == *wanted || view.state.endpoints.contains_key(wanted) || has_id
            }
            "volume" => spec.mounts.iter().any(|mount| mount.name == *wanted || mount.destination == *wanted || mount.source == *wanted),
            "health" => wanted == view.state.health.as_ref().map_or("none", |health| health.status.name()),
            "publish" => view.state.ports.values().flatten().any(|binding| wanted.split('/').next() == Some(binding.host_port.as_str())),
            "expose" => spec.config.exposed_ports.iter().any(|port| port == wanted || port.split('/').next() == Some(wanted)),
            "is-task" => matches!(wanted.as_str(), "false" | "0"),
            _ => true,
        }),
    }
}

async fn prune(context: Arc<Context>, call: Call) -> Reply {
    let filters = call.query.filters()?;
    only(&filters, &["label", "label!", "until"])?;
    let (engine, filter) = (Arc::clone(&context.engine), prune_filter(&filters)?);
    let report = blocking(move || engine.prune_containers(&filter)).await??;
    ok(&object! { "ContainersDeleted": Json::list_or_null(report.deleted), "SpaceReclaimed": report.space })
}

async fn top(context: Arc<Context>, call: Call, name: &str) -> Reply {
    let (engine, name, arguments) = (Arc::clone(&context.engine), name.to_owned(), call.query.text("ps_args").to_owned());
    let top = blocking(move || engine.top(&name, &arguments)).await??;
    ok(&object! { "Processes": Json::Array(top.processes.into_iter().map(Json::list).collect()), "Titles": Json::list(top.titles) })
}

async fn changes(context: Arc<Context>, name: &str) -> Reply {
    let (engine, name) = (Arc::clone(&context.engine), name.to_owned());
    let changes = blocking(move || engine.changes(&name)).await??;
    let kind = |kind: ChangeKind| match kind {
        ChangeKind::Changed => 0,
        ChangeKind::Added => 1,
        ChangeKind::Deleted => 2,
    };
    ok(&Json::list_or_null(changes.into_iter().map(|change| object! { "Path": change.path, "Kind": kind(change.kind) })))
}

async fn export(context: Arc<Context>, name: &str) -> Reply {
    let (engine, name) = (Arc::clone(&context.engine), name.to_owned());
    let known = Arc::clone(&engine);
    let shown = name.clone();
    blocking(move || known.inspect(&shown, false).map(drop)).await??;
    let mut response = archive_answer(move |writer| engine.export(&name, writer, &Cancel::new()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

/// An answer that a blocking thread writes; a failure breaks it off.
pub(crate) fn archive_answer<E: std::error::Error + 'static>(
    work: impl FnOnce(&mut dyn std::io::Write) -> Result<(), E> + Send + 'static,
) -> Response<crate::respond::Body> {
    let (writer, stream) = body::streaming();
    tokio::task::spawn_blocking(move || {
        let mut buffered = std::io::BufWriter::with_capacity(128 * 1024, writer.clone());
        let result = work(&mut buffered);
        let flushed = std::io::Write::flush(&mut buffered);
        if let Err(error) = result {
            let error = sampan_engine::chain(&error);
            tracing::warn!(%error, "an archive was broken off");
            writer.abort(std::io::Error::other(error));
        } else if let Err(error) = flushed {
            writer.abort(error);
        }
    });
    let mut response = Response::new(stream);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    response
}

async fn exec_create(context: Arc<Context>, call: Call, name: &str) -> Reply {
    let fields = json_body(call.request).await?;
    let request = shape::create::exec(&fields).map_err(bad_field)?;
    if Escape::parse(&request.detach_keys).is_none() {
        return Err(ApiError::invalid(format!("Invalid escape keys ({}) provided", request.detach_keys)));
    }
    let (engine, name) = (Arc::clone(&context.engine), name.to_owned());
    let id = blocking(move || engine.exec_create(&name, request)).await??;
    Ok(json(StatusCode::CREATED, &object! { "Id": id }))
}

async fn update(context: Arc<Context>, call: Call, name: &str) -> Reply {
    let fields = json_body(call.request).await?;
    let (mut resources, restart) = crate::decode::update(&fields)?;
    if call.api < (1, 40) {
        resources.pids_limit = None;
    }
    let (engine, name) = (Arc::clone(&context.engine), name.to_owned());
    let warnings = blocking(move || engine.update(&name, &resources, restart)).await??;
    ok(&object! { "Warnings": Json::list_or_null(warnings) })
}

/// The header that carries a path's facts.
fn stat_header(stat: &PathStat) -> Result<HeaderValue, ApiError> {
    let mtime = jiff::Timestamp::new(stat.mtime.0, i32::try_from(stat.mtime.1).unwrap_or(0))
        .map_or_else(|_| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string());
    let document =
        object! { "name": stat.name.clone(), "size": stat.size, "mode": stat.mode, "mtime": mtime, "linkTarget": stat.link_target.clone() };
    let text = base64::engine::general_purpose::STANDARD.encode(document.print());
    HeaderValue::from_str(&text).map_err(|_| ApiError::invalid("path cannot be shown in a header"))
}

async fn archive(context: Arc<Context>, call: Call, method: &Method, name: &str) -> Reply {
    let (name, path) = (name.to_owned(), call.query.text("path").to_owned());
    if path.is_empty() {
        return Err(ApiError::invalid("bad parameter: pathcannot be empty"));
    }
    let engine = Arc::clone(&context.engine);
    if method == Method::PUT {
        let mut reader = body::reader(call.request.into_body());
        blocking(move || engine.archive_put(&name, &path, &mut reader, &Cancel::new())).await??;
        return Ok(empty(StatusCode::OK));
    }
    let (known, shown, place) = (Arc::clone(&engine), name.clone(), path.clone());
    let stat = blocking(move || known.archive_stat(&shown, &place)).await??;
    let mut response = if method == Method::HEAD {
        empty(StatusCode::OK)
    } else {
        archive_answer(move |writer| engine.archive_get(&name, &path, writer, &Cancel::new()))
    };
    response.headers_mut().insert("X-Docker-Container-Path-Stat", stat_header(&stat)?);
    Ok(response)
}

/// Ids and states of an image's containers.
pub(crate) fn users(views: &[ContainerView]) -> BTreeMap<String, Vec<(String, bool)>> {
    let mut users: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for view in views {
        users.entry(view.spec.image_id.clone()).or_default().push((view.spec.id.clone(), view.state.status.is_running()));
    }
    users
}
