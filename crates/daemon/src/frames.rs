//! Docker's frames (stream number, three zeros, length, bytes) put on or taken off, where a client wants the other form. Pure.

/// How a process's bytes become a client's.
#[derive(Debug)]
pub(crate) enum Frames {
    /// They are as the client wants them.
    Keep,
    /// Plain bytes become frames of standard output.
    Add,
    /// Of frames only standard output is given, plain; the rest of a frame that was cut.
    Strip(Vec<u8>),
}

/// Length of a frame's head.
const HEAD: usize = 8;

impl Frames {
    /// From what the process's side has to what the client wants; true is plain.
    pub(crate) fn between(process_is_plain: bool, client_is_plain: bool) -> Self {
        match (process_is_plain, client_is_plain) {
            (true, false) => Self::Add,
            (false, true) => Self::Strip(Vec::new()),
            _ => Self::Keep,
        }
    }

    /// What the client gets for these bytes.
    pub(crate) fn turn(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Keep => bytes.to_vec(),
            Self::Add => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
                [&[1, 0, 0, 0], &length, bytes].concat()
            }
            Self::Strip(rest) => {
                rest.extend_from_slice(bytes);
                let mut out = Vec::new();
                while let Some((head, after)) = rest.split_first_chunk::<HEAD>() {
                    let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
                    let Some(content) = after.get(..length) else { break };
                    if head[0] == 1 {
                        out.extend_from_slice(content);
                    }
                    rest.drain(..HEAD + length);
                }
                out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_put_on() {
        assert_eq!(Frames::between(true, false).turn(b"out"), b"\x01\0\0\0\0\0\0\x03out");
        assert_eq!(Frames::between(true, true).turn(b"out"), b"out");
    }

    #[test]
    fn frames_are_taken_off_however_they_arrive() {
        let bytes = b"\x01\0\0\0\0\0\0\x02ab\x02\0\0\0\0\0\0\x01e\x01\0\0\0\0\0\0\x03cde";
        for size in 1..=bytes.len() {
            let mut frames = Frames::between(false, true);
            let out: Vec<u8> = bytes.chunks(size).flat_map(|part| frames.turn(part)).collect();
            assert_eq!(out, b"abcde", "in pieces of {size}");
        }
    }
}
