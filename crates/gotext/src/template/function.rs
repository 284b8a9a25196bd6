//! The functions of templates: Go's own and Docker's.

use std::sync::Arc;

use crate::Value;
use crate::fmt;

/// Why a call failed.
pub(super) enum Fault {
    /// Wrong number or type of operands.
    Arguments(String),
    /// The function itself says so.
    Call(String),
}

const NAMES: &[(&str, usize, usize)] = &[
    ("and", 1, usize::MAX),
    ("or", 1, usize::MAX),
    ("not", 1, 1),
    ("len", 1, 1),
    ("index", 1, usize::MAX),
    ("slice", 1, 4),
    ("call", 1, usize::MAX),
    ("print", 0, usize::MAX),
    ("println", 0, usize::MAX),
    ("printf", 1, usize::MAX),
    ("html", 0, usize::MAX),
    ("js", 0, usize::MAX),
    ("urlquery", 0, usize::MAX),
    ("eq", 1, usize::MAX),
    ("ne", 2, 2),
    ("lt", 2, 2),
    ("le", 2, 2),
    ("gt", 2, 2),
    ("ge", 2, 2),
    ("json", 1, 1),
    ("split", 2, 2),
    ("join", 2, 2),
    ("title", 1, 1),
    ("lower", 1, 1),
    ("upper", 1, 1),
    ("pad", 3, 3),
    ("truncate", 2, 2),
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.iter().any(|(known, ..)| *known == name)
}

pub(super) fn call(name: &str, values: &[Value]) -> Result<Value, Fault> {
    let (_, least, most) = NAMES.iter().find(|(known, ..)| *known == name).copied().unwrap_or((name_of(name), 0, usize::MAX));
    if values.len() < least || values.len() > most {
        let want = if most == usize::MAX { format!("at least {least}") } else { least.to_string() };
        return Err(Fault::Arguments(format!("wrong number of args for {name}: want {want} got {}", values.len())));
    }
    match name {
        "not" => Ok(Value::Bool(!values[0].is_true())),
        "len" => length(&values[0]),
        "index" if matches!(values[0], Value::Nil | Value::Missing) => Err(Fault::Call("index of untyped nil".into())),
        "index" => values[1..].iter().try_fold(values[0].clone(), |value, key| index(&value, key)),
        "slice" => slice(&values[0], &values[1..]),
        "call" => Err(Fault::Call("non-function of type ".to_owned() + values[0].type_name())),
        "print" => Ok(Value::Text(fmt::sprint(values))),
        "println" => Ok(Value::Text(fmt::sprintln(values))),
        "printf" => Ok(Value::Text(fmt::sprintf(text(name, values, 0)?, &values[1..]))),
        "html" => Ok(Value::Text(html(&joined(values)))),
        "js" => Ok(Value::Text(js(&joined(values)))),
        "urlquery" => Ok(Value::Text(urlquery(&joined(values)))),
        "eq" => equal(values),
        "ne" => Ok(Value::Bool(!same(&values[0], &values[1])?)),
        "lt" => Ok(Value::Bool(less(&values[0], &values[1])?)),
        "le" => Ok(Value::Bool(less(&values[0], &values[1])? || same(&values[0], &values[1])?)),
        "gt" => Ok(Value::Bool(less(&values[1], &values[0])?)),
        "ge" => Ok(Value::Bool(!less(&values[0], &values[1])?)),
        "json" => Ok(Value::Text(crate::json(&values[0]))),
        _ => docker(name, values),
    }
}

fn name_of(_unknown: &str) -> &'static str {
    ""
}

/// Docker's own.
fn docker(name: &str, values: &[Value]) -> Result<Value, Fault> {
    Ok(Value::Text(match name {
        "lower" => text(name, values, 0)?.to_lowercase(),
        "upper" => text(name, values, 0)?.to_uppercase(),
        "title" => title(text(name, values, 0)?),
        "split" => {
            let (whole, separator) = (text(name, values, 0)?, text(name, values, 1)?);
            let pieces: Vec<Value> = if separator.is_empty() {
                whole.chars().map(|character| Value::Text(character.to_string())).collect()
            } else {
                whole.split(separator).map(Value::from).collect()
            };
            return Ok(Value::List(Arc::new(pieces)));
        }
        "join" => {
            let pieces: Vec<String> = match &values[0] {
                Value::List(list) => list.iter().map(fmt::plain).collect(),
                // No list is an empty one.
                Value::Nil | Value::Missing => Vec::new(),
                other => return Err(wrong_type(other, "[]string")),
            };
            pieces.join(text(name, values, 1)?)
        }
        "pad" => {
            let whole = text(name, values, 0)?;
            let (before, after) = (number(&values[1])?, number(&values[2])?);
            if whole.is_empty() {
                return Ok(Value::Text(String::new()));
            }
            format!("{}{whole}{}", " ".repeat(before), " ".repeat(after))
        }
        _ => {
            let whole = text(name, values, 0)?;
            let most = number(&values[1])?;
            whole.char_indices().nth(most).map_or(whole, |(end, _)| &whole[..end]).to_owned()
        }
    }))
}

fn wrong_type(value: &Value, expected: &str) -> Fault {
    Fault::Arguments(format!("wrong type for value; expected {expected}; got {}", value.type_name()))
}

