//! Requests that took long: the last of each shard, with where their time went. Never a value, and of a key only its length
//! and its hash.
//!
//! A shard leaves what it has found in a bounded queue of its own, whose oldest entry makes way for a new one, and goes on:
//! nobody's reading costs it anything. Names are looked up, and lines logged, by whoever takes it out.

mod entry;
mod stages;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use lode_engine::ShardId;
use lode_net::wire::{PartitionId, Status};
use tracing::warn;

use crate::mailbox::NodeMap;
pub use entry::SlowEntry;
pub use stages::{Stage, Stages};

/// Slow requests of a shard that wait to be taken out; with one more the oldest is forgotten.
const MAX_WAITING: usize = 128;
/// Slow requests that are kept of each shard.
pub const MAX_KEPT: usize = 128;

/// What is told of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyMark {
    /// As tables place it that are cut up by hash.
    pub hash: u32,
    /// Its length in bytes; 0 where the request is about no single key.
    pub len: u16,
}

impl KeyMark {
    /// Of a key.
    pub fn of(key: &[u8]) -> KeyMark {
        let hash = u32::from_be_bytes(lode_net::wire::map::hash_of(key));
        KeyMark { hash, len: u16::try_from(key.len()).unwrap_or(u16::MAX) }
    }
}

/// A request that took long, as its shard has found it.
#[derive(Clone, Debug)]
pub struct SlowRequest {
    /// When it was answered, in nanoseconds of UNIX time.
    pub at_ns: u64,
    /// What was asked.
    pub opcode: u8,
    /// How it ended.
    pub status: Status,
    /// Of which partition.
    pub partition: PartitionId,
    /// The map of that time, which has the partition's table.
    pub map: Arc<NodeMap>,
    /// Bytes of the request's body.
    pub request_bytes: u32,
    /// Bytes of the answer's body.
    pub answer_bytes: u64,
    /// The key.
    pub key: KeyMark,
    /// Who asked.
    pub client: Option<SocketAddr>,
    /// Where its time went.
    pub stages: Stages,
}

/// The slow requests of a node.
#[derive(Debug)]
pub struct SlowLog {
    threshold_ns: u64,
    /// By shard.
    waiting: Box<[ArrayQueue<SlowRequest>]>,
    noted: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By shard, the oldest first.
    entries: Vec<VecDeque<SlowEntry>>,
    next_id: u64,
    /// The worst that no line was logged of.
    worst: Option<SlowEntry>,
    /// How many were noted when the last line was logged.
    told: u64,
}

impl SlowLog {
    /// Of so many shards, for requests that take this long or longer; for none where it is zero.
    pub fn new(threshold: Duration, shards: u16) -> SlowLog {
        let threshold_ns = match threshold.as_nanos() {
            0 => u64::MAX,
            ns => u64::try_from(ns).unwrap_or(u64::MAX),
        };
        let kept = Kept { entries: vec![VecDeque::new(); usize::from(shards)], ..Kept::default() };
        SlowLog {
            threshold_ns,
            waiting: (0..shards).map(|_| ArrayQueue::new(MAX_WAITING)).collect(),
            noted: AtomicU64::new(0),
            kept: Mutex::new(kept),
        }
    }

    /// How long a request takes that is slow, in nanoseconds; `u64::MAX` where none is.
    pub fn threshold_ns(&self) -> u64 {
        self.threshold_ns
    }

    /// The same in microseconds; nothing where none is slow.
    pub fn threshold_us(&self) -> Option<u64> {
        (self.threshold_ns != u64::MAX).then_some(self.threshold_ns / 1000)
    }

    /// Requests that were slow since the start.
    pub fn noted(&self) -> u64 {
        self.noted.load(Ordering::Relaxed)
    }

    /// A shard has found one.
    pub fn note(&self, shard: ShardId, request: SlowRequest) {
        self.noted.fetch_add(1, Ordering::Relaxed);
        // The oldest makes way.
        let _ = self.waiting[usize::from(shard.0)].force_push(request);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nobody panics while holding it")
    }

