//! The state of a stage after a step: its image, its layers, the digest of its tree.

use std::sync::Arc;

use sampan_oci::{DiffId, ImageConfig, ImageId, chain_ids};

use crate::plan::Step;

/// What a step has made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Link {
    /// `None`: an empty root.
    pub(crate) image: Option<ImageId>,
    /// Lowest first.
    pub(crate) layers: Vec<DiffId>,
    /// Digest of the tree, without times.
    pub(crate) tree: String,
    /// The image's configuration, history with its times.
    pub(crate) config: Arc<ImageConfig>,
}

impl Link {
    /// An empty root.
    pub(crate) fn scratch(config: Arc<ImageConfig>) -> Self {
        Self { image: None, layers: Vec::new(), tree: "scratch".into(), config }
    }

    /// An image's root.
    pub(crate) fn image(id: ImageId, config: ImageConfig) -> Self {
        let layers = config.rootfs.diff_ids.clone();
        let tree = chain_ids(&layers).last().map_or_else(|| "scratch".to_owned(), ToString::to_string);
        Self { image: Some(id), layers, tree, config: Arc::new(config) }
    }

    /// The configuration after a step on top of this one. `layer` is what it added.
    pub(crate) fn configured(&self, step: &Step, layer: Option<&DiffId>, created: &str) -> ImageConfig {
        let mut config = ImageConfig::clone(&step.config_after);
        config.created = Some(created.to_owned());
        config.history.clone_from(&self.config.history);
        if self.image.is_none() {
            config.history.clear();
        }
        if let Some(mut entry) = step.history.clone() {
            entry.created = Some(created.to_owned());
            config.history.push(entry);
        }
        config.rootfs.kind = "layers".into();
        config.rootfs.diff_ids.clone_from(&self.layers);
        config.rootfs.diff_ids.extend(layer.cloned());
        config
    }

    /// The state after a step that added a layer.
    pub(crate) fn grown(&self, image: ImageId, config: ImageConfig, tree: &str) -> Self {
        let tree = super::key::hash(&format!("{}+{tree}", self.tree));
        Self { image: Some(image), layers: config.rootfs.diff_ids.clone(), tree, config: Arc::new(config) }
    }
}
