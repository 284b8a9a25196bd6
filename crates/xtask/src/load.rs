//! `cargo xtask load`: a small client that asks a registry the same thing many times; benchmarks run it inside a world.
//!
//! Plain sockets on threads with kept connections, HTTP/1.1 without TLS: it costs little beside the server. It signs in as
//! registries ask for it (Basic for a token, or nobody for a token), brings what it asks for, prints `ready`, waits for a line
//! on standard input and prints the seconds that all requests took. So whoever measures the server sees the requests alone.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use sampan_testkit::images;

/// What to ask, of whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Load {
    /// `manifest` (GET by tag), `get` (a layer), `put` (a layer, POST and PUT).
    work: String,
    /// HOST:PORT.
    address: String,
    #[arg(long, default_value_t = 1)]
    requests: u32,
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// Size of the layer in MB.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Makes other layers than another run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// NAME:PASSWORD.
    #[arg(long)]
    user: Option<String>,
}

/// The repository of all requests.
const NAME: &str = "bench/load";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A connection that is kept.
struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
    token: Option<String>,
}

/// An answer without its body.
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Connection {
    fn open(address: &str, token: Option<String>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(1 << 18, stream), host: address.to_owned(), token })
    }

    /// Sends a request; the body of the answer goes into `into`, or is counted only.
    fn ask(&mut self, method: &str, path: &str, headers: &str, body: &[&[u8]], into: Option<&mut Vec<u8>>) -> anyhow::Result<(Head, u64)> {
        let length: usize = body.iter().map(|part| part.len()).sum();
        let rights = self.token.as_ref().map_or_else(String::new, |token| format!("Authorization: {token}\r\n"));
        let sized = if method == "GET" { String::new() } else { format!("Content-Length: {length}\r\n") };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{rights}{headers}{sized}\r\n", self.host);
        let out = self.stream.get_mut();
        out.write_all(head.as_bytes())?;
        for part in body {
            out.write_all(part)?;
        }
        let head = self.head()?;
        let count = self.body(&head, into)?;
        Ok((head, count))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the server closed the connection");
        Ok(line.trim_end().to_owned())
    }

    fn head(&mut self) -> anyhow::Result<Head> {
        let first = self.line()?;
        let status =
            first.split_whitespace().nth(1).and_then(|word| word.parse().ok()).with_context(|| format!("status line {first:?}"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((key, value)) = line.split_once(':') else { break };
            headers.push((key.to_owned(), value.trim().to_owned()));
        }
        Ok(Head { status, headers })
    }

    fn body(&mut self, head: &Head, into: Option<&mut Vec<u8>>) -> anyhow::Result<u64> {
        let mut kept = Vec::new();
        let into = into.unwrap_or(&mut kept);
        if head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            let mut count = 0;
            loop {
                let size = u64::from_str_radix(self.line()?.split(';').next().unwrap_or_default(), 16)?;
                self.stream.by_ref().take(size).read_to_end(into)?;
                self.line()?;
                count += size;
                if size == 0 {
                    return Ok(count);
                }
            }
        }
        let size: u64 = head.header("content-length").map_or(Ok(0), str::parse)?;
        if size < 1 << 20 {
            self.stream.by_ref().take(size).read_to_end(into)?;
            return Ok(size);
        }
        let mut left = size;
        while left > 0 {
            let got = self.stream.fill_buf()?.len();
            ensure!(got > 0, "the body ends {left} bytes early");
            let used = usize::try_from(left).unwrap_or(usize::MAX).min(got);
            self.stream.consume(used);
            left -= used as u64;
        }
        Ok(size)
    }

    /// Asks for what the server wants before it gives or takes anything.
    fn sign_in(&mut self, user: Option<&str>) -> anyhow::Result<()> {
        let basic = user.map(|user| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user)));
        let probe = format!("/v2/{NAME}/blobs/uploads/");
        let (head, _) = self.ask("POST", &probe, "", &[], None)?;
        if head.status != 401 {
            return Ok(());
        }
        let challenge = head.header("www-authenticate").context("a challenge")?.to_owned();
        if challenge.to_ascii_lowercase().starts_with("basic") {
            self.token = basic;
            return Ok(());
        }
        let value = |key: &str| challenge.split_once(&format!("{key}=\"")).and_then(|(_, rest)| Some(rest.split_once('"')?.0.to_owned()));
        let realm = value("realm").context("a realm")?;
        let path = realm.splitn(4, '/').nth(3).map(|path| format!("/{path}")).context("a path of the realm")?;
        let service = value("service").unwrap_or_default().replace(' ', "%20");
        self.token = basic;
        let mut answer = Vec::new();
        let path = format!("{path}?service={service}&scope=repository:{NAME}:pull,push");
        let (head, _) = self.ask("GET", &path, "", &[], Some(&mut answer))?;
        ensure!(head.status == 200, "{path}: {} {}", head.status, String::from_utf8_lossy(&answer));
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        let token = answer["token"].as_str().or_else(|| answer["access_token"].as_str()).context("a token")?;
        self.token = Some(format!("Bearer {token}"));
        Ok(())
    }

    /// A blob by POST and PUT.
    fn push(&mut self, digest: &str, parts: &[&[u8]]) -> anyhow::Result<()> {
        let (head, _) = self.ask("POST", &format!("/v2/{NAME}/blobs/uploads/"), "", &[], None)?;
        ensure!(head.status == 202, "POST of an upload: {}", head.status);
        let place = head.header("location").context("a location")?;
        let path = if place.starts_with('/') { place.to_owned() } else { format!("/{}", place.splitn(4, '/').nth(3).context("a path")?) };
        let path = format!("{path}{}digest={digest}", if path.contains('?') { '&' } else { '?' });
        let mut answer = Vec::new();
        let (head, _) = self.ask("PUT", &path, "Content-Type: application/octet-stream\r\n", parts, Some(&mut answer))?;
        ensure!(head.status == 201, "PUT of a blob: {} {}", head.status, String::from_utf8_lossy(&answer));
        Ok(())
    }
}

