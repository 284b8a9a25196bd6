//! What a create request says about mounts, resolved into [`MountPoint`]s. Pure but for the question whether a bind's source
//! exists, which the caller answers.

use std::collections::BTreeMap;

use crate::error::EngineError;
use crate::model::{BindPropagation, Config, HostConfig, MountKind, MountPoint, MountRequest};
use crate::names;

/// A wish for a mount: the point itself and, for binds, whether its missing source is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) point: MountPoint,
    /// Labels of a volume made on the way.
    pub(crate) labels: BTreeMap<String, String>,
    /// Driver options of a volume made on the way.
    pub(crate) driver_options: BTreeMap<String, String>,
    /// Make a missing bind source.
    pub(crate) make_source: bool,
    /// Fail when the bind source is missing.
    pub(crate) need_source: bool,
}

/// Collects every mount of a request: `--volumes-from` (already resolved), `-v`, `--mount`, `--tmpfs`, and the image's volumes.
///
/// # Errors
/// [`EngineError::Invalid`] with Docker's text for a malformed or doubled mount.
pub(crate) fn collect(config: &Config, host: &HostConfig, inherited: Vec<MountPoint>) -> Result<Vec<Wish>, EngineError> {
    let mut wishes: BTreeMap<String, Wish> = BTreeMap::new();
    for point in inherited {
        wishes.insert(point.destination.clone(), Wish::plain(point));
    }
    let mut given: BTreeMap<String, ()> = BTreeMap::new();
    let mut add = |wish: Wish, wishes: &mut BTreeMap<String, Wish>| {
        let target = wish.point.destination.clone();
        if given.insert(target.clone(), ()).is_some() {
            return Err(EngineError::Invalid(format!("Duplicate mount point: {target}")));
        }
        wishes.insert(target, wish);
        Ok(())
    };
    for line in &host.binds {
        add(parse_bind(line)?, &mut wishes)?;
    }
    for request in &host.mounts {
        add(from_request(request)?, &mut wishes)?;
    }
    for (target, options) in &host.tmpfs {
        let target = clean_target(target, target, "volume")?;
        let point =
            MountPoint { kind: "tmpfs".into(), destination: target, rw: true, tmpfs_options: options.clone(), ..MountPoint::default() };
        add(Wish::plain(point), &mut wishes)?;
    }
    for target in &config.volumes {
        let target = clean_target(target, target, "volume")?;
        wishes.entry(target.clone()).or_insert_with(|| Wish::plain(anonymous_volume(target)));
    }
    Ok(wishes.into_values().collect())
}

impl Wish {
    fn plain(point: MountPoint) -> Self {
        Self { point, labels: BTreeMap::new(), driver_options: BTreeMap::new(), make_source: false, need_source: false }
    }
}

fn anonymous_volume(destination: String) -> MountPoint {
    MountPoint {
        kind: "volume".into(),
        name: names::new_id(),
        destination,
        driver: "local".into(),
        rw: true,
        copy_up: true,
        anonymous: true,
        ..MountPoint::default()
    }
}

fn invalid_spec(line: &str) -> EngineError {
    EngineError::Invalid(format!("invalid volume specification: '{line}'"))
}

