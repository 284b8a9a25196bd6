//! The listener: connections, TLS, the jobs beside them, and the end.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::direct::{Direct, Window};
use super::patience::Patient;
use super::{Peer, Registry, blocking, chain, log, metrics};
use crate::auth::Auth;
use crate::config::{Config, Transport};
use crate::error::RegistryError;
use crate::store::Store;
use crate::tls::{Authority, Certificates, Source, TlsError, server_config};

/// How often users, certificates and the like are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A registry that could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data root.
    #[error("open the data root {}", path.display())]
    Root {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// A certificate.
    #[error("prepare TLS")]
    Tls(#[from] TlsError),
    /// The address.
    #[error("listen at {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The access log, the runtime.
    #[error("{action}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl sampan_base::Failure for ServeError {
    fn kind(&self) -> sampan_base::ErrorKind {
        sampan_base::ErrorKind::Internal
    }
}

/// What is known when a registry is ready.
#[derive(Debug, Clone)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether with TLS.
    pub tls: bool,
    /// The authority that was made here.
    pub authority: Option<PathBuf>,
    /// There are no users, and strangers may nothing.
    pub nobody_may: bool,
}

struct Secure {
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
    authority: Option<Authority>,
}

fn open_tls(config: &Config) -> Result<Option<Secure>, TlsError> {
    let (source, authority) = match &config.transport {
        Transport::Plain => return Ok(None),
        Transport::Files { certificate, key } => (Source { certificate: certificate.clone(), key: key.clone() }, None),
        Transport::Generated { names } => {
            let authority = Authority::open(&config.data_root, names)?;
            (authority.source(), Some(authority))
        }
    };
    let certificates = Arc::new(Certificates::open(source)?);
    let acceptor = TlsAcceptor::from(Arc::new(server_config(Arc::clone(&certificates))?));
    Ok(Some(Secure { acceptor, certificates, authority }))
}

fn open(config: &Config) -> Result<Arc<Registry>, ServeError> {
    let failed = |source| ServeError::Root { path: config.data_root.clone(), source };
    let store = Arc::new(Store::open(&config.data_root, config.lease).map_err(failed)?);
    let auth = Auth::open(&store, &config.data_root, config.strangers).map_err(failed)?;
    let log = log::Log::open(&config.access_log).map_err(|source| ServeError::Io { action: "open the access log", source })?;
    Ok(Arc::new(Registry { store, auth, config: config.clone(), metrics: Arc::new(metrics::Metrics::new()), log }))
}

