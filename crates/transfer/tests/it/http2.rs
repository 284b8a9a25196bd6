//! HTTP/2, as real registries speak it: chosen by ALPN, one connection for many requests.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use sampan_oci::{Descriptor, Digest};

use crate::{bench, nobody, reference};

#[derive(Default)]
struct Registry {
    connections: AtomicUsize,
    old: AtomicUsize,
    stored: Mutex<Vec<u8>>,
}

async fn answer(registry: Arc<Registry>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    registry.old.fetch_add(usize::from(request.version() != Version::HTTP_2), Ordering::SeqCst);
    let builder = Response::builder();
    let (status, body) = match *request.method() {
        Method::POST => (202, Bytes::new()),
        Method::PUT => {
            let body = request.into_body().collect().await?.to_bytes();
            *registry.stored.lock().unwrap() = body.to_vec();
            (201, Bytes::new())
        }
        _ => (200, Bytes::from(registry.stored.lock().unwrap().clone())),
    };
    Ok(builder.status(status).header("Location", "/v2/x/blobs/uploads/1").body(Full::new(body)).unwrap())
}

async fn serve(registry: Arc<Registry>, listener: tokio::net::TcpListener, tls: tokio_rustls::TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        registry.connections.fetch_add(1, Ordering::SeqCst);
        let (registry, tls) = (Arc::clone(&registry), tls.clone());
        tokio::spawn(async move {
            let stream = tls.accept(stream).await.unwrap();
            let service = service_fn(move |request| answer(Arc::clone(&registry), request));
            let _end = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn acceptor() -> tokio_rustls::TlsAcceptor {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![pair.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config).into()
}

#[test]
fn many_requests_share_one_connection() {
    let bench = bench();
    let registry = Arc::new(Registry::default());
    let runtime = bench.runtime.as_ref().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    runtime.spawn(serve(Arc::clone(&registry), listener, acceptor()));

    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| u8::try_from(number % 253).unwrap()).collect();
    let digest = Digest::sha256_of(&bytes);
    let repository = reference(&host, "x");
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(bytes.clone()))) };
    bench.client.put_blob(&repository, &digest, bytes.len() as u64, &open, &|_| {}, &nobody(), &bench.cancel).unwrap();
    let annotations = std::collections::BTreeMap::new();
    let descriptor = Descriptor { media_type: String::new(), digest, size: bytes.len() as u64, annotations, platform: None };
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut reader = bench.client.blob(&repository, &descriptor, 0, &nobody(), &bench.cancel).unwrap();
                let mut read = Vec::new();
                reader.read_to_end(&mut read).unwrap();
                assert!(read == bytes);
            });
        }
    });
    assert_eq!((registry.connections.load(Ordering::SeqCst), registry.old.load(Ordering::SeqCst)), (1, 0));
}
