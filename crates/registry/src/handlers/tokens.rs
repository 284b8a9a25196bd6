//! `/token`: the Docker token specification, GET with Basic and POST as OAuth2 password grant.

use std::sync::Arc;

use http::{StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use super::{Call, Reply, document, pairs, query};
use crate::auth::{AuthError, Identity, Scope};
use crate::error::{Code, Outcome, Refusal};

/// Largest form.
const MAX_FORM: usize = 64 << 10;
/// How long a token is good, seconds.
const LIFE: i64 = 300;

/// Gives a token for what the client may do of what it wants.
pub(super) async fn token(call: Call, host: &str) -> Outcome<Reply> {
    let registry = Arc::clone(&call.registry);
    let (identity, scopes) = if call.head.method == http::Method::POST {
        from_form(call).await?
    } else {
        let scopes: Vec<String> = query(&call, "scope").collect();
        (call.identity, scopes)
    };
    if identity.role.is_none() {
        // Without a name there is nothing to be had here: better said now than by a token that opens nothing.
        let basic = format!("Basic realm=\"{host}\"");
        return Err(Refusal::new(Code::Unauthorized).header(header::WWW_AUTHENTICATE, basic));
    }
    let asked = Scope::parse_all(scopes.iter().map(String::as_str));
    let granted: Vec<Scope> =
        asked.into_iter().map(|scope| scope.granted(identity.role)).filter(|scope| !scope.actions.is_empty()).collect();
    let changed = if identity.name.is_empty() {
        0
    } else {
        let (registry, name) = (Arc::clone(&registry), identity.name.clone());
        let user = super::blocking(move || registry.store.meta.user(&name)).await??;
        user.ok_or_else(|| Refusal::new(Code::Unauthorized))?.changed
    };
    let text = registry.auth.keys.sign(&identity.name, changed, granted);
    let text = text.map_err(|error| Refusal::internal("sign a token", &error))?;
    let issued = jiff::Timestamp::now().to_string();
    let mut reply = document(json!({ "token": text, "access_token": text, "expires_in": LIFE, "issued_at": issued }).to_string());
    reply.headers_mut().insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    Ok(reply)
}

async fn from_form(call: Call) -> Outcome<(Identity, Vec<String>)> {
    let Call { registry, body, peer, .. } = call;
    let collected = Limited::new(body, MAX_FORM).collect().await;
    let bytes = collected.map_err(|_| Refusal::new(Code::Unsupported).status(StatusCode::PAYLOAD_TOO_LARGE).message("form too large"))?;
    let form = String::from_utf8_lossy(&bytes.to_bytes()).into_owned();
    let one = |name: &str| pairs(&form).find(|(key, _)| key == name).map(|(_, value)| value).unwrap_or_default();
    if one("grant_type") != "password" {
        let text = "only grant_type=password is offered: log in with a user name and a password";
        return Err(Refusal::new(Code::Unsupported).status(StatusCode::BAD_REQUEST).message(text));
    }
    let user = registry.auth.password(&registry.store, &one("username"), &one("password"), peer.ip()).await;
    let user = user.map_err(|error| match error {
        AuthError::TooMany => Refusal::new(Code::TooManyRequests).header(header::RETRY_AFTER, "60"),
        AuthError::Wrong => Refusal::new(Code::Unauthorized).message("incorrect username or password"),
        AuthError::Internal => Refusal::internal("check a password", &"the users cannot be read"),
    })?;
    let scopes = pairs(&form).filter(|(key, _)| key == "scope").map(|(_, value)| value).collect();
    Ok((Identity { name: user.name, role: Some(user.role), scopes: None }, scopes))
}
