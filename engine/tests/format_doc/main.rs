//! FORMAT.md against the code: its tables are read, and held against constants and encoded samples.
#![allow(missing_docs)]

mod images;

use std::collections::BTreeMap;

use lode_engine::format::catalog::CatalogChange;
use lode_engine::format::drive_header::encode_drive_header;
use lode_engine::format::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, PartitionSet, Stream};
use lode_engine::format::journal::{
    JOURNAL_HEAD_BYTES, JournalEntries, JournalEntry, JournalHead, LogPosition,
};
use lode_engine::format::record::{RECORD_HEADER_BYTES, Record, RecordKind};
use lode_engine::format::segment::{SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, SegmentHeader};
use lode_engine::format::superblock::{
    MAX_VOID_RANGES, RootLocation, SUPERBLOCK_MAGIC, Superblock, VoidRange,
};
use lode_engine::format::{ChecksumSeed, FORMAT_VERSION};
use lode_engine::limits::{
    BLOCK_BYTES, MAX_BATCH_BYTES, MAX_BATCH_WRITES, MAX_KEY_BYTES, MAX_PARTITIONS, MAX_TABLE_NAME_BYTES,
    MAX_VALUE_BYTES,
};
use lode_engine::{
    DRIVE_HEADER_BYTES, DriveIdentity, Epoch, FrameNumber, Generation, Geometry, Location, MAX_SHARDS,
    MIN_SEGMENTS, NodeId, PartitionId, PartitionSpec, Placement, Quota, SegmentId, Seq, ShardId, StoreKind,
    TableId, TableSpec, WallMs,
};

const DOC: &str = include_str!("../../FORMAT.md");

