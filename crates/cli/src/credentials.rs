//! Logins to registries, as Docker's client keeps them: in `config.json`, or with a credential helper.
//!
//! A helper is a program `docker-credential-NAME` that is given a verb and speaks JSON. What the file holds is not encrypted.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use sampan_oci::Reference;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::config::Config;
use crate::error::{CliError, Outcome};

/// The name under which Docker Hub's login is kept.
pub(crate) const HUB: &str = "https://index.docker.io/v1/";
/// The user name of a helper's identity token.
const TOKEN: &str = "<token>";

/// A login to a registry; all empty: none.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) server: String,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) identity_token: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Login").field("server", &self.server).field("username", &self.username).finish_non_exhaustive()
    }
}

impl Login {
    /// As engines take it.
    #[must_use]
    pub(crate) fn json(&self) -> Value {
        let mut map = Map::new();
        let fields = [
            ("username", &self.username),
            ("password", &self.password),
            ("serveraddress", &self.server),
            ("identitytoken", &self.identity_token),
        ];
        for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            map.insert(key.to_owned(), value.as_str().into());
        }
        Value::Object(map)
    }

    /// As the header `X-Registry-Auth`.
    #[must_use]
    pub(crate) fn header(&self) -> String {
        URL_SAFE.encode(self.json().to_string())
    }
}

/// Host and port of what a user typed: without scheme and path.
#[must_use]
pub(crate) fn hostname(server: &str) -> String {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    rest.split('/').next().unwrap_or_default().to_owned()
}

/// The name under which the login for a repository is kept.
#[must_use]
pub(crate) fn server_of(reference: &Reference) -> String {
    if reference.domain() == "docker.io" { HUB.to_owned() } else { reference.domain().to_owned() }
}

/// The login for a repository as a header. What cannot be read counts as none, with a warning.
pub(crate) fn header_for(app: &App, server: &str) -> String {
    match find(app, server) {
        Ok(login) => login.header(),
        Err(error) => {
            app.warn(&format!("WARNING: {}", error.text));
            Login { server: server.to_owned(), ..Login::default() }.header()
        }
    }
}

/// The helper that keeps the login of a server.
fn helper<'a>(config: &'a Config, server: &str) -> Option<&'a str> {
    let own = config.value.pointer("/credHelpers").and_then(|helpers| helpers.get(server)).and_then(Value::as_str);
    own.or_else(|| Some(config.text("credsStore"))).filter(|name| !name.is_empty())
}

/// The login of a server, empty where there is none.
///
/// # Errors
/// A helper that fails.
pub(crate) fn find(app: &App, server: &str) -> Outcome<Login> {
    if let Some(login) = from_environment(app).and_then(|value| from_auths(&value, server)) {
        return Ok(login);
    }
    match helper(&app.config, server) {
        Some(name) => from_helper(name, server),
        None => Ok(from_auths(&app.config.value, server).unwrap_or_else(|| Login { server: server.to_owned(), ..Login::default() })),
    }
}

/// `DOCKER_AUTH_CONFIG` holds a configuration file's `auths`.
fn from_environment(app: &App) -> Option<Value> {
    let text = app.environment.variables.iter().find(|(name, _)| name == "DOCKER_AUTH_CONFIG").map(|(_, value)| value)?;
    serde_json::from_str(text).ok()
}

/// A login of `auths`: under the name itself, or under another spelling of the same host.
fn from_auths(value: &Value, server: &str) -> Option<Login> {
    let auths = value.get("auths")?.as_object()?;
    let entry = auths.get(server).or_else(|| {
        let host = hostname(server);
        auths.iter().find(|(name, _)| hostname(name) == host).map(|(_, entry)| entry)
    })?;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut username, mut password) = (text("username"), text("password"));
    if let Some((name, secret)) = STANDARD.decode(text("auth")).ok().and_then(|bytes| {
        let pair = String::from_utf8(bytes).ok()?;
        pair.split_once(':').map(|(name, secret)| (name.to_owned(), secret.trim_matches('\0').to_owned()))
    }) {
        (username, password) = (name, secret);
    }
    Some(Login { server: server.to_owned(), username, password, identity_token: text("identitytoken") })
}

