//! `Range` of a download and `Content-Range` of an upload's piece (RFC 9110 §14): pure.

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: no header, one that is no range of bytes, or several ranges.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Nothing that is there.
    Nothing,
}

/// Reads a `Range` header for something of `size` bytes.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(list) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    let (first, last) = match list.trim().split_once('-') {
        Some(ends) if !list.contains(',') => ends,
        _ => return Wanted::Whole,
    };
    let number = |text: &str| -> Option<Option<u64>> {
        let text = text.trim();
        match text {
            "" => Some(None),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(digits.parse().unwrap_or(u64::MAX))),
            _ => None,
        }
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else { return Wanted::Whole };
    let range = match (first, last) {
        (None, None) => return Wanted::Whole,
        (Some(first), Some(last)) if first > last => return Wanted::Whole,
        (None, Some(0)) => return Wanted::Nothing,
        (None, Some(count)) => size.saturating_sub(count)..size,
        (Some(first), None) => first..size,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(size),
    };
    if range.start >= size { Wanted::Nothing } else { Wanted::Part(range) }
}

/// Reads the `Content-Range` of a piece, `FIRST-LAST`: its first byte and its length. The specification allows no other form;
/// clients in the field also write `bytes FIRST-LAST/SIZE`.
pub(crate) fn piece(header: &str) -> Option<(u64, u64)> {
    let text = header.trim();
    let text = text.strip_prefix("bytes").map_or(text, str::trim_start).trim_start_matches('=');
    let text = text.split('/').next().unwrap_or_default();
    let (first, last) = text.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let table = [
            (None, Wanted::Whole),
            (Some("bytes=0-4"), Wanted::Part(0..5)),
            (Some("bytes=5-"), Wanted::Part(5..10)),
            (Some("bytes=-3"), Wanted::Part(7..10)),
            (Some("bytes=-30"), Wanted::Part(0..10)),
            (Some("bytes=0-99"), Wanted::Part(0..10)),
            (Some("bytes=9-9"), Wanted::Part(9..10)),
            (Some("bytes=10-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=5-4"), Wanted::Whole),
            (Some("bytes=0-1,3-4"), Wanted::Whole),
            (Some("bytes=a-b"), Wanted::Whole),
            (Some("lines=1-2"), Wanted::Whole),
            (Some("bytes=-"), Wanted::Whole),
            (Some("bytes=99999999999999999999-"), Wanted::Nothing),
        ];
        for (header, result) in table {
            assert_eq!(wanted(header, 10), result, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-0"), 0), Wanted::Nothing);
    }

    #[test]
    fn pieces_have_one_form() {
        assert_eq!(piece("0-9"), Some((0, 10)));
        assert_eq!(piece("bytes 10-19/100"), Some((10, 10)));
        for bad in ["", "-", "5", "9-0", "a-b", "0-", "-1", "0--1", "0-18446744073709551615"] {
            assert_eq!(piece(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_inside(header: String, size: u64) {
            if let Wanted::Part(range) = wanted(Some(&format!("bytes={header}")), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
            let _either = piece(&header);
        }
    }
}