    /// Takes out what the shards have left.
    fn take(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept();
        for (shard, waiting) in self.waiting.iter().enumerate() {
            // No more than there is room for: a shard may be leaving some at this moment.
            for request in (0..MAX_WAITING).map_while(|_| waiting.pop()) {
                kept.push(shard, request);
            }
        }
        kept
    }

    /// Those that are kept, the latest first.
    pub fn entries(&self) -> Vec<SlowEntry> {
        let kept = self.take();
        let mut entries: Vec<_> = kept.entries.iter().flatten().cloned().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.at_ms, entry.id)));
        entries
    }

    /// Forgets those that are kept.
    pub fn reset(&self) {
        self.take().entries.iter_mut().for_each(VecDeque::clear);
    }

    /// Logs a line where there were slow requests since the last one: of the worst, with how many there were. Called once a
    /// second at most.
    pub fn tell(&self) {
        let mut kept = self.take();
        let Some(worst) = kept.worst.take() else { return };
        let noted = self.noted();
        let others = (noted - kept.told).saturating_sub(1);
        kept.told = noted;
        drop(kept);
        warn!(
            event = "slow_request",
            verb = worst.verb,
            table = worst.table,
            partition = worst.partition,
            shard = worst.shard,
            client = worst.client,
            total_us = worst.stages.total_us(),
            stages = %worst.stages,
            others,
            "{}{}",
            worst.told(),
            match others {
                0 => String::new(),
                1 => "; one other was slow".to_owned(),
                others => format!("; {others} others were slow, this was the slowest"),
            }
        );
    }
}

impl Kept {
    fn push(&mut self, shard: usize, request: SlowRequest) {
        self.next_id += 1;
        let entry = SlowEntry::of(self.next_id, shard as u16, request);
        let is_worst =
            self.worst.as_ref().is_none_or(|worst| worst.stages.total_us() < entry.stages.total_us());
        if is_worst {
            self.worst = Some(entry.clone());
        }
        let entries = &mut self.entries[shard];
        if entries.len() == MAX_KEPT {
            entries.pop_front();
        }
        entries.push_back(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lode_net::wire::Opcode;

    fn request(us: u32) -> SlowRequest {
        SlowRequest {
            at_ns: u64::from(us) * 1_000_000,
            opcode: Opcode::Get as u8,
            status: Status::Ok,
            partition: PartitionId(3),
            map: Arc::new(NodeMap::empty()),
            request_bytes: 20,
            answer_bytes: 100,
            key: KeyMark::of(b"a secret"),
            client: None,
            stages: Stages { drive_us: us, ..Stages::default() },
        }
    }

    #[test]
    fn the_last_of_each_shard_are_kept_and_all_are_counted() {
        let log = SlowLog::new(Duration::from_millis(1), 2);
        assert_eq!((log.threshold_ns(), log.threshold_us()), (1_000_000, Some(1000)));
        for us in 1..=1000 {
            log.note(ShardId(0), request(us));
            if us % 100 == 0 {
                log.tell();
            }
        }
        log.note(ShardId(1), request(5));
        let entries = log.entries();
        assert_eq!((entries.len(), log.noted()), (MAX_KEPT + 1, 1001), "each shard has room of its own");
        let of = |shard| entries.iter().filter(move |entry| entry.shard == shard).map(|entry| entry.at_ms);
        assert!(of(0).eq((873..=1000).rev()) && of(1).eq([5]), "the last, the latest first");
        log.reset();
        assert_eq!((log.entries().len(), log.noted()), (0, 1001));
    }

    #[test]
    fn nothing_is_slow_where_no_time_is() {
        let log = SlowLog::new(Duration::ZERO, 1);
        assert_eq!((log.threshold_ns(), log.threshold_us()), (u64::MAX, None));
    }
}
