//! Scans of compact indexes.

use crate::support::Sim;
use crate::support::ask::use_index;
use lode_engine::{Geometry, IndexKind, StoreKind};

/// Every page of it is empty: the next one is asked for, and so on.
#[test]
fn a_scan_passes_many_records_that_have_expired_and_are_in_memory() {
    use_index(IndexKind::Compact);
    let geometry = Geometry::plan(96 << 20, 1, Some(256 << 10), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(1, geometry, |config| config.cache_bytes = 32 << 20);
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    let key = |i: u32| format!("s{i:06}/what/no/two/key/have").into_bytes();
    for i in 0..30_000u32 {
        sim.put_ttl(1, &key(i), b"short", 3_600_000).expect("there is room");
    }
    sim.put(1, b"z", b"long").expect("there is room");
    sim.settle();
    for i in 0..30_000u32 {
        sim.get(1, &key(i)).expect("it is there");
    }
    sim.wall_ns += 4_000_000_000_000;
    let page = sim.scan(1, 1, 1 << 20).expect("the drive is read");
    assert_eq!(page.records.len(), 1);
    assert_eq!(&page.records[0].key[..], b"z");
}
