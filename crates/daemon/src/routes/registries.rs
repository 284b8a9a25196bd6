//! What leads to a registry: pull, push, login, search, and what lies behind a name there.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use http::{HeaderMap, StatusCode};
use sampan_base::{Cancel, ErrorKind, Failure, Secret};
use sampan_images::{PullOptions, PushOptions};
use sampan_oci::{Digest, Index, Manifest, Platform, Reference};
use sampan_transfer::{FetchedManifest, Login, SearchItem, TransferError};
use sampan_wire::{Fields, Json, object};

use crate::body::json_body;
use crate::progress;
use crate::query::{Query, only, percent_decode};
use crate::respond::{ApiError, Reply, bad_field, ok};
use crate::server::{Call, Context, blocking};

/// Largest config that is read to learn a platform.
const MAX_CONFIG: u64 = 8 << 20;
/// How many hits a search gives when nobody says.
const HITS: usize = 25;

/// An error on the way to a registry. What the registry or the network is to blame for is our inner error to clients.
pub(crate) fn error<E: Failure>(error: E) -> ApiError {
    let is_remote = error.kind() == ErrorKind::Unavailable;
    let mut out = ApiError::from(error);
    if is_remote {
        out.status = StatusCode::INTERNAL_SERVER_ERROR;
    }
    out
}

/// `POST /images/create?fromImage=…`.
pub(crate) async fn pull(context: Arc<Context>, call: Call) -> Reply {
    let reference = wanted(&call.query)?;
    let platform = platform(&call.query)?;
    let options = PullOptions { platform, login: header_login(call.request.headers()) };
    let repo = call.query.text("repo").to_owned();
    if !repo.is_empty() {
        return Err(ApiError::invalid("not supported: repo with fromImage (give the image its name with a tag request)"));
    }
    let engine = Arc::clone(&context.engine);
    progress::run(move |lines, cancel| engine.images().pull(&reference, &options, lines, cancel).map(drop).map_err(error)).await
}

/// The reference of a pull; without a tag all tags are meant.
fn wanted(query: &Query) -> Result<Reference, ApiError> {
    let bad = |error: sampan_oci::ReferenceError| ApiError::invalid(error.to_string());
    // "pull -a" may send a name with a colon at its end.
    let image = query.text("fromImage");
    let reference = Reference::parse_normalized(image.strip_suffix(':').unwrap_or(image)).map_err(bad)?;
    match query.text("tag") {
        "" => match reference.digest() {
            Some(digest) => Ok(reference.with_digest(digest)),
            None => Ok(reference),
        },
        tag => match tag.parse::<Digest>() {
            Ok(digest) => Ok(reference.with_digest(&digest)),
            Err(_) => reference.with_tag(tag).map_err(|_| ApiError::invalid("invalid tag format")),
        },
    }
}

fn platform(query: &Query) -> Result<Option<Platform>, ApiError> {
    match query.text("platform") {
        "" => Ok(None),
        text => Platform::parse_specifier(text).map(Some).map_err(ApiError::invalid),
    }
}

/// `POST /images/NAME/push`.
pub(crate) async fn push(context: Arc<Context>, call: Call, name: String) -> Reply {
    let bad = |error: sampan_oci::ReferenceError| ApiError::invalid(error.to_string());
    let mut reference = Reference::parse_normalized(&name).map_err(bad)?;
    let tag = call.query.text("tag");
    if !tag.is_empty() {
        reference = reference.with_tag(tag).map_err(|_| ApiError::invalid("invalid tag format"))?;
    }
    let platform = match call.query.text("platform") {
        "" => None,
        text => {
            let parsed = serde_json::from_str(text).map_err(|error| ApiError::invalid(format!("failed to parse platform: {error}")))?;
            Some(parsed)
        }
    };
    let login = header_login(call.request.headers());
    // Old clients send the login as the body.
    crate::body::drain(call.request.into_body()).await;
    let options = PushOptions { platform, login };
    let engine = Arc::clone(&context.engine);
    progress::run(move |lines, cancel| {
        let done = |pushed: &sampan_images::Pushed| {
            let aux = object! { "Tag": pushed.tag.clone(), "Digest": pushed.digest.to_string(), "Size": pushed.size };
            lines.send(&object! { "progressDetail": Json::Object(Vec::new()), "aux": aux });
        };
        engine.images().push(&reference, &options, lines, cancel, &done).map_err(error)
    })
    .await
}

/// base64 of both alphabets, with and without its padding.
fn base64_any(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = text.trim();
    GeneralPurpose::new(&alphabet::URL_SAFE, config)
        .decode(text)
        .or_else(|_| GeneralPurpose::new(&alphabet::STANDARD, config).decode(text))
        .ok()
}

