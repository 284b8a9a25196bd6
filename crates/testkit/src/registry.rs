//! A registry inside a test: it takes pushes and gives them back, counts what it is asked, and lies when told to.
//!
//! Not the product's registry: no files, no limits, HTTP/1.1 only. It listens in a world's network namespace and answers on
//! threads of the test.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{World, images};

/// A request as hooks see it.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// `GET`, …
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The length that is promised instead of the body's.
    pub promised: Option<usize>,
    /// The connection is closed after so many bytes of the body.
    pub cut: Option<usize>,
}

/// What a test answers itself; `None` leaves it to the registry.
pub type Hook = Box<dyn Fn(&Ask) -> Option<Answer> + Send + Sync>;

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Vec<u8>>,
    /// Which repository has which blob.
    places: Vec<(String, String)>,
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    asked: Vec<String>,
    login: Option<String>,
    hook: Option<Arc<Hook>>,
}

/// A running registry; it ends with the test's process.
#[derive(Clone)]
pub struct Registry {
    state: Arc<Mutex<State>>,
    host: String,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Answer {
    /// A status with a body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// With a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn refusal(status: u16, code: &str) -> Self {
        let text = code.to_ascii_lowercase().replace('_', " ");
        Self::new(status, format!(r#"{{"errors":[{{"code":"{code}","message":"{text}"}}]}}"#)).with("Content-Type", "application/json")
    }
}

impl Registry {
    /// Listens at a port of the world's loopback.
    ///
    /// # Panics
    /// When the port cannot be had.
    #[must_use]
    pub fn start(world: &World, port: u16) -> Self {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", world.init())).expect("the world's network");
        let inside = std::thread::spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).expect("root may enter");
            TcpListener::bind(("127.0.0.1", port)).expect("a free port")
        });
        let listener = inside.join().expect("the thread does not panic");
        let registry = Self { state: Arc::default(), host: format!("127.0.0.1:{port}") };
        let served = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let registry = served.clone();
                std::thread::spawn(move || drop(registry.serve(&stream)));
            }
        });
        registry
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Only this name and password are let in from now on.
    pub fn require(&self, name: &str, password: &str) {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        self.lock().login = Some(format!("Basic {pair}"));
    }

    /// Answers some requests otherwise.
    pub fn hook(&self, hook: impl Fn(&Ask) -> Option<Answer> + Send + Sync + 'static) {
        self.lock().hook = Some(Arc::new(Box::new(hook)));
    }

    /// Ends the hook.
    pub fn honest(&self) {
        self.lock().hook = None;
    }

    /// What was asked since the last call: `GET /v2/…`, with ` from N` where a range was wanted.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().asked)
    }

    /// Holds a blob of a repository.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Vec<u8>>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        let mut state = self.lock();
        state.blobs.insert(digest.clone(), bytes);
        state.places.push((repository.to_owned(), digest.clone()));
        digest
    }

    /// Holds a manifest under a tag and its digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, kind: &str, bytes: impl Into<Vec<u8>>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        let mut state = self.lock();
        for name in [tag.to_owned(), digest.clone()] {
            state.manifests.insert((repository.to_owned(), name), (kind.to_owned(), bytes.clone()));
        }
        digest
    }

    /// The manifest that a tag or digest names.
    #[must_use]
    pub fn manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        self.lock().manifests.get(&(repository.to_owned(), name.to_owned())).map(|(_, bytes)| bytes.clone())
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        while let Some(ask) = read(&mut reader)? {
            let from = ask.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')).map(str::to_owned);
            let noted = from.map_or_else(String::new, |from| format!(" from {from}"));
            let hook = {
                let mut state = self.lock();
                state.asked.push(format!("{} {}{noted}", ask.method, ask.path));
                state.hook.clone()
            };
            let answer = hook.and_then(|hook| hook(&ask)).unwrap_or_else(|| self.answer(&ask));
            let cut = answer.cut.is_some();
            write(stream, &ask, &answer)?;
            if cut {
                return stream.shutdown(std::net::Shutdown::Both);
            }
        }
        Ok(())
    }

    /// The honest answer.
    #[must_use]
    pub fn answer(&self, ask: &Ask) -> Answer {
        let mut state = self.lock();
        if state.login.is_some() && state.login.as_ref() != ask.headers.get("authorization") {
            return Answer::refusal(401, "UNAUTHORIZED").with("WWW-Authenticate", "Basic realm=\"test\"");
        }
        let (path, query) = ask.path.split_once('?').unwrap_or((&ask.path, ""));
        let field = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
                .map(|text| text.replace("%3A", ":").replace("%2F", "/"))
        };
        let Some(rest) = path.strip_prefix("/v2/") else { return Answer::new(404, "") };
        if rest.is_empty() {
            return Answer::new(200, "{}");
        }
        if rest == "_catalog" {
            let mut names: Vec<&str> = state.manifests.keys().map(|(name, _)| name.as_str()).collect();
            names.dedup();
            return Answer::new(200, format!("{{\"repositories\":{names:?}}}"));
        }
        let split =
            ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|part| rest.split_once(part).map(|(left, right)| (left, *part, right)));
        match split {
            Some((repository, "/manifests/", name)) => state.manifest(ask, repository, name),
            Some((repository, "/tags/", _)) => {
                let tags: Vec<&str> = state
                    .manifests
                    .keys()
                    .filter(|(own, tag)| own == repository && !tag.contains(':'))
                    .map(|(_, tag)| tag.as_str())
                    .collect();
                Answer::new(200, format!("{{\"name\":\"{repository}\",\"tags\":{tags:?}}}"))
            }
            Some((repository, _, name)) if name.starts_with("uploads/") => {
                state.upload(ask, repository, name, (field("digest"), field("mount"), field("from")))
            }
            Some((repository, _, digest)) => state.blob(ask, repository, digest),
            None => Answer::new(404, ""),
        }
    }
}

