//! An image's configuration in the engine's words, and back.

