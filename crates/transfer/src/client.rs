//! The client's blocking face: what can be asked of a registry.

use std::io::{self, Read};
use std::pin::pin;
use std::sync::Arc;

use sampan_base::Cancel;
use sampan_oci::{Descriptor, Digest, Reference};

use crate::registry::{Registry, with_registry};
use crate::state::State;
use crate::upload::Content;
use crate::waiting::Waiting;
use crate::{
    BlobReader, Config, FetchRequest, Fetched, FetchedManifest, Login, LoginAnswer, SearchItem, TransferError, blob, fetch, lists, login,
    manifest, referrers, search, upload,
};

/// A client of registries; clones share connections, tokens and what is known of each registry.
///
/// Every method blocks the calling thread until the answer is there, the token is cancelled, or all tries have failed. It may be
/// called from many threads at once, but never from a thread that drives the runtime. The runtime must have a thread of its own.
#[derive(Debug, Clone)]
pub struct Client {
    state: Arc<State>,
    waiting: Waiting,
}

/// Work that a mirror can do too.
const MIRRORS_TOO: bool = true;
/// Work for the registry itself: changes, and lists that must be complete.
const ITSELF: bool = false;

/// Runs a future on the calling thread until it is done or the token is cancelled, whatever it waits for.
pub(crate) fn block<T>(state: &State, cancel: &Cancel, work: impl Future<Output = Result<T, TransferError>>) -> Result<T, TransferError> {
    cancel.check()?;
    let wake = Arc::new(tokio::sync::Notify::new());
    let _watch = cancel.watch({
        let wake = Arc::clone(&wake);
        move || wake.notify_one()
    });
    state.handle.block_on(async {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            () = wake.notified() => Err(TransferError::Cancelled),
            outcome = &mut work => outcome,
        }
    })
}

impl Client {
    /// Makes a client on a runtime.
    ///
    /// # Errors
    /// [`TransferError::Configuration`] where a mirror, a proxy or an insecure registry cannot be understood.
    pub fn new(handle: tokio::runtime::Handle, config: Config) -> Result<Self, TransferError> {
        Ok(Self { state: Arc::new(State::new(handle, config)?), waiting: Waiting::default() })
    }

    /// The same client, which tells how many seconds of each pause before another try are left.
    #[must_use]
    pub fn telling(&self, tell: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self { state: Arc::clone(&self.state), waiting: Waiting::new(tell) }
    }

    /// Fetches a manifest or an index by its digest, or by its tag (`latest` where there is neither).
    ///
    /// # Errors
    /// [`TransferError::ManifestUnknown`], [`TransferError::PullDenied`] and all the others.
    pub fn manifest(&self, reference: &Reference, login: &Login, cancel: &Cancel) -> Result<FetchedManifest, TransferError> {
        self.at(reference.domain(), MIRRORS_TOO, login, cancel, async |registry| manifest::fetch(&registry, reference).await)
    }

