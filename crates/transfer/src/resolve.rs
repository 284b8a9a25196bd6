//! Names to addresses, for one registry: a name that a stranger's reply brought up must not lead to a metadata service.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::is_metadata;

/// A name without address.
#[derive(Debug)]
pub(crate) struct UnknownHost {
    host: String,
    /// Whether the name servers could not be asked.
    pub(crate) temporary: bool,
}

impl fmt::Display for UnknownHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = if self.temporary { "Temporary failure in name resolution" } else { "no such host" };
        write!(f, "lookup {}: {problem}", self.host)
    }
}

impl std::error::Error for UnknownHost {}

/// A name whose addresses are all forbidden.
#[derive(Debug)]
pub(crate) struct ForbiddenAddress {
    host: String,
}

impl fmt::Display for ForbiddenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refusing to connect to {}: its address is link-local or a metadata service's", self.host)
    }
}

impl std::error::Error for ForbiddenAddress {}

/// The system's resolver without the forbidden addresses. The registry's own host may have any.
#[derive(Debug)]
pub(crate) struct Resolver {
    own: Arc<str>,
}

impl Resolver {
    pub(crate) fn new(own: &str) -> Self {
        Self { own: own.into() }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let is_own = host.eq_ignore_ascii_case(&self.own);
        Box::pin(async move {
            let found = lookup(&host).await?;
            let allowed: Vec<_> = found.into_iter().filter(|address| is_own || !is_metadata(address.ip())).collect();
            if allowed.is_empty() {
                return Err(Box::new(ForbiddenAddress { host }).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Asks the system; the port of the answers is 0.
pub(crate) async fn lookup(host: &str) -> Result<Vec<SocketAddr>, UnknownHost> {
    let unknown = |temporary| UnknownHost { host: host.to_owned(), temporary };
    let found: Vec<_> = match tokio::net::lookup_host((host, 0)).await {
        Ok(found) => found.collect(),
        // The standard library keeps getaddrinfo's verdict only as a text.
        Err(error) => return Err(unknown(error.to_string().contains("emporary failure"))),
    };
    if found.is_empty() { Err(unknown(false)) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_registry_itself_may_live_at_a_metadata_address() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let resolve = |own: &str, host: &str| {
            let name = host.parse().unwrap();
            runtime.block_on(Resolver::new(own).resolve(name)).map(Iterator::count).map_err(|error| error.to_string())
        };
        let metadata = "169.254.169.254";
        assert_eq!(resolve(metadata, metadata), Ok(1));
        assert_eq!(
            resolve("registry.example", metadata).unwrap_err(),
            "refusing to connect to 169.254.169.254: its address is link-local or a metadata service's"
        );
        assert!(resolve("registry.example", "127.0.0.1").is_ok());
    }
}
