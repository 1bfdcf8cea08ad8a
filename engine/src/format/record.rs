//! A record: 30 bytes of header, the key, the value.

use crate::format::ChecksumSeed;
use crate::ids::{PartitionId, Seq};
use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// Size of a record's header; all the overhead that a record has on the drive, before padding.
pub const RECORD_HEADER_BYTES: usize = 30;

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

/// What a record says. The four high bits of the kind byte are flags, all reserved: 0x80 will mean
/// that 16 bytes of consensus position (term and index) follow the header.
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
}

/// Why bytes are not a record that belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFault {
    /// The bytes end before the record does, or its lengths or kind make no sense.
    Shape,
    /// The checksum does not match: damaged, or of another place or life.
    Checksum,
}

/// Bytes that a record of these lengths takes.
pub fn record_len(key_len: usize, value_len: usize) -> usize {
    RECORD_HEADER_BYTES + key_len + value_len
}

#[allow(clippy::len_without_is_empty, reason = "no record is empty")]
impl<'a> Record<'a> {
    /// Bytes that it takes.
    pub fn len(&self) -> usize {
        record_len(self.key.len(), self.value.len())
    }

    /// Encodes into the front of `out`, for byte `at` of the shard's area. Gives its length.
    pub fn encode(&self, seed: ChecksumSeed, at: u64, generation: u32, out: &mut [u8]) -> usize {
        let len = self.len();
        assert!(out.len() >= len, "{len} bytes of record into {}", out.len());
        assert!(self.value.len() <= MAX_VALUE_BYTES && self.key.len() <= MAX_KEY_BYTES);
        let kind_and_len = u32::from(self.kind.code()) << VALUE_LEN_BITS | self.value.len() as u32;
        out[SEQ_AT..PARTITION_AT].copy_from_slice(&self.seq.to_bytes());
        out[PARTITION_AT..KIND_AND_VALUE_LEN_AT].copy_from_slice(&self.partition.0.to_le_bytes());
        out[KIND_AND_VALUE_LEN_AT..KEY_LEN_AT].copy_from_slice(&kind_and_len.to_le_bytes());
        out[KEY_LEN_AT..RECORD_HEADER_BYTES].copy_from_slice(&(self.key.len() as u16).to_le_bytes());
        let value_at = RECORD_HEADER_BYTES + self.key.len();
        out[RECORD_HEADER_BYTES..value_at].copy_from_slice(self.key);
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
        let kind = RecordKind::from_code((kind_and_len >> VALUE_LEN_BITS) as u8).ok_or(RecordFault::Shape)?;
        let value_len = (kind_and_len & VALUE_LEN_MASK) as usize;
        let key_len = usize::from(u16::from_le_bytes(field(bytes, KEY_LEN_AT)));
        let keyed = !matches!(kind, RecordKind::Catalog);
        if value_len > MAX_VALUE_BYTES || key_len > MAX_KEY_BYTES || keyed != (key_len > 0) {
            return Err(RecordFault::Shape);
        }
        let body = bytes[RECORD_HEADER_BYTES..].get(..key_len + value_len).ok_or(RecordFault::Shape)?;
        Ok(Record {
            kind,
            seq: Seq::from_bytes(field(bytes, SEQ_AT)),
            partition: PartitionId(u32::from_le_bytes(field(bytes, PARTITION_AT))),
            key: &body[..key_len],
            value: &body[key_len..],
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
        }
    }

    #[test]
    fn round_trip_and_every_flipped_bit_is_caught() {
        let seed = ChecksumSeed::new(&[7; 16], ShardId(1));
        let mut bytes = vec![0u8; 64];
        let len = sample().encode(seed, 4096, 2, &mut bytes);
        assert_eq!(len, 40);
        assert_eq!(Record::decode(seed, 4096, 2, &bytes), Ok(sample()));
        for bit in 0..len * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(seed, 4096, 2, &bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
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
        let mut bytes = vec![0u8; 40];
        let len = sample().encode(seed, 0, 1, &mut bytes);
        for cut in 0..len {
            assert_eq!(Record::decode(seed, 0, 1, &bytes[..cut]), Err(RecordFault::Shape));
        }
    }
}
