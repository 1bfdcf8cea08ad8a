//! The directory of an image: where each partition's expiries and leaves lie, and how many there are.

use super::DIRECTORY;
use super::place::ImageExtent;
use crate::format::{ByteReader, ByteWriter};
use crate::ids::PartitionId;

/// Bytes of an entry.
pub const DIRECTORY_ENTRY_BYTES: usize = 40 + ImageExtent::BYTES;

/// What an image holds of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirectoryEntry {
    /// The partition.
    pub partition: PartitionId,
    /// Requests of late, so that partitions in use are loaded first.
    pub hotness: u32,
    /// Keys of its leaves.
    pub records: u64,
    /// Bytes of the records that they point to.
    pub record_bytes: u64,
    /// Bytes of memory that its index takes, about, and what is known of records that expire.
    pub memory_bytes: u64,
    /// Its entries of records that expire.
    pub expiring: u64,
    /// Where all of that lies; frames at both ends may hold other partitions' too.
    pub extent: ImageExtent,
}

impl DirectoryEntry {
    fn encode(&self, out: &mut ByteWriter) {
        out.u32(self.partition.0).u32(self.hotness).u64(self.records).u64(self.record_bytes);
        out.u64(self.memory_bytes).u64(self.expiring);
        self.extent.encode(out);
    }

    /// Reads it.
    pub(super) fn decode(reader: &mut ByteReader<'_>) -> Option<DirectoryEntry> {
        Some(DirectoryEntry {
            partition: PartitionId(reader.u32()?),
            hotness: reader.u32()?,
            records: reader.u64()?,
            record_bytes: reader.u64()?,
            memory_bytes: reader.u64()?,
            expiring: reader.u64()?,
            extent: ImageExtent::decode(reader)?,
        })
    }
}

/// The payload of a directory frame with these entries.
pub fn directory_payload(entries: &[DirectoryEntry]) -> Vec<u8> {
    let mut out = ByteWriter::new();
    out.u8(DIRECTORY);
    entries.iter().for_each(|entry| entry.encode(&mut out));
    out.into_bytes()
}
