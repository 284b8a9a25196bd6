//! Go's text/template, as far as formats of command lines use it: all actions, pipelines, variables, the built-in functions and
//! those of Docker (`json`, `split`, `join`, `title`, `lower`, `upper`, `pad`, `truncate`, `println`).
//!
//! Not here: methods with arguments other than `Label`, and functions as values.

mod exec;
mod function;
mod lex;
mod parse;

use std::collections::BTreeMap;

use crate::Value;
use parse::Node;

/// A template that does not parse, or that fails on its data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(pub String);

/// A parsed template.
#[derive(Debug, Clone)]
pub struct Template {
    nodes: Vec<Node>,
    defined: BTreeMap<String, Vec<Node>>,
    settings: Settings,
}

/// How a template behaves.
#[derive(Debug, Clone, Default)]
struct Settings {
    /// A missing key of a map is an error.
    strict: bool,
    /// The data are heads of columns: functions leave them as they are, and a label's head is its name.
    heads: bool,
    /// What errors call it.
    name: String,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// `template: :1: unclosed action` and the like.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let (nodes, defined) = parse::parse(text)?;
        Ok(Self { nodes, defined, settings: Settings::default() })
    }

    /// A missing key of a map is an error.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.settings.strict = true;
        self
    }

    /// The data are heads of columns: Docker's functions leave them as they are, `.Label "a.b_c"` gives `b c`.
    #[must_use]
    pub fn heads(mut self) -> Self {
        self.settings.heads = true;
        self
    }

    /// A template that errors name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.settings.name);
        self
    }

    /// Fills the template.
    ///
    /// # Errors
    /// `template: :1:2: executing "" at <.X>: …`.
    pub fn execute(&self, data: &Value) -> Result<String, TemplateError> {
        exec::execute(&self.nodes, &self.defined, &self.settings, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fill(template: &str) -> Result<String, String> {
        let data: serde_json::Value =
            serde_json::from_str(r#"{"Name":"web","Size":3,"Tags":["a","b"],"Map":{"k":"v"},"Deep":{"In":null}}"#).unwrap();
        Template::parse(template).and_then(|template| template.execute(&Value::from(&data))).map_err(|error| error.0)
    }

    #[test]
    fn actions_work() {
        for (template, expected) in [
            ("{{.Name}}:{{.Size}}", "web:3"),
            ("{{range $i, $t := .Tags}}{{if $i}},{{end}}{{$t}}{{end}}", "a,b"),
            ("{{with .Nope}}x{{else with .Name}}{{.}}{{end}}", "web"),
            ("a {{- /* c */ -}} b", "ab"),
            ("{{index .Map \"k\"}}{{len .Tags}}", "v2"),
            ("{{printf \"%-5s|%03d\" .Name .Size}}", "web  |003"),
            ("{{if and .Name (gt .Size 2)}}y{{else}}n{{end}}", "y"),
            ("{{define \"x\"}}<{{.}}>{{end}}{{template \"x\" .Name}}", "<web>"),
            ("{{.Nope.Deeper.X}} {{html .Nope}} {{or nil}}", "<no value> &lt;no value&gt; <no value>"),
            ("{{printf \"%d %.2v %s\" .Name .Tags}}", "%!d(string=web) [a b] %!s(MISSING)"),
            ("{{printf \"x\" nil}} {{printf \"%+v\" .Size}}", "x%!(EXTRA <nil>) 3"),
            ("{{json .Map}}{{println \"x\"}}", "{\"k\":\"v\"}x\n"),
        ] {
            assert_eq!(fill(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn errors_are_gos() {
        assert_eq!(fill("{{.Name").unwrap_err(), "template: :1: unclosed action");
        assert_eq!(fill("{{nosuch .Name}}").unwrap_err(), "template: :1: function \"nosuch\" not defined");
        assert!(fill("{{range $i, $e := 3}}x{{end}}").unwrap_err().contains("can't use 3 to iterate over more than one variable"));
        assert!(fill("{{pad .Name -1 0}}").is_err() && fill("{{index nil}}").is_err());
        assert_eq!(fill("{{if .Name}}x").unwrap_err(), "template: :1: unexpected EOF");
        assert_eq!(
            fill("{{.Deep.In.X}}").unwrap_err(),
            "template: :1:10: executing \"\" at <.Deep.In.X>: nil pointer evaluating interface {}.X"
        );
        assert_eq!(
            fill("{{.Name.X}}").unwrap_err(),
            "template: :1:7: executing \"\" at <.Name.X>: can't evaluate field X in type interface {}"
        );
        assert_eq!(
            fill("{{index .Tags 7}}").unwrap_err(),
            "template: :1:2: executing \"\" at <index .Tags 7>: error calling index: reflect: slice index out of range"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_no_harm(text in "(\\{\\{|\\}\\}|[a-z. $|():=,\"`0-9-]|range|end|if|else|with|printf){0,40}") {
            drop(fill(&text));
        }
    }
}
