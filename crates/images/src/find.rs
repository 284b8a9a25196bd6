//! Finding images: by name, by id, by filter; and their history.

use std::collections::HashMap;

use sampan_oci::{ImageConfig, Platform, Reference, ReferenceError};

use crate::{Image, ImageError, Images};

/// Which images a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// Only those without (or with) a name.
    pub dangling: Option<bool>,
    /// Only those made before one of these.
    pub before: Vec<String>,
    /// Only those made after one of these.
    pub since: Vec<String>,
    /// Only those with all of these labels (`None`: any value).
    pub labels: Vec<(String, Option<String>)>,
    /// Only names that fit one of these patterns.
    pub references: Vec<String>,
    /// Only those made before this moment, nanoseconds since the epoch.
    pub until: Option<i64>,
    /// Only those with none of these labels.
    pub not_labels: Vec<(String, Option<String>)>,
}

/// One step of an image's making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// Image id, or `<missing>`.
    pub id: String,
    /// Seconds since the epoch.
    pub created: i64,
    /// The command.
    pub created_by: String,
    /// Names of that image.
    pub tags: Vec<String>,
    /// Bytes of the layer.
    pub size: u64,
    /// A message.
    pub comment: String,
}

impl Images {
    /// Every image, newest first.
    ///
    /// # Errors
    /// A failing database.
    pub fn all(&self) -> Result<Vec<Image>, ImageError> {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for tag in self.store().tags()? {
            if let Ok(reference) = Reference::parse_normalized(&tag.reference) {
                names.entry(tag.image).or_default().push(reference.familiar());
            }
        }
        let mut by_digest: HashMap<String, Vec<String>> = HashMap::new();
        for row in self.store().repo_digests()? {
            if let Ok(reference) = Reference::parse_normalized(&row.repository) {
                by_digest.entry(row.image).or_default().push(reference.with_digest(&row.digest).familiar());
            }
        }
        let mut images = Vec::new();
        for row in self.store().images()? {
            let config = ImageConfig::parse(&row.config).map_err(|error| ImageError::Invalid(error.to_string()))?;
            let references = names.remove(&row.id.to_string()).unwrap_or_default();
            let digests = by_digest.remove(&row.id.to_string()).unwrap_or_default();
            images.push(Image { id: row.id, config, references, digests, size: row.size, tagged: row.tagged, parent: row.parent });
        }
        images.sort_by_key(|image| std::cmp::Reverse(image.created_nanos()));
        Ok(images)
    }

    /// As [`Images::resolve`], for a platform.
    ///
    /// # Errors
    /// [`ImageError::Platform`] besides.
    pub fn resolve_for(&self, name: &str, platform: Option<&Platform>) -> Result<Image, ImageError> {
        let image = self.resolve(name)?;
        let have = image.config.platform();
        match platform {
            Some(wanted) if !have.fits(wanted) => {
                Err(ImageError::Platform { name: name.to_owned(), have: Box::new(have), wanted: Box::new(wanted.clone()) })
            }
            _ => Ok(image),
        }
    }

