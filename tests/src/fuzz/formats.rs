//! Every structure of `engine/FORMAT.md` from bytes that anybody may have made, with checksums that hold: what is read must be
//! the same after it was written again, and nothing may go wrong in reading it.

use std::ops::Bound;

use lode_engine::format::catalog::CatalogChange;
use lode_engine::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use lode_engine::format::image::{self, ImagePayload};
use lode_engine::format::journal::{self, JournalEntries, JournalEntry};
use lode_engine::format::record::Record;
use lode_engine::format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use lode_engine::format::superblock::Superblock;
use lode_engine::format::{ByteReader, ChecksumSeed};
use lode_engine::index::{IndexArena, IndexLoad, PartitionIndex};
use lode_engine::limits::{BLOCK_BYTES, MAX_KEY_BYTES};
use lode_engine::{Location, ShardId, read_drive_header};

use super::feed::Feed;
use super::seal;

/// Where the structure lies.
const AT: u64 = 64 << 10;
const UUID: [u8; 16] = [0x4c; 16];

/// The first byte chooses the structure, the others are it.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let seed = ChecksumSeed::new(&UUID, ShardId(0));
    let kind = feed.byte();
    match kind % 10 {
        0 => drive_header(feed.rest()),
        1 => superblock(seed, feed.rest()),
        2 => segment_header(seed, feed.rest()),
        3 => frame_header(seed, feed.rest()),
        4 => record(seed, feed.number(4) as u32, feed.rest()),
        5 => catalog_change(feed.rest()),
        6 => image_payload(feed.rest()),
        7 => journal_payload(feed.rest()),
        8 if kind < 128 => leaves(&mut feed),
        8 => compact_leaves(&mut feed),
        _ => varints(feed.rest()),
    }
}

fn padded(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let taken = bytes.len().min(len);
    out[..taken].copy_from_slice(&bytes[..taken]);
    out
}

fn drive_header(bytes: &[u8]) {
    let _ = read_drive_header(bytes);
    let mut block = padded(bytes, BLOCK_BYTES);
    seal::drive_header(&mut block);
    if let Ok((geometry, identity)) = read_drive_header(&block) {
        let again = lode_engine::format::drive_header::encode_drive_header(&geometry, &identity);
        assert_eq!(read_drive_header(&again), Ok((geometry, identity)));
        // What a start asks of it.
        let slots = geometry.superblock_slots(ShardId(geometry.shards - 1));
        assert!(slots.iter().all(|slot| slot.0 + BLOCK_BYTES as u64 <= geometry.drive_bytes));
        let area_end = geometry.area_at(ShardId(geometry.shards - 1)).0 + geometry.area_bytes();
        assert!(area_end <= geometry.drive_bytes, "an area beyond the drive is taken");
    }
}

fn superblock(seed: ChecksumSeed, bytes: &[u8]) {
    let _ = Superblock::decode(seed, AT, bytes);
    let mut block = padded(bytes, BLOCK_BYTES);
    seal::superblock(seed, AT, &mut block);
    if let Some(superblock) = Superblock::decode(seed, AT, &block) {
        let mut again = vec![0; BLOCK_BYTES];
        superblock.encode(seed, AT, &mut again);
        assert_eq!(Superblock::decode(seed, AT, &again), Some(superblock));
    }
}

fn segment_header(seed: ChecksumSeed, bytes: &[u8]) {
    let mut block = padded(bytes, SEGMENT_HEADER_BYTES);
    seal::segment_header(seed, AT, &mut block);
    if let Some(header) = SegmentHeader::decode(seed, AT, &block) {
        let mut again = vec![0; BLOCK_BYTES];
        header.encode(seed, AT, &mut again);
        assert_eq!(SegmentHeader::decode(seed, AT, &again), Some(header));
    }
}

fn frame_header(seed: ChecksumSeed, bytes: &[u8]) {
    let mut frame = padded(bytes, FRAME_HEADER_BYTES);
    seal::frame_header(seed, AT, &mut frame);
    if let Some(header) = FrameHeader::decode_any(seed, AT, &frame) {
        assert!(header.frame_len() > header.payload_bytes as usize, "a frame is longer than what it holds");
        let mut again = vec![0; FRAME_HEADER_BYTES];
        header.encode(seed, AT, &mut again);
        assert_eq!(FrameHeader::decode_any(seed, AT, &again), Some(header));
    }
}

fn record(seed: ChecksumSeed, generation: u32, bytes: &[u8]) {
    let _ = Record::decode(seed, AT, generation, bytes);
    let mut sealed = bytes.to_vec();
    seal::record(seed, AT, generation, &mut sealed);
    if let Ok(record) = Record::decode(seed, AT, generation, &sealed) {
        assert!(record.len() <= sealed.len() && record.room() >= record.len());
        let mut again = vec![0; record.len()];
        record.encode(seed, AT, generation, &mut again);
        assert_eq!(Record::decode(seed, AT, generation, &again), Ok(record));
    }
}

