//! Transactions among the load: what one sees is of one instant, and of its commit all is there or nothing,
//! crashes included.

use std::collections::BTreeMap;

use lode_engine::{
    BatchWrite, BeginError, Condition, Found, KeyRange, OwnerId, ReadError, Request, RequestBody, ScanPage,
    ScanWish, Seq, TransactionId, TransactionRead, Ttl,
};

use crate::support::ask::target;
use crate::{GROUP_KEYS, GROUPS, Model, Sent};

/// So many are open at once, at most.
const MOST_OPEN: u64 = 3;

/// An open transaction of partition 1.
pub(crate) struct Open {
    id: TransactionId,
    read_only: bool,
    /// The value that it has seen all keys of a group have.
    values: BTreeMap<u64, Option<Vec<u8>>>,
    /// The version of a group's last key, which is that of the write of the group.
    versions: BTreeMap<u64, Option<Seq>>,
}

fn group_key(group: u64, i: u64) -> Vec<u8> {
    format!("group/{group}/{i}").into_bytes()
}

impl Model {
    /// One of them goes on, or another begins.
    pub(crate) fn transact(&mut self) {
        let random = &mut self.sim.random;
        let (at, group, kind) = (random.below(MOST_OPEN) as usize, random.below(GROUPS), random.below(12));
        match kind {
            _ if at >= self.open.len() => self.begin(),
            0..=6 => self.get_within(at, group),
            7 | 8 => self.scan_within(at, group),
            9 => {
                let transaction = self.open.remove(at).id;
                self.send(Sent::Other, RequestBody::Rollback { target: target(1), transaction });
            }
            _ => self.commit(at, group),
        }
    }

    fn send(&mut self, sent: Sent, body: RequestBody<'_>) {
        let id = self.sim.next_id();
        self.sent.insert(id, sent);
        self.step(&mut vec![Request { id, body }]);
    }

    fn begin(&mut self) {
        let read_only = self.sim.random.percent(30);
        let lifetime_ms = 1 + self.sim.random.below(30) as u32;
        let (target, owner) = (target(1), OwnerId(1));
        self.send(Sent::Begin { read_only }, RequestBody::Begin { target, owner, read_only, lifetime_ms });
    }

    pub(crate) fn begun(&mut self, read_only: bool, result: Result<TransactionId, BeginError>) {
        let id = result.expect("not many are open");
        self.open.push(Open { id, read_only, values: BTreeMap::new(), versions: BTreeMap::new() });
    }

    fn get_within(&mut self, at: usize, group: u64) {
        let (transaction, i) = (self.open[at].id, self.sim.random.below(GROUP_KEYS));
        let key = group_key(group, i);
        let body =
            RequestBody::Within { target: target(1), transaction, read: TransactionRead::Get { key: &key } };
        self.send(Sent::Within { transaction, group, i }, body);
    }

    fn scan_within(&mut self, at: usize, group: u64) {
        let transaction = self.open[at].id;
        let (start, end) = (format!("group/{group}/"), format!("group/{group}0"));
        let range = KeyRange { start: start.as_bytes(), end: Some(end.as_bytes()) };
        let reverse = self.sim.random.percent(50);
        let wish = ScanWish { range, reverse, limit: 4096, byte_budget: 64 << 10, keys_only: false };
        let read = TransactionRead::Scan(wish);
        let body = RequestBody::Within { target: target(1), transaction, read };
        self.send(Sent::ScanWithin { transaction, group }, body);
    }

    /// It may have ended meanwhile: the time or the room that it was given is over.
    fn open_one(&mut self, id: TransactionId) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.id == id)
    }

    fn ended(&mut self, id: TransactionId) {
        self.open.retain(|open| open.id != id);
        self.tally.transactions_ended += 1;
    }

    pub(crate) fn got_within(
        &mut self,
        (id, group, i): (TransactionId, u64, u64),
        result: Result<Option<Found>, ReadError>,
    ) {
        let found = match result {
            Err(ReadError::TransactionEnded) => return self.ended(id),
            result => result.unwrap_or_else(|error| panic!("get in a transaction: {error}")),
        };
        let seq = found.as_ref().map(|found| found.seq);
        let value = found.map(|found| self.sim.value(found.value));
        let Some(open) = self.open_one(id) else { return };
        let seen = open.values.entry(group).or_insert_with(|| value.clone());
        assert_eq!(*seen, value, "half of a batch or commit in group {group}, as {id:?} sees it");
        if i == GROUP_KEYS - 1 {
            open.versions.insert(group, seq);
        }
    }

    pub(crate) fn scanned_within(
        &mut self,
        (id, group): (TransactionId, u64),
        result: Result<ScanPage, ReadError>,
    ) {
        let page = match result {
            Err(ReadError::TransactionEnded) => return self.ended(id),
            result => result.unwrap_or_else(|error| panic!("scan in a transaction: {error}")),
        };
        let Some(open) = self.open_one(id) else { return };
        let value = page.records.first().map(|record| record.value.to_vec());
        let seen = open.values.entry(group).or_insert(value);
        let expected = if seen.is_some() { GROUP_KEYS as usize } else { 0 };
        assert_eq!((page.records.len(), page.more), (expected, false), "group {group}, as {id:?} sees it");
        for record in &page.records {
            assert_eq!(Some(record.value.as_ref()), seen.as_deref(), "group {group}, as {id:?} sees it");
        }
    }

    /// Writes all keys of a group, as a batch does. Where it has read the group's version, its write is the next
    /// after that one, or none.
    fn commit(&mut self, at: usize, group: u64) {
        let Open { id: transaction, read_only, versions, .. } = self.open.remove(at);
        let target = target(1);
        if read_only {
            return self.send(Sent::Other, RequestBody::Commit { target, transaction, writes: Vec::new() });
        }
        self.groups += 1;
        let value = format!("commit {} of seed {}", self.groups, self.seed).into_bytes();
        let names: Vec<_> = (0..GROUP_KEYS).map(|i| group_key(group, i)).collect();
        let writes = names.iter().map(|key| BatchWrite::Put { key, value: &value }).collect();
        let keys = names.iter().map(|key| (1, key.clone(), Some(value.clone()))).collect();
        let condition = match versions.get(&group) {
            None => Condition::Always,
            Some(None) => Condition::IfAbsent,
            Some(Some(seq)) => Condition::IfSeq(*seq),
        };
        let body = RequestBody::Commit { target, transaction, writes };
        self.send_write(body, keys, condition, Ttl::Table);
    }
}
