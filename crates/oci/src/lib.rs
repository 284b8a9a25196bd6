//! Digests, references, platforms, manifests, configs, runtime spec: parse and print. No I/O, no async.
#![forbid(unsafe_code)]
