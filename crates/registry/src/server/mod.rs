//! The running server: opens everything, listens, looks after what changes by itself, stops in order.

mod connection;
mod log;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sampan_base::ErrorKind;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::Registry;
use crate::auth::{Anonymous, Auth};
use crate::cache::Cache;
use crate::metrics::Metrics;
use crate::store::{OpenError, Store, now};

pub use tls::TlsChoice;

/// How often the server looks whether users have changed.
const LOOK: Duration = Duration::from_millis(100);
/// How long requests under way may take after the server was told to stop.
const GRACE: Duration = Duration::from_secs(30);

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Where everything is kept.
    pub data_root: PathBuf,
    /// Where to listen; port 0: any.
    pub listen: SocketAddr,
    /// Certificates.
    pub tls: TlsChoice,
    /// What those may do who do not say who they are.
    pub anonymous: Anonymous,
    /// Largest blob, bytes.
    pub max_blob: u64,
    /// How often unused blobs are removed; zero: never.
    pub collect_every: Duration,
    /// Where requests are logged; `None`: standard output.
    pub access_log: Option<PathBuf>,
}

/// What a server that answers is.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether clients speak TLS to it.
    pub is_tls: bool,
    /// The authority that clients must trust, if it was made here.
    pub authority: Option<PathBuf>,
    /// Names in the certificate that was made here.
    pub names: Vec<String>,
    /// How many users there are.
    pub users: usize,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data root cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The certificates cannot be used.
    #[error("{0}")]
    Tls(String),
    /// The address cannot be had.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The machine refused.
    #[error("{action}")]
    Io {
        /// What was attempted.
        action: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] sampan_durable::DbError),
}

impl sampan_base::Failure for ServeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Open(error) => error.kind(),
            Self::Tls(_) | Self::Listen { .. } => ErrorKind::Invalid,
            Self::Io { .. } | Self::Db(_) => ErrorKind::Internal,
        }
    }
}

pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServeError {
    let action = action.into();
    move |source| ServeError::Io { action, source }
}

/// Serves until SIGTERM or SIGINT; `ready` is told when clients may come.
///
/// # Errors
/// [`ServeError`] when it cannot begin.
pub fn run(config: &ServeConfig, ready: impl FnOnce(&Ready)) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(64).enable_all().build();
    let runtime = runtime.map_err(io("start the runtime"))?;
    let result = runtime.block_on(serve(config, ready));
    runtime.shutdown_background();
    result
}

async fn serve(config: &ServeConfig, ready: impl FnOnce(&Ready)) -> Result<(), ServeError> {
    let store = Arc::new(Store::open(&config.data_root)?);
    let auth = Auth::open(&config.data_root, config.anonymous).map_err(io("open the key that signs tokens"))?;
    let certificates = tls::Certificates::open(&config.tls, &config.data_root, config.listen)?;
    let log = Arc::new(log::Log::open(config.access_log.as_deref()).map_err(io("open the access log"))?);
    let users = store.meta.users()?.len();
    let registry = Arc::new(Registry {
        store,
        auth,
        cache: Cache::default(),
        metrics: Metrics::new(),
        max_blob: config.max_blob,
        is_tls: certificates.is_some(),
        is_open: AtomicBool::new(config.anonymous == Anonymous::Push && users == 0),
    });
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.map_err(|source| ServeError::Listen { address: config.listen, source })?;
    let address = listener.local_addr().map_err(io("ask for the address"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io("watch for signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("watch for signals"))?;
    ready(&Ready {
        address,
        is_tls: registry.is_tls,
        authority: certificates.as_ref().and_then(|certificates| certificates.authority()),
        names: certificates.as_ref().map(|certificates| certificates.names()).unwrap_or_default(),
        users,
    });
    let watching = tokio::spawn(watch_users(Arc::clone(&registry), config.anonymous));
    let collecting = tokio::spawn(collect(Arc::clone(&registry), config.collect_every));
    let renewing = certificates.clone().map(|certificates| tokio::spawn(certificates.look_after()));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let accepting = tokio::spawn(connection::accept(listener, Arc::clone(&registry), certificates, log, stopped, GRACE));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _nobody_listens = stop.send(true);
    drop(accepting.await);
    watching.abort();
    collecting.abort();
    if let Some(renewing) = renewing {
        renewing.abort();
    }
    Ok(())
}

/// Notices what the commands that change users did.
async fn watch_users(registry: Arc<Registry>, anonymous: Anonymous) {
    let mut known = None;
    loop {
        tokio::time::sleep(LOOK).await;
        match registry.store.meta.version() {
            Ok(version) if known != Some(version) => {
                if known.replace(version).is_some() {
                    registry.auth.forget();
                    let users = registry.store.meta.users().map_or(1, |users| users.len());
                    registry.is_open.store(anonymous == Anonymous::Push && users == 0, Ordering::Relaxed);
                }
            }
            Ok(_) => {}
            Err(error) => tracing::error!("cannot look for changed users: {error}"),
        }
    }
}

/// Removes what nobody needs, now and then.
async fn collect(registry: Arc<Registry>, every: Duration) {
    if every.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(every).await;
        let working = Arc::clone(&registry);
        let done = tokio::task::spawn_blocking(move || {
            working.store.uploads.sweep(Duration::from_secs(24 * 3600));
            working.store.collect(now())
        });
        match done.await {
            Ok(Ok((0, _))) => {}
            Ok(Ok((count, bytes))) => {
                registry.metrics.collected.inc_by(bytes);
                tracing::info!("removed {count} unused blobs of {bytes} bytes");
            }
            Ok(Err(error)) => tracing::error!("cannot remove unused blobs: {error}"),
            Err(error) => tracing::error!("cannot remove unused blobs: {error}"),
        }
    }
}
