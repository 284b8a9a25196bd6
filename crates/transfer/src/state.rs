//! What all clones of a client share: connections, tokens, what is known of each registry. All of it can be forgotten at any time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{NoProxy, Proxy};
use rustls::RootCertStore;

use crate::challenge::Challenge;
use crate::endpoint::{self, Endpoint, Insecure};
use crate::resolve::{self, Resolver};
use crate::tls::{self, Certificates, Stamp};
use crate::token::Tokens;
use crate::{Config, TransferError, address};

/// How long it is believed what a registry said of itself.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long a name is looked up to learn whether it is insecure.
const LOOKUP: Duration = Duration::from_secs(5);
/// How many registries are remembered.
const ENTRIES: usize = 512;
/// Received bytes in flight for one HTTP/2 stream and for a whole connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// What a registry said to the first request.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// It answered, and wants this.
    Reached(Arc<Vec<Challenge>>),
    /// It could not be reached; others are asked first.
    Unreachable,
}

/// The shared state.
pub(crate) struct State {
    pub(crate) handle: tokio::runtime::Handle,
    pub(crate) config: Config,
    pub(crate) tokens: Tokens,
    insecure: Insecure,
    mirrors: Vec<Endpoint>,
    proxies: Vec<Proxy>,
    roots: OnceLock<RootCertStore>,
    clients: Mutex<HashMap<(String, bool), (Stamp, reqwest::Client)>>,
    known: Mutex<HashMap<String, (Instant, Known)>>,
    verdicts: Mutex<HashMap<String, (Instant, bool)>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("config", &self.config).finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes room in a cache before something is added.
pub(crate) fn bound<K: Eq + Hash, V>(map: &mut HashMap<K, V>, keep: impl Fn(&V) -> bool) {
    if map.len() >= ENTRIES {
        map.retain(|_, value| keep(value));
        if map.len() >= ENTRIES {
            map.clear();
        }
    }
}

impl State {
    pub(crate) fn new(handle: tokio::runtime::Handle, mut config: Config) -> Result<Self, TransferError> {
        if config.user_agent.is_empty() {
            config.user_agent = format!("sampan/{}", env!("CARGO_PKG_VERSION"));
        }
        let insecure = Insecure::parse(&config.insecure)?;
        let mirrors = endpoint::mirrors(&config, &insecure)?;
        let proxies = proxies(&config)?;
        Ok(Self {
            handle,
            config,
            tokens: Tokens::default(),
            insecure,
            mirrors,
            proxies,
            roots: OnceLock::new(),
            clients: Mutex::default(),
            known: Mutex::default(),
            verdicts: Mutex::default(),
        })
    }

    /// The addresses of a registry. A name that leads to this machine or into a listed network needs no certificate, as in Docker.
    pub(crate) async fn endpoints(&self, domain: &str, with_mirrors: bool) -> Result<Vec<Endpoint>, TransferError> {
        let mirrors = if with_mirrors { self.mirrors.as_slice() } else { &[] };
        let insecure = domain != "docker.io" && endpoint::is_host(domain) && self.is_insecure(domain).await;
        endpoint::plan(domain, mirrors, insecure)
    }

    async fn is_insecure(&self, domain: &str) -> bool {
        if self.insecure.names(domain) {
            return true;
        }
        let name = address::split_host(domain).0;
        if let Ok(address) = name.parse() {
            return self.insecure.covers([address]);
        }
        // Behind a proxy, names are the proxy's business.
        if self.config.proxies.https.is_some() && !self.insecure.has_networks() {
            return false;
        }
        if let Some((at, verdict)) = lock(&self.verdicts).get(name)
            && at.elapsed() < KNOWN_FOR
        {
            return *verdict;
        }
        let verdict = match tokio::time::timeout(LOOKUP, resolve::lookup(name)).await {
            Ok(Ok(addresses)) => self.insecure.covers(addresses.into_iter().map(|address| address.ip())),
            // Who cannot be found cannot be asked either; that is told by the request.
            _ => return false,
        };
        let mut verdicts = lock(&self.verdicts);
        bound(&mut verdicts, |(at, _)| at.elapsed() < KNOWN_FOR);
        verdicts.insert(name.to_owned(), (Instant::now(), verdict));
        verdict
    }

