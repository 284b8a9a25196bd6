//! Netlink messages, written byte by byte: header, fixed part, attributes.

/// A message or a nested attribute under construction.
#[derive(Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

/// Request, and an answer is wanted.
pub(crate) const ACK: u16 = 0x1 | 0x4;
/// Make it if it is not there.
pub(crate) const CREATE: u16 = 0x400;
/// Fail if it is there.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// Request without an answer of its own.
pub(crate) const REQUEST: u16 = 0x1;
/// All of them.
pub(crate) const DUMP: u16 = 0x1 | 0x300;
/// The attribute holds attributes.
const NESTED: u16 = 0x8000;

impl Message {
    /// A message of some type; length and sequence are set when it is sent.
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self { bytes }
    }

    /// Appends the fixed part.
    pub(crate) fn fixed(mut self, part: &[u8]) -> Self {
        self.bytes.extend_from_slice(part);
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        self.pad();
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// An attribute of bytes.
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.put(kind, value);
        self
    }

    /// A zero-terminated string.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// A number in the machine's order (rtnetlink).
    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in network order (nf_tables).
    pub(crate) fn big(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// An attribute of attributes.
    #[expect(clippy::needless_pass_by_value, reason = "a message part is built to be given away")]
    pub(crate) fn nested(self, kind: u16, content: Self) -> Self {
        self.bytes(kind | NESTED, &content.bytes)
    }

    /// The finished bytes.
    pub(crate) fn done(self) -> Vec<u8> {
        self.bytes
    }
}

/// The attributes of a message's body behind its fixed part: type without flags, and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut out = Vec::new();
    while let Some(header) = bytes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        if length < 4 || length > bytes.len() {
            break;
        }
        out.push((u16::from_ne_bytes([header[2], header[3]]) & 0x3fff, &bytes[4..length]));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn attributes_are_read_as_written(list in prop::collection::vec((1_u16..100, prop::collection::vec(any::<u8>(), 0..40)), 0..10)) {
            let message = list.iter().fold(Message::default(), |message, (kind, value)| message.bytes(*kind, value)).done();
            let read: Vec<(u16, Vec<u8>)> = attributes(&message).into_iter().map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(read, list);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _attributes = attributes(&bytes);
        }
    }
}
