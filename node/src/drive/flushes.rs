//! Flushes of a drive whose cache all shards share. One that fails may lose what *any* of them has written since its own
//! last flush, and the next one, which does not fail, brings none of that back: what a shard's flush has come to is
//! known only when those of the others that were under way beside it are known, too.
//!
//! `tests/tests/flushes_under_loom.rs` tries this file as it is in every order of the steps.

use std::mem;
use std::sync::Arc;

use lode_engine::{DeviceError, ShardId, Token};

use super::parts::{AtomicU64, Ordering};

/// What shards tell each other of their flushes.
#[derive(Debug)]
pub struct Flushes {
    failed: AtomicU64,
    /// By shard, how many have begun and ended: odd while one is under way.
    turns: Box<[AtomicU64]>,
}

impl Flushes {
    /// Of a drive that so many shards share.
    pub fn new(shards: u16) -> Flushes {
        Flushes { failed: AtomicU64::new(0), turns: (0..shards).map(|_| AtomicU64::new(0)).collect() }
    }
}

/// The flushes of one shard: one at a time.
#[derive(Debug)]
pub struct ShardFlushes {
    all: Arc<Flushes>,
    shard: ShardId,
    /// Failures, of whomever, that this shard was told of.
    told: u64,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    UnderWay(Token),
    /// The drive is done with it; those of others that were under way then are waited for, each by its turn.
    Waiting(Token, Result<(), DeviceError>, Vec<(usize, u64)>),
}

impl ShardFlushes {
    /// Of a shard that has read nothing of the drive yet.
    pub fn new(all: Arc<Flushes>, shard: ShardId) -> ShardFlushes {
        ShardFlushes { all, shard, told: 0, stage: Stage::Idle }
    }

    /// One is handed to the drive.
    pub fn begin(&mut self, token: Token) {
        assert_eq!(self.stage, Stage::Idle, "a shard has one flush under way");
        self.stage = Stage::UnderWay(token);
        self.count_turn();
    }

    /// Whether an operation that has ended is the flush.
    pub fn is_under_way(&self, token: Token) -> bool {
        self.stage == Stage::UnderWay(token)
    }

    /// The drive is done with it: see [`ShardFlushes::settle`] for what came of it.
    pub fn ended(&mut self, result: Result<(), DeviceError>) {
        let Stage::UnderWay(token) = mem::replace(&mut self.stage, Stage::Idle) else {
            unreachable!("what ends has begun")
        };
        // Before the turn: who sees that it has ended sees how.
        if result.is_err() {
            self.all.failed.fetch_add(1, Ordering::SeqCst);
        }
        self.count_turn();
        let turns = self.all.turns.iter().map(|turn| turn.load(Ordering::SeqCst)).enumerate();
        let others = turns.filter(|(_, turn)| result.is_ok() && !turn.is_multiple_of(2)).collect();
        self.stage = Stage::Waiting(token, result, others);
    }

    /// What came of the flush that has ended, once it is known: an error too where one of another shard has failed.
    pub fn settle(&mut self) -> Option<(Token, Result<(), DeviceError>)> {
        let Stage::Waiting(token, result, others) = &mut self.stage else { return None };
        others.retain(|(shard, turn)| self.all.turns[*shard].load(Ordering::SeqCst) == *turn);
        if !others.is_empty() {
            return None;
        }
        let (token, result) = (*token, *result);
        self.stage = Stage::Idle;
        let failed = self.all.failed.load(Ordering::SeqCst);
        let has_failed = mem::replace(&mut self.told, failed) != failed;
        let of_another = Err(DeviceError { os_error: rustix::io::Errno::IO.raw_os_error() });
        Some((token, if has_failed { result.and(of_another) } else { result }))
    }

    /// Whether it waits for other shards, of which no event tells.
    pub fn waits(&self) -> bool {
        matches!(self.stage, Stage::Waiting(..))
    }

    fn count_turn(&self) {
        self.all.turns[usize::from(self.shard.0)].fetch_add(1, Ordering::SeqCst);
    }
}
