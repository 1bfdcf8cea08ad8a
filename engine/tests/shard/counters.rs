//! Atomic increments: what they read, what they write, and how few operations of the drive they take.

use crate::support::Sim;
use crate::support::ask::target;
use lode_engine::{Change, Condition, Geometry, ReplyBody, Request, RequestBody, StoreKind, Ttl, WriteError};

fn sim(seed: u64, cache_bytes: u64) -> Sim {
    let geometry = Geometry::plan(6 << 20, 1, Some(128 << 10), 20_000).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| config.cache_bytes = cache_bytes);
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    sim.create(2, StoreKind::Memory, &[2]).expect("the drive is empty");
    sim
}

#[test]
fn a_counter_begins_at_its_initial_number_and_is_decimal_text() {
    let mut sim = sim(1, 0);
    for partition in [1, 2] {
        assert_eq!(sim.increment(partition, b"hits", 5), Ok(Some(5)));
        assert_eq!(sim.increment(partition, b"hits", -7), Ok(Some(-2)));
        assert_eq!(sim.get(partition, b"hits"), Ok(Some(b"-2".to_vec())));
        let change = Change::Increment { by: 1, initial: 41 };
        let body = |key| RequestBody::Modify { target: target(partition), key, change };
        let began = sim.write(body(b"from")).unwrap();
        assert_eq!((began.number, began.existed), (Some(42), false));
        let went_on = sim.write(body(b"from")).unwrap();
        assert_eq!((went_on.number, went_on.existed), (Some(43), true));
        assert!(went_on.seq > began.seq);
        sim.put(partition, b"set", b"100").unwrap();
        assert_eq!(sim.increment(partition, b"set", 1), Ok(Some(101)));
        sim.delete(partition, b"set").unwrap();
        assert_eq!(sim.increment(partition, b"set", 1), Ok(Some(1)));
    }
    sim.reopen();
    assert_eq!(sim.increment(1, b"hits", 0), Ok(Some(-2)));
    assert_eq!(sim.increment(2, b"hits", 0), Ok(Some(0)));
}

#[test]
fn what_is_no_number_and_what_does_not_fit_stay_as_they_are() {
    let mut sim = sim(2, 1 << 20);
    for partition in [1, 2] {
        for text in ["", "a", "1.5", " 1", "9223372036854775808"] {
            sim.put(partition, b"k", text.as_bytes()).unwrap();
            assert_eq!(sim.increment(partition, b"k", 1), Err(WriteError::NotANumber), "{text:?}");
            assert_eq!(sim.get(partition, b"k"), Ok(Some(text.as_bytes().to_vec())));
        }
        for (present, by) in [(i64::MAX, 1), (i64::MIN, -1), (-2, i64::MIN)] {
            sim.put(partition, b"k", present.to_string().as_bytes()).unwrap();
            let refused = Err(WriteError::NumberOverflow { present, by });
            assert_eq!(sim.increment(partition, b"k", by), refused);
            assert_eq!(sim.get(partition, b"k"), Ok(Some(present.to_string().into_bytes())));
            assert_eq!(sim.increment(partition, b"k", 0), Ok(Some(present)));
        }
        assert_eq!(sim.increment(partition, b"", 1), Err(WriteError::KeyLength { len: 0 }));
        let long = vec![1; 4097];
        assert_eq!(sim.increment(partition, &long, 1), Err(WriteError::KeyLength { len: 4097 }));
    }
}

/// All increments and puts of one step; their answers in order.
fn together(sim: &mut Sim, bodies: Vec<RequestBody<'_>>) -> Vec<Result<lode_engine::Written, WriteError>> {
    let mut requests = Vec::new();
    let mut ids = Vec::new();
    for body in bodies {
        let id = sim.next_id();
        ids.push(id);
        requests.push(Request { id, body });
    }
    sim.step(&mut requests);
    let answer = |id| match sim.reply_to(id) {
        ReplyBody::Write(result) => result,
        other => panic!("{other:?}"),
    };
    ids.into_iter().map(answer).collect()
}

fn add(by: i64) -> RequestBody<'static> {
    RequestBody::Modify { target: target(1), key: b"hot", change: Change::Increment { by, initial: 0 } }
}

#[test]
fn many_increments_of_one_counter_share_a_read_and_a_write() {
    let mut sim = sim(3, 0);
    sim.increment(1, b"hot", 1).unwrap();
    sim.reopen();
    sim.put(1, b"other", b"opens a segment").unwrap();
    let before = sim.shard.stats();
    let answers = together(&mut sim, (0..500).map(|_| add(1)).collect());
    let numbers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().number).collect();
    assert_eq!(numbers, (2..502).map(Some).collect::<Vec<_>>());
    let after = sim.shard.stats();
    assert_eq!(after.device_reads - before.device_reads, 1);
    assert_eq!(after.user_frame_writes - before.user_frame_writes, 1);
    assert_eq!(after.increments - before.increments, 500);
}

#[test]
fn a_counter_in_use_is_not_read_from_the_drive() {
    let mut sim = sim(4, 1 << 20);
    for i in 1..50 {
        assert_eq!(sim.increment(1, b"hot", 1), Ok(Some(i)));
    }
    assert_eq!(sim.shard.stats().device_reads, 0);
}

#[test]
fn increments_see_the_writes_that_came_before_them() {
    // A write that does not depend on the present record does not wait for its read, so an increment that
    // has to read may be overtaken. A counter in use is not read.
    for seed in 5..25 {
        let mut sim = sim(seed, 1 << 20);
        let (target, condition) = (target(1), Condition::Always);
        let put = |value| RequestBody::Put { target, key: b"hot", value, condition, ttl: Ttl::Table };
        let delete = RequestBody::Delete { target, key: b"hot", condition };
        let bodies = vec![add(1), add(1), put(b"10"), add(1)];
        let answers = together(&mut sim, bodies);
        let numbers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().number).collect();
        assert_eq!(numbers, [Some(1), Some(2), None, Some(11)]);
        let answers = together(&mut sim, vec![add(1), put(b"x"), add(1)]);
        assert_eq!(answers[0].as_ref().unwrap().number, Some(12));
        assert_eq!(answers[2], Err(WriteError::NotANumber));
        let answers = together(&mut sim, vec![put(b"5"), delete, add(1), add(1)]);
        let numbers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().number).collect();
        assert_eq!(numbers, [None, None, Some(1), Some(2)]);
        assert_eq!(sim.get(1, b"hot"), Ok(Some(b"2".to_vec())));
    }
}
