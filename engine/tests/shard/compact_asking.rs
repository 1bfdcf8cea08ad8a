//! Requests to a compact index that wait for keys to be read end: when those were read, and when nobody wants them.

use crate::support::Sim;
use crate::support::ask::{hold_buffers, send, target, use_index};
use lode_engine::{
    BatchWrite, Condition, Geometry, IndexKind, KeyRange, ReadError, ReplyBody, RequestBody, RequestId,
    StoreKind, TimeLeft, Ttl, WriteError,
};

/// Tied for 60 bytes.
fn tied(i: u32) -> Vec<u8> {
    [&[b'm'; 60][..], &i.to_be_bytes()].concat()
}

/// A compact index with tied keys, and nothing known of them.
fn sim(seed: u64) -> Sim {
    use_index(IndexKind::Compact);
    let geometry = Geometry::plan(16 << 20, 1, Some(128 << 10), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| config.cache_bytes = 0);
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    let random = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(2);
    // So many that leaves are full, and become compact.
    for i in 0..4u64 {
        let keys: Vec<Vec<u8>> = (1..=1000).map(|n| random(1000 * i + n)).collect();
        let writes = keys.iter().map(|key| BatchWrite::Put { key, value: b"v" }).collect();
        sim.batch(1, writes).expect("there is room");
        sim.settle();
    }
    for i in 0..4 {
        sim.put(1, &tied(2 * i), b"v").expect("there is room");
    }
    sim.checkpoint().expect("there is room");
    sim.reopen();
    assert_eq!(sim.count(1), Ok(4004));
    sim.settle();
    sim
}

fn has_reply(sim: &Sim, id: RequestId) -> bool {
    sim.replies.iter().any(|reply| reply.id == id)
}

/// Requests of each kind that wait for keys.
fn asks(sim: &mut Sim, i: u32) -> [RequestId; 2] {
    let (start, key) = (tied(2 * i + 1), tied(2 * i));
    let range = KeyRange { start: &start, end: None };
    [
        send(sim, RequestBody::Count { target: target(1), range }),
        send(sim, RequestBody::TimeToLive { target: target(1), key: &key }),
    ]
}

fn is_busy(body: &ReplyBody) -> bool {
    matches!(body, ReplyBody::Count(Err(ReadError::Busy)) | ReplyBody::TimeToLive(Err(ReadError::Busy)))
}

#[test]
fn what_waits_for_keys_and_nobody_wants_is_given_up_and_not_read() {
    for seed in 1..20 {
        let mut sim = sim(seed);
        let held = hold_buffers(&mut sim);
        let before = sim.shard.stats();
        let gone: Vec<_> = (0..3).flat_map(|i| asks(&mut sim, i)).collect();
        assert!(gone.iter().all(|id| !has_reply(&sim, *id)), "all wait for keys");
        assert!(sim.shard.stats().requests_parked > 0, "reads wait for buffers");
        sim.unwanted = gone.clone();
        sim.step(&mut vec![]);
        for id in &gone {
            assert!(has_reply(&sim, *id), "answered at once");
            assert!(is_busy(&sim.reply_to(*id)));
        }
        assert_eq!(sim.shard.stats().reads_given_up - before.reads_given_up, 6);
        assert_eq!(sim.shard.stats().requests_parked, 0, "nothing is read for nobody");
        sim.give_back(held);
        sim.settle();
        assert_eq!(sim.shard.stats().device_reads, before.device_reads);
        assert_eq!(sim.count(1), Ok(4004), "who asks then is answered");
    }
}

#[test]
fn who_waits_for_the_same_keys_goes_on_waiting_and_so_does_a_write() {
    for seed in 1..20 {
        let mut sim = sim(seed);
        let held = hold_buffers(&mut sim);
        let gone = asks(&mut sim, 1);
        let stays = asks(&mut sim, 1);
        let (key, value) = (tied(3), b"v");
        let put = RequestBody::Put {
            target: target(1),
            key: &key,
            value,
            condition: Condition::Always,
            ttl: Ttl::Table,
        };
        let write = send(&mut sim, put);
        (0..seed).for_each(|_| sim.step(&mut vec![]));
        sim.unwanted = gone.to_vec();
        sim.step(&mut vec![]);
        assert!(gone.iter().all(|id| has_reply(&sim, *id)) && stays.iter().all(|id| !has_reply(&sim, *id)));
        sim.give_back(held);
        let ReplyBody::Count(Ok(count)) = sim.reply_to(stays[0]) else { panic!("a count") };
        assert!((2..=4004).contains(&count));
        assert!(matches!(sim.reply_to(stays[1]), ReplyBody::TimeToLive(Ok(Some(_)))));
        assert!(matches!(sim.reply_to(write), ReplyBody::Write(Ok(_))));
        assert_eq!(sim.count(1), Ok(4005));
    }
}

