//! The payload of journal frames: what was applied to the index, in order.

use crate::format::frame::PartitionSet;
use crate::format::record::EXPIRY_BYTES;
use crate::format::{ByteReader, ByteWriter};
use crate::ids::{FrameNumber, Generation, PartitionId, SegmentId, Seq, WallMs};
use crate::limits::BLOCK_BYTES;
use crate::location::Location;

/// Bytes of a payload's head.
pub const JOURNAL_HEAD_BYTES: usize = 48;

/// What an entry is, in the low four bits of its first byte.
const SET: u8 = 1;
const REMOVE: u8 = 2;
const CATALOG: u8 = 3;
const QUARANTINE: u8 = 4;
const FREED: u8 = 5;
const SUPERSEDED: u8 = 6;
const KIND_BITS: u8 = 0x0f;
/// Flags of the first byte: the partition follows, for it is not that of the entry before.
const PARTITION_FLAG: u8 = 0x10;
/// 8 bytes of expiry end the entry.
const EXPIRES_FLAG: u8 = 0x20;
/// Of a compact index: where the record lay that is no more.
const REPLACES_FLAG: u8 = 0x40;
/// Most bytes of a number in groups of seven bits.
const MOST_VARINT_BYTES: usize = 10;

/// A place in the user stream, from which on frames may lie that the journal does not cover: in the segment of this
/// generation from this byte on, and in segments of higher ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogPosition {
    /// The segment's generation.
    pub generation: Generation,
    /// Byte of the segment.
    pub offset: u32,
}

impl LogPosition {
    /// Whether a frame may begin there.
    pub fn is_possible(self) -> bool {
        self.offset.is_multiple_of(BLOCK_BYTES as u32)
    }
}

/// How far a journal frame and those before it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalHead {
    /// All user frames up to this one are covered: what they did is in this frame or before it.
    pub user_upto: FrameNumber,
    /// Where the frames begin that are not.
    pub user_from: LogPosition,
    /// No version that was applied before this frame's first entry is higher.
    pub seq_before: Seq,
    /// No version that was applied before its last entry is higher.
    pub seq_upto: Seq,
}

/// One change of the index or the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalEntry<'a> {
    /// The key's record lies there now.
    Set {
        /// Whose it is.
        partition: PartitionId,
        /// The key.
        key: &'a [u8],
        /// Where its record lies.
        location: Location,
        /// When that expires, if ever.
        expires: Option<WallMs>,
        /// Where the one lay that it took the place of. Said of compact indexes alone, where it was known.
        replaces: Option<Location>,
    },
    /// The key has no record any more.
    Remove {
        /// Whose it was.
        partition: PartitionId,
        /// The key.
        key: &'a [u8],
        /// Where its record lay. Said of compact indexes alone, where it was known.
        replaces: Option<Location>,
    },
    /// An entry before did not say where the record lay that is no more: here. Of compact indexes alone.
    Superseded {
        /// Whose it was.
        partition: PartitionId,
        /// The key.
        key: &'a [u8],
        /// Where its record lay.
        location: Location,
    },
    /// An encoded change of the catalog.
    Catalog(&'a [u8]),
    /// Writes of these partitions, of those that there are, may have been lost up to below this version.
    Quarantine(PartitionSet, Seq),
    /// The segment is free, unless it has another generation by now.
    Freed(SegmentId, Generation),
}

impl JournalEntry<'_> {
    /// Most bytes that it takes.
    pub fn most_bytes(&self) -> usize {
        1 + match self {
            JournalEntry::Set { key, .. } => 4 + key.len() + 5 * MOST_VARINT_BYTES + EXPIRY_BYTES,
            JournalEntry::Remove { key, .. } | JournalEntry::Superseded { key, .. } => {
                4 + key.len() + 3 * MOST_VARINT_BYTES
            }
            JournalEntry::Catalog(change) => 2 + change.len(),
            JournalEntry::Quarantine(..) => 8 + Seq::BYTES,
            JournalEntry::Freed(..) => 8,
        }
    }
}

/// Builds the entries of a frame.
#[derive(Debug, Default)]
pub struct JournalEntries {
    out: ByteWriter,
    /// Whom the entries concern.
    partitions: PartitionSet,
    /// Of the entry before.
    partition: Option<PartitionId>,
    /// Where the record of the last `Set` ends.
    end_units: u64,
    /// Where the last one ended that is no more.
    replaced_end_units: u64,
}