/// Parses `[source:]target[:options]` of `-v`.
pub(crate) fn parse_bind(line: &str) -> Result<Wish, EngineError> {
    let fields: Vec<&str> = line.split(':').collect();
    let (source, target, mode) = match fields[..] {
        [target] if !target.is_empty() => ("", target, ""),
        [source, target] if !source.is_empty() => (source, target, ""),
        [source, target, mode] if !source.is_empty() => (source, target, mode),
        _ => return Err(invalid_spec(line)),
    };
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let target = clean_target(target, line, kind)?;
    let mut point = MountPoint { destination: target, rw: true, mode: mode.to_owned(), ..MountPoint::default() };
    if source.starts_with('/') {
        point.kind = "bind".into();
        point.source = clean(source);
        point.propagation = "rprivate".into();
    } else {
        if !source.is_empty() && !names::is_valid(source) {
            return Err(EngineError::Invalid(format!(
                "create {source}: \"{source}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
                 allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
        let anonymous = anonymous_volume(String::new());
        point.kind = anonymous.kind;
        point.driver = anonymous.driver;
        point.copy_up = true;
        point.anonymous = source.is_empty();
        point.name = if source.is_empty() { anonymous.name } else { source.to_owned() };
        point.mode = if mode.is_empty() { "z".into() } else { mode.to_owned() };
    }
    apply_mode(&mut point, mode)?;
    let is_bind = point.kind == "bind";
    Ok(Wish { make_source: is_bind, ..Wish::plain(point) })
}

fn apply_mode(point: &mut MountPoint, mode: &str) -> Result<(), EngineError> {
    let bad = || EngineError::Invalid(format!("invalid mode: {mode}"));
    let mut seen_rw = false;
    for option in mode.split(',').filter(|_| !mode.is_empty()) {
        match option {
            "ro" | "rw" if seen_rw => return Err(bad()),
            "ro" => (seen_rw, point.rw) = (true, false),
            "rw" => seen_rw = true,
            "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "nocopy" if point.kind == "volume" => point.copy_up = false,
            "rbind" if point.kind == "bind" => {}
            "bind" if point.kind == "bind" => point.non_recursive = true,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" if point.kind == "bind" => {
                option.clone_into(&mut point.propagation)
            }
            _ => return Err(bad()),
        }
    }
    Ok(())
}

fn from_request(request: &MountRequest) -> Result<Wish, EngineError> {
    let kind = match request.kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
    };
    let fault = |text: &str| EngineError::Invalid(format!("invalid mount config for type \"{kind}\": {text}"));
    if request.target.is_empty() {
        return Err(fault("field Target must not be empty"));
    }
    let destination = clean(&request.target);
    if !request.target.starts_with('/') {
        return Err(fault(&format!("invalid mount path: '{}' mount path must be absolute", request.target)));
    }
    if destination == "/" {
        return Err(fault("invalid specification: destination can't be '/'"));
    }
    let mut point = MountPoint { kind: kind.into(), destination, rw: !request.read_only, ..MountPoint::default() };
    let mut wish_labels = BTreeMap::new();
    let mut driver_options = BTreeMap::new();
    match request.kind {
        MountKind::Bind => {
            if request.source.is_empty() {
                return Err(fault("field Source must not be empty"));
            }
            if !request.source.starts_with('/') {
                return Err(fault(&format!("invalid mount path: '{}' mount path must be absolute", request.source)));
            }
            point.source = clean(&request.source);
            request.propagation.name().clone_into(&mut point.propagation);
            point.non_recursive = request.non_recursive;
            point.read_only_non_recursive = request.read_only_non_recursive;
        }
        MountKind::Volume => volume_request(request, &mut point, &fault)?,
        MountKind::Tmpfs => {
            if !request.source.is_empty() {
                return Err(fault("field Source must not be specified"));
            }
            point.tmpfs_options = tmpfs_options(request);
        }
    }
    if request.kind == MountKind::Volume {
        wish_labels.clone_from(&request.labels);
        driver_options.clone_from(&request.driver_options);
    }
    let is_bind = request.kind == MountKind::Bind;
    let make_source = is_bind && request.create_mountpoint;
    Ok(Wish { point, labels: wish_labels, driver_options, make_source, need_source: is_bind && !make_source })
}

fn volume_request(request: &MountRequest, point: &mut MountPoint, fault: &dyn Fn(&str) -> EngineError) -> Result<(), EngineError> {
    if !matches!(request.driver.as_str(), "" | "local") {
        return Err(EngineError::NotFound(format!("error looking up volume plugin {0}: plugin \"{0}\" not found", request.driver)));
    }
    if request.propagation != BindPropagation::RPrivate {
        return Err(fault("field BindOptions must not be specified"));
    }
    if !request.source.is_empty() && !names::is_valid(&request.source) {
        return Err(EngineError::Invalid(format!(
            "create {0}: \"{0}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you \
             intended to pass a host directory, use absolute path",
            request.source
        )));
    }
    if request.subpath.starts_with('/') || request.subpath.split('/').any(|part| part == "..") {
        return Err(fault("subpath must be a relative path within the volume"));
    }
    point.driver = "local".into();
    point.mode = "z".into();
    point.copy_up = !request.no_copy;
    point.anonymous = request.source.is_empty();
    point.name = if request.source.is_empty() { names::new_id() } else { request.source.clone() };
    request.subpath.clone_into(&mut point.subpath);
    Ok(())
}

fn tmpfs_options(request: &MountRequest) -> String {
    let mut options = Vec::new();
    if request.read_only {
        options.push("ro".to_owned());
    }
    if request.tmpfs_size > 0 {
        options.push(format!("size={}", request.tmpfs_size));
    }
    if request.tmpfs_mode != 0 {
        options.push(format!("mode={:o}", request.tmpfs_mode));
    }
    options.extend(request.tmpfs_options.iter().map(|pair| pair.join("=")));
    options.join(",")
}

fn clean_target(target: &str, line: &str, kind: &str) -> Result<String, EngineError> {
    if !target.starts_with('/') {
        return Err(EngineError::Invalid(format!(
            "invalid volume specification: '{line}': invalid mount config for type \"{kind}\": invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    let target = clean(target);
    if target == "/" {
        return Err(EngineError::Invalid(format!(
            "invalid volume specification: '{line}': invalid mount config for type \"{kind}\": invalid specification: destination can't be '/'"
        )));
    }
    Ok(target)
}

/// A path without `.`, `..`, doubled or trailing slashes, by words alone (Go's `filepath.Clean` of an absolute path).
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(line: &str) -> MountPoint {
        parse_bind(line).unwrap().point
    }

    #[test]
    fn binds_and_volumes_are_told_apart() {
        let bind = point("/srv/data/:/data/../x:ro,rslave");
        assert_eq!((bind.kind.as_str(), bind.source.as_str(), bind.destination.as_str()), ("bind", "/srv/data", "/x"));
        assert_eq!((bind.rw, bind.propagation.as_str()), (false, "rslave"));
        let volume = point("data:/x");
        assert_eq!((volume.kind.as_str(), volume.name.as_str(), volume.mode.as_str(), volume.copy_up), ("volume", "data", "z", true));
        assert!(point("/x").anonymous && !point("data:/x:nocopy").copy_up);
    }

    #[test]
    fn bad_lines_get_dockers_words() {
        let text = |line: &str| parse_bind(line).unwrap_err().to_string();
        assert_eq!(text("/a:/b:ro,rw"), "invalid mode: ro,rw");
        assert_eq!(text("a:b:c:d"), "invalid volume specification: 'a:b:c:d'");
        assert!(text("/a:relative").contains("mount path must be absolute"));
        assert!(text("/a:/").contains("destination can't be '/'"));
        assert!(text("a b:/x").contains("includes invalid characters for a local volume name"));
    }

    #[test]
    fn one_target_is_mounted_once_and_image_volumes_give_way() {
        let mut host = HostConfig { binds: vec!["/a:/x".into()], ..HostConfig::default() };
        let config = Config { volumes: ["/x".to_owned(), "/y".to_owned()].into(), ..Config::default() };
        let kinds: Vec<_> =
            collect(&config, &host, Vec::new()).unwrap().into_iter().map(|wish| (wish.point.destination, wish.point.kind)).collect();
        assert_eq!(kinds, [("/x".to_owned(), "bind".to_owned()), ("/y".to_owned(), "volume".to_owned())]);
        host.tmpfs.insert("/x/".into(), String::new());
        assert_eq!(collect(&config, &host, Vec::new()).unwrap_err().to_string(), "Duplicate mount point: /x");
    }
}
