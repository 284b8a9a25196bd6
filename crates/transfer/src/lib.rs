//! Registry client: auth, pull, push, mirrors, referrers, resume.
#![forbid(unsafe_code)]
