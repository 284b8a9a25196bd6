//! From an `Authorization` header to who asks: passwords, tokens, and how often one may be wrong.
//!
//! Checking a password takes long on purpose, so few run at a time, and one that was right is remembered for a minute by an HMAC of
//! it under a key that no disk has seen.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use tokio::sync::Semaphore;

use crate::error::{Code, RegistryError, Result};
use crate::rights::Identity;
use crate::store::{Store, now};
use crate::token::{TokenKey, Use};
use crate::users::{self, Role, User, Users};

/// How long a password that was right is remembered.
const REMEMBER: Duration = Duration::from_secs(60);
/// The most entries of each memory.
const LIMIT: usize = 10_000;
/// Wrong passwords in a row that an address may give; one more every [`PAUSE`].
const PATIENCE: f64 = 20.0;
const PAUSE: Duration = Duration::from_secs(6);

/// A password that was right: until when, and for which version of it.
type Remembered = (Instant, Arc<User>);

/// All that decides who asks.
#[derive(Debug)]
pub(crate) struct Auth {
    users: Users,
    key: TokenKey,
    strangers: Option<Role>,
    /// A hash that no password has: checked for users that do not exist, so that both take the same time.
    nobody: String,
    remember: hmac::Key,
    right: Mutex<HashMap<[u8; 32], Remembered>>,
    wrong: Mutex<HashMap<IpAddr, (f64, Instant)>>,
    tokens: RwLock<HashMap<String, KnownToken>>,
    hashing: Semaphore,
}

#[derive(Debug, Clone)]
struct KnownToken {
    identity: Arc<Identity>,
    version: String,
    until: i64,
}

fn refused() -> RegistryError {
    RegistryError::new(Code::Unauthorized)
}

impl Auth {
    /// Reads users and key.
    ///
    /// # Errors
    /// A failing disk.
    pub(crate) fn open(store: &Store, root: &std::path::Path, strangers: Option<Role>) -> Result<Self> {
        let users = Users::default();
        users.refresh(store.reader())?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(std::io::Error::other)?;
        let nobody = users::hash(&hex::encode(secret)).map_err(std::io::Error::other)?;
        let at_once = std::thread::available_parallelism().map_or(1, |count| count.get().div_ceil(2));
        Ok(Self {
            users,
            key: TokenKey::open(root)?,
            strangers,
            nobody,
            remember: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            right: Mutex::default(),
            wrong: Mutex::default(),
            tokens: RwLock::default(),
            hashing: Semaphore::new(at_once),
        })
    }

    /// The users.
    #[must_use]
    pub(crate) fn users(&self) -> &Users {
        &self.users
    }

    /// The key of tokens.
    #[must_use]
    pub(crate) fn key(&self) -> &TokenKey {
        &self.key
    }

    /// What strangers may.
    #[must_use]
    pub(crate) fn strangers(&self) -> Option<Role> {
        self.strangers
    }

