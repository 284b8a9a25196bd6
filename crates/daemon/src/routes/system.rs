//! `_ping`, `version`, `info`, `events`, `system/df`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use sampan_base::Event;
use sampan_wire::{Json, object};

use super::not_found;
use crate::query::{label, moment};
use crate::respond::{ApiError, Reply, full, ok};
use crate::server::{Call, Context, blocking};
use crate::{API, body, shape};

pub(crate) async fn dispatch(context: Arc<Context>, call: Call, method: &Method, words: &[&str]) -> Reply {
    match (method.as_str(), words) {
        ("GET" | "HEAD", ["_ping"]) => ping(method),
        ("GET", ["version"]) => {
            let engine = Arc::clone(&context.engine);
            let facts = blocking(move || engine.facts()).await?;
            ok(&shape::system::version(&facts, &context.version))
        }
        ("GET", ["info"]) => {
            let engine = Arc::clone(&context.engine);
            ok(&shape::system::info(&blocking(move || engine.facts()).await?, call.api))
        }
        ("GET", ["events"]) => events(&context, &call),
        ("GET", ["system", "df"]) => disk_usage(context, &call).await,
        _ => Err(not_found()),
    }
}

fn ping(method: &Method) -> Reply {
    let mut response = Response::new(full(if method == Method::HEAD { Bytes::new() } else { Bytes::from_static(b"OK") }));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

/// Whether an event fits the filters: one value of each key.
fn fits(event: &Event, filters: &std::collections::BTreeMap<String, Vec<String>>) -> bool {
    let attribute = |key: &str| event.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let named = |wanted: &String, kind: &str| {
        event.kind.name() == kind && (event.id.starts_with(wanted.as_str()) || attribute("name") == Some(wanted))
    };
    filters.iter().all(|(key, values)| {
        values.is_empty()
            || values.iter().any(|wanted| match key.as_str() {
                "type" => event.kind.name() == wanted,
                "event" => event.action == *wanted || event.action.split(':').next() == Some(wanted),
                "container" | "volume" | "network" => named(wanted, key),
                "image" => {
                    named(wanted, "image")
                        || attribute("image").is_some_and(|image| image == wanted || image.split(':').next() == Some(wanted))
                }
                "label" => {
                    let (key, value) = label(wanted);
                    attribute(&key).is_some_and(|found| value.as_deref().is_none_or(|wanted| wanted == found))
                }
                "scope" => wanted == "local",
                "daemon" => event.kind.name() == "daemon",
                _ => false,
            })
    })
}

fn events(context: &Context, call: &Call) -> Reply {
    let filters = call.query.filters()?;
    let time = |key: &str| call.query.get(key).filter(|text| !text.is_empty()).map(moment).transpose();
    let (since, until) = (time("since")?, time("until")?);
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        let text = |key: &str| call.query.text(key).to_owned();
        return Err(ApiError::invalid(format!("`since` time ({}) cannot be after `until` time ({})", text("since"), text("until"))));
    }
    let (recent, mut next) = context.engine.subscribe_events();
    let (writer, stream) = body::streaming();
    let mut shutdown = context.shutdown.clone();
    tokio::spawn(async move {
        let print = |event: &Event| shape::system::event(event).print() + "\n";
        if since.is_some() || until.is_some() {
            for event in recent
                .iter()
                .filter(|event| since.is_none_or(|since| event.time_nano >= since) && until.is_none_or(|until| event.time_nano <= until))
            {
                if fits(event, &filters) && !writer.send(print(event)).await {
                    return;
                }
            }
        }
        let end = async {
            match until {
                None => std::future::pending().await,
                Some(until) => {
                    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
                    tokio::time::sleep(std::time::Duration::from_nanos(u64::try_from(until - now).unwrap_or(0))).await;
                }
            }
        };
        tokio::pin!(end);
        loop {
            let event = tokio::select! {
                event = std::future::poll_fn(|task| next.poll_next(task)) => event,
                () = &mut end => return,
                () = writer.closed() => return,
                _ = shutdown.changed() => return,
            };
            let Some(event) = event else { return };
            if fits(&event, &filters) && !writer.send(print(&event)).await {
                return;
            }
        }
    });
    let mut response = Response::new(stream);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Images that others are built on.
fn parents(images: &[sampan_images::Image]) -> std::collections::HashSet<String> {
    images.iter().filter_map(|image| image.parent.clone()).collect()
}

async fn disk_usage(context: Arc<Context>, call: &Call) -> Reply {
    let wanted = call.query.all("type");
    if let Some(unknown) = wanted.iter().find(|kind| !matches!(kind.as_str(), "container" | "image" | "volume" | "build-cache")) {
        return Err(ApiError::invalid(format!("unknown object type: {unknown}")));
    }
    let engine = Arc::clone(&context.engine);
    let document = blocking(move || -> Result<Json, ApiError> {
        let cache = context.builder.cache()?;
        let sizes = engine.images().layer_sizes()?;
        let mut images = engine.images().all()?;
        let (steps, parents) = (engine.images().build_steps()?, parents(&images));
        images.retain(|image| {
            let id = image.id.to_string();
            !image.references.is_empty() || !image.digests.is_empty() || !(steps.contains(&id) || parents.contains(&id))
        });
        let views = engine.list(true);
        let shared = super::images::shared_sizes(&images, &sizes);
        let rows = images.iter().zip(shared).map(|(image, shared)| {
            let containers = views.iter().filter(|view| view.spec.image_id == image.id.to_string()).count();
            shape::image::summary(image, i64::try_from(containers).unwrap_or(0), shared, API)
        });
        let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let total: u64 = sizes.values().sum();
        let volumes = engine.volume_usage()?;
        // Of what nobody asked for there is nothing, not even an empty list.
        let asked = |kind: &str, list: Vec<Json>| {
            let all = wanted.is_empty() || wanted.iter().any(|one| one == kind);
            if all { Json::Array(list) } else { Json::NULL }
        };
        let images = asked("image", rows.collect());
        Ok(object! {
            "LayersSize": if images == Json::NULL { 0 } else { total },
            "Images": images,
            "Containers": asked("container", views.iter().map(|view| shape::container::summary(view, now, API)).collect()),
            "Volumes": asked("volume", volumes.iter().map(shape::image::volume).collect()),
            "BuildCache": asked("build-cache", cache.iter().map(super::build::cache_item).collect()),
        })
    });
    ok(&document.await??)
}
