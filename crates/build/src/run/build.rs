//! A build under way: what its steps share, which of them need which, and its image.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use sampan_base::Cancel;
use sampan_oci::{ImageConfig, ImageId, Reference};

use super::builder::Builder;
use super::chain::Link;
use super::download::Downloads;
use super::error::BuildError;
use super::event::Watcher;
use super::git::Checkout;
use super::key::{Parts, hash};
use super::offers::Offers;
use super::request::Resources;
use super::schedule::Needs;
use crate::files::Source;
use crate::plan::{Graph, Op, OpId, Step};

/// One build under way.
pub(crate) struct Run<'a> {
    pub(crate) builder: &'a Builder,
    pub(crate) graph: &'a Graph,
    pub(crate) context: Option<Arc<dyn Source>>,
    pub(crate) resources: Resources,
    pub(crate) watch: Watcher<'a>,
    pub(crate) cancel: Cancel,
    /// Which step makes an operation's result.
    pub(crate) makers: HashMap<OpId, usize>,
    pub(crate) downloads: Downloads,
    pub(crate) offers: Offers,
    /// They go with the build.
    pub(crate) checkouts: Mutex<Vec<Checkout>>,
    /// Which place of which Dockerfile each step is.
    pub(super) places: Vec<String>,
    started: jiff::Timestamp,
}

impl<'a> Run<'a> {
    /// Begins a build; `name` is the image's first name.
    pub(crate) fn new(
        builder: &'a Builder,
        graph: &'a Graph,
        context: Arc<dyn Source>,
        resources: Resources,
        watch: Watcher<'a>,
        cancel: &Cancel,
        name: Option<&Reference>,
    ) -> Self {
        let makers = graph.steps.iter().enumerate().filter_map(|(number, step)| Some((step.op?, number))).collect();
        Self {
            builder,
            graph,
            context: Some(context),
            resources,
            watch,
            cancel: cancel.clone(),
            makers,
            downloads: Downloads::default(),
            offers: Offers::default(),
            checkouts: Mutex::default(),
            places: places(graph, name),
            started: jiff::Timestamp::now(),
        }
    }

    /// The same with images that may have done steps before.
    pub(crate) fn with_offers(self, offers: Offers) -> Self {
        Self { offers, ..self }
    }

    pub(crate) fn now(&self) -> (i64, u32) {
        (self.started.as_second(), u32::try_from(self.started.subsec_nanosecond()).unwrap_or(0))
    }

    /// What every key has.
    pub(crate) fn parts(&self, link: &Link) -> Parts {
        Parts::default()
            .with("base", link.tree.clone())
            .with("platform", format!("{}/{}/{}", link.config.os, link.config.architecture, link.config.variant))
    }

    pub(crate) fn image_link(&self, id: &ImageId) -> Result<Link, BuildError> {
        let bytes = self.builder.store.image_config(&id.to_string()).map_err(|error| BuildError::room("", &error))?;
        let bytes = bytes.ok_or_else(|| BuildError::invalid(format!("No such image: {id}")))?;
        let config = ImageConfig::parse(&bytes).map_err(|error| BuildError::invalid(error.to_string()))?;
        Ok(Link::image(id.clone(), config))
    }

    /// The last step of the stage that a stage begins with, if it begins with one.
    pub(super) fn base_step(&self, number: usize) -> Option<usize> {
        let step = &self.graph.steps[number];
        let stage = self.graph.stages.iter().find(|stage| stage.steps.contains(&number))?;
        let name = stage.base_name.to_lowercase();
        let named =
            self.graph.stages.iter().rev().filter(|other| other.index < stage.index).find(|other| other.name == name && !name.is_empty());
        if let Some(other) = named {
            return other.steps.end.checked_sub(1);
        }
        if step.root.is_some_and(|root| matches!(self.graph.ops.get(root.0), Some(Op::Image { .. }))) {
            return None;
        }
        step.root.and_then(|root| self.makers.get(&root).copied())
    }

    /// What each step waits for.
    pub(super) fn needs(&self) -> Needs {
        let of = |number: usize| {
            let step = &self.graph.steps[number];
            let mut needs: Vec<usize> = Vec::new();
            if step.from {
                needs.extend(self.base_step(number))
            } else {
                needs.extend(number.checked_sub(1))
            }
            let mut inputs: Vec<Option<OpId>> = Vec::new();
            match step.op.and_then(|op| self.graph.ops.get(op.0)) {
                Some(Op::File(file)) => inputs.extend(super::file::copies(&file.actions).map(|copy| copy.from)),
                Some(Op::Exec(exec)) => inputs.extend(exec.mounts.iter().map(|mount| mount.from)),
                _ => {}
            }
            needs.extend(inputs.into_iter().flatten().filter_map(|op| self.makers.get(&op).copied()));
            needs
        };
        Needs((0..self.graph.steps.len()).map(of).collect())
    }

    /// The image of the whole build: the last step's, with what the request adds.
    pub(super) fn result(&self, last: &Link) -> Result<ImageId, BuildError> {
        let wanted = &self.graph.result.config;
        let same = last.config.config == wanted.config && last.config.architecture == wanted.architecture && last.config.os == wanted.os;
        if let (true, Some(image)) = (same, &last.image) {
            return Ok(image.clone());
        }
        let mut config = ImageConfig::clone(wanted);
        config.history.clone_from(&last.config.history);
        config.rootfs.kind = "layers".into();
        config.rootfs.diff_ids.clone_from(&last.layers);
        config.created.clone_from(&last.config.created);
        if last.image.is_none() {
            config.history.clear();
        }
        self.builder.images.create(&config, last.image.as_ref()).map_err(|error| BuildError::room("", &error))
    }
}

/// Names the place of each step: instructions are counted by their keyword, so that a new one in between moves no other.
fn places(graph: &Graph, name: Option<&Reference>) -> Vec<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let name = name.map(Reference::familiar_name).unwrap_or_default();
    let one = |step: &Step| {
        let keyword = step.text.split_whitespace().next().unwrap_or_default();
        let place = format!("{name}\n{}\n{keyword}", step.stage);
        let count = counts.entry(place.clone()).or_default();
        *count += 1;
        hash(&format!("{place}\n{count}"))
    };
    graph.steps.iter().map(one).collect()
}
