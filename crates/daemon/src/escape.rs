//! The keys with which a client leaves a terminal without ending the process, looked for in what it types. Pure.

/// What a client that names none means: Ctrl-P, Ctrl-Q.
const USUAL: [u8; 2] = [16, 17];

/// A sequence of keys, and how much of it was typed so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Escape {
    keys: Vec<u8>,
    typed: usize,
}

impl Escape {
    /// Parses `ctrl-x,y`: keys or `ctrl-` with a letter or one of `@[\]^_`, between commas; empty means the usual. `None` for others.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let keys = if text.is_empty() { Some(USUAL.to_vec()) } else { text.split(',').map(key).collect() };
        keys.map(|keys| Self { keys, typed: 0 })
    }

    /// Takes typed bytes: what goes to the process, and whether the sequence is complete. Keys of a sequence that may still be
    /// completed are held back.
    pub(crate) fn feed(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(input.len());
        for byte in input {
            if *byte == self.keys[self.typed] {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return (out, true);
                }
            } else {
                out.extend_from_slice(&self.keys[..self.typed]);
                out.push(*byte);
                self.typed = 0;
            }
        }
        (out, false)
    }
}

fn key(word: &str) -> Option<u8> {
    match (word.as_bytes(), word.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([byte], _) => Some(*byte),
        (_, Some([letter @ b'a'..=b'z'])) => Some(letter - b'a' + 1),
        (_, Some(b"@")) => Some(0),
        (_, Some([sign @ b'['..=b'_'])) => Some(sign - b'[' + 27),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_parsed() {
        let keys = |text: &str| Escape::parse(text).map(|escape| escape.keys);
        assert_eq!(keys(""), Some(vec![16, 17]));
        assert_eq!(keys("ctrl-a,x,ctrl-[,ctrl-_,ctrl-@"), Some(vec![1, b'x', 27, 31, 0]));
        assert_eq!((keys("foo"), keys("ctrl-ä"), keys("a,,b"), keys("ctrl-A")), (None, None, None, None));
    }

    #[test]
    fn a_sequence_is_found_across_reads_and_given_back_when_it_breaks() {
        let mut escape = Escape::parse("ctrl-p,ctrl-q").unwrap();
        assert_eq!(escape.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(escape.feed(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(escape.feed(b"d\x10"), (b"d".to_vec(), false));
        assert_eq!(escape.feed(b"\x11later"), (Vec::new(), true));
    }
}
