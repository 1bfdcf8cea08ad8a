//! A record: 30 bytes of header, 8 more where it expires, the key, the value.

use crate::format::ChecksumSeed;
use crate::ids::{PartitionId, Seq, WallMs};
use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::location::room_of;

/// Size of a record's header; all the overhead that a record has on the drive, before padding.
pub const RECORD_HEADER_BYTES: usize = 30;
/// Bytes behind the header of a record that expires: when, in UNIX milliseconds.
pub const EXPIRY_BYTES: usize = 8;
/// Bytes of the longest record.
pub const MAX_RECORD_BYTES: usize = RECORD_HEADER_BYTES + EXPIRY_BYTES + MAX_KEY_BYTES + MAX_VALUE_BYTES;
/// Flag of the kind byte: the record expires.
pub const EXPIRES_FLAG: u8 = 0x40;

const CRC_AT: usize = 0;
const SEQ_AT: usize = 4;
const PARTITION_AT: usize = 20;
const KIND_AND_VALUE_LEN_AT: usize = 24;
const KEY_LEN_AT: usize = 28;
const _: () = assert!(KEY_LEN_AT + 2 == RECORD_HEADER_BYTES);
const _: () = assert!(SEQ_AT + Seq::BYTES == PARTITION_AT);

/// Low bits of the kind-and-length field that hold the value's length.
const VALUE_LEN_BITS: u32 = 24;
const VALUE_LEN_MASK: u32 = (1 << VALUE_LEN_BITS) - 1;
const _: () = assert!(MAX_VALUE_BYTES < 1 << VALUE_LEN_BITS);
const _: () = assert!(MAX_KEY_BYTES < 1 << 16);

/// What a record says. The four high bits of the kind byte are flags: 0x40 means that 8 bytes of expiry
/// follow the header (of a put only); the others are reserved: 0x80 will mean that 16 bytes of consensus
/// position (term and index) follow the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// The key has this value.
    Put,
    /// The key is gone.
    Delete,
    /// A change of the shard's catalog, encoded in the value; no key, partition 0.
    Catalog,
}

impl RecordKind {
    fn code(self) -> u8 {
        match self {
            RecordKind::Put => 1,
            RecordKind::Delete => 2,
            RecordKind::Catalog => 3,
        }
    }

    fn from_code(code: u8) -> Option<RecordKind> {
        match code {
            1 => Some(RecordKind::Put),
            2 => Some(RecordKind::Delete),
            3 => Some(RecordKind::Catalog),
            _ => None,
        }
    }
}

/// A record's content, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it says.
    pub kind: RecordKind,
    /// Its version.
    pub seq: Seq,
    /// Whose it is.
    pub partition: PartitionId,
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// When it expires, if ever; of a put only.
    pub expires: Option<WallMs>,
}

/// Why bytes are not a record that belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFault {
    /// The bytes end before the record does, or its lengths or kind make no sense.
    Shape,
    /// The checksum does not match: damaged, or of another place or life.
    Checksum,
}

/// Bytes that a record of these lengths takes if it never expires.
pub fn record_len(key_len: usize, value_len: usize) -> usize {
    RECORD_HEADER_BYTES + key_len + value_len
}

/// Bytes of a frame that a record of these lengths takes: what is behind it, up to the next, is padding.
pub fn record_room(key_len: usize, value_len: usize, expires: bool) -> usize {
    room_of(record_len(key_len, value_len) + expiry_len(expires))
}

/// Bytes that a record takes more if it expires.
fn expiry_len(expires: bool) -> usize {
    if expires { EXPIRY_BYTES } else { 0 }
}

#[allow(clippy::len_without_is_empty, reason = "no record is empty")]
impl<'a> Record<'a> {
    /// Bytes that it takes.
    pub fn len(&self) -> usize {
        record_len(self.key.len(), self.value.len()) + expiry_len(self.expires.is_some())
    }

    /// Bytes of its frame that it takes.
    pub fn room(&self) -> usize {
        room_of(self.len())
    }

    /// Where in its bytes the value begins.
    pub fn value_at(&self) -> usize {
        self.len() - self.value.len()
    }

    /// Encodes into the front of `out`, for byte `at` of the shard's area. Gives its length.
    pub fn encode(&self, seed: ChecksumSeed, at: u64, generation: u32, out: &mut [u8]) -> usize {
        let len = self.len();
        assert!(out.len() >= len, "{len} bytes of record into {}", out.len());
        assert!(self.value.len() <= MAX_VALUE_BYTES && self.key.len() <= MAX_KEY_BYTES);
        assert!(self.expires.is_none() || self.kind == RecordKind::Put, "only puts expire");
        let flags = if self.expires.is_some() { EXPIRES_FLAG } else { 0 };
        let kind_and_len = u32::from(self.kind.code() | flags) << VALUE_LEN_BITS | self.value.len() as u32;
        out[SEQ_AT..PARTITION_AT].copy_from_slice(&self.seq.to_bytes());
        out[PARTITION_AT..KIND_AND_VALUE_LEN_AT].copy_from_slice(&self.partition.0.to_le_bytes());
        out[KIND_AND_VALUE_LEN_AT..KEY_LEN_AT].copy_from_slice(&kind_and_len.to_le_bytes());
        out[KEY_LEN_AT..RECORD_HEADER_BYTES].copy_from_slice(&(self.key.len() as u16).to_le_bytes());
        let value_at = self.value_at();
        let key_at = value_at - self.key.len();
        if let Some(WallMs(expires_ms)) = self.expires {
            out[RECORD_HEADER_BYTES..key_at].copy_from_slice(&expires_ms.to_le_bytes());
        }
        out[key_at..value_at].copy_from_slice(self.key);
        out[value_at..len].copy_from_slice(self.value);
        let crc = seed.at(at, generation, &out[SEQ_AT..len]);
        out[CRC_AT..SEQ_AT].copy_from_slice(&crc.to_le_bytes());
        len
    }

