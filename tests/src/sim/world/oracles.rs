//! What must hold of a node at each moment, whatever it answers: watermarks in their order, which never fall and run ahead of
//! nothing that the drive has; counts that agree with a count anew; memory under its cap; and, at rest, queues that are
//! empty and as much of the drive free as is meant to be.

use std::collections::{BTreeMap, BTreeSet};

use lode_engine::format::ChecksumSeed;
use lode_engine::format::frame::{FRAME_HEADER_BYTES, FrameHeader, Stream};
use lode_engine::format::record::Record;
use lode_engine::{Phase, Shard, ShardId, ShardWatermarks, Watermarks};

use super::super::drive::DriveOp;
use super::super::node::{UUID, is_churned, is_in_memory, partition_of, shard_of};
use super::super::work::{Ask, End, OpId};
use super::World;

/// Turns of a shard between two counts of all that it has.
const TURNS_PER_AUDIT: u64 = 61;
/// Bytes that index and tables may take beyond their limit: what a write needs is estimated, and those count that are not on
/// their way any more.
const MEMORY_SLACK_BYTES: u64 = 4 << 10;
/// Most that is told of one run.
const MOST_TOLD: usize = 6;

/// What the oracles know.
#[derive(Debug, Default)]
pub(super) struct Oracles {
    shards: BTreeMap<u16, Known>,
    /// By shard, the highest version in a frame that the drive has, and all frames before it.
    durable_seq: BTreeMap<u16, (u64, u32)>,
    told: usize,
}

/// What is known of a shard's present life.
#[derive(Debug, Default)]
struct Known {
    turns: u64,
    checkpoints: u64,
    last: Option<ShardWatermarks>,
    user: Kept,
    cleaning: Kept,
    journal: Kept,
}

/// What the drive has of a stream.
#[derive(Debug, Default)]
struct Kept {
    /// It has all frames up to this one, or need not.
    upto: u64,
    /// Those behind it that it has, and the highest version in each.
    beyond: BTreeMap<u64, Option<(u64, u32)>>,
}

impl Kept {
    /// Goes on as far as there is no gap. Gives the versions of what it passes.
    fn advance(&mut self, least: u64) -> Vec<(u64, u32)> {
        self.upto = self.upto.max(least);
        let mut passed = Vec::new();
        while let Some(entry) = self.beyond.first_entry().filter(|entry| *entry.key() <= self.upto + 1) {
            self.upto = self.upto.max(*entry.key());
            passed.extend(entry.remove());
        }
        passed
    }
}