/// Bytes that no compression makes smaller, the same for a seed.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Runs the requests.
pub(crate) fn load(load: &Load) -> anyhow::Result<()> {
    let mut first = Connection::open(&load.address, None)?;
    first.sign_in(load.user.as_deref())?;
    match load.work.as_str() {
        "manifest" => manifests(load, first),
        "get" => layers(load, first),
        "put" => puts(load, first),
        other => bail!("no work {other:?}; there are manifest, get, put"),
    }
}

/// Prints that all is prepared, waits, works, prints the seconds.
fn measured(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    let start = Instant::now();
    work()?;
    println!("{:.6}", start.elapsed().as_secs_f64());
    Ok(())
}

/// The same path on some connections, each on a thread.
fn in_parallel(load: &Load, first: &Connection, headers: &str, path: &str, size: u64) -> anyhow::Result<()> {
    let open = |_| Connection::open(&load.address, first.token.clone());
    let mut connections: Vec<Connection> = (0..load.connections.max(1)).map(open).collect::<Result<_, _>>()?;
    let each = load.requests.div_ceil(load.connections.max(1));
    let ask = |connection: &mut Connection, count: u32| -> anyhow::Result<()> {
        for _ in 0..count {
            let (head, got) = connection.ask("GET", path, headers, &[], None)?;
            ensure!(head.status == 200 && got == size, "GET {path}: {} with {got} bytes", head.status);
        }
        Ok(())
    };
    // One warms up.
    connections.iter_mut().try_for_each(|connection| ask(connection, 1))?;
    measured(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = connections.iter_mut().map(|connection| scope.spawn(|| ask(connection, each))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
        })
    })
}

/// A manifest of about 2 KB, as an image of eight layers has.
fn manifests(load: &Load, mut first: Connection) -> anyhow::Result<()> {
    let mut blob = |text: String| -> anyhow::Result<serde_json::Value> {
        let digest = format!("sha256:{}", images::sha256(text.as_bytes()));
        first.push(&digest, &[text.as_bytes()])?;
        Ok(serde_json::json!({"digest": digest, "size": text.len()}))
    };
    let with_type = |mut value: serde_json::Value, kind: &str| {
        value["mediaType"] = kind.into();
        value
    };
    let config = with_type(blob("{}".to_owned())?, "application/vnd.oci.image.config.v1+json");
    let mut layer = |number: usize| Ok(with_type(blob(format!("layer {number}"))?, "application/vnd.oci.image.layer.v1.tar+gzip"));
    let layers: Vec<serde_json::Value> = (0..8).map(&mut layer).collect::<anyhow::Result<_>>()?;
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, "annotations": {"note": "x".repeat(600)},
    });
    let manifest = serde_json::to_vec(&manifest)?;
    let path = format!("/v2/{NAME}/manifests/latest");
    let mut answer = Vec::new();
    let (head, _) = first.ask("PUT", &path, &format!("Content-Type: {MANIFEST}\r\n"), &[&manifest], Some(&mut answer))?;
    ensure!(head.status == 201, "PUT of a manifest: {} {}", head.status, String::from_utf8_lossy(&answer));
    in_parallel(load, &first, &format!("Accept: {MANIFEST}\r\n"), &path, manifest.len() as u64)
}

fn layers(load: &Load, mut first: Connection) -> anyhow::Result<()> {
    let bytes = noise(load.size * 1_000_000, 7);
    let digest = format!("sha256:{}", images::sha256(&bytes));
    first.push(&digest, &[&bytes])?;
    in_parallel(load, &first, "", &format!("/v2/{NAME}/blobs/{digest}"), bytes.len() as u64)
}

/// Layers that differ in their first bytes, so that none is there already.
fn puts(load: &Load, mut first: Connection) -> anyhow::Result<()> {
    let rest = noise(load.size * 1_000_000 - 16, load.seed);
    let mut whole = vec![0; 16];
    whole.extend_from_slice(&rest);
    let mut prepared = Vec::new();
    for number in 0..load.requests {
        let mark = format!("{:08x}{number:08x}", load.seed & 0xffff_ffff);
        whole[..16].copy_from_slice(mark.as_bytes());
        prepared.push((mark, format!("sha256:{}", images::sha256(&whole))));
    }
    drop(whole);
    measured(|| prepared.iter().try_for_each(|(mark, digest)| first.push(digest, &[mark.as_bytes(), &rest])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_the_same_for_a_seed() {
        assert_eq!(noise(1000, 3), noise(1000, 3));
        assert_ne!(noise(1000, 3), noise(1000, 4));
        assert_eq!(noise(1001, 3).len(), 1001);
    }
}
