//! `POST /build`, `/build/prune`, `/build/cancel`: the classic builder's protocol over the builder.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use http::{HeaderMap, Method};
use sampan_base::{Cancel, Failure as _};
use sampan_build::plan::{BaseError, Entitlements, NamedContext, Network, NoCache, Request};
use sampan_build::{BuildRequest, CacheItem, ContextInput, Event, Limits, PruneRequest, Question, Resources};
use sampan_engine::Engine;
use sampan_engine::model::Resources as Asked;
use sampan_images::PullOptions;
use sampan_oci::{Platform, Reference};
use sampan_transfer::Login;
use sampan_wire::{Json, object};

use super::{containers, not_found, registries};
use crate::body;
use crate::progress::{self, Lines};
use crate::query::{Query, moment};
use crate::respond::{ApiError, Reply, no_content, ok};
use crate::server::{Call, Context, blocking};
use crate::shape::build::{Show, shower};
use crate::shape::examined;

pub(crate) async fn dispatch(context: Arc<Context>, call: Call, method: &Method, words: &[&str]) -> Reply {
    match (method.as_str(), words) {
        ("POST", []) => build(context, call).await,
        ("POST", ["prune"]) => prune(context, call).await,
        ("POST", ["cancel"]) => cancel(&context, &call.query),
        _ => Err(not_found()),
    }
}

/// How often it is looked whether the client of a silent step is still there.
const BEAT: std::time::Duration = std::time::Duration::from_secs(1);

/// A build as the query asks for it.
struct Wish {
    plan: Request,
    dockerfile: String,
    names: Vec<Reference>,
    resources: Resources,
    pull_always: bool,
    cache_from: Vec<String>,
    show: Show,
    /// The Dockerfile is asked something, and nothing is built.
    question: Option<Question>,
    id: String,
    logins: BTreeMap<String, Login>,
    remote: String,
}

fn wish(context: &Context, query: &Query, headers: &HeaderMap) -> Result<Wish, ApiError> {
    refuse(query)?;
    let truth = |key: &str| query.truth(key);
    let (build_args, valueless_args) = build_args(query)?;
    let plan = Request {
        target: Some(query.text("target").to_owned()).filter(|target| !target.is_empty()),
        build_args,
        valueless_args,
        labels: json_map(query, "labels")?,
        platform: platform(query)?,
        no_cache: no_cache(query)?,
        contexts: contexts(query)?,
        network: network(context, query.text("networkmode"))?,
        // The socket is root's: whoever may speak to it has these rights.
        entitlements: Entitlements { network_host: true, security_insecure: false },
        classic: !truth("sampan"),
        checks: truth("sampan"),
        ..Request::default()
    };
    let dockerfile = match query.text("dockerfile") {
        "" => "Dockerfile".to_owned(),
        name => clean(name)?,
    };
    let mut names: Vec<Reference> = Vec::new();
    for text in query.all("t").iter().filter(|text| !text.is_empty()) {
        let reference = Reference::parse_normalized(text).map_err(|error| ApiError::invalid(error.to_string()))?;
        if reference.digest().is_some() {
            return Err(ApiError::invalid("build tag cannot contain a digest"));
        }
        let reference = reference.with_default_tag();
        if !names.contains(&reference) {
            names.push(reference);
        }
    }
    let show = Show { quiet: truth("q"), native: truth("sampan"), remove: query.truth_or("rm", true) };
    Ok(Wish {
        plan,
        dockerfile,
        names,
        resources: resources(query)?,
        pull_always: truth("pull"),
        cache_from: json_list(query, "cachefrom")?,
        show,
        question: question(query)?,
        id: query.text("buildid").to_owned(),
        logins: logins(headers),
        remote: query.text("remote").to_owned(),
    })
}

