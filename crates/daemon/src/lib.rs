//! Engine API routes, hijack, streams, Docker texts: the only place where wire meets engine.
#![forbid(unsafe_code)]