    /// Decodes the record at the front of `bytes`, which lie at byte `at` of the shard's area.
    pub fn decode(
        seed: ChecksumSeed,
        at: u64,
        generation: u32,
        bytes: &'a [u8],
    ) -> Result<Record<'a>, RecordFault> {
        let record = Record::decode_unchecked(bytes)?;
        let crc = u32::from_le_bytes(field(bytes, CRC_AT));
        if seed.at(at, generation, &bytes[SEQ_AT..record.len()]) != crc {
            return Err(RecordFault::Checksum);
        }
        Ok(record)
    }

    /// Decodes the record at the front of `bytes` without looking at its checksum: only for bytes
    /// whose checksum was made or checked a moment ago.
    pub fn decode_unchecked(bytes: &'a [u8]) -> Result<Record<'a>, RecordFault> {
        if bytes.len() < RECORD_HEADER_BYTES {
            return Err(RecordFault::Shape);
        }
        let kind_and_len = u32::from_le_bytes(field(bytes, KIND_AND_VALUE_LEN_AT));
        let kind_byte = (kind_and_len >> VALUE_LEN_BITS) as u8;
        let does_expire = kind_byte & EXPIRES_FLAG != 0;
        let kind = RecordKind::from_code(kind_byte & !EXPIRES_FLAG).ok_or(RecordFault::Shape)?;
        let value_len = (kind_and_len & VALUE_LEN_MASK) as usize;
        let key_len = usize::from(u16::from_le_bytes(field(bytes, KEY_LEN_AT)));
        let keyed = !matches!(kind, RecordKind::Catalog);
        if value_len > MAX_VALUE_BYTES || key_len > MAX_KEY_BYTES || keyed != (key_len > 0) {
            return Err(RecordFault::Shape);
        }
        if does_expire && kind != RecordKind::Put {
            return Err(RecordFault::Shape);
        }
        let key_at = RECORD_HEADER_BYTES + if does_expire { EXPIRY_BYTES } else { 0 };
        let body = bytes.get(key_at..key_at + key_len + value_len).ok_or(RecordFault::Shape)?;
        let expires = does_expire.then(|| WallMs(u64::from_le_bytes(field(bytes, RECORD_HEADER_BYTES))));
        Ok(Record {
            kind,
            seq: Seq::from_bytes(field(bytes, SEQ_AT)),
            partition: PartitionId(u32::from_le_bytes(field(bytes, PARTITION_AT))),
            key: &body[..key_len],
            value: &body[key_len..],
            expires,
        })
    }
}

/// The `N` bytes at `at`; the caller has checked that they are there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0u8; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeId, ShardId};

    fn sample() -> Record<'static> {
        Record {
            kind: RecordKind::Put,
            seq: Seq { wall_ns: 77, counter: 3, node: NodeId(9) },
            partition: PartitionId(5),
            key: b"key",
            value: b"a value",
            expires: None,
        }
    }

    fn samples() -> [(Record<'static>, usize); 2] {
        let expires = Some(WallMs(0x0102_0304_0506_0708));
        [(sample(), 40), (Record { expires, ..sample() }, 48)]
    }

    #[test]
    fn round_trip_and_every_flipped_bit_is_caught() {
        let seed = ChecksumSeed::new(&[7; 16], ShardId(1));
        for (record, expected) in samples() {
            let mut bytes = vec![0u8; 64];
            let len = record.encode(seed, 4096, 2, &mut bytes);
            assert_eq!((len, record.value_at() + record.value.len()), (expected, expected));
            assert_eq!(Record::decode(seed, 4096, 2, &bytes), Ok(record));
            for bit in 0..len * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(Record::decode(seed, 4096, 2, &bytes).is_err(), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn only_puts_expire() {
        let seed = ChecksumSeed::new(&[7; 16], ShardId(1));
        let mut bytes = vec![0u8; 64];
        let record = Record { kind: RecordKind::Delete, value: b"", ..sample() };
        record.encode(seed, 0, 1, &mut bytes);
        bytes[KIND_AND_VALUE_LEN_AT + 3] |= EXPIRES_FLAG;
        assert_eq!(Record::decode_unchecked(&bytes), Err(RecordFault::Shape));
    }

    #[test]
    fn a_record_of_another_place_life_shard_or_drive_is_refused() {
        let seed = ChecksumSeed::new(&[7; 16], ShardId(1));
        let mut bytes = vec![0u8; 64];
        sample().encode(seed, 4096, 2, &mut bytes);
        let fault = Err(RecordFault::Checksum);
        assert_eq!(Record::decode(seed, 8192, 2, &bytes), fault);
        assert_eq!(Record::decode(seed, 4096, 3, &bytes), fault);
        assert_eq!(Record::decode(ChecksumSeed::new(&[7; 16], ShardId(2)), 4096, 2, &bytes), fault);
        assert_eq!(Record::decode(ChecksumSeed::new(&[8; 16], ShardId(1)), 4096, 2, &bytes), fault);
    }

    #[test]
    fn every_cut_is_a_fault() {
        let seed = ChecksumSeed::new(&[7; 16], ShardId(1));
        for (record, expected) in samples() {
            let mut bytes = vec![0u8; expected];
            let len = record.encode(seed, 0, 1, &mut bytes);
            for cut in 0..len {
                assert_eq!(Record::decode(seed, 0, 1, &bytes[..cut]), Err(RecordFault::Shape));
            }
        }
    }
}
