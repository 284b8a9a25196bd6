//! Two more headers of replies: `Link` (RFC 8288), which names the next page of a list, and `Retry-After`. Pure.

use std::time::Duration;

use jiff::Timestamp;

/// How many bytes of a header are read.
const LIMIT: usize = 16 << 10;

/// The target of the first link whose relation is `next`, as it was written (often relative).
#[must_use]
pub fn next_link<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    headers.into_iter().find_map(|header| next_of(header.get(..LIMIT.min(header.len())).unwrap_or_default()))
}

fn next_of(header: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(header).ok()?;
    let mut rest = text;
    loop {
        let (_, behind) = rest.split_once('<')?;
        let (target, behind) = behind.split_once('>')?;
        let (parameters, behind) = parameters(behind);
        if parameters.iter().any(|(name, value)| name == "rel" && value.split_whitespace().any(|one| one.eq_ignore_ascii_case("next"))) {
            return Some(target.trim().to_owned());
        }
        rest = behind;
    }
}

/// The parameters behind a target, up to the comma that ends the link.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(behind) = rest.strip_prefix(';') else { return (found, rest) };
        let end = behind.find(['=', ';', ',', '<']).unwrap_or(behind.len());
        let (name, behind) = behind.split_at(end);
        let name = name.trim().to_ascii_lowercase();
        let Some(behind) = behind.strip_prefix('=') else {
            found.push((name, String::new()));
            rest = behind;
            continue;
        };
        let behind = behind.trim_start();
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => behind.split_at(behind.find([';', ',']).unwrap_or(behind.len())),
        };
        found.push((name, value.trim().to_owned()));
        rest = behind;
    }
}

/// How long a reply asks to wait: a number of seconds, or a date.
#[must_use]
pub fn retry_after(header: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(header.get(..128.min(header.len()))?).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let seconds = date.as_second().saturating_sub(now.as_second());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found() {
        for (header, wanted) in [
            ("</v2/x/tags/list?last=b&n=2>; rel=\"next\"", Some("/v2/x/tags/list?last=b&n=2")),
            ("<https://h/p>;rel=next", Some("https://h/p")),
            ("<a>; rel=prev, <b>; title=\"x, <c>; y\"; REL=\"last NEXT\"", Some("b")),
            ("<a>; rel=prev", None),
            ("<a>", None),
            ("<a", None),
            ("a; rel=next", None),
            ("<>; rel=next", Some("")),
            ("<a>; rel=\"next", Some("a")),
            ("", None),
        ] {
            assert_eq!(next_link([header.as_bytes()]).as_deref(), wanted, "{header}");
        }
        assert_eq!(next_link([&b"<a>; rel=prev"[..], b"<b>; rel=next"]).as_deref(), Some("b"));
    }

    #[test]
    fn pauses_are_read() {
        let now: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
        for (header, wanted) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2015 07:27:30 GMT", Some(0)),
            ("99999999999999999999999999", Some(u64::MAX)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(header.as_bytes(), now), wanted.map(Duration::from_secs), "{header}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>, text: String) {
            let _next = next_link([bytes.as_slice(), text.as_bytes()]);
            let _pause = retry_after(&bytes, Timestamp::UNIX_EPOCH);
            let _pause = retry_after(text.as_bytes(), Timestamp::UNIX_EPOCH);
        }
    }
}
