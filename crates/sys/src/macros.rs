//! A small flag set, so that callers cannot pass arbitrary bits.

macro_rules! bitflags_like {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $flag:ident = $value:expr,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name(u64);

        impl $name {
            $($(#[$inner])* pub const $flag: Self = Self($value);)*

            /// No flag.
            #[must_use]
            pub const fn empty() -> Self {
                Self(0)
            }

            /// The kernel's number.
            #[must_use]
            pub const fn bits(self) -> u64 {
                self.0
            }

            /// From the kernel's number; unknown bits are dropped.
            #[must_use]
            pub const fn from_bits_truncate(bits: u64) -> Self {
                Self(bits & (0 $(| $value)*))
            }

            /// Both.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether all flags of `other` are set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
        }
    };
}
