//! Entries to packages to findings; advisory database; SBOM and report formats.
#![forbid(unsafe_code)]
