//! One libFuzzer driver for all targets: the environment variable `SAMPAN_FUZZ_TARGET` says which. Run it by `fuzz/run`.
#![no_main]

use std::sync::OnceLock;

use sampan_hostile::{TARGETS, Target, target};

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn choose() -> &'static Target {
    let name = std::env::var("SAMPAN_FUZZ_TARGET").unwrap_or_default();
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    target(&name).unwrap_or_else(|| panic!("SAMPAN_FUZZ_TARGET must be one of {}", names.join(", ")))
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (CHOSEN.get_or_init(choose).run)(bytes);
});
