//! Everything that clients asked and were told, and what must be true of it.

use std::collections::BTreeMap;

use lode_net::wire::{Seq, Status};

use super::work::{Ask, End, Op, OpId, is_renewed};

/// The operations of a run.
#[derive(Default)]
pub struct History {
    ops: Vec<Op>,
    /// Steps of the world: each call and each answer has one of its own.
    step: u64,
    /// Steps at which a life of the node ended.
    crashes: Vec<u64>,
    /// What version the node gave to what an operation wrote to a key.
    versions: BTreeMap<(OpId, Vec<u8>), Seq>,
    /// What audits found.
    accounts: Vec<(OpId, Vec<u8>, OpId)>,
    /// How long the records that operations found had still to live, in milliseconds; 0: for ever.
    lefts: BTreeMap<OpId, Vec<(Vec<u8>, u64)>>,
    /// What those who read lists found in them: keys, and who wrote them.
    lists: BTreeMap<OpId, BTreeMap<Vec<u8>, OpId>>,
    open: usize,
    /// Those that ended since the last look.
    ended: Vec<OpId>,
    /// What the wall clock shows, and the latest that it ever showed.
    wall_ms: u64,
    highest_ms: u64,
    /// What it showed after each time that it was set back, and the step of that.
    set_back: Vec<(u64, u64)>,
    /// Shards of which something was damaged, and since which step.
    damaged: BTreeMap<u16, u64>,
    /// What no correct node answers.
    pub violations: Vec<String>,
}

impl History {
    /// The wall clock shows this now.
    pub fn wall(&mut self, wall_ms: u64) {
        if wall_ms < self.wall_ms {
            self.step += 1;
            self.set_back.push((self.step, wall_ms));
        }
        self.wall_ms = wall_ms;
        self.highest_ms = self.highest_ms.max(wall_ms);
    }

    /// Something is asked.
    pub fn call(&mut self, ask: Ask, now_ns: u64) -> OpId {
        self.step += 1;
        // No operation is number 0, so that no version of a value is.
        if self.ops.is_empty() {
            self.ops.push(Op {
                ask: Ask::Audit,
                called: 0,
                called_ns: 0,
                earliest_ms: 0,
                latest_ms: 0,
                returned: 1,
                end: End::Refused(Status::Busy),
            });
        }
        self.open += 1;
        let (called, earliest_ms) = (self.step, self.wall_ms);
        let (latest_ms, returned, end) = (u64::MAX, 0, End::Open);
        self.ops.push(Op { ask, called, called_ns: now_ns, earliest_ms, latest_ms, returned, end });
        OpId(self.ops.len() as u64 - 1)
    }

    /// It ended.
    pub fn end(&mut self, id: OpId, end: End) {
        self.step += 1;
        self.open -= 1;
        let step = self.step;
        let op = &mut self.ops[id.0 as usize];
        assert_eq!(op.end, End::Open, "an operation ends once");
        let since = self.set_back.iter().rev().take_while(|(at, _)| *at > op.called);
        op.earliest_ms = since.map(|(_, ms)| *ms).fold(op.earliest_ms, u64::min);
        if end != End::Unknown {
            op.latest_ms = self.highest_ms;
        }
        op.returned = step;
        op.end = end;
        self.ended.push(id);
    }

    /// The operations that ended since the last call.
    pub fn take_ended(&mut self) -> Vec<OpId> {
        std::mem::take(&mut self.ended)
    }

    /// A life of the node is over.
    pub fn crashed(&mut self) {
        self.step += 1;
        self.crashes.push(self.step);
    }

    /// Something of a shard's part of the drive is damaged, or was misread.
    pub fn damaged(&mut self, shard: u16) {
        self.step += 1;
        self.damaged.entry(shard).or_insert(self.step);
    }

    /// Whether something of a shard's was damaged by a step.
    pub fn is_damaged(&self, shard: u16, by: u64) -> bool {
        self.damaged.get(&shard).is_some_and(|since| *since <= by)
    }

