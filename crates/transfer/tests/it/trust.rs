//! TLS: whom to trust, whom not, and how that is told. Names lead through the fake's own `CONNECT`, as loopback is exempt.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use sampan_base::{ErrorKind, Failure as _};
use sampan_oci::media;
use sampan_transfer::{Config, Proxies};

use crate::fake::{Fake, Reply, Then};
use crate::{Bench, bench, bench_with, impatient, nobody, reference, user};

const HOST: &str = "reg.test:5443";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key in PEM.
    fn issue(&self, name: &str, years: (i32, i32), usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        parameters.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn server(pair: &(String, String), clients: Option<&Authority>) -> ServerConfig {
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(pair.0.as_bytes()).unwrap()];
    builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(pair.1.as_bytes()).unwrap()).unwrap()
}

fn registry(pair: &(String, String)) -> Fake {
    Fake::start_tls(server(pair, None), |_| Reply::new(200, "{}").with("Content-Type", media::INDEX))
}

fn through(fake: &Fake, certs: &Path, insecure: &[&str]) -> Bench {
    let proxies = Proxies { https: Some(fake.host()), http: Some(fake.host()), no_proxy: None };
    let insecure = insecure.iter().map(|&host| host.to_owned()).collect();
    bench_with(Config { proxies, insecure, certs_dirs: vec![certs.join("missing"), certs.to_owned()], ..crate::config() })
}

fn pull(bench: &Bench) -> Result<(), String> {
    bench.client.manifest(&reference(HOST, "x:t"), &nobody(), &bench.cancel).map(|_| ()).map_err(|error| error.to_string())
}

fn put(certs: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(certs.join(HOST)).unwrap();
    std::fs::write(certs.join(HOST).join(name), text).unwrap();
}

const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;

#[test]
fn an_unknown_authority_is_refused_until_its_certificate_lies_in_the_folder() {
    let authority = Authority::new();
    let fake = registry(&authority.issue("reg.test", (2020, 2090), SERVER));
    let certs = tempfile::tempdir().unwrap();
    let bench = through(&fake, certs.path(), &[]);
    let wanted = format!("Get \"https://{HOST}/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority");
    assert_eq!(pull(&bench).unwrap_err(), wanted);
    let error = bench.client.login(HOST, &user(), &bench.cancel).unwrap_err();
    assert_eq!((error.to_string(), error.kind()), (wanted, ErrorKind::Unavailable));
    put(certs.path(), "ca.crt", &authority.0.pem());
    pull(&bench).unwrap();
    assert!(fake.seen().iter().filter(|seen| seen.method == "CONNECT").all(|seen| seen.path == HOST));
}

#[test]
fn an_insecure_registry_needs_no_authority() {
    let fake = registry(&Authority::new().issue("other.test", (2000, 2001), SERVER));
    let certs = tempfile::tempdir().unwrap();
    pull(&through(&fake, certs.path(), &[HOST])).unwrap();
}

#[test]
fn wrong_names_and_times_are_told() {
    let authority = Authority::new();
    let certs = tempfile::tempdir().unwrap();
    put(certs.path(), "ca.crt", &authority.0.pem());
    let begin = format!("Get \"https://{HOST}/v2/\": tls: failed to verify certificate: x509: ");
    for (name, years, wanted) in [
        ("other.test", (2020, 2090), "certificate is valid for other.test, not reg.test"),
        ("reg.test", (2000, 2001), "certificate has expired or is not yet valid: current time "),
        ("reg.test", (2080, 2090), "certificate has expired or is not yet valid: current time "),
    ] {
        let fake = registry(&authority.issue(name, years, SERVER));
        let error = pull(&through(&fake, certs.path(), &[])).unwrap_err();
        assert!(error.starts_with(&format!("{begin}{wanted}")), "{error}");
    }
}