/// The rows of the table below a heading, cell by cell, without its head.
fn table(heading: &str) -> Vec<Vec<String>> {
    let mut lines = DOC.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading);
    assert!(lines.next().is_some_and(|line| line.starts_with('#')), "no heading {heading:?}");
    let section = lines.take_while(|line| !line.starts_with('#'));
    let rows = section.filter(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

/// A structure's fields: where, how long, in order and without gaps.
fn fields(heading: &str) -> Vec<(String, usize, usize)> {
    let number = |cell: &str| cell.parse::<usize>().unwrap_or_else(|_| panic!("{heading}: number {cell:?}"));
    let mut at = 0;
    let mut fields = Vec::new();
    for row in table(heading) {
        let (offset, bytes) = (number(&row[0]), number(&row[1]));
        assert_eq!(offset, at, "{heading}: field {} leaves a gap", row[2]);
        at += bytes;
        fields.push((row[2].clone(), offset, bytes));
    }
    assert!(!fields.is_empty(), "{heading} has a table");
    fields
}

/// Holds a structure's table against an encoded sample: every field that is not zero or a checksum must
/// have the value given, and every value given must have a field. Gives the structure's length.
fn hold(heading: &str, sample: &[u8], values: &[(&str, u64)]) -> usize {
    let mut values: BTreeMap<&str, u64> = values.iter().copied().collect();
    let fields = fields(heading);
    for (name, offset, bytes) in &fields {
        let found = &sample[*offset..offset + bytes];
        if name.starts_with("zero") {
            assert!(found.iter().all(|byte| *byte == 0), "{heading}: {name} at {offset} is not zero");
        } else if *bytes <= 8 && name != "crc" {
            let mut number = [0u8; 8];
            number[..*bytes].copy_from_slice(found);
            let expected = values.remove(name.as_str());
            assert_eq!(Some(u64::from_le_bytes(number)), expected, "{heading}: {name} at {offset}");
        } else {
            assert!(found.iter().any(|byte| *byte != 0), "{heading}: {name} at {offset} is zero");
        }
    }
    assert!(values.is_empty(), "{heading} does not speak of {values:?}");
    fields.last().map_or(0, |(_, offset, bytes)| offset + bytes)
}

fn seed() -> ChecksumSeed {
    ChecksumSeed::new(&[7; 16], ShardId(3))
}

/// The checksum rule, said once more.
fn checksum(at: u64, generation: u32, body: &[u8]) -> u32 {
    let mut bytes = vec![7u8; 16];
    bytes.extend(3u16.to_le_bytes());
    bytes.extend(at.to_le_bytes());
    bytes.extend(generation.to_le_bytes());
    bytes.extend(body);
    crc32c::crc32c(&bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

const SEQ: Seq = Seq { wall_ns: 0x0102_0304_0506_0708, counter: 0x0a0b_0c0d, node: NodeId(0x1122_3344) };

#[test]
fn constants() {
    let known: BTreeMap<&str, usize> = BTreeMap::from([
        ("FORMAT_VERSION", FORMAT_VERSION as usize),
        ("BLOCK_BYTES", BLOCK_BYTES),
        ("DRIVE_HEADER_BYTES", DRIVE_HEADER_BYTES),
        ("SEGMENT_HEADER_BYTES", SEGMENT_HEADER_BYTES),
        ("FRAME_HEADER_BYTES", FRAME_HEADER_BYTES),
        ("RECORD_HEADER_BYTES", RECORD_HEADER_BYTES),
        ("MAX_KEY_BYTES", MAX_KEY_BYTES),
        ("MAX_VALUE_BYTES", MAX_VALUE_BYTES),
        ("MAX_BATCH_WRITES", MAX_BATCH_WRITES),
        ("MAX_BATCH_BYTES", MAX_BATCH_BYTES),
        ("MAX_TABLE_NAME_BYTES", MAX_TABLE_NAME_BYTES),
        ("MAX_PARTITIONS", MAX_PARTITIONS),
        ("MAX_VOID_RANGES", MAX_VOID_RANGES),
        ("MIN_SEGMENTS", MIN_SEGMENTS as usize),
        ("MAX_SHARDS", MAX_SHARDS as usize),
    ]);
    let said: BTreeMap<String, String> =
        table("Constants").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(said.len(), known.len());
    for (name, value) in known {
        assert_eq!(said.get(name), Some(&value.to_string()), "{name}");
    }
}

#[test]
fn drive_header_and_layout() {
    let geometry = Geometry::plan(64 << 20, 3, Some(1 << 20), 5000).unwrap();
    let identity = DriveIdentity { uuid: [7; 16], created_wall_ns: 99 };
    let block = encode_drive_header(&geometry, &identity);
    let len = hold(
        "Drive header",
        &block,
        &[
            ("magic", u64::from_le_bytes(*b"LODEDRV1")),
            ("version", 3),
            ("created_wall_ns", 99),
            ("drive_bytes", 64 << 20),
            ("block_bytes", 4096),
            ("segment_bytes", 1 << 20),
            ("segments_per_shard", u64::from(geometry.segments_per_shard)),
            ("max_value_bytes", 5000),
            ("shards", 3),
        ],
    );
    assert_eq!(len, DRIVE_HEADER_BYTES);
    assert_eq!(u32_at(&block, 12), crc32c::crc32c(&block[16..]));
    // R is 64 KiB + 3 * 8192 + 4096, rounded up to 64 KiB.
    let (region, end) = (128u64 << 10, 64u64 << 20);
    assert_eq!(geometry.area_at(ShardId(0)).0, region);
    assert_eq!(geometry.area_at(ShardId(1)).0, region + geometry.area_bytes());
    let slots = geometry.superblock_slots(ShardId(1)).map(|slot| slot.0);
    let (head, tail) = ((64 << 10) + 8192, end - region + 8192);
    assert_eq!(slots, [head, head + 4096, tail, tail + 4096]);
    assert_eq!(Geometry::header_mirror_at(end).0, end - 4096);
}

#[test]
fn superblock() {
    let root = |n: u32| RootLocation {
        segment: SegmentId(n),
        generation: Generation(n + 1),
        offset: n + 2,
        len: n + 3,
    };
    let mut superblock = Superblock {
        version: 11,
        checkpoint: 12,
        roots: Some([root(20), root(30)]),
        user_from: FrameNumber(13),
        user_from_position: LogPosition { generation: Generation(15), offset: 4096 },
        journal_from: FrameNumber(14),
        journal_from_position: LogPosition { generation: Generation(16), offset: 8192 },
        highest_generation: Generation(17),
        highest_seq: SEQ,
        void: vec![VoidRange { from: FrameNumber(5), to: FrameNumber(9) }; MAX_VOID_RANGES],
        journal_void: vec![VoidRange { from: FrameNumber(6), to: FrameNumber(7) }; MAX_VOID_RANGES],
        may_lack_tables: true,
    };
    let mut block = vec![1u8; BLOCK_BYTES];
    superblock.encode(seed(), 77 << 12, &mut block);
    let len = hold(
        "Superblock",
        &block,
        &[
            ("magic", u64::from(SUPERBLOCK_MAGIC)),
            ("version", 11),
            ("checkpoint", 12),
            ("root_segment", 20),
            ("root_generation", 21),
            ("root_offset", 22),
            ("root_len", 23),
            ("copy_segment", 30),
            ("copy_generation", 31),
            ("copy_offset", 32),
            ("copy_len", 33),
            ("user_from", 13),
            ("journal_from", 14),
            ("user_from_generation", 15),
            ("user_from_offset", 4096),
            ("journal_from_generation", 16),
            ("journal_from_offset", 8192),
            ("highest_generation", 17),
            ("void_count", MAX_VOID_RANGES as u64),
            ("journal_void_count", MAX_VOID_RANGES as u64),
            ("may_lack_tables", 1),
        ],
    );
    assert_eq!(len, BLOCK_BYTES);
    assert_eq!(&block[0..4], b"LSUP");
    assert_eq!(&block[100..116], &SEQ.to_bytes());
    assert_eq!((block[116], block[124]), (5, 9));
    assert_eq!((block[1140], block[1148]), (6, 7));
    assert_eq!(u32_at(&block, 4), checksum(77 << 12, 0, &block[8..]));
    superblock.roots = None;
    superblock.void.truncate(1);
    superblock.encode(seed(), 77 << 12, &mut block);
    assert_eq!((block[116], block[132], block[1140]), (5, 0, 6), "each stream's ranges have their place");
    assert_eq!(u32_at(&block, 24), 4_294_967_295);
}

#[test]
fn segment_header() {
    let header = SegmentHeader { segment: SegmentId(5), generation: Generation(6), stream: Stream::Cleaning };
    let mut block = vec![1u8; BLOCK_BYTES];
    header.encode(seed(), 5 << 20, &mut block);
    let values = [("magic", u64::from(SEGMENT_MAGIC)), ("segment", 5), ("generation", 6), ("stream", 2)];
    assert_eq!(hold("Segment header", &block, &values), SEGMENT_HEADER_BYTES);
    assert_eq!(&block[0..4], b"LSEG");
    assert_eq!(u32_at(&block, 4), checksum(5 << 20, 6, &block[8..24]));
    assert_eq!(
        [Stream::User, Stream::Cleaning, Stream::Image, Stream::Journal].map(Stream::code),
        [1, 2, 3, 4]
    );
}

#[test]
fn frame_header() {
    let header = FrameHeader {
        stream: Stream::User,
        segment: SegmentId(5),
        generation: Generation(6),
        payload_bytes: 7,
        number: FrameNumber(8),
        durable: FrameNumber(9),
        detail: 10,
        partitions: PartitionSet(11),
    };
    let mut bytes = [1u8; FRAME_HEADER_BYTES];
    header.encode(seed(), 5 << 12, &mut bytes);
    let len = hold(
        "Frame header",
        &bytes,
        &[
            ("magic", u64::from(FRAME_MAGIC)),
            ("stream", 1),
            ("segment", 5),
            ("generation", 6),
            ("payload_bytes", 7),
            ("number", 8),
            ("durable", 9),
            ("detail", 10),
            ("partitions", 11),
        ],
    );
    assert_eq!(len, FRAME_HEADER_BYTES);
    assert_eq!(&bytes[0..4], b"LFRM");
    assert_eq!(u32_at(&bytes, 4), checksum(5 << 12, 6, &bytes[8..]));
}

#[test]
fn record_seq_and_location() {
    let mut bytes = [0u8; 64];
    let kinds =
        [(RecordKind::Put, 1, &b"key"[..]), (RecordKind::Delete, 2, b"key"), (RecordKind::Catalog, 3, b"")];
    for (kind, code, key) in kinds {
        let record =
            Record { kind, seq: SEQ, partition: PartitionId(5), key, value: b"value", expires: None };
        let len = record.encode(seed(), 4321, 6, &mut bytes);
        let values =
            [("partition", 5), ("kind_and_value_len", code << 24 | 5), ("key_len", key.len() as u64)];
        assert_eq!(hold("Record", &bytes, &values), RECORD_HEADER_BYTES);
        assert_eq!(&bytes[4..20], &SEQ.to_bytes());
        assert_eq!(&bytes[RECORD_HEADER_BYTES..len], [key, b"value"].concat());
        assert_eq!(u32_at(&bytes, 0), checksum(4321, 6, &bytes[4..len]));
    }
    let expires = Some(WallMs(0x0102_0304_0506_0708));
    let (kind, partition) = (RecordKind::Put, PartitionId(5));
    let record = Record { kind, seq: SEQ, partition, key: b"key", value: b"value", expires };
    let len = record.encode(seed(), 4321, 6, &mut bytes);
    assert_eq!(u64::from(bytes[27]), 0x41);
    assert_eq!(&bytes[RECORD_HEADER_BYTES..len], b"\x08\x07\x06\x05\x04\x03\x02\x01keyvalue");
    let values = [("wall_ns", SEQ.wall_ns), ("counter", u64::from(SEQ.counter)), ("node", 0x1122_3344)];
    assert_eq!(hold("Seq", &SEQ.to_bytes(), &values), Seq::BYTES);
    let mut shortest = 1;
    for row in table("Room") {
        let (longest, unit) = (row[0].parse::<usize>().unwrap(), row[1].parse::<usize>().unwrap());
        // Records are at most 1 MiB and a little.
        for len in [shortest, shortest + unit - 1, shortest + unit, longest / 2 + 1, longest - 1, longest] {
            if len <= 1024 * 1024 + 4096 + 38 {
                assert_eq!(Location::new(0, len).room() as usize, len.next_multiple_of(unit), "{len} bytes");
            }
        }
        shortest = longest + 1;
    }
    // 678 bytes take 85 units of 8 bytes; 20,000 bytes, 157 of 128 bytes.
    let location = Location::new(12_344, 678);
    assert_eq!((location.to_raw(), location.to_bytes()), ((85 << 37) + 1543, [7, 6, 0, 0, 0xa0, 0xa]));
    assert_eq!(Location::new(12_344, 20_000).to_raw(), ((1024 + 128 + (157 - 128)) << 37) + 1543);
}

#[test]
fn catalog_changes() {
    let partition = |end| PartitionSpec {
        id: PartitionId(4),
        table: TableId(2),
        epoch: Epoch(9),
        start: b"abc".to_vec(),
        end,
    };
    let bytes = CatalogChange::CreatePartition(partition(Some(b"de".to_vec()))).encode();
    let values = [("kind", 1), ("partition", 4), ("table", 2), ("epoch", 9), ("start_len", 3)];
    let len = hold("Catalog change: create partition", &bytes, &values);
    assert_eq!(&bytes[len..], b"abc\x02\0de");
    let bytes = CatalogChange::CreatePartition(partition(None)).encode();
    assert_eq!(&bytes[len..], b"abc\xff\xff");

    let (store, placement) = (StoreKind::Memory, Placement::Hash);
    let table = TableSpec {
        id: TableId(2),
        name: "name".into(),
        store,
        placement,
        ttl_ms: None,
        quota: Quota::default(),
        index: lode_engine::IndexKind::Full,
    };
    let bytes = CatalogChange::CreateTable(table).encode();
    let values = [("kind", 2), ("table", 2), ("store", 2), ("placement", 2), ("name_len", 4)];
    let len = hold("Catalog change: create table", &bytes, &values);
    assert_eq!(&bytes[len..], b"name");

    let table = TableSpec {
        id: TableId(2),
        name: "name".into(),
        store,
        placement,
        ttl_ms: Some(0x0102),
        quota: Quota::default(),
        index: lode_engine::IndexKind::Full,
    };
    let bytes = CatalogChange::CreateTable(table).encode();
    assert_eq!((bytes[0], &bytes[9..]), (6, &b"name\x02\x01\0\0\0\0\0\0"[..]));

    let bytes = CatalogChange::DropTable(TableId(6)).encode();
    let len = hold("Catalog change: drop table", &bytes, &[("kind", 3), ("table", 6)]);
    assert_eq!(len, bytes.len());
    let bytes = CatalogChange::DropPartition(PartitionId(6)).encode();
    let len = hold("Catalog change: drop partition", &bytes, &[("kind", 4), ("partition", 6)]);
    assert_eq!(len, bytes.len());
    let bytes = CatalogChange::Quarantine(PartitionId(6), SEQ).encode();
    let len = hold("Catalog change: quarantine", &bytes, &[("kind", 5), ("partition", 6)]);
    assert_eq!(len, bytes.len());
    assert_eq!(&bytes[5..], &SEQ.to_bytes());
}

#[test]
fn quotas() {
    let (store, placement) = (StoreKind::Memory, Placement::Hash);
    let (requests_per_s, read_bytes_per_s, write_bytes_per_s) = (3, 4, 5);
    let quota = Quota { weight: 1, burst_ms: 2, requests_per_s, read_bytes_per_s, write_bytes_per_s };
    let (id, name, index) = (TableId(2), "name".into(), lode_engine::IndexKind::Full);
    let table = TableSpec { id, name, store, placement, ttl_ms: None, quota, index };
    let bytes = CatalogChange::CreateTable(table).encode();
    assert_eq!((bytes[0], &bytes[9..21]), (7, &b"name\0\0\0\0\0\0\0\0"[..]));
    let numbers = [
        ("weight", 1),
        ("burst_ms", 2),
        ("requests_per_s", 3),
        ("read_bytes_per_s", 4),
        ("write_bytes_per_s", 5),
    ];
    assert_eq!(hold("Quota", &bytes[21..], &numbers), Quota::BYTES);
    let bytes = CatalogChange::TableQuota(TableId(6), quota).encode();
    assert_eq!(hold("Catalog change: quota of a table", &bytes, &[("kind", 8), ("table", 6)]), 5);
    assert_eq!(hold("Quota", &bytes[5..], &numbers), Quota::BYTES);
    let bytes = CatalogChange::PartitionQuota(PartitionId(6), Some(quota)).encode();
    let heading = "Catalog change: quota of a partition";
    assert_eq!(hold(heading, &bytes, &[("kind", 9), ("partition", 6)]), 5);
    assert_eq!(hold("Quota", &bytes[5..], &numbers), Quota::BYTES);
    assert_eq!(CatalogChange::PartitionQuota(PartitionId(6), None).encode(), b"\x0a\x06\0\0\0");
}

#[test]
fn journal() {
    let head = JournalHead {
        user_upto: FrameNumber(11),
        user_from: LogPosition { generation: Generation(12), offset: 13 },
        seq_before: SEQ,
        seq_upto: SEQ,
    };
    let (partition, other, key) = (PartitionId(4), PartitionId(5), &b"key"[..]);
    let room = |at| Location::new(at, 300);
    let set = |at, expires| JournalEntry::Set { partition, key, location: room(at), expires, replaces: None };
    let mut entries = JournalEntries::default();
    for entry in [
        set(1000, None),
        set(1304, Some(WallMs(0x0102_0304_0506_0708))),
        set(1528, None),
        JournalEntry::Remove { partition: other, key, replaces: None },
        JournalEntry::Catalog(b"change"),
        JournalEntry::Quarantine(PartitionSet(9), SEQ),
        JournalEntry::Freed(SegmentId(6), Generation(7)),
        JournalEntry::Set {
            partition: other,
            key,
            location: room(1832),
            expires: None,
            replaces: Some(room(800)),
        },
        JournalEntry::Remove { partition: other, key, replaces: Some(room(1104)) },
        JournalEntry::Superseded { partition: other, key, location: room(1408) },
    ] {
        entries.push(&entry);
    }
    let (bytes, partitions) = entries.finish(&head);
    assert_eq!(partitions, PartitionSet::ALL);
    let values = [("user_upto", 11), ("user_from_generation", 12), ("user_from_offset", 13)];
    assert_eq!(hold("Journal", &bytes, &values), JOURNAL_HEAD_BYTES);
    assert_eq!(&bytes[16..48], [SEQ.to_bytes(), SEQ.to_bytes()].concat());
    // A room of 304 has the code 38; 1000 bytes from the beginning are 125 units, twice that is 0xfa 0x01; 10 back are 19.
    let expected = [
        &b"\x11\x04\0\0\0\x03key\x26\xfa\x01"[..],
        b"\x21\x03key\x26\0\x08\x07\x06\x05\x04\x03\x02\x01",
        b"\x01\x03key\x26\x13",
        b"\x12\x05\0\0\0\x03key",
        b"\x03\x06\0change",
        b"\x04\x09\0\0\0\0\0\0\0",
        &SEQ.to_bytes(),
        b"\x05\x06\0\0\0\x07\0\0\0",
        // 100 units from the beginning, and right behind the one before.
        b"\x41\x03key\x26\0\x26\xc8\x01",
        b"\x42\x03key\x26\0",
        b"\x06\x03key\x26\0",
    ];
    assert_eq!(&bytes[48..], expected.concat());
}