/// Refuses what is asked for and not there.
fn refuse(query: &Query) -> Result<(), ApiError> {
    if query.text("version") == "2" || !query.text("session").is_empty() {
        return Err(ApiError::unsupported("BuildKit sessions (set DOCKER_BUILDKIT=0)"));
    }
    if query.truth("squash") {
        return Err(ApiError::invalid("squash is only supported with experimental mode"));
    }
    if !query.text("securityopt").is_empty() {
        return Err(ApiError::invalid("security options are not supported on linux"));
    }
    let isolation = query.text("isolation");
    if !matches!(isolation.to_lowercase().as_str(), "" | "default") {
        return Err(ApiError::invalid(format!("unsupported isolation: {}", sampan_gotext::quote(isolation))));
    }
    if !matches!(query.text("outputs"), "" | "null" | "[]") {
        return Err(ApiError::unsupported("outputs (the result is an image)"));
    }
    if !query.text("cgroupparent").is_empty() {
        return Err(ApiError::unsupported("cgroupparent (all builds share the engine's cgroup)"));
    }
    Ok(())
}

/// Which stages run whatever earlier builds gave: all, or those that `sampannocache` names.
fn no_cache(query: &Query) -> Result<NoCache, ApiError> {
    let stages = json_list(query, "sampannocache")?;
    Ok(match (query.truth("nocache"), stages.is_empty()) {
        (true, _) => NoCache::All,
        (false, true) => NoCache::No,
        (false, false) => NoCache::Stages(stages),
    })
}

/// `sampancontexts`: images that stand for names of stages and images.
fn contexts(query: &Query) -> Result<BTreeMap<String, NamedContext>, ApiError> {
    let image = |(name, text): (String, String)| {
        let reference = Reference::parse_normalized(&text).map_err(|error| ApiError::invalid(format!("build context {name}: {error}")))?;
        Ok((name, NamedContext::Image(reference)))
    };
    json_map(query, "sampancontexts")?.into_iter().map(image).collect()
}

/// `sampancall`: `check`, `outline` or `targets`.
fn question(query: &Query) -> Result<Option<Question>, ApiError> {
    match query.text("sampancall") {
        "" | "build" => Ok(None),
        name => Question::parse(name).map(Some).map_err(|error| ApiError::invalid(error.to_string())),
    }
}

fn clean(name: &str) -> Result<String, ApiError> {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(ApiError::invalid(format!("Forbidden path outside the build context: {name} ()")));
    }
    Ok(parts.join("/"))
}

fn json_map(query: &Query, key: &str) -> Result<BTreeMap<String, String>, ApiError> {
    match query.text(key) {
        "" => Ok(BTreeMap::new()),
        text => serde_json::from_str::<Option<BTreeMap<String, String>>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|error| ApiError::invalid(format!("error reading {key}: {error}"))),
    }
}

fn json_list(query: &Query, key: &str) -> Result<Vec<String>, ApiError> {
    match query.text(key) {
        "" => Ok(Vec::new()),
        text => serde_json::from_str::<Option<Vec<String>>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|error| ApiError::invalid(format!("error reading {key}: {error}"))),
    }
}

/// Arguments with their values, and those without: they are ones that the client's environment does not have.
fn build_args(query: &Query) -> Result<(BTreeMap<String, String>, Vec<String>), ApiError> {
    let (mut given, mut valueless) = (BTreeMap::new(), Vec::new());
    if !query.text("buildargs").is_empty() {
        let read: Option<BTreeMap<String, Option<String>>> = serde_json::from_str(query.text("buildargs"))
            .map_err(|error| ApiError::invalid(format!("error reading build args: {error}")))?;
        for (key, value) in read.unwrap_or_default() {
            match value {
                Some(value) => drop(given.insert(key, value)),
                None => valueless.push(key),
            }
        }
    }
    Ok((given, valueless))
}

fn platform(query: &Query) -> Result<Option<Platform>, ApiError> {
    match query.text("platform") {
        "" => Ok(None),
        text => Platform::parse(text).map(Some).ok_or_else(|| {
            ApiError::invalid(format!("{}: unknown operating system or architecture: invalid argument", sampan_gotext::quote(text)))
        }),
    }
}

