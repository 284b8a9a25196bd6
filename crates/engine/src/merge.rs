//! How a create request and an image's configuration become one configuration. Pure.

use std::collections::BTreeSet;

use crate::error::EngineError;
use crate::model::{Config, HealthProbe, HostConfig, RestartPolicyName};

/// Fills what the request left open from the image, by the original's rules.
///
/// Environment: the image's variables first, the request's replace those of the same name. Ports, labels and volumes: the union.
/// Entry point given: the image's arguments are dropped.
pub(crate) fn merge(mut config: Config, image: &Config) -> Config {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    config.exposed_ports.extend(image.exposed_ports.iter().cloned());
    config.env = merge_env(&image.env, &config.env);
    for (key, value) in &image.labels {
        config.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    match &config.entrypoint {
        None => {
            if config.cmd.as_ref().is_none_or(Vec::is_empty) {
                config.cmd.clone_from(&image.cmd);
                config.args_escaped = image.args_escaped;
            }
            config.entrypoint.clone_from(&image.entrypoint);
        }
        // `--entrypoint ''`: no entry point, and the image's arguments do not count.
        Some(words) if words.len() == 1 && words[0].is_empty() => config.entrypoint = None,
        Some(_) => {}
    }
    config.healthcheck = merge_health(config.healthcheck.take(), image.healthcheck.as_ref());
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    if config.working_dir.starts_with('/') {
        config.working_dir = crate::mounts::clean(&config.working_dir);
    }
    config.volumes.extend(image.volumes.iter().cloned());
    if config.stop_signal.is_empty() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
    config.shell = config.shell.take().or_else(|| image.shell.clone());
    config.on_build = config.on_build.take().or_else(|| image.on_build.clone());
    config
}

fn merge_health(own: Option<HealthProbe>, image: Option<&HealthProbe>) -> Option<HealthProbe> {
    let Some(mut own) = own else { return image.cloned() };
    let Some(image) = image else { return Some(own) };
    if own.test.is_empty() {
        own.test.clone_from(&image.test);
    }
    let fill = |mine: &mut i64, theirs: i64| {
        if *mine == 0 {
            *mine = theirs;
        }
    };
    fill(&mut own.interval, image.interval);
    fill(&mut own.timeout, image.timeout);
    fill(&mut own.start_period, image.start_period);
    fill(&mut own.start_interval, image.start_interval);
    fill(&mut own.retries, image.retries);
    Some(own)
}

/// The first list with the second's variables replaced or appended.
fn merge_env(base: &[String], over: &[String]) -> Vec<String> {
    let key = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let taken: BTreeSet<String> = over.iter().map(|line| key(line)).collect();
    let inherited = base.iter().filter(|line| !taken.contains(&key(line)));
    over.iter().chain(inherited).cloned().collect()
}

/// Checks what needs nothing but the request itself.
///
/// # Errors
/// [`EngineError::Invalid`] with Docker's text.
pub(crate) fn validate(config: &Config, host: &HostConfig) -> Result<(), EngineError> {
    let fault = |text: String| Err(EngineError::Invalid(text));
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return fault(format!("the working directory '{}' is invalid, it needs to be an absolute path", config.working_dir));
    }
    for line in &config.env {
        if line.is_empty() || line.starts_with('=') {
            return fault(format!("invalid environment variable: {line}"));
        }
    }
    if !config.mac_address.is_empty() && !is_mac(&config.mac_address) {
        return fault(format!("invalid MAC address: {}", config.mac_address));
    }
    validate_restart(host)?;
    if let Some(probe) = &config.healthcheck {
        validate_health(probe)?;
    }
    for line in &host.extra_hosts {
        let Some((name, address)) = line.split_once([':', '=']) else { return fault(format!("bad format for add-host: \"{line}\"")) };
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() || (address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err()) {
            return fault(format!("invalid IP address in add-host: \"{address}\""));
        }
    }
    if host.shm_size < 0 {
        return fault("ShmSize can not be less than 0".into());
    }
    if host.annotations.contains_key("") {
        return fault("invalid Annotations: the empty string is not permitted as an annotation key".into());
    }
    Ok(())
}

