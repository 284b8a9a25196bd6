//! Mutations of seeds: the same for the same number, on every machine.

/// Small and fast random numbers that are always the same (splitmix64).
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// Begins a sequence.
    #[must_use]
    pub fn new(start: u64) -> Self {
        Self(start)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A number below another; 0 for 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % (end.max(1) as u64)).unwrap_or(0)
    }
}

/// Bytes and numbers at which programs stumble.
const ODD: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\x80",
    b"\x7f",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"-1",
    b"0",
    b"9223372036854775807",
    b"18446744073709551616",
    b"77777777777",
    b"../",
    b"/",
    b"..",
    b"\xc3\x28",
    b"\xe2\x80\xa8",
    b"\"",
    b"null",
    b"[",
    b"{",
];

/// Longest input that a mutation makes.
const MOST: usize = 64 << 10;

/// Changes a seed in a few places; `other` is another seed to borrow from.
#[must_use]
pub fn mutate(seed: &[u8], other: &[u8], words: &[&str], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        match numbers.below(10) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            1 if at < bytes.len() => bytes[at] = numbers.draw().to_le_bytes()[0],
            2 => overwrite(&mut bytes, at, ODD[numbers.below(ODD.len())]),
            3 => insert(&mut bytes, at, ODD[numbers.below(ODD.len())]),
            4 if !words.is_empty() => overwrite(&mut bytes, at, words[numbers.below(words.len())].as_bytes()),
            5 if !words.is_empty() => insert(&mut bytes, at, words[numbers.below(words.len())].as_bytes()),
            6 => {
                let end = (at + numbers.below(32)).min(bytes.len());
                bytes.drain(at..end);
            }
            7 => {
                let end = (at + numbers.below(1024)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                insert(&mut bytes, at, &piece);
            }
            8 => {
                let start = numbers.below(other.len() + 1);
                let end = (start + numbers.below(1024)).min(other.len());
                insert(&mut bytes, at, &other[start..end]);
            }
            _ if numbers.below(4) == 0 => bytes.truncate(at),
            _ => number(&mut bytes, numbers),
        }
    }
    bytes.truncate(MOST);
    bytes
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = (at + piece.len()).min(bytes.len());
    bytes.splice(at..end, piece.iter().copied());
}

/// Changes one run of digits.
fn number(bytes: &mut [u8], numbers: &mut Numbers) {
    let digits: Vec<usize> = bytes.iter().enumerate().filter(|(_, byte)| byte.is_ascii_digit()).map(|(index, _)| index).collect();
    if let Some(at) = digits.get(numbers.below(digits.len())) {
        bytes[*at] = b'0' + numbers.draw().to_le_bytes()[0] % 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_gives_the_same_bytes() {
        let once = |start| mutate(b"seed of 100 bytes", b"another", &["word"], &mut Numbers::new(start));
        assert_eq!(once(7), once(7));
        assert!((0..50).any(|start| once(start) != once(start + 1)));
    }
}