fn network(context: &Context, mode: &str) -> Result<Network, ApiError> {
    match mode {
        "" | "default" | "bridge" => Ok(Network::Default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        mode if mode.starts_with("container:") => Ok(Network::Join(context.engine.join(mode, "network")?)),
        other => Err(ApiError::invalid(format!("network mode \"{other}\" not supported by buildkit"))),
    }
}

fn resources(query: &Query) -> Result<Resources, ApiError> {
    let number = |key: &str| query.number(key).map(Option::unwrap_or_default);
    let memory = number("memory")?;
    let limits = Limits {
        memory,
        memory_swap: match number("memswap")? {
            0 if memory > 0 => memory.saturating_mul(2),
            swap => swap,
        },
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpu_shares: number("cpushares")?,
        cpuset_cpus: query.text("cpusetcpus").to_owned(),
        cpuset_mems: query.text("cpusetmems").to_owned(),
        ..Limits::default()
    };
    let mut ulimits = Vec::new();
    if !matches!(query.text("ulimits"), "" | "null") {
        let read: Vec<serde_json::Value> = serde_json::from_str(query.text("ulimits"))
            .map_err(|error| ApiError::invalid(format!("error reading ulimit settings: {error}")))?;
        for one in read {
            let name = one.get("Name").and_then(serde_json::Value::as_str).unwrap_or_default();
            let resource = sampan_engine::ulimit_number(name).ok_or_else(|| ApiError::invalid(format!("invalid ulimit type: {name}")))?;
            let value =
                |key: &str| one.get(key).and_then(serde_json::Value::as_i64).map_or(0, |value| u64::try_from(value).unwrap_or(u64::MAX));
            ulimits.push((resource, value("Soft"), value("Hard")));
        }
    }
    let hosts = query.all("extrahosts").into_iter().flat_map(|text| match serde_json::from_str::<Vec<String>>(&text) {
        Ok(list) => list,
        Err(_) => text.split(',').map(str::to_owned).collect(),
    });
    let mut extra_hosts = Vec::new();
    for line in hosts.filter(|line| !line.is_empty()) {
        let (name, address) = line.split_once([':', '=']).ok_or_else(|| ApiError::invalid(format!("invalid extra host: {line}")))?;
        extra_hosts.push((name.to_owned(), address.to_owned()));
    }
    Ok(Resources { limits, shm_size: number("shmsize")?, ulimits, extra_hosts, ..Resources::default() })
}

/// `X-Registry-Config`: a login for each registry.
fn logins(headers: &HeaderMap) -> BTreeMap<String, Login> {
    let read = || -> Option<BTreeMap<String, serde_json::Value>> {
        let text = headers.get("X-Registry-Config")?.to_str().ok()?.trim_end_matches('=').replace('+', "-").replace('/', "_");
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    };
    read().unwrap_or_default().into_iter().map(|(host, value)| (host, registries::login(&value))).collect()
}

fn login_for(logins: &BTreeMap<String, Login>, reference: &Reference) -> Login {
    let domain = reference.domain();
    let found = logins.iter().find(|(host, _)| {
        let host = host.trim_start_matches("https://").trim_start_matches("http://");
        host.split('/').next() == Some(domain) || (domain == "docker.io" && host.starts_with("index.docker.io"))
    });
    found.map(|(_, login)| login.clone()).unwrap_or_default()
}

/// Why commands cannot have their limits. Docker tells it where a command would run, and not before.
fn fault(engine: &Engine, limits: &Limits) -> String {
    let mut asked = Asked {
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        cpu_shares: limits.cpu_shares,
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        ..Asked::default()
    };
    engine.check_limits(&mut asked).map_or_else(|error| error.to_string(), |_| String::new())
}

async fn build(context: Arc<Context>, call: Call) -> Reply {
    let mut wish = match wish(&context, &call.query, call.request.headers()) {
        Ok(wish) => wish,
        Err(error) => {
            body::drain(call.request.into_body()).await;
            return Err(error);
        }
    };
    wish.resources.fault = fault(&context.engine, &wish.resources.limits);
    let token = call.query.text("sampancontext");
    let input = if !matches!(wish.remote.as_str(), "" | "client-session") {
        let address = wish.remote.clone();
        body::drain(call.request.into_body()).await;
        ContextInput::Remote(address)
    } else if token.is_empty() {
        ContextInput::Tar(Box::new(body::reader(call.request.into_body())))
    } else {
        let handed = context.handover.take(token);
        let (folder, reader) = handed.ok_or_else(|| ApiError::invalid("the folder of the build context was not handed over"))?;
        ContextInput::Folder(folder, reader)
    };
    progress::run(move |lines, cancel| run(&context, wish, input, lines, cancel)).await
}

fn run(context: &Context, wish: Wish, input: ContextInput<'static>, lines: &Lines, cancel: &Cancel) -> Result<(), ApiError> {
    let builds = || context.builds.lock().unwrap_or_else(PoisonError::into_inner);
    if !wish.id.is_empty() {
        builds().insert(wish.id.clone(), cancel.clone());
    }
    let shown = Mutex::new(shower(wish.show, lines));
    let show = || shown.lock().unwrap_or_else(PoisonError::into_inner);
    let engine = &context.engine;
    let pull = |reference: &Reference, platform: &Platform| {
        let options = PullOptions { platform: Some(platform.clone()), login: login_for(&wish.logins, reference) };
        let pulled = engine.images().pull(reference, &options, lines, cancel);
        pulled.map(drop).map_err(|error| BaseError { kind: error.kind(), message: registries::error(error).message })
    };
    let request = BuildRequest {
        plan: wish.plan,
        dockerfile: wish.dockerfile,
        context: input,
        names: wish.names.clone(),
        resources: wish.resources,
        pull_always: wish.pull_always,
        cache_from: wish.cache_from,
        pull: &pull,
    };
    if let Some(question) = wish.question {
        let name = request.dockerfile.clone();
        let answer = context.builder.examine(request, question, cancel);
        return match answer {
            Ok((answer, text)) => {
                lines.send(&examined::line(&answer, &text, &name));
                Ok(())
            }
            Err(error) => show().fail(&error),
        };
    }
    let watch = |event: Event<'_>| show().take(&event);
    let over = Cancel::new();
    let built = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.wait_timeout(BEAT) {
                lines.beat();
            }
        });
        let built = context.builder.build(request, &watch, cancel);
        over.cancel();
        built
    });
    if !wish.id.is_empty() {
        builds().remove(&wish.id);
    }
    let mut show = show();
    match built {
        Ok(built) => {
            show.finish(&built.image, &wish.names);
            Ok(())
        }
        Err(error) => show.fail(&error),
    }
}

