//! How long the common requests take: the life of a container, a further process.

use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::api::Api;
use super::{Engines, Row, median};

/// Rounds of each timing.
const ROUNDS: usize = 25;

/// Create, start, wait, delete.
pub(super) fn lifecycle(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    in_turn("lifecycle", engines, one_life)
}

/// One life of a container: milliseconds.
pub(super) fn one_life(api: &Api) -> anyhow::Result<f64> {
    life(api, &json!({"Image": "box", "Cmd": ["true"]}))
}

/// The same without a network: what bare runtimes do.
pub(super) fn life_without_network(api: &Api) -> anyhow::Result<f64> {
    life(api, &json!({"Image": "box", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}))
}

fn life(api: &Api, request: &Value) -> anyhow::Result<f64> {
    let start = Instant::now();
    let id = api.create_from(request)?;
    api.start(&id)?;
    api.post(&format!("/containers/{id}/wait"), "")?;
    api.remove(&id)?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

/// A further process of a running container, from its creation to its end.
pub(super) fn exec(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let engines = &*engines;
    let prepare = |api: &Api| -> anyhow::Result<String> {
        let id = api.create(&["sleep", "300"], &[])?;
        api.start(&id)?;
        Ok(id)
    };
    let ids: Vec<String> = engines.both().map(prepare).collect::<Result<_, _>>()?;
    let work = |api: &Api| -> anyhow::Result<f64> {
        let id = ids.get(usize::from(!std::ptr::eq(api, &raw const engines.ours))).context("a container")?;
        let start = Instant::now();
        let exec = api.post(&format!("/containers/{id}/exec"), "{\"Cmd\":[\"true\"],\"AttachStdout\":true}")?;
        let exec = exec["Id"].as_str().context("an id")?.to_owned();
        api.call("POST", &format!("/exec/{exec}/start"), "application/json", b"{}")?;
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    };
    let rows = in_turn("exec", engines, work);
    for (api, id) in engines.both().zip(&ids) {
        api.remove(id)?;
    }
    rows
}

fn in_turn(name: &'static str, engines: &Engines, work: impl Fn(&Api) -> anyhow::Result<f64>) -> anyhow::Result<Vec<Row>> {
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (value, other) = (work(&engines.ours)?, engines.peer.as_ref().map(&work).transpose()?);
        // The first round warms up.
        if round > 0 {
            mine.push(value);
            theirs.extend(other);
        }
    }
    Ok(vec![Row::new(name, median(mine), (!theirs.is_empty()).then(|| median(theirs)), "ms")])
}
