//! The static binary that is every container's parent; under the name `docker-init` the small init of `--init`.
//!
//! All logic is in the library crate `sampan-shim`; this only looks at its name. The daemon's connection is descriptor 3.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args();
    let name = words.next().unwrap_or_default();
    if name.ends_with("docker-init") {
        let rest: Vec<String> = words.collect();
        return ExitCode::from(u8::try_from(sampan_shim::init::main(&rest) & 0xff).unwrap_or(1));
    }
    let Ok(connection) = sampan_shim::serve::connection() else { return ExitCode::from(2) };
    let connection: OwnedFd = connection;
    match sampan_shim::serve::main(connection) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