    /// Finds an image by reference, id or a prefix of its id.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] with the name as Docker shows it, [`ImageError::Reference`] for a bad one.
    pub fn resolve(&self, name: &str) -> Result<Image, ImageError> {
        let all = self.all()?;
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex = !digits.is_empty() && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex && digits.len() == 64 {
            return all.into_iter().find(|image| image.id.0.hex() == digits).ok_or_else(|| ImageError::NotFound(name.to_owned()));
        }
        let reference = match Reference::parse_normalized(name) {
            Ok(reference) => reference.with_default_tag(),
            Err(error) if !is_hex || matches!(error, ReferenceError::Uppercase(_)) => return Err(error.into()),
            Err(_) => return Err(ImageError::NotFound(name.to_owned())),
        };
        let wanted = match (reference.tag(), reference.digest()) {
            // With both, the digest decides: an image's own, or one of its names.
            (_, Some(digest)) => {
                let by_digest = reference.with_digest(digest).familiar();
                let found = all.into_iter().find(|image| image.id.0 == *digest || image.digests.contains(&by_digest));
                return found.ok_or_else(|| ImageError::NotFound(reference.familiar()));
            }
            _ => reference.familiar(),
        };
        if let Some(image) = all.iter().find(|image| image.references.contains(&wanted)) {
            return Ok(image.clone());
        }
        let not_found = || ImageError::NotFound(wanted.clone());
        if !is_hex {
            return Err(not_found());
        }
        let mut fitting = all.into_iter().filter(|image| image.id.0.hex().starts_with(digits));
        match (fitting.next(), fitting.next()) {
            (Some(image), None) => Ok(image),
            (Some(_), Some(_)) => Err(ImageError::Invalid(format!("ambiguous reference: {name}"))),
            (None, _) => Err(not_found()),
        }
    }

    /// The ids of an image and of all that were made from it here.
    ///
    /// # Errors
    /// As [`Images::resolve`].
    pub fn resolve_with_descendants(&self, name: &str) -> Result<Vec<String>, ImageError> {
        let mut found = vec![self.resolve(name)?.id.to_string()];
        let all = self.all()?;
        let mut next = 0;
        while let Some(parent) = found.get(next).cloned() {
            next += 1;
            let children = all.iter().filter(|image| image.parent.as_ref() == Some(&parent)).map(|image| image.id.to_string());
            let new: Vec<String> = children.filter(|child| !found.contains(child)).collect();
            found.extend(new);
        }
        Ok(found)
    }

    /// The images that fit a filter, newest first; names that do not fit its patterns are left out.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn list(&self, filter: &ImageFilter) -> Result<Vec<Image>, ImageError> {
        let edge = |names: &[String]| {
            names.iter().map(|name| self.resolve(name).map(|image| image.created_nanos())).collect::<Result<Vec<_>, _>>()
        };
        if filter.references.iter().any(|pattern| !is_pattern(pattern.as_bytes())) {
            return Err(ImageError::Invalid("syntax error in pattern".into()));
        }
        let (before, since) = (edge(&filter.before)?, edge(&filter.since)?);
        let mut out = Vec::new();
        for mut image in self.all()? {
            let created = image.created_nanos();
            let labels = &image.config.config.labels;
            let has = |(key, value): &(String, Option<String>)| {
                labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|wanted| wanted == found))
            };
            let fits = before.iter().all(|edge| created < *edge)
                && since.iter().all(|edge| created > *edge)
                && filter.until.is_none_or(|until| created < until)
                && filter.labels.iter().all(has)
                && !filter.not_labels.iter().any(has);
            if !fits {
                continue;
            }
            if !filter.references.is_empty() {
                let fits = |name: &String| filter.references.iter().any(|pattern| matches_reference(pattern, name));
                image.references.retain(fits);
                image.digests.retain(fits);
                if image.references.is_empty() && image.digests.is_empty() {
                    continue;
                }
            }
            // One that is known by digest only is dangling and not dangling.
            let fits = match filter.dangling {
                Some(true) => image.references.is_empty(),
                Some(false) => !image.references.is_empty() || !image.digests.is_empty(),
                None => true,
            };
            if !fits {
                continue;
            }
            out.push(image);
        }
        Ok(out)
    }

    /// How an image was made, last step first.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn history(&self, name: &str) -> Result<Vec<HistoryItem>, ImageError> {
        let image = self.resolve(name)?;
        let sizes = self.layer_sizes()?;
        let mut layers = image.layers().iter();
        let mut items: Vec<HistoryItem> = Vec::new();
        for step in &image.config.history {
            let size = if step.empty_layer { 0 } else { layers.next().and_then(|layer| sizes.get(layer)).copied().unwrap_or(0) };
            let created = step.created.as_ref().and_then(|text| text.parse::<jiff::Timestamp>().ok()).map_or(0, jiff::Timestamp::as_second);
            items.push(HistoryItem {
                id: "<missing>".into(),
                created,
                created_by: step.created_by.clone(),
                tags: Vec::new(),
                size,
                comment: step.comment.clone(),
            });
        }
        items.reverse();
        // The image, then what it was made from here, as far as that is known.
        let mut next = Some(image);
        for item in &mut items {
            let Some(image) = next.take() else { break };
            item.id = image.id.to_string();
            item.tags.clone_from(&image.references);
            next = image.parent.and_then(|parent| self.resolve(&parent).ok());
        }
        Ok(items)
    }
}

