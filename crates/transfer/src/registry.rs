//! One registry at one address, as one user: the first contact, who may do what, and requests with all tries, redirects and
//! fresh tokens that they need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use http::StatusCode;
use http::header::HeaderValue;
use reqwest::Url;
use sampan_oci::Reference;

use crate::challenge::Challenge;
use crate::config::Login;
use crate::endpoint::Endpoint;
use crate::exchange::{self, Answer, Call, Failed, REDIRECTS};
use crate::state::{Known, State, lock};
use crate::waiting::Waiting;
use crate::{TransferError, token};

/// A registry that answered.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    pub(crate) state: Arc<State>,
    pub(crate) endpoint: Endpoint,
    pub(crate) http: reqwest::Client,
    pub(crate) login: Login,
    /// Who is told of pauses.
    pub(crate) waiting: Waiting,
    /// What it wants; a later answer may say it better than the first. Not remembered beyond this piece of work, as a registry
    /// may ask for proofs for some repositories only.
    challenges: Arc<Mutex<Arc<Vec<Challenge>>>>,
    /// Whether that was learned by an earlier piece of work.
    remembered: bool,
}

/// What a request is allowed to do, in the language of tokens: `repository:a/b:pull`.
pub(crate) fn scope(repository: &Reference, actions: &str) -> String {
    format!("repository:{}:{actions}", repository.path())
}

/// A header of a request, and whether its token was made for this very request.
struct Proof {
    header: Option<HeaderValue>,
    scopes: Vec<String>,
}

impl Registry {
    /// Makes contact with an address.
    pub(crate) async fn open(state: &Arc<State>, endpoint: Endpoint, login: &Login, waiting: &Waiting) -> Result<Self, Failed> {
        let http = state.http(&endpoint)?;
        // What is meant for Docker Hub is not meant for its mirrors.
        let login = if endpoint.mirror { Login::default() } else { login.clone() };
        let (state, waiting) = (Arc::clone(state), waiting.clone());
        let mut registry = Self { state, endpoint, http, login, waiting, challenges: Arc::default(), remembered: false };
        let challenges = match registry.state.known(&registry.endpoint) {
            Some(Known::Reached(challenges)) => {
                registry.remembered = true;
                challenges
            }
            _ => registry.ping().await?,
        };
        *lock(&registry.challenges) = challenges;
        Ok(registry)
    }