/// Serves until told to stop: until `stop` is true. `ready` is called once, when clients are answered.
///
/// # Errors
/// [`ServeError`], before it is ready.
pub fn serve(config: &Config, stop: watch::Receiver<bool>, ready: impl FnOnce(&Running)) -> Result<(), ServeError> {
    let started = SystemTime::now();
    // The data root is made and locked first, so that a second server touches nothing.
    let registry = open(config)?;
    let secure = open_tls(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("registry").build();
    let runtime = runtime.map_err(|source| ServeError::Io { action: "start the runtime", source })?;
    let (address, listener) = runtime.block_on(async {
        let failed = |source| ServeError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        Ok::<_, ServeError>((listener.local_addr().map_err(failed)?, listener))
    })?;
    ready(&Running {
        address,
        tls: secure.is_some(),
        authority: secure.as_ref().and_then(|secure| secure.authority.as_ref()).map(Authority::certificate),
        nobody_may: registry.auth.users().is_empty() && config.strangers.is_none(),
    });
    let (acceptor, certificates, authority) =
        secure.map_or((None, None, None), |secure| (Some(secure.acceptor), Some(secure.certificates), secure.authority));
    runtime.spawn(look(Arc::clone(&registry), certificates, authority));
    runtime.spawn(sweep(Arc::clone(&registry), started));
    runtime.block_on(accept(Arc::clone(&registry), listener, acceptor, stop));
    runtime.shutdown_timeout(Duration::from_secs(5));
    registry.log.close();
    Ok(())
}

/// Notices users and certificates that changed.
async fn look(registry: Arc<Registry>, certificates: Option<Arc<Certificates>>, authority: Option<Authority>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count: u64 = 0;
    loop {
        ticks.tick().await;
        count += 1;
        blocking(|| {
            if let Err(error) = registry.auth.users().refresh(registry.store.reader()) {
                tracing::error!("look for changes of users: {}", chain(&error));
            }
            // A certificate nears its end slowly.
            if count.is_multiple_of(18_000)
                && let Some(authority) = &authority
                && let Err(error) = authority.renew()
            {
                tracing::error!("renew the certificate: {}", chain(&error));
            }
            if count.is_multiple_of(5)
                && let Some(certificates) = &certificates
            {
                match certificates.refresh() {
                    Ok(true) => tracing::info!("took the certificate that changed"),
                    Ok(false) => {}
                    Err(error) => tracing::error!("the old certificate stays: {}", chain(&error)),
                }
            }
        });
    }
}

/// Removes what nobody needs.
async fn sweep(registry: Arc<Registry>, started: SystemTime) {
    let store = Arc::clone(&registry.store);
    let swept = tokio::task::spawn_blocking(move || store.sweep_files(started)).await;
    match swept {
        Ok(Ok(0)) | Err(_) => {}
        Ok(Ok(count)) => tracing::info!("removed {count} files that an earlier end had left"),
        Ok(Err(error)) => tracing::error!("look for files without rows: {}", chain(&error)),
    }
    let mut ticks = tokio::time::interval(registry.config.sweep);
    loop {
        ticks.tick().await;
        let store = Arc::clone(&registry.store);
        match tokio::task::spawn_blocking(move || store.sweep()).await {
            Ok(Ok(swept)) => {
                registry.metrics.swept(swept);
                if swept.blobs + swept.uploads > 0 {
                    tracing::info!("removed {} blobs of {} bytes and {} uploads", swept.blobs, swept.bytes, swept.uploads);
                }
            }
            Ok(Err(error)) => tracing::error!("sweep: {}", chain(&error)),
            Err(_) => {}
        }
    }
}

/// Connections of each address.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A connection that counts while it lives.
struct Counted {
    counts: Counts,
    address: IpAddr,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Congestion control: the machine's own for peers elsewhere, none that paces for those on this machine.
///
/// A pacing control such as BBR arms a timer for every 64 KiB; over loopback, where nothing can be congested, that is most of what a
/// large answer costs. A connection that was paced once stays so whatever control it gets later (Linux 6.18, `sk_pacing_status`):
/// so the listener hands out unpaced ones, and those from elsewhere are given the machine's control before their first answer.
#[derive(Debug, Clone, Default)]
struct Congestion {
    /// The machine's, if the listener has another.
    elsewhere: Option<Arc<str>>,
}

impl Congestion {
    /// The control that every kernel has and every process may choose.
    const UNPACED: &str = "reno";

    /// Takes pacing from a listener. A machine that allows no choice keeps its control for all.
    fn of(listener: &TcpListener) -> Self {
        let machines = sockopt::tcp_congestion(listener).ok().filter(|name| !matches!(name.as_str(), "reno" | "cubic"));
        let elsewhere = machines.filter(|_| sockopt::set_tcp_congestion(listener, Self::UNPACED).is_ok());
        Self { elsewhere: elsewhere.map(Arc::from) }
    }

    /// Gives a connection that was accepted what fits its peer.
    fn choose(&self, stream: &TcpStream, peer: IpAddr) {
        if let Some(machines) = self.elsewhere.as_deref().filter(|_| !peer.is_loopback())
            && let Err(error) = sockopt::set_tcp_congestion(stream, machines)
        {
            tracing::debug!("congestion control {machines:?} for {peer}: {error}");
        }
    }
}

async fn accept(registry: Arc<Registry>, listener: TcpListener, acceptor: Option<TlsAcceptor>, mut stop: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(registry.config.limits.connections));
    let counts = Counts::default();
    let congestion = Congestion::of(&listener);
    loop {
        let permit = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            permit = Arc::clone(&connections).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files: others must end first.
                tracing::warn!("accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let address = peer.ip().to_canonical();
        {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_insert(0);
            if *count >= registry.config.limits.connections_per_address {
                continue;
            }
            *count += 1;
        }
        congestion.choose(&stream, address);
        let counted = Counted { counts: Arc::clone(&counts), address, _permit: permit };
        let (registry, acceptor, watcher) = (Arc::clone(&registry), acceptor.clone(), graceful.watcher());
        tokio::spawn(async move {
            connection(registry, stream, address, acceptor, watcher).await;
            drop(counted);
        });
    }
    drop(listener);
    if tokio::time::timeout(registry.config.limits.stop, graceful.shutdown()).await.is_err() {
        tracing::warn!("stopped with requests that had not ended in time");
    }
}

async fn connection(registry: Arc<Registry>, stream: TcpStream, address: IpAddr, acceptor: Option<TlsAcceptor>, watcher: Watcher) {
    drop(stream.set_nodelay(true));
    let (idle, head) = (registry.config.limits.idle, registry.config.limits.head);
    let window = acceptor.is_none().then(Window::default);
    let peer = Peer { address, tls: acceptor.is_some(), log: registry.log.sender(), window: window.clone() };
    match acceptor {
        None => {
            let direct = Direct::new(stream, window.unwrap_or_default());
            serve_stream(registry, Patient::new(direct, idle, head), peer, watcher).await;
        }
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => serve_stream(registry, Patient::new(stream, idle, head), peer, watcher).await,
            Ok(Err(error)) => tracing::debug!("handshake with {address}: {error}"),
            Err(_) => tracing::debug!("handshake with {address} took too long"),
        },
    }
}

async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    registry: Arc<Registry>,
    stream: S,
    peer: Peer,
    watcher: Watcher,
) {
    let limits = &registry.config.limits;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(100)
        // The largest head; also what is read of a body at once.
        .max_buf_size(400 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(64 << 10)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(limits.idle)
        .keep_alive_timeout(limits.idle);
    let service = service_fn(move |request| {
        let (registry, peer) = (Arc::clone(&registry), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(registry.handle(request, peer).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!("connection: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the machine's control is, it is not lost for peers elsewhere, and never paces those on this machine.
    #[tokio::test]
    async fn peers_on_this_machine_are_not_paced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let machines = sockopt::tcp_congestion(&listener).unwrap();
        let congestion = Congestion::of(&listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        congestion.choose(&stream, peer.ip());
        let here = sockopt::tcp_congestion(&stream).unwrap();
        assert!(here == "reno" || here == "cubic", "{here}");
        congestion.choose(&stream, "192.0.2.1".parse().unwrap());
        assert_eq!(sockopt::tcp_congestion(&stream).unwrap(), machines);
    }
}
