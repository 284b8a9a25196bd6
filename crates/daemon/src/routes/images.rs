//! Images: names contain slashes, so a path is its name between a prefix and a suffix.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use sampan_base::Cancel;
use sampan_build::apply_changes;
use sampan_engine::CommitRequest;
use sampan_images::{ImageFilter, ImportOptions, Removed};
use sampan_oci::{ContainerConfig, Platform};
use sampan_wire::{Json, object};

use super::{containers, not_found, registries};
use crate::progress::{Lines, answer, failure};
use crate::query::{Query, label, moment, only};
use crate::respond::{ApiError, Reply, bad_field, empty, json, ok};
use crate::server::{Call, Context, blocking};
use crate::{body, shape};

pub(crate) async fn dispatch(context: Arc<Context>, call: Call, method: &Method, path: &str) -> Reply {
    let rest = path.strip_prefix("/images/").unwrap_or_default().to_owned();
    let named = |suffix: &str| rest.strip_suffix(suffix).filter(|name| !name.is_empty()).map(str::to_owned);
    match method.as_str() {
        "GET" => match rest.as_str() {
            "json" => list(context, call).await,
            "get" => save(&context, &call.query, &call.query.all("names")),
            "search" => registries::search(context, call).await,
            _ => {
                if let Some(name) = named("/json") {
                    inspect(context, call, name).await
                } else if let Some(name) = named("/history") {
                    history(context, call, name).await
                } else if let Some(name) = named("/get") {
                    save(&context, &call.query, &[name])
                } else {
                    Err(not_found())
                }
            }
        },
        "POST" => match rest.as_str() {
            "create" if call.query.get("fromSrc").is_some() => import(context, call).await,
            "create" => registries::pull(context, call).await,
            "load" => load(&context, call),
            "prune" => prune(context, call).await,
            _ => match (named("/tag"), named("/push")) {
                (Some(name), _) => tag(context, call, name).await,
                (_, Some(name)) => registries::push(context, call, name).await,
                _ => Err(not_found()),
            },
        },
        "DELETE" if !rest.is_empty() => remove(context, call, rest.clone()).await,
        _ => Err(not_found()),
    }
}

async fn list(context: Arc<Context>, call: Call) -> Reply {
    let filters = call.query.filters()?;
    only(&filters, &["before", "dangling", "label", "reference", "since", "until"])?;
    let values = |key: &str| filters.get(key).cloned().unwrap_or_default();
    let filter = ImageFilter {
        dangling: truth(&values("dangling"))?,
        before: values("before"),
        since: values("since"),
        labels: values("label").iter().map(|text| label(text)).collect(),
        references: values("reference"),
        until: values("until").first().map(|text| moment(text).map(|time| time / 1_000_000_000)).transpose()?,
    };
    let all = call.query.truth("all");
    let engine = Arc::clone(&context.engine);
    let images = blocking(move || {
        let images = engine.images().list(&filter)?;
        let steps = engine.images().build_steps()?;
        let parents: Vec<String> = images.iter().filter_map(|image| image.parent.clone()).collect();
        // An unnamed image that another builds on is an intermediate one.
        Ok::<_, sampan_images::ImageError>(
            images
                .into_iter()
                .filter(|image| {
                    all || !image.references.is_empty()
                        || !image.digests.is_empty()
                        || !(parents.contains(&image.id.to_string()) || steps.contains(&image.id.to_string()))
                })
                .collect::<Vec<_>>(),
        )
    });
    // How many containers an image has is counted since 1.51.
    let (counted, engine, api) = (call.api >= (1, 51), Arc::clone(&context.engine), call.api);
    let users = blocking(move || if counted { containers::users(&engine.list(false)) } else { BTreeMap::new() }).await?;
    let count = |image: &sampan_images::Image| {
        let found = users.get(&image.id.to_string()).map_or(0, Vec::len);
        if counted { i64::try_from(found).unwrap_or(i64::MAX) } else { -1 }
    };
    let rows = images.await??;
    ok(&Json::Array(rows.iter().map(|image| shape::image::summary(image, count(image), -1, api)).collect()))
}

