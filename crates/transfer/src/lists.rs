//! Lists that come in pages: tags and repositories. All of them end, whatever the registry says.

use std::collections::HashSet;

use http::Method;
use http::header::{HeaderValue, LINK};
use reqwest::Url;
use sampan_oci::Reference;
use serde::de::DeserializeOwned;

use crate::exchange::{Answer, Call};
use crate::registry::{Registry, scope};
use crate::{TransferError, headers, refusal};

/// The largest page.
const PAGE: u64 = 8 << 20;
/// How many pages are read.
const PAGES: usize = 2000;
/// How many entries are asked for at once; some registries refuse more.
const ENTRIES: usize = 1000;
/// How many entries are kept.
const MOST: usize = 1_000_000;

#[derive(serde::Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(serde::Deserialize)]
struct Repositories {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

/// Reads pages until there is no next one; `keep` takes each and says whether more are wanted.
pub(crate) async fn pages<T: DeserializeOwned>(
    registry: &Registry,
    first: Answer,
    scopes: &[String],
    mut keep: impl FnMut(T) -> bool,
) -> Result<(), TransferError> {
    let mut answer = first;
    let mut seen = HashSet::from([answer.url.clone()]);
    for _ in 0..PAGES {
        let next = next_page(registry, &answer)?;
        let body = answer.read("list", PAGE).await?;
        let page = serde_json::from_slice(&body).map_err(|error| registry.malformed(format!("a list that is none: {error}")))?;
        if !keep(page) {
            return Ok(());
        }
        let Some(next) = next else { return Ok(()) };
        if !seen.insert(next.clone()) {
            return Err(registry.malformed("a list whose pages form a circle"));
        }
        answer = registry.demand(&Call::new(Method::GET, next), scopes).await.map_err(TransferError::bare)?;
    }
    Err(registry.malformed(format!("a list of more than {PAGES} pages")))
}

/// The next page must be the same registry's.
fn next_page(registry: &Registry, answer: &Answer) -> Result<Option<Url>, TransferError> {
    let Some(link) = headers::next_link(answer.response.headers().get_all(LINK).iter().map(HeaderValue::as_bytes)) else {
        return Ok(None);
    };
    let mut url = answer.url.join(&link).map_err(|_| registry.malformed("a list whose next page has no address"))?;
    // Registries behind a proxy often do not know that the world reaches them by TLS.
    let own = &registry.endpoint.base;
    if url.host_str() == own.host_str() && own.scheme() == "https" && url.scheme() == "http" {
        let _ = url.set_scheme("https");
        let _ = url.set_port(own.port());
    }
    if url.origin() != own.origin() {
        return Err(registry.malformed("a list whose next page lies elsewhere"));
    }
    Ok(Some(url))
}

/// Lists the tags of a repository. What is no tag is left out.
pub(crate) async fn tags(registry: &Registry, repository: &Reference) -> Result<Vec<String>, TransferError> {
    let mut url = registry.repository_url(repository, "tags/list")?;
    url.query_pairs_mut().append_pair("n", &ENTRIES.to_string());
    let scopes = [scope(repository, "pull")];
    let first = registry.demand(&Call::new(Method::GET, url), &scopes).await.map_err(|error| refusal::of_pull(error, repository))?;
    let mut tags = Vec::new();
    pages(registry, first, &scopes, |page: Tags| {
        let is_tag =
            |tag: &String| tag.len() <= 128 && Reference::parse_normalized(&format!("x/y:{tag}")).is_ok_and(|name| name.tag() == Some(tag));
        tags.extend(page.tags.unwrap_or_default().into_iter().filter(is_tag));
        tags.len() < MOST
    })
    .await?;
    tags.truncate(MOST);
    Ok(tags)
}

/// Lists repositories. What is no name is left out.
pub(crate) async fn catalog(registry: &Registry, limit: usize) -> Result<Vec<String>, TransferError> {
    let limit = limit.min(MOST);
    let mut url = registry.endpoint.url("/v2/_catalog")?;
    url.query_pairs_mut().append_pair("n", &limit.clamp(1, ENTRIES).to_string());
    let scopes = ["registry:catalog:*".to_owned()];
    let first = registry.demand(&Call::new(Method::GET, url), &scopes).await.map_err(TransferError::bare)?;
    let mut names = Vec::new();
    pages(registry, first, &scopes, |page: Repositories| {
        let is_name = |name: &String| {
            name.len() <= 255 && Reference::parse_normalized(&format!("localhost/{name}")).is_ok_and(|full| full.path() == name)
        };
        names.extend(page.repositories.unwrap_or_default().into_iter().filter(is_name));
        names.len() < limit
    })
    .await?;
    names.truncate(limit);
    Ok(names)
}
