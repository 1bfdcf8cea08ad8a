//! What FORMAT.md says of images, and of the leaves in them.

use lode_engine::format::frame::Stream;
use lode_engine::format::image::{
    CatalogPayload, DIRECTORY_ENTRY_BYTES, DirectoryEntry, ImageExtent, ImagePosition, ImageRoot,
    IndexPayload, directory_payload,
};
use lode_engine::index::{IndexArena, IndexLoad, PartitionIndex};
use lode_engine::{Generation, Location, PartitionId, SegmentId, TableId, WallMs};

use super::hold;

#[test]
fn images() {
    let mut catalog = CatalogPayload::begin();
    catalog.push(b"change");
    let bytes = catalog.finish();
    let len = hold("Image: catalog", &bytes, &[("kind", 1)]);
    assert_eq!(&bytes[len..], b"\x06\0change");

    let leaf = leaf();
    let mut index = IndexPayload::begin();
    index.push_leaf(PartitionId(4), &leaf);
    index.push_leaf(PartitionId(4), &leaf);
    let bytes = index.finish();
    assert_eq!(bytes[0], 2);
    let group = &bytes[1..];
    let values = [("partition", 4), ("section", 2), ("count", 2), ("bytes", 2 * leaf.len() as u64)];
    let len = hold("Image: group", group, &values);
    assert_eq!(&group[len..], leaf.repeat(2));

    let mut index = IndexPayload::begin();
    index.push_expiry(PartitionId(4), b"key1", WallMs(0x0102_0304_0506_0708));
    index.push_expiry(PartitionId(4), b"key2", WallMs(9));
    let bytes = index.finish();
    let group = &bytes[1..];
    let values = [("partition", 4), ("section", 1), ("count", 2), ("bytes", 12 + 4 + 12 + 1)];
    let len = hold("Image: group", group, &values);
    let values = [("shared", 0), ("suffix_len", 4), ("expires_ms", 0x0102_0304_0506_0708)];
    let first = hold("Image: expiry", &group[len..], &values);
    assert_eq!(&group[len + first..], b"key1\x03\0\x01\0\x09\0\0\0\0\0\0\x002");
}

#[test]
fn directories_and_roots() {
    let at = |segment, offset| ImagePosition { segment, offset };
    let entry = DirectoryEntry {
        partition: PartitionId(4),
        hotness: 5,
        records: 6,
        record_bytes: 7,
        memory_bytes: 8,
        expiring: 9,
        extent: ImageExtent { from: at(1, 4096), to: at(2, 8192) },
    };
    let bytes = directory_payload(&[entry, entry]);
    assert_eq!(bytes[0], 4);
    let values = [
        ("partition", 4),
        ("hotness", 5),
        ("records", 6),
        ("record_bytes", 7),
        ("memory_bytes", 8),
        ("expiring", 9),
        ("from_segment", 1),
        ("from_offset", 4096),
        ("to_segment", 2),
        ("to_offset", 8192),
    ];
    assert_eq!(hold("Image: directory entry", &bytes[1..], &values), DIRECTORY_ENTRY_BYTES);
    assert_eq!(bytes.len(), 1 + 2 * DIRECTORY_ENTRY_BYTES);

    let root = ImageRoot {
        frames: 10,
        highest_table: TableId(6),
        highest_partition: PartitionId(7),
        highest_generation: Generation(8),
        catalog_frames: 2,
        directory_frames: 3,
        catalog: ImageExtent { from: at(11, 12), to: at(13, 14) },
        directory: ImageExtent { from: at(15, 16), to: at(17, 18) },
        segments: vec![(SegmentId(1), Generation(4))],
        in_use: vec![(SegmentId(2), Generation(3), Stream::Cleaning)],
    };
    let bytes = root.encode();
    let values = [
        ("kind", 3),
        ("frames", 10),
        ("highest_table", 6),
        ("highest_partition", 7),
        ("highest_generation", 8),
        ("catalog_frames", 2),
        ("directory_frames", 3),
        ("catalog_from_segment", 11),
        ("catalog_from_offset", 12),
        ("catalog_to_segment", 13),
        ("catalog_to_offset", 14),
        ("directory_from_segment", 15),
        ("directory_from_offset", 16),
        ("directory_to_segment", 17),
        ("directory_to_offset", 18),
        ("segment_count", 1),
    ];
    let len = hold("Image: root", &bytes, &values);
    assert_eq!(&bytes[len..], [1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2]);
    assert_eq!(bytes.len() as u64, ImageRoot::most_bytes(1));
}

