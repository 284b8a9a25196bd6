//! Images that are offered as a cache (`--cache-from`): what their histories say was done before.
//!
//! As on Docker, an image fits as long as its history and its layers begin with those of the build. Its word is taken for commands,
//! so it must come from somebody trusted. It does not tell which files were copied: copies are made, and then compared.

use sampan_images::Images;
use sampan_oci::{DiffId, ImageConfig};

use super::chain::Link;
use crate::plan::{Exec, Network, Op, Security, Step};

/// The offered images that are here.
#[derive(Debug, Default)]
pub(crate) struct Offers(Vec<(String, ImageConfig)>);

/// What an image says of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The image, as it was offered.
    pub(crate) image: String,
    /// When the step was done.
    pub(crate) created: String,
    /// What it added; `None` where only the configuration changed.
    pub(crate) layer: Option<DiffId>,
}

impl Offers {
    /// The images of some names. What is not here is no failure.
    pub(crate) fn load(images: &Images, names: &[String]) -> Self {
        let load = |name: &String| Some((name.clone(), images.resolve(name).ok()?.config));
        Self(names.iter().filter_map(load).collect())
    }

    /// Their layers.
    pub(crate) fn layers(&self) -> Vec<DiffId> {
        self.0.iter().flat_map(|(_, config)| config.rootfs.diff_ids.iter().cloned()).collect()
    }

    /// Finds an image in which a step was done at the same point.
    pub(crate) fn find(&self, link: &Link, step: &Step) -> Option<Offer> {
        self.0.iter().find_map(|(name, config)| fits(link, step, config).map(|offer| Offer { image: name.clone(), ..offer }))
    }
}

fn fits(link: &Link, step: &Step, offered: &ImageConfig) -> Option<Offer> {
    let wanted = step.history.as_ref()?;
    let before = if link.image.is_some() { link.config.history.as_slice() } else { &[] };
    let entry = offered.history.get(before.len())?;
    let same_step = entry.created_by == wanted.created_by && entry.empty_layer == wanted.empty_layer && entry.comment == wanted.comment;
    let platform = |config: &ImageConfig| (config.os.clone(), config.architecture.clone(), config.variant.clone());
    let same_start = offered.history.starts_with(before)
        && offered.rootfs.diff_ids.starts_with(&link.layers)
        && platform(offered) == platform(&step.config_after);
    if !same_step || !same_start {
        return None;
    }
    let layer = if wanted.empty_layer { None } else { Some(offered.rootfs.diff_ids.get(link.layers.len())?.clone()) };
    Some(Offer { image: String::new(), created: entry.created.clone()?, layer })
}

/// Whether the history of an image says all that a step does.
pub(crate) fn is_told(op: Option<&Op>) -> bool {
    match op {
        None => true,
        Some(Op::Exec(exec)) => {
            let Exec { mounts, network, security, devices, .. } = &**exec;
            mounts.is_empty() && devices.is_empty() && *network == Network::Default && *security == Security::Sandbox
        }
        Some(_) => false,
    }
}
