//! Where a record lies: what the index holds.
//!
//! Six bytes a key: a record begins at a multiple of 8 bytes, and takes as many bytes of its frame as its
//! length's code says, so that positions and lengths are exact though both are cut short.

use crate::format::record::MAX_RECORD_BYTES;
use crate::format::{align_down, align_up};
use crate::limits::BLOCK_BYTES;

/// Records begin at multiples of so many bytes.
pub const RECORD_ALIGN_BYTES: usize = 8;
const UNIT_BITS: u32 = RECORD_ALIGN_BYTES.trailing_zeros();
/// Bits of a location that hold the length's code.
const LEN_BITS: u32 = 11;
/// Bits of a location that hold the record's offset in units.
const OFFSET_BITS: u32 = 37;

/// Longer rooms than so many units are multiples of more than one: a code is a number of so many bits, and
/// how often it is doubled.
const EXACT_UNITS: u32 = 1 << MANTISSA_BITS << EXACT_DOUBLINGS;
const MANTISSA_BITS: u32 = 7;
const EXACT_DOUBLINGS: u32 = 3;

/// Position and room of a record in its shard's area, packed in 48 bits: 37 bits of offset in units of 8
/// bytes (1 TiB a shard) and, as the highest, 11 bits for how much of its frame the record takes.
///
/// That is the length of header, key and value rounded up to 8 bytes; of more than 8 KiB, by at most one
/// part in 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location(u64);

const _: () = assert!(OFFSET_BITS + LEN_BITS == 8 * Location::BYTES as u32);
const _: () = assert!(longest_of(codes() - 1) as usize * RECORD_ALIGN_BYTES >= MAX_RECORD_BYTES);

/// How many codes of lengths there are.
const fn codes() -> u32 {
    1 << LEN_BITS
}

/// The room in units that a code stands for.
const fn longest_of(code: u32) -> u32 {
    if code < EXACT_UNITS {
        return code;
    }
    let (doublings, mantissa) = ((code - EXACT_UNITS) >> MANTISSA_BITS, code & ((1 << MANTISSA_BITS) - 1));
    ((1 << MANTISSA_BITS) + mantissa) << (doublings + EXACT_DOUBLINGS)
}

/// The code of the smallest room that holds so many units.
const fn code_of(units: u32) -> u32 {
    if units < EXACT_UNITS {
        return units;
    }
    let shift = units.ilog2() - MANTISSA_BITS;
    // Rounded up, it may be the first of the next power of two: then it is the next code all the same.
    let mantissa = ((units - 1) >> shift) + 1 - (1 << MANTISSA_BITS);
    EXACT_UNITS + ((shift - EXACT_DOUBLINGS) << MANTISSA_BITS) + mantissa
}

/// Bytes of its frame that a record of `len` bytes takes: what is behind it, up to the next, is padding.
pub const fn room_of(len: usize) -> usize {
    assert!(len > 0 && len <= MAX_RECORD_BYTES);
    longest_of(code_of(len.div_ceil(RECORD_ALIGN_BYTES) as u32)) as usize * RECORD_ALIGN_BYTES
}

#[allow(clippy::len_without_is_empty, reason = "no record is empty")]
impl Location {
    /// Largest area that locations can address, in bytes.
    pub const MAX_AREA_BYTES: u64 = 1 << (OFFSET_BITS + UNIT_BITS);
    /// Bytes that a location takes in the index and in images.
    pub const BYTES: usize = 6;

    /// A record of `len` bytes at byte `offset` of the shard's area.
    pub fn new(offset: u64, len: usize) -> Location {
        assert!(offset < Self::MAX_AREA_BYTES, "offset {offset} beyond the area");
        assert!(offset.is_multiple_of(RECORD_ALIGN_BYTES as u64), "record at {offset}");
        assert!(len > 0 && len <= MAX_RECORD_BYTES, "record length {len}");
        let code = code_of(len.div_ceil(RECORD_ALIGN_BYTES) as u32);
        Location(u64::from(code) << OFFSET_BITS | offset >> UNIT_BITS)
    }

    /// Its offset in units of 8 bytes, and the code of its length.
    pub fn to_parts(self) -> (u64, u64) {
        (self.0 & ((1 << OFFSET_BITS) - 1), self.0 >> OFFSET_BITS)
    }

