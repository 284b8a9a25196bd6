//! Lenient reading of request bodies.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A field of the wrong type; the text is close to Go's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError(pub String);

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FieldError {}

/// An object being read: keys in any case, `null` is absent, unknown keys are ignored.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    map: Map<String, Value>,
}

type Result<T> = std::result::Result<T, FieldError>;

fn wrong(key: &str, wanted: &str, got: &Value) -> FieldError {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    FieldError(format!("invalid JSON: json: cannot unmarshal {got} into Go struct field {key} of type {wanted}"))
}

impl Fields {
    /// Reads an object.
    ///
    /// # Errors
    /// [`FieldError`] when it is none.
    pub fn new(value: Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self { map }),
            Value::Null => Ok(Self::default()),
            other => Err(wrong("body", "object", &other)),
        }
    }

    /// The value of a key, if it is there and not `null`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        let found = self.map.get(key).or_else(|| self.map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value));
        found.filter(|value| !value.is_null())
    }

    /// A text; absent: empty.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn text(&self, key: &str) -> Result<String> {
        match self.get(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(wrong(key, "string", other)),
        }
    }

    /// A truth; absent: false.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn truth(&self, key: &str) -> Result<bool> {
        Ok(self.optional_truth(key)?.unwrap_or(false))
    }

    /// A truth, if given.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn optional_truth(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(*truth)),
            Some(other) => Err(wrong(key, "bool", other)),
        }
    }

    /// A number; absent: 0.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn number(&self, key: &str) -> Result<i64> {
        Ok(self.optional_number(key)?.unwrap_or(0))
    }

    /// A number, if given.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn optional_number(&self, key: &str) -> Result<Option<i64>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong(key, "int64", value)),
        }
    }

    /// A list of texts; absent: `None`. A single text counts as a list of one, as Docker allows for commands.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn optional_texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
            Some(Value::Array(list)) => {
                let one = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| wrong(key, "string", value));
                list.iter().map(one).collect::<Result<_>>().map(Some)
            }
            Some(other) => Err(wrong(key, "[]string", other)),
        }
    }

    /// A list of texts; absent: empty.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn texts(&self, key: &str) -> Result<Vec<String>> {
        Ok(self.optional_texts(key)?.unwrap_or_default())
    }

    /// An object of texts.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn map(&self, key: &str) -> Result<BTreeMap<String, String>> {
        let Some(value) = self.get(key) else { return Ok(BTreeMap::new()) };
        let Value::Object(map) = value else { return Err(wrong(key, "map[string]string", value)) };
        map.iter().map(|(name, value)| Ok((name.clone(), value.as_str().ok_or_else(|| wrong(key, "string", value))?.to_owned()))).collect()
    }

    /// The keys of an object.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn keys(&self, key: &str) -> Result<Vec<String>> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => Ok(map.keys().cloned().collect()),
            Some(other) => Err(wrong(key, "map[string]struct {}", other)),
        }
    }

    /// An object; absent: empty.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn object(&self, key: &str) -> Result<Self> {
        Self::new(self.get(key).cloned().unwrap_or_default()).map_err(|_| wrong(key, "object", self.get(key).unwrap_or(&Value::Null)))
    }

    /// A list of objects; absent: empty.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn objects(&self, key: &str) -> Result<Vec<Self>> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().cloned().map(Self::new).collect(),
            Some(other) => Err(wrong(key, "array", other)),
        }
    }

    /// Every key with its value.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.map.iter()
    }
}
