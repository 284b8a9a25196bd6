//! Bearer tokens: asked for once, shared by all requests of the same rights, until they expire.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use reqwest::Url;
use sampan_base::Secret;
use serde::Deserialize;

use crate::TransferError;
use crate::challenge::Challenge;
use crate::config::Login;
use crate::exchange::{self, Answer, Call, Failed, REDIRECTS};
use crate::registry::Registry;
use crate::state::{bound, lock};

/// How much of a token service's answer is read.
const LIMIT: u64 = 1 << 20;
/// How long a token lives at least, as Docker assumes.
const SHORTEST: u64 = 60;
/// A token is not used in its last moments.
const MARGIN: Duration = Duration::from_secs(10);

/// The tokens of all registries.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<Key, Slot>>,
}

/// Who may do what where. The login stands in it as a keyed hash, so that nobody uses another's token.
/// The registry stands in it too: one that names another's token service must not get the other's tokens.
type Key = (String, String, String, Vec<String>, u64);
type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

impl Tokens {
    /// Drops a token that a registry refused, whatever rights it was made for.
    pub(crate) fn forget(&self, header: &HeaderValue) {
        let is_it = |slot: &Slot| slot.try_lock().is_ok_and(|kept| kept.as_ref().is_some_and(|token| token.header == *header));
        lock(&self.slots).retain(|_, slot| !is_it(slot));
    }
}

/// A token.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) header: HeaderValue,
    /// What keeps the login without the password.
    pub(crate) refresh: Option<Secret<String>>,
    until: Instant,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<f64>,
    #[serde(default)]
    refresh_token: Option<String>,
}

/// `Basic …` of a login.
pub(crate) fn basic(login: &Login) -> Option<HeaderValue> {
    if login.username.is_empty() {
        return None;
    }
    let pair = STANDARD.encode(format!("{}:{}", login.username, login.password.expose()));
    sensitive(&format!("Basic {pair}"))
}