    /// From its parts in storage; `None` for what no record has.
    pub fn from_parts(units: u64, code: u64) -> Option<Location> {
        let fits = units < 1 << OFFSET_BITS && code < 1 << LEN_BITS;
        Location::from_raw(if fits { code << OFFSET_BITS | units } else { 0 })
    }

    /// Where its room ends, in units of 8 bytes.
    pub fn end_units(self) -> u64 {
        (self.offset() + u64::from(self.room())) >> UNIT_BITS
    }

    /// Byte offset in the shard's area.
    pub fn offset(self) -> u64 {
        (self.0 & ((1 << OFFSET_BITS) - 1)) << UNIT_BITS
    }

    /// Bytes of its frame that the record takes, padding behind it counted: [`room_of`] its length.
    pub fn room(self) -> u32 {
        longest_of((self.0 >> OFFSET_BITS) as u32) << UNIT_BITS
    }

    /// The first byte of the blocks in which the record lies, and how many bytes they have.
    pub fn blocks(self) -> (u64, u32) {
        let from = align_down(self.offset(), BLOCK_BYTES as u64);
        let to = align_up(self.offset() + u64::from(self.room()), BLOCK_BYTES as u64);
        (from, (to - from) as u32)
    }

    /// As stored, in the low 48 bits.
    pub fn to_raw(self) -> u64 {
        self.0
    }

    /// From storage; `None` for what no record has: no room, or more than 48 bits.
    pub fn from_raw(raw: u64) -> Option<Location> {
        let is_within = raw >> (8 * Self::BYTES) == 0;
        (is_within && raw >> OFFSET_BITS > 0).then_some(Location(raw))
    }

    /// As the index and images hold it.
    pub fn to_bytes(self) -> [u8; Location::BYTES] {
        let [a, b, c, d, e, f, ..] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// From the index or an image; `None` where there is no room.
    pub fn from_bytes([a, b, c, d, e, f]: [u8; Location::BYTES]) -> Option<Location> {
        Location::from_raw(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_hold_their_records_and_waste_little() {
        let mut last = 0;
        for len in (1..100_000).chain(MAX_RECORD_BYTES - 100_000..=MAX_RECORD_BYTES) {
            let room = room_of(len);
            assert!(room >= len && room.is_multiple_of(RECORD_ALIGN_BYTES), "{len} bytes in {room}");
            assert!(room >= last || len == MAX_RECORD_BYTES - 100_000, "{len} bytes in {room}");
            let most = if len <= 8192 { len.next_multiple_of(8) } else { len + len / 128 };
            assert!(room <= most, "{len} bytes in {room}");
            assert_eq!(room_of(room.min(MAX_RECORD_BYTES)), room, "a room is its own room");
            last = room;
        }
    }

    #[test]
    fn codes_are_dense_and_read_back() {
        for code in 1..codes() {
            assert_eq!(code_of(longest_of(code)), code);
            assert!(longest_of(code) > longest_of(code - 1));
        }
    }

    #[test]
    fn the_ends_of_the_area_and_of_lengths_read_back() {
        for offset in [0, 8, Location::MAX_AREA_BYTES - 8] {
            for len in [1, 31, 1074, 8192, 8193, MAX_RECORD_BYTES] {
                let location = Location::new(offset, len);
                assert_eq!((location.offset(), location.room() as usize), (offset, room_of(len)));
                assert_eq!(Location::from_raw(location.to_raw()), Some(location));
                assert_eq!(Location::from_bytes(location.to_bytes()), Some(location));
                let (units, code) = location.to_parts();
                assert_eq!(Location::from_parts(units, code), Some(location));
                assert_eq!(Location::from_parts(units | 1 << OFFSET_BITS, code), None);
            }
        }
        assert_eq!(Location::from_bytes([1, 1, 1, 1, 0x1f, 0]), None, "no room");
        assert_eq!(Location::from_raw(1 << 48 | 1), None, "seven bytes");
    }

    #[test]
    #[should_panic(expected = "beyond the area")]
    fn an_offset_beyond_the_area_is_refused() {
        Location::new(Location::MAX_AREA_BYTES, 40);
    }

    #[test]
    #[should_panic(expected = "record at 4")]
    fn an_offset_between_units_is_refused() {
        Location::new(4, 40);
    }
}
