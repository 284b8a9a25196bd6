//! The engine's facts as Docker's documents, and Docker's requests as the engine's.

pub(crate) mod build;
pub(crate) mod container;
pub(crate) mod create;
pub(crate) mod examined;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod system;

use sampan_wire::Json;

/// Nanoseconds since the epoch as RFC 3339; 0 is Go's zero time.
pub(crate) fn time(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0001-01-01T00:00:00Z".into();
    }
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).map_or_else(|_| "0001-01-01T00:00:00Z".into(), |time| time.to_string())
}

/// The same without fraction.
pub(crate) fn time_seconds(nanoseconds: i64) -> String {
    time(nanoseconds / 1_000_000_000 * 1_000_000_000)
}

/// An object of empty objects, or `null`.
pub(crate) fn set(names: impl IntoIterator<Item = String>) -> Json {
    let pairs: Vec<(String, Json)> = names.into_iter().map(|name| (name, Json::Object(Vec::new()))).collect();
    if pairs.is_empty() { Json::NULL } else { Json::Object(pairs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_docker_writes_them() {
        assert_eq!(time(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(time(0), "0001-01-01T00:00:00Z");
    }
}
