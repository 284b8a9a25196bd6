//! Control groups v1 and v2: find, make, write, read, freeze, kill, remove.
