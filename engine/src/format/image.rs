//! The payloads of image frames: catalog, index entries, root.
//!
//! An image is a run of frames numbered from 1: the catalog's frames, the same again (a catalog must
//! survive a bad sector), the index entries partition by partition in ascending order, the root.

use crate::format::frame::Stream;
use crate::format::record::EXPIRY_BYTES;
use crate::format::{ByteReader, ByteWriter};
use crate::ids::{Generation, PartitionId, SegmentId, TableId, WallMs};
use crate::limits::MAX_KEY_BYTES;
use crate::location::Location;

/// First byte of a payload.
const CATALOG: u8 = 1;
const ENTRIES: u8 = 2;
const ROOT: u8 = 3;

/// Bytes of a group's header: partition and number of entries.
const GROUP_HEADER_BYTES: usize = 8;
/// Bytes of an entry beside its suffix: shared length, suffix length, location.
const ENTRY_HEADER_BYTES: usize = 12;
/// Flag of the shared length: 8 bytes of expiry follow the location.
const EXPIRES_FLAG: u16 = 0x8000;
const _: () = assert!(MAX_KEY_BYTES < EXPIRES_FLAG as usize);

/// Builds the payload of a catalog frame.
#[derive(Debug)]
pub struct CatalogPayload {
    out: ByteWriter,
}

impl CatalogPayload {
    /// Without changes.
    pub fn begin() -> CatalogPayload {
        let mut out = ByteWriter::new();
        out.u8(CATALOG);
        CatalogPayload { out }
    }

    /// One more encoded change.
    pub fn push(&mut self, change: &[u8]) {
        self.out.short(change);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.bytes()
    }

    /// The payload.
    pub fn finish(self) -> Vec<u8> {
        self.out.into_bytes()
    }
}

/// Builds the payload of an entries frame: groups of one partition's entries in ascending key order,
/// each key sharing a prefix with the one before.
#[derive(Debug)]
pub struct EntriesPayload {
    out: Vec<u8>,
    group_at: usize,
    group_entries: u32,
    group: Option<PartitionId>,
    last_key: Vec<u8>,
}

impl EntriesPayload {
    /// Without entries.
    pub fn begin() -> EntriesPayload {
        EntriesPayload {
            out: vec![ENTRIES],
            group_at: 0,
            group_entries: 0,
            group: None,
            last_key: Vec::new(),
        }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.group.is_none()
    }

    /// Most bytes that one more entry can take.
    pub fn most_bytes(key: &[u8]) -> usize {
        GROUP_HEADER_BYTES + ENTRY_HEADER_BYTES + EXPIRY_BYTES + key.len()
    }

    /// One more entry; of one partition in ascending key order.
    pub fn push(&mut self, partition: PartitionId, key: &[u8], location: Location, expires: Option<WallMs>) {
        if self.group != Some(partition) {
            self.group = Some(partition);
            self.group_at = self.out.len();
            self.group_entries = 0;
            self.last_key.clear();
            self.out.extend_from_slice(&partition.0.to_le_bytes());
            self.out.extend_from_slice(&0u32.to_le_bytes());
        }
        let shared = self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count();
        let suffix = &key[shared..];
        let flag = if expires.is_some() { EXPIRES_FLAG } else { 0 };
        self.out.extend_from_slice(&(shared as u16 | flag).to_le_bytes());
        self.out.extend_from_slice(&(suffix.len() as u16).to_le_bytes());
        self.out.extend_from_slice(&location.to_raw().to_le_bytes());
        if let Some(WallMs(expires_ms)) = expires {
            self.out.extend_from_slice(&expires_ms.to_le_bytes());
        }
        self.out.extend_from_slice(suffix);
        self.group_entries += 1;
        let count_at = self.group_at + 4;
        self.out[count_at..count_at + 4].copy_from_slice(&self.group_entries.to_le_bytes());
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(suffix);
    }

    /// The payload.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// The last frame of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageRoot {
    /// Frames of the image, the root not counted.
    pub frames: u64,
    /// Frames of each copy of the catalog.
    pub catalog_frames: u64,
    /// The segments of the image, in order.
    pub segments: Vec<(SegmentId, Generation)>,
    /// All segments in use when the root was made: who they are, should their headers be damaged.
    pub in_use: Vec<(SegmentId, Generation, Stream)>,
    /// Highest table id that the shard ever saw.
    pub highest_table: TableId,
    /// Highest partition id that the shard ever saw.
    pub highest_partition: PartitionId,
}

