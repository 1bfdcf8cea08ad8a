//! The drive's header: its first block, and a copy in its last.

use crate::format::{ByteReader, ByteWriter, FORMAT_VERSION};
use crate::geometry::Geometry;
use crate::limits::BLOCK_BYTES;
use thiserror::Error;

/// First bytes of every drive: "LODEDRV1".
pub const DRIVE_MAGIC: [u8; 8] = *b"LODEDRV1";
/// Size of the header: one block.
pub const DRIVE_HEADER_BYTES: usize = BLOCK_BYTES;

/// Which drive this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriveIdentity {
    /// Random, made at format.
    pub uuid: [u8; 16],
    /// UNIX nanoseconds of the format.
    pub created_wall_ns: u64,
}

/// Why a block is not a drive's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DriveHeaderError {
    /// Not a lode drive at all.
    #[error(
        "this is not a lode drive; check the path, or make it one with lode format, which destroys what is there"
    )]
    NotADrive,
    /// Of another version of the format.
    #[error(
        "the drive has format version {0}, and this program reads version {FORMAT_VERSION} alone: copy its tables with \
         the program that wrote it to a drive that this one has formatted"
    )]
    Version(u32),
    /// The header is damaged.
    #[error("the drive's header is damaged")]
    Damaged,
}

/// Encodes the header of a drive.
pub fn encode_drive_header(geometry: &Geometry, identity: &DriveIdentity) -> Vec<u8> {
    let mut body = ByteWriter::new();
    body.raw(&identity.uuid).u64(identity.created_wall_ns);
    body.u64(geometry.drive_bytes).u32(BLOCK_BYTES as u32).u32(geometry.segment_bytes);
    body.u32(geometry.segments_per_shard).u32(geometry.max_value_bytes);
    body.u16(geometry.shards).raw(&[0; 6]);
    let mut block = vec![0u8; BLOCK_BYTES];
    block[0..8].copy_from_slice(&DRIVE_MAGIC);
    block[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let body = body.into_bytes();
    block[16..16 + body.len()].copy_from_slice(&body);
    let crc = crc32c::crc32c(&block[16..]);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    block
}

/// Decodes the header from the drive's first block, or from its copy.
pub fn read_drive_header(block: &[u8]) -> Result<(Geometry, DriveIdentity), DriveHeaderError> {
    let block = block.get(..BLOCK_BYTES).ok_or(DriveHeaderError::NotADrive)?;
    if block[0..8] != DRIVE_MAGIC {
        return Err(DriveHeaderError::NotADrive);
    }
    let mut reader = ByteReader::new(&block[8..]);
    let version = reader.u32().ok_or(DriveHeaderError::Damaged)?;
    if version != FORMAT_VERSION {
        return Err(DriveHeaderError::Version(version));
    }
    if reader.u32() != Some(crc32c::crc32c(&block[16..])) {
        return Err(DriveHeaderError::Damaged);
    }
    decode_body(reader).ok_or(DriveHeaderError::Damaged)
}

fn decode_body(mut reader: ByteReader<'_>) -> Option<(Geometry, DriveIdentity)> {
    let identity = DriveIdentity { uuid: reader.array()?, created_wall_ns: reader.u64()? };
    let drive_bytes = reader.u64()?;
    if reader.u32()? != BLOCK_BYTES as u32 {
        return None;
    }
    let segment_bytes = reader.u32()?;
    let segments_per_shard = reader.u32()?;
    let max_value_bytes = reader.u32()?;
    let shards = reader.u16()?;
    let geometry = Geometry { drive_bytes, segment_bytes, segments_per_shard, max_value_bytes, shards };
    geometry.is_consistent().then_some((geometry, identity))
}