fn truth(values: &[String]) -> Result<Option<bool>, ApiError> {
    match values.first().map(String::as_str) {
        None => Ok(None),
        Some("1" | "true") => Ok(Some(true)),
        Some("0" | "false") => Ok(Some(false)),
        Some(other) => Err(ApiError::invalid(format!("invalid filter 'dangling=[{other}]'"))),
    }
}

/// The platform that a query asks for, as JSON.
fn platform(query: &Query) -> Result<Option<Platform>, ApiError> {
    match query.text("platform") {
        "" => Ok(None),
        text => serde_json::from_str(text).map(Some).map_err(|error| ApiError::invalid(format!("failed to parse platform: {error}"))),
    }
}

async fn inspect(context: Arc<Context>, call: Call, name: String) -> Reply {
    let engine = Arc::clone(&context.engine);
    let platform = platform(&call.query)?;
    ok(&shape::image::inspect(&blocking(move || engine.images().resolve_for(&name, platform.as_ref())).await??, call.api))
}

async fn history(context: Arc<Context>, call: Call, name: String) -> Reply {
    let engine = Arc::clone(&context.engine);
    let platform = platform(&call.query)?;
    let found = blocking(move || engine.images().resolve_for(&name, platform.as_ref()).and_then(|_| engine.images().history(&name)));
    let items = found.await??;
    let row = |item: sampan_images::HistoryItem| {
        object! {
            "Comment": item.comment, "Created": item.created, "CreatedBy": item.created_by, "Id": item.id, "Size": item.size,
            "Tags": Json::list_or_null(item.tags),
        }
    };
    ok(&Json::Array(items.into_iter().map(row).collect()))
}

async fn tag(context: Arc<Context>, call: Call, name: String) -> Reply {
    let (repository, tag) = (call.query.text("repo").to_owned(), call.query.text("tag").to_owned());
    let reference = if tag.is_empty() { repository } else { format!("{repository}:{tag}") };
    let engine = Arc::clone(&context.engine);
    blocking(move || engine.images().tag(&name, &reference)).await??;
    Ok(empty(StatusCode::CREATED))
}

fn removed(list: &[Removed]) -> Vec<Json> {
    let one = |removed: &Removed| match removed {
        Removed::Untagged(name) => object! { "Untagged": name.clone() },
        Removed::Deleted(id) => object! { "Deleted": id.clone() },
    };
    list.iter().map(one).collect()
}

async fn remove(context: Arc<Context>, call: Call, name: String) -> Reply {
    let force = call.query.truth("force");
    let engine = Arc::clone(&context.engine);
    let list = blocking(move || {
        let users = containers::users(&engine.list(false));
        engine.images().remove(&name, force, &|id| users.get(id).cloned().unwrap_or_default())
    });
    ok(&Json::Array(removed(&list.await??)))
}

async fn prune(context: Arc<Context>, call: Call) -> Reply {
    let filters = call.query.filters()?;
    only(&filters, &["dangling", "label", "label!", "until"])?;
    let all = filters.get("dangling").is_some_and(|values| values.iter().any(|value| matches!(value.as_str(), "0" | "false")));
    let labels = filters.get("label").map(|list| list.iter().map(|text| label(text)).collect()).unwrap_or_default();
    let until = filters.get("until").and_then(|list| list.first()).map(|text| moment(text).map(|time| time / 1_000_000_000)).transpose()?;
    let filter = ImageFilter { labels, until, ..ImageFilter::default() };
    let engine = Arc::clone(&context.engine);
    let pruned = blocking(move || {
        let users = containers::users(&engine.list(false));
        engine.images().prune(all, &filter, &|id| users.get(id).cloned().unwrap_or_default())
    });
    let pruned = pruned.await??;
    ok(
        &object! { "ImagesDeleted": if pruned.removed.is_empty() { Json::NULL } else { Json::Array(removed(&pruned.removed)) }, "SpaceReclaimed": pruned.space },
    )
}