    /// Whether anything is damaged by now.
    pub fn has_damage(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// Whether anything was damaged when an operation ended.
    pub fn was_damaged(&self, op: &Op) -> bool {
        self.damaged.values().any(|since| *since <= op.returned)
    }

    /// The node says that what an operation wrote to a key has this version: always the same.
    pub fn saw_version(&mut self, id: OpId, key: &[u8], seq: Seq) {
        if is_renewed(key) {
            return;
        }
        let known = *self.versions.entry((id, key.to_vec())).or_insert(seq);
        if known != seq {
            self.violation(
                id,
                &format!("its write of {} has version {known}, and now {seq}", key.escape_ascii()),
            );
        }
    }

    /// Something was answered that no correct node answers.
    pub fn violation(&mut self, id: OpId, what: &str) {
        self.violations.push(format!("operation {} ({:?}): {what}", id.0, self.op(id).ask));
    }

    /// How many were asked.
    pub fn count(&self) -> usize {
        self.ops.len()
    }

    /// Of those asked since there were so many: what was refused for now, or may have been done, and would be answered
    /// another time. What is damaged, gone with its partition, above a quota or without room would not.
    pub fn put_off_since(&self, len: usize) -> Vec<Ask> {
        let is_put_off = |op: &&Op| match op.end {
            End::Refused(status) => {
                let stays = [
                    Status::Corrupt,
                    Status::Quarantined,
                    Status::StaleMap,
                    Status::Full,
                    Status::Throttled,
                    Status::MemoryFull,
                ];
                !stays.contains(&status)
            }
            End::Unknown => true,
            _ => false,
        };
        self.ops.iter().skip(len.max(1)).filter(is_put_off).map(|op| op.ask.clone()).collect()
    }

    /// How long a record that an operation found has still to live, in milliseconds; 0: for ever.
    pub fn saw_left(&mut self, id: OpId, key: &[u8], left_ms: u64) {
        self.lefts.entry(id).or_default().push((key.to_vec(), left_ms));
    }

    /// What an operation was told of that.
    pub fn lefts(&self, id: OpId) -> &[(Vec<u8>, u64)] {
        self.lefts.get(&id).map_or(&[], Vec::as_slice)
    }

    /// What an operation found in a list, which it has read in full.
    pub fn saw_list(&mut self, id: OpId, found: BTreeMap<Vec<u8>, OpId>) {
        self.lists.insert(id, found);
    }

    /// The same.
    pub fn list(&self, id: OpId) -> Option<&BTreeMap<Vec<u8>, OpId>> {
        self.lists.get(&id)
    }

    /// Who wrote what an audit found in an account.
    pub fn saw_account(&mut self, audit: OpId, account: &[u8], writer: OpId) {
        self.accounts.push((audit, account.to_vec(), writer));
    }

    /// All that audits found: the audit, the account, and who wrote it.
    pub fn accounts(&self) -> &[(OpId, Vec<u8>, OpId)] {
        &self.accounts
    }

    /// An operation.
    pub fn op(&self, id: OpId) -> &Op {
        &self.ops[id.0 as usize]
    }

    /// All of them.
    pub fn ops(&self) -> impl Iterator<Item = (OpId, &Op)> {
        self.ops.iter().enumerate().map(|(i, op)| (OpId(i as u64), op))
    }

    /// The life of the node in which an operation was asked.
    pub fn life(&self, op: &Op) -> usize {
        self.crashes.partition_point(|crash| *crash < op.called)
    }

    /// Steps at which a life of the node ended.
    pub fn crashes(&self) -> &[u64] {
        &self.crashes
    }

    /// How many have not ended.
    pub fn open(&self) -> usize {
        self.open
    }

    /// The last step at which an operation of unknown end may have taken place.
    pub fn latest(&self, op: &Op) -> u64 {
        match op.end {
            End::Unknown | End::Open => {
                let crash = self.crashes.iter().find(|crash| **crash > op.called);
                crash.map_or(u64::MAX, |crash| crash - 1)
            }
            _ => op.returned,
        }
    }

    /// Operations that ended as they should, by the way they did.
    pub fn tally(&self) -> BTreeMap<&'static str, u64> {
        let mut tally = BTreeMap::new();
        for op in &self.ops[1.min(self.ops.len())..] {
            let end = match &op.end {
                End::Open => "open",
                End::Refused(Status::Corrupt) => "corrupt",
                End::Refused(Status::Quarantined) => "quarantined",
                End::Refused(Status::StaleMap) => "without partition",
                End::Refused(Status::Throttled) => "throttled",
                End::Refused(Status::Full | Status::MemoryFull) => "full",
                End::Refused(_) => "refused",
                End::Unknown => "unknown",
                End::Written { .. } if matches!(op.ask, Ask::SignList { .. }) => "lists signed",
                End::Written { .. } => "written",
                End::ConditionFailed => "condition failed",
                End::Renewed { .. } => "renewed",
                End::Found(_) => "read",
                End::Lives => "time left read",
                End::Listed => "lists read",
                End::Page(..) => "scanned",
                End::Counted(_) if matches!(op.ask, Ask::Count { .. }) => "ranges counted",
                End::Counted(_) => "counted",
                End::Total(_) => "audited",
                End::Changed => "tables changed",
                End::Exists => "table there",
                End::IsNot => "no table",
            };
            *tally.entry(end).or_insert(0) += 1;
        }
        tally
    }
}
