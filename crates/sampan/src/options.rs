//! The daemon's options: flags over the configuration file over defaults. Pure but for the reading of the file.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use sampan_gotext::flags::{self, Flag, Kind};
use serde_json::Value;

/// How the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// State that lasts.
    pub(crate) data_root: PathBuf,
    /// State of this boot.
    pub(crate) exec_root: PathBuf,
    /// Where the process id is written.
    pub(crate) pidfile: PathBuf,
    /// `unix://…`; empty: the default.
    pub(crate) hosts: Vec<String>,
    /// Group of the socket.
    pub(crate) group: String,
    /// `debug`, `info`, `warn`, `error`, `fatal`.
    pub(crate) log_level: String,
    /// Containers outlive the daemon.
    pub(crate) live_restore: bool,
    /// Parent of all cgroups.
    pub(crate) cgroup_parent: String,
    /// Bridge of the default network; `none`: no such network.
    pub(crate) bridge: String,
    /// Its address with prefix.
    pub(crate) bip: String,
    /// Packet size.
    pub(crate) mtu: u32,
    /// A small init for every container.
    pub(crate) init: bool,
    /// URLs of mirrors of Docker Hub.
    pub(crate) registry_mirrors: Vec<String>,
    /// Registries without TLS: names with ports, or networks as CIDR.
    pub(crate) insecure_registries: Vec<String>,
    /// Layers that are fetched at once; without it, by the number of processors.
    pub(crate) max_concurrent_downloads: Option<NonZeroUsize>,
    /// Layers that are sent at once.
    pub(crate) max_concurrent_uploads: Option<NonZeroUsize>,
    /// How often a layer is tried without progress.
    pub(crate) max_download_attempts: Option<NonZeroUsize>,
    /// A command line started it and waits for it: it leaves the session and says when it is ready.
    pub(crate) started_by_client: bool,
}

const TLS: &str = "TCP with TLS comes later";

/// The daemon's flags: dockerd's names.
pub(crate) const FLAGS: &[Flag] = &[
    Flag::new("bip", Kind::Text, "Address of the bridge, as CIDR"),
    Flag::new("bridge", Kind::Text, "Bridge of the default network; \"none\" for no such network").short('b'),
    Flag::new("cgroup-parent", Kind::Text, "Parent of the containers' cgroups"),
    Flag::new("config-file", Kind::Text, "Configuration file (default: /etc/sampan/daemon.json; as dockerd /etc/docker/daemon.json)"),
    Flag::new("data-root", Kind::Text, "Folder of all lasting state (default: /var/lib/sampan)"),
    Flag::new("debug", Kind::Bool, "Log more").short('D'),
    Flag::new("exec-root", Kind::Text, "Folder of the state of this boot (default: /run/sampan)"),
    Flag::new("group", Kind::Text, "Group of the socket").short('G'),
    Flag::new("host", Kind::List, "Where to listen: unix://PATH (default: sampan.sock in the exec root)").short('H'),
    Flag::new("init", Kind::Bool, "Run a small init in every container"),
    Flag::new("insecure-registry", Kind::List, "Registry that needs no TLS: a name with its port, or a network"),
    Flag::new("live-restore", Kind::Bool, "Containers outlive the engine (default: true; as dockerd false)"),
    Flag::new("log-level", Kind::Text, "How much is logged: debug, info, warn, error or fatal (default: info)").short('l'),
    Flag::new("max-concurrent-downloads", Kind::Int, "Layers that are fetched at once (default: by the number of processors)"),
    Flag::new("max-concurrent-uploads", Kind::Int, "Layers that are sent at once (default: 5)"),
    Flag::new("max-download-attempts", Kind::Int, "How often a layer's download is tried (default: 5)"),
    Flag::new("mtu", Kind::Int, "Packet size of the default network (default: 1500)"),
    Flag::new("pidfile", Kind::Text, "File of the process id (default: sampan.pid in the exec root)").short('p'),
    Flag::new("registry-mirror", Kind::List, "Registry that is asked before Docker Hub"),
    Flag::new("started-by-client", Kind::Bool, "Leave the session, and say when ready").hidden(),
    Flag::new("tls", Kind::Bool, "Use TLS").later(TLS),
    Flag::new("tlscacert", Kind::Text, "Trust only certificates signed by this authority").later(TLS),
    Flag::new("tlscert", Kind::Text, "Certificate of the engine").later(TLS),
    Flag::new("tlskey", Kind::Text, "Key of the engine's certificate").later(TLS),
    Flag::new("tlsverify", Kind::Bool, "Use TLS and check the clients' certificates").later(TLS),
];

