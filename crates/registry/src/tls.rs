//! Certificates: read from files, or made here with an authority of our own; another one is taken when files change.
//!
//! ```text
//! DATA/tls/ca.key   0600, made once
//! DATA/tls/ca.crt   what clients trust; ten years
//! DATA/tls/leaf.pem 0600: key and certificate of the server, and the authority
//! DATA/tls/leaf.json  until when, and for which names
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::ToSpan as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use crate::store::now;

/// Days that a certificate of a server is good for: what clients take.
const LEAF_DAYS: i64 = 397;
/// Days before its end at which it is made again.
const RENEW_DAYS: i64 = 90;
const DAY: i64 = 24 * 3600;

/// A certificate that cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("read or write {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not what it should be.
    #[error("use {} as a {what}: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// Why it is not.
        reason: String,
    },
    /// Making one failed.
    #[error("make a certificate: {0}")]
    Make(String),
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> TlsError {
    let path = path.to_owned();
    move |source| TlsError::File { path, source }
}

fn make_error(error: impl std::fmt::Display) -> TlsError {
    TlsError::Make(error.to_string())
}

/// Where certificate and key are read from.
#[derive(Debug, Clone)]
pub struct Source {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM; may be the same file.
    pub key: PathBuf,
}

/// What makes a file another one.
type Mark = Vec<Option<(u64, i64, i64)>>;

impl Source {
    fn mark(&self) -> Mark {
        use std::os::unix::fs::MetadataExt as _;
        let facts = [&self.certificate, &self.key].map(std::fs::metadata);
        facts.into_iter().map(|facts| facts.ok().map(|facts| (facts.ino(), facts.mtime(), facts.mtime_nsec()))).collect()
    }

    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let content = |path: &Path, what| {
            let path = path.to_owned();
            move |reason: String| TlsError::Content { path, what, reason }
        };
        let pem = std::fs::read(&self.certificate).map_err(file_error(&self.certificate))?;
        let bad = content(&self.certificate, "certificate");
        let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = match chain {
            Ok(chain) if !chain.is_empty() => chain,
            Ok(_) => return Err(bad("it holds none".into())),
            Err(error) => return Err(bad(error.to_string())),
        };
        let pem = std::fs::read(&self.key).map_err(file_error(&self.key))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| content(&self.key, "private key")(error.to_string()))?;
        let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|error| content(&self.key, "private key")(error.to_string()))?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
            Err(error) => Err(content(&self.key, "key of that certificate")(error.to_string())),
        }
    }
}

/// The certificate in use.
#[derive(Debug)]
pub struct Certificates {
    source: Source,
    present: RwLock<(Mark, Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner).1))
    }
}

impl Certificates {
    /// Reads them.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn open(source: Source) -> Result<Self, TlsError> {
        let mark = source.mark();
        let present = RwLock::new((mark, Arc::new(source.load()?)));
        Ok(Self { source, present })
    }

    /// Reads them again if the files changed; says whether they did. A broken one leaves the old one in use.
    ///
    /// # Errors
    /// [`TlsError`], once for each change.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let mark = self.source.mark();
        if self.present.read().unwrap_or_else(PoisonError::into_inner).0 == mark {
            return Ok(false);
        }
        let loaded = self.source.load();
        let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
        present.0 = mark;
        present.1 = Arc::new(loaded?);
        Ok(true)
    }
}

/// What a server speaks.
///
/// # Errors
/// A library without TLS.
pub fn server_config(certificates: Arc<Certificates>) -> Result<rustls::ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(make_error)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Leaf {
    until: i64,
    names: Vec<String>,
}

/// An authority of our own, and the certificates that it signs.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    names: Vec<String>,
}

