//! The engine's documents in the store: the one place that turns them into JSON and back.

use sampan_store::{ContainerRow, InsertError, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::EngineError;
use crate::model::{ContainerSpec, State, VolumeView};

/// The rows of a store.
#[derive(Debug)]
pub(crate) struct Rows<'a>(pub(crate) &'a Store);

fn print(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, EngineError> {
    serde_json::from_str(text)
        .map_err(|error| EngineError::Room { text: format!("damaged row of {what}: {error}"), kind: sampan_base::ErrorKind::Internal })
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn fail(error: sampan_store::DbError) -> EngineError {
    EngineError::room(&error)
}

impl Rows<'_> {
    pub(crate) fn insert_container(&self, spec: &ContainerSpec, state: &State) -> Result<(), EngineError> {
        let image = Some(spec.image_id.clone()).filter(|id| !id.is_empty());
        let row = ContainerRow { id: spec.id.clone(), name: spec.name.clone(), spec: print(spec), state: print(state), image };
        self.0.insert_container(&row).map_err(|error| match error {
            InsertError::NameTaken(owner) => crate::create::name_conflict(&spec.name, &owner),
            InsertError::Db(error) => fail(error),
        })
    }

    pub(crate) fn containers(&self) -> Result<Vec<(ContainerSpec, State)>, EngineError> {
        let rows = self.0.containers().map_err(fail)?;
        let both = |row: &ContainerRow| Ok((parse(&row.spec, &row.id)?, parse(&row.state, &row.id)?));
        rows.iter().map(both).collect()
    }

    pub(crate) fn update_state(&self, id: &str, state: &State) -> Result<(), EngineError> {
        self.0.update_container_state(id, &print(state)).map_err(fail)
    }

    pub(crate) fn update_spec(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        self.0.update_container_spec(&spec.id, &print(spec)).map_err(fail)
    }

    pub(crate) fn rename_container(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        self.0.rename_container(&spec.id, &spec.name, &print(spec)).map_err(fail)
    }

    pub(crate) fn delete_container(&self, id: &str) -> Result<(), EngineError> {
        self.0.delete_container(id).map_err(fail)
    }

    pub(crate) fn volumes(&self) -> Result<Vec<VolumeView>, EngineError> {
        self.0.volumes().map_err(fail)?.iter().map(|text| parse(text, "a volume")).collect()
    }

    pub(crate) fn volume(&self, name: &str) -> Result<Option<VolumeView>, EngineError> {
        self.0.volume(name).map_err(fail)?.map(|text| parse(&text, name)).transpose()
    }

    pub(crate) fn put_volume(&self, volume: &VolumeView) -> Result<(), EngineError> {
        self.0.put_volume(&volume.name, &print(volume)).map_err(fail)
    }

    pub(crate) fn delete_volume(&self, name: &str) -> Result<(), EngineError> {
        self.0.delete_volume(name).map_err(fail)
    }

    /// After the folder of a removed volume went.
    pub(crate) fn forget_volume(&self, name: &str) -> Result<(), EngineError> {
        self.0.forget_volume(name).map_err(fail)
    }
}