    /// The HTTP client of an endpoint: one for each registry, as each may have certificates of its own.
    pub(crate) fn http(&self, endpoint: &Endpoint) -> Result<reqwest::Client, TransferError> {
        let folder = tls::folder(&self.config.certs_dirs, &endpoint.host);
        let stamp = tls::stamp(folder.as_deref());
        let key = (endpoint.base.origin().ascii_serialization(), endpoint.insecure);
        if let Some((seen, client)) = lock(&self.clients).get(&key)
            && *seen == stamp
        {
            return Ok(client.clone());
        }
        let certificates = Certificates::load(&stamp)?;
        let roots = self.roots.get_or_init(tls::system_roots);
        let tls = tls::configure(roots, certificates, endpoint.insecure)?;
        let client = self.build(tls, address::split_host(&endpoint.host).0)?;
        let mut clients = lock(&self.clients);
        bound(&mut clients, |_| false);
        clients.insert(key, (stamp, client.clone()));
        Ok(client)
    }

    /// The HTTP client of a file's server: the system's certificates, and none of ours.
    pub(crate) fn plain(&self, host: &str) -> Result<reqwest::Client, TransferError> {
        let key = (format!("file {host}"), false);
        if let Some((_, client)) = lock(&self.clients).get(&key) {
            return Ok(client.clone());
        }
        let tls = tls::configure(self.roots.get_or_init(tls::system_roots), Certificates::default(), false)?;
        let client = self.build(tls, host)?;
        let mut clients = lock(&self.clients);
        bound(&mut clients, |_| false);
        clients.insert(key, (Stamp::default(), client.clone()));
        Ok(client)
    }

    fn build(&self, tls: rustls::ClientConfig, own: &str) -> Result<reqwest::Client, TransferError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.config.user_agent)
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .dns_resolver(Arc::new(Resolver::new(own)))
            .connect_timeout(self.config.timing.connect)
            .pool_idle_timeout(Duration::from_secs(90))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(Duration::from_secs(30))
            // Nothing but the configuration names proxies.
            .no_proxy();
        for proxy in &self.proxies {
            builder = builder.proxy(proxy.clone());
        }
        builder.build().map_err(|error| TransferError::Configuration(format!("http client: {error}")))
    }

    /// What was learned of an endpoint lately.
    pub(crate) fn known(&self, endpoint: &Endpoint) -> Option<Known> {
        let known = lock(&self.known);
        let (at, known) = known.get(endpoint.base.as_str())?;
        (at.elapsed() < KNOWN_FOR).then(|| known.clone())
    }

    /// Remembers what was learned of an endpoint; `None` forgets.
    pub(crate) fn learn(&self, endpoint: &Endpoint, news: Option<Known>) {
        let mut known = lock(&self.known);
        match news {
            None => drop(known.remove(endpoint.base.as_str())),
            Some(news) => {
                bound(&mut known, |(at, _)| at.elapsed() < KNOWN_FOR);
                known.insert(endpoint.base.as_str().to_owned(), (Instant::now(), news));
            }
        }
    }
}

fn proxies(config: &Config) -> Result<Vec<Proxy>, TransferError> {
    // Go never asks a proxy for this machine's own services.
    let listed = config.proxies.no_proxy.as_deref().unwrap_or_default();
    let direct = format!("localhost,127.0.0.0/8,::1,{listed}");
    let make = |proxy: &str, of: fn(String) -> reqwest::Result<Proxy>| {
        let address = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
        // The address may hold a password and is not told.
        of(address).map_err(|_| TransferError::Configuration("invalid proxy address".to_owned()))
    };
    let mut proxies = Vec::new();
    if let Some(proxy) = config.proxies.https.as_deref().filter(|proxy| !proxy.is_empty()) {
        proxies.push(make(proxy, Proxy::https)?.no_proxy(NoProxy::from_string(&direct)));
    }
    if let Some(proxy) = config.proxies.http.as_deref().filter(|proxy| !proxy.is_empty()) {
        proxies.push(make(proxy, Proxy::http)?.no_proxy(NoProxy::from_string(&direct)));
    }
    Ok(proxies)
}