/// Runs a helper: gives what it printed.
#[allow(clippy::disallowed_methods, reason = "credential helpers are programs")]
fn run_helper(name: &str, verb: &str, input: &str) -> Outcome<Vec<u8>> {
    let program = format!("docker-credential-{name}");
    if name.contains('/') {
        return Err(CliError::new(format!("error getting credentials - err: exec: \"{program}\": not a name of a credential helper")));
    }
    let failed = |text: &str| {
        let doing = if verb == "get" {
            "getting"
        } else if verb == "store" {
            "storing"
        } else if verb == "list" {
            "listing"
        } else {
            "erasing"
        };
        CliError::new(format!("error {doing} credentials - err: {text}"))
    };
    let child = Command::new(&program).arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let mut child = child.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed(&format!("exec: \"{program}\": executable file not found in $PATH, out: ``")),
        _ => failed(&format!("exec: \"{program}\": {}, out: ``", crate::error::errno_text(&error))),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read what it is told ends with its own error.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let code = output.status.code().unwrap_or(1);
    Err(failed(&format!("exit status {code}, out: `{}`", sampan_base::sanitize(&said))))
}

/// What helpers say where they have no login.
fn is_absent(error: &CliError) -> bool {
    error.text.contains("credentials not found in native keychain") || error.text.contains("no credentials server URL")
}

fn from_helper(name: &str, server: &str) -> Outcome<Login> {
    let none = || Login { server: server.to_owned(), ..Login::default() };
    let bytes = match run_helper(name, "get", server) {
        Ok(bytes) => bytes,
        Err(error) if is_absent(&error) => return Ok(none()),
        Err(error) => return Err(error),
    };
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| CliError::new(format!("error getting credentials - err: the helper {name} printed no JSON: {error}")))?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (username, secret) = (text("Username"), text("Secret"));
    Ok(match username.as_str() {
        TOKEN => Login { identity_token: secret, ..none() },
        _ => Login { username, password: secret, ..none() },
    })
}

/// Keeps a login.
///
/// # Errors
/// A file that cannot be written, a helper that fails.
pub(crate) fn store(app: &App, login: &Login) -> Outcome<()> {
    if let Some(name) = helper(&app.config, &login.server) {
        let (user, secret) =
            if login.identity_token.is_empty() { (login.username.as_str(), &login.password) } else { (TOKEN, &login.identity_token) };
        let input = json!({"ServerURL": login.server, "Username": user, "Secret": secret}).to_string();
        return run_helper(name, "store", &input).map(drop);
    }
    if from_auths(&app.config.value, &login.server).as_ref() == Some(login) {
        return Ok(());
    }
    let mut entry = Map::new();
    if !login.username.is_empty() || !login.password.is_empty() {
        entry.insert("auth".into(), STANDARD.encode(format!("{}:{}", login.username, login.password)).into());
    }
    if !login.identity_token.is_empty() {
        entry.insert("identitytoken".into(), login.identity_token.as_str().into());
    }
    let mut config = app.config.clone();
    let mut auths = config.value.get("auths").and_then(Value::as_object).cloned().unwrap_or_default();
    auths.insert(login.server.clone(), Value::Object(entry));
    config.set("auths", Some(Value::Object(auths)))?;
    if !login.password.is_empty() {
        app.warn(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            config.folder.join("config.json").display()
        ));
    }
    Ok(())
}

