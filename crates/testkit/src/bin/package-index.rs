//! `package-index ADDRESS:PORT FOLDER`: serves the packages below a folder; says `ready` when it listens.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, clippy::print_stdout, clippy::exit, reason = "a small program for tests")]

use std::net::TcpListener;
use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, folder] = &words[..] else {
        eprintln!("usage: package-index ADDRESS:PORT FOLDER");
        std::process::exit(2);
    };
    let listener = TcpListener::bind(address)?;
    println!("ready");
    sampan_testkit::index::serve(&listener, PathBuf::from(folder));
    Ok(())
}