impl ImageRoot {
    /// Bytes that the root of an image takes at most in a shard of so many segments.
    pub const fn most_bytes(segments: u32) -> u64 {
        33 + (8 + 9) * segments as u64
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = ByteWriter::new();
        out.u8(ROOT).u64(self.frames).u64(self.catalog_frames);
        out.u32(self.highest_table.0).u32(self.highest_partition.0).u32(self.segments.len() as u32);
        for (segment, generation) in &self.segments {
            out.u32(segment.0).u32(generation.0);
        }
        out.u32(self.in_use.len() as u32);
        for (segment, generation, stream) in &self.in_use {
            out.u32(segment.0).u32(generation.0).u8(stream.code());
        }
        out.into_bytes()
    }
}

/// A payload, decoded.
#[derive(Debug, PartialEq, Eq)]
pub enum ImagePayload<'a> {
    /// Encoded changes.
    Catalog(Vec<&'a [u8]>),
    /// Entries, still packed; see [`for_each_entry`].
    Entries(&'a [u8]),
    /// The root.
    Root(ImageRoot),
}

/// Decodes a payload; `None` where it is none.
pub fn decode(payload: &[u8]) -> Option<ImagePayload<'_>> {
    let mut reader = ByteReader::new(payload);
    match reader.u8()? {
        CATALOG => {
            let mut changes = Vec::new();
            while reader.remaining() > 0 {
                changes.push(reader.short()?);
            }
            Some(ImagePayload::Catalog(changes))
        }
        ENTRIES => reader.take(reader.remaining()).map(ImagePayload::Entries),
        ROOT => {
            let (frames, catalog_frames) = (reader.u64()?, reader.u64()?);
            let highest_table = TableId(reader.u32()?);
            let highest_partition = PartitionId(reader.u32()?);
            let mut segments = Vec::new();
            for _ in 0..reader.u32()? {
                segments.push((SegmentId(reader.u32()?), Generation(reader.u32()?)));
            }
            let mut in_use = Vec::new();
            for _ in 0..reader.u32()? {
                let (segment, generation) = (SegmentId(reader.u32()?), Generation(reader.u32()?));
                in_use.push((segment, generation, Stream::from_code(reader.u8()?)?));
            }
            Some(ImagePayload::Root(ImageRoot {
                frames,
                catalog_frames,
                segments,
                in_use,
                highest_table,
                highest_partition,
            }))
        }
        _ => None,
    }
}

/// Unpacks entries, in order. `None` where they are malformed.
pub fn for_each_entry(
    packed: &[u8],
    mut each: impl FnMut(PartitionId, &[u8], Location, Option<WallMs>),
) -> Option<()> {
    let mut reader = ByteReader::new(packed);
    let mut key = Vec::new();
    while reader.remaining() > 0 {
        let partition = PartitionId(reader.u32()?);
        key.clear();
        for _ in 0..reader.u32()? {
            let shared_and_flag = reader.u16()?;
            let shared = usize::from(shared_and_flag & !EXPIRES_FLAG);
            let suffix_len = usize::from(reader.u16()?);
            let location = Location::from_raw(reader.u64()?)?;
            let does_expire = shared_and_flag & EXPIRES_FLAG != 0;
            let expires = if does_expire { Some(WallMs(reader.u64()?)) } else { None };
            if shared > key.len() {
                return None;
            }
            key.truncate(shared);
            key.extend_from_slice(reader.take(suffix_len)?);
            each(partition, &key, location, expires);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_several_partitions_read_back_and_cuts_are_refused() {
        let mut payload = EntriesPayload::begin();
        let mut expected = Vec::new();
        for partition in [3u32, 7, 9] {
            for i in 0..50u64 {
                let key = format!("user/{partition}/{i:04}").into_bytes();
                let location = Location::new(i * 100, 50);
                let expires = i.is_multiple_of(3).then_some(WallMs(i << 40));
                payload.push(PartitionId(partition), &key, location, expires);
                expected.push((PartitionId(partition), key, location, expires));
            }
        }
        let bytes = payload.finish();
        let Some(ImagePayload::Entries(packed)) = decode(&bytes) else { panic!("not entries") };
        let mut seen = Vec::new();
        for_each_entry(packed, |p, key, location, at| seen.push((p, key.to_vec(), location, at))).unwrap();
        assert_eq!(seen, expected);
        assert_eq!(for_each_entry(&packed[..packed.len() - 1], |_, _, _, _| ()), None);
    }

    #[test]
    fn a_root_reads_back() {
        let root = ImageRoot {
            frames: 10,
            catalog_frames: 2,
            segments: vec![(SegmentId(1), Generation(4)), (SegmentId(9), Generation(5))],
            in_use: vec![(SegmentId(2), Generation(3), Stream::Cleaning)],
            highest_table: TableId(6),
            highest_partition: PartitionId(700),
        };
        let bytes = root.encode();
        assert_eq!(bytes.len() as u64, ImageRoot::most_bytes(2) - 9);
        assert_eq!(decode(&bytes), Some(ImagePayload::Root(root)));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
    }
}
