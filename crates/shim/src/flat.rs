//! The codec of plans and messages: fields one after the other, little endian, every length checked.
//!
//! Both ends are the same build of the same program, so there is no versioning: a plan never outlives its shim. Decoding never
//! panics and allocates no more than the input is long.

/// A value that can be written and read back.
pub trait Flat: Sized {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);

    /// Takes a value off the front.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are not one.
    fn take(input: &mut &[u8]) -> Result<Self, Malformed>;
}

/// Bytes that are no value of the wanted type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed plan or message")]
pub struct Malformed;

/// The bytes of a value.
#[must_use]
pub fn encode(value: &impl Flat) -> Vec<u8> {
    let mut out = Vec::new();
    value.put(&mut out);
    out
}

/// The value of some bytes, all of which must be used.
///
/// # Errors
/// [`Malformed`].
pub fn decode<T: Flat>(mut input: &[u8]) -> Result<T, Malformed> {
    let value = T::take(&mut input)?;
    if input.is_empty() { Ok(value) } else { Err(Malformed) }
}

macro_rules! numbers {
    ($($kind:ty),*) => {$(
        impl Flat for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
                let (bytes, rest) = input.split_first_chunk().ok_or(Malformed)?;
                *input = rest;
                Ok(Self::from_le_bytes(*bytes))
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, i32, i64);

impl Flat for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        match u8::take(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    u32::try_from(length).unwrap_or(u32::MAX).put(out);
}

fn take_length(input: &mut &[u8]) -> Result<usize, Malformed> {
    let length = u32::take(input)? as usize;
    // Every element takes at least one byte: a longer list cannot be there.
    if length <= input.len() { Ok(length) } else { Err(Malformed) }
}

impl Flat for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        let length = take_length(input)?;
        let (bytes, rest) = input.split_at(length);
        *input = rest;
        Self::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
    }
}

impl<T: Flat> Flat for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        self.iter().for_each(|item| item.put(out));
    }

    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        let length = take_length(input)?;
        // Not reserved ahead: an element may be larger than its bytes.
        let mut items = Self::new();
        for _ in 0..length {
            items.push(T::take(input)?);
        }
        Ok(items)
    }
}

impl<T: Flat> Flat for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        if bool::take(input)? { Ok(Some(T::take(input)?)) } else { Ok(None) }
    }
}

impl<A: Flat, B: Flat> Flat for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok((A::take(input)?, B::take(input)?))
    }
}

/// A structure whose fields are flat.
macro_rules! flat_struct {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name {
            $($(#[$inner])* pub $field: $kind,)*
        }

        impl $crate::flat::Flat for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::flat::Flat::put(&self.$field, out);)*
            }

            fn take(input: &mut &[u8]) -> Result<Self, $crate::flat::Malformed> {
                Ok(Self { $($field: <$kind as $crate::flat::Flat>::take(input)?,)* })
            }
        }
    };
}

/// An enumeration whose variants carry named flat fields.
macro_rules! flat_enum {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $number:literal => $variant:ident { $($(#[$deep:meta])* $field:ident: $kind:ty,)* },)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $($(#[$inner])* $variant { $($(#[$deep])* $field: $kind,)* },)*
        }

        impl $crate::flat::Flat for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field,)* } => {
                        out.push($number);
                        $($crate::flat::Flat::put($field, out);)*
                    })*
                }
            }

            fn take(input: &mut &[u8]) -> Result<Self, $crate::flat::Malformed> {
                match <u8 as $crate::flat::Flat>::take(input)? {
                    $($number => Ok(Self::$variant { $($field: <$kind as $crate::flat::Flat>::take(input)?,)* }),)*
                    _ => Err($crate::flat::Malformed),
                }
            }
        }
    };
}

pub(crate) use {flat_enum, flat_struct};

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro makes public types")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    flat_struct! {
        /// A sample.
        Sample {
            /// a
            a: u32,
            /// b
            b: Vec<(String, Option<i64>)>,
            /// c
            c: bool,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(a: u32, b: Vec<(String, Option<i64>)>, c: bool) {
            let sample = Sample { a, b, c };
            prop_assert_eq!(decode::<Sample>(&encode(&sample)), Ok(sample));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let _either = decode::<Sample>(&bytes);
        }
    }

    #[test]
    fn lengths_beyond_the_input_are_refused() {
        assert_eq!(decode::<Vec<u8>>(&[255, 255, 255, 255, 1]), Err(Malformed));
        assert_eq!(decode::<u16>(&[1, 2, 3]), Err(Malformed), "nothing may be left");
        assert_eq!(decode::<bool>(&[2]), Err(Malformed));
    }
}
