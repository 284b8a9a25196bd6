//! Who asks, and what they may do: users, passwords, tokens, anonymous rights.
//!
//! A password is checked once a minute at most (a cache of successes, keyed by an HMAC of what was sent), a token's signature
//! once. Both caches are emptied when a user changes.

mod password;
mod token;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

use crate::store::{Meta, Role, User};

pub use password::{PasswordError, hash};
pub(crate) use token::{Access, Keys, Scope};

/// How long a checked password is remembered.
const REMEMBER: Duration = Duration::from_secs(60);
/// How many are remembered.
const REMEMBERED: usize = 10_000;
/// Failed logins of an address in [`WINDOW`] after which it must wait.
const FAILURES: u32 = 20;
/// The time over which failures are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// What those may do who do not say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// Nothing.
    None,
    /// Read.
    Pull,
    /// Read and write.
    Push,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Empty: nobody in particular.
    pub(crate) name: String,
    /// `None`: may do nothing.
    pub(crate) role: Option<Role>,
    /// What the token says that it is for; `None`: anything (a password was shown).
    pub(crate) scopes: Option<Vec<Scope>>,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthError {
    /// The password or token is wrong.
    Wrong,
    /// Too many wrong ones came from this address.
    TooMany,
    /// The database or a hash failed.
    Internal,
}

/// Everything that decides.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) keys: Keys,
    anonymous: Anonymous,
    cache_key: hmac::Key,
    passwords: Mutex<HashMap<[u8; 32], (User, Instant)>>,
    tokens: Mutex<HashMap<String, (Identity, Instant)>>,
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
    /// The hash of a password that nobody has: who is not there takes as long to be refused as who is.
    nobody: String,
    /// How many hashes may be computed at a time: each takes 19 MiB and tens of milliseconds.
    permits: tokio::sync::Semaphore,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Auth {
    /// With the key of a data root, made if there is none.
    pub(crate) fn open(root: &std::path::Path, anonymous: Anonymous) -> std::io::Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(std::io::Error::other)?;
        Ok(Self {
            keys: Keys::open(root)?,
            nobody: hash(&hex::encode(secret)).map_err(std::io::Error::other)?,
            anonymous,
            cache_key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            passwords: Mutex::default(),
            tokens: Mutex::default(),
            failures: Mutex::default(),
            permits: tokio::sync::Semaphore::new(2),
        })
    }

    /// Forgets what was checked: users have changed.
    pub(crate) fn forget(&self) {
        lock(&self.passwords).clear();
        lock(&self.tokens).clear();
    }

    /// Who does not say.
    pub(crate) fn nobody(&self) -> Identity {
        let role = match self.anonymous {
            Anonymous::None => None,
            Anonymous::Pull => Some(Role::Pull),
            Anonymous::Push => Some(Role::Push),
        };
        Identity { name: String::new(), role, scopes: None }
    }

    /// Checks a name and a password.
    pub(crate) async fn password(
        &self,
        meta: &std::sync::Arc<crate::store::Store>,
        name: &str,
        password: &str,
        from: IpAddr,
    ) -> Result<User, AuthError> {
        let mut context = hmac::Context::with_key(&self.cache_key);
        context.update(&(name.len() as u64).to_be_bytes());
        context.update(name.as_bytes());
        context.update(password.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        if let Some((user, time)) = lock(&self.passwords).get(&key)
            && time.elapsed() < REMEMBER
        {
            return Ok(user.clone());
        }
        self.check_failures(from)?;
        let _permit = self.permits.acquire().await.map_err(|_| AuthError::Internal)?;
        let (store, name, password, nobody) = (std::sync::Arc::clone(meta), name.to_owned(), password.to_owned(), self.nobody.clone());
        let checked = tokio::task::spawn_blocking(move || check(&store.meta, &name, &password, &nobody)).await;
        let user = match checked.map_err(|_| AuthError::Internal)? {
            Ok(user) => user,
            Err(error) => {
                self.count_failure(from);
                return Err(error);
            }
        };
        let mut passwords = lock(&self.passwords);
        if passwords.len() >= REMEMBERED {
            passwords.clear();
        }
        passwords.insert(key, (user.clone(), Instant::now()));
        Ok(user)
    }

    /// Checks a token that was given out here.
    pub(crate) fn token(&self, meta: &Meta, text: &str) -> Result<Identity, AuthError> {
        if let Some((identity, expires)) = lock(&self.tokens).get(text)
            && Instant::now() < *expires
        {
            return Ok(identity.clone());
        }
        let (claims, left) = self.keys.verify(text).ok_or(AuthError::Wrong)?;
        let mut identity = self.nobody();
        if !claims.sub.is_empty() {
            let user = meta.user(&claims.sub).map_err(|_| AuthError::Internal)?;
            let user = user.filter(|user| user.changed == claims.changed).ok_or(AuthError::Wrong)?;
            identity = Identity { name: user.name, role: Some(user.role), scopes: None };
        }
        identity.scopes = Some(claims.access);
        let mut tokens = lock(&self.tokens);
        if tokens.len() >= REMEMBERED {
            tokens.clear();
        }
        tokens.insert(text.to_owned(), (identity.clone(), Instant::now() + left));
        Ok(identity)
    }

    fn check_failures(&self, from: IpAddr) -> Result<(), AuthError> {
        let failures = lock(&self.failures);
        let too_many = failures.get(&from).is_some_and(|(count, since)| *count >= FAILURES && since.elapsed() < WINDOW);
        if too_many { Err(AuthError::TooMany) } else { Ok(()) }
    }

    fn count_failure(&self, from: IpAddr) {
        let mut failures = lock(&self.failures);
        if failures.len() >= REMEMBERED {
            failures.retain(|_, (_, since)| since.elapsed() < WINDOW);
        }
        let entry = failures.entry(from).or_insert((0, Instant::now()));
        if entry.1.elapsed() >= WINDOW {
            *entry = (0, Instant::now());
        }
        entry.0 += 1;
    }
}

fn check(meta: &Meta, name: &str, password: &str, nobody: &str) -> Result<User, AuthError> {
    let user = meta.user(name).map_err(|_| AuthError::Internal)?;
    let hash = user.as_ref().map_or(nobody, |user| user.hash.as_str());
    let fits = password::verify(hash, password);
    user.filter(|_| fits).ok_or(AuthError::Wrong)
}

impl Identity {
    /// Whether its role and its token allow something with a repository.
    pub(crate) fn may(&self, access: Access, repo: &str) -> bool {
        let role = self.role.is_some_and(|role| role >= access.role());
        let scope = self.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|scope| scope.allows(access, repo)));
        role && scope
    }

    /// Whether only the token is too narrow.
    pub(crate) fn needs_wider_token(&self, access: Access) -> bool {
        self.scopes.is_some() && self.role.is_some_and(|role| role >= access.role())
    }
}
