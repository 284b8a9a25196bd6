//! User and group identities of a thread.
