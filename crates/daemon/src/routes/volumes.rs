//! Volumes and networks.

use std::sync::Arc;

use http::{Method, StatusCode};
use sampan_engine::EngineError;
use sampan_wire::{Json, object};

use super::not_found;
use crate::body::json_body;
use crate::names::Names;
use crate::query::{label, only, prune_filter};
use crate::respond::{ApiError, Reply, bad_field, json, no_content, ok};
use crate::server::{Call, Context, blocking};
use crate::shape;

pub(crate) async fn volumes(context: Arc<Context>, call: Call, method: &Method, words: &[&str]) -> Reply {
    let engine = Arc::clone(&context.engine);
    match (method.as_str(), words) {
        ("GET", []) => {
            let filters = call.query.filters()?;
            only(&filters, &["dangling", "driver", "label", "name"])?;
            let names = Names::of(&filters);
            let found = blocking(move || -> Result<Vec<Json>, EngineError> {
                let used = |name: &str| engine.list(false).iter().any(|view| view.spec.mounts.iter().any(|mount| mount.name == name));
                let fits = |volume: &sampan_engine::model::VolumeView| {
                    filters.iter().all(|(key, values)| {
                        values.iter().any(|wanted| match key.as_str() {
                            "name" => names.fit(&volume.name),
                            "driver" => volume.driver == *wanted,
                            "label" => {
                                let (key, value) = label(wanted);
                                volume.labels.get(&key).is_some_and(|found| value.as_ref().is_none_or(|wanted| wanted == found))
                            }
                            _ => matches!(wanted.as_str(), "1" | "true") != used(&volume.name),
                        })
                    })
                };
                Ok(engine.volumes()?.iter().filter(|volume| fits(volume)).map(shape::image::volume).collect())
            });
            ok(&object! { "Volumes": Json::Array(found.await??), "Warnings": Json::NULL })
        }
        ("POST", ["create"]) => {
            let fields = json_body(call.request).await?;
            let request = shape::image::volume_request(&fields).map_err(bad_field)?;
            let volume = blocking(move || engine.volume_create(&request)).await??;
            Ok(json(StatusCode::CREATED, &shape::image::volume(&volume)))
        }
        ("POST", ["prune"]) => {
            let filters = call.query.filters()?;
            let all = filters.get("all").is_some_and(|values| values.iter().any(|value| matches!(value.as_str(), "1" | "true")))
                || call.api < (1, 42);
            let filter = prune_filter(&filters)?;
            let report = blocking(move || engine.prune_volumes(&filter, all)).await??;
            ok(&object! { "VolumesDeleted": Json::list(report.deleted), "SpaceReclaimed": report.space })
        }
        ("GET", [name]) => {
            let name = (*name).to_owned();
            ok(&shape::image::volume(&blocking(move || engine.volume(&name)).await??))
        }
        ("DELETE", [name]) => {
            let (name, force) = ((*name).to_owned(), call.query.truth("force"));
            blocking(move || engine.volume_remove(&name, force)).await??;
            no_content()
        }
        _ => Err(not_found()),
    }
}

pub(crate) async fn networks(context: Arc<Context>, call: Call, method: &Method, words: &[&str]) -> Reply {
    let engine = Arc::clone(&context.engine);
    match (method.as_str(), words) {
        ("GET", []) => {
            let filters = call.query.filters()?;
            only(&filters, &["dangling", "driver", "id", "label", "name", "scope", "type"])?;
            let names = Names::of(&filters);
            let all = blocking(move || engine.networks()).await?;
            let fits = |network: &&sampan_engine::model::NetworkView| {
                filters.iter().all(|(key, values)| {
                    values.iter().any(|wanted| match key.as_str() {
                        "name" => names.fit(&network.name),
                        "id" => network.id.starts_with(wanted.as_str()),
                        "driver" => network.driver == *wanted,
                        "scope" => wanted == "local",
                        "type" => wanted == "builtin",
                        _ => false,
                    })
                })
            };
            ok(&Json::Array(all.iter().filter(fits).map(shape::image::network).collect()))
        }
        ("GET", [name]) => {
            let name = (*name).to_owned();
            ok(&shape::image::network(&blocking(move || engine.network(&name)).await??))
        }
        ("POST", ["create"]) => Err(ApiError::unsupported("network create (networks of one's own come later)")),
        ("POST", ["prune"]) => ok(&object! { "NetworksDeleted": Json::NULL }),
        ("POST", [name, "connect" | "disconnect"]) => {
            Err(ApiError::unsupported(&format!("changing network {name} (networks of one's own come later)")))
        }
        ("DELETE", [name]) => {
            let name = (*name).to_owned();
            let network = blocking(move || engine.network(&name)).await??;
            Err(ApiError::new(StatusCode::FORBIDDEN, format!("{} is a pre-defined network and cannot be removed", network.name)))
        }
        _ => Err(not_found()),
    }
}
