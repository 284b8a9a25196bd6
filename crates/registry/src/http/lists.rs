//! Lists in pages: tags, repositories, referrers.

use hyper::StatusCode;

use super::{Answer, Call, answer, blocking, json, set};
use crate::error::{Code, RegistryError, Result};
use crate::name::Digest;
use crate::route::percent_encode;

/// The most entries of a page.
const PAGE: u32 = 10_000;
/// The most entries of a page of repositories, unless more are asked for.
const CATALOG_PAGE: u32 = 1000;
/// The most referrers of a page, whose annotations may be long.
const REFERRERS_PAGE: u32 = 100;
/// About how many bytes a page of referrers may have.
const REFERRERS_BYTES: usize = 3 << 20;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Call<'_> {
    /// `n`, at most a page.
    fn page(&self, default: u32) -> Result<u32> {
        match self.query.get("n") {
            None => Ok(default),
            Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(text.parse::<u32>().unwrap_or(PAGE).min(PAGE))
            }
            Some(text) => Err(RegistryError::new(Code::PaginationNumberInvalid).detail(sampan_base::sanitize(text))),
        }
    }

    pub(super) fn tags(&self, repository: &str) -> Result<Answer> {
        let (count, last) = (self.page(PAGE)?, self.query.get("last").unwrap_or_default());
        let mut tags = blocking(|| self.registry.store.tags(repository, last, count + 1))?;
        let next = cut(&mut tags, count);
        let mut answer = json(serde_json::json!({"name": repository, "tags": tags}).to_string());
        link(&mut answer, &format!("/v2/{repository}/tags/list"), count, next.as_deref(), "");
        Ok(answer)
    }

    pub(super) fn catalog(&self) -> Result<Answer> {
        let (count, last) = (self.page(CATALOG_PAGE)?, self.query.get("last").unwrap_or_default());
        let mut names = blocking(|| self.registry.store.repositories(last, count + 1))?;
        let next = cut(&mut names, count);
        let mut answer = json(serde_json::json!({"repositories": names}).to_string());
        link(&mut answer, "/v2/_catalog", count, next.as_deref(), "");
        Ok(answer)
    }

    pub(super) fn referrers(&self, repository: &str, subject: &Digest) -> Result<Answer> {
        let count = self.page(REFERRERS_PAGE)?.clamp(1, REFERRERS_PAGE);
        let (last, kind) = (self.query.get("last").unwrap_or_default(), self.query.get("artifactType").filter(|kind| !kind.is_empty()));
        let limits = (count as usize, REFERRERS_BYTES);
        let (found, more) = blocking(|| self.registry.store.referrers(repository, subject, kind, last, limits))?;
        let next = found.last().filter(|_| more).map(|one| one.digest.clone());
        let mut answer = answer(StatusCode::OK);
        *answer.body_mut() = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": found}).to_string().into();
        set(&mut answer, "content-type", INDEX);
        if kind.is_some() {
            set(&mut answer, "oci-filters-applied", "artifactType");
        }
        let filter = kind.map_or_else(String::new, |kind| format!("&artifactType={}", percent_encode(kind)));
        link(&mut answer, &format!("/v2/{repository}/referrers/{subject}"), count, next.as_deref(), &filter);
        Ok(answer)
    }
}

/// Cuts a list that has one more than a page; gives the last of the page if there is a next one.
fn cut(list: &mut Vec<String>, count: u32) -> Option<String> {
    let more = list.len() > count as usize;
    list.truncate(count as usize);
    list.last().filter(|_| more).cloned()
}

fn link(answer: &mut Answer, path: &str, count: u32, last: Option<&str>, more: &str) {
    if let Some(last) = last {
        set(answer, "link", &format!("<{path}?n={count}&last={}{more}>; rel=\"next\"", percent_encode(last)));
    }
}
