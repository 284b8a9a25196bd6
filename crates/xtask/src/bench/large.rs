//! The image that is pulled and pushed: Debian's smallest system, a compiler's packages on it, and two layers of Python packages.
//!
//! Made once into `target/bench/large`, an OCI layout of four gzip layers, by the means of `cargo xtask base-images`; the packages
//! come through apt and pip. The same packages give the same bytes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use sampan_testkit::{images, setup};
use serde_json::{Value, json};

use crate::base_images::{self, BASE, Layer};

/// Less than so many bytes of gzip would not be what the figures promise.
const AT_LEAST: u64 = 380_000_000;

const COMPILER: Layer = Layer {
    name: "bench-compiler",
    is_base: false,
    packages: &["build-essential", "git", "python3", "python3-pip", "python3-dev", "cmake", "gfortran", "clang", "libboost-dev"],
    script: "",
};

/// Wheels, fetched once by pip into the folder that apt's archives are in, and unpacked.
const WEB: Layer = Layer { name: "bench-web", is_base: false, packages: &[], script: WEB_SCRIPT };
const NUMBERS: Layer = Layer { name: "bench-numbers", is_base: false, packages: &[], script: NUMBERS_SCRIPT };

const WEB_SCRIPT: &str = r#"
unpack() {
  site=$ROOT/usr/local/lib/python3.11/dist-packages; mkdir -p "$site" "$HERE/debs/wheels-$1"
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --platform manylinux2014_x86_64 \
    --platform manylinux_2_17_x86_64 --platform any -d "$HERE/debs/wheels-$1" "${@:2}"
  for wheel in "$HERE/debs/wheels-$1"/*.whl; do python3 -m zipfile -e "$wheel" "$site"; done
}
unpack web flask==3.0.3 werkzeug==3.0.4 jinja2==3.1.4 click==8.1.7 django==4.2.16 boto3==1.35.30 botocore==1.35.30 sqlalchemy==2.0.35 requests==2.32.3
"#;

const NUMBERS_SCRIPT: &str = r#"
unpack() {
  site=$ROOT/usr/local/lib/python3.11/dist-packages; mkdir -p "$site" "$HERE/debs/wheels-$1"
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --platform manylinux2014_x86_64 \
    --platform manylinux_2_17_x86_64 --platform any -d "$HERE/debs/wheels-$1" "${@:2}"
  for wheel in "$HERE/debs/wheels-$1"/*.whl; do python3 -m zipfile -e "$wheel" "$site"; done
}
unpack numbers numpy==1.26.4 pandas==2.2.3 scipy==1.14.1 scikit-learn==1.5.2 matplotlib==3.9.2 sympy==1.13.3
"#;

/// Makes the image if it is not there: the layout's folder.
pub(super) fn layout() -> anyhow::Result<PathBuf> {
    let layout = setup::target().join("bench/large");
    let stamp = setup::target().join("bench/large.stamp");
    let wanted = images::sha256(include_str!("large.rs").as_bytes());
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(layout);
    }
    eprintln!("making {}: some minutes, once", layout.display());
    drop(std::fs::remove_dir_all(&layout));
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let tars = base_images::layers(&[&BASE, &COMPILER, &WEB, &NUMBERS])?;
    let mut diff_ids = Vec::new();
    let mut layers = Vec::new();
    for tar in &tars {
        diff_ids.push(format!("sha256:{}", images::sha256_of_file(tar)?));
        layers.push(compressed(tar, &blobs)?);
    }
    let size: u64 = layers.iter().filter_map(|layer| layer["size"].as_u64()).sum();
    ensure!(size >= AT_LEAST, "the image has {size} bytes of gzip only");
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2024-09-26T21:31:42Z", "config": {"Cmd": ["bash"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = blob(&blobs, &config, "application/vnd.oci.image.config.v1+json")?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = blob(&blobs, &json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}), kind)?;
    let mut manifest = manifest;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    std::fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())?;
    std::fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")?;
    std::fs::write(&stamp, wanted)?;
    Ok(layout)
}

/// Compresses a layer as `docker push` does, into the blobs: its descriptor.
fn compressed(tar: &Path, blobs: &Path) -> anyhow::Result<Value> {
    let path = blobs.join("new");
    let mut command = Command::new("gzip");
    command.args(["-6", "-n", "-c"]).stdin(std::fs::File::open(tar)?).stdout(std::fs::File::create(&path)?);
    ensure!(command.status().context("gzip")?.success(), "gzip failed");
    let digest = images::sha256_of_file(&path)?;
    let size = path.metadata()?.len();
    std::fs::rename(&path, blobs.join(&digest))?;
    Ok(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": format!("sha256:{digest}"), "size": size}))
}

fn blob(blobs: &Path, content: &Value, kind: &str) -> anyhow::Result<Value> {
    let content = serde_json::to_vec(content)?;
    let digest = images::sha256(&content);
    std::fs::write(blobs.join(&digest), &content)?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": content.len()}))
}