impl Authority {
    /// Makes what is missing below a data root.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn open(root: &Path, names: &[String]) -> Result<Self, TlsError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let folder = root.join("tls");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(file_error(&folder))?;
        let authority = Self { folder, names: names.to_vec() };
        authority.renew()?;
        Ok(authority)
    }

    /// The file that clients trust.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Where the server's certificate lies.
    #[must_use]
    pub fn source(&self) -> Source {
        let leaf = self.folder.join("leaf.pem");
        Source { certificate: leaf.clone(), key: leaf }
    }

    /// Makes the server's certificate again if it nears its end or is for other names; says whether it did.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn renew(&self) -> Result<bool, TlsError> {
        let facts_path = self.folder.join("leaf.json");
        let known: Option<Leaf> = std::fs::read(&facts_path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let issuer = self.issuer()?;
        let good = known.is_some_and(|leaf| leaf.names == self.names && leaf.until - now() > RENEW_DAYS * DAY);
        if good && self.source().certificate.exists() {
            return Ok(false);
        }
        let mut params = CertificateParams::new(self.names.clone()).map_err(make_error)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, self.names.first().map_or("sampan registry", String::as_str));
        params.distinguished_name = name;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut params, LEAF_DAYS)?;
        let key = KeyPair::generate().map_err(make_error)?;
        let certificate = params.signed_by(&key, &issuer).map_err(make_error)?;
        let authority = std::fs::read_to_string(self.certificate()).map_err(file_error(&self.certificate()))?;
        let path = self.source().certificate;
        let pem = format!("{}{}{authority}", key.serialize_pem(), certificate.pem());
        sampan_durable::write_atomic_with_mode(&path, pem.as_bytes(), 0o600).map_err(file_error(&path))?;
        let leaf = Leaf { until: now() + LEAF_DAYS * DAY, names: self.names.clone() };
        let facts = serde_json::to_vec(&leaf).map_err(make_error)?;
        sampan_durable::write_atomic(&facts_path, &facts).map_err(file_error(&facts_path))?;
        Ok(true)
    }

    /// The authority: its key is read or made, its certificate follows from the key.
    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, TlsError> {
        let key_path = self.folder.join("ca.key");
        let key = match std::fs::read_to_string(&key_path) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| TlsError::Content {
                path: key_path.clone(),
                what: "private key",
                reason: error.to_string(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(make_error)?;
                sampan_durable::write_atomic_with_mode(&key_path, key.serialize_pem().as_bytes(), 0o600).map_err(file_error(&key_path))?;
                key
            }
            Err(error) => return Err(file_error(&key_path)(error)),
        };
        let mark = crate::name::Hasher::of(crate::name::Algorithm::Sha256, key.public_key_raw());
        let mut params = CertificateParams::new(Vec::new()).map_err(make_error)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, format!("sampan registry {}", mark.digits().get(..8).unwrap_or_default()));
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, 3652)?;
        let path = self.certificate();
        if !path.exists() {
            let certificate = params.self_signed(&key).map_err(make_error)?;
            sampan_durable::write_atomic_with_mode(&path, certificate.pem().as_bytes(), 0o644).map_err(file_error(&path))?;
        }
        Ok(Issuer::new(params, key))
    }
}

/// From yesterday, for clocks that are behind, for so many days.
fn set_validity(params: &mut CertificateParams, days: i64) -> Result<(), TlsError> {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let date = |offset: i64| -> Result<_, TlsError> {
        let date = today.checked_add(offset.days()).map_err(make_error)?;
        let (month, day) = (u8::try_from(date.month()).map_err(make_error)?, u8::try_from(date.day()).map_err(make_error)?);
        Ok(rcgen::date_time_ymd(i32::from(date.year()), month, day))
    };
    params.not_before = date(-1)?;
    params.not_after = date(days)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_authority_is_made_once_and_leaves_are_renewed() {
        let root = tempfile::tempdir().unwrap();
        let names = vec!["registry.test".to_owned(), "127.0.0.1".to_owned()];
        let authority = Authority::open(root.path(), &names).unwrap();
        let first = std::fs::read(authority.certificate()).unwrap();
        let leaf = std::fs::read(authority.source().certificate).unwrap();
        for name in ["ca.key", "leaf.pem"] {
            assert_eq!(std::fs::metadata(root.path().join("tls").join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let certificates = Certificates::open(authority.source()).unwrap();
        assert!(!authority.renew().unwrap() && !certificates.refresh().unwrap());
        let other = Authority::open(root.path(), &["other.test".to_owned()]).unwrap();
        assert_ne!(std::fs::read(other.source().certificate).unwrap(), leaf, "other names need another certificate");
        assert_eq!(std::fs::read(other.certificate()).unwrap(), first, "the authority stays");
        assert!(certificates.refresh().unwrap() && !certificates.refresh().unwrap());
        std::fs::write(other.source().certificate, "broken").unwrap();
        assert!(certificates.refresh().is_err());
        assert!(!certificates.refresh().unwrap(), "a broken file is told once");
        assert!(server_config(Arc::new(certificates)).is_ok());
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (root.path().join("one"), root.path().join("two"));
        let (one, two) = (Authority::open(&one, &["a".into()]).unwrap(), Authority::open(&two, &["a".into()]).unwrap());
        let source = Source { certificate: one.certificate(), key: two.source().key };
        assert!(Certificates::open(source).unwrap_err().to_string().contains("key of that certificate"));
        let missing = Source { certificate: root.path().join("none"), key: root.path().join("none") };
        assert!(matches!(Certificates::open(missing), Err(TlsError::File { .. })));
    }
}
