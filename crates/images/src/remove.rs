//! Removing names, images and layers.

use sampan_oci::Reference;

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
    /// Removes a name, and the image when it was the last one and nobody uses it; with `prune` also what it was made from, as far as
    /// nothing else needs that. `users` tells the containers of an image.
    ///
    /// # Errors
    /// [`ImageError::Conflict`] with Docker's texts.
    pub fn remove(&self, name: &str, force: bool, prune: bool, users: &dyn Fn(&str) -> Vec<User>) -> Result<Vec<Removed>, ImageError> {
        if name.trim().is_empty() {
            return Err(ImageError::Invalid("image name cannot be blank".into()));
        }
        let _collecting = self.collect();
        let image = self.resolve(name)?;
        let _change = self.begin();
        let all_users = users;
        let users = users(&image.id.to_string());
        let named = Reference::parse_normalized(name).ok().map(Reference::with_default_tag);
        let named = named.map(|reference| match reference.digest() {
            Some(digest) => reference.with_digest(digest),
            None => reference,
        });
        let (id, parent) = (image.id.to_string(), image.parent.clone());
        let mut removed = if let Some(reference) = named.filter(|name| names(&image).contains(name)) {
            self.remove_name(image, &reference, force, &users)?
        } else if image.id.0.hex().starts_with(name.strip_prefix("sha256:").unwrap_or(name)) {
            self.remove_by_id(&image, force, &users)?
        } else {
            return Err(ImageError::NotFound(name.to_owned()));
        };
        if prune && removed.contains(&Removed::Deleted(id)) {
            removed.extend(self.delete_parents(parent, all_users)?);
        }
        Ok(removed)
    }

    /// Removes what a removed image was built on, as far as it has no name, no other child, no user and is not remembered by the
    /// builder.
    fn delete_parents(&self, mut next: Option<String>, users: &dyn Fn(&str) -> Vec<User>) -> Result<Vec<Removed>, ImageError> {
        let mut removed = Vec::new();
        let remembered: std::collections::HashSet<String> = self.store().build_results()?.into_iter().map(|row| row.image).collect();
        while let Some(id) = next.take() {
            let Ok(image) = self.resolve(&id) else { break };
            if !names(&image).is_empty() || remembered.contains(&id) || !users(&id).is_empty() || self.has_children(&image)? {
                break;
            }
            removed.extend(self.delete(&image)?);
            next = image.parent;
        }
        Ok(removed)
    }

    fn remove_name(&self, mut image: Image, name: &Reference, force: bool, users: &[User]) -> Result<Vec<Removed>, ImageError> {
        let short = image.id.0.short().to_owned();
        if is_single(&names(&image))
            && !force
            && let Some((container, _)) = users.first()
        {
            return Err(ImageError::Conflict(format!(
                "conflict: unable to remove repository reference \"{}\" (must force) - container {} is using its referenced image {short}",
                name.familiar(),
                container.get(..12).unwrap_or(container)
            )));
        }
        let mut removed = vec![self.take_name(&mut image, name)?];
        self.event("untag", &image.id.to_string(), &image.id.to_string());
        // Without a tag of its repository a name by digest goes along.
        let same = |other: &Reference| other.repository() == name.repository();
        let has_tag = names(&image).iter().any(|other| other.digest().is_none() && same(other));
        if name.digest().is_none() && !has_tag {
            for other in names(&image).iter().filter(|other| same(other)) {
                removed.push(self.take_name(&mut image, other)?);
            }
        }
        if names(&image).is_empty() && users.is_empty() && !self.has_children(&image)? {
            removed.extend(self.delete(&image)?);
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
        let all = names(image);
        if !force && !all.is_empty() && !is_single(&all) {
            return conflict("must be forced", "image is referenced in multiple repositories".into());
        }
        if !force && let Some((container, _)) = users.first() {
            return conflict(
                "must be forced",
                format!("image is being used by stopped container {}", container.get(..12).unwrap_or(container)),
            );
        }
        let (mut image, mut removed) = (image.clone(), Vec::new());
        for name in &all {
            removed.push(self.take_name(&mut image, name)?);
            self.event("untag", &image.id.to_string(), &image.id.to_string());
        }
        // With a stopped container only the names go: its layers are still needed.
        if users.is_empty() {
            removed.extend(self.delete(&image)?);
        }
        Ok(removed)
    }

    fn has_children(&self, image: &Image) -> Result<bool, ImageError> {
        Ok(self.store().images()?.iter().any(|row| row.parent.as_deref() == Some(image.id.to_string().as_str())))
    }

    /// Takes one name away, by tag or by digest.
    fn take_name(&self, image: &mut Image, name: &Reference) -> Result<Removed, ImageError> {
        match name.digest() {
            Some(digest) => self.store().delete_repo_digest(&name.repository().to_string(), digest)?,
            None => self.store().delete_tag(&name.to_string())?,
        }
        let familiar = name.familiar();
        image.references.retain(|other| *other != familiar);
        image.digests.retain(|other| *other != familiar);
        Ok(Removed::Untagged(familiar))
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
        for mut image in self.list(filter)? {
            // What the builder remembers is its own to prune.
            if image.references.is_empty() && steps.contains(&image.id.to_string()) {
                continue;
            }
            if !(all || image.references.is_empty()) || !users(&image.id.to_string()).is_empty() || self.has_children(&image)? {
                continue;
            }
            let _change = self.begin();
            // It may have gone with an image that was built on it.
            if self.store().image_config(&image.id.to_string())?.is_none() {
                continue;
            }
            for name in names(&image) {
                pruned.removed.push(self.take_name(&mut image, &name)?);
            }
            pruned.removed.extend(self.delete(&image)?);
            pruned.removed.extend(self.delete_parents(image.parent, users)?);
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

/// All names of an image, in the original's order.
fn names(image: &Image) -> Vec<Reference> {
    let all = image.references.iter().chain(&image.digests);
    let mut all: Vec<Reference> = all.filter_map(|name| Reference::parse_normalized(name).ok()).collect();
    all.sort_by_key(ToString::to_string);
    all
}

/// Whether all names are of one repository, and at most one of them is a tag.
fn is_single(names: &[Reference]) -> bool {
    let tags = names.iter().filter(|name| name.digest().is_none()).count();
    let mut repositories = names.iter().map(Reference::repository);
    let first = repositories.next();
    first.is_some_and(|first| tags <= 1 && repositories.all(|other| other == first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag_and_its_digests_are_one_name() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let at = |name: &str| format!("{name}@{digest}");
        for (list, single) in [
            (vec![], false),
            (vec!["box:1".to_owned()], true),
            (vec![at("box")], true),
            (vec!["box:1".to_owned(), at("box")], true),
            (vec!["box:1".to_owned(), "box:2".to_owned()], false),
            (vec!["box:1".to_owned(), at("other")], false),
            (vec![at("box"), at("other")], false),
        ] {
            let names: Vec<Reference> = list.iter().map(|name| Reference::parse_normalized(name).unwrap()).collect();
            assert_eq!(is_single(&names), single, "{list:?}");
        }
    }
}