fn cancel(context: &Context, query: &Query) -> Reply {
    let id = query.text("id");
    if id.is_empty() {
        return Err(ApiError::invalid("build ID not provided"));
    }
    if let Some(cancel) = context.builds.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
        cancel.cancel();
    }
    no_content()
}

async fn prune(context: Arc<Context>, call: Call) -> Reply {
    let filters = call.query.filters()?;
    crate::query::only(&filters, &["until", "id", "parent", "type", "description", "inuse", "shared", "private", "label", "unused-for"])?;
    if let Some(key) = filters.keys().find(|key| !matches!(key.as_str(), "until" | "unused-for")) {
        return Err(ApiError::unsupported(&format!("the filter {key} of a build prune")));
    }
    let until = filters.get("until").or_else(|| filters.get("unused-for")).and_then(|list| list.first());
    let before = until.map(|text| moment(text).map(|time| time / 1_000_000_000)).transpose()?;
    let size = |key: &str| call.query.number(key).map(|size| size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0));
    if size("min-free-space")? > 0 {
        return Err(ApiError::unsupported("min-free-space"));
    }
    let keep = size("keep-storage")?.max(size("reserved-space")?).max(size("max-used-space")?);
    let request = PruneRequest { all: call.query.truth("all"), before, keep };
    let (gone, space) = blocking(move || {
        let users = containers::users(&context.engine.list(false));
        context.builder.prune(request, &|id| users.get(id).cloned().unwrap_or_default())
    })
    .await??;
    ok(&object! { "CachesDeleted": Json::list_or_null(gone), "SpaceReclaimed": space })
}

/// A row of `system df`.
pub(crate) fn cache_item(item: &CacheItem) -> Json {
    let used = jiff::Timestamp::from_second(item.used).map(|time| time.to_string()).unwrap_or_default();
    object! {
        "ID": item.id.clone(),
        "Type": "regular",
        "Description": item.description.clone(),
        "InUse": false,
        "Shared": item.shared,
        "Size": item.size,
        "CreatedAt": item.created.clone(),
        "LastUsedAt": used,
        "UsageCount": item.uses,
    }
}
