//! Users, their passwords and roles. Blocking.
//!
//! Used by a running server, which notices changes, and by the commands that make them, on the same database.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use sampan_base::{ErrorKind, Secret};
use sampan_durable::{Db, DbError};

use crate::store::{now, random_id};

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read.
    Pull,
    /// Read and bring.
    Push,
    /// Read, bring, delete, and see figures.
    Admin,
}

impl Role {
    /// The name that commands take.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Admin => "admin",
        }
    }

    /// The role of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Pull, Self::Push, Self::Admin].into_iter().find(|role| role.name() == name)
    }
}

/// A user.
#[derive(Debug, Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// What he or she may do.
    pub role: Role,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Another one for each password.
    pub version: String,
    hash: Secret<String>,
}

impl User {
    /// Whether a password is this user's. Takes long on purpose.
    #[must_use]
    pub fn verify(&self, password: &str) -> bool {
        verify(self.hash.expose(), password)
    }
}

/// A change of users that failed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The name will not do.
    #[error("invalid user name: take 1 to 128 of letters, digits and . _ @ + -, beginning with a letter or digit")]
    Name,
    /// The password will not do.
    #[error("invalid password: take 1 to 1024 bytes without line ends")]
    Password,
    /// The name is taken.
    #[error("user {0} exists already")]
    Exists(String),
    /// There is no such user.
    #[error("no such user: {0}")]
    Unknown(String),
    /// The hash could not be made.
    #[error("hash password")]
    Hash(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database failed.
    #[error("change users")]
    Database(#[from] DbError),
}

impl sampan_base::Failure for UserError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name | Self::Password => ErrorKind::Invalid,
            Self::Exists(_) => ErrorKind::Conflict,
            Self::Unknown(_) => ErrorKind::NotFound,
            Self::Hash(_) | Self::Database(_) => ErrorKind::Internal,
        }
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= 128
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte))
}

/// Hashes a password with a salt of its own: argon2id.
///
/// # Errors
/// A password that will not do.
pub fn hash(password: &str) -> Result<String, UserError> {
    if password.is_empty() || password.len() > 1024 || password.contains(['\n', '\r', '\0']) {
        return Err(UserError::Password);
    }
    let hash = Argon2::default().hash_password(password.as_bytes()).map_err(|error| UserError::Hash(error.to_string().into()))?;
    Ok(hash.to_string())
}

fn verify(hash: &str, password: &str) -> bool {
    password.len() <= 1024
        && PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Takes as long as a check that matters.
pub(crate) fn waste_time(hash: &str, password: &str) {
    std::hint::black_box(verify(hash, password));
}

fn new_version() -> Result<String, UserError> {
    random_id().map_err(|error| UserError::Hash(error.into()))
}

/// Adds a user.
///
/// # Errors
/// [`UserError`].
pub fn add(db: &Db, name: &str, password: &str, role: Role) -> Result<(), UserError> {
    if !is_name(name) {
        return Err(UserError::Name);
    }
    let (hash, version) = (hash(password)?, new_version()?);
    let added = db.write("add user", |transaction| {
        let insert = "INSERT OR IGNORE INTO user (name, hash, role, version, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
        transaction.execute(insert, (name, hash, role.name(), version, now()))
    })?;
    if added == 0 { Err(UserError::Exists(name.to_owned())) } else { Ok(()) }
}

/// Gives a user another password, and with it ends all tokens of the old one.
///
/// # Errors
/// [`UserError`].
pub fn change_password(db: &Db, name: &str, password: &str) -> Result<(), UserError> {
    let (hash, version) = (hash(password)?, new_version()?);
    let changed = db.write("change password", |transaction| {
        transaction.execute("UPDATE user SET hash = ?2, version = ?3 WHERE name = ?1", (name, hash, version))
    })?;
    if changed == 0 { Err(UserError::Unknown(name.to_owned())) } else { Ok(()) }
}

/// Removes a user.
///
/// # Errors
/// [`UserError`].
pub fn remove(db: &Db, name: &str) -> Result<(), UserError> {
    let gone = db.write("remove user", |transaction| transaction.execute("DELETE FROM user WHERE name = ?1", [name]))?;
    if gone == 0 { Err(UserError::Unknown(name.to_owned())) } else { Ok(()) }
}

/// All users, by name.
///
/// # Errors
/// A failing database.
pub fn list(db: &Db) -> Result<Vec<User>, DbError> {
    db.read("list users", |connection| {
        let mut statement = connection.prepare_cached("SELECT name, hash, role, version, created_at FROM user ORDER BY name")?;
        let users = statement.query_map([], |row| {
            let role: String = row.get(2)?;
            // A role of a later program is the least one here.
            let role = Role::parse(&role).unwrap_or(Role::Pull);
            Ok(User { name: row.get(0)?, hash: Secret::new(row.get(1)?), role, version: row.get(3)?, created_at: row.get(4)? })
        })?;
        users.collect()
    })
}

type Known = (i64, Arc<HashMap<String, Arc<User>>>);

/// The users as a server knows them.
#[derive(Debug, Default)]
pub struct Users {
    known: RwLock<Known>,
}

impl Users {
    /// Looks whether users changed, and reads them if so.
    ///
    /// # Errors
    /// A failing database.
    pub fn refresh(&self, db: &Db) -> Result<(), DbError> {
        let count = db.read("look for changes of users", |connection| {
            connection.prepare_cached("SELECT count FROM change WHERE subject = 'user'")?.query_row([], |row| row.get::<_, i64>(0))
        })?;
        if self.known.read().unwrap_or_else(PoisonError::into_inner).0 == count {
            return Ok(());
        }
        // What changes after the count was read is seen at the next look.
        let users = list(db)?.into_iter().map(|user| (user.name.clone(), Arc::new(user))).collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = (count, Arc::new(users));
        Ok(())
    }

    /// A user as of the last look.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<User>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).1.get(name).cloned()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).1.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_come_change_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let db = crate::store::open_database(folder.path()).unwrap();
        let server = crate::store::open_database(folder.path()).unwrap();
        let users = Users::default();
        users.refresh(&server).unwrap();
        assert!(users.is_empty());
        add(&db, "anna", "secret", Role::Push).unwrap();
        assert!(matches!(add(&db, "anna", "other", Role::Push), Err(UserError::Exists(_))));
        users.refresh(&server).unwrap();
        let anna = users.get("anna").unwrap();
        assert!(anna.verify("secret") && !anna.verify("Secret") && !anna.verify(""));
        assert!(!format!("{anna:?}").contains("argon2"));
        change_password(&db, "anna", "new").unwrap();
        users.refresh(&server).unwrap();
        assert!(users.get("anna").unwrap().verify("new"));
        assert_ne!(users.get("anna").unwrap().version, anna.version);
        remove(&db, "anna").unwrap();
        users.refresh(&server).unwrap();
        assert!(users.get("anna").is_none());
        assert!(matches!(remove(&db, "anna"), Err(UserError::Unknown(_))));
    }

    #[test]
    fn names_and_passwords_have_limits() {
        let folder = tempfile::tempdir().unwrap();
        let db = crate::store::open_database(folder.path()).unwrap();
        for bad in ["", "a:b", "a b", "-a", "ü", &"a".repeat(129)] {
            assert!(matches!(add(&db, bad, "x", Role::Pull), Err(UserError::Name)), "{bad}");
        }
        for bad in ["", "a\nb", &"a".repeat(1025)] {
            assert!(matches!(add(&db, "a", bad, Role::Pull), Err(UserError::Password)));
        }
    }
}
