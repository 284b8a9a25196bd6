//! Containers and volumes: documents of crate `engine`, kept by id and name.

use rusqlite::{OptionalExtension as _, params};
use sampan_durable::DbError;

use crate::Store;

/// A container's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRow {
    /// 64 hex digits.
    pub id: String,
    /// Unique.
    pub name: String,
    /// What create decided.
    pub spec: String,
    /// What happened since.
    pub state: String,
    /// The image it pins.
    pub image: Option<String>,
}

/// A row that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// Another container has the name.
    #[error("name is taken by container {0}")]
    NameTaken(String),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Store {
    /// Writes a new container.
    ///
    /// # Errors
    /// [`InsertError`].
    pub fn insert_container(&self, row: &ContainerRow) -> Result<(), InsertError> {
        let owner = self.db.write("insert container", |transaction| {
            let owner: Option<String> =
                transaction.query_row("SELECT id FROM containers WHERE name = ?", [&row.name], |found| found.get(0)).optional()?;
            if owner.is_none() {
                let mut statement =
                    transaction.prepare_cached("INSERT INTO containers (id, name, spec, state, image) VALUES (?, ?, ?, ?, ?)")?;
                statement.execute(params![row.id, row.name, row.spec, row.state, row.image])?;
            }
            Ok(owner)
        })?;
        owner.map_or(Ok(()), |owner| Err(InsertError::NameTaken(owner)))
    }

    /// Every container.
    ///
    /// # Errors
    /// A failing database.
    pub fn containers(&self) -> Result<Vec<ContainerRow>, DbError> {
        self.db.read("list containers", |connection| {
            let mut statement = connection.prepare_cached("SELECT id, name, spec, state, image FROM containers")?;
            statement
                .query_map([], |row| {
                    Ok(ContainerRow { id: row.get(0)?, name: row.get(1)?, spec: row.get(2)?, state: row.get(3)?, image: row.get(4)? })
                })?
                .collect()
        })
    }

    /// Writes a container's state.
    ///
    /// # Errors
    /// A failing database.
    pub fn update_container_state(&self, id: &str, state: &str) -> Result<(), DbError> {
        self.db.write("write state", |transaction| {
            transaction.prepare_cached("UPDATE containers SET state = ? WHERE id = ?")?.execute([state, id]).map(drop)
        })
    }

    /// Writes what create decided and update changed.
    ///
    /// # Errors
    /// A failing database.
    pub fn update_container_spec(&self, id: &str, spec: &str) -> Result<(), DbError> {
        self.db.write("write container", |transaction| {
            transaction.execute("UPDATE containers SET spec = ? WHERE id = ?", [spec, id]).map(drop)
        })
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// A failing database, also for a taken name.
    pub fn rename_container(&self, id: &str, name: &str, spec: &str) -> Result<(), DbError> {
        self.db.write("rename container", |transaction| {
            transaction.execute("UPDATE containers SET name = ?, spec = ? WHERE id = ?", [name, spec, id]).map(drop)
        })
    }

    /// Removes a container's row.
    ///
    /// # Errors
    /// A failing database.
    pub fn delete_container(&self, id: &str) -> Result<(), DbError> {
        self.db.write("delete container", |transaction| {
            transaction.prepare_cached("DELETE FROM containers WHERE id = ?")?.execute([id]).map(drop)
        })
    }

    /// Every volume's document.
    ///
    /// # Errors
    /// A failing database.
    pub fn volumes(&self) -> Result<Vec<String>, DbError> {
        self.db.read("list volumes", |connection| {
            let mut statement = connection.prepare_cached("SELECT document FROM volumes ORDER BY name")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// One volume's document.
    ///
    /// # Errors
    /// A failing database.
    pub fn volume(&self, name: &str) -> Result<Option<String>, DbError> {
        self.db.read("find volume", |connection| {
            connection.query_row("SELECT document FROM volumes WHERE name = ?", [name], |row| row.get(0)).optional()
        })
    }

    /// Writes a volume.
    ///
    /// # Errors
    /// A failing database.
    pub fn put_volume(&self, name: &str, document: &str) -> Result<(), DbError> {
        self.db.write("write volume", |transaction| {
            transaction.execute("INSERT OR REPLACE INTO volumes VALUES (?, ?)", [name, document]).map(drop)
        })
    }

    /// Removes a volume's row, and remembers that its folder is to go: [`Store::forget_volume`] tells that it went.
    ///
    /// # Errors
    /// A failing database.
    pub fn delete_volume(&self, name: &str) -> Result<(), DbError> {
        self.db.write("delete volume", |transaction| {
            transaction.execute("INSERT OR REPLACE INTO facts VALUES (?, '')", [format!("{LEAVING}{name}")])?;
            transaction.execute("DELETE FROM volumes WHERE name = ?", [name]).map(drop)
        })
    }

    /// The folder of a removed volume is gone.
    ///
    /// # Errors
    /// A failing database.
    pub fn forget_volume(&self, name: &str) -> Result<(), DbError> {
        self.db.write("forget volume", |transaction| {
            transaction.execute("DELETE FROM facts WHERE key = ?", [format!("{LEAVING}{name}")]).map(drop)
        })
    }

    /// Removed volumes whose folders may still be there.
    pub(crate) fn leaving_volumes(&self) -> Result<Vec<String>, DbError> {
        self.db.read("list leaving volumes", |connection| {
            let mut statement = connection.prepare_cached("SELECT substr(key, 1 + length(?1)) FROM facts WHERE key LIKE ?1 || '%'")?;
            statement.query_map([LEAVING], |row| row.get(0))?.collect()
        })
    }
}

/// Begins the key of a fact: the volume named behind it is being removed.
const LEAVING: &str = "leaving volume ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpenError;

    fn row(id: &str, name: &str) -> ContainerRow {
        ContainerRow { id: id.into(), name: name.into(), spec: "{}".into(), state: "{}".into(), image: None }
    }

    #[test]
    fn rows_survive_a_restart_and_names_are_unique() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.insert_container(&row("a", "web")).unwrap();
        assert!(matches!(store.insert_container(&row("b", "web")), Err(InsertError::NameTaken(owner)) if owner == "a"));
        assert!(matches!(Store::open(folder.path()), Err(OpenError::Locked(_))), "one daemon for a data root");
        drop(store);
        assert_eq!(Store::open(folder.path()).unwrap().containers().unwrap(), [row("a", "web")]);
    }

    #[test]
    fn a_newer_layout_is_refused_and_rubbish_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        for rubbish in ["ingest/x", "layers/abc.1", "containers/gone"] {
            std::fs::create_dir_all(folder.path().join(rubbish)).unwrap();
        }
        drop(Store::open(folder.path()).unwrap());
        for rubbish in ["ingest/x", "layers/abc.1", "containers/gone"] {
            assert!(!folder.path().join(rubbish).exists(), "{rubbish}");
        }
        std::fs::write(folder.path().join("VERSION"), "9").unwrap();
        assert!(matches!(Store::open(folder.path()), Err(OpenError::Newer { found, .. }) if found == "9"));
    }
}
