//! Reads that wait for a buffer are few, and none is done that nobody wants any more.

use crate::support::Sim;
use crate::support::ask::{hold_buffers, send, target};
use lode_engine::{
    Condition, Geometry, KeyRange, ReadError, ReplyBody, RequestBody, RequestId, StoreKind, Ttl,
};

const LARGE: usize = 20_000;
const KEYS: u8 = 40;

/// A shard with large values under `[n]` and small ones under `[n, 0]`, and nothing in its cache.
fn sim(seed: u64) -> Sim {
    let geometry = Geometry::plan(6 << 20, 1, Some(128 << 10), LARGE as u32);
    let mut sim = Sim::format(seed, geometry.expect("the drive is large enough"), |config| {
        config.cache_bytes = 0;
        config.max_queued_read_bytes = 128 << 10;
    });
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    for key in 0..KEYS {
        sim.put(1, &[key], &vec![key; LARGE]).expect("there is room");
        sim.put(1, &[key, 0], &[key]).expect("there is room");
    }
    sim.settle();
    sim
}

fn send_get(sim: &mut Sim, key: &[u8]) -> RequestId {
    send(sim, RequestBody::Get { target: target(1), key })
}

fn got(sim: &mut Sim, id: RequestId) -> Result<Option<Vec<u8>>, ReadError> {
    match sim.reply_to(id) {
        ReplyBody::Get(result) => result.map(|found| found.map(|found| sim.value(found.value))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn large_reads_that_wait_are_few_and_small_ones_find_room_among_them() {
    let mut sim = sim(1);
    let held = hold_buffers(&mut sim);
    let large: Vec<_> = (0..KEYS).map(|key| send_get(&mut sim, &[key])).collect();
    let waiting = sim.shard.stats().requests_parked;
    // 20 or 24 KiB each of 128 KiB, the last of them with at least as much left.
    assert!((4..=5).contains(&waiting), "{waiting} wait");
    let small: Vec<_> = (0..3).map(|key| send_get(&mut sim, &[key, 0])).collect();
    assert_eq!(sim.shard.stats().requests_parked, waiting + 3);
    assert_eq!(sim.shard.stats().busy, u64::from(KEYS) - waiting);
    sim.give_back(held);
    for (key, id) in small.into_iter().enumerate() {
        assert_eq!(got(&mut sim, id), Ok(Some(vec![key as u8])));
    }
    for (key, id) in large.into_iter().enumerate() {
        let expected =
            if (key as u64) < waiting { Ok(Some(vec![key as u8; LARGE])) } else { Err(ReadError::Busy) };
        assert_eq!(got(&mut sim, id), expected, "{key}");
    }
    assert_eq!(sim.get(1, &[KEYS - 1]), Ok(Some(vec![KEYS - 1; LARGE])), "there is room again");
}

#[test]
fn the_largest_read_waits_where_nothing_else_does() {
    let mut sim = sim(2);
    sim.config.max_queued_read_bytes = 4096;
    sim.reopen();
    sim.settle();
    let held = hold_buffers(&mut sim);
    let (first, second) = (send_get(&mut sim, &[1]), send_get(&mut sim, &[2]));
    sim.give_back(held);
    assert_eq!(got(&mut sim, first), Ok(Some(vec![1; LARGE])));
    assert_eq!(got(&mut sim, second), Err(ReadError::Busy));
}

#[test]
fn what_nobody_wants_is_not_read() {
    let mut sim = sim(3);
    sim.config.max_queued_read_bytes = 16 << 20;
    sim.reopen();
    sim.settle();
    let held = hold_buffers(&mut sim);
    let before = sim.shard.stats();
    let gone: Vec<_> = (0..KEYS).map(|key| send_get(&mut sim, &[key])).collect();
    let range = KeyRange::default();
    let page = RequestBody::Scan {
        target: target(1),
        range,
        reverse: false,
        limit: 60,
        byte_budget: 1 << 20,
        keys_only: false,
    };
    let gone_scan = send(&mut sim, page.clone());
    let (stays, stays_scan) = (send_get(&mut sim, &[7]), send(&mut sim, page));
    // A write takes place whether or not anybody hears of it.
    let write = RequestBody::Delete { target: target(1), key: &[9, 0], condition: Condition::Always };
    let absent = RequestBody::Put {
        target: target(1),
        key: &[8, 0],
        value: b"no",
        condition: Condition::IfAbsent,
        ttl: Ttl::Table,
    };
    let absent = send(&mut sim, absent);

    sim.unwanted = gone.clone();
    sim.unwanted.extend([gone_scan, absent, RequestId(9_999_999)]);
    sim.step(&mut vec![]);
    let after = sim.shard.stats();
    // Of a scan 32 reads are under way at most, each of records that lie near each other.
    let of_scan = after.reads_given_up - before.reads_given_up - u64::from(KEYS);
    assert!((1..=32).contains(&of_scan), "{of_scan} reads of a scan");
    for id in gone {
        assert_eq!(got(&mut sim, id), Err(ReadError::Busy));
    }
    assert!(matches!(sim.reply_to(gone_scan), ReplyBody::Scan(Err(ReadError::Busy))));
    sim.give_back(held);
    assert_eq!(got(&mut sim, stays), Ok(Some(vec![7; LARGE])));
    let ReplyBody::Scan(Ok(page)) = sim.reply_to(stays_scan) else { panic!("a page") };
    assert!(matches!(sim.reply_to(absent), ReplyBody::Write(Err(_))), "its condition was looked at");
    sim.settle();
    let reads = sim.shard.stats().device_reads - before.device_reads;
    // One for the get, one for the condition, and the page's: fewer than it has records, for some lie near each other.
    assert!((3..2 + page.records.len() as u64).contains(&reads), "{reads} for {}", page.records.len());

    // No segment stays pinned: what is overwritten for long is cleaned and used again.
    let id = send(&mut sim, write);
    assert!(matches!(sim.reply_to(id), ReplyBody::Write(Ok(_))));
    for turn in 0..600u32 {
        sim.put(1, &[(turn % 40) as u8], &vec![turn as u8; LARGE]).expect("space comes back");
    }
}