/// The login that a request carries; nobody where it carries none or what is none.
pub(crate) fn header_login(headers: &HeaderMap) -> Login {
    let header = headers.get("X-Registry-Auth").and_then(|value| base64_any(value.to_str().ok()?));
    let value = header.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    value.map(|value| login(&value)).unwrap_or_default()
}

/// A login as clients write it; `auth` holds name and password in one.
pub(crate) fn login(value: &serde_json::Value) -> Login {
    let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let token = |key: &str| Some(text(key)).filter(|token| !token.is_empty()).map(Secret::new);
    let (mut username, mut password) = (text("username"), text("password"));
    if username.is_empty()
        && let Some(pair) = base64_any(&text("auth")).and_then(|bytes| String::from_utf8(bytes).ok())
        && let Some((name, secret)) = pair.split_once(':')
    {
        (username, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
    }
    Login { username, password: Secret::new(password), identity_token: token("identitytoken"), registry_token: token("registrytoken") }
}

/// `POST /auth`.
pub(crate) async fn auth(context: Arc<Context>, call: Call) -> Reply {
    let fields: Fields = json_body(call.request).await?;
    let text = |key: &str| fields.text(key).map_err(bad_field);
    let token = |text: String| Some(text).filter(|token| !token.is_empty()).map(Secret::new);
    let wanted = Login {
        username: text("username")?,
        password: Secret::new(text("password")?),
        identity_token: token(text("identitytoken")?),
        registry_token: None,
    };
    let server = text("serveraddress")?;
    let host = if server.is_empty() { "https://index.docker.io/v1/".to_owned() } else { server };
    let engine = Arc::clone(&context.engine);
    let answer = blocking(move || -> Result<_, ApiError> {
        let client = engine.images().client().map_err(error)?;
        client.login(&host, &wanted, &Cancel::new()).map_err(error)
    });
    let answer = answer.await??;
    ok(&object! { "IdentityToken": answer.identity_token.unwrap_or_default(), "Status": answer.status })
}

/// `GET /distribution/NAME/json`.
pub(crate) async fn distribution(context: Arc<Context>, call: Call, name: &str) -> Reply {
    let reference = Reference::parse_normalized(name).map_err(|error| ApiError::invalid(error.to_string()))?.with_default_tag();
    let login = header_login(call.request.headers());
    let engine = Arc::clone(&context.engine);
    let document = blocking(move || -> Result<Json, ApiError> {
        let client = engine.images().client().map_err(error)?;
        let fetched = client.manifest(&reference, &login, &Cancel::new()).map_err(|failure| match failure {
            TransferError::ManifestUnknown { refusal, .. } => ApiError::not_found(refusal.to_string()),
            other => error(other),
        })?;
        let config = |manifest: &Manifest| {
            let bytes = client.document(&reference.repository(), &manifest.config, MAX_CONFIG, &login, &Cancel::new()).map_err(error)?;
            let platform = serde_json::from_slice::<Platform>(&bytes).unwrap_or_default();
            Ok::<_, ApiError>(Some(platform).filter(|platform| !platform.os.is_empty() || !platform.architecture.is_empty()))
        };
        let platforms = platforms(&fetched, config)?;
        let descriptor =
            object! { "mediaType": fetched.media_type.clone(), "digest": fetched.digest.to_string(), "size": fetched.bytes.len() };
        Ok(object! { "Descriptor": descriptor, "Platforms": Json::list_or_null(platforms.iter().map(shape)) })
    });
    ok(&document.await??)
}

fn platforms(
    fetched: &FetchedManifest,
    config: impl FnOnce(&Manifest) -> Result<Option<Platform>, ApiError>,
) -> Result<Vec<Platform>, ApiError> {
    if let Ok(index) = Index::parse(&fetched.bytes) {
        return Ok(index.manifests.into_iter().filter_map(|entry| entry.platform).collect());
    }
    match Manifest::parse(&fetched.bytes) {
        Ok(manifest) => config(&manifest).map(|platform| platform.into_iter().collect()),
        Err(_) => Ok(Vec::new()),
    }
}

fn shape(platform: &Platform) -> Json {
    let mut pairs = object! { "architecture": platform.architecture.clone(), "os": platform.os.clone() }.pairs();
    if !platform.variant.is_empty() {
        pairs.push(("variant".into(), platform.variant.clone().into()));
    }
    Json::Object(pairs)
}

/// `GET /images/search`.
pub(crate) async fn search(context: Arc<Context>, call: Call) -> Reply {
    let filters = call.query.filters()?;
    only(&filters, &["is-automated", "is-official", "stars"])?;
    let limit = match call.query.number("limit")? {
        None | Some(0) => HITS,
        Some(limit @ 1..=100) => usize::try_from(limit).unwrap_or(HITS),
        Some(limit) => return Err(ApiError::invalid(format!("limit {limit} is outside the range of [1, 100]"))),
    };
    let truth = |key: &str| match filters.get(key).and_then(|values| values.first()).map(|text| text.to_ascii_lowercase()) {
        None => Ok(None),
        Some(text) if matches!(text.as_str(), "1" | "true" | "t") => Ok(Some(true)),
        Some(text) if matches!(text.as_str(), "0" | "false" | "f") => Ok(Some(false)),
        Some(text) => Err(ApiError::invalid(format!("invalid filter '{key}=[{text}]'"))),
    };
    let (automated, official) = (truth("is-automated")?, truth("is-official")?);
    let mut stars = 0;
    for text in filters.get("stars").into_iter().flatten() {
        let count: u64 = text
            .parse()
            .map_err(|_| ApiError::invalid(format!("invalid filter 'stars={text}': strconv.Atoi: parsing \"{text}\": invalid syntax")))?;
        stars = stars.max(count);
    }
    let term = percent_decode(call.query.text("term"));
    let login = header_login(call.request.headers());
    let engine = Arc::clone(&context.engine);
    let found = blocking(move || -> Result<Vec<SearchItem>, ApiError> {
        let (host, rest) = split_term(&term);
        engine.images().client().map_err(error)?.search(host, rest, limit, &login, &Cancel::new()).map_err(error)
    });
    let fits = |item: &SearchItem| {
        automated.is_none_or(|wanted| wanted == item.automated)
            && official.is_none_or(|wanted| wanted == item.official)
            && item.stars >= stars
    };
    let row = |item: &SearchItem| {
        object! {
            "star_count": item.stars, "is_official": item.official, "name": item.name.clone(), "is_automated": item.automated,
            "description": item.description.clone(),
        }
    };
    ok(&Json::Array(found.await??.iter().filter(|item| fits(item)).map(row).collect()))
}

/// `HOST/term`, or a term for Docker Hub.
fn split_term(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", term.strip_prefix("library/").unwrap_or(term)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_of_pulls() {
        let wanted = |text: &str| wanted(&Query::parse(text)).map(|reference| reference.to_string()).map_err(|error| error.message);
        let digest = format!("sha256:{}", "a".repeat(64));
        for (query, full) in [
            ("fromImage=box&tag=1", "docker.io/library/box:1".to_owned()),
            ("fromImage=box:1", "docker.io/library/box:1".to_owned()),
            ("fromImage=box", "docker.io/library/box".to_owned()),
            ("fromImage=box:", "docker.io/library/box".to_owned()),
            (&format!("fromImage=box&tag={digest}"), format!("docker.io/library/box@{digest}")),
            (&format!("fromImage=box:1@{digest}"), format!("docker.io/library/box@{digest}")),
        ] {
            assert_eq!(wanted(query), Ok(full), "{query}");
        }
        assert_eq!(wanted("fromImage=box&tag=-x"), Err("invalid tag format".into()));
        assert!(wanted("fromImage=UP").is_err());
    }

    #[test]
    fn logins_come_in_many_forms() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("X-Registry-Auth", text.parse().unwrap());
            let login = header_login(&headers);
            (login.username.clone(), login.password.expose().clone(), login.identity_token.is_some())
        };
        let nobody = (String::new(), String::new(), false);
        let json = r#"{"username":"ann","password":"s>?"}"#;
        let ann = ("ann".to_owned(), "s>?".to_owned(), false);
        assert_eq!(parse(&base64::engine::general_purpose::URL_SAFE.encode(json)), ann);
        assert_eq!(parse(&base64::engine::general_purpose::STANDARD_NO_PAD.encode(json)), ann);
        let both = format!(r#"{{"auth":"{}"}}"#, base64::engine::general_purpose::STANDARD.encode("ann:s>?"));
        assert_eq!(parse(&base64::engine::general_purpose::STANDARD.encode(both)), ann);
        assert!(parse(&base64::engine::general_purpose::STANDARD.encode(r#"{"identitytoken":"x"}"#)).2);
        for text in ["", "e30=", "!!", "bnVsbA=="] {
            assert_eq!(parse(text), nobody, "{text}");
        }
    }

    #[test]
    fn terms_name_their_registry() {
        assert_eq!(split_term("box"), ("docker.io", "box"));
        assert_eq!(split_term("library/box"), ("docker.io", "box"));
        assert_eq!(split_term("shop.example:5000/box"), ("shop.example:5000", "box"));
        assert_eq!(split_term("ann/box"), ("docker.io", "ann/box"));
    }
}
