//! What Go programs print and match: text/template, durations, sizes, filepath.Match, ignore files, shell words, pflag-style flags.
#![forbid(unsafe_code)]
