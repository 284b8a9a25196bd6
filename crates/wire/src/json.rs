//! Ordered JSON documents.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
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
        let text = self.print_plain();
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

    /// The document's text with nothing escaped that need not be, as the answers of the API are.
    #[must_use]
    pub fn print_plain(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
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

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// Keeps the order of what is read.
struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Value(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Value(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Value(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Value(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Value(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Value(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::NULL)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = list.next_element()? {
            out.push(item);
        }
        Ok(Json::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut out = Vec::new();
        while let Some(pair) = map.next_entry()? {
            out.push(pair);
        }
        Ok(Json::Object(out))
    }
}

/// Reading: what is not there is `null`, empty or zero.
impl Json {
    /// Reads a document; the order of keys is kept.
    ///
    /// # Errors
    /// What is no JSON, or nested deeper than 128 levels.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> &Self {
        const NOTHING: &Json = &Json::NULL;
        match self {
            Self::Object(pairs) => pairs.iter().rev().find(|(name, _)| name == key).map_or(NOTHING, |(_, value)| value),
            _ => NOTHING,
        }
    }

    /// The value behind several keys.
    #[must_use]
    pub fn at(&self, keys: &[&str]) -> &Self {
        keys.iter().fold(self, |json, key| json.get(key))
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Value(Value::Null))
    }

    /// Its text.
    #[must_use]
    pub fn as_text(&self) -> &str {
        if let Self::Value(Value::String(text)) = self { text } else { "" }
    }

    /// The text of a key.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.get(key).as_text()
    }

    /// Its whole number.
    #[must_use]
    pub fn as_int(&self) -> i64 {
        match self {
            Self::Value(Value::Number(number)) => {
                number.as_i64().or_else(|| number.as_u64().map(|number| i64::try_from(number).unwrap_or(i64::MAX))).unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// The whole number of a key.
    #[must_use]
    pub fn int(&self, key: &str) -> i64 {
        self.get(key).as_int()
    }

    /// The truth of a key.
    #[must_use]
    pub fn truth(&self, key: &str) -> bool {
        matches!(self.get(key), Self::Value(Value::Bool(true)))
    }

    /// Its items, when it is a list.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        if let Self::Array(list) = self { list } else { &[] }
    }

    /// Its pairs, when it is an object.
    #[must_use]
    pub fn entries(&self) -> &[(String, Self)] {
        if let Self::Object(pairs) = self { pairs } else { &[] }
    }

    /// The texts of a list under a key.
    #[must_use]
    pub fn texts(&self, key: &str) -> Vec<&str> {
        self.get(key).items().iter().map(Self::as_text).collect()
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
    fn what_is_read_keeps_its_order() {
        let text = "{\"b\":[1,-2,1.5,null,true],\"a\":{\"z\":\"x\"}}";
        let json = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(json.print(), text);
        assert_eq!((json.at(&["a", "z"]).as_text(), json.get("b").items()[1].as_int(), json.text("nope")), ("x", -2, ""));
        assert!(Json::parse(b"{").is_err());
    }

    #[test]
    fn order_is_kept_and_go_escapes() {
        let json = crate::object! { "b": 1, "a": crate::object! { "z": "<&>", "y": Json::NULL } };
        assert_eq!(json.print(), "{\"b\":1,\"a\":{\"z\":\"\\u003c\\u0026\\u003e\",\"y\":null}}");
    }
}
