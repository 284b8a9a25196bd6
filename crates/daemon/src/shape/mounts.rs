//! The mounts that a request asked for, as inspect shows them again.

use sampan_engine::model::{BindPropagation, MountKind, MountRequest};
use sampan_wire::Json;

type Pairs = Vec<(String, Json)>;

fn put_if(pairs: &mut Pairs, wanted: bool, key: &str, value: impl Into<Json>) {
    if wanted {
        pairs.push((key.to_owned(), value.into()));
    }
}

/// Adds a group of options, unless it says nothing.
fn group(pairs: &mut Pairs, key: &str, options: Pairs) {
    put_if(pairs, !options.is_empty(), key, Json::Object(options));
}

/// Writes a mount; fields that say nothing are left out, as the original does.
pub(crate) fn show(mount: &MountRequest) -> Json {
    let kind = match mount.kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
    };
    let mut pairs = vec![("Type".to_owned(), Json::from(kind))];
    put_if(&mut pairs, !mount.source.is_empty(), "Source", mount.source.clone());
    put_if(&mut pairs, !mount.target.is_empty(), "Target", mount.target.clone());
    put_if(&mut pairs, mount.read_only, "ReadOnly", true);
    group(&mut pairs, "BindOptions", bind_options(mount));
    group(&mut pairs, "VolumeOptions", volume_options(mount));
    group(&mut pairs, "TmpfsOptions", tmpfs_options(mount));
    Json::Object(pairs)
}

fn bind_options(mount: &MountRequest) -> Pairs {
    let mut options = Pairs::new();
    put_if(&mut options, mount.propagation != BindPropagation::RPrivate, "Propagation", mount.propagation.name());
    put_if(&mut options, mount.non_recursive, "NonRecursive", true);
    put_if(&mut options, mount.create_mountpoint, "CreateMountpoint", true);
    put_if(&mut options, mount.read_only_non_recursive, "ReadOnlyNonRecursive", true);
    put_if(&mut options, mount.read_only_force_recursive, "ReadOnlyForceRecursive", true);
    options
}

fn volume_options(mount: &MountRequest) -> Pairs {
    let mut options = Pairs::new();
    put_if(&mut options, mount.no_copy, "NoCopy", true);
    put_if(&mut options, !mount.labels.is_empty(), "Labels", super::host::map(&mount.labels));
    put_if(&mut options, !mount.subpath.is_empty(), "Subpath", mount.subpath.clone());
    let mut driver = Pairs::new();
    put_if(&mut driver, !mount.driver.is_empty(), "Name", mount.driver.clone());
    put_if(&mut driver, !mount.driver_options.is_empty(), "Options", super::host::map(&mount.driver_options));
    group(&mut options, "DriverConfig", driver);
    options
}

fn tmpfs_options(mount: &MountRequest) -> Pairs {
    let mut options = Pairs::new();
    put_if(&mut options, mount.tmpfs_size != 0, "SizeBytes", mount.tmpfs_size);
    put_if(&mut options, mount.tmpfs_mode != 0, "Mode", mount.tmpfs_mode);
    let list = mount.tmpfs_options.iter().map(|pair| Json::list(pair.iter().cloned()));
    put_if(&mut options, !mount.tmpfs_options.is_empty(), "Options", Json::Array(list.collect()));
    options
}
