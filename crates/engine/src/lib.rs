//! Life cycles of containers, networks, volumes; commit; restart, events, crash recovery.
#![forbid(unsafe_code)]
