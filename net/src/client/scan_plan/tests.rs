use std::collections::BTreeMap;

use super::*;
use crate::client::options::TimeLeft;
use crate::testing::Lcg;
use crate::wire::control::{MapBody, MapPartition, MapTable, Placement, Store};
use crate::wire::map::hash_of;
use crate::wire::{PartitionMap, Seq};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn map_of(placement: &Placement) -> PartitionMap {
    let table = MapTable { id: 1, name: "t".into(), store: Store::Durable, placement: placement.kind() };
    let partitions = placement.ranges().expect("good placement").into_iter().enumerate();
    let partitions = partitions.map(|(place, (start, end))| MapPartition {
        id: place as u32 + 1,
        table: 1,
        epoch: 1,
        shard: 0,
        start,
        end,
    });
    let body = MapBody { version: 1, tables: vec![table], partitions: partitions.collect() };
    PartitionMap::new(body).expect("good map")
}

/// Answers as a node would.
fn page(table: &TableRoutes, model: &Model, partition: PartitionId, view: &ScanView<'_>) -> Page {
    let lane = table.partitions().iter().find(|p| p.id == partition).expect("a partition of the table");
    let holds = |key: &[u8]| match table.placement {
        PlacementKind::Hash => lane.holds(&hash_of(key)),
        PlacementKind::Range => lane.holds(key),
    };
    let inside = |key: &[u8]| key >= view.range.start && view.range.end.is_none_or(|end| key < end);
    let mut all: Vec<_> = model.iter().filter(|(k, _)| inside(k) && holds(k)).collect();
    if view.reverse {
        all.reverse();
    }
    let more = all.len() > view.limit as usize;
    all.truncate(view.limit as usize);
    let record = |(key, value): (&Vec<u8>, &Vec<u8>)| ScanRecord {
        key: Bytes::copy_from_slice(key),
        seq: Seq::default(),
        value: Bytes::copy_from_slice(value),
        left: TimeLeft::Forever,
    };
    Page { records: all.into_iter().map(record).collect(), more }
}

fn run(table: &TableRoutes, model: &Model, options: &ScanOptions) -> Vec<Vec<u8>> {
    let mut plan = ScanPlan::new(table, options).expect("good limits");
    let mut keys = Vec::new();
    loop {
        while let Some(lane) = plan.hungry().first().copied() {
            let (partition, view) = plan.page_of(lane);
            let page = page(table, model, partition, &view);
            plan.feed(lane, page).expect("a good page");
        }
        match plan.pop() {
            Some(record) => keys.push(record.key.to_vec()),
            None => return keys,
        }
    }
}

#[test]
fn a_scan_gives_what_a_map_would() {
    let placements = [
        Placement::Hash { partitions: 5 },
        Placement::Hash { partitions: 1 },
        Placement::Range { splits: vec![vec![60], vec![120], vec![121], vec![200]] },
        Placement::Range { splits: vec![] },
    ];
    let mut random = Lcg::new(3);
    let key =
        |random: &mut Lcg| -> Vec<u8> { (0..1 + random.below(3)).map(|_| random.next() as u8).collect() };
    for round in 0..400 {
        let map = map_of(&placements[round % placements.len()]);
        let table = map.table("t").expect("there");
        let model: Model = (0..random.below(200)).map(|_| (key(&mut random), vec![1])).collect();
        let options = ScanOptions {
            start: if random.below(2) == 0 { Vec::new() } else { key(&mut random) },
            end: (random.below(2) == 0).then(|| key(&mut random)),
            reverse: random.below(2) == 0,
            limit: (random.below(2) == 0).then(|| random.below(50) as u64),
            page_records: 1 + random.below(20) as u32,
            ..ScanOptions::default()
        };
        let mut expected: Vec<Vec<u8>> = model
            .keys()
            .filter(|k| **k >= options.start && options.end.as_ref().is_none_or(|end| *k < end))
            .cloned()
            .collect();
        if options.reverse {
            expected.reverse();
        }
        expected.truncate(options.limit.unwrap_or(u64::MAX) as usize);
        assert_eq!(run(table, &model, &options), expected, "round {round}: {options:?}");
    }
}

#[test]
fn a_page_without_progress_is_an_error_and_not_a_loop() {
    let map = map_of(&Placement::Hash { partitions: 1 });
    let table = map.table("t").expect("there");
    let mut plan = ScanPlan::new(table, &ScanOptions::default()).expect("good limits");
    let empty = Page { records: Vec::new(), more: true };
    assert!(matches!(plan.feed(0, empty), Err(Failure::BadReply(_))));
}

#[test]
fn limits_are_checked_before_anything_is_sent() {
    let map = map_of(&Placement::Hash { partitions: 1 });
    let table = map.table("t").expect("there");
    for (page_records, page_bytes) in [(0, 1), (4097, 1), (1, 0), (1, MAX_SCAN_BYTES + 1)] {
        let options = ScanOptions { page_records, page_bytes, ..ScanOptions::default() };
        assert!(matches!(ScanPlan::new(table, &options), Err(ScanError::PageLimits { .. })));
    }
    let options = ScanOptions { start: vec![0; MAX_KEY_BYTES + 1], ..ScanOptions::default() };
    assert!(matches!(ScanPlan::new(table, &options), Err(ScanError::KeyLength { .. })));
}

#[test]
fn the_successor_of_a_longest_key_is_no_longer() {
    assert_eq!(successor(b"a"), Some(b"a\0".to_vec()));
    let mut longest = vec![b'a'; MAX_KEY_BYTES];
    longest[MAX_KEY_BYTES - 1] = u8::MAX;
    let next = successor(&longest).expect("there is a larger one");
    assert!(next.len() == MAX_KEY_BYTES - 1 && next > longest && next.ends_with(b"b"));
    assert_eq!(successor(&vec![u8::MAX; MAX_KEY_BYTES]), None);
}
