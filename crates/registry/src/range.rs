//! The headers `Range` and `Content-Range`. Pure; takes any text.

use std::ops::Range;

/// What a client asks of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: no range, one of another unit, several, or one that cannot be read.
    All,
    /// A part, inside of the blob.
    Part(Range<u64>),
    /// A part that is not there.
    Unsatisfiable,
}

/// Reads `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-LENGTH` for a blob of a length.
#[must_use]
pub fn parse_range(text: &str, length: u64) -> Wanted {
    let Some((unit, spec)) = text.split_once('=') else { return Wanted::All };
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Wanted::All;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::All };
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        return match number(last) {
            None => Wanted::All,
            Some(0) => Wanted::Unsatisfiable,
            Some(_) if length == 0 => Wanted::Unsatisfiable,
            Some(count) => Wanted::Part(length.saturating_sub(count)..length),
        };
    }
    let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
    match (number(first), last) {
        // RFC 9110 leaves it to the server whether such a header is ignored or refused; others refuse it.
        (Some(first), Some(last)) if last < first => Wanted::Unsatisfiable,
        (Some(first), Some(_)) if first >= length => Wanted::Unsatisfiable,
        (Some(first), Some(last)) => Wanted::Part(first..last.saturating_add(1).min(length)),
        _ => Wanted::All,
    }
}

/// Reads the `Content-Range` of a chunk: `FIRST-LAST`, also as `bytes FIRST-LAST/ALL`. None for anything else.
#[must_use]
pub fn parse_content_range(text: &str) -> Option<Range<u64>> {
    let text = text.trim();
    let text = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches([' ', '=']));
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..last.checked_add(1)?)
}

/// Digits alone, no sign; what overflows is as large as can be.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        let table = [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=2-99", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("Bytes = 1-2", Wanted::Part(1..3)),
            ("bytes=0-18446744073709551615999", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=5-2", Wanted::Unsatisfiable),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("bytes=-", Wanted::All),
            ("items=0-1", Wanted::All),
            ("", Wanted::All),
        ];
        for (text, expected) in table {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn chunks_say_where_they_belong() {
        assert_eq!(parse_content_range("0-9"), Some(0..10));
        assert_eq!(parse_content_range("bytes 5-5/100"), Some(5..6));
        for bad in ["", "5", "9-0", "-5", "5-", "a-b", "0-18446744073709551615", "+0-1", "0-99999999999999999999"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_inside(text in "bytes=[0-9-]{0,24}|.{0,20}", length: u64) {
            if let Wanted::Part(part) = parse_range(&text, length) {
                prop_assert!(part.start < part.end && part.end <= length);
            }
            if let Some(range) = parse_content_range(&text) {
                prop_assert!(range.start < range.end);
            }
        }
    }
}
