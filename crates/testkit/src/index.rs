//! A package index inside a world: PyPI's simple index, an npm registry, a Maven repository and a Go module proxy as plain files.
//!
//! All four can be served without a line of code that knows them: `cargo xtask packages` lays the answers out as files below
//! `target/packages/{pypi,npm,maven,go}`, and this is a small HTTP/1.1 server of files, a thread a connection. It listens on an
//! address that the world's loopback device carries, so every container with a route to its host reaches it: through the default
//! bridge, through another one, and in the host's network. It is no server for anything but tests.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The address of the index in every world, out of the range that RFC 5737 keeps for documentation.
pub const ADDRESS: &str = "198.51.100.10";

/// A request's head may have so many bytes.
const HEAD: u64 = 16 << 10;

/// Serves the files below a folder until the process ends.
pub fn serve(listener: &TcpListener, folder: PathBuf) {
    let folder = Arc::new(folder);
    for stream in listener.incoming().flatten() {
        let folder = Arc::clone(&folder);
        // A client that breaks off is no event here.
        std::thread::spawn(move || drop(converse(&stream, &folder)));
    }
}

/// Answers one request after another.
fn converse(stream: &TcpStream, folder: &Path) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        let found = matches!(&*request.method, "GET" | "HEAD").then(|| find(folder, &request.target)).flatten();
        respond(stream, &request, found.as_deref())?;
        if request.close {
            break;
        }
    }
    Ok(())
}

/// What of a request counts.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: String,
    target: String,
    close: bool,
}

impl Request {
    /// The next request, its body passed over; none at the end of the connection.
    fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Self>> {
        let mut head = String::new();
        let mut limited = reader.by_ref().take(HEAD);
        while !head.ends_with("\r\n\r\n") {
            if limited.read_line(&mut head)? == 0 {
                return Ok(None);
            }
        }
        let (request, length) = Self::parse(&head);
        io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        Ok(Some(request))
    }

    /// The request and its body's length.
    fn parse(head: &str) -> (Self, u64) {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut close = words.next().as_deref() != Some("HTTP/1.1");
        let mut length = 0;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "connection" => close |= value.trim().eq_ignore_ascii_case("close"),
                "content-length" => length = value.trim().parse().unwrap_or(0),
                _ => {}
            }
        }
        (Self { method, target, close }, length)
    }
}

/// The file that a target names: itself, or the index of a folder. Nothing outside the folder has a name.
fn find(folder: &Path, target: &str) -> Option<PathBuf> {
    let path = decode(target.split(['?', '#']).next()?)?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| part.starts_with('.') || part.contains('\0')) {
        return None;
    }
    let path = parts.iter().fold(folder.to_owned(), |path, part| path.join(part));
    [path.clone(), path.join("index.html"), path.join("index.json")].into_iter().find(|path| path.is_file())
}

/// Percent signs taken out.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

fn respond(mut stream: &TcpStream, request: &Request, path: Option<&Path>) -> io::Result<()> {
    let file = path.map(std::fs::File::open).transpose()?;
    let length = file.as_ref().map_or(Ok(10), |file| file.metadata().map(|facts| facts.len()))?;
    let status = if file.is_some() { "200 OK" } else { "404 Not Found" };
    let kind = match path.and_then(Path::extension).and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("json" | "info") => "application/json",
        Some("xml" | "pom") => "application/xml",
        Some("tgz" | "whl" | "jar" | "zip" | "gz") => "application/octet-stream",
        _ => "text/plain; charset=utf-8",
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n")?;
    match file {
        _ if request.method == "HEAD" => Ok(()),
        Some(file) => io::copy(&mut file.take(length), &mut stream).map(drop),
        None => stream.write_all(b"not found\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_files_of_the_folder_alone() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["pypi/simple/flask/index.html", "npm/@polka/url/index.json", "go/github.com/!big/@v/list"] {
            crate::images::write(&folder.path().join(path), b"x").unwrap();
        }
        let found = |target| find(folder.path(), target).map(|path| path.strip_prefix(folder.path()).unwrap().display().to_string());
        for (target, expected) in [
            ("/pypi/simple/flask/", Some("pypi/simple/flask/index.html")),
            ("/pypi/simple/flask", Some("pypi/simple/flask/index.html")),
            ("/npm/@polka%2furl", Some("npm/@polka/url/index.json")),
            ("/npm/@polka/url?write=true", Some("npm/@polka/url/index.json")),
            ("/go/github.com/!big/@v/list", Some("go/github.com/!big/@v/list")),
            ("/pypi", None),
            ("/%2e%2e/etc/passwd", None),
            ("/pypi/%zz", None),
            ("/%00", None),
        ] {
            assert_eq!(found(target).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn a_connection_carries_several_requests() {
        let folder = tempfile::tempdir().unwrap();
        crate::images::write(&folder.path().join("a"), b"first").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"POST /audit HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyzGET /a HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        converse(&listener.accept().unwrap().0, folder.path()).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 404") && text.contains("HTTP/1.1 200 OK") && text.ends_with("\r\n\r\nfirst"), "{text}");
    }
}
