//! From when to when a certificate is valid, read from its DER. Pure; reads no more of X.509 than the way to these two times.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The two times in seconds of Unix time, or `None` where this is no certificate.
pub(crate) fn of(certificate: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut body, _) = element(certificate)?;
    // version [0] (optional), serial number, signature algorithm, issuer
    let (tag, _, rest) = element(body)?;
    if tag == 0xa0 {
        body = rest;
    }
    for _ in 0..3 {
        body = element(body)?.2;
    }
    let (_, validity, _) = element(body)?;
    let (tag, begin, rest) = element(validity)?;
    let begin = time(tag, begin)?;
    let (tag, end, _) = element(rest)?;
    Some((begin, time(tag, end)?))
}

/// The first element of DER: its tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, bytes) = bytes.split_first()?;
    let (first, bytes) = bytes.split_first()?;
    let (length, bytes) = match usize::from(*first) {
        short @ 0..0x80 => (short, bytes),
        long => {
            let digits = bytes.get(..long & 0x7f).filter(|digits| (1..=4).contains(&digits.len()))?;
            let length = digits.iter().fold(0_usize, |length, digit| (length << 8) | usize::from(*digit));
            (length, bytes.get(digits.len()..)?)
        }
    };
    Some((*tag, bytes.get(..length)?, bytes.get(length..)?))
}

/// `UTCTime` (`YYMMDDHHMMSSZ`) or `GeneralizedTime` (`YYYYMMDDHHMMSSZ`).
fn time(tag: u8, content: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, text.len()) {
        (0x17, 12) => {
            let short: i16 = text.get(..2)?.parse().ok()?;
            (if short < 50 { 2000 + short } else { 1900 + short }, text.get(2..)?)
        }
        (0x18, 14) => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let moment = DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0).ok()?;
    Some(moment.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn times_are_read() {
        let mut parameters = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 2);
        parameters.not_after = rcgen::date_time_ymd(2060, 3, 4);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let seconds = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
        let wanted = (seconds("2020-01-02T00:00:00Z"), seconds("2060-03-04T00:00:00Z"));
        assert_eq!(super::of(certificate.der()), Some(wanted));
        for end in 0..60 {
            assert_eq!(super::of(&certificate.der()[..end]), None);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _validity = super::of(&bytes);
        }
    }
}
