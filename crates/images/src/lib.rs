//! The image life: resolve, tag, save, load, import, history, prune; publishes layers.
#![forbid(unsafe_code)]
