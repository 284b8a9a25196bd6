//! Bridge, veth, nf_tables, IPAM, ports, reconcile. Sync.
#![forbid(unsafe_code)]
