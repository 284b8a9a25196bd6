//! Lists of tests of other people that are known to fail: test, space, reason; a line each, `#` for comments.
//!
//! A reason begins with `not supported: ` (refused with an error that says so), `differs: ` (answered otherwise than by the real
//! Docker), `Docker too: ` (fails on it in the same world) or `stand-in: ` (what stands for an image or for the world outside lacks it). A `*` at a test's end stands for anything; such a test may also pass.

/// Tests and reasons of a list.
pub(super) fn all(list: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '))
}

pub(super) fn fits(pattern: &str, test: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == test, |start| test.starts_with(start))
}

/// Why a test may fail, and whether it may pass as well.
pub(super) fn reason(list: &'static str, test: &str) -> Option<(bool, &'static str)> {
    all(list).find(|(pattern, _)| fits(pattern, test)).map(|(pattern, reason)| (pattern.ends_with('*'), reason))
}

/// That every reason has its form.
#[cfg(test)]
pub(super) fn check(list: &'static str) {
    for (test, reason) in all(list) {
        assert!(
            ["not supported: ", "differs: ", "Docker too: ", "stand-in: "].iter().any(|word| reason.starts_with(word)),
            "{test} {reason}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_fits_counts() {
        const LIST: &str = "# a comment\na::b differs: one\na::* Docker too: other";
        assert_eq!(reason(LIST, "a::b"), Some((false, "differs: one")));
        assert_eq!(reason(LIST, "a::c"), Some((true, "Docker too: other")));
        assert_eq!(reason(LIST, "b"), None);
        check(LIST);
    }
}