impl JournalEntries {
    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.bytes()
    }

    /// One more.
    pub fn push(&mut self, entry: &JournalEntry<'_>) {
        match *entry {
            JournalEntry::Set { partition, key, location, expires, replaces } => {
                let flags = if expires.is_some() { EXPIRES_FLAG } else { 0 };
                self.begin(SET | flags | replaces_flag(replaces), partition);
                self.out.varint(key.len() as u64).raw(key);
                push_location(&mut self.out, location, &mut self.end_units);
                if let Some(location) = replaces {
                    push_location(&mut self.out, location, &mut self.replaced_end_units);
                }
                if let Some(WallMs(expires_ms)) = expires {
                    self.out.u64(expires_ms);
                }
            }
            JournalEntry::Remove { partition, key, replaces } => {
                self.begin(REMOVE | replaces_flag(replaces), partition);
                self.out.varint(key.len() as u64).raw(key);
                if let Some(location) = replaces {
                    push_location(&mut self.out, location, &mut self.replaced_end_units);
                }
            }
            JournalEntry::Superseded { partition, key, location } => {
                self.begin(SUPERSEDED, partition);
                self.out.varint(key.len() as u64).raw(key);
                push_location(&mut self.out, location, &mut self.replaced_end_units);
            }
            JournalEntry::Catalog(change) => {
                self.out.u8(CATALOG).short(change);
                self.partitions = PartitionSet::ALL;
            }
            JournalEntry::Quarantine(set, below) => {
                self.out.u8(QUARANTINE).u64(set.0).raw(&below.to_bytes());
                self.partitions = self.partitions.union(set);
            }
            JournalEntry::Freed(segment, generation) => {
                self.out.u8(FREED).u32(segment.0).u32(generation.0);
            }
        }
    }

    fn begin(&mut self, kind: u8, partition: PartitionId) {
        if self.partition == Some(partition) {
            self.out.u8(kind);
        } else {
            self.out.u8(kind | PARTITION_FLAG).u32(partition.0);
            self.partition = Some(partition);
        }
        self.partitions.insert(partition);
    }

    /// The payload, and whom it concerns.
    pub fn finish(self, head: &JournalHead) -> (Vec<u8>, PartitionSet) {
        let mut out = ByteWriter::new();
        out.u64(head.user_upto.0).u32(head.user_from.generation.0).u32(head.user_from.offset);
        out.raw(&head.seq_before.to_bytes()).raw(&head.seq_upto.to_bytes());
        assert_eq!(out.bytes(), JOURNAL_HEAD_BYTES);
        out.raw(&self.out.into_bytes());
        (out.into_bytes(), self.partitions)
    }
}

fn replaces_flag(replaces: Option<Location>) -> u8 {
    if replaces.is_some() { REPLACES_FLAG } else { 0 }
}

/// Records of a frame lie one behind the other: `end_units` is where the one before ends.
fn push_location(out: &mut ByteWriter, location: Location, end_units: &mut u64) {
    let (units, code) = location.to_parts();
    let distance = units as i64 - *end_units as i64;
    out.varint(code).varint((distance << 1 ^ distance >> 63) as u64);
    *end_units = location.end_units();
}

fn take_location(reader: &mut ByteReader<'_>, end_units: &mut u64) -> Option<Location> {
    let (code, zigzag) = (reader.varint()?, reader.varint()?);
    let distance = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    let location = Location::from_parts(end_units.checked_add_signed(distance)?, code)?;
    *end_units = location.end_units();
    Some(location)
}

fn take_key<'a>(reader: &mut ByteReader<'a>) -> Option<&'a [u8]> {
    let key_len = usize::try_from(reader.varint()?).ok()?;
    reader.take(key_len)
}

/// The head of a payload, and its entries, still packed.
pub fn decode_head(payload: &[u8]) -> Option<(JournalHead, &[u8])> {
    let mut reader = ByteReader::new(payload);
    let head = JournalHead {
        user_upto: FrameNumber(reader.u64()?),
        user_from: LogPosition { generation: Generation(reader.u32()?), offset: reader.u32()? },
        seq_before: Seq::from_bytes(reader.array()?),
        seq_upto: Seq::from_bytes(reader.array()?),
    };
    let is_possible = head.user_upto <= FrameNumber::MAX && head.user_from.is_possible();
    is_possible.then_some((head, reader.take(reader.remaining())?))
}

