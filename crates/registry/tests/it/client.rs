//! The server of a test, and a client that hides nothing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use sampan_registry::config::{AccessLog, Config, Transport};
use sampan_registry::name::{Algorithm, Hasher};
use sampan_registry::users::Role;
use tokio::sync::watch;

/// A registry with a data root of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Strangers may push.
    pub(crate) fn open() -> Self {
        Self::with(|config| config.strangers = Some(Role::Admin))
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::at(tempfile::tempdir().unwrap(), change)
    }

    pub(crate) fn at(folder: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(folder.path().join("data"), "127.0.0.1:0".parse().unwrap(), Transport::Plain);
        config.access_log = AccessLog::Off;
        change(&mut config);
        let (stop, stopped) = watch::channel(false);
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            sampan_registry::serve(&config, stopped, |running| tell.send(running.address).unwrap()).unwrap();
        });
        let address = told.recv().expect("the registry starts");
        Self { address, folder, stop, thread: Some(thread) }
    }

    /// Stops, and gives the data root to the next one.
    pub(crate) fn stop(mut self) -> tempfile::TempDir {
        self.end();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends bytes and reads all that comes until the end or a whole answer.
    pub(crate) fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        Answer::read(&mut stream, request.starts_with(b"HEAD"))
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses may not wait for the body.
        drop(stream.write_all(body));
        Answer::read(&mut stream, method == "HEAD")
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// Pushes a blob, gives its digest.
    pub(crate) fn push(&self, repository: &str, content: &[u8]) -> String {
        let digest = sha256(content);
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/?digest={digest}"), &[], content);
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    /// Pushes an image of one layer under a reference, gives the digest of its manifest.
    pub(crate) fn push_image(&self, repository: &str, reference: &str, layer: &[u8]) -> String {
        let manifest = self.image(repository, layer, "");
        let answer = self.put(repository, reference, &manifest);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("docker-content-digest").unwrap().to_owned()
    }

    /// Pushes the blobs of an image, gives its manifest.
    pub(crate) fn image(&self, repository: &str, layer: &[u8], more: &str) -> String {
        let (config, layer_digest) = (self.push(repository, b"{}"), self.push(repository, layer));
        let size = layer.len();
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer_digest}","size":{size}}}]{more}}}"#
        )
    }

    pub(crate) fn put(&self, repository: &str, reference: &str, manifest: &str) -> Answer {
        self.send("PUT", &format!("/v2/{repository}/manifests/{reference}"), &[("Content-Type", IMAGE)], manifest.as_bytes())
    }

    /// Begins an upload, gives its path.
    pub(crate) fn start(&self, repository: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(crate) fn sha256(content: &[u8]) -> String {
    Hasher::of(Algorithm::Sha256, content).to_string()
}

pub(crate) fn sha512(content: &[u8]) -> String {
    Hasher::of(Algorithm::Sha512, content).to_string()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn read(stream: &mut TcpStream, is_head: bool) -> Self {
        let mut bytes = Vec::new();
        let mut buffer = [0; 64 << 10];
        loop {
            let ended = match stream.read(&mut buffer) {
                Ok(0) => true,
                Ok(count) => {
                    bytes.extend_from_slice(&buffer[..count]);
                    false
                }
                Err(error) => {
                    assert!(!bytes.is_empty(), "no answer came: {error}");
                    true
                }
            };
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                assert!(!ended, "no answer came: {:?}", String::from_utf8_lossy(&bytes));
                continue;
            };
            let answer = Self::parse(&bytes, end);
            let length = answer.header("content-length").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
            if ended || is_head || answer.body.len() >= length {
                return answer;
            }
        }
    }

    fn parse(bytes: &[u8], end: usize) -> Self {
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|text| text.parse().ok()).expect("a status");
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        Self { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of the error.
    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The next page.
    pub(crate) fn next(&self) -> Option<String> {
        let link = self.header("link")?;
        let (path, rest) = link.strip_prefix('<')?.split_once('>')?;
        assert_eq!(rest, "; rel=\"next\"");
        Some(path.to_owned())
    }
}
