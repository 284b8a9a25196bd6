//! A client of the Engine API, as small as it can be: one connection a call, so that both engines do the same work.

use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use sampan_testkit::setup;
use serde_json::Value;

/// The socket of an engine.
#[derive(Debug)]
pub(super) struct Api {
    socket: PathBuf,
}

/// A peers' engine (`docker` or `podman`), if its rig is up.
pub(super) fn peer(rig: &str) -> Option<Api> {
    let output = Command::new(setup::peers()?.join("peers")).args([rig, "env"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let socket = text.split_whitespace().find_map(|word| Some(word.split_once("_HOST=unix://")?.1))?;
    UnixStream::connect(socket).ok().map(|_| Api::new(PathBuf::from(socket)))
}

impl Api {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(super) fn call(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.stream(method, path, kind, &mut &body[..], body.len() as u64)?.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Sends a body of so many bytes and gives the stream of the answer, without its head.
    pub(super) fn stream(&self, method: &str, path: &str, kind: &str, body: &mut dyn Read, length: u64) -> anyhow::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        let head = format!("{method} /v1.43{path} HTTP/1.0\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        std::io::copy(body, &mut stream)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).context("an answer without a head")?;
            head.push(byte[0]);
        }
        let status = String::from_utf8_lossy(&head).split_whitespace().nth(1).and_then(|word| word.parse::<u16>().ok()).unwrap_or(0);
        if status >= 300 {
            let mut content = String::new();
            stream.read_to_string(&mut content)?;
            bail!("{method} {path}: {status} {content}");
        }
        Ok(stream)
    }

    pub(super) fn post(&self, path: &str, body: &str) -> anyhow::Result<Value> {
        let content = self.call("POST", path, "application/json", body.as_bytes())?;
        Ok(if content.is_empty() { Value::Null } else { serde_json::from_slice(&content).unwrap_or(Value::Null) })
    }

    /// A container of the image `box`.
    pub(super) fn create(&self, command: &[&str], binds: &[String]) -> anyhow::Result<String> {
        self.create_from(&serde_json::json!({"Image": "box", "Cmd": command, "HostConfig": {"Binds": binds}}))
    }

    pub(super) fn create_from(&self, body: &Value) -> anyhow::Result<String> {
        let created = self.post("/containers/create", &body.to_string())?;
        Ok(created["Id"].as_str().context("an id")?.to_owned())
    }

    pub(super) fn start(&self, id: &str) -> anyhow::Result<()> {
        self.call("POST", &format!("/containers/{id}/start"), "application/json", b"").map(drop)
    }

    pub(super) fn remove(&self, id: &str) -> anyhow::Result<()> {
        self.call("DELETE", &format!("/containers/{id}?force=1"), "application/json", b"").map(drop)
    }
}
