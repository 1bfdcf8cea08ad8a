use lode_net::wire::Seq;

use super::super::work::{Ask, End, RegisterWrite, When};
use super::*;

const KEY: &[u8] = b"k";

fn put() -> Ask {
    Ask::Put {
        write: RegisterWrite { key: KEY.to_vec(), value_bytes: Some(20), ttl_ms: None },
        when: When::Always,
    }
}

fn written(existed: bool) -> End {
    End::Written { seq: Seq::default(), existed }
}

fn told(history: &History) -> Vec<String> {
    check_all(history, &[KEY.to_vec()], &|_| None, false)
}

#[test]
fn what_was_acknowledged_is_read_and_nothing_older() {
    let mut history = History::default();
    let first = history.call(put(), 0);
    history.end(first, written(false));
    let second = history.call(put(), 0);
    history.end(second, written(true));
    let read = history.call(Ask::Get { key: KEY.to_vec() }, 0);
    history.end(read, End::Found(Some(second)));
    assert_eq!(told(&history), Vec::<String>::new());
    let read = history.call(Ask::Get { key: KEY.to_vec() }, 0);
    history.end(read, End::Found(Some(first)));
    assert_eq!(told(&history).len(), 1);
}

#[test]
fn a_lost_write_may_be_there_or_not_but_does_not_come_back_after_a_crash() {
    let mut history = History::default();
    let lost = history.call(put(), 0);
    history.end(lost, End::Unknown);
    history.crashed();
    let read = |history: &mut History, found| {
        let read = history.call(Ask::Get { key: KEY.to_vec() }, 0);
        history.end(read, End::Found(found));
    };
    read(&mut history, None);
    assert!(told(&history).is_empty());
    read(&mut history, Some(lost));
    assert_eq!(told(&history).len(), 1, "it was not there after the crash");
}

/// Seed 9010575 of the simulator: a table that was made three times, and nobody was told.
#[test]
fn many_unknown_writes_explain_more_than_two_answers() {
    let mut history = History::default();
    let delete = || Ask::Delete { key: KEY.to_vec(), over: None };
    for _ in 0..3 {
        for _ in 0..3 {
            let write = RegisterWrite { key: KEY.to_vec(), value_bytes: Some(20), ttl_ms: None };
            let lost = history.call(Ask::Put { write, when: When::Absent }, 0);
            history.end(lost, End::Unknown);
            history.crashed();
        }
        let gone = history.call(delete(), 0);
        history.end(gone, written(true));
    }
    assert_eq!(told(&history), Vec::<String>::new());
    let gone = history.call(delete(), 0);
    history.end(gone, written(true));
    assert_eq!(told(&history).len(), 1, "nobody has written it since");
}

#[test]
fn unknown_writes_explain_what_conditions_met() {
    let mut history = History::default();
    let first = history.call(put(), 0);
    history.end(first, written(false));
    let lost = history.call(Ask::Delete { key: KEY.to_vec(), over: None }, 0);
    history.end(lost, End::Unknown);
    let again = history.call(put(), 0);
    history.end(again, written(false));
    assert!(told(&history).is_empty(), "the delete was done");
    let another = history.call(put(), 0);
    history.end(another, written(false));
    assert_eq!(told(&history).len(), 1, "it was done once");
}

#[test]
fn a_delete_of_one_value_leaves_others_alone() {
    for (end, found, wrong) in [
        (written(true), None, 0),
        (written(true), Some(2), 1),
        (End::ConditionFailed, Some(2), 1),
        (End::Unknown, Some(2), 0),
        (End::Unknown, None, 0),
    ] {
        let mut history = History::default();
        for _ in 0..2 {
            let put = history.call(put(), 0);
            history.end(put, written(put.0 > 1));
        }
        let over = Some((OpId(2), Seq::default()));
        let delete = history.call(Ask::Delete { key: KEY.to_vec(), over }, 0);
        history.end(delete, end.clone());
        let read = history.call(Ask::Get { key: KEY.to_vec() }, 0);
        history.end(read, End::Found(found.map(OpId)));
        assert_eq!(told(&history).len(), wrong, "{end:?}, {found:?}");
    }
}

