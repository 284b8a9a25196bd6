//! Values of templates: what JSON can hold, and records with named fields in an order.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Something a template works on.
#[derive(Debug, Clone)]
pub enum Value {
    /// `nil`.
    Nil,
    /// What a map without the key gives: prints `<no value>`.
    Missing,
    /// `bool`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// `float64`.
    Float(f64),
    /// `string`.
    Text(String),
    /// A slice.
    List(Arc<Vec<Self>>),
    /// A map with text keys; prints sorted.
    Map(Arc<BTreeMap<String, Self>>),
    /// A struct.
    Record(Arc<Record>),
}

/// A struct, or an object whose methods take no argument.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The Go type that errors name, for instance `*formatter.ContainerContext`.
    pub type_name: String,
    /// Fields in order.
    pub fields: Vec<(String, Value)>,
    /// Fields that can be asked for but are not part of the JSON form: other spellings, omitted ones.
    pub hidden: Vec<(String, Value)>,
    /// What is printed instead of the fields: all of the struct's, where the JSON form leaves empty ones out.
    pub printed: Option<Vec<(String, Value)>>,
    /// What the method `Label "name"` looks in.
    pub labels: Option<BTreeMap<String, String>>,
}

impl Record {
    /// A record of a type.
    #[must_use]
    pub fn new(type_name: &str) -> Self {
        Self { type_name: type_name.to_owned(), ..Self::default() }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// A field, hidden ones too.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().chain(&self.hidden).find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl Value {
    /// The text of a text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Whether `if` takes it for true.
    #[must_use]
    pub fn is_true(&self) -> bool {
        match self {
            Self::Nil | Self::Missing => false,
            Self::Bool(truth) => *truth,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Record(_) => true,
        }
    }

    /// The Go type.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::Nil | Self::Missing => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
            Self::Record(record) => &record.type_name,
        }
    }
}

impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Nil,
            serde_json::Value::Bool(truth) => Self::Bool(*truth),
            serde_json::Value::Number(number) => {
                number.as_i64().map_or_else(|| Self::Float(number.as_f64().unwrap_or_default()), Self::Int)
            }
            serde_json::Value::String(text) => Self::Text(text.clone()),
            serde_json::Value::Array(list) => Self::List(Arc::new(list.iter().map(Self::from).collect())),
            serde_json::Value::Object(map) => {
                Self::Map(Arc::new(map.iter().map(|(key, value)| (key.clone(), Self::from(value))).collect()))
            }
        }
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Record> for Value {
    fn from(record: Record) -> Self {
        Self::Record(Arc::new(record))
    }
}

impl From<Vec<Self>> for Value {
    fn from(list: Vec<Self>) -> Self {
        Self::List(Arc::new(list))
    }
}

/// Writes JSON as Docker's `json` function does: rows of lists with `<`, `>` and `&` escaped, everything else as it is.
pub(crate) fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(value, false, &mut out);
    out
}

fn write_json(value: &Value, escaped: bool, out: &mut String) {
    match value {
        Value::Nil | Value::Missing => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Int(number) => out.push_str(&format!("{number}")),
        Value::Float(number) => out.push_str(&crate::fmt::shortest(*number)),
        Value::Text(text) => write_text(text, escaped, out),
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write_json(item, escaped, out);
            }
            out.push(']');
        }
        Value::Map(map) => write_pairs(map.iter(), escaped, out),
        Value::Record(record) => write_pairs(record.fields.iter().map(|(key, value)| (key, value)), true, out),
    }
}

fn write_pairs<'a>(pairs: impl Iterator<Item = (&'a String, &'a Value)>, escaped: bool, out: &mut String) {
    out.push('{');
    for (index, (key, value)) in pairs.enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        write_text(key, escaped, out);
        out.push(':');
        write_json(value, escaped, out);
    }
    out.push('}');
}

fn write_text(text: &str, escaped: bool, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' if !escaped => out.push(character),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            control if u32::from(control) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}