impl Options {
    /// Reads flags; as `dockerd` the defaults are dockerd's.
    pub(crate) fn parse(words: &[String], as_dockerd: bool) -> anyhow::Result<Self> {
        let given = flags::parse(&[FLAGS], words, true).map_err(|error| anyhow::anyhow!("{error}\nSee 'sampan daemon --help'."))?;
        if let Some(word) = given.words.first() {
            bail!("unknown argument: {word}\nSee 'sampan daemon --help'.");
        }
        let name = if as_dockerd { "docker" } else { "sampan" };
        let mut options = Self {
            data_root: "/var/lib/sampan".into(),
            exec_root: "/run/sampan".into(),
            pidfile: PathBuf::new(),
            hosts: Vec::new(),
            group: if as_dockerd { "docker".into() } else { String::new() },
            log_level: "info".into(),
            live_restore: !as_dockerd,
            cgroup_parent: format!("/{name}"),
            bridge: String::new(),
            bip: String::new(),
            mtu: 1500,
            init: false,
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            max_concurrent_downloads: None,
            max_concurrent_uploads: None,
            max_download_attempts: None,
            started_by_client: false,
        };
        let file = if given.given("config-file") { given.text("config-file").to_owned() } else { format!("/etc/{name}/daemon.json") };
        options.read_file(&file, given.given("config-file"))?;
        for name in given.names() {
            for value in given.list(name) {
                options.set(name, value)?;
            }
        }
        if options.pidfile.as_os_str().is_empty() {
            options.pidfile = options.exec_root.join("sampan.pid");
        }
        if options.hosts.is_empty() {
            let default = if as_dockerd { PathBuf::from("/var/run/docker.sock") } else { options.exec_root.join("sampan.sock") };
            options.hosts.push(format!("unix://{}", default.display()));
        }
        Ok(options)
    }

    fn read_file(&mut self, path: &str, must_exist: bool) -> anyhow::Result<()> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("unable to configure the daemon with file {path}")),
        };
        let value: Value = serde_json::from_str(&text).with_context(|| format!("unable to configure the daemon with file {path}"))?;
        for (key, value) in value.as_object().with_context(|| format!("{path} holds no JSON object"))? {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Array(list) => {
                    for item in list {
                        self.set(singular(key), item.as_str().unwrap_or_default()).with_context(|| format!("in {path}"))?;
                    }
                    continue;
                }
                other => other.to_string(),
            };
            self.set(key, &text).with_context(|| format!("in {path}"))?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        let truth = || match flags::truth(value) {
            Ok(truth) => Ok(truth == "true"),
            Err(error) => bail!("invalid argument \"{value}\" for \"--{key}\" flag: {error}"),
        };
        match key {
            "data-root" => self.data_root = value.into(),
            "exec-root" => self.exec_root = value.into(),
            "pidfile" => self.pidfile = value.into(),
            "host" => self.hosts.push(value.to_owned()),
            "group" => value.clone_into(&mut self.group),
            "log-level" => {
                if !["debug", "info", "warn", "error", "fatal"].contains(&value) {
                    bail!("invalid logging level: {value}");
                }
                value.clone_into(&mut self.log_level);
            }
            "debug" => {
                if truth()? {
                    self.log_level = "debug".into();
                }
            }
            "live-restore" => self.live_restore = truth()?,
            "init" => self.init = truth()?,
            "started-by-client" => self.started_by_client = truth()?,
            "cgroup-parent" => value.clone_into(&mut self.cgroup_parent),
            "bridge" => value.clone_into(&mut self.bridge),
            "bip" => value.clone_into(&mut self.bip),
            "mtu" => self.mtu = value.parse().with_context(|| format!("invalid argument \"{value}\" for \"--mtu\" flag"))?,
            "max-concurrent-downloads" => self.max_concurrent_downloads = count(key, value)?,
            "max-concurrent-uploads" => self.max_concurrent_uploads = count(key, value)?,
            "max-download-attempts" => self.max_download_attempts = count(key, value)?,
            "registry-mirror" => self.registry_mirrors.push(mirror(value)?),
            "insecure-registry" => self.insecure_registries.push(insecure(value)?),
            "config-file" => {}
            other if FLAGS.iter().any(|flag| flag.name == other && flag.later.is_some()) => bail!("not supported: --{other} ({TLS})"),
            other => bail!("the following directives don't match any configuration option: {other}"),
        }
        Ok(())
    }
}

