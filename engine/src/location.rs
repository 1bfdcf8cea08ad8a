//! Where a record lies: what the index holds.

use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// Bits of a location that hold the record's length.
const LEN_BITS: u32 = 21;
/// Bits of a location that hold the record's offset.
const OFFSET_BITS: u32 = 64 - LEN_BITS;

/// Position and length of a record in its shard's area, packed in 8 bytes: 43 bits of byte offset
/// (8 TiB a shard) and 21 bits of length (header, key and value).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location(u64);

const _: () = assert!(MAX_KEY_BYTES + MAX_VALUE_BYTES + 30 < 1 << LEN_BITS);

#[allow(clippy::len_without_is_empty, reason = "no record is empty")]
impl Location {
    /// Largest area that locations can address, in bytes.
    pub const MAX_AREA_BYTES: u64 = 1 << OFFSET_BITS;

    /// A record of `len` bytes at byte `offset` of the shard's area.
    pub fn new(offset: u64, len: u32) -> Location {
        assert!(offset < Self::MAX_AREA_BYTES, "offset {offset} beyond the area");
        assert!(len > 0 && len < 1 << LEN_BITS, "record length {len}");
        Location(offset << LEN_BITS | u64::from(len))
    }

    /// Byte offset in the shard's area.
    pub fn offset(self) -> u64 {
        self.0 >> LEN_BITS
    }

    /// Length of the whole record in bytes.
    pub fn len(self) -> u32 {
        (self.0 & ((1 << LEN_BITS) - 1)) as u32
    }

    /// As stored.
    pub fn to_raw(self) -> u64 {
        self.0
    }

    /// From storage; `None` where the length is zero, which no record has.
    pub fn from_raw(raw: u64) -> Option<Location> {
        let location = Location(raw);
        (location.len() > 0).then_some(location)
    }
}