#[test]
fn a_record_that_was_renewed_is_there_for_longer() {
    for (end, wall_ms, found, wrong) in [
        (End::Renewed { existed: true }, 5_000, true, 0),
        (End::Renewed { existed: true }, 5_000, false, 1),
        (End::Renewed { existed: true }, 20_000, true, 1),
        (End::Renewed { existed: false }, 1_050, true, 1),
        (End::Unknown, 5_000, true, 0),
        (End::Unknown, 5_000, false, 0),
    ] {
        let mut history = History::default();
        history.wall(1_000);
        let write = RegisterWrite { key: KEY.to_vec(), value_bytes: Some(20), ttl_ms: Some(100) };
        let put = history.call(Ask::Put { write, when: When::Always }, 0);
        history.end(put, written(false));
        let renewed = history.call(Ask::Expire { key: KEY.to_vec(), ttl_ms: 9_000 }, 0);
        history.end(renewed, end.clone());
        history.wall(wall_ms);
        let read = history.call(Ask::Get { key: KEY.to_vec() }, 0);
        history.end(read, End::Found(found.then_some(put)));
        assert_eq!(told(&history).len(), wrong, "{end:?} at {wall_ms}: {found}");
    }
}

#[test]
fn a_batch_is_done_everywhere_or_nowhere() {
    let keys = [b"a".to_vec(), b"b".to_vec()];
    let write = |key: &Vec<u8>| RegisterWrite { key: key.clone(), value_bytes: Some(20), ttl_ms: None };
    let mut history = History::default();
    let batch = history.call(Ask::Batch { writes: keys.iter().map(write).collect() }, 0);
    history.end(batch, End::Unknown);
    history.crashed();
    for (key, found) in keys.iter().zip([Some(batch), None]) {
        let read = history.call(Ask::Get { key: key.clone() }, 0);
        history.end(read, End::Found(found));
    }
    assert_eq!(check_all(&history, &keys, &|_| None, false).len(), 1);
}