/// Lists have plural keys in the file.
fn singular(key: &str) -> &str {
    if key == "insecure-registries" { "insecure-registry" } else { key.trim_end_matches('s') }
}

/// A number of which zero means the default.
fn count(key: &str, value: &str) -> anyhow::Result<Option<NonZeroUsize>> {
    let number: i64 = value.parse().with_context(|| format!("invalid argument \"{value}\" for \"--{key}\" flag"))?;
    match usize::try_from(number) {
        Ok(number) => Ok(NonZeroUsize::new(number.min(1024))),
        Err(_) => bail!("invalid {}: {number}", key.replace('-', " ")),
    }
}

/// A mirror is a URL without a path; Docker ends it with a slash.
fn mirror(value: &str) -> anyhow::Result<String> {
    let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
    let Some(rest) = rest else {
        bail!("invalid mirror: \"{value}\" is not a valid registry mirror: unsupported scheme, use http:// or https://")
    };
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@']) {
        bail!("invalid mirror: \"{value}\" is not a valid registry mirror: path, query, or fragment at end of the URI");
    }
    Ok(format!("{}/", value.trim_end_matches('/')))
}

/// A registry without TLS is a name with an optional port, or a network.
fn insecure(value: &str) -> anyhow::Result<String> {
    let name = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://")).unwrap_or(value).trim_end_matches('/');
    let network = name.parse::<ipnet::IpNet>().is_ok();
    let plain = !name.is_empty()
        && !name.starts_with('-')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | ':' | '[' | ']' | '_'));
    if !network && !plain {
        bail!("insecure registry {value} is not valid: invalid host \"{name}\"");
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Options::parse(&words, false).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("daemon.json");
        std::fs::write(&file, r#"{"hosts":["unix:///x.sock"],"live-restore":false,"mtu":1400,"debug":true}"#).unwrap();
        let path = file.display().to_string();
        let options = parse(&["--config-file", &path, "--mtu=1300", "-H", "unix:///y.sock"]).unwrap();
        assert_eq!((options.mtu, options.live_restore, options.log_level.as_str()), (1300, false, "debug"));
        assert_eq!(options.hosts, ["unix:///x.sock", "unix:///y.sock"]);
        std::fs::write(&file, r#"{"nosuch":1}"#).unwrap();
        assert!(
            parse(&["--config-file", &path]).unwrap_err().contains("the following directives don't match any configuration option: nosuch")
        );
    }

    #[test]
    fn registries_are_kept() {
        let options =
            parse(&["--registry-mirror", "http://mirror:5000", "--insecure-registry=10.0.0.0/8", "--insecure-registry", "shop:5000"])
                .unwrap();
        assert_eq!(options.registry_mirrors, ["http://mirror:5000/"]);
        assert_eq!(options.insecure_registries, ["10.0.0.0/8", "shop:5000"]);
    }

    #[test]
    fn transfers_have_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("daemon.json");
        std::fs::write(&file, r#"{"max-concurrent-downloads":2,"max-concurrent-uploads":0,"max-download-attempts":7}"#).unwrap();
        let options = parse(&["--config-file", &file.display().to_string(), "--max-concurrent-downloads=3"]).unwrap();
        let numbers = [options.max_concurrent_downloads, options.max_concurrent_uploads, options.max_download_attempts];
        assert_eq!(numbers.map(|number| number.map_or(0, NonZeroUsize::get)), [3, 0, 7]);
        for (flag, wanted) in [
            ("--max-concurrent-downloads=-1", "invalid max concurrent downloads: -1"),
            ("--max-concurrent-uploads=-2", "invalid max concurrent uploads: -2"),
            ("--max-download-attempts=-1", "invalid max download attempts: -1"),
        ] {
            assert_eq!(parse(&[flag]).unwrap_err(), wanted);
        }
        assert!(parse(&["--max-download-attempts=x"]).is_err());
    }

    #[test]
    fn bad_flags_are_named() {
        assert!(parse(&["--nosuch"]).unwrap_err().starts_with("unknown flag: --nosuch"));
        assert!(parse(&["--data-root"]).unwrap_err().starts_with("flag needs an argument: --data-root\n"));
        assert!(parse(&["nosuch"]).unwrap_err().starts_with("unknown argument: nosuch\n"));
        assert!(parse(&["--log-level", "loud"]).unwrap_err().contains("invalid logging level: loud"));
        assert!(parse(&["--registry-mirror", "nosuch"]).is_err() && parse(&["--insecure-registry", "a/b"]).is_err());
        assert!(parse(&["--tls"]).is_err() && parse(&["--live-restore=maybe"]).is_err());
    }
}