fn save(context: &Context, query: &Query, names: &[String]) -> Reply {
    let platform = platform(query)?;
    let names: Vec<String> = names.iter().flat_map(|list| list.split(',')).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(ApiError::invalid("no images given to save"));
    }
    let engine = Arc::clone(&context.engine);
    // Whether every name exists is known before the answer begins.
    for name in &names {
        if let Err(error) = engine.images().resolve_for(name, platform.as_ref()) {
            let error = match error {
                sampan_images::ImageError::Platform { wanted, .. } => {
                    return Err(ApiError::not_found(format!("no suitable export target found for platform {wanted}")));
                }
                sampan_images::ImageError::NotFound(_) => sampan_images::ImageError::NotFound(name.clone()),
                other => other,
            };
            return Err(error.into());
        }
    }
    Ok(containers::archive_answer(move |writer| engine.images().save(&names, writer, &Cancel::new())))
}

fn load(context: &Context, call: Call) -> Reply {
    let quiet = call.query.truth("quiet");
    let platform = platform(&call.query)?;
    let reader = body::reader(call.request.into_body());
    let (writer, stream) = body::streaming();
    let engine = Arc::clone(&context.engine);
    tokio::task::spawn_blocking(move || {
        let lines = Lines::new(writer, quiet);
        match engine.images().load(reader, platform.as_ref(), &lines, &Cancel::new()) {
            Ok(loaded) => {
                for image in loaded {
                    let names = if image.references.is_empty() {
                        vec![format!("Loaded image ID: {}", image.id)]
                    } else {
                        image.references.iter().map(|name| format!("Loaded image: {name}")).collect()
                    };
                    for text in names {
                        lines.send(&object! { "stream": format!("{text}\n") });
                    }
                }
            }
            Err(error) => lines.send(&failure(&sampan_engine::chain(&error))),
        }
    });
    Ok(answer(stream))
}

/// What the query of an import asks for.
fn import_options(query: &Query) -> Result<ImportOptions, ApiError> {
    if query.text("fromSrc") != "-" {
        return Err(ApiError::unsupported("import from a URL (download it and give the file)"));
    }
    let config = apply_changes(&ContainerConfig::default(), &query.all("changes"))?;
    let platform = match query.text("platform") {
        "" => None,
        text => Some(Platform::parse_specifier(text).map_err(ApiError::invalid)?),
    };
    let (repository, tag) = (query.text("repo"), query.text("tag"));
    let reference = if tag.is_empty() || repository.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    if !reference.is_empty() {
        sampan_oci::Reference::parse_normalized(&reference).map_err(|error| ApiError::invalid(error.to_string()))?;
    }
    let message = match query.text("message") {
        "" => "Imported from -".to_owned(),
        text => text.to_owned(),
    };
    Ok(ImportOptions { reference, message, config, platform })
}

async fn import(context: Arc<Context>, call: Call) -> Reply {
    let options = match import_options(&call.query) {
        Ok(options) => options,
        Err(error) => {
            body::drain(call.request.into_body()).await;
            return Err(error);
        }
    };
    let reader = body::reader(call.request.into_body());
    let (writer, stream) = body::streaming();
    let engine = Arc::clone(&context.engine);
    tokio::task::spawn_blocking(move || {
        let document = match engine.images().import(reader, &options, &sampan_base::NoProgress, &Cancel::new()) {
            Ok(id) => object! { "status": id.to_string() },
            Err(error) => failure(&sampan_engine::chain(&error)),
        };
        Lines::new(writer, false).send(&document);
    });
    Ok(answer(stream))
}

/// `POST /commit`.
pub(crate) async fn commit(context: Arc<Context>, call: Call) -> Reply {
    let query = call.query.clone();
    let (repository, tag) = (query.text("repo"), query.text("tag"));
    let reference = if tag.is_empty() || repository.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    let request = CommitRequest {
        container: query.text("container").to_owned(),
        reference,
        author: query.text("author").to_owned(),
        comment: query.text("comment").to_owned(),
        pause: query.truth_or("pause", true),
    };
    let changes = query.all("changes");
    let given = shape::create::config(&crate::body::optional_json_body(call.request).await?).map_err(bad_field)?;
    let engine = Arc::clone(&context.engine);
    let id = blocking(move || -> Result<String, ApiError> {
        let config = apply_changes(&engine.image_config(&request.container, given)?, &changes)?;
        Ok(engine.commit(request, config)?.to_string())
    });
    Ok(json(StatusCode::CREATED, &object! { "Id": id.await?? }))
}
