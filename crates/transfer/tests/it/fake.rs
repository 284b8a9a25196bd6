//! A registry that does what a test tells it, byte by byte: a small HTTP/1.1 server on threads, with or without TLS. It is also a
//! proxy that leads every `CONNECT` to itself, so that tests can use names which are not loopback's.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `GET /v2/`, without the query.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path.split('?').next().unwrap_or_default())
    }

    pub(crate) fn query(&self) -> &str {
        self.path.split_once('?').map_or("", |(_, query)| query)
    }
}

/// What happens after the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Then {
    Keep,
    Close,
    Stall,
    /// Goes on with the body for ever.
    Endless,
    /// The same, a byte at a time.
    Trickle,
}

/// An answer. `Content-Length` is set from the body unless the headers have one, or a `Transfer-Encoding`.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) then: Then,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), then: Then::Keep }
    }

    /// The connection is closed instead.
    pub(crate) fn silent() -> Self {
        Self::new(0, "")
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }

    /// A refusal in the specification's form.
    pub(crate) fn refusal(status: u16, code: &str, message: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Self::new(status, body).with("Content-Type", "application/json")
    }
}

/// A body that is longer is answered before it is read, and then thrown away, as nginx does.
pub(crate) const EARLY: usize = 10_000_000;

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    seen: Mutex<Vec<Seen>>,
    tls: Option<Arc<ServerConfig>>,
    over: (Mutex<bool>, Condvar),
    stop: AtomicBool,
}

/// The registry; it ends when it is dropped.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Fake {
    /// Starts one that speaks plain HTTP.
    pub(crate) fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Box::new(handler))
    }

    pub(crate) fn start_tls(config: ServerConfig, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Some(Arc::new(config)), Box::new(handler))
    }

    fn listen(tls: Option<Arc<ServerConfig>>, handler: Box<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { handler, seen: Mutex::default(), tls, over: Default::default(), stop: AtomicBool::new(false) });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The requests in short, without those for `/v2/`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).filter(|line| line != "GET /v2/").collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        *self.shared.over.0.lock().unwrap() = true;
        self.shared.over.1.notify_all();
        let _wake = TcpStream::connect(self.address);
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let _ = stream.set_nodelay(true);
    let mut first = [0; 1];
    if stream.peek(&mut first).unwrap_or(0) == 0 {
        return;
    }
    if first[0] == b'C' {
        // CONNECT: what follows is for ourselves.
        let Some(seen) = read_request(&mut stream) else { return };
        shared.seen.lock().unwrap().push(seen);
        if stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").is_err() || stream.peek(&mut first).unwrap_or(0) == 0 {
            return;
        }
    }
    match (&shared.tls, first[0] == 0x16) {
        (Some(config), true) => {
            let Ok(connection) = ServerConnection::new(Arc::clone(config)) else { return };
            converse(shared, &mut StreamOwned::new(connection, stream));
        }
        (None, true) => drop(stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n")),
        (_, false) => {
            converse(shared, &mut stream);
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn converse(shared: &Shared, stream: &mut (impl Read + Write)) {
    while let Some(seen) = read_request(stream) {
        shared.seen.lock().unwrap().push(seen.clone());
        let reply = (shared.handler)(&seen);
        if reply.status == 0 {
            return;
        }
        let mut head = format!("HTTP/1.1 {} x\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let measured = |(name, _): &(String, String)| ["content-length", "transfer-encoding"].contains(&name.to_lowercase().as_str());
        if !reply.headers.iter().any(measured) && !matches!(reply.then, Then::Endless | Then::Trickle) {
            head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
        }
        let is_early = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0) > EARLY;
        head.push_str(if is_early { "Connection: close\r\n\r\n" } else { "\r\n" });
        let body: &[u8] = if seen.method == "HEAD" { &[] } else { &reply.body };
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush()).is_err() {
            return;
        }
        if is_early {
            let _discarded = std::io::copy(stream, &mut std::io::sink());
            return;
        }
        match reply.then {
            Then::Keep => {}
            Then::Close => return,
            Then::Stall => {
                let (over, wake) = &shared.over;
                let _over = wake.wait_while(over.lock().unwrap(), |over| !*over).unwrap();
                return;
            }
            Then::Trickle => {
                let (over, wake) = &shared.over;
                let mut over = over.lock().unwrap();
                while !*over && stream.write_all(b"x").and_then(|()| stream.flush()).is_ok() {
                    over = wake.wait_timeout(over, Duration::from_millis(10)).unwrap().0;
                }
                return;
            }
            Then::Endless => {
                while stream.write_all(&[b'x'; 65536]).is_ok() {}
                return;
            }
        }
    }
}

fn read_request(stream: &mut impl Read) -> Option<Seen> {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 || head.len() > 1 << 20 {
            return None;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).ok()?;
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<_> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    let mut seen = Seen { method, path, headers, body: Vec::new() };
    let length = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if length <= EARLY {
        seen.body = vec![0; length];
        stream.read_exact(&mut seen.body).ok()?;
    }
    Some(seen)
}
