//! `/token`: the service that gives tokens, in both forms that clients use.

use std::sync::Arc;

use hyper::Method;

use super::{Answer, Call, blocking, json, set};
use crate::auth::parse_basic;
use crate::error::{Code, RegistryError, Result};
use crate::rights::{Identity, grant};
use crate::route::Query;
use crate::token::{LIFE, Use};
use crate::users::User;

/// Bytes of a form.
const FORM: usize = 64 << 10;

fn wrong() -> RegistryError {
    RegistryError::say(Code::Unauthorized, "incorrect username or password")
}

impl Call<'_> {
    pub(super) async fn token(&mut self) -> Result<Answer> {
        match self.method {
            Method::GET => self.token_by_header().await,
            Method::POST => self.token_by_form().await,
            _ => Err(RegistryError::new(Code::Unsupported)),
        }
    }

    /// `GET /token?service=…&scope=…`, with Basic or as a stranger.
    async fn token_by_header(&mut self) -> Result<Answer> {
        let user = match self.headers.get("authorization") {
            None if self.registry.auth.strangers().is_none() => return Err(RegistryError::new(Code::Unauthorized)),
            None => None,
            Some(header) => {
                let header = header.to_str().unwrap_or_default();
                let (scheme, value) = header.split_once(' ').ok_or_else(wrong)?;
                let (name, password) = parse_basic(value).filter(|_| scheme.eq_ignore_ascii_case("basic")).ok_or_else(wrong)?;
                // Some clients write down that they have no name.
                let is_stranger = name.is_empty() && password.is_empty() && self.registry.auth.strangers().is_some();
                if is_stranger { None } else { Some(self.check(&name, &password).await?) }
            }
        };
        let offline = self.query.get("offline_token").is_some_and(|text| matches!(text, "true" | "1"));
        let query = std::mem::take(&mut self.query);
        let answer = self.give(user.as_deref(), &query, offline, false);
        self.query = query;
        answer
    }

    /// `POST /token` with `grant_type=password` or `grant_type=refresh_token`.
    async fn token_by_form(&mut self) -> Result<Answer> {
        let too_large = || RegistryError::say(Code::SizeInvalid, "the form is too large").status(413);
        let body = self.whole_body(FORM).await?.ok_or_else(too_large)?;
        let form = Query::parse(std::str::from_utf8(&body).unwrap_or_default());
        let user = match form.get("grant_type") {
            Some("password") => {
                let (name, password) = (form.get("username").unwrap_or_default(), form.get("password").unwrap_or_default());
                self.check(name, password).await?
            }
            Some("refresh_token") => {
                let token = form.get("refresh_token").unwrap_or_default();
                blocking(|| self.registry.auth.by_refresh_token(&self.registry.store, token))?
            }
            _ => return Err(RegistryError::say(Code::Unsupported, "grant_type must be password or refresh_token").status(400)),
        };
        let offline = form.get("access_type") == Some("offline") || form.get("grant_type") == Some("refresh_token");
        self.give(Some(&user), &form, offline, true)
    }

    async fn check(&mut self, name: &str, password: &str) -> Result<Arc<User>> {
        let registry = self.registry;
        let checked = registry.auth.by_password(&registry.store, name, password, self.peer.address).await;
        let user = checked.map_err(|error| if error.status == 401 { wrong() } else { error })?;
        self.identity = Arc::new(Identity::user(&user.name, user.role));
        Ok(user)
    }

    fn give(&self, user: Option<&User>, query: &Query, offline: bool, by_form: bool) -> Result<Answer> {
        let auth = &self.registry.auth;
        let role = user.map_or(auth.strangers(), |user| Some(user.role));
        let access = grant(query.all("scope"), role);
        let (name, version) = user.map_or(("", ""), |user| (&user.name, &user.version));
        let service = query.get("service").unwrap_or_default();
        let scope: Vec<String> = access.iter().map(|one| format!("{}:{}:{}", one.kind, one.name, one.actions.join(","))).collect();
        let token = auth.key().make(Use::Access, name, version, service, access)?;
        let issued = jiff::Timestamp::from_second(crate::store::now()).unwrap_or_default().to_string();
        let mut body = serde_json::json!({"access_token": token, "expires_in": LIFE, "issued_at": issued});
        if by_form {
            body["scope"] = scope.join(" ").into();
        } else {
            body["token"] = token.into();
        }
        if offline && user.is_some() {
            let given = query.get("refresh_token").filter(|_| by_form).map(str::to_owned);
            let refresh = given.map_or_else(|| auth.key().make(Use::Refresh, name, version, service, Vec::new()), Ok)?;
            body["refresh_token"] = refresh.into();
        }
        let mut answer = json(body.to_string());
        set(&mut answer, "cache-control", "no-store");
        Ok(answer)
    }
}
