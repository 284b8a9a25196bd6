//! Where the outside world is: the repository, the binary under test, peers, test data.

use std::path::{Path, PathBuf};

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/")).to_owned()
}

/// The directory that cargo builds into.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The program under test: `SAMPAN_BIN`, else the debug build.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn sampan() -> PathBuf {
    let path = std::env::var_os("SAMPAN_BIN").map_or_else(|| target().join("debug/sampan"), PathBuf::from);
    let path = path.canonicalize().unwrap_or(path);
    assert!(path.is_file(), "{} is missing; run `cargo build` (./test does)", path.display());
    path
}

/// The folder of the peers' rigs: `SAMPAN_PEERS`, else `../shared/peers` where it exists.
#[must_use]
pub fn peers() -> Option<PathBuf> {
    let path = std::env::var_os("SAMPAN_PEERS").map_or_else(|| root().join("../shared/peers"), PathBuf::from);
    path.join("peers").is_file().then_some(path)
}

/// The folder of real images and template cases: `SAMPAN_TESTDATA`, else `../shared/testdata` where it exists.
#[must_use]
pub fn testdata() -> Option<PathBuf> {
    let path = std::env::var_os("SAMPAN_TESTDATA").map_or_else(|| root().join("../shared/testdata"), PathBuf::from);
    path.is_dir().then_some(path)
}

/// How often the crash storm kills, and its seed: `SAMPAN_STORM`, `SAMPAN_STORM_SEED`; else a few times, with a new seed each time.
///
/// # Panics
/// When they are no numbers.
#[must_use]
pub fn storm() -> (u32, u64) {
    let number = |name: &str| std::env::var_os(name).map(|text| text.to_string_lossy().parse::<u64>().expect("a number"));
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |span| u64::from(span.subsec_nanos()));
    let kills = number("SAMPAN_STORM").unwrap_or(4);
    (u32::try_from(kills).expect("a small number"), number("SAMPAN_STORM_SEED").unwrap_or_else(now))
}

/// The unmodified docker CLI: `SAMPAN_DOCKER_CLI`, else the peers' one, else `docker` on the PATH.
#[must_use]
pub fn docker_cli() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("SAMPAN_DOCKER_CLI") {
        return Some(PathBuf::from(path));
    }
    if let Some(installed) = peer_program("docker") {
        return Some(installed);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("docker")).find(|file| file.is_file())
}

/// A program that the peers installed: `docker`, `registry2`, `skopeo` …
#[must_use]
pub fn peer_program(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("PEERS_HOME").map_or_else(|| PathBuf::from("/var/cache/sampan-peers"), PathBuf::from);
    Some(home.join("bin").join(name)).filter(|path| path.is_file())
}

/// A static busybox: `SAMPAN_BUSYBOX`, else the one of Debian's busybox-static.
///
/// # Panics
/// When the package is not installed.
#[must_use]
pub fn busybox() -> PathBuf {
    let path = std::env::var_os("SAMPAN_BUSYBOX").map_or_else(|| PathBuf::from("/bin/busybox"), PathBuf::from);
    assert!(path.is_file(), "{} is missing; install Debian's busybox-static (./test does)", path.display());
    path
}

/// The packages that an index of a world serves; `cargo xtask packages` fetches them.
#[must_use]
pub fn packages() -> PathBuf {
    target().join("packages")
}

/// The docker-archive of a stand-in for a base image, such as `python:3.9-slim`; `cargo xtask base-images` makes it.
#[must_use]
pub fn base_image(reference: &str) -> PathBuf {
    target().join("base-images").join(format!("{}.tar", reference.replace([':', '/'], "-")))
}

/// A program of the testkit, beside the one that runs.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    // Tests lie one folder deeper than programs.
    let places = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).chain([target().join("debug").join(name)]);
    let found = places.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing; run `cargo build -p sampan-testkit` (./test does)"))
}