impl State {
    fn manifest(&mut self, ask: &Ask, repository: &str, name: &str) -> Answer {
        if ask.method == "PUT" {
            let kind = ask.headers.get("content-type").cloned().unwrap_or_default();
            let digest = digest(&ask.body);
            for name in [name, &digest] {
                self.manifests.insert((repository.to_owned(), name.to_owned()), (kind.clone(), ask.body.clone()));
            }
            return Answer::new(201, "").with("Docker-Content-Digest", digest);
        }
        match self.manifests.get(&(repository.to_owned(), name.to_owned())) {
            None => Answer::refusal(404, "MANIFEST_UNKNOWN"),
            Some((kind, bytes)) => Answer::new(200, bytes.clone()).with("Content-Type", kind).with("Docker-Content-Digest", digest(bytes)),
        }
    }

    fn blob(&self, ask: &Ask, repository: &str, digest: &str) -> Answer {
        let is_here = self.places.iter().any(|(own, blob)| own == repository && blob == digest);
        let Some(bytes) = self.blobs.get(digest).filter(|_| is_here) else { return Answer::refusal(404, "BLOB_UNKNOWN") };
        let from = ask.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse::<usize>().ok());
        match from {
            Some(from) if from < bytes.len() => {
                Answer::new(206, &bytes[from..]).with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()))
            }
            _ => Answer::new(200, bytes.clone()),
        }
    }

    fn upload(&mut self, ask: &Ask, repository: &str, name: &str, fields: (Option<String>, Option<String>, Option<String>)) -> Answer {
        let (digest, mount, from) = fields;
        let place = |digest: &str| Answer::new(201, "").with("Location", format!("/v2/{repository}/blobs/{digest}"));
        if ask.method == "POST" {
            if let (Some(digest), Some(from)) = (mount, from)
                && self.places.contains(&(from, digest.clone()))
            {
                self.places.push((repository.to_owned(), digest.clone()));
                return place(&digest);
            }
            let id = self.uploads.len().to_string();
            self.uploads.insert(id.clone(), Vec::new());
            return Answer::new(202, "").with("Location", format!("/v2/{repository}/blobs/uploads/{id}"));
        }
        let Some(upload) = self.uploads.get_mut(name.trim_start_matches("uploads/")) else {
            return Answer::refusal(404, "BLOB_UPLOAD_UNKNOWN");
        };
        upload.extend_from_slice(&ask.body);
        match (ask.method.as_str(), digest) {
            ("PUT", Some(digest)) => {
                let bytes = std::mem::take(upload);
                if self::digest(&bytes) != digest {
                    return Answer::refusal(400, "DIGEST_INVALID");
                }
                self.blobs.insert(digest.clone(), bytes);
                self.places.push((repository.to_owned(), digest.clone()));
                place(&digest)
            }
            _ => Answer::new(202, "").with("Location", format!("/v2/{repository}/blobs/{name}")),
        }
    }
}

/// `sha256:…` of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", images::sha256(bytes))
}

fn read(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Ask>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let mut ask =
        Ask { method: words.next().unwrap_or_default().to_owned(), path: words.next().unwrap_or_default().to_owned(), ..Ask::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        ask.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    if ask.headers.contains_key("expect") {
        reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if ask.headers.get("transfer-encoding").is_some_and(|kind| kind == "chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            ask.body.extend_from_slice(&chunk[..size]);
        }
    } else {
        let length = ask.headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        ask.body = vec![0; length];
        reader.read_exact(&mut ask.body)?;
    }
    Ok(Some(ask))
}

fn write(mut stream: &TcpStream, ask: &Ask, answer: &Answer) -> std::io::Result<()> {
    let length = answer.promised.unwrap_or(answer.body.len());
    let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {length}\r\nDocker-Distribution-Api-Version: registry/2.0\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if ask.method != "HEAD" {
        stream.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len()).min(answer.body.len())])?;
    }
    stream.flush()
}