#[test]
fn a_certificate_that_signed_itself_is_trusted_where_it_is_listed() {
    let mut parameters = CertificateParams::new(vec!["reg.test".to_owned()]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pair = (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem());
    let fake = registry(&pair);
    let certs = tempfile::tempdir().unwrap();
    let bench = through(&fake, certs.path(), &[]);
    assert!(pull(&bench).unwrap_err().ends_with("certificate signed by unknown authority"));
    put(certs.path(), "own.crt", &pair.0);
    pull(&bench).unwrap();
}

#[test]
fn a_registry_may_ask_for_our_certificate() {
    let authority = Authority::new();
    let pair = authority.issue("reg.test", (2020, 2090), SERVER);
    let fake = Fake::start_tls(server(&pair, Some(&authority)), |_| Reply::new(200, "{}").with("Content-Type", media::INDEX));
    let certs = tempfile::tempdir().unwrap();
    put(certs.path(), "ca.crt", &authority.0.pem());
    let bench = through(&fake, certs.path(), &[]);
    let error = pull(&bench).unwrap_err();
    assert!(error.ends_with("remote error: tls: certificate required"), "{error}");
    let own = authority.issue("client", (2020, 2090), ExtendedKeyUsagePurpose::ClientAuth);
    put(certs.path(), "client.cert", &own.0);
    let missing = pull(&bench).unwrap_err();
    assert_eq!(missing, "missing key client.key for client certificate client.cert. CA certificates must use the extension .crt");
    put(certs.path(), "client.key", &own.1);
    pull(&bench).unwrap();
    std::fs::remove_file(certs.path().join(HOST).join("client.cert")).unwrap();
    assert_eq!(pull(&bench).unwrap_err(), "missing client certificate client.cert for key client.key");
}

#[test]
fn plain_http_where_tls_is_wanted_is_refused() {
    let fake = Fake::start(|_| Reply::new(200, "{}"));
    let certs = tempfile::tempdir().unwrap();
    let error = pull(&through(&fake, certs.path(), &[])).unwrap_err();
    assert_eq!(error, format!("Get \"https://{HOST}/v2/\": http: server gave HTTP response to HTTPS client"));
}

#[test]
fn nothing_leads_from_tls_to_plain_http() {
    let authority = Authority::new();
    let pair = authority.issue("reg.test", (2020, 2090), SERVER);
    let certs = tempfile::tempdir().unwrap();
    put(certs.path(), "ca.crt", &authority.0.pem());
    let fake = Fake::start_tls(server(&pair, None), |seen| match seen.line().as_str() {
        "GET /v2/" => Reply::new(200, "{}"),
        "POST /v2/x/blobs/uploads/" => Reply::new(202, "").with("Location", "http://reg.test:5443/up"),
        _ => Reply::new(302, "").with("Location", "http://reg.test:5443/plain"),
    });
    let bench = through(&fake, certs.path(), &[]);
    assert!(pull(&bench).unwrap_err().contains("it leads from https to http"));
    let open = || -> std::io::Result<Box<dyn std::io::Read + Send>> { Ok(Box::new(std::io::empty())) };
    let digest = sampan_oci::Digest::sha256_of(b"");
    let error = bench.client.put_blob(&reference(HOST, "x"), &digest, 0, &open, &|_| {}, &nobody(), &bench.cancel).unwrap_err();
    assert!(error.to_string().contains("it leads from https to http"), "{error}");
    let fake = Fake::start_tls(server(&pair, None), |_| {
        Reply::new(401, "").with("WWW-Authenticate", "Bearer realm=\"http://reg.test:5443/token\"")
    });
    let error = pull(&through(&fake, certs.path(), &[])).unwrap_err();
    assert!(error.contains("a token service must be asked over https"), "{error}");
}

#[test]
fn loopback_needs_no_certificate_and_no_tls() {
    let bench = bench();
    let tls = registry(&Authority::new().issue("whatever.test", (2000, 2001), SERVER));
    let plain = Fake::start(|_| Reply::new(200, "{}").with("Content-Type", media::INDEX));
    for host in [tls.host(), plain.host(), format!("localhost:{}", plain.address.port())] {
        bench.client.manifest(&reference(&host, "x:t"), &nobody(), &bench.cancel).unwrap();
    }
}

#[test]
fn connections_that_fail_are_told_as_go_tells_them() {
    let bench = bench();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = bench.client.manifest(&reference(&host, "x:t"), &nobody(), &bench.cancel).unwrap_err();
    assert_eq!(error.to_string(), format!("Get \"http://{host}/v2/\": dial tcp {host}: connect: connection refused"));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn proxies_are_used_but_not_for_this_machine() {
    let proxy = Fake::start(|_| Reply::new(200, "{}").with("Content-Type", media::INDEX));
    let address = Some(format!("http://user:pass@{}", proxy.host()));
    let proxies = Proxies { http: address.clone(), https: address, no_proxy: Some("direct.test".to_owned()) };
    assert!(!format!("{proxies:?}").contains("pass"));
    let bench = bench_with(Config { proxies, insecure: vec!["plain.test:5000".to_owned()], ..crate::config() });
    bench.client.manifest(&reference("plain.test:5000", "x:t"), &nobody(), &bench.cancel).unwrap();
    let seen = proxy.seen();
    let lines: Vec<_> = seen.iter().map(|seen| seen.line()).collect();
    let wanted = ["CONNECT plain.test:5000", "GET http://plain.test:5000/v2/", "GET http://plain.test:5000/v2/x/manifests/t"];
    assert_eq!(lines, wanted);
    assert!(seen.iter().all(|seen| seen.header("proxy-authorization") == Some("Basic dXNlcjpwYXNz")));
    let own = Fake::start(|_| Reply::new(200, "{}").with("Content-Type", media::INDEX));
    bench.client.manifest(&reference(&own.host(), "x:t"), &nobody(), &bench.cancel).unwrap();
    assert_eq!((proxy.seen().len(), own.seen().len()), (3, 2));
}

#[test]
fn a_first_contact_is_tried_again_only_where_it_broke() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let shaky = Fake::start(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 | 1 => Reply::silent(),
        _ => Reply::new(200, "{}").with("Content-Type", media::INDEX),
    });
    let silent = Fake::start(|_| Reply::new(100, "").then(Then::Stall));
    let pull = |bench: &Bench, fake: &Fake| bench.client.manifest(&reference(&fake.host(), "x:t"), &nobody(), &bench.cancel);
    pull(&bench(), &shaky).unwrap();
    assert_eq!(shaky.seen().len(), 4);
    let error = pull(&bench_with(impatient()), &silent).unwrap_err().to_string();
    assert!(error.ends_with("(Client.Timeout exceeded while awaiting headers)"), "{error}");
    assert_eq!(silent.seen().len(), 1);
}

#[test]
fn bad_configurations_are_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let make =
        |config: Config| sampan_transfer::Client::new(runtime.handle().clone(), config).map(|_| ()).map_err(|error| error.to_string());
    assert!(make(Config { mirrors: vec!["nonsense".to_owned()], ..Config::default() }).is_err());
    assert!(make(Config { insecure: vec!["a/b".to_owned()], ..Config::default() }).is_err());
    let proxies = Proxies { https: Some("http://user:secret@[bad".to_owned()), ..Proxies::default() };
    assert_eq!(make(Config { proxies, ..Config::default() }), Err("invalid proxy address".to_owned()));
}