/// The leaf of the keys `user` and `user/7x`.
fn leaf() -> Vec<u8> {
    // Of both, the highest two bytes are 160: 127 more than the base.
    let values = [Location::new(104, 34), Location::new(200, 37)].map(Location::to_raw);
    let values = values.map(|raw| (raw - (33 << 32)).to_le_bytes());
    let heads_and_lengths = b"\0\0\x37/\0\x03";
    let header = b"\x02\0\x04\0\x1f\0\x02\x01\x21\0";
    [&header[..], b"user", heads_and_lengths, &values[0][..5], &values[1][..5], b"x"].concat()
}

#[test]
fn leaves() {
    let leaf = leaf();
    let (used, base) = (("used", leaf.len() as u64), ("base", 33));
    let values = [("keys", 2), ("prefix_len", 4), used, ("flags", 2), ("short", 1), base];
    let len = hold("Image: leaf", &leaf, &values);
    assert_eq!(&leaf[len..len + 4], b"user");
    // What the page says of a leaf is what the index reads and writes.
    let mut arena = IndexArena::new();
    let mut load = IndexLoad::new(false);
    load.push(&mut arena, &leaf, &mut |_, _| true).expect("it is a leaf");
    let loaded = load.finish(&mut arena);
    assert_eq!(loaded.get(&arena, b"user"), Some(Location::new(104, 34)));
    assert_eq!(loaded.get(&arena, b"user/7x"), Some(Location::new(200, 37)));
    let mut inserted = PartitionIndex::new();
    inserted.insert(&mut arena, b"user", Location::new(104, 34));
    inserted.insert(&mut arena, b"user/7x", Location::new(200, 37));
    for index in [loaded, inserted] {
        let image = index.leaf_after(&arena, b"", 4096).expect("there is one");
        assert_eq!(&image.bytes[..], leaf);
    }
}

#[test]
fn compact_leaves() {
    let locations: Vec<_> = (1..=4).map(|i| Location::new(i * 800, 300)).collect();
    // The highest two bytes of all locations are 1216: 127 more than the base.
    let compact = |prefix: &[u8], known: &[u8; 2], at: usize, base: u16| {
        let location_bytes = if base > 0 { 5 } else { 6 };
        let width = if base > 0 { 0xc1 } else { 0x81 };
        let used = 10 + prefix.len() as u8 + 2 + 2 * location_bytes;
        let header = [2, 0, prefix.len() as u8, 0, used, 0, width, 0, base as u8, (base >> 8) as u8];
        let stored = |at: usize| (locations[at].to_raw() - (u64::from(base) << 32)).to_le_bytes();
        let places = [at, at + 1].map(|at| stored(at)[..usize::from(location_bytes)].to_vec());
        [&header[..], prefix, known, &places.concat()].concat()
    };
    let behind = |border: &[u8], leaf: &[u8]| {
        let used = (8 + border.len() + leaf.len()) as u8;
        [&[border.len() as u8, 0, 0, 0, used, 0, 0, 0], border, leaf].concat()
    };
    let (first, second) = (compact(b"user", b"13", 0, 0), compact(b"user7", b"ab", 2, 1089));
    let leaves = [behind(b"", &first), behind(b"user6", &second)];
    let values = [("border_len", 5), ("used", leaves[1].len() as u64)];
    assert_eq!(hold("Image: border of a leaf", &leaves[1], &values), 8);
    let values =
        [("keys", 2), ("prefix_len", 5), ("used", second.len() as u64), ("width", 193), ("base", 1089)];
    assert_eq!(hold("Image: compact leaf", &second, &values), 10);
    let mut arena = IndexArena::new();
    let mut load = IndexLoad::new(true);
    for leaf in &leaves {
        load.push(&mut arena, leaf, &mut |_, _| true).expect("it is a leaf");
    }
    let mut loaded = load.finish(&mut arena);
    for (key, at) in [(&b"user1/x"[..], 0), (b"user3", 1), (b"user7a", 2), (b"user7b/y", 3)] {
        assert_eq!(loaded.candidates(&arena, key).locations[..], [locations[at]]);
    }
    loaded.begin_image();
    for leaf in &leaves {
        let image = loaded.leaf_to_image(&arena).expect("there is one more");
        assert_eq!(&image.bytes[..], leaf);
        loaded.leaf_imaged(&arena);
    }
    assert!(loaded.leaf_to_image(&arena).is_none());
}