    /// `GET /v2/` tells how to prove who asks. Which status it has does not matter, as in Docker.
    async fn ping(&self) -> Result<Arc<Vec<Challenge>>, Failed> {
        let call = Call::new(Method::GET, self.endpoint.url("/v2/")?);
        let timing = &self.state.config.timing;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.follow(&call, None, timing.stall.min(timing.connect)).await {
                Ok(answer) => {
                    let status = answer.status();
                    let challenges = if status == StatusCode::UNAUTHORIZED { answer.challenges() } else { Vec::new() };
                    let challenges = Arc::new(challenges);
                    answer.drain().await;
                    // A registry that is in trouble tells later what it wants.
                    if status.is_success() || status == StatusCode::UNAUTHORIZED {
                        self.state.learn(&self.endpoint, Some(Known::Reached(Arc::clone(&challenges))));
                    }
                    return Ok(challenges);
                }
                Err(failed) => {
                    // A machine without a network wants to know that at once; only connections that broke are tried again. An insecure
                    // registry that hangs up on TLS most likely speaks plain HTTP, which is tried next.
                    let has_plain = self.endpoint.insecure && self.endpoint.base.scheme() == "https";
                    let is_worth_it = is_broken(&failed.error) && !has_plain;
                    let pause = if is_worth_it { exchange::pause(timing, tries, None) } else { None };
                    let Some(pause) = pause else {
                        self.state.learn(&self.endpoint, Some(Known::Unreachable));
                        return Err(failed);
                    };
                    self.waiting.rest(pause).await;
                }
            }
        }
    }

    /// Sends a request until there is an answer that no further try would better.
    pub(crate) async fn send(&self, call: &Call, scopes: &[String]) -> Result<Answer, TransferError> {
        let timing = &self.state.config.timing;
        let mut tries = 0;
        loop {
            tries += 1;
            let (outcome, pause) = match self.send_once(call, scopes).await {
                Ok(answer) if exchange::is_passing(answer.status()) => {
                    let pause = exchange::pause(timing, tries, Some(&answer));
                    (Ok(answer), pause)
                }
                Ok(answer) => return Ok(answer),
                // The registry did answer before: it may be starting anew.
                Err(failed) if failed.permanent && !is_refused_connection(&failed.error) => {
                    self.forget_if_unreachable(&failed.error);
                    return Err(failed.error);
                }
                Err(failed) => (Err(failed.error), exchange::pause(timing, tries, None)),
            };
            let Some(pause) = pause else {
                if let Err(error) = &outcome {
                    self.forget_if_unreachable(error);
                }
                return outcome;
            };
            self.waiting.rest(pause).await;
        }
    }

    /// What was known of an address that stopped answering is no longer true.
    fn forget_if_unreachable(&self, error: &TransferError) {
        if matches!(error, TransferError::Transport { .. }) {
            self.state.learn(&self.endpoint, None);
        }
    }

    /// One try: at most one more request after a challenge.
    async fn send_once(&self, call: &Call, scopes: &[String]) -> Result<Answer, Failed> {
        let proof = match self.prove(call, &self.challenges(), scopes, None).await {
            // Another registry may stand there now. Its own answer tells what it wants.
            Err(error) if self.remembered && is_of_another(&error) => Proof { header: None, scopes: sorted(scopes) },
            proof => proof?,
        };
        let stall = self.state.config.timing.stall;
        let answer = self.follow(call, proof.header.as_ref(), stall).await?;
        match self.prove_again(call, &answer, &proof).await? {
            None => Ok(answer),
            Some(header) => self.follow(call, Some(&header), stall).await,
        }
    }

    /// The header for a request that cannot be repeated here, such as one with a stream as its body.
    pub(crate) async fn proof(&self, call: &Call, scopes: &[String]) -> Result<Option<HeaderValue>, TransferError> {
        // No credentials leave for another place.
        if call.url.origin() != self.endpoint.base.origin() {
            return Ok(None);
        }
        Ok(self.prove(call, &self.challenges(), scopes, None).await?.header)
    }

    /// Drops the token that such a request was refused with.
    pub(crate) async fn renew(
        &self,
        call: &Call,
        scopes: &[String],
        answer: &Answer,
        used: Option<HeaderValue>,
    ) -> Result<bool, TransferError> {
        let proof = Proof { header: used, scopes: sorted(scopes) };
        Ok(self.prove_again(call, answer, &proof).await?.is_some())
    }

    async fn prove(
        &self,
        call: &Call,
        challenges: &[Challenge],
        scopes: &[String],
        stale: Option<&HeaderValue>,
    ) -> Result<Proof, TransferError> {
        let scopes = sorted(scopes);
        if let Some(token) = self.login.ready() {
            let header = token::bearer(token.expose()).ok_or_else(|| TransferError::Invalid("the registry token is no text".to_owned()))?;
            return Ok(Proof { header: Some(header), scopes });
        }
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        if let Some(challenge) = of("bearer") {
            let token = self.token(challenge, &scopes, stale, false).await;
            let token = token.map_err(|cause| TransferError::Token { context: call.context(), cause: Box::new(cause) })?;
            return Ok(Proof { header: Some(token.header), scopes });
        }
        if of("basic").is_some() {
            let header = token::basic(&self.login).ok_or_else(|| TransferError::NoCredentials { context: call.context() })?;
            return Ok(Proof { header: Some(header), scopes });
        }
        Ok(Proof { header: None, scopes })
    }

    /// After a 401: a better proof, if there is one. Never more than once for a request.
    async fn prove_again(&self, call: &Call, answer: &Answer, proof: &Proof) -> Result<Option<HeaderValue>, TransferError> {
        let is_ours = answer.url.origin() == self.endpoint.base.origin();
        if answer.status() != StatusCode::UNAUTHORIZED || !is_ours || self.login.ready().is_some() {
            return Ok(None);
        }
        let challenges = answer.challenges();
        if let Some(challenge) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
            let mut scopes = proof.scopes.clone();
            let asked = challenge.parameter("scope").unwrap_or_default();
            scopes.extend(asked.split_whitespace().take(16).map(|scope| scope.chars().take(1024).collect::<String>()));
            if let Some(stale) = &proof.header {
                self.state.tokens.forget(stale);
            }
            let again = self.prove(call, &challenges, &scopes, proof.header.as_ref()).await?;
            *lock(&self.challenges) = Arc::new(challenges);
            return Ok(again.header);
        }
        if proof.header.is_some() || challenges.is_empty() {
            return Ok(None);
        }
        let again = self.prove(call, &challenges, &proof.scopes, None).await?;
        *lock(&self.challenges) = Arc::new(challenges);
        Ok(again.header)
    }

    /// Follows redirects. The authorization is shown to the registry itself only.
    async fn follow(&self, call: &Call, authorization: Option<&HeaderValue>, stall: Duration) -> Result<Answer, Failed> {
        let timing = &self.state.config.timing;
        let own = self.endpoint.base.origin();
        let mut url = call.url.clone();
        for _ in 0..=REDIRECTS {
            let authorization = authorization.filter(|_| url.origin() == own);
            let body = call.body.clone().into();
            let answer = exchange::once(&self.http, call, &url, authorization, body, Some(stall), timing).await?;
            match exchange::redirect(call, &url, &answer, &self.endpoint.base, self.endpoint.insecure)? {
                None => return Ok(answer),
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

    /// An answer that must be a success.
    pub(crate) async fn demand(&self, call: &Call, scopes: &[String]) -> Result<Answer, TransferError> {
        let answer = self.send(call, scopes).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(answer.refusal().await) }
    }

    /// An error about an answer of this registry.
    pub(crate) fn malformed(&self, problem: impl Into<String>) -> TransferError {
        TransferError::Malformed { host: self.endpoint.host.clone(), problem: problem.into() }
    }

    /// An address of a repository: `manifests/latest` and the like.
    pub(crate) fn repository_url(&self, repository: &Reference, rest: &str) -> Result<Url, TransferError> {
        self.endpoint.url(&format!("/v2/{}/{rest}", repository.path()))
    }

    /// How the registry wants to be shown who asks.
    pub(crate) fn challenge(&self, scheme: &str) -> Option<Challenge> {
        self.challenges().iter().find(|challenge| challenge.scheme == scheme).cloned()
    }

    fn challenges(&self) -> Arc<Vec<Challenge>> {
        Arc::clone(&lock(&self.challenges))
    }
}

fn is_refused_connection(error: &TransferError) -> bool {
    matches!(error, TransferError::Transport { cause, .. } if cause.ends_with("connection refused"))
}

/// Whether a proof could not be made for a reason that a registry's present challenge may not have.
fn is_of_another(error: &TransferError) -> bool {
    match error {
        TransferError::NoCredentials { .. } => true,
        TransferError::Token { cause, .. } => matches!(**cause, TransferError::Transport { .. }),
        _ => false,
    }
}

fn is_broken(error: &TransferError) -> bool {
    let words = ["EOF", "reset by peer", "broken pipe"];
    matches!(error, TransferError::Transport { cause, .. } if words.iter().any(|word| cause.ends_with(word)))
}

/// Scopes as the key of a token: each thing once with all its actions, in order.
fn sorted(scopes: &[String]) -> Vec<String> {
    let mut things: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for scope in scopes {
        let (thing, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
        things.entry(thing).or_default().extend(actions.split(',').filter(|action| !action.is_empty()));
    }
    let print = |(thing, actions): (&str, BTreeSet<&str>)| match actions.is_empty() {
        true => thing.to_owned(),
        false => format!("{thing}:{}", actions.into_iter().collect::<Vec<_>>().join(",")),
    };
    things.into_iter().map(print).collect()
}

/// Tries the addresses of a registry in order until one of them does what is asked.
///
/// From a mirror every failure leads on; from an insecure registry only a failed contact, to plain HTTP.
pub(crate) async fn with_registry<T>(
    state: &Arc<State>,
    domain: &str,
    login: &Login,
    with_mirrors: bool,
    waiting: &Waiting,
    mut work: impl AsyncFnMut(Registry) -> Result<T, TransferError>,
) -> Result<T, TransferError> {
    let mut endpoints = state.endpoints(domain, with_mirrors).await?;
    // Those that lately could not be reached come last, but they do come.
    endpoints.sort_by_key(|endpoint| matches!(state.known(endpoint), Some(Known::Unreachable)));
    let mut last = None;
    for endpoint in endpoints {
        let is_mirror = endpoint.mirror;
        match Registry::open(state, endpoint, login, waiting).await {
            Err(failed) if matches!(failed.error, TransferError::Transport { .. }) || is_mirror => last = Some(failed.error),
            Err(failed) => return Err(failed.error),
            Ok(registry) => match work(registry).await {
                Err(error) if is_mirror => last = Some(error),
                outcome => return outcome,
            },
        }
    }
    Err(last.unwrap_or_else(|| TransferError::Invalid(format!("no endpoints found for {domain}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_have_one_form() {
        let scopes = |scopes: &[&str]| sorted(&scopes.iter().map(|&scope| scope.to_owned()).collect::<Vec<_>>());
        assert_eq!(
            scopes(&["repository:b:push,pull", "repository:a:pull", "repository:b:pull", "odd"]),
            ["odd", "repository:a:pull", "repository:b:pull,push"]
        );
    }
}
