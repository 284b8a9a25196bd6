//! Name filters of lists: a name itself, or a regular expression found in it. Expressions are read as Go's and Rust's common part.

use std::collections::BTreeMap;

use regex_lite::{Regex, RegexBuilder};

/// Memory that one expression may take, in bytes.
const LARGEST: usize = 1 << 20;

/// The names that a list is asked for.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<(String, Option<Regex>)>);

impl Names {
    /// The `name` filters of a request. What is no expression fits its own text alone, as in the original.
    pub(crate) fn of(filters: &BTreeMap<String, Vec<String>>) -> Self {
        let read = |text: &String| (text.clone(), RegexBuilder::new(text).size_limit(LARGEST).build().ok());
        Self(filters.get("name").into_iter().flatten().map(read).collect())
    }

    /// Whether one of them fits, or there are none.
    pub(crate) fn fit(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|(text, pattern)| text == name || pattern.as_ref().is_some_and(|it| it.is_match(name)))
    }

    /// The same for a container, whose name may be written with a slash.
    pub(crate) fn fit_container(&self, name: &str) -> bool {
        self.fit(name) || self.fit(&format!("/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &[&str]) -> Names {
        let wanted = wanted.iter().map(|text| (*text).to_owned()).collect();
        Names::of(&BTreeMap::from([("name".to_owned(), wanted)]))
    }

    #[test]
    fn a_name_filter_is_an_expression() {
        for (wanted, fits) in [
            ("web", true),
            ("^web", false),
            ("^/my-web-1$", true),
            ("^my-web-1$", true),
            ("^my-web-[0-9]+$", true),
            ("/my", true),
            ("/web", false),
            ("web-.$", true),
            ("my$", false),
            ("nothing|web", true),
            ("(?i)WEB", true),
            ("[", false),
            ("(a{1000}){1000}", false),
        ] {
            assert_eq!(names(&[wanted]).fit_container("my-web-1"), fits, "{wanted}");
        }
    }

    #[test]
    fn one_of_several_is_enough_and_none_fits_all() {
        assert!(names(&["other", "web"]).fit("web") && names(&[]).fit("web"));
        assert!(!names(&["/web"]).fit("web"));
        assert!(names(&["a(b"]).fit("a(b"), "no expression, but the name itself");
    }
}