/// Neither a log that is closed nor a partition that goes leaves anybody waiting.
#[test]
fn what_waits_for_keys_is_answered_though_the_log_is_closed_or_the_table_dropped() {
    for seed in 1..20 {
        let mut sim = sim(seed);
        let held = hold_buffers(&mut sim);
        let waiting = asks(&mut sim, 1);
        if seed % 2 == 0 {
            sim.drive.fail_writes = Some(5);
            let put = RequestBody::Put {
                target: target(1),
                key: b"other",
                value: b"v",
                condition: Condition::Always,
                ttl: Ttl::Table,
            };
            let write = send(&mut sim, put);
            sim.give_back(held);
            assert!(matches!(sim.reply_to(write), ReplyBody::Write(Err(_))));
        } else {
            let drop = send(&mut sim, RequestBody::DropTable { table: lode_engine::TableId(1) });
            sim.give_back(held);
            assert!(matches!(sim.reply_to(drop), ReplyBody::Catalog(Ok(()))));
        }
        waiting.iter().for_each(|id| drop(sim.reply_to(*id)));
        sim.settle();
        assert_eq!(sim.buffers.in_use(), 0, "every buffer comes back");
    }
}

/// From now on, the blocks of the drive that hold the key cannot be read.
fn make_unreadable(sim: &mut Sim, key: &[u8]) {
    let holds_it = sim.drive.now.windows(key.len()).enumerate().filter(|(_, bytes)| *bytes == key);
    let blocks: Vec<usize> = holds_it.map(|(at, _)| at / 4096).collect();
    sim.drive.unreadable.extend(blocks);
}

fn damage(sim: &mut Sim, key: &[u8]) {
    let holds_it = sim.drive.now.windows(key.len()).enumerate().filter(|(_, bytes)| *bytes == key);
    let places: Vec<usize> = holds_it.map(|(at, _)| at).collect();
    places.into_iter().for_each(|at| sim.drive.flip(at));
}

fn count_one(sim: &mut Sim, key: &[u8]) {
    let behind = [key, &[0]].concat();
    let range = KeyRange { start: key, end: Some(&behind) };
    let id = send(sim, RequestBody::Count { target: target(1), range });
    assert!(matches!(sim.reply_to(id), ReplyBody::Count(Ok(1..))));
}

/// Found by the simulator (seed 9006278): where the sixth read was the one that was refused, the log was closed.
#[test]
fn a_damaged_record_whose_read_is_refused_once_closes_no_log() {
    for spared in 0..6 {
        let mut sim = sim(20 + u64::from(spared));
        let key = tied(2);
        make_unreadable(&mut sim, &key);
        damage(&mut sim, &key);
        sim.drive.unreadable_os_error = 110;
        (sim.drive.unreadable_spared, sim.drive.unreadable_times) = (spared, Some(1));
        count_one(&mut sim, &key);
        assert_eq!(sim.shard.stats().poisoned, 0, "no write has failed, {spared} spared");
        sim.put(1, b"other", b"v").expect("there is room");
    }
}

/// The drive may give it later: what would be written past it does not hold.
#[test]
fn a_record_that_the_drive_refuses_for_good_closes_the_log_though_one_read_was_damaged() {
    for damaged in [0, 1] {
        let mut sim = sim(30 + u64::from(damaged));
        let key = tied(2);
        make_unreadable(&mut sim, &key);
        if damaged > 0 {
            damage(&mut sim, &key);
        }
        (sim.drive.unreadable_spared, sim.drive.unreadable_os_error) = (damaged, 110);
        count_one(&mut sim, &key);
        assert_eq!(sim.put(1, b"other", b"v").map(drop), Err(WriteError::Poisoned));
    }
}

/// Found by the simulator (seeds 111, 147 and 211): it was said not to be there.
#[test]
fn how_long_a_record_lives_whose_key_cannot_be_read_is_not_told_as_absence() {
    let mut sim = sim(9);
    let key = tied(2);
    make_unreadable(&mut sim, &key);
    for _ in 0..3 {
        let told = sim.time_left(1, &key);
        assert!(matches!(told, Err(ReadError::Corrupt { .. })), "{told:?}");
    }
    sim.drive.unreadable.clear();
    assert_eq!(sim.time_left(1, &key), Ok(Some(TimeLeft::Forever)));
    assert_eq!(sim.time_left(1, &tied(3)), Ok(None), "what is not there is told as that");
}

#[test]
fn a_key_that_cannot_be_read_counts_wherever_it_may_be() {
    let mut sim = sim(10);
    let key = tied(2);
    let (behind, above) = ([&key[..], &[0]].concat(), tied(3));
    make_unreadable(&mut sim, &key);
    for (start, end, least) in [(&key, &behind, 1), (&tied(0), &behind, 2), (&key, &above, 1)] {
        let range = KeyRange { start, end: Some(end) };
        let id = send(&mut sim, RequestBody::Count { target: target(1), range });
        let ReplyBody::Count(Ok(count)) = sim.reply_to(id) else { panic!("a count") };
        assert!((least..=least + 1).contains(&count), "{count} of at least {least}");
    }
}

