//! Every parser of foreign bytes as a function of bytes: what the fuzzer in `/fuzz` drives, and what the ordinary tests drive with
//! the seeds and mutations of them.
//!
//! A [`Target`] never fails on bad input; it panics when the product breaks a promise: a panic below it, something that was read
//! and cannot be written, a file outside of the root. Not the place for tests of single features.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "test code")]

pub mod mutate;
pub mod seeds;
mod targets;

/// A parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of its folder below `fuzz/seeds` too.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Words of its language, for mutations.
    pub words: &'static [&'static str],
    /// How many mutations the ordinary test runs.
    pub rounds: u32,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "tar", run: targets::tar, words: targets::TAR_WORDS, rounds: 12000 },
    Target { name: "compressed", run: targets::compressed, words: &[], rounds: 16000 },
    Target { name: "layer", run: targets::layer, words: targets::TAR_WORDS, rounds: 1500 },
    Target {
        name: "reference",
        run: targets::reference,
        words: &["sha256:", "docker.io/", "index.", "localhost", "[::1]:", "@", "library/"],
        rounds: 16000,
    },
    Target { name: "manifest", run: targets::manifest, words: targets::JSON_WORDS, rounds: 12000 },
    Target { name: "plan", run: targets::plan, words: &["\u{1}\0\0\0", "\0\0\0\0"], rounds: 12000 },
    Target { name: "api", run: targets::api, words: targets::JSON_WORDS, rounds: 16000 },
    Target {
        name: "text",
        run: targets::text,
        words: &[":", "\n", "CMD [\"", "ENV ", "EXPOSE ", "VOLUME ", "LABEL ", "4294967295", "-", "/tcp", "\\"],
        rounds: 16000,
    },
    Target { name: "registry", run: targets::registry, words: targets::REGISTRY_WORDS, rounds: 12000 },
    Target { name: "dockerfile", run: targets::dockerfile, words: targets::DOCKERFILE_WORDS, rounds: 8000 },
    Target {
        name: "shellwords",
        run: targets::shellwords,
        words: &["${", "}", ":-", ":+", ":?", "##", "%%", "//", "\\", "'", "\"", "$A", "<<", "*", "?", "${A"],
        rounds: 16000,
    },
    Target { name: "ignore", run: targets::ignore, words: &["**", "/", "!", "[a-", "[^", "]", "\\", "..", "#", "\n"], rounds: 16000 },
    Target {
        name: "distribution",
        run: targets::distribution,
        words: &[
            "/v2/",
            "/manifests/",
            "/blobs/",
            "/blobs/uploads/",
            "/referrers/",
            "/tags/list",
            "sha256:",
            "sha512:",
            "%2f",
            "%00",
            "..",
            "bytes=",
            "-",
            "18446744073709551615",
            "/",
            "\"subject\":",
            "\"layers\":[",
            "&tag=",
            "repository:",
        ],
        rounds: 16000,
    },
];

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Where the committed seeds of a target lie.
#[must_use]
pub fn seed_folder(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(std::path::Path::new("/")).join("fuzz/seeds").join(name)
}
