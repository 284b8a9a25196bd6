//! A stand-in for Docker Hub: a registry of ours with images that tests of other people pull, made here.

use sampan_testkit::{images, setup};

use crate::rig::{Rig, Server};

/// Puts images into a registry that is an engine's mirror; the engine keeps none.
pub(super) fn fill(rig: &Rig, engine: &Server, registry: &Server, names: &[&str]) -> anyhow::Result<()> {
    let docker = format!("sampan -H {}", engine.address);
    for name in names {
        let archive = rig.work().join(name.replace(':', "-"));
        images::write(&archive, &stand_in(name)?)?;
        let (file, copy) = (archive.display(), format!("{}/library/{name}", registry.address));
        let _told = rig.ok(&format!(
            "{docker} load -q -i '{file}' && {docker} tag {name} {copy} && {docker} push -q {copy} && {docker} rmi {name} {copy}"
        ))?;
    }
    Ok(())
}

/// Brings some of them into the engine.
pub(super) fn pull(rig: &Rig, engine: &Server, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        let _told = rig.ok(&format!("sampan -H {} pull -q {name}", engine.address))?;
    }
    Ok(())
}

/// An image of that name, another one than those of other names, with the folder, the users and the group that tests use.
fn stand_in(name: &str) -> anyhow::Result<Vec<u8>> {
    let users = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
                 postgres:x:70:70:postgres:/var/lib/postgresql:/bin/sh\n";
    let groups = "root:x:0:\ndaemon:x:1:\nwheel:x:10:root\naudio:x:29:\nstaff:x:50:\npostgres:x:70:\n";
    let more = images::Tar::new().directory("etc/", 0o755).file("etc/passwd", 0o644, users.as_bytes());
    let more = more.file("etc/group", 0o644, groups.as_bytes());
    let more = more.file("etc/stands-for", 0o644, name.as_bytes()).directory("var/", 0o755).directory("var/opt/", 0o755).finish();
    let command =
        if name.starts_with("hello-world") { serde_json::json!({"Cmd": ["echo", "Hello from Docker!"]}) } else { serde_json::json!({}) };
    Ok(images::archive_of(&[images::rootfs(&setup::busybox())?, more], name, &command))
}
