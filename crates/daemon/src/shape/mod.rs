//! The engine's facts as Docker's documents, and Docker's requests as the engine's.

pub(crate) mod container;
pub(crate) mod create;
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

/// Go's `HumanDuration`.
pub(crate) fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_docker_writes_them() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 20, "2 weeks"),
        ] {
            assert_eq!(human(seconds), text);
        }
        assert_eq!(time(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(time(0), "0001-01-01T00:00:00Z");
    }
}
