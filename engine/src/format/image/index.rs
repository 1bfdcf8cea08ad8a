//! Index frames: groups of one partition's expiries or leaves.
//!
//! Of each partition the expiries come first, then the leaves, each in the order of keys. So a record that
//! expires while the image is written, of which nothing is logged, can be in the expiries and not in the
//! leaves, but never the other way round.

use super::INDEX;
use crate::format::ByteReader;
use crate::format::record::EXPIRY_BYTES;
use crate::ids::{PartitionId, WallMs};

/// Bytes of a group's header: partition, section, count, bytes.
const GROUP_HEADER_BYTES: usize = 11;
/// Bytes of an expiry beside its suffix: shared length, suffix length, time.
const EXPIRY_HEADER_BYTES: usize = 4 + EXPIRY_BYTES;
/// Where a leaf says how many bytes it has.
const LEAF_BYTES_AT: usize = 4;

/// What a group holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// When records expire, by key.
    Expiries,
    /// Leaves.
    Leaves,
}

impl Section {
    fn code(self) -> u8 {
        match self {
            Section::Expiries => 1,
            Section::Leaves => 2,
        }
    }

    fn from_code(code: u8) -> Option<Section> {
        [Section::Expiries, Section::Leaves].into_iter().find(|section| section.code() == code)
    }
}

/// Some of one partition's expiries or leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group<'a> {
    /// Whose.
    pub partition: PartitionId,
    /// What.
    pub section: Section,
    /// How many.
    pub count: u16,
    /// They.
    pub bytes: &'a [u8],
}

/// Builds the payload of an index frame.
#[derive(Debug)]
pub struct IndexPayload {
    out: Vec<u8>,
    group: Option<(PartitionId, Section)>,
    group_at: usize,
    count: u16,
    last_key: Vec<u8>,
}

impl IndexPayload {
    /// Without anything.
    pub fn begin() -> IndexPayload {
        IndexPayload { out: vec![INDEX], group: None, group_at: 0, count: 0, last_key: Vec::new() }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.group.is_none()
    }

    /// The longest leaf that a payload of so many bytes takes.
    pub fn most_leaf_bytes(payload_bytes: usize) -> usize {
        payload_bytes - 1 - GROUP_HEADER_BYTES
    }

    /// Whether a leaf fits that may begin a group, in a payload of at most so many bytes.
    pub fn fits_leaf(&self, bytes: usize, most_bytes: usize) -> bool {
        self.out.len() + GROUP_HEADER_BYTES + bytes <= most_bytes
    }

    /// Whether an expiry fits that may begin a group.
    pub fn fits_expiry(&self, key: &[u8], most_bytes: usize) -> bool {
        self.out.len() + GROUP_HEADER_BYTES + EXPIRY_HEADER_BYTES + key.len() <= most_bytes
    }

    fn begin_group(&mut self, partition: PartitionId, section: Section) {
        if self.group != Some((partition, section)) || self.count == u16::MAX {
            self.group = Some((partition, section));
            self.group_at = self.out.len();
            self.count = 0;
            self.last_key.clear();
            self.out.extend_from_slice(&partition.0.to_le_bytes());
            self.out.push(section.code());
            self.out.extend_from_slice(&[0; 6]);
        }
    }

    fn end_entry(&mut self) {
        self.count += 1;
        let bytes = (self.out.len() - self.group_at - GROUP_HEADER_BYTES) as u32;
        let header = &mut self.out[self.group_at..self.group_at + GROUP_HEADER_BYTES];
        header[5..7].copy_from_slice(&self.count.to_le_bytes());
        header[7..11].copy_from_slice(&bytes.to_le_bytes());
    }

    /// One more leaf.
    pub fn push_leaf(&mut self, partition: PartitionId, leaf: &[u8]) {
        self.begin_group(partition, Section::Leaves);
        self.out.extend_from_slice(leaf);
        self.end_entry();
    }

