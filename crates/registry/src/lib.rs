//! Distribution API server, identities, rights, quotas, gates.
#![forbid(unsafe_code)]
