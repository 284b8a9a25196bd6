//! `cargo xtask base-images`: stand-ins under the names that Dockerfiles begin with, made of Debian's packages without an engine.
//!
//! For machines that reach Debian's archive and no registry. `target/base-images/NAME.tar` are docker-archives; all but `alpine`
//! share the layer `debian:bookworm-slim`. They carry the address of a world's package index in the files that pip, npm, Maven and
//! go read, so a Dockerfile says `pip install` as it does everywhere. Not made: what the real images have beyond that (compilers
//! in `python`, `apk` in `alpine`). What apt fetched is kept below `target/base-images/debs`.

mod recipes;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use sampan_testkit::{images, index, setup};

pub(crate) use recipes::{BASE, Layer};
use recipes::{RECIPES, Recipe};

const SCRIPT: &str = include_str!("base_images/make.sh");

/// Makes the named stand-ins, or all.
pub(crate) fn base_images(names: &[String]) -> anyhow::Result<()> {
    let known: Vec<&str> = RECIPES.iter().map(|recipe| recipe.reference).collect();
    for name in names {
        ensure!(known.contains(&name.as_str()), "no stand-in {name:?}; there are {}", known.join(", "));
    }
    let folder = setup::target().join("base-images");
    std::fs::create_dir_all(&folder)?;
    // Two at a time would work in the same folders; the second one waits and finds all made.
    let lock = std::fs::File::create(folder.join("lock"))?;
    lock.lock()?;
    for recipe in RECIPES.iter().filter(|recipe| names.is_empty() || names.iter().any(|name| name == recipe.reference)) {
        make(recipe).with_context(|| format!("cannot make {}", recipe.reference))?;
    }
    Ok(())
}

fn make(recipe: &Recipe) -> anyhow::Result<()> {
    let archive = setup::base_image(recipe.reference);
    let stamp = archive.with_extension("stamp");
    let wanted = images::sha256(format!("{SCRIPT}{recipe:?}{}", recipes::SOURCE).as_bytes());
    if archive.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        println!("{}: as made before", recipe.reference);
        return Ok(());
    }
    let layers = layers(recipe.layers)?;
    images::write_archive(&archive, &layers, recipe.reference, &recipe.config())?;
    std::fs::write(&stamp, wanted)?;
    println!("{}: {} ({} MB)", recipe.reference, archive.display(), archive.metadata()?.len() / 1_000_000);
    Ok(())
}

/// Makes layers, each on those before it, unless they are there: their tars.
pub(crate) fn layers(layers: &[&Layer]) -> anyhow::Result<Vec<PathBuf>> {
    let folder = &setup::target().join("base-images");
    std::fs::create_dir_all(folder)?;
    if !folder.join("tools/bin/busybox").is_file() {
        script(folder, &["tools"], "")?;
    }
    for (number, layer) in layers.iter().enumerate() {
        ensure_layer(folder, layer, &layers[..number])?;
    }
    Ok(layers.iter().map(|layer| folder.join("layers").join(layer.name).join("layer.tar")).collect())
}

/// Makes a layer on those below it, unless it is there.
fn ensure_layer(folder: &Path, layer: &Layer, below: &[&Layer]) -> anyhow::Result<()> {
    let stamp = folder.join("layers").join(layer.name).join("stamp");
    let digest = |layer: &Layer| folder.join("layers").join(layer.name).join("digest");
    // A layer belongs to exactly what it was made on.
    let ground: String = below.iter().map(|layer| std::fs::read_to_string(digest(layer))).collect::<std::io::Result<_>>()?;
    let wanted = images::sha256(format!("{SCRIPT}{layer:?}{ground}").as_bytes());
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    if layer.is_base {
        script(folder, &["base"], "")?;
    } else {
        let lower: Vec<String> = below.iter().rev().map(|one| format!("layers/{}/fs", one.name)).collect();
        let empty = folder.join("layers/empty");
        std::fs::create_dir_all(&empty)?;
        let lower = if lower.is_empty() { "layers/empty".to_owned() } else { lower.join(":") };
        script(folder, &[&["layer", layer.name, &lower], layer.packages].concat(), &layer.script.replace("@INDEX@", index::ADDRESS))?;
    }
    script(folder, &["tar", layer.name], "")?;
    std::fs::write(digest(layer), images::sha256_of_file(&folder.join("layers").join(layer.name).join("layer.tar"))?)?;
    Ok(std::fs::write(&stamp, wanted)?)
}

/// Runs a part of the script where its mounts are seen by nobody else.
fn script(folder: &Path, words: &[&str], input: &str) -> anyhow::Result<()> {
    let file = folder.join("make.sh");
    std::fs::write(&file, SCRIPT)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"]).arg(&file).args(words).current_dir(folder);
    let mut child = command.stdin(Stdio::piped()).spawn().context("unshare of util-linux does not start")?;
    child.stdin.take().context("piped")?.write_all(input.as_bytes())?;
    ensure!(child.wait()?.success(), "make.sh {} failed", words.join(" "));
    Ok(())
}
