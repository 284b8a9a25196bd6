//! Container options to plan, pure; spawns and speaks to shims; reads what they leave.
#![forbid(unsafe_code)]
