//! Keys, signatures, bundles, tag bindings, policy: bytes in, verdict out.
#![forbid(unsafe_code)]
