//! Builds the static shim and hands its path to `include_bytes!`.
//!
//! The shim is a package outside the workspace with a profile and lock file of its own; it is built into a target directory of
//! its own, so that no lock of the outer build is waited for. Flags of the outer build must not leak in.
#![expect(clippy::disallowed_methods, reason = "a build script speaks to cargo by its environment and by calling it")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables of the outer build that would change the inner one.
const SCRUBBED: &[&str] =
    &["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"];

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    for part in [
        "shim/src",
        "shim/Cargo.toml",
        "shim/Cargo.lock",
        "crates/shim/src",
        "crates/shim/Cargo.toml",
        "crates/base/src",
        "crates/sys/src",
        "crates/sys/Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
    }
    let shim = build(&root);
    println!("cargo::rustc-env=SAMPAN_SHIM={}", shim.display());
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

fn build(root: &Path) -> PathBuf {
    let target = variable("TARGET");
    let folder = PathBuf::from(variable("OUT_DIR")).join("shim");
    let mut command = Command::new(variable("CARGO"));
    command.args(["build", "--release", "--locked", "--target", &target, "--manifest-path"]);
    command.arg(root.join("shim/Cargo.toml")).arg("--target-dir").arg(&folder);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let leaks = ["CARGO_PROFILE_", "CARGO_FEATURE_", "CARGO_CFG_"].iter().any(|prefix| name.starts_with(prefix));
        if leaks || SCRUBBED.contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    // With --target given these reach the shim only, not its build scripts.
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    command.env(flags, "-C target-feature=+crt-static -C relocation-model=static");
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "the shim does not build");
    folder.join(target).join("release/sampan-shim")
}
