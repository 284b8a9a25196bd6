//! Images: names contain slashes, so a path is its name between a prefix and a suffix.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::{Method, StatusCode};
use sampan_base::Cancel;
use sampan_build::apply_changes;
use sampan_engine::CommitRequest;
use sampan_images::{ImageFilter, ImportOptions, Removed};
use sampan_oci::{ContainerConfig, DiffId, Platform};
use sampan_wire::{Json, object};

use super::{containers, not_found, registries};
use crate::progress::{self, failure};
use crate::query::{Query, label, moment, only, only_until};
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
            "load" => load(context, call).await,
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
        until: values("until").iter().map(|text| moment(text)).collect::<Result<Vec<_>, _>>()?.into_iter().min(),
        not_labels: Vec::new(),
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
    let mut shared = BTreeMap::new();
    if call.query.truth("shared-size") {
        // What images share does not depend on which of them are shown.
        let all = move || context.engine.images().all().and_then(|all| Ok((context.engine.images().layer_sizes()?, all)));
        let (sizes, all) = blocking(all).await??;
        shared = all.iter().map(|image| image.id.to_string()).zip(shared_sizes(&all, &sizes)).collect();
    }
    let row = |image: &sampan_images::Image| {
        let shared = shared.get(&image.id.to_string()).copied().unwrap_or(-1);
        shape::image::summary(image, count(image), shared, api)
    };
    ok(&Json::Array(rows.iter().map(row).collect()))
}

/// How many bytes of each image's layers belong to others of these images, too.
pub(crate) fn shared_sizes(images: &[sampan_images::Image], sizes: &HashMap<DiffId, u64>) -> Vec<i64> {
    let mut users: HashMap<&DiffId, usize> = HashMap::new();
    for layer in images.iter().flat_map(sampan_images::Image::layers) {
        *users.entry(layer).or_default() += 1;
    }
    let is_shared = |layer: &&DiffId| users.get(layer).is_some_and(|count| *count > 1);
    let of = |image: &sampan_images::Image| image.layers().iter().filter(is_shared).filter_map(|layer| sizes.get(layer)).sum::<u64>();
    images.iter().map(|image| i64::try_from(of(image)).unwrap_or(i64::MAX)).collect()
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
    match query.all("platform").as_slice() {
        [] => Ok(None),
        [text] if text.is_empty() => Ok(None),
        [text] => parse_platform(text).map(Some),
        _ => Err(ApiError::invalid("multiple platform parameters not supported")),
    }
}

fn parse_platform(text: &str) -> Result<Platform, ApiError> {
    serde_json::from_str(text).map_err(|error| ApiError::invalid(format!("failed to parse platform: {error}")))
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
    let (force, prune) = (call.query.truth("force"), !call.query.truth("noprune"));
    // An image here is of one platform: its own may be named, several may not.
    let wanted = match call.query.all("platforms").as_slice() {
        [] => None,
        [one] => Some(parse_platform(one)?),
        _ => return Err(ApiError::invalid("multiple platforms are not supported")),
    };
    let engine = Arc::clone(&context.engine);
    let list = blocking(move || {
        let users = containers::users(&engine.list(false));
        if wanted.is_some() {
            engine.images().resolve_for(&name, wanted.as_ref())?;
        }
        engine.images().remove(&name, force, prune, &|id| users.get(id).cloned().unwrap_or_default())
    });
    ok(&Json::Array(removed(&list.await??)))
}

async fn prune(context: Arc<Context>, call: Call) -> Reply {
    let filters = call.query.filters()?;
    only(&filters, &["dangling", "label", "label!", "until"])?;
    let all = filters.get("dangling").is_some_and(|values| values.iter().any(|value| matches!(value.as_str(), "0" | "false")));
    let labels = |key: &str| filters.get(key).map(|list| list.iter().map(|text| label(text)).collect()).unwrap_or_default();
    let (labels, not_labels) = (labels("label"), labels("label!"));
    let filter = ImageFilter { labels, not_labels, until: only_until(&filters)?, ..ImageFilter::default() };
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
        if let Err(error) = engine.images().resolve_saved(name, platform.as_ref()) {
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

async fn load(context: Arc<Context>, call: Call) -> Reply {
    let quiet = call.query.truth("quiet");
    let platform = platform(&call.query)?;
    let reader = body::reader(call.request.into_body());
    let engine = Arc::clone(&context.engine);
    // The answer begins when there is something to say: clients that read no more than its status stop sending when it comes.
    progress::run_quiet(quiet, move |lines, _| {
        match engine.images().load(reader, platform.as_ref(), lines, &Cancel::new()) {
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
        Ok(())
    })
    .await
}

/// Where an import's archive is, if it is not the body of the request.
fn import_url(query: &Query) -> Option<String> {
    let source = query.text("fromSrc");
    let is_body = source == "-" || source.is_empty();
    (!is_body).then(|| if source.contains("://") { source.to_owned() } else { format!("http://{source}") })
}

/// What the query of an import asks for.
fn import_options(query: &Query) -> Result<ImportOptions, ApiError> {
    let config = apply_changes(&ContainerConfig::default(), &query.all("changes"))?;
    let platform = match query.text("platform") {
        "" => None,
        text => Some(Platform::parse_specifier(text).map_err(ApiError::invalid)?),
    };
    if platform.as_ref().is_some_and(|platform| platform.os != "linux") {
        return Err(ApiError::invalid("operating system is not supported"));
    }
    let (repository, tag) = (query.text("repo"), query.text("tag"));
    let reference = if tag.is_empty() || repository.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    if !reference.is_empty() {
        sampan_oci::Reference::parse_normalized(&reference).map_err(|error| ApiError::invalid(error.to_string()))?;
    }
    let message = match query.text("message") {
        "" => format!("Imported from {}", import_url(query).unwrap_or_else(|| "-".to_owned())),
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
    let engine = Arc::clone(&context.engine);
    if let Some(url) = import_url(&call.query) {
        body::drain(call.request.into_body()).await;
        return progress::run(move |lines, cancel| {
            let archive = engine.images().download(&url, cancel).map_err(registries::error)?;
            lines.send(&object! { "status": format!("Downloading from {url}") });
            let id = engine.images().import(archive, &options, cancel)?;
            lines.send(&object! { "status": id.to_string() });
            Ok(())
        })
        .await;
    }
    let reader = body::reader(call.request.into_body());
    // The answer begins when the work is done: who reads no more than its status may count on the image.
    progress::run(move |lines, _| {
        let id = engine.images().import(reader, &options, &Cancel::new())?;
        lines.send(&object! { "status": id.to_string() });
        Ok(())
    })
    .await
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
