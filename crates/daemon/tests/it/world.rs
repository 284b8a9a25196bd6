//! A server in a directory of its own, and a client that speaks bytes.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sampan_daemon::{Listener, ServerConfig, serve};
use sampan_engine::{Engine, EngineConfig, EventBus};
use sampan_images::Images;
use sampan_store::Store;

/// Worlds so far, so that each has its own cgroups.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A running server; dropping it ends it.
pub(crate) struct World {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    cgroup: String,
    stop: tokio::sync::watch::Sender<bool>,
    server: Option<std::thread::JoinHandle<()>>,
}

/// An answer: status line with headers, and the body as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{}:", name.to_ascii_lowercase())))?;
        line.split_once(':').map(|(_, value)| value.trim())
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let events = Arc::new(EventBus::default());
        let store = Arc::new(Store::open(&folder.path().join("data")).unwrap());
        let images = Arc::new(Images::open(Arc::clone(&store), events.clone()));
        let cgroup = format!("sampan-api-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let config = EngineConfig {
            exec_root: folder.path().join("exec"),
            cgroup_parent: format!("/{cgroup}"),
            live_restore: true,
            init: false,
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
        };
        let engine = Engine::open(config, Arc::clone(&store), images, None, events).unwrap();
        let images = Arc::clone(engine.images());
        let builder = Arc::new(sampan_build::Builder::open(store, images, engine.shared_sandboxes()).unwrap());
        let socket = folder.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (stop, shutdown) = tokio::sync::watch::channel(false);
        let config = ServerConfig { listeners: vec![Listener::Unix(listener)], engine, builder, shutdown, version: "0.0.0".into() };
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(serve(config)).unwrap();
        });
        Self { _folder: folder, socket, cgroup, stop, server: Some(server) }
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends bytes, then reads to the end.
    pub(crate) fn send(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        read(&mut stream)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        let length = body.len();
        self.send(&format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"))
    }

    /// Ends the server and waits for it.
    pub(crate) fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
        // Version 2 has one hierarchy, version 1 one for each controller.
        let root = PathBuf::from("/sys/fs/cgroup");
        let controllers = std::fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
        for folder in controllers.chain([root.clone()]) {
            drop(std::fs::remove_dir(folder.join(&self.cgroup)));
        }
    }
}

pub(crate) fn read(stream: &mut UnixStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is as good as its end.
    drop(stream.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Answer { head: head.to_owned(), body: body.to_owned() }
}
