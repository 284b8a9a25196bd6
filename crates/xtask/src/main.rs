//! Benchmarks, checks, generators.
#![forbid(unsafe_code)]

fn main() {}
