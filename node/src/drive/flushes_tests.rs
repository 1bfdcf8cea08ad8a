//! One shard's flush, and what those of others make of it. Apart from it, for loom takes the file itself.

use std::sync::Arc;

use lode_engine::{DeviceError, ShardId, Token};

use super::flushes::{Flushes, ShardFlushes};

const TOKEN: Token = Token(7);
const FAILED: Result<(), DeviceError> = Err(DeviceError { os_error: 5 });

fn two() -> (ShardFlushes, ShardFlushes) {
    let all = Arc::new(Flushes::new(2));
    (ShardFlushes::new(Arc::clone(&all), ShardId(0)), ShardFlushes::new(all, ShardId(1)))
}

fn flush(shard: &mut ShardFlushes, result: Result<(), DeviceError>) -> Option<Result<(), DeviceError>> {
    shard.begin(TOKEN);
    assert!(shard.is_under_way(TOKEN) && !shard.waits() && shard.settle().is_none());
    shard.ended(result);
    shard.settle().map(|(token, result)| {
        assert_eq!((token, shard.waits()), (TOKEN, false));
        result
    })
}

#[test]
fn one_that_is_alone_is_what_the_drive_says() {
    let (mut shard, _) = two();
    assert_eq!(flush(&mut shard, Ok(())), Some(Ok(())));
    assert_eq!(flush(&mut shard, FAILED), Some(FAILED));
    assert_eq!(flush(&mut shard, Ok(())), Some(Ok(())), "what is written after it is another matter");
}

#[test]
fn one_that_fails_is_one_that_failed_for_the_others_too_once() {
    let (mut shard, mut other) = two();
    assert_eq!(flush(&mut other, FAILED), Some(FAILED));
    assert_eq!(flush(&mut shard, Ok(())), Some(FAILED));
    assert_eq!(flush(&mut shard, Ok(())), Some(Ok(())));
    assert_eq!(flush(&mut other, Ok(())), Some(Ok(())));
}

#[test]
fn what_was_under_way_beside_it_is_waited_for() {
    for result in [Ok(()), FAILED] {
        let (mut shard, mut other) = two();
        other.begin(TOKEN);
        assert_eq!(flush(&mut shard, Ok(())), None);
        assert!(shard.waits() && shard.settle().is_none());
        other.ended(result);
        assert_eq!(shard.settle(), Some((TOKEN, result)), "the other need not have settled");
        assert_eq!(other.settle(), Some((TOKEN, result)));
    }
}

#[test]
fn what_begins_later_is_not_waited_for() {
    let (mut shard, mut other) = two();
    other.begin(TOKEN);
    assert_eq!(flush(&mut shard, Ok(())), None);
    other.ended(Ok(()));
    assert_eq!(other.settle(), Some((TOKEN, Ok(()))));
    other.begin(TOKEN);
    assert_eq!(shard.settle(), Some((TOKEN, Ok(()))));
}

#[test]
fn two_that_end_together_do_not_wait_for_each_other() {
    let (mut shard, mut other) = two();
    shard.begin(TOKEN);
    other.begin(TOKEN);
    shard.ended(Ok(()));
    other.ended(FAILED);
    assert_eq!(other.settle(), Some((TOKEN, FAILED)));
    assert_eq!(shard.settle(), Some((TOKEN, FAILED)));
}