/// Calls `each` for every packed entry, in order; `None` where they end in the middle of one or make no sense.
pub fn for_each_entry(packed: &[u8], mut each: impl FnMut(JournalEntry<'_>)) -> Option<()> {
    let mut reader = ByteReader::new(packed);
    let mut partition = None;
    let (mut end_units, mut replaced_end_units) = (0, 0);
    while reader.remaining() > 0 {
        let first = reader.u8()?;
        if first & PARTITION_FLAG != 0 {
            partition = Some(PartitionId(reader.u32()?));
        }
        let does_replace = first & REPLACES_FLAG != 0;
        match first & KIND_BITS {
            SET => {
                let key = take_key(&mut reader)?;
                let location = take_location(&mut reader, &mut end_units)?;
                let replaces = match does_replace {
                    true => Some(take_location(&mut reader, &mut replaced_end_units)?),
                    false => None,
                };
                let does_expire = first & EXPIRES_FLAG != 0;
                let expires = if does_expire { Some(WallMs(reader.u64()?)) } else { None };
                each(JournalEntry::Set { partition: partition?, key, location, expires, replaces });
            }
            REMOVE => {
                let key = take_key(&mut reader)?;
                let replaces = match does_replace {
                    true => Some(take_location(&mut reader, &mut replaced_end_units)?),
                    false => None,
                };
                each(JournalEntry::Remove { partition: partition?, key, replaces });
            }
            SUPERSEDED => {
                let key = take_key(&mut reader)?;
                let location = take_location(&mut reader, &mut replaced_end_units)?;
                each(JournalEntry::Superseded { partition: partition?, key, location });
            }
            CATALOG => each(JournalEntry::Catalog(reader.short()?)),
            QUARANTINE => {
                let set = PartitionSet(reader.u64()?);
                each(JournalEntry::Quarantine(set, Seq::from_bytes(reader.array()?)));
            }
            FREED => each(JournalEntry::Freed(SegmentId(reader.u32()?), Generation(reader.u32()?))),
            _ => return None,
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    #[test]
    fn entries_of_all_kinds_read_back_and_every_cut_is_noticed() {
        let seq = |wall_ns| Seq { wall_ns, counter: 3, node: NodeId(9) };
        let set = |partition, key, at, expires| {
            let location = Location::new(at, 77);
            JournalEntry::Set { partition: PartitionId(partition), key, location, expires, replaces: None }
        };
        let old = Location::new(1 << 30, 4000);
        let entries = [
            set(5, b"first", 1 << 39, None),
            set(5, b"behind", (1 << 39) + 80, Some(WallMs(1 << 40))),
            set(6, b"", 0, None),
            JournalEntry::Remove { partition: PartitionId(6), key: b"gone", replaces: None },
            JournalEntry::Set {
                partition: PartitionId(6),
                key: b"again",
                location: Location::new(800, 9),
                expires: Some(WallMs(6)),
                replaces: Some(old),
            },
            JournalEntry::Remove { partition: PartitionId(6), key: b"too", replaces: Some(old) },
            JournalEntry::Superseded { partition: PartitionId(8), key: b"late", location: old },
            JournalEntry::Catalog(b"change"),
            JournalEntry::Quarantine(PartitionSet(7), seq(4)),
            JournalEntry::Freed(SegmentId(3), Generation(u32::MAX)),
            JournalEntry::Remove { partition: PartitionId(70), key: &[1; 300], replaces: None },
            set(70, b"x", 5000, None),
        ];
        let mut packed = JournalEntries::default();
        for entry in &entries {
            let before = packed.bytes();
            packed.push(entry);
            assert!(packed.bytes() - before <= entry.most_bytes());
        }
        let head = JournalHead {
            user_upto: FrameNumber(8),
            user_from: LogPosition { generation: Generation(2), offset: 4096 },
            seq_before: seq(1),
            seq_upto: seq(2),
        };
        let (payload, partitions) = packed.finish(&head);
        assert_eq!(partitions, PartitionSet::ALL, "a change of the catalog may concern all");
        let (found, packed) = decode_head(&payload).expect("it has a head");
        assert_eq!(found, head);
        let mut seen = 0;
        for_each_entry(packed, |entry| {
            assert_eq!(entry, entries[seen]);
            seen += 1;
        })
        .expect("whole entries");
        assert_eq!(seen, entries.len());
        for cut in 0..packed.len() {
            let mut whole = 0;
            let result = for_each_entry(&packed[..cut], |_| whole += 1);
            assert!(whole < entries.len());
            assert!(result.is_none() || whole < seen, "cut at {cut}");
        }
        assert_eq!(decode_head(&payload[..JOURNAL_HEAD_BYTES - 1]), None);
    }

    #[test]
    fn records_that_lie_one_behind_the_other_take_their_key_and_five_bytes_more() {
        let mut packed = JournalEntries::default();
        let mut before = 0;
        for i in 0..100u64 {
            before = packed.bytes();
            let location = Location::new(i * 1048, 1046);
            let (partition, expires) = (PartitionId(1), None);
            let (key, replaces) = (b"0123456789abcdef", None);
            packed.push(&JournalEntry::Set { partition, key, location, expires, replaces });
        }
        assert_eq!(packed.bytes() - before, 16 + 5);
    }
}
