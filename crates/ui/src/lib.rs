//! Printer, tables, hints, progress bars, flag tables.
#![forbid(unsafe_code)]
