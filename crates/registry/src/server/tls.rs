//! Certificates: given as files, or made here under an authority of our own. Both are read again when they change.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::{ServeError, io};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Days that a certificate made here is good; clients refuse longer ones.
const LEAF_DAYS: i64 = 397;
/// Days before its end at which it is made again.
const RENEW_DAYS: i64 = 30;
/// Days that an authority made here is good.
const AUTHORITY_DAYS: i64 = 3652;

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsChoice {
    /// No TLS.
    Off,
    /// PEM files: a chain and a key.
    Files {
        /// The chain, the server's certificate first.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Made here, in `tls/` of the data root; names beyond the machine's own.
    Generate {
        /// Names and addresses.
        names: Vec<String>,
    },
}

/// The certificates of a server.
#[derive(Debug)]
pub(crate) struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    made: Option<Made>,
    current: RwLock<(Arc<ServerConfig>, Option<SystemTime>)>,
}

/// What makes certificates here.
#[derive(Debug, Clone)]
struct Made {
    folder: PathBuf,
    names: Vec<String>,
}

impl Certificates {
    /// Reads or makes what was chosen; `None` for no TLS.
    pub(crate) fn open(choice: &TlsChoice, root: &Path, listen: SocketAddr) -> Result<Option<Arc<Self>>, ServeError> {
        let (certificate, key, made) = match choice {
            TlsChoice::Off => return Ok(None),
            TlsChoice::Files { certificate, key } => (certificate.clone(), key.clone(), None),
            TlsChoice::Generate { names } => {
                let made = Made { folder: root.join("tls"), names: all_names(names, listen) };
                made.ensure()?;
                (made.folder.join("server.crt"), made.folder.join("server.key"), Some(made))
            }
        };
        let config = load(&certificate, &key)?;
        let changed = modified(&certificate, &key);
        Ok(Some(Arc::new(Self { certificate, key, made, current: RwLock::new((config, changed)) })))
    }

    /// The authority that was made here.
    pub(crate) fn authority(&self) -> Option<PathBuf> {
        self.made.as_ref().map(|made| made.folder.join("ca.crt"))
    }

    /// The names in the certificate that was made here.
    pub(crate) fn names(&self) -> Vec<String> {
        self.made.as_ref().map(|made| made.names.clone()).unwrap_or_default()
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).0))
    }

    /// Renews what was made here, and reads files again when they change; a bad pair leaves the old one in use.
    pub(crate) async fn look_after(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(made) = &self.made
                && let Err(error) = made.ensure()
            {
                tracing::error!("cannot renew the certificate: {error}");
            }
            let changed = modified(&self.certificate, &self.key);
            if changed == self.current.read().unwrap_or_else(PoisonError::into_inner).1 {
                continue;
            }
            match load(&self.certificate, &self.key) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = (config, changed);
                    tracing::info!("read the certificate again");
                }
                Err(error) => tracing::error!("the old certificate stays in use: {error}"),
            }
        }
    }
}

fn modified(certificate: &Path, key: &Path) -> Option<SystemTime> {
    let time = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    time(certificate).max(time(key))
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, ServeError> {
    let bad = |path: &Path, error: &dyn std::fmt::Display| ServeError::Tls(format!("cannot use {}: {error}", path.display()));
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| bad(certificate, &error))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| bad(certificate, &error))?;
    if chain.is_empty() {
        return Err(bad(certificate, &"it holds no certificate in PEM form"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| bad(certificate, &error))?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, private).map_err(|error| bad(certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The machine's names, the address that is listened on, and what was asked for.
fn all_names(asked: &[String], listen: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = asked.to_vec();
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    names.extend([host, "localhost".into(), "127.0.0.1".into(), "::1".into()]);
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| is_host(name) && seen.insert(name.clone()));
    names
}

/// Whether a certificate can be made for a name.
fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*'))
    };
    name.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(label))
}

impl Made {
    /// Makes what is missing, near its end, or for other names.
    fn ensure(&self) -> Result<(), ServeError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.folder);
        made.map_err(io(format!("make {}", self.folder.display())))?;
        let facts = self.folder.join("server.facts");
        let known = std::fs::read_to_string(&facts).unwrap_or_default();
        let mut lines = known.lines();
        let is_fresh = lines.next().is_some_and(|end| end > day(RENEW_DAYS).as_str());
        let is_same = lines.next().is_some_and(|names| names == self.names.join(" "));
        let files = ["ca.crt", "ca.key", "server.crt", "server.key"];
        if is_fresh && is_same && files.iter().all(|name| self.folder.join(name).exists()) {
            return Ok(());
        }
        let authority = self.authority()?;
        let end = day(LEAF_DAYS);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(self.names.clone()).map_err(failed)?;
        params
            .distinguished_name
            .push(DnType::CommonName, self.names.first().map_or("localhost", String::as_str).chars().take(64).collect::<String>());
        set_dates(&mut params, &day(-1), &end);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &authority).map_err(failed)?;
        self.write("server.key", key.serialize_pem().as_bytes(), 0o600)?;
        self.write("server.crt", leaf.pem().as_bytes(), 0o644)?;
        self.write("server.facts", format!("{end}\n{}\n", self.names.join(" ")).as_bytes(), 0o644)
    }

    fn write(&self, name: &str, content: &[u8], mode: u32) -> Result<(), ServeError> {
        let path = self.folder.join(name);
        sampan_durable::write_atomic_with_mode(&path, content, mode).map_err(io(format!("write {}", path.display())))
    }

    /// The authority: its key and certificate are kept, as clients were told to trust them.
    fn authority(&self) -> Result<Issuer<'static, KeyPair>, ServeError> {
        let (certificate, key) = (self.folder.join("ca.crt"), self.folder.join("ca.key"));
        if let (Ok(pem), true) = (std::fs::read_to_string(&key), certificate.exists()) {
            let key = KeyPair::from_pem(&pem).map_err(failed)?;
            return Ok(Issuer::new(authority_params()?, key));
        }
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = authority_params()?;
        set_dates(&mut params, &day(-1), &day(AUTHORITY_DAYS));
        let made = params.self_signed(&key).map_err(failed)?;
        self.write("ca.key", key.serialize_pem().as_bytes(), 0o600)?;
        self.write("ca.crt", made.pem().as_bytes(), 0o644)?;
        Ok(Issuer::new(authority_params()?, key))
    }
}

fn authority_params() -> Result<CertificateParams, ServeError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, "sampan registry authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn failed(error: rcgen::Error) -> ServeError {
    ServeError::Tls(format!("cannot make a certificate: {error}"))
}

/// The date so many days from now, `YYYY-MM-DD`.
fn day(days: i64) -> String {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    now.saturating_add(jiff::Span::new().days(days)).to_string()
}

/// Sets from when to when a certificate is good.
fn set_dates(params: &mut CertificateParams, first: &str, last: &str) {
    let date = |text: &str| {
        let mut parts = text.split('-').map(|part| part.parse::<i32>().unwrap_or(1));
        let mut next = || parts.next().unwrap_or(1);
        let (year, month, day) = (next(), next(), next());
        rcgen::date_time_ymd(year, u8::try_from(month).unwrap_or(1), u8::try_from(day).unwrap_or(1))
    };
    (params.not_before, params.not_after) = (date(first), date(last));
}
