//! The parameters of a build's request, from flags, environment and configuration.

use std::collections::BTreeMap;

use sampan_gotext::flags::Matches;
use sampan_wire::{Json, object};
use serde_json::Value;

use crate::app::App;
use crate::create::checks::parse_ulimit;
use crate::error::{CliError, Outcome};
use crate::remote::{Call, Client};

/// Flags whose texts and numbers are parameters as they are.
const PLAIN: [(&str, &str); 12] = [
    ("target", "target"),
    ("cgroup-parent", "cgroupparent"),
    ("cpu-period", "cpuperiod"),
    ("cpu-quota", "cpuquota"),
    ("cpu-shares", "cpushares"),
    ("cpuset-cpus", "cpusetcpus"),
    ("cpuset-mems", "cpusetmems"),
    ("isolation", "isolation"),
    ("memory", "memory"),
    ("memory-swap", "memswap"),
    ("shm-size", "shmsize"),
    ("network", "networkmode"),
];

/// The request, without its context.
///
/// # Errors
/// Docker's texts.
pub(super) fn call<'a>(
    app: &App,
    client: &'a Client,
    matches: &Matches,
    names: &[String],
    dockerfile: &str,
    quiet: bool,
) -> Outcome<Call<'a>> {
    if matches.truth("squash") {
        return Err(CliError::new("\"--squash\" is only supported on a Docker daemon with experimental features enabled"));
    }
    let mut call = client.post("/build").query("version", "1").query_some("dockerfile", dockerfile);
    for name in names {
        call = call.query("t", name);
    }
    for (flag, parameter) in PLAIN {
        let value = matches.text(flag);
        // No limit and the default network are not said.
        let nothing = matches!((flag, value), (flag, "0") if !flag.starts_with("cpuset")) || (flag, value) == ("network", "default");
        if !nothing {
            call = call.query_some(parameter, value);
        }
    }
    call = call.query_if("q", quiet);
    call = call.query_if("nocache", matches.truth("no-cache")).query_if("pull", matches.truth("pull"));
    call = call.query_if("forcerm", matches.truth("force-rm"));
    if !matches.truth("rm") {
        call = call.query("rm", "0");
    }
    for option in matches.list("security-opt") {
        call = call.query("securityopt", option);
    }
    for host in matches.list("add-host") {
        call = call.query("extrahosts", host);
    }
    let platform =
        if matches.given("platform") { matches.text("platform") } else { app.environment.platform.as_deref().unwrap_or_default() };
    call = call.query_some("platform", &platform.to_lowercase());
    let (_, host) = app.context()?;
    let arguments = arguments(matches.list("build-arg"), &app.environment.variables, &app.config.value, &host);
    for (parameter, json) in [
        ("buildargs", arguments),
        ("labels", labels(matches.list("label"))),
        ("ulimits", ulimits(matches.list("ulimit"))?),
        ("sampannocache", matches.given("no-cache-filter").then(|| Json::list(matches.list("no-cache-filter").iter().map(String::as_str)))),
        ("cachefrom", matches.given("cache-from").then(|| Json::list(matches.list("cache-from").iter().map(String::as_str)))),
    ] {
        if let Some(json) = json {
            call = call.query(parameter, &json.print());
        }
    }
    Ok(call)
}

/// `--build-arg`, with values of the environment, and the proxies of the configuration file.
fn arguments(given: &[String], environment: &[(String, String)], config: &Value, host: &str) -> Option<Json> {
    let mut all: BTreeMap<String, Json> = BTreeMap::new();
    for argument in given {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Json::from(value)),
            None => {
                let value = environment.iter().find(|(name, _)| name == argument).map(|(_, value)| value.as_str());
                (argument.as_str(), Json::option(value))
            }
        };
        all.insert(name.to_owned(), value);
    }
    let proxies = config.get("proxies").and_then(|proxies| proxies.get(host).or_else(|| proxies.get("default")));
    let names = [
        ("HTTP_PROXY", "httpProxy"),
        ("HTTPS_PROXY", "httpsProxy"),
        ("FTP_PROXY", "ftpProxy"),
        ("NO_PROXY", "noProxy"),
        ("ALL_PROXY", "allProxy"),
    ];
    for (name, key) in names {
        let value = proxies.and_then(|proxies| proxies.get(key)).and_then(Value::as_str).unwrap_or_default();
        if !value.is_empty() {
            for name in [name.to_owned(), name.to_lowercase()] {
                all.entry(name).or_insert_with(|| value.into());
            }
        }
    }
    (!all.is_empty()).then(|| Json::map(all))
}

fn labels(given: &[String]) -> Option<Json> {
    let pairs = given.iter().map(|label| label.split_once('=').unwrap_or((label, "")));
    let all: BTreeMap<&str, &str> = pairs.collect();
    (!all.is_empty()).then(|| Json::map(all))
}

fn ulimits(given: &[String]) -> Outcome<Option<Json>> {
    let mut all = BTreeMap::new();
    for limit in given {
        let (name, soft, hard) = parse_ulimit(limit).map_err(CliError::new)?;
        all.insert(name, object! { "Name": name, "Hard": hard, "Soft": soft });
    }
    Ok((!all.is_empty()).then(|| Json::list(all.into_values())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_come_from_flags_environment_and_proxies() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let environment = [("HOME".to_owned(), "/root".to_owned())];
        let config = json!({"proxies": {"default": {"httpProxy": "p"}, "unix:///x": {"noProxy": "n"}}});
        let shown =
            |given: &[&str], config: &Value, host: &str| arguments(&texts(given), &environment, config, host).map(|json| json.print());
        assert_eq!(shown(&[], &Value::Null, ""), None);
        let expected = r#"{"A":"1=2","HOME":"/root","NOPE":null}"#;
        assert_eq!(shown(&["A=0", "A=1=2", "HOME", "NOPE"], &Value::Null, "").as_deref(), Some(expected));
        assert_eq!(shown(&["http_proxy=mine"], &config, "tcp://y").as_deref(), Some(r#"{"HTTP_PROXY":"p","http_proxy":"mine"}"#));
        assert_eq!(shown(&[], &config, "unix:///x").as_deref(), Some(r#"{"NO_PROXY":"n","no_proxy":"n"}"#));
    }

    #[test]
    fn labels_and_limits_are_sets() {
        let texts = ["l=1", "m", "l=2"].map(str::to_owned);
        assert_eq!(labels(&texts).unwrap().print(), r#"{"l":"2","m":""}"#);
        let texts = ["nproc=5", "nofile=1:2"].map(str::to_owned);
        let expected = r#"[{"Name":"nofile","Hard":2,"Soft":1},{"Name":"nproc","Hard":5,"Soft":5}]"#;
        assert_eq!(ulimits(&texts).unwrap().unwrap().print(), expected);
    }
}