/// Whether a familiar name fits a pattern: against the whole, without the tag, or the last part (as reference.FamiliarMatch does).
fn matches_reference(pattern: &str, name: &str) -> bool {
    let untagged = match name.split_once('@') {
        Some((rest, _)) => rest,
        None => name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(rest, _)| rest),
    };
    matches(pattern.as_bytes(), name.as_bytes()) || matches(pattern.as_bytes(), untagged.as_bytes())
}

/// Whether Go's `path.Match` takes a pattern: classes end and are not empty, and nothing ends with an escape.
fn is_pattern(pattern: &[u8]) -> bool {
    match pattern {
        [] => true,
        [b'\\'] => false,
        [b'\\', _, rest @ ..] => is_pattern(rest),
        [b'[', rest @ ..] => {
            let class = rest.strip_prefix(b"^").unwrap_or(rest);
            let end = class.iter().skip(1).position(|byte| *byte == b']').map(|end| end + 1);
            end.is_some_and(|end| class[0] != b']' && is_pattern(&class[end + 1..]))
        }
        [_, rest @ ..] => is_pattern(rest),
    }
}

/// Go's `path.Match`: `*` and `?` do not cross slashes, `[a-z]` is a class, `\` escapes. A malformed pattern fits nothing.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.first() {
        None => text.is_empty(),
        Some(b'*') => (0..=text.len()).take_while(|end| !text[..*end].contains(&b'/')).any(|end| matches(&pattern[1..], &text[end..])),
        Some(b'?') => text.first().is_some_and(|byte| *byte != b'/') && matches(&pattern[1..], &text[1..]),
        Some(b'[') => {
            let Some(end) = pattern.iter().skip(1).position(|byte| *byte == b']').map(|end| end + 1) else { return false };
            let (negated, class) = match &pattern[1..end] {
                [b'^', rest @ ..] => (true, rest),
                class => (false, class),
            };
            let Some(byte) = text.first() else { return false };
            let inside = class.windows(3).any(|range| range[1] == b'-' && (range[0]..=range[2]).contains(byte)) || class.contains(byte);
            inside != negated && matches(&pattern[end + 1..], &text[1..])
        }
        Some(b'\\') if pattern.len() > 1 => text.first() == pattern.get(1) && matches(&pattern[2..], &text[1..]),
        Some(byte) => text.first() == Some(byte) && matches(&pattern[1..], &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_pattern, matches_reference};

    #[test]
    fn patterns_that_are_none() {
        for (pattern, good) in [("", true), ("a*", true), ("[a-z]x", true), ("[^a]", true), ("\\[", true)] {
            assert_eq!(is_pattern(pattern.as_bytes()), good, "{pattern}");
        }
        for pattern in ["[", "a[b", "[]", "[^", "[]a]", "a\\"] {
            assert!(!is_pattern(pattern.as_bytes()), "{pattern}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("box*", "box:latest", true),
            ("box*", "box/two:v1", false),
            ("box/*", "box/two:v1", true),
            ("*:latest", "box:latest", true),
            ("b?x", "box:latest", true),
            ("b[a-p]x", "box:v", true),
            ("b[^o]x", "box:v", false),
            ("box:v[", "box:v", false),
        ] {
            assert_eq!(matches_reference(pattern, name), fits, "{pattern} {name}");
        }
    }
}
