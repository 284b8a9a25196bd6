//! Where an engine is, and the connection to it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::error::{CliError, Outcome};

/// An engine's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `unix://PATH`.
    Unix(PathBuf),
    /// `tcp://HOST:PORT`, without TLS.
    Tcp(String),
    /// `ssh://…`: the words for `ssh` and the address as given.
    Ssh(Vec<String>, String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(address) => write!(formatter, "tcp://{address}"),
            Self::Ssh(_, address) => formatter.write_str(address),
        }
    }
}

impl Endpoint {
    /// Reads what `-H` takes.
    ///
    /// # Errors
    /// An unknown scheme or a broken address.
    pub(crate) fn parse(host: &str) -> Outcome<Self> {
        let bad = || CliError::new(format!("invalid bind address ({host}): unsupported proto"));
        let (scheme, rest) = host.split_once("://").unwrap_or(("tcp", host));
        match scheme {
            "unix" if rest.is_empty() => Ok(Self::Unix("/var/run/docker.sock".into())),
            "unix" => Ok(Self::Unix(rest.into())),
            "tcp" | "http" => {
                let rest = rest.split('/').next().unwrap_or_default();
                let (name, port) = match rest.rsplit_once(':') {
                    Some((name, port)) if !name.ends_with(':') => (name, port),
                    _ => (rest, "2375"),
                };
                let name = if name.is_empty() { "localhost" } else { name };
                let port = port.parse::<u16>().map_err(|_| CliError::new(format!("invalid bind address ({host}): invalid port")))?;
                Ok(Self::Tcp(format!("{name}:{port}")))
            }
            "ssh" => ssh_words(rest).map(|words| Self::Ssh(words, host.to_owned())).ok_or_else(bad),
            _ => Err(bad()),
        }
    }

    pub(crate) async fn dial(&self) -> io::Result<Connection> {
        match self {
            Self::Unix(path) => UnixStream::connect(path).await.map(Connection::Unix),
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
            Self::Ssh(words, _) => {
                #[expect(clippy::disallowed_methods, reason = "the named exception for ssh:// hosts")]
                let mut ssh = std::process::Command::new("ssh");
                ssh.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = tokio::process::Command::from(ssh).kill_on_drop(true).spawn()?;
                let missing = || io::Error::other("ssh without pipes");
                let (stdin, stdout) = (child.stdin.take().ok_or_else(missing)?, child.stdout.take().ok_or_else(missing)?);
                Ok(Connection::Ssh(Box::new(Pipes { _child: child, stdin, stdout })))
            }
        }
    }
}

/// `user@host:port/socket` as words for `ssh`. A name that could be taken for an option is refused.
fn ssh_words(rest: &str) -> Option<Vec<String>> {
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, machine) = place.rsplit_once('@').map_or((None, place), |(user, machine)| (Some(user), machine));
    let (machine, port) = machine.rsplit_once(':').map_or((machine, None), |(machine, port)| (machine, Some(port)));
    if machine.is_empty() || machine.starts_with('-') || user.is_some_and(|user| user.is_empty() || user.contains(':')) {
        return None;
    }
    let mut words = vec!["-o".to_owned(), "ConnectTimeout=30".into(), "-T".into()];
    if let Some(user) = user {
        words.extend(["-l".into(), user.to_owned()]);
    }
    if let Some(port) = port {
        words.extend(["-p".into(), port.parse::<u16>().ok()?.to_string()]);
    }
    words.extend(["--".into(), machine.to_owned(), "docker".into()]);
    if !path.is_empty() {
        words.push(format!("--host=unix:///{path}"));
    }
    words.extend(["system".into(), "dial-stdio".into()]);
    Some(words)
}

/// A program that passes bytes on; it is killed when the connection goes.
#[derive(Debug)]
pub(crate) struct Pipes {
    _child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

/// A connection to an engine.
#[derive(Debug)]
pub(crate) enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
    Ssh(Box<Pipes>),
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Ssh(pipes) => Pin::new(&mut pipes.stdout).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Ssh(pipes) => Pin::new(&mut pipes.stdin).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Ssh(pipes) => Pin::new(&mut pipes.stdin).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Ssh(pipes) => Pin::new(&mut pipes.stdin).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_docker_reads_them() {
        let shown = |host: &str| Endpoint::parse(host).map(|endpoint| endpoint.to_string()).map_err(|error| error.text);
        assert_eq!(shown("unix:///x.sock").as_deref(), Ok("unix:///x.sock"));
        assert_eq!(shown("tcp://").as_deref(), Ok("tcp://localhost:2375"));
        assert_eq!(shown("foo").as_deref(), Ok("tcp://foo:2375"));
        assert_eq!(shown("tcp://10.0.0.1:99").as_deref(), Ok("tcp://10.0.0.1:99"));
        assert!(shown("tcp://x:y").is_err() && shown("ftp://x").is_err());
    }

    #[test]
    fn an_ssh_host_is_never_an_option() {
        assert_eq!(ssh_words("me@far:22").unwrap().join(" "), "-o ConnectTimeout=30 -T -l me -p 22 -- far docker system dial-stdio");
        assert_eq!(ssh_words("-oProxyCommand=x"), None);
        assert_eq!(ssh_words(""), None);
    }
}