    /// Asks which manifest a tag or digest names, without its bytes; `None` where the registry has none.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn head_manifest(&self, reference: &Reference, login: &Login, cancel: &Cancel) -> Result<Option<Descriptor>, TransferError> {
        self.at(reference.domain(), MIRRORS_TOO, login, cancel, async |registry| {
            let found = manifest::head(&registry, reference).await?;
            // What a mirror does not have the registry itself may have.
            if found.is_none() && registry.endpoint.mirror {
                return Err(registry.malformed("the mirror does not have it"));
            }
            Ok(found)
        })
    }

    /// Opens a blob of a repository at an offset. The caller checks the digest, as it hashes the bytes anyway.
    ///
    /// Broken connections are taken up again where they broke. The reader yields exactly the bytes from the offset to the
    /// descriptor's size, or an error. It stops when the token is cancelled.
    ///
    /// # Errors
    /// [`TransferError`], where the first request fails; later failures come from the reader.
    pub fn blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        offset: u64,
        login: &Login,
        cancel: &Cancel,
    ) -> Result<BlobReader, TransferError> {
        BlobReader::open(&self.state, repository, descriptor, offset, login, (&self.waiting, cancel))
    }

    /// Opens a blob at one of the addresses that a foreign layer names, in turn. No credentials are sent there.
    ///
    /// # Errors
    /// The error of the last address.
    pub fn foreign_blob(
        &self,
        urls: &[String],
        descriptor: &Descriptor,
        offset: u64,
        cancel: &Cancel,
    ) -> Result<BlobReader, TransferError> {
        BlobReader::open_foreign(&self.state, urls, descriptor, offset, (&self.waiting, cancel))
    }

    /// Opens a file at an address that a user named. No registry's certificates or credentials are sent there.
    ///
    /// # Errors
    /// [`TransferError::Unwelcome`] where the answer's status is none of success, and all the others; later failures come from
    /// the reader.
    pub fn fetch(&self, request: &FetchRequest, cancel: &Cancel) -> Result<Fetched, TransferError> {
        fetch::open(&self.state, request, cancel)
    }

    /// Fetches a small blob, such as a config; its size and its digest are checked.
    ///
    /// # Errors
    /// [`TransferError::TooLarge`] where its descriptor promises more than the limit, and all the others.
    pub fn document(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        limit: u64,
        login: &Login,
        cancel: &Cancel,
    ) -> Result<Vec<u8>, TransferError> {
        if descriptor.size > limit {
            return Err(TransferError::TooLarge { what: "document", limit });
        }
        blob::document(self.blob(repository, descriptor, 0, login, cancel)?, descriptor)
    }

    /// Asks whether a repository has a blob, and how long it is.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn has_blob(&self, repository: &Reference, digest: &Digest, login: &Login, cancel: &Cancel) -> Result<Option<u64>, TransferError> {
        self.at(repository.domain(), ITSELF, login, cancel, async |registry| upload::has(&registry, repository, digest).await)
    }

    /// Asks the registry to take a blob over from another of its repositories; `false` where it wants an upload instead.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn mount_blob(
        &self,
        repository: &Reference,
        digest: &Digest,
        from: &Reference,
        login: &Login,
        cancel: &Cancel,
    ) -> Result<bool, TransferError> {
        if from.domain() != repository.domain() {
            return Ok(false);
        }
        self.at(repository.domain(), ITSELF, login, cancel, async |registry| upload::mount(&registry, repository, digest, from).await)
    }

    /// Sends a blob.
    ///
    /// `open` gives the bytes from the beginning, once for every try. `progress` is told how many bytes of the present try have
    /// been sent, on the calling thread; the number falls when a try begins anew.
    ///
    /// # Errors
    /// [`TransferError::Source`] where the bytes cannot be read, and all the others.
    #[expect(clippy::too_many_arguments, reason = "each is something else")]
    pub fn put_blob(
        &self,
        repository: &Reference,
        digest: &Digest,
        size: u64,
        open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
        progress: &(dyn Fn(u64) + Sync),
        login: &Login,
        cancel: &Cancel,
    ) -> Result<(), TransferError> {
        let content = Content { digest, size, open, progress };
        self.at(repository.domain(), ITSELF, login, cancel, async |registry| upload::put(&registry, repository, &content).await)
    }

    /// Sends a manifest under the reference's digest, or under its tag. Says which digest the registry gave it.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
        login: &Login,
        cancel: &Cancel,
    ) -> Result<Digest, TransferError> {
        self.at(reference.domain(), ITSELF, login, cancel, async |registry| manifest::put(&registry, reference, media_type, bytes).await)
    }

    /// Deletes a manifest by its digest, or a tag.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn delete_manifest(&self, reference: &Reference, login: &Login, cancel: &Cancel) -> Result<(), TransferError> {
        self.at(reference.domain(), ITSELF, login, cancel, async |registry| manifest::delete(&registry, reference).await)
    }

    /// Lists the tags of a repository, in the registry's order.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn tags(&self, repository: &Reference, login: &Login, cancel: &Cancel) -> Result<Vec<String>, TransferError> {
        self.at(repository.domain(), ITSELF, login, cancel, async |registry| lists::tags(&registry, repository).await)
    }

    /// Lists the repositories of a registry, at most so many.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn catalog(&self, host: &str, limit: usize, login: &Login, cancel: &Cancel) -> Result<Vec<String>, TransferError> {
        self.at(login::domain_of(host), ITSELF, login, cancel, async |registry| lists::catalog(&registry, limit).await)
    }

    /// Lists what refers to a manifest: signatures, lists of contents. Registries without that list are asked for the tag that
    /// the specification puts in its place.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn referrers(
        &self,
        repository: &Reference,
        digest: &Digest,
        artifact_type: Option<&str>,
        login: &Login,
        cancel: &Cancel,
    ) -> Result<Vec<Descriptor>, TransferError> {
        self.at(repository.domain(), ITSELF, login, cancel, async |registry| {
            referrers::list(&registry, repository, digest, artifact_type).await
        })
    }

    /// Proves a login to a registry (`docker.io`, `HOST[:PORT]`, or Docker Hub's `https://index.docker.io/v1/`).
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn login(&self, host: &str, login: &Login, cancel: &Cancel) -> Result<LoginAnswer, TransferError> {
        self.at(login::domain_of(host), ITSELF, login, cancel, async |registry| login::prove(&registry).await)
    }

    /// Searches a registry: by its search API, or where it has none by filtering its catalog.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn search(&self, host: &str, term: &str, limit: usize, login: &Login, cancel: &Cancel) -> Result<Vec<SearchItem>, TransferError> {
        self.at(login::domain_of(host), ITSELF, login, cancel, async |registry| search::search(&registry, term, limit).await)
    }

    /// Work for a registry: with [`MIRRORS_TOO`] its mirrors do it first.
    fn at<T>(
        &self,
        domain: &str,
        with_mirrors: bool,
        login: &Login,
        cancel: &Cancel,
        work: impl AsyncFnMut(Registry) -> Result<T, TransferError>,
    ) -> Result<T, TransferError> {
        block(&self.state, cancel, with_registry(&self.state, domain, login, with_mirrors, &self.waiting, work))
    }
}
