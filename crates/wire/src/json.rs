//! Ordered JSON documents.

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

/// A JSON value whose objects keep the order in which they were built.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// Anything whose order does not matter.
    Value(Value),
    /// An object in order.
    Object(Vec<(String, Self)>),
    /// A list.
    Array(Vec<Self>),
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Array(list) => list.serialize(serializer),
            Self::Object(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                for (key, value) in pairs {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl Json {
    /// `null`.
    pub const NULL: Self = Self::Value(Value::Null);

    /// The document's text, with `<`, `>` and `&` escaped as Go does.
    #[must_use]
    pub fn print(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            return text;
        }
        let mut out = String::with_capacity(text.len() + 32);
        for character in text.chars() {
            match character {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
                other => out.push(other),
            }
        }
        out
    }

    /// A list, or `null` when it is empty.
    pub fn list_or_null<T: Into<Self>>(list: impl IntoIterator<Item = T>) -> Self {
        let list: Vec<Self> = list.into_iter().map(Into::into).collect();
        if list.is_empty() { Self::NULL } else { Self::Array(list) }
    }

    /// A list.
    pub fn list<T: Into<Self>>(list: impl IntoIterator<Item = T>) -> Self {
        Self::Array(list.into_iter().map(Into::into).collect())
    }

    /// An object of pairs.
    pub fn map<K: Into<String>, T: Into<Self>>(pairs: impl IntoIterator<Item = (K, T)>) -> Self {
        Self::Object(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// The pairs of an object; none of anything else.
    #[must_use]
    pub fn pairs(self) -> Vec<(String, Self)> {
        match self {
            Self::Object(pairs) => pairs,
            _ => Vec::new(),
        }
    }

    /// The value, or `null`.
    pub fn option<T: Into<Self>>(value: Option<T>) -> Self {
        value.map_or(Self::NULL, Into::into)
    }
}

impl<T: Into<Value>> From<T> for Json {
    fn from(value: T) -> Self {
        Self::Value(value.into())
    }
}

/// Builds an ordered object: `object! { "Id": id, "Names": list }`.
#[macro_export]
macro_rules! object {
    ($($key:literal: $value:expr),* $(,)?) => {
        $crate::Json::Object(vec![$(($key.to_owned(), $crate::Json::from($value))),*])
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_go_escapes() {
        let json = crate::object! { "b": 1, "a": crate::object! { "z": "<&>", "y": Json::NULL } };
        assert_eq!(json.print(), "{\"b\":1,\"a\":{\"z\":\"\\u003c\\u0026\\u003e\",\"y\":null}}");
    }
}