    /// One more record that expires, its key behind the one before.
    pub fn push_expiry(&mut self, partition: PartitionId, key: &[u8], expires: WallMs) {
        self.begin_group(partition, Section::Expiries);
        let shared = self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count();
        let suffix = &key[shared..];
        self.out.extend_from_slice(&(shared as u16).to_le_bytes());
        self.out.extend_from_slice(&(suffix.len() as u16).to_le_bytes());
        self.out.extend_from_slice(&expires.0.to_le_bytes());
        self.out.extend_from_slice(suffix);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(suffix);
        self.end_entry();
    }

    /// The payload.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// Hands out the groups of an index payload. `None` where it is malformed.
pub fn for_each_group<'a>(packed: &'a [u8], mut each: impl FnMut(Group<'a>)) -> Option<()> {
    let mut reader = ByteReader::new(packed);
    while reader.remaining() > 0 {
        let partition = PartitionId(reader.u32()?);
        let section = Section::from_code(reader.u8()?)?;
        let count = reader.u16()?;
        let len = reader.u32()? as usize;
        each(Group { partition, section, count, bytes: reader.take(len)? });
    }
    Some(())
}

/// Hands out the leaves of a group, whose insides nobody has looked at. `None` where they do not add up.
pub fn for_each_leaf<'a>(group: &Group<'a>, mut each: impl FnMut(&'a [u8])) -> Option<()> {
    let mut rest = group.bytes;
    for _ in 0..group.count {
        let len = rest.get(LEAF_BYTES_AT..LEAF_BYTES_AT + 2)?;
        let (leaf, behind) = rest.split_at_checked(usize::from(u16::from_le_bytes([len[0], len[1]])))?;
        each(leaf);
        rest = behind;
    }
    rest.is_empty().then_some(())
}

/// Hands out the expiries of a group. `None` where they do not add up.
pub fn for_each_expiry(group: &Group<'_>, mut each: impl FnMut(&[u8], WallMs)) -> Option<()> {
    let mut reader = ByteReader::new(group.bytes);
    let mut key = Vec::new();
    for _ in 0..group.count {
        let (shared, suffix_len) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
        let expires = WallMs(reader.u64()?);
        if shared > key.len() {
            return None;
        }
        key.truncate(shared);
        key.extend_from_slice(reader.take(suffix_len)?);
        each(&key, expires);
    }
    (reader.remaining() == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use super::super::{ImagePayload, decode};
    use super::*;

    fn leaf(n: u8) -> Vec<u8> {
        let mut bytes = vec![n; 8 + usize::from(n)];
        let len = bytes.len() as u16;
        bytes[4..6].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    #[test]
    fn groups_of_several_partitions_read_back_and_cuts_are_refused() {
        let mut payload = IndexPayload::begin();
        let mut expected = Vec::new();
        for partition in [3u32, 7, 5].map(PartitionId) {
            for i in 0..50u64 {
                let key = format!("user/{}/{i:04}", partition.0).into_bytes();
                payload.push_expiry(partition, &key, WallMs(i << 40));
                expected.push((partition, Some(WallMs(i << 40)), key));
            }
            for n in 0..9 {
                payload.push_leaf(partition, &leaf(n));
                expected.push((partition, None, leaf(n)));
            }
        }
        let bytes = payload.finish();
        let read = |bytes: &[u8]| {
            let Some(ImagePayload::Index(packed)) = decode(bytes) else { return None };
            let (mut seen, mut whole) = (Vec::new(), true);
            for_each_group(packed, |group| {
                let partition = group.partition;
                let read = match group.section {
                    Section::Expiries => {
                        for_each_expiry(&group, |key, at| seen.push((partition, Some(at), key.to_vec())))
                    }
                    Section::Leaves => {
                        for_each_leaf(&group, |leaf| seen.push((partition, None, leaf.to_vec())))
                    }
                };
                whole &= read.is_some();
            })?;
            whole.then_some(seen)
        };
        assert_eq!(read(&bytes), Some(expected.clone()));
        for cut in 0..bytes.len() {
            let seen = read(&bytes[..cut]);
            assert!(seen.is_none_or(|seen| seen.len() < expected.len()), "cut at {cut}");
        }
    }
}
