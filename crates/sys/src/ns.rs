//! Namespaces: entering and making them, on throw-away threads or in single-threaded children.
