//! `make-image rootfs` and `make-image docker-archive REFERENCE`: writes a busybox image to standard output.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, clippy::exit, reason = "a small program for scripts")]

use std::io::Write as _;

use sampan_testkit::{images, setup};

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let bytes = match words[..] {
        ["rootfs"] => images::rootfs(&setup::busybox())?,
        ["docker-archive", reference] => images::docker_archive(&setup::busybox(), reference)?,
        _ => {
            eprintln!("usage: make-image rootfs | make-image docker-archive REFERENCE");
            std::process::exit(2);
        }
    };
    std::io::stdout().write_all(&bytes)?;
    Ok(())
}