/// `Bearer …` of a token.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Registry {
    /// The token for some rights. `stale` is one that the registry refused.
    pub(crate) async fn token(
        &self,
        challenge: &Challenge,
        scopes: &[String],
        stale: Option<&HeaderValue>,
        offline: bool,
    ) -> Result<Token, TransferError> {
        let realm = self.realm(challenge)?;
        let service = challenge.parameter("service").unwrap_or_default();
        let origin = self.endpoint.base.origin().ascii_serialization();
        let key = (origin, realm.to_string(), service.to_owned(), scopes.to_vec(), identity(&self.login));
        let slot = {
            let mut slots = lock(&self.state.tokens.slots);
            // Slots that somebody is waiting for stay.
            bound(&mut slots, |slot: &Slot| Arc::strong_count(slot) > 1);
            Arc::clone(slots.entry(key).or_default())
        };
        // Whoever comes second waits for the first one's token.
        let mut kept = slot.lock().await;
        if let Some(token) = &*kept
            && token.until > Instant::now()
            && stale != Some(&token.header)
            && !offline
        {
            return Ok(token.clone());
        }
        *kept = None;
        let token = self.fetch_token(&realm, service, scopes, offline).await?;
        *kept = Some(token.clone());
        Ok(token)
    }

    /// Where tokens come from: https only, unless the registry itself needs none.
    fn realm(&self, challenge: &Challenge) -> Result<Url, TransferError> {
        let malformed = |problem: String| TransferError::Malformed { host: self.endpoint.host.clone(), problem };
        let text = challenge.parameter("realm").unwrap_or_default();
        if text.is_empty() {
            return Err(malformed("no realm specified for token auth challenge".to_owned()));
        }
        let quoted = sampan_base::sanitize(text);
        let mut realm = Url::parse(text).map_err(|error| malformed(format!("invalid token auth challenge realm: {quoted:?}: {error}")))?;
        let _ = realm.set_username("");
        let _ = realm.set_password(None);
        realm.set_fragment(None);
        let forbid = |reason| TransferError::Forbidden { context: String::new(), target: exchange::shown(&realm), reason };
        if realm.scheme() != "https" && !(realm.scheme() == "http" && self.endpoint.insecure) {
            return Err(forbid("a token service must be asked over https"));
        }
        exchange::check_target(&realm, &self.endpoint.base).map_err(forbid)?;
        Ok(realm)
    }

    async fn fetch_token(&self, realm: &Url, service: &str, scopes: &[String], offline: bool) -> Result<Token, TransferError> {
        let answer = match self.login.refresh() {
            Some(refresh) => self.post_token(realm, service, scopes, refresh).await?,
            None => self.get_token(realm, service, scopes, offline).await?,
        };
        if answer.status() != StatusCode::OK {
            return Err(answer.refusal().await);
        }
        let host = realm.host_str().unwrap_or_default().to_owned();
        let malformed = |problem: &str| TransferError::Malformed { host: host.clone(), problem: problem.to_owned() };
        let body = answer.read("token reply", LIMIT).await?;
        let body: Body = serde_json::from_slice(&body).map_err(|_| malformed("unable to decode token response"))?;
        let text = body.token.filter(|token| !token.is_empty()).or(body.access_token).filter(|token| !token.is_empty());
        let text = text.ok_or_else(|| malformed("authorization server did not include a token in the response"))?;
        let header = bearer(&text).ok_or_else(|| malformed("the token is no text"))?;
        let seconds = body.expires_in.filter(|seconds| seconds.is_finite()).unwrap_or(0.0).clamp(0.0, 86_400.0);
        let life = Duration::from_secs_f64(seconds).max(Duration::from_secs(SHORTEST));
        let refresh = body.refresh_token.filter(|token| !token.is_empty()).map(Secret::new);
        Ok(Token { header, refresh, until: Instant::now() + life - MARGIN })
    }

    async fn get_token(&self, realm: &Url, service: &str, scopes: &[String], offline: bool) -> Result<Answer, TransferError> {
        let mut url = realm.clone();
        let mut pairs = Vec::new();
        if !self.login.username.is_empty() {
            pairs.push(("account", self.login.username.as_str()));
        }
        if offline {
            pairs.extend([("client_id", "docker"), ("offline_token", "true")]);
        }
        pairs.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        if !service.is_empty() {
            pairs.push(("service", service));
        }
        url.query_pairs_mut().extend_pairs(pairs);
        self.ask_token(&Call::new(Method::GET, url), basic(&self.login)).await
    }

    /// OAuth2 with a refresh token.
    async fn post_token(&self, realm: &Url, service: &str, scopes: &[String], refresh: &Secret<String>) -> Result<Answer, TransferError> {
        let scope = scopes.join(" ");
        let form = [
            ("client_id", "docker"),
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.expose().as_str()),
            ("scope", scope.as_str()),
            ("service", service),
        ];
        // The URL type writes the same encoding that forms have.
        let mut encoder = Url::parse("http://form/").map_err(|error| TransferError::Invalid(error.to_string()))?;
        encoder.query_pairs_mut().extend_pairs(form);
        let mut call =
            Call::new(Method::POST, realm.clone()).header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        call.body = encoder.query().unwrap_or_default().to_owned().into();
        self.ask_token(&call, None).await
    }

    /// Asks until there is an answer; redirects are followed, with credentials to the same place only.
    async fn ask_token(&self, call: &Call, authorization: Option<HeaderValue>) -> Result<Answer, TransferError> {
        let timing = &self.state.config.timing;
        let mut tries = 0;
        loop {
            tries += 1;
            let (outcome, wait) = match self.ask_token_once(call, authorization.as_ref()).await {
                Ok(answer) if exchange::is_passing(answer.status()) => {
                    let wait = exchange::pause(timing, tries, Some(&answer));
                    (Ok(answer), wait)
                }
                Ok(answer) => return Ok(answer),
                Err(failed) if failed.permanent => return Err(failed.error),
                Err(failed) => (Err(failed.error), exchange::pause(timing, tries, None)),
            };
            let Some(wait) = wait else { return outcome };
            self.waiting.rest(wait).await;
        }
    }

    async fn ask_token_once(&self, call: &Call, authorization: Option<&HeaderValue>) -> Result<Answer, Failed> {
        let timing = &self.state.config.timing;
        let mut url = call.url.clone();
        for _ in 0..=REDIRECTS {
            let same = url.origin() == call.url.origin();
            let authorization = authorization.filter(|_| same);
            let answer =
                exchange::once(&self.http, call, &url, authorization, call.body.clone().into(), Some(timing.stall), timing).await?;
            match exchange::redirect(call, &url, &answer, &self.endpoint.base, self.endpoint.insecure)? {
                None => return Ok(answer),
                // The form holds the refresh token.
                Some(target) if call.method != Method::GET && target.origin() != call.url.origin() => return Ok(answer),
                Some(target) => url = target,
            }
        }
        Err(TransferError::Transport {
            method: call.label.to_owned(),
            url: exchange::shown(&call.url),
            cause: format!("stopped after {REDIRECTS} redirects"),
        }
        .into())
    }
}

/// Tells logins apart without keeping them.
fn identity(login: &Login) -> u64 {
    // Keyed anew in every process, so that the number says nothing outside.
    static KEY: OnceLock<RandomState> = OnceLock::new();
    let mut hasher = KEY.get_or_init(RandomState::new).build_hasher();
    login.username.hash(&mut hasher);
    login.password.expose().hash(&mut hasher);
    login.identity_token.as_ref().map(Secret::expose).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_told_apart() {
        let login = |name: &str, password: &str| Login {
            username: name.to_owned(),
            password: Secret::new(password.to_owned()),
            ..Login::default()
        };
        assert_eq!(identity(&login("a", "b")), identity(&login("a", "b")));
        assert_ne!(identity(&login("a", "b")), identity(&login("ab", "")));
        assert_eq!(basic(&login("u", "p")).unwrap().to_str().unwrap(), "Basic dTpw");
        assert!(basic(&Login::default()).is_none());
    }
}