fn text<'a>(_name: &str, values: &'a [Value], position: usize) -> Result<&'a str, Fault> {
    values[position].as_text().ok_or_else(|| wrong_type(&values[position], "string"))
}

/// A count between 0 and 100,000.
fn number(value: &Value) -> Result<usize, Fault> {
    match value {
        Value::Int(number) if *number < 0 => Err(Fault::Call("negative count".into())),
        Value::Int(number) => Ok(usize::try_from(*number).unwrap_or(0).min(100_000)),
        other => Err(wrong_type(other, "int")),
    }
}

/// Each word with a capital.
fn title(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for character in text.chars() {
        if inside {
            out.push(character)
        } else {
            out.extend(character.to_uppercase())
        }
        inside = character.is_alphanumeric() || character == '\'' || character == '_';
    }
    out
}

fn length(value: &Value) -> Result<Value, Fault> {
    let count = match value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        Value::Nil | Value::Missing => return Err(Fault::Call("len of nil pointer".into())),
        other => return Err(Fault::Call(format!("len of type {}", other.type_name()))),
    };
    Ok(Value::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}

fn index(value: &Value, key: &Value) -> Result<Value, Fault> {
    let position = |length: usize| match key {
        Value::Int(number) => usize::try_from(*number)
            .ok()
            .filter(|number| *number < length)
            .ok_or_else(|| Fault::Call("reflect: slice index out of range".into())),
        Value::Nil | Value::Missing => Err(Fault::Call("cannot index slice/array with nil".into())),
        other => Err(Fault::Call(format!("cannot index slice/array with type {}", other.type_name()))),
    };
    match value {
        Value::List(list) => Ok(list[position(list.len())?].clone()),
        Value::Text(text) => Ok(Value::Int(i64::from(text.as_bytes()[position(text.len())?]))),
        Value::Map(map) => match key {
            Value::Text(key) => Ok(map.get(key).cloned().unwrap_or(Value::Missing)),
            other => Err(Fault::Call(format!("value has type {}; should be string", other.type_name()))),
        },
        Value::Nil | Value::Missing => Err(Fault::Call("index of untyped nil".into())),
        other => Err(Fault::Call(format!("can't index item of type {}", other.type_name()))),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, Fault> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.len(),
        other => return Err(Fault::Call(format!("can't slice item of type {}", other.type_name()))),
    };
    let mut places = [0, length];
    for (place, bound) in places.iter_mut().zip(bounds) {
        let Value::Int(number) = bound else {
            return Err(Fault::Call(format!("cannot index slice/array with type {}", bound.type_name())));
        };
        *place = usize::try_from(*number)
            .ok()
            .filter(|number| *number <= length)
            .ok_or_else(|| Fault::Call(format!("index out of range: {number}")))?;
    }
    let [from, to] = places;
    if from > to {
        return Err(Fault::Call(format!("invalid slice index: {from} > {to}")));
    }
    Ok(match value {
        Value::Text(text) => Value::Text(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()),
        Value::List(list) => Value::List(Arc::new(list[from..to].to_vec())),
        other => other.clone(),
    })
}

/// The operands as one text.
fn joined(values: &[Value]) -> String {
    match values {
        [Value::Text(text)] => text.clone(),
        _ => {
            let shown =
                |value: &Value| if matches!(value, Value::Nil | Value::Missing) { Value::from("<no value>") } else { value.clone() };
            fmt::sprint(&values.iter().map(shown).collect::<Vec<_>>())
        }
    }
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(character))),
            control if u32::from(control) < 0x20 => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out
}

fn urlquery(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn equal(values: &[Value]) -> Result<Value, Fault> {
    let Some((first, others)) = values.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err(Fault::Call("missing argument for comparison".into()));
    };
    for other in others {
        if same(first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn same(left: &Value, right: &Value) -> Result<bool, Fault> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        (Value::Int(left), Value::Int(right)) => Ok(left == right),
        #[expect(clippy::float_cmp, reason = "Go compares floats so")]
        (Value::Float(left), Value::Float(right)) => Ok(left == right),
        (Value::Text(left), Value::Text(right)) => Ok(left == right),
        (Value::Nil | Value::Missing, Value::Nil | Value::Missing) => Ok(true),
        (Value::Nil | Value::Missing, _) | (_, Value::Nil | Value::Missing) => Ok(false),
        (Value::List(_) | Value::Map(_) | Value::Record(_), _) | (_, Value::List(_) | Value::Map(_) | Value::Record(_)) => {
            Err(Fault::Call("non-comparable type ".to_owned() + left.type_name()))
        }
        _ => Err(Fault::Call("incompatible types for comparison".into())),
    }
}

fn less(left: &Value, right: &Value) -> Result<bool, Fault> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Ok(left < right),
        (Value::Float(left), Value::Float(right)) => Ok(left < right),
        (Value::Text(left), Value::Text(right)) => Ok(left < right),
        (Value::Int(_) | Value::Float(_) | Value::Text(_), Value::Int(_) | Value::Float(_) | Value::Text(_)) => {
            Err(Fault::Call("incompatible types for comparison".into()))
        }
        _ => Err(Fault::Call("invalid type for comparison".into())),
    }
}