#[test]
fn a_delete_of_a_key_that_cannot_be_read_holds_when_another_start_can() {
    let mut sim = sim(11);
    let key = tied(2);
    make_unreadable(&mut sim, &key);
    // Who counts finds out that the key cannot be read.
    let id =
        send(&mut sim, RequestBody::Count { target: target(1), range: KeyRange { start: &key, end: None } });
    assert!(matches!(sim.reply_to(id), ReplyBody::Count(Ok(_))));
    let told = sim.delete(1, &key);
    assert!(matches!(told, Err(WriteError::MayReturn { .. })), "written, and no more is promised: {told:?}");
    sim.drive.unreadable.clear();
    sim.reopen();
    assert_eq!(sim.get(1, &key), Ok(None));
    assert_eq!(sim.time_left(1, &tied(4)), Ok(Some(TimeLeft::Forever)), "others stay");
}

/// Once it was acknowledged, and when the drive read the record again, it was there again.
#[test]
fn whoever_deletes_what_may_come_back_is_told_so_also_in_batches_and_transactions() {
    for written_anew in [false, true] {
        let mut sim = sim(13);
        let (key, other) = (tied(2), tied(6));
        make_unreadable(&mut sim, &key);
        if written_anew {
            sim.put(1, &key, b"new").expect("there is room");
        }
        let may_return = |told: Result<_, WriteError>| matches!(told, Err(WriteError::MayReturn { .. }));
        assert!(may_return(sim.delete(1, &key).map(drop)));
        let batch = vec![BatchWrite::Put { key: b"beside", value: b"v" }, BatchWrite::Delete { key: &key }];
        assert!(may_return(sim.batch(1, batch).map(drop)), "not the first of its writes");
        assert_eq!(sim.get(1, b"beside"), Ok(Some(b"v".to_vec())), "the rest took place");
        let transaction = sim.begin(1, false).expect("one can be had");
        assert!(may_return(sim.commit(1, transaction, vec![BatchWrite::Delete { key: &key }]).map(drop)));
        // Others are deleted for good, and puts hold.
        let elsewhere = 0x9e37_79b9_7f4a_7c15u64.to_be_bytes().repeat(2);
        assert!(sim.delete(1, &elsewhere).expect("nothing is damaged there").existed);
        sim.put(1, &other, b"new").expect("there is room");
        sim.put(1, &key, b"newer").expect("there is room");
        sim.checkpoint().expect("there is room");
        sim.drive.unreadable.clear();
        sim.reopen();
        assert_eq!(sim.get(1, &key), Ok(Some(b"newer".to_vec())));
        assert_eq!(sim.get(1, &other), Ok(Some(b"new".to_vec())));
    }
}

/// Once the delete looked no further than the newer record that it found.
#[test]
fn whoever_deletes_what_was_written_anew_is_told_also_when_the_damage_was_looked_at_again_since() {
    for (gets, opens) in [(0, false), (1, false), (3, false), (0, true), (2, true)] {
        let mut sim = sim(14);
        let (key, tied_with_it) = (tied(2), tied(3));
        make_unreadable(&mut sim, &key);
        sim.put(1, &key, b"new").expect("there is room");
        if opens {
            sim.reopen();
        }
        for _ in 0..gets {
            assert_eq!(sim.get(1, &key), Ok(Some(b"new".to_vec())));
        }
        let told = sim.get(1, &tied_with_it);
        assert!(matches!(told, Err(ReadError::Corrupt { .. })), "{told:?}");
        let told = sim.delete(1, &key);
        assert!(matches!(told, Err(WriteError::MayReturn { .. })), "{gets} {opens}: {told:?}");
    }
}

/// Once it was told that the key had not been there.
#[test]
fn a_transaction_is_told_of_damage_also_when_another_has_overwritten_what_was_damaged() {
    for deletes in [false, true] {
        let mut sim = sim(12);
        let key = tied(2);
        let transaction = sim.begin(1, true).expect("one can be had");
        make_unreadable(&mut sim, &key);
        for overwritten in [false, true] {
            let told = sim.get_in(1, transaction, &key);
            assert!(matches!(told, Err(ReadError::Corrupt { .. })), "{told:?} overwritten: {overwritten}");
            match deletes {
                true => assert!(matches!(sim.delete(1, &key), Err(WriteError::MayReturn { .. }))),
                false => drop(sim.put(1, &key, b"new").expect("there is room")),
            }
            sim.settle();
        }
        sim.rollback(1, transaction);
        sim.drive.unreadable.clear();
        let after = sim.begin(1, true).expect("one can be had");
        if !deletes {
            let told = sim.get_in(1, after, &key);
            assert_eq!(told, Ok(Some(b"new".to_vec())), "whoever begins later sees what was written");
        }
    }
}
