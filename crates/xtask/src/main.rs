//! `cargo xtask`: the chores of the repository that are no tests.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer's tool: it starts programs and prints"
)]

mod base_images;
mod bench;
mod examples;
mod interop;
mod load;
mod packages;
mod record;
mod rig;

use clap::{Parser, Subcommand};

/// Chores of the sampan repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Run the command lines of crates/sampan/tests/recorded on the real Docker and write down what it prints.
    Record {
        /// Names of the files, without folder and `.txt`; none: all.
        names: Vec<String>,
    },
    /// Measure sampan beside the real Docker (its rig must be up). Give the release build in `SAMPAN_BIN`.
    Bench {
        /// Which, as the table names them; none: all. An unknown name lists them.
        names: Vec<String>,
        /// Also write one JSON object a row.
        #[arg(long)]
        json: Option<std::path::PathBuf>,
    },
    /// Run other people's clients or conformance suites on our registry, and ours on other people's; writes docs/interop/WHAT.md.
    Interop(interop::Interop),
    /// Ask a registry the same thing many times; `bench` runs this inside a world.
    #[command(hide = true)]
    Load(load::Load),
    /// Run the recorded command lines on sampan and write down what differs from the real Docker as an accepted difference.
    Accept {
        /// Names of the files, without folder and `.txt`; none: all.
        names: Vec<String>,
    },
    /// Fetch the packages that the examples depend on into target/packages.
    Packages {
        /// Which: pypi, go, npm, maven; none: all.
        names: Vec<String>,
    },
    /// Make stand-ins for base images of Docker Hub from Debian's packages: target/base-images/NAME.tar.
    BaseImages {
        /// Which, such as `python:3.9-slim`; none: all. An unknown name lists them.
        names: Vec<String>,
    },
    /// Build and ask the examples on the real Docker (its rig must be up), with stand-ins and packages of target/.
    Examples {
        /// Which; none: all.
        names: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Record { names } => record::record(&names),
        Chore::Bench { names, json } => bench::bench(&names, json.as_deref()),
        Chore::Interop(arguments) => interop::interop(&arguments),
        Chore::Load(arguments) => load::load(&arguments),
        Chore::Accept { names } => record::accept(&names),
        Chore::Packages { names } => packages::packages(&names),
        Chore::BaseImages { names } => base_images::base_images(&names),
        Chore::Examples { names } => examples::examples(&names),
    }
}
