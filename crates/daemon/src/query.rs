//! Queries and bodies, read by Docker's rules.

use std::collections::BTreeMap;

use sampan_engine::PruneFilter;
use sampan_wire::Fields;
use serde_json::Value;

use crate::respond::{ApiError, bad_field};

/// The parameters of a request's URL; the first of a name counts, all are kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let decode = |text: &str| percent_decode(&text.replace('+', " "));
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Self { pairs: pairs.collect() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.pairs.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
    }

    /// False is empty, 0, no, false, none; anything else is true.
    pub(crate) fn truth(&self, key: &str) -> bool {
        self.truth_or(key, false)
    }

    pub(crate) fn truth_or(&self, key: &str, default: bool) -> bool {
        self.get(key).map_or(default, |text| !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| ApiError::invalid(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))
    }

    /// `{"label":{"a=b":true}}` and `{"label":["a=b"]}` alike.
    pub(crate) fn filters(&self) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
        let text = self.text("filters");
        if text.is_empty() {
            return Ok(BTreeMap::new());
        }
        let invalid = || ApiError::invalid("invalid filter");
        let value: Value = serde_json::from_str(text).map_err(|_| invalid())?;
        let mut out = BTreeMap::new();
        for (key, value) in value.as_object().ok_or_else(invalid)? {
            let values = match value {
                Value::Object(map) => map.iter().filter(|(_, truth)| **truth != Value::Bool(false)).map(|(name, _)| name.clone()).collect(),
                Value::Array(list) => {
                    list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(invalid)).collect::<Result<_, _>>()?
                }
                Value::Null => Vec::new(),
                _ => return Err(invalid()),
            };
            out.insert(key.clone(), values);
        }
        Ok(out)
    }
}

/// Refuses filters that a list does not know.
pub(crate) fn only(filters: &BTreeMap<String, Vec<String>>, known: &[&str]) -> Result<(), ApiError> {
    match filters.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(ApiError::invalid(format!("invalid filter '{key}'"))),
        None => Ok(()),
    }
}

/// `a=b` or `a`.
pub(crate) fn label(text: &str) -> (String, Option<String>) {
    text.split_once('=').map_or_else(|| (text.to_owned(), None), |(key, value)| (key.to_owned(), Some(value.to_owned())))
}

/// The filter of a prune.
pub(crate) fn prune_filter(filters: &BTreeMap<String, Vec<String>>) -> Result<PruneFilter, ApiError> {
    let labels = |key: &str| filters.get(key).map(|list| list.iter().map(|text| label(text)).collect()).unwrap_or_default();
    let until = only_until(filters)?;
    Ok(PruneFilter { until, labels: labels("label"), not_labels: labels("label!") })
}

/// The moment before which a prune's things were made; there may be one only.
pub(crate) fn only_until(filters: &BTreeMap<String, Vec<String>>) -> Result<Option<i64>, ApiError> {
    match filters.get("until").map(Vec::as_slice) {
        None | Some([]) => Ok(None),
        Some([text]) => moment(text).map(Some),
        Some(_) => Err(ApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, "more than one until filter specified")),
    }
}

/// A moment: seconds with a fraction, RFC 3339, or a duration before now. Nanoseconds since the epoch.
pub(crate) fn moment(text: &str) -> Result<i64, ApiError> {
    let invalid = || ApiError::invalid(format!("failed to parse value as time or duration: \"{text}\""));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = whole.parse::<i64>() {
        let digits: String = fraction.chars().take(9).collect();
        let nanoseconds = if digits.is_empty() { 0 } else { format!("{digits:0<9}").parse::<i64>().map_err(|_| invalid())? };
        return seconds.checked_mul(1_000_000_000).and_then(|value| value.checked_add(nanoseconds)).ok_or_else(invalid);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return i64::try_from(time.as_nanosecond()).map_err(|_| invalid());
    }
    let span = duration(text).ok_or_else(invalid)?;
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    Ok(now.saturating_sub(span))
}

/// Go's durations: `1h30m`, `1.5s`, `100ms`. Nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit) && !(*unit == "m" && rest.starts_with("ms")))?;
        total += value * factor;
        rest = &rest[unit.len()..];
    }
    jiff::SignedDuration::try_from_secs_f64(total / 1e9).ok().and_then(|span| i64::try_from(span.as_nanos()).ok())
}

/// A JSON body, with Go's words for what is wrong.
pub(crate) fn parse_body(bytes: &[u8]) -> Result<Fields, ApiError> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let first = match values.next() {
        None => return Err(ApiError::invalid("invalid JSON: got EOF while reading request body")),
        Some(Err(error)) if error.is_eof() => return Err(ApiError::invalid("invalid JSON: unexpected EOF")),
        Some(Err(error)) => return Err(ApiError::invalid(format!("invalid JSON: {}", fault(bytes, &error)))),
        Some(Ok(value)) => value,
    };
    if values.next().is_some() {
        return Err(ApiError::invalid("unexpected content after JSON"));
    }
    Fields::new(first).map_err(bad_field)
}

/// What is wrong with a text that is no JSON, in Go's words where they are known.
fn fault(bytes: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = if text.starts_with("key must be a string") {
        "object key string"
    } else if text.starts_with("expected value") {
        "value"
    } else {
        return text;
    };
    let line = bytes.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let found = line.get(error.column().saturating_sub(1)).copied().unwrap_or(b' ');
    format!("invalid character '{}' looking for beginning of {place}", char::from(found).escape_default())
}

pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex =
            bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok()).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match hex.filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_truths_and_filters() {
        let query = Query::parse("a=1&b=false&c=x%20y+z&filters=%7B%22label%22%3A%7B%22k%3Dv%22%3Atrue%7D%2C%22id%22%3A%5B%22q%22%5D%7D");
        assert!(query.truth("a") && !query.truth("b") && !query.truth("nosuch"));
        assert_eq!(query.text("c"), "x y z");
        let filters = query.filters().unwrap();
        assert_eq!((filters["label"][0].as_str(), filters["id"][0].as_str()), ("k=v", "q"));
        assert!(Query::parse("filters=x").filters().is_err());
        assert_eq!(only(&filters, &["id"]).unwrap_err().message, "invalid filter 'label'");
    }

    #[test]
    fn moments() {
        assert_eq!(moment("5.5").unwrap(), 5_500_000_000);
        assert_eq!(moment("1970-01-01T00:00:01Z").unwrap(), 1_000_000_000);
        assert!(moment("10m").unwrap() > 1_000_000_000_000_000_000);
        assert_eq!(duration("1h30m"), Some(5_400_000_000_000));
        assert!(moment("nosuch").is_err());
    }
}
