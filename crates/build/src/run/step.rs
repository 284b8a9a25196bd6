//! One step: its keys, an earlier result where there is one, else its work in a fresh folder and its layer.

use std::path::Path;
use std::sync::Arc;

use sampan_oci::{DiffId, ImageConfig, ImageId};
use sampan_store::BuildRow;

use super::build::Run;
use super::builder::seconds;
use super::chain::Link;
use super::error::BuildError;
use super::event::Event;
use super::key::{Parts, hash};
use crate::files::Earlier;
use crate::plan::{Op, Step};

type Get<'a> = &'a dyn Fn(usize) -> Option<Link>;

impl Run<'_> {
    /// Carries one step out.
    pub(super) fn step(&self, number: usize, get: Get<'_>) -> Result<Link, BuildError> {
        self.cancel.check().map_err(|_| BuildError::Cancelled)?;
        let step = &self.graph.steps[number];
        (self.watch)(Event::Started(number));
        if step.from {
            let link = match (self.base_step(number), step.root.and_then(|root| self.graph.ops.get(root.0))) {
                (Some(other), _) => get(other).ok_or_else(|| BuildError::invalid("a stage that was not built"))?,
                (None, Some(Op::Image { image, .. })) => self.image_link(&image.id)?,
                (None, _) => Link::scratch(Arc::clone(&step.config_after)),
            };
            self.done(number, &link, false, String::new());
            return Ok(link);
        }
        let link = number.checked_sub(1).and_then(get).ok_or_else(|| BuildError::invalid("a step without a stage"))?;
        let op = step.op.and_then(|op| self.graph.ops.get(op.0));
        let (parts, loose) = match op {
            None => (Parts::default(), false),
            Some(Op::File(file)) => self.file_parts(file, &link, get)?,
            Some(Op::Exec(exec)) => (self.exec_parts(exec, &link, get)?, false),
            Some(_) => return Err(BuildError::unsupported("this operation as a step")),
        };
        let config = serde_json::to_string(&step.config_after.config).unwrap_or_default();
        let history = serde_json::to_string(&step.history).unwrap_or_default();
        let whole = Parts::default()
            .with("base", link.image.as_ref().map_or_else(|| "scratch".to_owned(), ToString::to_string))
            .with("instruction", hash(&history))
            .with("configuration", hash(&config))
            .with("operation", if op.is_some() { parts.key() } else { String::new() });
        let (whole_key, operation) = (whole.key(), if op.is_some() { parts } else { whole });
        let _flight = self.builder.flights.take_off(&whole_key, &self.cancel)?;
        if !step.no_cache
            && let Some(row) = self.find(&whole_key)?
        {
            return self.reuse(number, &link, &row);
        }
        let work = Work { number, step, link: &link, op, parts: operation, loose, key: whole_key };
        self.make(&work, get)
    }

    fn find(&self, key: &str) -> Result<Option<BuildRow>, BuildError> {
        self.builder.store.build_result(key).map_err(|error| BuildError::room("", &error))
    }

    fn done(&self, step: usize, link: &Link, cached: bool, reason: String) {
        (self.watch)(Event::Done { step, image: link.image.clone(), cached, reason });
    }

    /// The image of an earlier build.
    fn reuse(&self, number: usize, link: &Link, row: &BuildRow) -> Result<Link, BuildError> {
        let id: ImageId = row.image.parse().map_err(|_| BuildError::invalid("a remembered image without a digest"))?;
        let mut next = self.image_link(&id)?;
        next.tree =
            if row.layer.is_empty() { link.tree.clone() } else { link.clone().grown(id, ImageConfig::clone(&next.config), &row.tree).tree };
        self.builder.store.use_build_results(std::slice::from_ref(&row.key)).map_err(|error| BuildError::room("", &error))?;
        self.done(number, &next, true, format!("unchanged since {}", row.created));
        Ok(next)
    }

    /// Makes a step's result, from an earlier result of the same operation where there is one.
    fn make(&self, work: &Work<'_>, get: Get<'_>) -> Result<Link, BuildError> {
        let room = |error: sampan_store::DbError| BuildError::room("", &error);
        let created = jiff::Timestamp::now().to_string();
        let mut keys = vec![work.parts.key()];
        if let (true, Some(Op::File(file))) = (work.loose, work.op) {
            keys.push(self.content_parts(file, work.link, get)?.key());
        }
        let mut known = None;
        if work.op.is_some() && !work.step.no_cache {
            for key in &keys {
                known = known.or(self.find(key)?.filter(|row| !row.layer.is_empty()));
            }
        }
        let reason = self.reason(work)?;
        let (image, layer, tree, size, created, cached) = match (&known, work.op) {
            (Some(row), _) => {
                let layer: DiffId = row.layer.parse().map_err(|_| BuildError::invalid("a remembered layer without a digest"))?;
                let config = work.link.configured(work.step, Some(&layer), &row.created);
                let image = self.builder.images.create(&config, work.link.image.as_ref()).map_err(|error| BuildError::room("", &error))?;
                (image, row.layer.clone(), row.tree.clone(), row.size, row.created.clone(), true)
            }
            (None, None) => {
                let config = work.link.configured(work.step, None, &created);
                let image = self.builder.images.create(&config, work.link.image.as_ref()).map_err(|error| BuildError::room("", &error))?;
                (image, String::new(), String::new(), 0, created, false)
            }
            (None, Some(op)) => {
                let built = self.execute(work, op, &created, get)?;
                (built.image, built.diff_id.to_string(), built.tree, built.content, created, false)
            }
        };
        let row = BuildRow {
            key: work.key.clone(),
            place: String::new(),
            text: work.step.text.clone(),
            parts: String::new(),
            image: image.to_string(),
            tree: tree.clone(),
            layer: layer.clone(),
            size,
            created,
            used: seconds(),
            uses: u64::from(cached),
            result: false,
        };
        let mut rows = vec![row.clone()];
        for (number, key) in keys.into_iter().enumerate() {
            let place = if number == 0 { self.places[work.number].clone() } else { String::new() };
            // A configuration's own key is the step's.
            if work.op.is_some() {
                rows.push(BuildRow { key, place, parts: work.parts.print(), size: 0, ..row.clone() });
            } else {
                rows[0] = BuildRow { place, parts: work.parts.print(), ..row.clone() };
            }
        }
        self.builder.store.put_build_results(&rows).map_err(room)?;
        let mut link = self.image_link(&image)?;
        link.tree = if layer.is_empty() {
            work.link.tree.clone()
        } else {
            work.link.clone().grown(image, ImageConfig::clone(&link.config), &tree).tree
        };
        self.done(work.number, &link, cached, if cached { "the same operation was done before".into() } else { reason });
        Ok(link)
    }

    /// Why a step has to run.
    fn reason(&self, work: &Work<'_>) -> Result<String, BuildError> {
        if work.step.no_cache {
            return Ok("earlier results are not to be used".into());
        }
        let earlier = self.builder.store.build_place(&self.places[work.number]).map_err(|error| BuildError::room("", &error))?;
        Ok(earlier.map_or_else(
            || "no earlier result is known".to_owned(),
            |row| match work.parts.changes(&row.parts) {
                changes if changes.is_empty() => "its earlier result is gone".to_owned(),
                changes => changes,
            },
        ))
    }

    /// Does a step's work in a fresh folder and publishes what changed.
    fn execute(&self, work: &Work<'_>, op: &Op, created: &str, get: Get<'_>) -> Result<sampan_images::BuiltLayer, BuildError> {
        let store = &self.builder.store;
        let staging = store.staging().map_err(BuildError::io("make a staging folder"))?;
        let made = self.execute_in(&staging, work, op, created, get);
        if let Err(error) = store.discard(&staging) {
            tracing::warn!(%error, "cannot remove a staging folder");
        }
        made
    }

    /// The files of the last result at the same place of the Dockerfile.
    fn earlier(&self, work: &Work<'_>) -> Result<Option<Earlier>, BuildError> {
        let store = &self.builder.store;
        let room = |error: sampan_store::DbError| BuildError::room("", &error);
        let Some(row) = store.build_place(&self.places[work.number]).map_err(room)? else { return Ok(None) };
        let Ok(layer) = row.layer.parse() else { return Ok(None) };
        let layer = store.layer(&layer).map_err(room)?;
        Ok(layer.and_then(|layer| Earlier::open(&store.layer_folder(&layer))))
    }

    fn execute_in(
        &self,
        staging: &Path,
        work: &Work<'_>,
        op: &Op,
        created: &str,
        get: Get<'_>,
    ) -> Result<sampan_images::BuiltLayer, BuildError> {
        let fail = || BuildError::io("make the folder of a step");
        let (folder, layer) = (staging.join("run"), staging.join("layer"));
        for path in [folder.join("upper"), folder.join("work"), layer.clone()] {
            std::fs::create_dir_all(path).map_err(fail())?;
        }
        match op {
            Op::Exec(exec) => self.run_exec(work.number, exec, work.link, &folder, get)?,
            Op::File(file) => {
                let earlier = self.earlier(work)?;
                let record = self.apply_file(file, work.link, &folder, earlier, get)?;
                record.save(&layer).map_err(fail())?;
                let live = self.context.as_ref().is_some_and(|context| context.is_live());
                if live && self.file_parts(file, work.link, get)?.0 != work.parts {
                    return Err(BuildError::invalid("the build context changed while it was read: build again"));
                }
            }
            _ => return Err(BuildError::unsupported("this operation as a step")),
        }
        std::fs::rename(folder.join("upper"), layer.join("fs")).map_err(fail())?;
        let complete = |diff_id: &DiffId| work.link.configured(work.step, Some(diff_id), created);
        self.builder
            .images
            .publish_upper(&layer, work.link.image.as_ref(), complete, &self.cancel)
            .map_err(|error| BuildError::room("", &error))
    }
}

/// A step to be made.
struct Work<'a> {
    number: usize,
    step: &'a Step,
    link: &'a Link,
    op: Option<&'a Op>,
    parts: Parts,
    loose: bool,
    key: String,
}
