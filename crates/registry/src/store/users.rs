//! Users: names, password hashes, roles.

use rusqlite::OptionalExtension as _;
use sampan_durable::DbError;

use super::Meta;

/// What a user may do, everywhere; each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read.
    Pull,
    /// Write and delete.
    Push,
    /// See the registry's own figures.
    Admin,
}

impl Role {
    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Admin => "admin",
        }
    }

    /// Reads what was typed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pull, Self::Push, Self::Admin].into_iter().find(|role| role.name() == text)
    }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// Argon2id in the PHC form.
    pub hash: String,
    /// The rights.
    pub role: Role,
    /// Goes up with every change, so that what was given out before is worth nothing.
    pub changed: i64,
}

impl Meta {
    /// All users by name.
    ///
    /// # Errors
    /// A failing database.
    pub fn users(&self) -> Result<Vec<User>, DbError> {
        self.db.read("list users", |connection| {
            connection.prepare_cached("SELECT name, hash, role, changed FROM users ORDER BY name")?.query_map([], user)?.collect()
        })
    }

    /// One user.
    ///
    /// # Errors
    /// A failing database.
    pub fn user(&self, name: &str) -> Result<Option<User>, DbError> {
        self.db.read("find a user", |connection| {
            connection.prepare_cached("SELECT name, hash, role, changed FROM users WHERE name = ?")?.query_row([name], user).optional()
        })
    }

    /// Adds a user; `false` when there is one of that name.
    ///
    /// # Errors
    /// A failing database.
    pub fn add_user(&self, name: &str, hash: &str, role: Role) -> Result<bool, DbError> {
        let changed = version();
        let values = rusqlite::params![name, hash, role.name(), changed];
        let count = self.db.write("add a user", |transaction| {
            transaction.execute("INSERT OR IGNORE INTO users (name, hash, role, changed) VALUES (?, ?, ?, ?)", values)
        })?;
        Ok(count > 0)
    }

    /// Gives a user another password, another role, or both; `false` when there is none.
    ///
    /// # Errors
    /// A failing database.
    pub fn change_user(&self, name: &str, hash: Option<&str>, role: Option<Role>) -> Result<bool, DbError> {
        let values = rusqlite::params![hash, role.map(Role::name), version(), name];
        let count = self.db.write("change a user", |transaction| {
            let text =
                "UPDATE users SET hash = coalesce(?1, hash), role = coalesce(?2, role), changed = max(changed + 1, ?3) WHERE name = ?4";
            transaction.execute(text, values)
        })?;
        Ok(count > 0)
    }

    /// Removes a user; `false` when there is none.
    ///
    /// # Errors
    /// A failing database.
    pub fn remove_user(&self, name: &str) -> Result<bool, DbError> {
        let count = self.db.write("remove a user", |transaction| transaction.execute("DELETE FROM users WHERE name = ?", [name]))?;
        Ok(count > 0)
    }
}

/// A user who is removed and added again is another one: microseconds tell them apart.
fn version() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn user(row: &rusqlite::Row<'_>) -> rusqlite::Result<User> {
    let role: String = row.get(2)?;
    // A role of a newer program gives the least.
    Ok(User { name: row.get(0)?, hash: row.get(1)?, role: Role::parse(&role).unwrap_or(Role::Pull), changed: row.get(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_come_change_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let meta = Meta::open(folder.path()).unwrap();
        assert!(meta.add_user("jane", "x", Role::Push).unwrap());
        assert!(!meta.add_user("jane", "y", Role::Pull).unwrap(), "a name is taken once");
        let before = meta.user("jane").unwrap().unwrap();
        assert!(meta.change_user("jane", None, Some(Role::Admin)).unwrap());
        let after = meta.user("jane").unwrap().unwrap();
        assert_eq!((after.hash.as_str(), after.role), ("x", Role::Admin));
        assert!(after.changed > before.changed);
        assert!(meta.remove_user("jane").unwrap() && !meta.remove_user("jane").unwrap());
        assert_eq!(meta.users().unwrap(), []);
    }
}
