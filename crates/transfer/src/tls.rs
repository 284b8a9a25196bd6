//! Trust: the system's roots, the `certs.d` folder of a registry, and whose certificate is not asked for.
//!
//! A folder `HOST[:PORT]` below a `certs.d` folder holds `*.crt` (authorities, added to the system's), and pairs of `*.cert` and
//! `*.key` (our own certificate). Folders are read anew when something in them changed, so no restart is needed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::{TransferError, validity};

/// The largest certificate file that is read.
const LIMIT: u64 = 1 << 20;
/// The most files of one folder that are looked at.
const FILES: usize = 1000;

/// What a `certs.d` folder looks like from outside: it changes when a file in it does.
pub(crate) type Stamp = Vec<(PathBuf, u64, i64, i64, u64)>;

/// The folder of a registry: the first that exists.
pub(crate) fn folder(roots: &[PathBuf], host: &str) -> Option<PathBuf> {
    roots.iter().map(|root| root.join(host)).find(|folder| folder.is_dir())
}

/// Lists the files of a folder in order.
pub(crate) fn stamp(folder: Option<&Path>) -> Stamp {
    let Some(entries) = folder.and_then(|folder| fs::read_dir(folder).ok()) else { return Stamp::new() };
    let look = |path: PathBuf| {
        let data = fs::metadata(&path).ok()?;
        Some((path, data.len(), data.mtime(), data.mtime_nsec(), data.ino()))
    };
    let mut stamp: Stamp = entries.flatten().take(FILES).filter_map(|entry| look(entry.path())).collect();
    stamp.sort();
    stamp
}

/// Authorities and our own certificate, as a folder gives them.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    authorities: Vec<CertificateDer<'static>>,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Certificates {
    /// Reads the files of a folder.
    ///
    /// # Errors
    /// [`TransferError::Configuration`] in Docker's words.
    pub(crate) fn load(stamp: &Stamp) -> Result<Self, TransferError> {
        let mut loaded = Self::default();
        let exists = |path: &Path| stamp.iter().any(|(other, ..)| other == path);
        for (path, ..) in stamp {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => {
                    let bytes = read(path)?;
                    loaded.authorities.extend(CertificateDer::pem_slice_iter(&bytes).flatten());
                }
                Some("cert") => {
                    let key = path.with_extension("key");
                    if !exists(&key) {
                        return Err(TransferError::Configuration(format!(
                            "missing key {} for client certificate {}. CA certificates must use the extension .crt",
                            name(&key),
                            name(path)
                        )));
                    }
                    let pair = load_pair(path, &key)?;
                    loaded.own.get_or_insert(pair);
                }
                Some("key") if !exists(&path.with_extension("cert")) => {
                    let certificate = path.with_extension("cert");
                    return Err(TransferError::Configuration(format!(
                        "missing client certificate {} for key {}",
                        name(&certificate),
                        name(path)
                    )));
                }
                _ => {}
            }
        }
        Ok(loaded)
    }
}

fn load_pair(certificate: &Path, key: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TransferError> {
    let bytes = read(certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes).flatten().collect();
    if chain.is_empty() {
        return Err(TransferError::Configuration("tls: failed to find any PEM data in certificate input".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| TransferError::Configuration("tls: failed to find any PEM data in key input".to_owned()))?;
    Ok((chain, key))
}

fn name(path: &Path) -> std::path::Display<'_> {
    Path::new(path.file_name().unwrap_or_default()).display()
}

fn read(path: &Path) -> Result<Vec<u8>, TransferError> {
    let fail = |problem: String| TransferError::Configuration(format!("open {}: {problem}", path.display()));
    let size = fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if size > LIMIT {
        return Err(fail(format!("larger than {LIMIT} bytes")));
    }
    fs::read(path).map_err(|error| fail(error.to_string()))
}

/// The system's authorities.
pub(crate) fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

/// Puts it all together; `insecure` asks nobody for a valid certificate.
///
/// # Errors
/// [`TransferError::Configuration`] where our own certificate and key do not fit.
pub(crate) fn configure(roots: &RootCertStore, certificates: Certificates, insecure: bool) -> Result<ClientConfig, TransferError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut store = roots.clone();
    store.add_parsable_certificates(certificates.authorities.iter().cloned());
    let inner = if insecure || store.is_empty() {
        None
    } else {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
        Some(builder.build().map_err(|error| TransferError::Configuration(format!("unable to get system cert pool: {error}")))?)
    };
    let verifier = Verifier { inner, pinned: certificates.authorities, insecure, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TransferError::Configuration(format!("tls: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match certificates.own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|_| TransferError::Configuration("tls: private key does not match public key".to_owned()))?,
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The usual verifier, and what Go accepts beyond it: a server that shows the very certificate which the folder lists as an
/// authority, as `openssl req -x509` makes them.
#[derive(Debug)]
struct Verifier {
    inner: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    insecure: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pinned.iter().any(|pinned| pinned.as_ref() == certificate.as_ref())
    }
}

/// Time and name are checked before the signatures, in Go's order, so that the same fault is told.
fn check_itself(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let (begin, end) = validity::of(certificate).ok_or(CertificateError::BadEncoding)?;
    let at = |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if seconds < begin {
        return Err(CertificateError::NotValidYetContext { time: now, not_before: at(begin) }.into());
    }
    if seconds > end {
        return Err(CertificateError::ExpiredContext { time: now, not_after: at(end) }.into());
    }
    rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        check_itself(certificate, name, now)?;
        if self.is_pinned(certificate) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.inner {
            None => Err(CertificateError::UnknownIssuer.into()),
            Some(inner) => inner.verify_server_cert(certificate, intermediates, name, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
