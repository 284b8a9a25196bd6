//! Search: the old search API, which Docker Hub still has, or a look through the catalog.

use http::Method;
use serde::Deserialize;

use crate::endpoint::Endpoint;
use crate::exchange::{self, Answer, Call};
use crate::registry::Registry;
use crate::types::SearchItem;
use crate::{TransferError, lists, token};

/// The largest reply.
const LIMIT: u64 = 4 << 20;
/// How many repositories of a catalog are looked through.
const CATALOG: usize = 100_000;
/// Docker Hub's search lies beside its registry.
const HUB: &str = "index.docker.io";

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    results: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: Option<u64>,
    #[serde(default)]
    is_official: Option<bool>,
    #[serde(default)]
    is_automated: Option<bool>,
}

/// Searches a registry.
pub(crate) async fn search(registry: &Registry, term: &str, limit: usize) -> Result<Vec<SearchItem>, TransferError> {
    let is_hub = registry.endpoint.host == "registry-1.docker.io";
    let answer = ask(registry, term, limit, is_hub).await;
    match answer {
        Ok(answer) if answer.status().is_success() => {
            let body = answer.read("search result", LIMIT).await?;
            match serde_json::from_slice::<Results>(&body) {
                Ok(found) => Ok(found.results.into_iter().take(limit).map(item).collect()),
                // A registry without search may answer with its web page.
                Err(_) if !is_hub => catalog(registry, term, limit).await,
                Err(error) => Err(registry.malformed(format!("a search result that is none: {error}"))),
            }
        }
        Ok(answer) if is_hub => Err(answer.refusal().await),
        Err(error) if is_hub => Err(error),
        _ => catalog(registry, term, limit).await,
    }
}

async fn ask(registry: &Registry, term: &str, limit: usize, is_hub: bool) -> Result<Answer, TransferError> {
    let mut url = registry.endpoint.url("/v1/search")?;
    let mut http = registry.http.clone();
    if is_hub {
        url.set_host(Some(HUB)).map_err(|error| TransferError::Invalid(error.to_string()))?;
        let base = url.join("/").map_err(|error| TransferError::Invalid(error.to_string()))?;
        http = registry.state.http(&Endpoint { base, host: HUB.to_owned(), insecure: false, mirror: false })?;
    }
    url.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
    let call = Call::new(Method::GET, url);
    let timing = &registry.state.config.timing;
    let proof = token::basic(&registry.login);
    let sent = exchange::once(&http, &call, &call.url, proof.as_ref(), reqwest::Body::default(), Some(timing.stall), timing).await;
    sent.map_err(|failed| failed.error)
}

fn item(found: Item) -> SearchItem {
    SearchItem {
        name: sampan_base::sanitize(&found.name),
        description: found.description.unwrap_or_default(),
        stars: found.star_count.unwrap_or(0),
        official: found.is_official.unwrap_or(false),
        automated: found.is_automated.unwrap_or(false),
    }
}

async fn catalog(registry: &Registry, term: &str, limit: usize) -> Result<Vec<SearchItem>, TransferError> {
    let term = term.to_lowercase();
    let names = lists::catalog(registry, CATALOG).await?;
    let found = names.into_iter().filter(|name| name.contains(&term)).take(limit);
    Ok(found.map(|name| SearchItem { name, ..SearchItem::default() }).collect())
}
