//! Ids of the cluster's parts. Zero is never a valid id: it stands for "unknown" on the wire.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// Whether the id names something.
            pub fn is_some(self) -> bool {
                self.0 != 0
            }
        }
    };
}

id!(/** One cluster; drawn at bootstrap, checked on every request. */ ClusterId);
id!(/** One key range `[start, end)`. */ RegionId);
id!(/** One copy of a region. Never reused, so an id outlives its peer. */ PeerId);
id!(/** One server process with its data. */ StoreId);
id!(/** A timestamp of the TSO: 46 bits of milliseconds since 1970, 18 bits of counter. */ Ts);

impl Ts {
    /// The greatest timestamp. Reads at it see the latest versions.
    pub const MAX: Ts = Ts(u64::MAX);
    /// Bits of the counter below the milliseconds.
    pub const LOGICAL_BITS: u32 = 18;

    /// Joins milliseconds and counter.
    pub fn compose(physical_ms: u64, logical: u64) -> Ts {
        assert!(
            logical < 1 << Self::LOGICAL_BITS,
            "logical {logical} overflows its {} bits",
            Self::LOGICAL_BITS
        );
        Ts((physical_ms << Self::LOGICAL_BITS) | logical)
    }

    /// Milliseconds since 1970.
    pub fn physical_ms(self) -> u64 {
        self.0 >> Self::LOGICAL_BITS
    }

    /// Counter within the millisecond.
    pub fn logical(self) -> u64 {
        self.0 & ((1 << Self::LOGICAL_BITS) - 1)
    }
}
