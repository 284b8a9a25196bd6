//! Seccomp: profiles, the default one, and their compiler to classic BPF.
//!
//! No libseccomp: a profile is a list of rules over names, filtered by what the container may do anyway, resolved to numbers for
//! each architecture, and compiled to a program that finds a number by binary search.

mod compile;
mod default;
mod filters;
mod profile;

pub use compile::{Compiled, compile};
pub use default::default_profile;
pub use filters::Filters;
pub use profile::{Action, Comparison, Condition, Facts, Operator, Profile, ProfileError, Rule};
