//! What the client is told: by the daemon's configuration once, by the user with each request. Plain data, no environment.

use std::path::PathBuf;
use std::time::Duration;

use sampan_base::Secret;

/// The configuration of a client.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The `User-Agent` of every request; `sampan/VERSION` where it is empty.
    pub user_agent: String,
    /// Mirrors of Docker Hub as URLs (`registry-mirrors`), asked in this order before the Hub itself.
    pub mirrors: Vec<String>,
    /// Registries (`HOST[:PORT]`) and networks (CIDR) that may be spoken to without a valid certificate or without TLS.
    /// Loopback is implied.
    pub insecure: Vec<String>,
    /// Folders in the manner of `/etc/docker/certs.d`; the first that knows a registry is used.
    pub certs_dirs: Vec<PathBuf>,
    /// The proxies.
    pub proxies: Proxies,
    /// How long things may take and how often they are tried.
    pub timing: Timing,
}

/// The proxies, as the environment variables of the same names give them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `HTTP_PROXY`: a URL, or `HOST:PORT`.
    pub http: Option<String>,
    /// `HTTPS_PROXY`.
    pub https: Option<String>,
    /// `NO_PROXY`: hosts, domains, addresses and networks that are asked directly.
    pub no_proxy: Option<String>,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The addresses may hold passwords.
        let hidden = |proxy: &Option<String>| proxy.as_ref().map(|_| "[redacted]");
        let mut shown = f.debug_struct("Proxies");
        shown.field("http", &hidden(&self.http)).field("https", &hidden(&self.https)).field("no_proxy", &self.no_proxy).finish()
    }
}

/// How long things may take and how often they are tried.
#[derive(Debug, Clone)]
pub struct Timing {
    /// For a connection with its TLS handshake, and for the first answer of a registry.
    pub connect: Duration,
    /// Without a byte in either direction; not for a whole transfer.
    pub stall: Duration,
    /// How often a request is tried in all.
    pub attempts: u32,
    /// How often the download of a blob is tried without progress.
    pub download_attempts: u32,
    /// The first pause between two tries; each further one is twice as long.
    pub pause: Duration,
    /// The longest pause, also where `Retry-After` asks for more.
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(60),
            attempts: 5,
            download_attempts: 5,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// Who asks. The default is nobody: an anonymous request.
#[derive(Debug, Clone)]
pub struct Login {
    /// The name; empty for an anonymous request.
    pub username: String,
    /// The password.
    pub password: Secret<String>,
    /// An OAuth2 refresh token, as `docker login` keeps it; used instead of name and password.
    pub identity_token: Option<Secret<String>>,
    /// A ready bearer token for the registry; used as it is.
    pub registry_token: Option<Secret<String>>,
}

impl Login {
    /// The refresh token, if there is one; clients send empty texts too.
    pub(crate) fn refresh(&self) -> Option<&Secret<String>> {
        self.identity_token.as_ref().filter(|token| !token.expose().is_empty())
    }

    /// The ready token, if there is one.
    pub(crate) fn ready(&self) -> Option<&Secret<String>> {
        self.registry_token.as_ref().filter(|token| !token.expose().is_empty())
    }
}

impl Default for Login {
    fn default() -> Self {
        Self { username: String::new(), password: Secret::new(String::new()), identity_token: None, registry_token: None }
    }
}