    /// Who asks.
    ///
    /// # Errors
    /// `UNAUTHORIZED` for wrong passwords and tokens; `TOOMANYREQUESTS` after too many of them.
    pub(crate) async fn identify(&self, store: &Arc<Store>, header: Option<&str>, client: IpAddr) -> Result<Arc<Identity>> {
        let Some(header) = header else { return Ok(Arc::new(Identity::stranger(self.strangers))) };
        let (scheme, value) = header.split_once(' ').ok_or_else(refused)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.by_token(value.trim());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(refused());
        }
        let (name, password) = parse_basic(value).ok_or_else(refused)?;
        let user = self.by_password(store, &name, &password, client).await?;
        Ok(Arc::new(Identity::user(&user.name, user.role)))
    }

    /// Who has a token: remembered while it lasts and the user's password is the same.
    fn by_token(&self, token: &str) -> Result<Arc<Identity>> {
        let known = self.tokens.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
        let known = match known {
            Some(known) => known,
            None => self.check_token(token)?,
        };
        if known.until < now() || !self.is_current(known.identity.user.as_deref(), &known.version) {
            return Err(RegistryError::say(Code::Unauthorized, "token is over"));
        }
        Ok(known.identity)
    }

    fn is_current(&self, user: Option<&str>, version: &str) -> bool {
        user.is_none_or(|user| self.users.get(user).is_some_and(|user| user.version == version))
    }

    fn check_token(&self, token: &str) -> Result<KnownToken> {
        let claims = self.key.check(token, Use::Access)?;
        let user = Some(claims.sub).filter(|name| !name.is_empty());
        let role = user.as_deref().and_then(|name| self.users.get(name)).map(|user| user.role);
        let identity = Arc::new(Identity::token(user, claims.access, role));
        let known = KnownToken { identity, version: claims.version, until: claims.exp };
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= LIMIT {
            let present = now();
            tokens.retain(|_, known| known.until >= present);
        }
        if tokens.len() < LIMIT {
            tokens.insert(token.to_owned(), known.clone());
        }
        Ok(known)
    }

    /// The user of a refresh token.
    ///
    /// # Errors
    /// `UNAUTHORIZED`.
    pub(crate) fn by_refresh_token(&self, store: &Store, token: &str) -> Result<Arc<User>> {
        let claims = self.key.check(token, Use::Refresh)?;
        self.users.refresh(store.reader())?;
        self.users.get(&claims.sub).filter(|user| user.version == claims.version).ok_or_else(refused)
    }

    /// The user of a password.
    ///
    /// # Errors
    /// `UNAUTHORIZED`; `TOOMANYREQUESTS`.
    pub(crate) async fn by_password(&self, store: &Arc<Store>, name: &str, password: &str, client: IpAddr) -> Result<Arc<User>> {
        tokio::task::block_in_place(|| self.users.refresh(store.reader()))?;
        let user = self.users.get(name);
        let mark = user.as_ref().map(|user| self.mark(user, password));
        if let Some(user) = self.remembered(mark) {
            return Ok(user);
        }
        self.check_patience(client)?;
        let permit = self.hashing.acquire().await.map_err(std::io::Error::other)?;
        // While this one waited, others of its address may have been right, or wrong too often.
        if let Some(user) = self.remembered(mark) {
            return Ok(user);
        }
        self.check_patience(client)?;
        let ours = user.clone();
        let (nobody, password) = (self.nobody.clone(), password.to_owned());
        let is_right = tokio::task::spawn_blocking(move || match ours {
            Some(user) => user.verify(&password),
            None => {
                users::waste_time(&nobody, &password);
                false
            }
        })
        .await
        .map_err(std::io::Error::other)?;
        drop(permit);
        match (user, mark) {
            (Some(user), Some(mark)) if is_right => {
                let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
                if right.len() >= LIMIT {
                    right.clear();
                }
                right.insert(mark, (Instant::now() + REMEMBER, Arc::clone(&user)));
                Ok(user)
            }
            _ => {
                self.note_wrong(client);
                Err(refused())
            }
        }
    }

    /// The user of a password that was right a short time ago.
    fn remembered(&self, mark: Option<[u8; 32]>) -> Option<Arc<User>> {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, user) = right.get(&mark?)?;
        (*until > Instant::now()).then(|| Arc::clone(user))
    }

    /// What stands for a right password. The version is in it, so a changed password is forgotten at once.
    fn mark(&self, user: &User, password: &str) -> [u8; 32] {
        let text = format!("{}\0{}\0{}\0{password}", user.name, user.version, user.role.name());
        let tag = hmac::sign(&self.remember, text.as_bytes());
        let mut mark = [0; 32];
        mark.copy_from_slice(tag.as_ref());
        mark
    }

    fn check_patience(&self, client: IpAddr) -> Result<()> {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        match wrong.get(&network(client)) {
            Some((count, at)) if count - rested(*at) >= PATIENCE => {
                Err(RegistryError::say(Code::TooManyRequests, "too many failed logins: wait a minute"))
            }
            _ => Ok(()),
        }
    }

    fn note_wrong(&self, client: IpAddr) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= LIMIT {
            wrong.retain(|_, (count, at)| *count > rested(*at));
        }
        if wrong.len() >= LIMIT {
            wrong.clear();
        }
        let entry = wrong.entry(network(client)).or_insert((0.0, Instant::now()));
        *entry = ((entry.0 - rested(entry.1)).max(0.0) + 1.0, Instant::now());
    }
}

/// How many wrong passwords the time since then forgives.
fn rested(at: Instant) -> f64 {
    at.elapsed().as_secs_f64() / PAUSE.as_secs_f64()
}

/// An IPv6 client owns a /64.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

/// Reads the value of `Authorization: Basic`.
#[must_use]
pub(crate) fn parse_basic(value: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.trim()).ok()?;
    let (name, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_read() {
        assert_eq!(parse_basic("dTpwOng="), Some(("u".into(), "p:x".into())));
        for bad in ["", "dTpw=", "dXA=", "/////", "\u{0}"] {
            assert_eq!(parse_basic(bad), None, "{bad}");
        }
    }

    #[test]
    fn neighbours_of_a_network_count_as_one() {
        let parse = |text: &str| network(text.parse().unwrap());
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:2"));
        assert_ne!(parse("2001:db8:0:1::1"), parse("2001:db8::1"));
        assert_eq!(parse("::ffff:10.0.0.1"), parse("10.0.0.1"));
    }
}
