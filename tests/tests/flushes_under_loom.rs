//! Shards that flush the one drive that they share, and flushes that fail: every order of their steps, and every value that the
//! memory model lets a load give, tried by loom. What a shard's flush says is durable was not lost by another's. The file is the
//! node's own; the drive's cache is modelled.

/// What flushes are made of, under loom.
mod parts {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}
#[path = "../../node/src/drive/flushes.rs"]
mod flushes;

use std::sync::Arc;

use lode_engine::{DeviceError, ShardId, Token};
use loom::sync::Mutex;
use loom::thread;

use flushes::{Flushes, ShardFlushes};

/// A drive with a volatile cache: whose writes lie in it, and whose were lost from it.
#[derive(Debug, Default)]
struct Cache {
    dirty: [bool; 2],
    lost: [bool; 2],
}

impl Cache {
    /// A flush makes all durable, or loses all.
    fn flush(&mut self, fails: bool) -> Result<(), DeviceError> {
        let dirty = std::mem::take(&mut self.dirty);
        if !fails {
            return Ok(());
        }
        for (lost, dirty) in self.lost.iter_mut().zip(dirty) {
            *lost |= dirty;
        }
        Err(DeviceError { os_error: 5 })
    }
}

/// As a reactor does: writes, flushes, and looks until it is told what came of it.
fn flush(flushes: &mut ShardFlushes, shard: usize, cache: &Mutex<Cache>, fails: bool) -> bool {
    let cache = || cache.lock().expect("nobody panics");
    cache().dirty[shard] = true;
    flushes.begin(Token(1));
    assert!(flushes.is_under_way(Token(1)));
    let result = cache().flush(fails);
    flushes.ended(result);
    assert!(flushes.waits());
    loop {
        if let Some((_, result)) = flushes.settle() {
            let is_durable = !cache().lost[shard];
            assert!(result.is_err() || is_durable, "it is said to be durable, and was lost");
            return result.is_ok();
        }
        thread::yield_now();
    }
}

/// One shard flushes once, as `fails` says; another flushes once, and it does not fail.
fn beside(fails: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let all = Arc::new(Flushes::new(2));
        let cache = Arc::new(Mutex::new(Cache::default()));
        let mut other = ShardFlushes::new(Arc::clone(&all), ShardId(1));
        let of_other = Arc::clone(&cache);
        let thread = thread::spawn(move || flush(&mut other, 1, &of_other, fails));
        let mut own = ShardFlushes::new(all, ShardId(0));
        let is_ok = flush(&mut own, 0, &cache, false);
        let other_is_ok = thread.join().expect("it ends");
        assert_eq!(other_is_ok, !fails);
        assert!(is_ok || fails, "nothing has failed");
    });
}

#[test]
fn a_flush_beside_one_that_fails_says_nothing_that_is_not_so() {
    beside(true);
}

#[test]
fn two_that_do_not_fail_end() {
    beside(false);
}
