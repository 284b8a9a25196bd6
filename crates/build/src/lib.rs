//! Dockerfile to ops to cached execution.
#![forbid(unsafe_code)]
