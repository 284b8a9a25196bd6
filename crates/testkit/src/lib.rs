//! Image-from-text fixtures, namespace sandbox, peers.
#![forbid(unsafe_code)]