#[test]
fn a_page_tells_of_what_is_not_in_it() {
    let keys = [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
    let mut history = History::default();
    let ask = Ask::Put {
        write: RegisterWrite { key: b"b".to_vec(), value_bytes: Some(20), ttl_ms: None },
        when: When::Always,
    };
    let first = history.call(ask, 0);
    history.end(first, written(false));
    let mut scan = |page: Vec<(Vec<u8>, OpId)>, more| {
        let (first, beyond) = (b"a".to_vec(), b"z".to_vec());
        let scan = history.call(Ask::Scan { first, beyond, limit: 9, reverse: false, ttls: false }, 0);
        history.end(scan, End::Page(page, more));
        check_all(&history, &keys, &|_| None, false).len()
    };
    assert_eq!(scan(vec![(b"b".to_vec(), first)], false), 0);
    assert_eq!(scan(vec![], false), 1);
}

#[test]
fn a_record_is_there_until_it_may_be_over_and_gone_when_it_must_be() {
    let read_at = |wall_ms: u64, found: bool| {
        let mut history = History::default();
        history.wall(1_000);
        let write = RegisterWrite { key: KEY.to_vec(), value_bytes: Some(20), ttl_ms: Some(100) };
        let put = history.call(Ask::Put { write, when: When::Always }, 0);
        history.wall(1_010);
        history.end(put, written(false));
        history.wall(wall_ms);
        let read = history.call(Ask::Get { key: KEY.to_vec() }, 0);
        history.end(read, End::Found(found.then_some(put)));
        told(&history).is_empty()
    };
    assert!(read_at(1_099, true) && !read_at(1_099, false), "it lives for 100 ms");
    assert!(read_at(1_105, true) && read_at(1_105, false), "it was put between 1,000 and 1,010");
    assert!(!read_at(1_111, true) && read_at(1_111, false), "it is over");
}

#[test]
fn what_is_in_memory_is_gone_with_the_life_of_the_node() {
    let key = b"m00/k".to_vec();
    let mut history = History::default();
    let write = RegisterWrite { key: key.clone(), value_bytes: Some(20), ttl_ms: None };
    let put = history.call(Ask::Put { write, when: When::Always }, 0);
    history.end(put, written(false));
    history.crashed();
    for (found, wrong) in [(None, 0), (Some(put), 1)] {
        let read = history.call(Ask::Get { key: key.clone() }, 0);
        history.end(read, End::Found(found));
        assert_eq!(check_all(&history, std::slice::from_ref(&key), &|_| None, false).len(), wrong);
    }
}

#[test]
fn what_a_record_has_left_follows_from_when_it_was_written() {
    for (ttl_ms, left_ms, wrong) in [
        (Some(100), 60, 0),
        (Some(100), 50, 0),
        (Some(100), 49, 1),
        (Some(100), 61, 1),
        (Some(100), 0, 1),
        (None, 0, 0),
        (None, 5, 1),
    ] {
        let mut history = History::default();
        history.wall(1_000);
        let write = RegisterWrite { key: KEY.to_vec(), value_bytes: Some(20), ttl_ms };
        let put = history.call(Ask::Put { write, when: When::Always }, 0);
        history.wall(1_009);
        history.end(put, written(false));
        history.wall(1_050);
        let read = history.call(Ask::TimeToLive { key: KEY.to_vec() }, 0);
        history.saw_left(read, KEY, left_ms);
        history.end(read, End::Lives);
        assert_eq!(told(&history).len(), wrong, "{left_ms} ms of {ttl_ms:?}");
    }
}

#[test]
fn what_was_renewed_has_the_new_time_left() {
    for (left_ms, wrong) in [(100, 1), (500, 0)] {
        let mut history = History::default();
        history.wall(1_000);
        let write = RegisterWrite { key: KEY.to_vec(), value_bytes: Some(20), ttl_ms: Some(100) };
        let put = history.call(Ask::Put { write, when: When::Always }, 0);
        history.end(put, written(false));
        let renewed = history.call(Ask::Expire { key: KEY.to_vec(), ttl_ms: 500 }, 0);
        history.end(renewed, End::Renewed { existed: true });
        let read = history.call(Ask::Get { key: KEY.to_vec() }, 0);
        history.saw_left(read, KEY, left_ms);
        history.end(read, End::Found(Some(put)));
        assert_eq!(told(&history).len(), wrong, "{left_ms} ms");
    }
}

#[test]
fn a_count_is_of_what_is_there() {
    let keys = [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
    let put = |history: &mut History, key: &[u8], end| {
        let write = RegisterWrite { key: key.to_vec(), value_bytes: Some(20), ttl_ms: None };
        let put = history.call(Ask::Put { write, when: When::Always }, 0);
        history.end(put, end);
    };
    // One that is there, one that was deleted, and one of which nobody knows.
    for (counted, wrong) in [(0, 1), (1, 0), (2, 0), (3, 1)] {
        let mut history = History::default();
        put(&mut history, &keys[0], written(false));
        put(&mut history, &keys[1], written(false));
        let delete = history.call(Ask::Delete { key: keys[1].clone(), over: None }, 0);
        history.end(delete, written(true));
        put(&mut history, &keys[2], End::Unknown);
        let count = history.call(Ask::Count { first: b"a".to_vec(), beyond: b"z".to_vec() }, 0);
        history.end(count, End::Counted(counted));
        assert_eq!(check_all(&history, &keys, &|_| None, false).len(), wrong, "{counted}");
    }
}

#[test]
fn what_is_written_meanwhile_may_be_counted() {
    for (counted, wrong) in [(0, 0), (1, 0), (2, 1)] {
        let mut history = History::default();
        let write = history.call(put(), 0);
        let count = history.call(Ask::Count { first: b"a".to_vec(), beyond: b"z".to_vec() }, 0);
        history.end(count, End::Counted(counted));
        history.end(write, written(false));
        assert_eq!(told(&history).len(), wrong, "{counted}");
    }
}
