//! Removing names, images and layers.

use crate::find::ImageFilter;
use crate::{Image, ImageError, Images};

/// One thing that a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// An image or layer is gone.
    Deleted(String),
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What is gone.
    pub removed: Vec<Removed>,
    /// Bytes of the layers that are gone.
    pub space: u64,
}

/// A container that uses an image: its id, and whether it runs.
type User = (String, bool);

impl Images {
    /// Removes a name, and the image when it was the last one and nobody uses it. `users` tells the containers of an image.
    ///
    /// # Errors
    /// [`ImageError::Conflict`] with Docker's texts.
    pub fn remove(&self, name: &str, force: bool, users: &dyn Fn(&str) -> Vec<User>) -> Result<Vec<Removed>, ImageError> {
        let _collecting = self.collect();
        let image = self.resolve(name)?;
        let _change = self.begin();
        let by_id = image.id.0.hex().starts_with(name.strip_prefix("sha256:").unwrap_or(name));
        let users = users(&image.id.to_string());
        let named = sampan_oci::Reference::parse_normalized(name).ok().map(|reference| reference.with_default_tag().familiar());
        let tag = named.filter(|name| image.references.contains(name));
        match tag {
            Some(tag) => self.remove_name(&image, &tag, force, &users),
            None if by_id => self.remove_by_id(&image, force, &users),
            None => Err(ImageError::NotFound(name.to_owned())),
        }
    }

    fn remove_name(&self, image: &Image, tag: &str, force: bool, users: &[User]) -> Result<Vec<Removed>, ImageError> {
        let short = image.id.0.short();
        let last = image.references.len() == 1;
        if last
            && !force
            && let Some((container, _)) = users.first()
        {
            return Err(ImageError::Conflict(format!(
                "conflict: unable to remove repository reference \"{tag}\" (must force) - container {} is using its referenced image {short}",
                container.get(..12).unwrap_or(container)
            )));
        }
        self.untag(tag)?;
        self.event("untag", &image.id.to_string(), &image.id.to_string());
        let mut removed = vec![Removed::Untagged(tag.to_owned())];
        if last && users.is_empty() && !self.has_children(image)? {
            removed.extend(self.delete(image)?);
        }
        Ok(removed)
    }

    fn remove_by_id(&self, image: &Image, force: bool, users: &[User]) -> Result<Vec<Removed>, ImageError> {
        let short = image.id.0.short();
        let conflict = |how: &str, why: String| Err(ImageError::Conflict(format!("conflict: unable to delete {short} ({how}) - {why}")));
        if let Some((container, _)) = users.iter().find(|(_, running)| *running) {
            return conflict(
                "cannot be forced",
                format!("image is being used by running container {}", container.get(..12).unwrap_or(container)),
            );
        }
        if self.has_children(image)? {
            return conflict("cannot be forced", "image has dependent child images".into());
        }
        let repositories: std::collections::BTreeSet<&str> =
            image.references.iter().map(|name| name.rsplit_once(':').map_or(name.as_str(), |(name, _)| name)).collect();
        if !force && repositories.len() > 1 {
            return conflict("must be forced", "image is referenced in multiple repositories".into());
        }
        if !force && let Some((container, _)) = users.first() {
            return conflict(
                "must be forced",
                format!("image is being used by stopped container {}", container.get(..12).unwrap_or(container)),
            );
        }
        let mut removed = Vec::new();
        for tag in &image.references {
            self.untag(tag)?;
            self.event("untag", &image.id.to_string(), &image.id.to_string());
            removed.push(Removed::Untagged(tag.clone()));
        }
        // With a stopped container only the names go: its layers are still needed.
        if users.is_empty() {
            removed.extend(self.delete(image)?);
        }
        Ok(removed)
    }

    fn has_children(&self, image: &Image) -> Result<bool, ImageError> {
        Ok(self.store().images()?.iter().any(|row| row.parent.as_deref() == Some(image.id.to_string().as_str())))
    }

    fn untag(&self, familiar: &str) -> Result<(), ImageError> {
        let reference = sampan_oci::Reference::parse_normalized(familiar)?;
        Ok(self.store().delete_tag(&reference.to_string())?)
    }

    fn delete(&self, image: &Image) -> Result<Vec<Removed>, ImageError> {
        self.store().delete_image(&image.id)?;
        self.event("delete", &image.id.to_string(), &image.id.to_string());
        let mut removed = vec![Removed::Deleted(image.id.to_string())];
        let chains = sampan_oci::chain_ids(image.layers());
        for layer in self.store().collect_layers()? {
            let position = image.layers().iter().position(|known| *known == layer.diff_id);
            let chain = position.and_then(|position| chains.get(position)).map_or_else(|| layer.diff_id.to_string(), ToString::to_string);
            removed.push(Removed::Deleted(chain));
        }
        Ok(removed)
    }

    /// Removes images that no container uses: those without a name, or with `all` every one. `filter` narrows.
    ///
    /// # Errors
    /// A failing database.
    pub fn prune(&self, all: bool, filter: &ImageFilter, users: &dyn Fn(&str) -> Vec<User>) -> Result<Pruned, ImageError> {
        let _collecting = self.collect();
        let sizes = self.layer_sizes()?;
        let steps = self.build_steps()?;
        let mut pruned = Pruned::default();
        for image in self.list(filter)? {
            // What the builder remembers is its own to prune.
            if image.references.is_empty() && steps.contains(&image.id.to_string()) {
                continue;
            }
            if !(all || image.references.is_empty()) || !users(&image.id.to_string()).is_empty() || self.has_children(&image)? {
                continue;
            }
            let _change = self.begin();
            for tag in &image.references {
                self.untag(tag)?;
                pruned.removed.push(Removed::Untagged(tag.clone()));
            }
            pruned.removed.extend(self.delete(&image)?);
        }
        let left = self.layer_sizes()?;
        pruned.space = sizes.iter().filter(|(layer, _)| !left.contains_key(*layer)).map(|(_, size)| *size).sum();
        self.event("prune", "", "");
        Ok(pruned)
    }

    /// Removes steps of builds that the builder has forgotten, leaves first: those without a name, a child and a user.
    ///
    /// # Errors
    /// A failing database.
    pub fn remove_steps(&self, steps: &[String], users: &dyn Fn(&str) -> Vec<User>) -> Result<u64, ImageError> {
        let _collecting = self.collect();
        let sizes = self.layer_sizes()?;
        let mut left: std::collections::HashSet<&String> = steps.iter().collect();
        loop {
            let all = self.all()?;
            let parents: std::collections::HashSet<&str> = all.iter().filter_map(|image| image.parent.as_deref()).collect();
            let is_free = |image: &&Image| {
                let id = image.id.to_string();
                image.references.is_empty() && !parents.contains(id.as_str()) && left.contains(&id) && users(&id).is_empty()
            };
            let free: Vec<&Image> = all.iter().filter(is_free).collect();
            if free.is_empty() {
                break;
            }
            let _change = self.begin();
            for image in free {
                self.delete(image)?;
                left.remove(&image.id.to_string());
            }
        }
        let kept = self.layer_sizes()?;
        Ok(sizes.iter().filter(|(layer, _)| !kept.contains_key(*layer)).map(|(_, size)| *size).sum())
    }
}
