//! How lists are shown: `table`, `table TEMPLATE`, `json`, `raw`, or a template for each line.

use std::collections::BTreeMap;
use std::sync::Arc;

use sampan_gotext::template::Template;
use sampan_gotext::{Record, Value};
use sampan_ui::table::{DOCKER, tabulate};
use sampan_wire::Json;

use crate::error::{CliError, Outcome};

/// What a list may be shown as.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    /// `--format`, or what stands for it.
    pub(crate) format: &'a str,
    /// The template of `table`.
    pub(crate) table: &'a str,
    /// The template of `raw`.
    pub(crate) raw: &'a str,
    /// Heads of columns by field.
    pub(crate) heads: &'a [(&'a str, &'a str)],
    /// Name of the Go type, for errors.
    pub(crate) type_name: &'a str,
}

impl Listing<'_> {
    /// The text of all rows.
    ///
    /// # Errors
    /// A template that does not parse or does not fit.
    pub(crate) fn show(&self, rows: &[Record]) -> Outcome<String> {
        let (table, template) = self.template();
        let template = unescape(template);
        let parsed = Template::parse(&template).map_err(|error| CliError::new(format!("template parsing error: {error}")))?;
        let fail = |error: sampan_gotext::template::TemplateError| CliError::new(format!("template parsing error: {error}"));
        let mut out = String::new();
        for row in rows {
            let mut row = row.clone();
            self.type_name.clone_into(&mut row.type_name);
            out.push_str(&parsed.execute(&row.into()).map_err(fail)?);
            out.push('\n');
        }
        if !table {
            return Ok(out);
        }
        let mut heads = Record::new("");
        heads.fields = self.heads.iter().map(|(field, head)| ((*field).to_owned(), Value::from(*head))).collect();
        heads.labels = Some(BTreeMap::new());
        let heads = parsed.heads().execute(&heads.into()).map_err(fail)?;
        Ok(tabulate(&format!("{heads}\n{out}"), DOCKER))
    }

    /// Whether it is a table, and the template.
    fn template(&self) -> (bool, &str) {
        let format = self.format.trim();
        match format {
            "" | "table" => (true, self.table),
            "raw" if !self.raw.is_empty() => (false, self.raw),
            "json" => (false, "{{json .}}"),
            _ => match format.strip_prefix("table") {
                Some(rest) if rest.starts_with([' ', '\t', '\\']) => (true, rest.trim_start_matches([' ', '\t']).trim_start()),
                _ => (false, self.format),
            },
        }
    }
}

/// `\t` and `\n` of a shell's single quotes.
fn unescape(template: &str) -> String {
    template.replace("\\t", "\t").replace("\\n", "\n")
}

/// JSON as a value of templates; objects are structs, so that keys keep their order.
pub(crate) fn value(json: &Json) -> Value {
    match json {
        Json::Value(value) => Value::from(value),
        Json::Array(list) => Value::List(Arc::new(list.iter().map(value).collect())),
        Json::Object(pairs) => Value::Record(Arc::new(Record {
            type_name: "struct".into(),
            fields: pairs.iter().map(|(key, json)| (key.clone(), value(json))).collect(),
            ..Record::default()
        })),
    }
}

/// JSON as maps, as Go reads it without types.
pub(crate) fn plain(json: &Json) -> Value {
    match json {
        Json::Value(value) => Value::from(value),
        Json::Array(list) => Value::List(Arc::new(list.iter().map(plain).collect())),
        Json::Object(pairs) => Value::Map(Arc::new(pairs.iter().map(|(key, json)| (key.clone(), plain(json))).collect())),
    }
}

/// Labels as `a=b,c=d`, and as what `.Label` looks in.
pub(crate) fn labels(json: &Json) -> (String, BTreeMap<String, String>) {
    let map: BTreeMap<String, String> = json.entries().iter().map(|(key, value)| (key.clone(), value.as_text().to_owned())).collect();
    let text = map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    (text, map)
}

/// JSON with an indent; what the engine did not escape is not escaped here either.
pub(crate) fn pretty(json: &Json, indent: &str) -> String {
    let mut out = String::new();
    write_pretty(json, indent, 0, &mut out);
    out
}

fn write_pretty(json: &Json, indent: &str, depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&indent.repeat(depth));
    };
    match json {
        Json::Object(pairs) if !pairs.is_empty() => {
            out.push('{');
            for (index, (key, value)) in pairs.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                line(out, depth + 1);
                out.push_str(&Json::from(key.as_str()).print_plain());
                out.push_str(": ");
                write_pretty(value, indent, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        Json::Array(list) if !list.is_empty() => {
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                line(out, depth + 1);
                write_pretty(value, indent, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        other => out.push_str(&other.print_plain()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(format: &str) -> Result<String, String> {
        let mut row = Record::new("").with("ID", "abc").with("Names", "web");
        row.labels = Some([("com.example.role".to_owned(), "db".to_owned())].into());
        let listing = Listing {
            format,
            table: "{{.ID}}\t{{.Names}}",
            raw: "id: {{.ID}}",
            heads: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
            type_name: "*formatter.ContainerContext",
        };
        listing.show(&[row]).map_err(|error| error.text)
    }

    #[test]
    fn lists_are_shown_in_all_forms() {
        assert_eq!(show("").as_deref(), Ok("CONTAINER ID   NAMES\nabc            web\n"));
        assert_eq!(
            show("table {{.Names}}\\t{{upper .ID}}\\t{{.Label \"com.example.role\"}}").as_deref(),
            Ok("NAMES     CONTAINER ID   role\nweb       ABC            db\n")
        );
        assert_eq!(show("{{.Names}}").as_deref(), Ok("web\n"));
        assert_eq!(show("raw").as_deref(), Ok("id: abc\n"));
        assert_eq!(show("json").as_deref(), Ok("{\"ID\":\"abc\",\"Names\":\"web\"}\n"));
        assert_eq!(
            show("{{.Nosuch}}").unwrap_err(),
            "template parsing error: template: :1:2: executing \"\" at <.Nosuch>: can't evaluate field Nosuch in type *formatter.ContainerContext"
        );
    }

    #[test]
    fn json_is_indented_as_docker_does() {
        let json = Json::parse(br#"{"b":[1,{}],"a":{"x":[]}}"#).unwrap();
        assert_eq!(pretty(&json, "    "), "{\n    \"b\": [\n        1,\n        {}\n    ],\n    \"a\": {\n        \"x\": []\n    }\n}");
    }
}