/// Forgets the logins under all these names.
///
/// # Errors
/// A file that cannot be written, a helper that fails.
pub(crate) fn erase(app: &App, servers: &[String]) -> Outcome<()> {
    let mut config = app.config.clone();
    let mut auths = config.value.get("auths").and_then(Value::as_object).cloned();
    let mut errors = Vec::new();
    for server in servers {
        match helper(&app.config, server) {
            Some(name) => errors.extend(run_helper(name, "erase", server).err().filter(|error| !is_absent(error))),
            None => {
                if let Some(auths) = &mut auths {
                    auths.remove(server);
                }
            }
        }
    }
    if let Some(auths) = auths.filter(|auths| config.value.get("auths").and_then(Value::as_object) != Some(auths)) {
        config.set("auths", Some(Value::Object(auths)))?;
    }
    match errors.into_iter().next() {
        Some(error) if helper(&app.config, &servers[0]).is_some() => Err(error),
        _ => Ok(()),
    }
}

/// Registries that the configuration has logins or helpers for; no helper is asked.
pub(crate) fn known(config: &Config) -> Vec<String> {
    let keys = |key: &str| config.value.get(key).and_then(Value::as_object).into_iter().flat_map(|map| map.keys().cloned());
    let all: BTreeSet<String> = keys("auths").chain(keys("credHelpers")).collect();
    all.into_iter().collect()
}

/// All logins, for a build, which may need several: the header `X-Registry-Config`.
pub(crate) fn registry_config(app: &App) -> String {
    let mut servers: BTreeSet<String> = BTreeSet::new();
    let keys = |key: &str| app.config.value.get(key).and_then(Value::as_object).into_iter().flat_map(|map| map.keys().cloned());
    servers.extend(keys("auths").chain(keys("credHelpers")));
    if let Some(value) = from_environment(app) {
        servers.extend(value.get("auths").and_then(Value::as_object).into_iter().flat_map(|map| map.keys().cloned()));
    }
    let store = app.config.text("credsStore");
    if !store.is_empty()
        && let Ok(bytes) = run_helper(store, "list", "")
        && let Ok(Value::Object(list)) = serde_json::from_slice(&bytes)
    {
        servers.extend(list.into_iter().map(|(server, _)| server));
    }
    let mut all = Map::new();
    for server in servers {
        match find(app, &server) {
            Ok(login) => drop(all.insert(server, login.json())),
            Err(error) => app.warn(&format!("WARNING: {}", error.text)),
        }
    }
    URL_SAFE.encode(Value::Object(all).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_found_under_any_spelling() {
        let value = json!({"auths": {
            "https://shop.example:5000/v1/": {"auth": STANDARD.encode("ann:a:b")},
            "token.example": {"identitytoken": "t", "auth": STANDARD.encode("ann:")},
            HUB: {"auth": STANDARD.encode("hub:x")},
        }});
        let found = |server: &str| from_auths(&value, server).map(|login| (login.username, login.password, login.identity_token));
        assert_eq!(found("shop.example:5000"), Some(("ann".into(), "a:b".into(), String::new())));
        assert_eq!(found("token.example"), Some(("ann".into(), String::new(), "t".into())));
        assert_eq!(found(HUB), Some(("hub".into(), "x".into(), String::new())));
        assert_eq!(found("other.example"), None);
    }

    #[test]
    fn servers_have_one_name() {
        for (typed, host) in [("http://127.0.0.1:5000/", "127.0.0.1:5000"), ("https://a.b/v2/", "a.b"), ("a.b:1", "a.b:1")] {
            assert_eq!(hostname(typed), host);
        }
        let server = |name: &str| server_of(&Reference::parse_normalized(name).unwrap());
        assert_eq!((server("box").as_str(), server("a.b/c").as_str()), (HUB, "a.b"));
        let login = Login { server: "a.b".into(), username: "u".into(), ..Login::default() };
        assert_eq!(String::from_utf8(URL_SAFE.decode(login.header()).unwrap()).unwrap(), r#"{"serveraddress":"a.b","username":"u"}"#);
    }
}
