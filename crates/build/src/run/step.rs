//! One step: its keys, an earlier result where there is one, else its work in a fresh folder and its layer.

use std::path::Path;
use std::sync::Arc;

use sampan_images::BuiltLayer;
use sampan_oci::{DiffId, ImageConfig, ImageId};
use sampan_store::BuildRow;

use super::build::Run;
use super::builder::seconds;
use super::chain::Link;
use super::error::BuildError;
use super::event::Event;
use super::key::{Parts, hash};
use super::offers::{Offer, is_told};
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
        let mut keys = vec![work.parts.key()];
        if let (true, Some(Op::File(file))) = (work.loose, work.op) {
            keys.push(self.content_parts(file, work.link, get)?.key());
        }
        let reason = self.reason(work)?;
        let made = match self.known(work, &keys)? {
            Some(known) => known,
            None => self.fresh(work, reason, get)?,
        };
        self.remember(work, &made, keys)?;
        let mut link = self.image_link(&made.image)?;
        link.tree = if made.layer.is_empty() {
            work.link.tree.clone()
        } else {
            work.link.clone().grown(made.image, ImageConfig::clone(&link.config), &made.tree).tree
        };
        self.done(work.number, &link, made.cached, made.reason);
        Ok(link)
    }

    /// The result of the same operation on another image.
    fn known(&self, work: &Work<'_>, keys: &[String]) -> Result<Option<Made>, BuildError> {
        if work.op.is_none() || work.step.no_cache {
            return Ok(None);
        }
        for key in keys {
            if let Some(row) = self.find(key)?.filter(|row| !row.layer.is_empty()) {
                let layer: DiffId = row.layer.parse().map_err(|_| BuildError::invalid("a remembered layer without a digest"))?;
                let reason = "the same operation was done before".to_owned();
                return self.made(work, Some(&layer), &row.created, (row.tree, row.size), reason).map(Some);
            }
        }
        Ok(None)
    }

    /// Takes what an offered image has of a step, or does it.
    fn fresh(&self, work: &Work<'_>, reason: String, get: Get<'_>) -> Result<Made, BuildError> {
        let offer = if work.step.no_cache { None } else { self.offers.find(work.link, work.step) };
        if let Some(offer) = offer.as_ref().filter(|_| is_told(work.op)) {
            return self.take(work, offer);
        }
        let created = jiff::Timestamp::now().to_string();
        let Some(op) = work.op else {
            let made = self.made(work, None, &created, (String::new(), 0), reason)?;
            return Ok(Made { cached: false, ..made });
        };
        match self.execute(work, op, (&created, offer.as_ref()), get)? {
            None => offer.map_or_else(|| Err(BuildError::invalid("a result that nobody has")), |offer| self.take(work, &offer)),
            Some(built) => {
                let (layer, tree) = (built.diff_id.to_string(), built.tree);
                Ok(Made { image: built.image, layer, tree, size: built.content, created, cached: false, reason })
            }
        }
    }

    /// The result that an offered image has.
    fn take(&self, work: &Work<'_>, offer: &Offer) -> Result<Made, BuildError> {
        let tree = offer.layer.as_ref().map(ToString::to_string).unwrap_or_default();
        self.made(work, offer.layer.as_ref(), &offer.created, (tree, 0), format!("{} has it", offer.image))
    }

    /// An image of a layer that is here.
    fn made(
        &self,
        work: &Work<'_>,
        layer: Option<&DiffId>,
        created: &str,
        (tree, size): (String, u64),
        reason: String,
    ) -> Result<Made, BuildError> {
        let config = work.link.configured(work.step, layer, created);
        let image = self.builder.images.create(&config, work.link.image.as_ref()).map_err(|error| BuildError::room("", &error))?;
        let layer = layer.map(ToString::to_string).unwrap_or_default();
        Ok(Made { image, layer, tree, size, created: created.to_owned(), cached: true, reason })
    }

    /// Keeps a result under its keys.
    fn remember(&self, work: &Work<'_>, made: &Made, keys: Vec<String>) -> Result<(), BuildError> {
        let row = BuildRow {
            key: work.key.clone(),
            place: String::new(),
            text: work.step.text.clone(),
            parts: String::new(),
            image: made.image.to_string(),
            tree: made.tree.clone(),
            layer: made.layer.clone(),
            size: made.size,
            created: made.created.clone(),
            used: seconds(),
            uses: u64::from(made.cached),
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
        self.builder.store.put_build_results(&rows).map_err(|error| BuildError::room("", &error))
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

    /// Does a step's work in a fresh folder and publishes what changed; `None` where the offered layer is the same.
    fn execute(&self, work: &Work<'_>, op: &Op, with: With<'_>, get: Get<'_>) -> Result<Option<BuiltLayer>, BuildError> {
        let store = &self.builder.store;
        let staging = store.staging().map_err(BuildError::io("make a staging folder"))?;
        let made = self.execute_in(&staging, work, op, with, get);
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
        (created, offer): With<'_>,
        get: Get<'_>,
    ) -> Result<Option<BuiltLayer>, BuildError> {
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
        if let (Some(offered), Op::File(_)) = (offer.and_then(|offer| offer.layer.as_ref()), op)
            && self.builder.images.is_same_tree(&layer.join("fs"), offered, &self.cancel).map_err(|error| BuildError::room("", &error))?
        {
            return Ok(None);
        }
        let complete = |diff_id: &DiffId| work.link.configured(work.step, Some(diff_id), created);
        self.builder
            .images
            .publish_upper(&layer, work.link.image.as_ref(), complete, &self.cancel)
            .map(Some)
            .map_err(|error| BuildError::room("", &error))
    }
}

/// When a step is done, and what an offered image has of it.
type With<'a> = (&'a str, Option<&'a Offer>);

/// A step's result.
struct Made {
    image: ImageId,
    /// Empty where only the configuration changed.
    layer: String,
    tree: String,
    size: u64,
    created: String,
    cached: bool,
    reason: String,
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
