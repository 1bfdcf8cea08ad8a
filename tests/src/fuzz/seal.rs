//! Checksums made to hold again after somebody changed what they are of: damage that no checksum shows, as a bug in the
//! writer, or somebody with a hex editor, would leave it. `engine/FORMAT.md` says where they lie.

use lode_engine::format::frame::FRAME_HEADER_BYTES;
use lode_engine::format::record::{RECORD_HEADER_BYTES, Record};
use lode_engine::format::segment::SEGMENT_HEADER_BYTES;
use lode_engine::format::{ChecksumSeed, drive_header, frame, segment, superblock};

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Of the drive.
pub fn drive_header(block: &mut [u8]) {
    block[0..8].copy_from_slice(&drive_header::DRIVE_MAGIC);
    put(block, 8, lode_engine::format::FORMAT_VERSION);
    let crc = crc32c::crc32c(&block[16..]);
    put(block, 12, crc);
}

/// Of a superblock in the slot at byte `at` of the drive.
pub fn superblock(seed: ChecksumSeed, at: u64, block: &mut [u8]) {
    put(block, 0, superblock::SUPERBLOCK_MAGIC);
    let crc = seed.at(at, 0, &block[8..]);
    put(block, 4, crc);
}

/// Of a segment at byte `at` of the area.
pub fn segment_header(seed: ChecksumSeed, at: u64, block: &mut [u8]) {
    put(block, 0, segment::SEGMENT_MAGIC);
    let generation = number(block, 12);
    let crc = seed.at(at, generation, &block[8..SEGMENT_HEADER_BYTES]);
    put(block, 4, crc);
}

/// Of a frame at byte `at` of the area; the payload of an image's or the journal's frame, if it is all there, too.
pub fn frame(seed: ChecksumSeed, at: u64, bytes: &mut [u8]) {
    let payload_end = FRAME_HEADER_BYTES + number(bytes, 20) as usize;
    let is_checked_as_one =
        matches!(frame::Stream::from_code(bytes[8]), Some(frame::Stream::Image | frame::Stream::Journal));
    if is_checked_as_one && payload_end <= bytes.len() {
        let crc = crc32c::crc32c(&bytes[FRAME_HEADER_BYTES..payload_end]);
        put(bytes, 40, crc);
    }
    frame_header(seed, at, bytes);
}

/// Of a frame's header alone.
pub fn frame_header(seed: ChecksumSeed, at: u64, bytes: &mut [u8]) {
    put(bytes, 0, frame::FRAME_MAGIC);
    let generation = number(bytes, 16);
    let crc = seed.at(at, generation, &bytes[8..FRAME_HEADER_BYTES]);
    put(bytes, 4, crc);
}

/// Of a record at byte `at` of the area, if its lengths make sense.
pub fn record(seed: ChecksumSeed, at: u64, generation: u32, bytes: &mut [u8]) {
    let Ok(len) = Record::decode_unchecked(bytes).map(|record| record.len()) else { return };
    assert!(len >= RECORD_HEADER_BYTES, "no record is shorter than its header");
    let crc = seed.at(at, generation, &bytes[4..len]);
    put(bytes, 0, crc);
}
