//! `cargo run -p sampan-hostile --bin seeds`: writes the seeds to `fuzz/seeds`.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a small program for the repository")]

use sampan_hostile::{TARGETS, seed_folder, seeds};

fn main() -> std::io::Result<()> {
    for target in TARGETS {
        let folder = seed_folder(target.name);
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds::of(target.name) {
            std::fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}