fn validate_restart(host: &HostConfig) -> Result<(), EngineError> {
    let policy = host.restart_policy;
    if policy.maximum_retry_count > 0 && policy.name != RestartPolicyName::OnFailure {
        return Err(EngineError::Invalid(format!(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'{}",
            if policy.name == RestartPolicyName::No { " and cannot be used with 'no'" } else { "" }
        )));
    }
    if host.auto_remove && policy.name != RestartPolicyName::No {
        return Err(EngineError::Invalid("can't create 'AutoRemove' container with restart policy".into()));
    }
    Ok(())
}

fn validate_health(probe: &HealthProbe) -> Result<(), EngineError> {
    const MILLISECOND: i64 = 1_000_000;
    let fields = [
        ("Interval", probe.interval),
        ("Timeout", probe.timeout),
        ("StartPeriod", probe.start_period),
        ("StartInterval", probe.start_interval),
    ];
    for (name, value) in fields {
        if value != 0 && value < MILLISECOND {
            return Err(EngineError::Invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if probe.retries < 0 {
        return Err(EngineError::Invalid("Retries in Healthcheck cannot be negative".into()));
    }
    Ok(())
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn an_image_fills_what_the_request_left_open() {
        let image =
            Config { cmd: words(&["sh"]), env: vec!["PATH=/bin".into(), "A=image".into()], user: "user".into(), ..Config::default() };
        let merged = merge(Config { env: vec!["A=mine".into()], ..Config::default() }, &image);
        assert_eq!((merged.cmd, merged.env, merged.user.as_str()), (words(&["sh"]), vec!["A=mine".to_owned(), "PATH=/bin".into()], "user"));
    }

    #[test]
    fn an_own_entry_point_drops_the_images_arguments() {
        let image = Config { cmd: words(&["-c"]), entrypoint: words(&["sh"]), ..Config::default() };
        let own = merge(Config { entrypoint: words(&["echo"]), ..Config::default() }, &image);
        assert_eq!((own.entrypoint, own.cmd), (words(&["echo"]), None));
        let none = merge(Config { entrypoint: words(&[""]), cmd: words(&["ls"]), ..Config::default() }, &image);
        assert_eq!((none.entrypoint, none.cmd), (None, words(&["ls"])));
        let args = merge(Config { cmd: words(&["x"]), ..Config::default() }, &image);
        assert_eq!((args.entrypoint, args.cmd), (words(&["sh"]), words(&["x"])));
    }

    #[test]
    fn wrong_requests_get_dockers_words() {
        let text = |config: Config, host: HostConfig| validate(&config, &host).unwrap_err().to_string();
        let config = Config { working_dir: "x".into(), ..Config::default() };
        assert_eq!(text(config, HostConfig::default()), "the working directory 'x' is invalid, it needs to be an absolute path");
        let host = HostConfig { extra_hosts: vec!["a:b".into()], ..HostConfig::default() };
        assert_eq!(text(Config::default(), host), "invalid IP address in add-host: \"b\"");
        let host = HostConfig { annotations: [(String::new(), "x".to_owned())].into(), ..HostConfig::default() };
        assert!(text(Config::default(), host).starts_with("invalid Annotations: the empty string"));
    }

    #[test]
    fn a_working_directory_is_kept_without_dots_and_doubled_slashes() {
        let kept = |words: &str| merge(Config { working_dir: words.into(), ..Config::default() }, &Config::default()).working_dir;
        assert_eq!((kept("/srv/"), kept("/a/./b//../c"), kept("/")), ("/srv".to_owned(), "/a/c".to_owned(), "/".to_owned()));
    }
}