impl World<'_> {
    /// A life begins.
    pub(super) fn begins_anew(&mut self) {
        self.oracles.shards.clear();
    }

    /// The drive has done this, and said so.
    pub(super) fn is_kept(&mut self, shard: u16, op: &DriveOp) {
        let DriveOp::Write { at, bytes, durable: true } = op else { return };
        let seed = ChecksumSeed::new(&UUID, ShardId(shard));
        let area = self.geometry.area_at(ShardId(shard)).0 as usize;
        let Some(at) = at.checked_sub(area) else { return };
        let Some(header) = FrameHeader::decode_any(seed, at as u64, bytes) else { return };
        let seq = (header.stream == Stream::User).then(|| highest_seq(&header, bytes)).flatten();
        let known = self.oracles.shards.entry(shard).or_default();
        let kept = match header.stream {
            Stream::User => &mut known.user,
            Stream::Cleaning => &mut known.cleaning,
            Stream::Journal => &mut known.journal,
            Stream::Image => return,
        };
        kept.beyond.insert(header.number.0, seq);
    }

    /// A shard has had its turn.
    pub(super) fn watch(&mut self, shard: u16) {
        let Some(node) = &self.node else { return };
        let engine = node.engine(shard);
        if *engine.phase() != Phase::Serving {
            return;
        }
        let known = self.oracles.shards.entry(shard).or_default();
        let (marks, stats) = (engine.watermarks(), engine.stats());
        let mut wrong = Vec::new();
        let before = known.last.replace(marks);
        let is_poisoned = stats.poisoned > 0;
        let has_begun_anew = stats.checkpoints > known.checkpoints || before.is_none();
        known.checkpoints = stats.checkpoints;
        let streams = [
            ("user", marks.user, before.map(|b| b.user), &mut known.user, before.is_none()),
            ("cleaning", marks.cleaning, before.map(|b| b.cleaning), &mut known.cleaning, false),
            ("journal", marks.journal, before.map(|b| b.journal), &mut known.journal, has_begun_anew),
        ];
        for (name, marks, before, kept, starts_here) in streams {
            let least = if starts_here { marks.durable.0 } else { 0 };
            let passed = kept.advance(least);
            if name == "user" {
                let highest = self.oracles.durable_seq.entry(shard).or_default();
                *highest = passed.into_iter().fold(*highest, |a, b| a.max(b));
            }
            wrong.extend(wrong_with(name, marks, before, is_poisoned));
            if marks.durable.0 > kept.upto {
                let (durable, upto) = (marks.durable, kept.upto);
                wrong
                    .push(format!("the {name} frames up to {durable} are durable, and the drive has {upto}"));
            }
        }
        wrong.extend(wrong_with_memory(engine));
        known.turns += 1;
        if known.turns.is_multiple_of(TURNS_PER_AUDIT) {
            wrong.extend(engine.audit());
        }
        self.tell(shard, wrong);
    }

    fn tell(&mut self, shard: u16, wrong: Vec<String>) {
        for what in wrong {
            if self.oracles.told < MOST_TOLD {
                self.oracles.told += 1;
                self.history.violations.push(format!("shard {shard} at {} ns: {what}", self.now_ns));
            }
        }
    }

    /// Clients were told how these ended: what is acknowledged is durable.
    pub(super) fn are_told(&mut self, ended: &[OpId]) {
        for id in ended {
            let op = self.history.op(*id);
            let End::Written { seq, existed } = op.end else { continue };
            let key = match &op.ask {
                Ask::Put { write, .. } => &write.key,
                Ask::Delete { key, .. } if existed => key,
                Ask::Batch { writes } => &writes[0].key,
                Ask::Deposit { key } | Ask::Transfer { from: key, .. } => key,
                _ => continue,
            };
            if is_in_memory(key) {
                continue;
            }
            // Where the table that comes and goes lies depends on how often it came.
            let here =
                (!is_churned(key)).then(|| shard_of(partition_of(key, self.plan.partitions), self.plan));
            let all = self.oracles.durable_seq.iter();
            let of_it = all.filter(|(shard, _)| here.is_none_or(|here| **shard == here));
            let durable = of_it.map(|(_, seq)| *seq).max().unwrap_or_default();
            if (seq.wall_ns, seq.counter) > durable {
                self.history
                    .violation(*id, &format!("version {seq} is acknowledged before the drive has it"));
            }
        }
    }

    /// What is still under way, in words, when nobody asks for anything any more.
    pub(super) fn not_calm(&self) -> Vec<String> {
        let Some(node) = &self.node else { return vec!["the node is not there".into()] };
        let mut left = Vec::new();
        for shard in 0..self.plan.shards {
            let (stats, held) = (node.engine(shard).stats(), node.held(shard));
            let gauges = [
                ("requests that wait for an answer", held.pending),
                ("requests in queues", held.queued),
                ("bytes of requests in queues", held.queued_bytes),
                ("bytes of unfinished requests", held.partial_bytes),
                ("bytes of replies", held.reply_bytes),
                ("bytes of buffers", held.buffer_bytes),
                ("pieces of mail", held.mail),
                ("writes on their way", stats.writes_in_flight),
                ("requests that wait in the engine", stats.requests_parked),
                ("open transactions", stats.transactions_open),
                ("bytes of transactions", stats.transaction_bytes),
                ("indexes of dropped partitions", u64::from(node.engine(shard).has_work())),
                ("partitions that are not loaded", stats.partitions_unloaded),
                // The room that is looked at then is what there is when the drive has done these.
                ("segments that are being discarded", u64::from(node.engine(shard).census().discarding)),
            ];
            let some = gauges.into_iter().filter(|(_, count)| *count > 0);
            left.extend(some.map(|(what, count)| format!("shard {shard} has {count} {what}")));
        }
        left
    }

    /// What is wrong with a node that is at rest, in words.
    pub(super) fn look_at_rest(&mut self) {
        for shard in 0..self.plan.shards {
            let Some(node) = &self.node else { return };
            let engine = node.engine(shard);
            let mut wrong = engine.audit();
            if !self.plan.has_damage() && self.plan.faults.read_errors_ppm == 0 {
                wrong.extend(wrong_with_room(engine));
            }
            self.tell(shard, wrong);
        }
    }
}

fn wrong_with(name: &str, marks: Watermarks, before: Option<Watermarks>, is_poisoned: bool) -> Vec<String> {
    let Watermarks { durable, written, appended } = marks;
    let in_order = durable <= written && written <= appended;
    let has_fallen = |before: Watermarks| {
        // What is on its way to the drive of a closed log is given up.
        durable < before.durable || !is_poisoned && written < before.written || appended < before.appended
    };
    match in_order && !before.is_some_and(has_fallen) {
        true => Vec::new(),
        false => vec![format!("the {name} watermarks are {marks:?}, and were {before:?}")],
    }
}

fn wrong_with_memory(engine: &Shard) -> Vec<String> {
    let stats = engine.stats();
    let limits = [
        ("index and tables", engine.counted_memory_bytes(), stats.memory_limit_bytes + MEMORY_SLACK_BYTES),
        ("cache", stats.cache_bytes, stats.cache_limit_bytes),
        ("transactions", stats.transaction_bytes, lode_engine::limits::MAX_TRANSACTION_BYTES as u64),
    ];
    let beyond = limits.into_iter().filter(|(_, bytes, limit)| bytes > limit);
    beyond.map(|(what, bytes, limit)| format!("{what} take {bytes} bytes of {limit}")).collect()
}

fn wrong_with_room(engine: &Shard) -> Option<String> {
    let (room, stats) = (engine.room(), engine.stats());
    let is_short = room.free < room.reserve + room.goal;
    (is_short && stats.live_bytes < stats.live_limit_bytes).then(|| {
        let (live, limit) = (stats.live_bytes, stats.live_limit_bytes);
        format!("{room:?} though {live} bytes of {limit} are live: {:?}", engine.census())
    })
}

/// The highest version in a user frame.
fn highest_seq(header: &FrameHeader, bytes: &[u8]) -> Option<(u64, u32)> {
    let mut rest = &bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.payload_bytes as usize];
    let mut seqs = BTreeSet::new();
    while !rest.is_empty() {
        let record = Record::decode_unchecked(rest).ok()?;
        seqs.insert((record.seq.wall_ns, record.seq.counter));
        rest = &rest[record.room().min(rest.len())..];
    }
    seqs.last().copied()
}