fn catalog_change(bytes: &[u8]) {
    if let Some(change) = CatalogChange::decode(bytes) {
        assert_eq!(CatalogChange::decode(&change.encode()), Some(change));
    }
}

fn image_payload(bytes: &[u8]) {
    match image::decode(bytes) {
        Some(ImagePayload::Catalog(changes)) => changes.into_iter().for_each(catalog_change),
        Some(ImagePayload::Index(packed)) => {
            let _ = image::for_each_group(packed, |group| {
                let _ = image::for_each_leaf(&group, leaf);
                let _ = image::for_each_expiry(&group, |key, _| assert!(key.len() <= packed.len()));
            });
        }
        Some(ImagePayload::Directory(entries)) => {
            let again = image::directory_payload(&entries);
            assert_eq!(image::decode(&again), Some(ImagePayload::Directory(entries)));
        }
        Some(ImagePayload::Root(root)) => {
            let again = root.encode();
            assert_eq!(image::decode(&again), Some(ImagePayload::Root(root)));
        }
        None => {}
    }
}

fn journal_payload(bytes: &[u8]) {
    let Some((head, packed)) = journal::decode_head(bytes) else { return };
    let mut again = JournalEntries::default();
    let mut told = Vec::new();
    let read = journal::for_each_entry(packed, |entry| {
        told.push(format!("{entry:?}"));
        if let JournalEntry::Catalog(change) = entry {
            catalog_change(change);
        }
        again.push(&entry);
    });
    if read.is_none() {
        return;
    }
    let (payload, _) = again.finish(&head);
    let (head_again, packed) = journal::decode_head(&payload).expect("it was written a moment ago");
    let mut told_again = Vec::new();
    let read = journal::for_each_entry(packed, |entry| told_again.push(format!("{entry:?}")));
    assert_eq!(
        (read, head_again, told_again),
        (Some(()), head, told),
        "there and back it is another journal"
    );
}

/// Leaves one behind the other, each with its length before it.
fn load_leaves(feed: &mut Feed<'_>, arena: &mut IndexArena, is_compact: bool) -> PartitionIndex {
    let mut load = IndexLoad::new(is_compact);
    while !feed.is_empty() {
        let len = feed.number(2) as usize;
        let _ = load.push(arena, feed.take(len), &mut |_, _| true);
    }
    load.finish(arena)
}

fn known_keys(index: &PartitionIndex, arena: &IndexArena) -> Vec<(Vec<u8>, Location)> {
    let mut keys = Vec::new();
    let mut iter = index.iter(arena, Bound::Unbounded, Bound::Unbounded);
    while let Some((key, location)) = iter.next() {
        keys.push((key.to_vec(), location));
    }
    assert_eq!(keys.len() as u64, index.len());
    keys
}

fn leaves(feed: &mut Feed<'_>) {
    let mut arena = IndexArena::new();
    let mut index = load_leaves(feed, &mut arena, false);
    let keys = known_keys(&index, &arena);
    assert!(keys.is_sorted_by(|(a, _), (b, _)| a < b), "an index out of order was taken");
    for (key, location) in &keys {
        assert_eq!(index.get(&arena, key), Some(*location), "a key that is there is not found");
    }
    for (key, _) in &keys {
        assert!(index.remove(&mut arena, key).is_some(), "a key that is there cannot be removed");
    }
    assert!(index.is_empty());
}

/// The same of a compact index, each leaf behind its border.
fn compact_leaves(feed: &mut Feed<'_>) {
    let mut arena = IndexArena::new();
    let mut index = load_leaves(feed, &mut arena, true);
    let keys = known_keys(&index, &arena);
    for (key, location) in &keys {
        // What is known of a key may be more than a key has, or nothing: then it is no key to ask for.
        if (1..=MAX_KEY_BYTES).contains(&key.len()) {
            index.candidates(&arena, key);
            index.holds(&arena, key, *location);
        }
    }
    while !index.drain_some(&mut arena, 7, &mut |_| {}) {}
    assert!(index.is_empty());
}

fn leaf(bytes: &[u8]) {
    let mut arena = IndexArena::new();
    let mut load = IndexLoad::new(false);
    let _ = load.push(&mut arena, bytes, &mut |_, _| true);
}

fn varints(bytes: &[u8]) {
    let mut reader = ByteReader::new(bytes);
    while reader.remaining() > 0 {
        let before = reader.remaining();
        let _ = (reader.varint(), reader.short());
        if reader.remaining() == before {
            return;
        }
    }
}
