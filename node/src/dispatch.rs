//! Where wire requests and engine requests meet, both ways. The only file that knows both.
//!
//! Pure: a decoded request goes in and an engine's request comes out, an engine's answer goes in and a
//! reply's head and body come out.

use crate::control::quotas::QuotaWish;
use lode_engine::limits::MAX_SCAN_BYTES;
use lode_engine::{
    BatchWrite, BeginError, CatalogError, Change, CheckpointError, Condition, Epoch, KeyRange, OwnerId,
    PartitionId, Payload, ReadError, ReplyBody, RequestBody, ScanPage, ScanWish, Seq, Target, TimeLeft,
    TransactionId, TransactionRead, Ttl, WriteError, Written,
};
use lode_net::wire;
use lode_net::wire::opcode::{flags, reply_flags};
use lode_net::wire::scan::{RecordView, SCAN_RECORD_HEADER_BYTES, SCAN_RECORD_TTL_BYTES, push_record};
use lode_net::wire::{MapVersion, Opcode, ReplyHead, RequestHeader, RequestView, Status};

/// Who must answer a request.
#[derive(Debug)]
pub enum Question<'a> {
    /// The shard of its partition.
    Shard(RequestBody<'a>),
    /// The control thread.
    Control(ControlQuestion),
    /// The connection itself has answered, or will: nothing reaches this far.
    Connection,
}

/// A request for the node as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlQuestion {
    /// Make a table, whose records live so many milliseconds unless they say otherwise.
    CreateTable {
        /// The table.
        table: wire::control::CreateTable,
        /// Milliseconds.
        ttl_ms: Option<u64>,
        /// What each of its partitions may take.
        quota: wire::Quota,
    },
    /// Set a quota.
    SetQuota(QuotaWish),
    /// The quotas that were set.
    Quotas,
    /// The tables whose records expire by default.
    TableTtls,
    /// Forget a table.
    DropTable(wire::control::DropTable),
    /// The tables and what they hold.
    ListTables,
    /// Counters and gauges.
    Stats,
    /// A checkpoint on every shard.
    Checkpoint,
    /// A round of the scrub on every shard.
    Scrub,
}

/// What is kept of a request until its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The client's name for it.
    pub request_id: wire::RequestId,
    /// Its opcode.
    pub opcode: u8,
    /// Its flags.
    pub flags: u8,
    /// Whose its transactions are.
    pub owner: OwnerId,
}

impl Asked {
    /// Of a request's header.
    pub fn of(header: &RequestHeader, owner: OwnerId) -> Asked {
        let RequestHeader { request_id, opcode, flags, .. } = *header;
        Asked { request_id, opcode, flags, owner }
    }

    /// The head of an answer with this status.
    pub fn head(self, status: Status) -> ReplyHead {
        // The version is set when the reply is sent: it is the map of that moment that counts.
        ReplyHead::new(self.request_id, self.opcode, status, MapVersion(0))
    }

    /// An answer with this status and nothing else.
    pub fn plain(self, status: Status) -> Answer {
        Answer { head: self.head(status), body: AnswerBody::Empty }
    }
}

/// An answer, ready to be sent.
#[derive(Debug)]
pub struct Answer {
    /// Everything but the body.
    pub head: ReplyHead,
    /// The body.
    pub body: AnswerBody,
}

impl Answer {
    /// Bytes of it that lie in memory of their own, or in a buffer.
    pub fn value_bytes(&self) -> usize {
        match &self.body {
            AnswerBody::Empty | AnswerBody::Map { .. } => 0,
            AnswerBody::Bytes(bytes) => bytes.len(),
            AnswerBody::Value(Payload::Shared(bytes)) => bytes.len(),
            AnswerBody::Value(Payload::Buffer { len, .. }) => *len as usize,
        }
    }

    /// Whether it may be given up for `Busy`: it changed nothing, and is longer than that.
    pub fn may_be_given_up(&self) -> bool {
        let is_read = self.head.status == Status::Ok && self.head.opcode != Opcode::CreateTable as u8;
        matches!(self.body, AnswerBody::Map { .. }) || (is_read && self.value_bytes() > 0)
    }
}

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// None.
    Empty,
    /// Made for this answer.
    Bytes(Vec<u8>),
    /// A value, where it lies.
    Value(Payload),
    /// The partition map, unless the connection was given it before.
    Map {
        /// The partition's epoch; 0 where it is not here.
        current_epoch: wire::Epoch,
    },
}

/// What a decoded request asks of whom. A transaction that it names is its `owner`'s.
pub fn question<'a>(view: RequestView<'a>, owner: OwnerId) -> Question<'a> {
    let named = |transaction: wire::TransactionId| TransactionId { owner, number: transaction.0 };
    Question::Shard(match view {
        RequestView::Get { target, key } => RequestBody::Get { target: to_target(target), key },
        RequestView::Put { target, key, value, condition, ttl } => {
            let (condition, ttl) = (to_condition(condition), to_ttl(ttl));
            RequestBody::Put { target: to_target(target), key, value, condition, ttl }
        }
        RequestView::Expire { target, key, ttl } => {
            let change = Change::Expire { ttl: to_ttl(ttl) };
            RequestBody::Modify { target: to_target(target), key, change }
        }
        RequestView::TimeToLive { target, key } => RequestBody::TimeToLive { target: to_target(target), key },
        RequestView::Delete { target, key, condition } => {
            RequestBody::Delete { target: to_target(target), key, condition: to_condition(condition) }
        }
        RequestView::Increment { target, key, by, initial } => {
            let change = Change::Increment { by, initial };
            RequestBody::Modify { target: to_target(target), key, change }
        }
        RequestView::Batch { target, batch } => {
            let writes = batch.writes().map(to_batch_write).collect();
            RequestBody::Batch { target: to_target(target), writes }
        }
        RequestView::Scan { target, scan } => RequestBody::Scan {
            target: to_target(target),
            range: to_range(scan.range),
            reverse: scan.reverse,
            limit: scan.limit,
            byte_budget: scan.byte_budget,
            keys_only: scan.keys_only,
        },
        RequestView::Begin { target, read_only, lifetime_ms } => {
            RequestBody::Begin { target: to_target(target), owner, read_only, lifetime_ms }
        }
        RequestView::Commit { target, transaction, batch } => {
            let writes = batch.writes().map(to_batch_write).collect();
            RequestBody::Commit { target: to_target(target), transaction: named(transaction), writes }
        }
        RequestView::Rollback { target, transaction } => {
            RequestBody::Rollback { target: to_target(target), transaction: named(transaction) }
        }
        RequestView::Within { target, transaction, read } => RequestBody::Within {
            target: to_target(target),
            transaction: named(transaction),
            read: to_read(read),
        },
        RequestView::Min { target } => one_record(target, false),
        RequestView::Max { target } => one_record(target, true),
        RequestView::Count { target, range } => {
            RequestBody::Count { target: to_target(target), range: to_range(range) }
        }
        other => return question_of_node(other),
    })
}

/// What a request that is for no partition asks of whom.
fn question_of_node(view: RequestView<'_>) -> Question<'_> {
    let create = |table, ttl_ms, quota| ControlQuestion::CreateTable { table, ttl_ms, quota };
    Question::Control(match view {
        RequestView::CreateTable(table) => create(table, None, wire::Quota::default()),
        RequestView::CreateTableTtl { table, ttl_ms } => create(table, Some(ttl_ms), wire::Quota::default()),
        RequestView::CreateTableQuota { table, ttl_ms, quota } => create(table, ttl_ms, quota),
        RequestView::SetQuota { table, partition, quota } => {
            ControlQuestion::SetQuota(QuotaWish { table: table.to_owned(), partition, quota })
        }
        RequestView::Quotas => ControlQuestion::Quotas,
        RequestView::TableTtls => ControlQuestion::TableTtls,
        RequestView::DropTable(table) => ControlQuestion::DropTable(table),
        RequestView::ListTables => ControlQuestion::ListTables,
        RequestView::Stats => ControlQuestion::Stats,
        RequestView::Checkpoint => ControlQuestion::Checkpoint,
        RequestView::Scrub => ControlQuestion::Scrub,
        _ => return Question::Connection,
    })
}

/// The answer to a request of a shard.
pub fn answer(asked: Asked, body: ReplyBody) -> Answer {
    match body {
        ReplyBody::Get(Ok(None)) => asked.plain(Status::NotFound),
        ReplyBody::Get(Ok(Some(found))) => {
            let aux = ttl_of(found.left).unwrap_or(0);
            let head = ReplyHead { seq: from_seq(found.seq), aux, ..asked.head(Status::Ok) };
            Answer { head, body: AnswerBody::Value(found.value) }
        }
        ReplyBody::Write(Ok(Written { seq, existed, number, .. })) => {
            let aux = number.map_or(u64::from(existed), i64::cast_unsigned);
            let head = ReplyHead { seq: from_seq(seq), aux, ..asked.head(Status::Ok) };
            Answer { head, body: AnswerBody::Empty }
        }
        ReplyBody::Scan(Ok(page)) => scan_answer(asked, &page),
        ReplyBody::Count(Ok(count)) => {
            Answer { head: ReplyHead { aux: count, ..asked.head(Status::Ok) }, body: AnswerBody::Empty }
        }
        ReplyBody::TimeToLive(Ok(None)) => asked.plain(Status::NotFound),
        ReplyBody::TimeToLive(Ok(Some(left))) => {
            let aux = ttl_of(left).unwrap_or(0);
            Answer { head: ReplyHead { aux, ..asked.head(Status::Ok) }, body: AnswerBody::Empty }
        }
        ReplyBody::TimeToLive(Err(error)) => read_error_answer(asked, &error),
        ReplyBody::Get(Err(error)) | ReplyBody::Scan(Err(error)) | ReplyBody::Count(Err(error)) => {
            read_error_answer(asked, &error)
        }
        ReplyBody::Begin(Ok(id)) => {
            Answer { head: ReplyHead { aux: id.number, ..asked.head(Status::Ok) }, body: AnswerBody::Empty }
        }
        ReplyBody::Begin(Err(error)) => begin_error_answer(asked, &error),
        ReplyBody::Rollback => asked.plain(Status::Ok),
        ReplyBody::Write(Err(error)) => write_error_answer(asked, &error),
        ReplyBody::Catalog(Ok(())) | ReplyBody::Checkpoint(Ok(())) => asked.plain(Status::Ok),
        ReplyBody::Catalog(Err(error)) => catalog_error_answer(asked, &error),
        ReplyBody::Checkpoint(Err(error)) => checkpoint_error_answer(asked, &error),
        ReplyBody::Tables(_) | ReplyBody::Stats(_) | ReplyBody::Scrub(_) => {
            unreachable!("only the control thread asks a shard for these")
        }
    }
}

/// The answer that a table could not be made or dropped on a shard.
pub fn catalog_error_answer(asked: Asked, error: &CatalogError) -> Answer {
    let (status, aux) = match error {
        CatalogError::UnknownTable(_) | CatalogError::UnknownPartition(_) => (Status::UnknownTable, 0),
        CatalogError::TableExists | CatalogError::PartitionExists(_) => (Status::TableExists, 0),
        CatalogError::NameLength { len } => (Status::NameLength, *len as u64),
        CatalogError::BadTtl { ttl_ms } => (Status::BadTtl, *ttl_ms),
        CatalogError::BadQuota { .. } => (Status::BadQuota, 0),
        CatalogError::BadRange(_) => (Status::BadRange, 0),
        CatalogError::TooManyPartitions { limit } => (Status::TooManyPartitions, *limit as u64),
        CatalogError::Busy => (Status::Busy, 0),
        CatalogError::Full => (Status::Full, 0),
        CatalogError::Poisoned => (Status::Poisoned, 0),
    };
    failed(asked, status, aux, error)
}

/// The answer that a checkpoint could not be written on a shard.
pub fn checkpoint_error_answer(asked: Asked, error: &CheckpointError) -> Answer {
    let status = match error {
        CheckpointError::Poisoned => Status::Poisoned,
        CheckpointError::NoSpace => Status::NoSpace,
    };
    failed(asked, status, 0, error)
}

/// A failure, in a status, a number and words.
pub fn failed(asked: Asked, status: Status, aux: u64, words: &dyn std::fmt::Display) -> Answer {
    let head = ReplyHead { aux, ..asked.head(status) };
    Answer { head, body: AnswerBody::Bytes(words.to_string().into_bytes()) }
}

/// The answer to a request whose partition is not here.
pub fn stale_answer(asked: Asked, current_epoch: Epoch) -> Answer {
    let current_epoch = wire::Epoch(current_epoch.0);
    Answer { head: asked.head(Status::StaleMap), body: AnswerBody::Map { current_epoch } }
}

fn quarantined_answer(asked: Asked, upto: Seq, words: &dyn std::fmt::Display) -> Answer {
    let mut answer = failed(asked, Status::Quarantined, 0, words);
    answer.head.seq = from_seq(upto);
    answer
}

fn begin_error_answer(asked: Asked, error: &BeginError) -> Answer {
    let (status, aux) = match error {
        BeginError::UnknownPartition(_) => return stale_answer(asked, Epoch(0)),
        BeginError::StaleEpoch { current } => return stale_answer(asked, *current),
        BeginError::Lifetime { lifetime_ms } => (Status::TransactionLifetime, u64::from(*lifetime_ms)),
        BeginError::TooMany => (Status::TooManyTransactions, 0),
        BeginError::Busy => (Status::Busy, 0),
    };
    failed(asked, status, aux, error)
}

fn read_error_answer(asked: Asked, error: &ReadError) -> Answer {
    let (status, aux) = match error {
        ReadError::UnknownPartition(_) | ReadError::OutOfRange => return stale_answer(asked, Epoch(0)),
        ReadError::StaleEpoch { current } => return stale_answer(asked, *current),
        ReadError::KeyLength { len } => (Status::KeyLength, *len as u64),
        ReadError::ScanLimits => (Status::ScanLimits, 0),
        ReadError::TransactionEnded => (Status::TransactionEnded, 0),
        ReadError::ReadSetFull => (Status::ReadSetFull, 0),
        ReadError::Busy => (Status::Busy, 0),
        ReadError::Corrupt { at } => (Status::Corrupt, *at),
        ReadError::Quarantined { upto } => return quarantined_answer(asked, *upto, error),
        ReadError::Device { os_error, .. } => (Status::DeviceError, u64::from(os_error.unsigned_abs())),
    };
    failed(asked, status, aux, error)
}

fn write_error_answer(asked: Asked, error: &WriteError) -> Answer {
    let (status, aux) = match error {
        WriteError::UnknownPartition(_) | WriteError::OutOfRange => return stale_answer(asked, Epoch(0)),
        WriteError::StaleEpoch { current } => return stale_answer(asked, *current),
        WriteError::ConditionFailed { current } => {
            let mut answer = asked.plain(Status::ConditionFailed);
            answer.head.seq = current.map(from_seq).unwrap_or_default();
            answer.head.aux = u64::from(current.is_some());
            return answer;
        }
        WriteError::KeyLength { len } => (Status::KeyLength, *len as u64),
        WriteError::ValueLength { len, .. } => (Status::ValueLength, *len as u64),
        WriteError::BatchSize { writes, .. } => (Status::BatchSize, *writes as u64),
        WriteError::BadTtl { ttl_ms } => (Status::BadTtl, *ttl_ms),
        WriteError::Conflict { key } => {
            return Answer { head: asked.head(Status::Conflict), body: AnswerBody::Bytes(key.to_vec()) };
        }
        WriteError::TransactionEnded => (Status::TransactionEnded, 0),
        WriteError::ReadOnly => (Status::ReadOnly, 0),
        WriteError::NotANumber => (Status::NotANumber, 0),
        WriteError::NumberOverflow { present, .. } => (Status::NumberOverflow, present.cast_unsigned()),
        WriteError::Busy => (Status::Busy, 0),
        WriteError::Full { live_bytes, .. } => (Status::Full, *live_bytes),
        WriteError::MemoryFull { used_bytes, .. } => (Status::MemoryFull, *used_bytes),
        WriteError::Corrupt { at } => (Status::Corrupt, *at),
        WriteError::MayReturn { at } => (Status::MayReturn, *at),
        WriteError::Device { os_error, .. } => (Status::DeviceError, u64::from(os_error.unsigned_abs())),
        WriteError::Quarantined { upto } => return quarantined_answer(asked, *upto, error),
        WriteError::Poisoned => (Status::Poisoned, 0),
    };
    failed(asked, status, aux, error)
}

/// A page; of Min and Max the one record, or `NotFound`.
fn scan_answer(asked: Asked, page: &ScanPage) -> Answer {
    let is_scan = [Opcode::Scan as u8, Opcode::TransactionScan as u8].contains(&asked.opcode);
    if !is_scan && page.records.is_empty() {
        return asked.plain(Status::NotFound);
    }
    let wants_ttls = is_scan && asked.flags & flags::TTL != 0;
    let ttl_bytes = if wants_ttls { SCAN_RECORD_TTL_BYTES } else { 0 };
    let bytes = |record: &lode_engine::ScanRecord| record.key.len() + record.value.len() + ttl_bytes;
    let len: usize = page.records.iter().map(|record| SCAN_RECORD_HEADER_BYTES + bytes(record)).sum();
    let mut body = Vec::with_capacity(len);
    for record in &page.records {
        let (key, seq, value) = (&record.key, from_seq(record.seq), &record.value);
        let ttl_ms = ttl_of(record.left).filter(|_| wants_ttls);
        push_record(&mut body, &RecordView { key, seq, value, ttl_ms });
    }
    let mut head = ReplyHead { aux: page.records.len() as u64, ..asked.head(Status::Ok) };
    if is_scan && page.more {
        head.flags = reply_flags::MORE;
    }
    Answer { head, body: AnswerBody::Bytes(body) }
}

fn one_record<'a>(target: wire::Target, reverse: bool) -> RequestBody<'a> {
    RequestBody::Scan {
        target: to_target(target),
        range: KeyRange::default(),
        reverse,
        limit: 1,
        byte_budget: MAX_SCAN_BYTES as u32,
        keys_only: false,
    }
}

fn to_target(target: wire::Target) -> Target {
    Target { partition: PartitionId(target.partition.0), epoch: Epoch(target.epoch.0) }
}

fn to_condition(condition: wire::Condition) -> Condition {
    match condition {
        wire::Condition::Always => Condition::Always,
        wire::Condition::IfAbsent => Condition::IfAbsent,
        wire::Condition::IfSeq(seq) => Condition::IfSeq(to_seq(seq)),
    }
}

fn to_ttl(ttl: wire::Ttl) -> Ttl {
    match ttl {
        wire::Ttl::Table => Ttl::Table,
        wire::Ttl::Never => Ttl::Never,
        wire::Ttl::After { ttl_ms } => Ttl::After { ttl_ms },
    }
}

/// Milliseconds, where it ends.
fn ttl_of(left: TimeLeft) -> Option<u64> {
    if let TimeLeft::Ms(ms) = left { Some(ms) } else { None }
}

fn to_batch_write(write: wire::BatchWrite<'_>) -> BatchWrite<'_> {
    match write {
        wire::BatchWrite::Put { key, value } => BatchWrite::Put { key, value },
        wire::BatchWrite::PutFor { key, value, ttl } => BatchWrite::PutFor { key, value, ttl: to_ttl(ttl) },
        wire::BatchWrite::Delete { key } => BatchWrite::Delete { key },
    }
}

fn to_read(read: wire::ReadView<'_>) -> TransactionRead<'_> {
    match read {
        wire::ReadView::Get { key } => TransactionRead::Get { key },
        wire::ReadView::Count { range } => TransactionRead::Count { range: to_range(range) },
        wire::ReadView::Scan(scan) => TransactionRead::Scan(ScanWish {
            range: to_range(scan.range),
            reverse: scan.reverse,
            limit: scan.limit,
            byte_budget: scan.byte_budget,
            keys_only: scan.keys_only,
        }),
    }
}

fn to_range(range: wire::RangeView<'_>) -> KeyRange<'_> {
    KeyRange { start: range.start, end: range.end }
}

fn to_seq(seq: wire::Seq) -> Seq {
    Seq { wall_ns: seq.wall_ns, counter: seq.counter, node: lode_engine::NodeId(seq.node) }
}

fn from_seq(seq: Seq) -> wire::Seq {
    wire::Seq { wall_ns: seq.wall_ns, counter: seq.counter, node: seq.node.0 }
}

// The limits that both rooms name must be the same number.
const _: () = {
    use lode_engine::limits as engine;
    use lode_net::wire::limits as net;
    assert!(engine::MAX_KEY_BYTES == net::MAX_KEY_BYTES);
    assert!(engine::MAX_VALUE_BYTES == net::MAX_VALUE_BYTES);
    assert!(engine::MAX_BATCH_WRITES == net::MAX_BATCH_WRITES);
    assert!(engine::MAX_BATCH_BYTES == net::MAX_BATCH_BYTES);
    assert!(engine::BATCH_BYTES == lode_net::wire::batch::BATCH_PREFIX_BYTES);
    assert!(engine::BATCH_WRITE_BYTES == lode_net::wire::batch::BATCH_WRITE_HEADER_BYTES);
    assert!(engine::MAX_SCAN_RECORDS == net::MAX_SCAN_RECORDS as usize);
    assert!(engine::MAX_SCAN_BYTES == net::MAX_SCAN_BYTES as usize);
    assert!(engine::MAX_TABLE_NAME_BYTES == net::MAX_TABLE_NAME_BYTES);
    assert!(engine::MAX_TTL_MS == net::MAX_TTL_MS);
};

/// Frames for tests of other parts of the node, which do not know what is in a request.
#[cfg(test)]
pub mod frames {
    use lode_net::wire;

    /// A request with a value of so many bytes, as it comes out of a connection.
    pub fn put(value_bytes: usize) -> wire::Frame<'static> {
        use wire::server::{ConnectionLimits, Context, Incoming};
        let limits = wire::control::NodeLimits::default();
        let node = wire::server::NodeInfo { name: "n".into(), incarnation: 1, shards: Vec::new(), limits };
        let map = crate::mailbox::NodeMap::empty();
        let context =
            Context { node: Some(&node), map: &map.published, crowded: false, gate: None, now_ns: 0 };
        let mut connection = wire::ServerConnection::new(wire::ShardId(0), ConnectionLimits::default(), 0);
        let hello = wire::control::Hello { client_name: "t".into(), incarnation: 0 };
        let hello = wire::request::HelloView { oldest_version: 1, newest_version: 1, hello };
        let target = wire::Target { partition: wire::PartitionId(1), epoch: wire::Epoch(1) };
        let (condition, ttl) = (wire::Condition::Always, wire::Ttl::Table);
        let value = vec![0; value_bytes];
        let put = wire::RequestView::Put { target, key: b"k", value: &value, condition, ttl };
        let mut bytes = Vec::new();
        for (number, view) in [(1, wire::RequestView::Hello(hello)), (2, put)] {
            view.encode(wire::RequestId(number), wire::MapVersion(0), &mut bytes).expect("it fits");
        }
        let mut input = &bytes[..];
        assert!(matches!(connection.receive(&mut input, &context), Incoming::Reply(_)));
        match connection.receive(&mut input, &context) {
            Incoming::Request(frame) => frame.into_owned(),
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lode_engine::{Found, NodeId, ScanRecord};

    const TARGET: wire::Target = wire::Target { partition: wire::PartitionId(7), epoch: wire::Epoch(3) };

    fn asked(opcode: Opcode) -> Asked {
        Asked { request_id: wire::RequestId(9), opcode: opcode as u8, flags: 0, owner: OwnerId(1) }
    }

    #[test]
    fn a_conditional_put_keeps_every_field() {
        let seq = wire::Seq { wall_ns: 1, counter: 2, node: 3 };
        let condition = wire::Condition::IfSeq(seq);
        let ttl = wire::Ttl::After { ttl_ms: 9 };
        let put = RequestView::Put { target: TARGET, key: b"k", value: b"v", condition, ttl };
        let Question::Shard(RequestBody::Put { target, key, value, condition, ttl }) =
            question(put, OwnerId(1))
        else {
            panic!("a put is a shard's")
        };
        assert_eq!(
            (target.partition, target.epoch, key, value),
            (PartitionId(7), Epoch(3), &b"k"[..], &b"v"[..])
        );
        assert_eq!(ttl, Ttl::After { ttl_ms: 9 });
        assert_eq!(condition, Condition::IfSeq(Seq { wall_ns: 1, counter: 2, node: NodeId(3) }));
    }

    #[test]
    fn max_is_a_reverse_scan_of_one_and_answers_not_found_where_there_is_none() {
        let Question::Shard(RequestBody::Scan { reverse, limit, keys_only, .. }) =
            question(RequestView::Max { target: TARGET }, OwnerId(1))
        else {
            panic!("a scan")
        };
        assert!(reverse && limit == 1 && !keys_only);
        let none = answer(asked(Opcode::Max), ReplyBody::Scan(Ok(ScanPage::default())));
        assert_eq!(none.head.status, Status::NotFound);
        let empty =
            answer(asked(Opcode::Scan), ReplyBody::Scan(Ok(ScanPage { records: vec![], more: true })));
        assert_eq!((empty.head.status, empty.head.flags), (Status::Ok, reply_flags::MORE));
    }

    #[test]
    fn values_stay_where_they_lie() {
        let value = Payload::Buffer { buffer: lode_engine::BufferId(5), start: 100, len: 200 };
        let found =
            Found { seq: Seq { wall_ns: 8, counter: 9, node: NodeId(1) }, value, left: TimeLeft::Ms(7) };
        let reply = answer(asked(Opcode::Get), ReplyBody::Get(Ok(Some(found))));
        assert_eq!(reply.head.seq, wire::Seq { wall_ns: 8, counter: 9, node: 1 });
        assert_eq!(reply.head.aux, 7);
        assert!(matches!(reply.body, AnswerBody::Value(Payload::Buffer { start: 100, len: 200, .. })));
    }

    #[test]
    fn a_page_travels_with_keys_versions_and_values() {
        let record = ScanRecord {
            key: "k".into(),
            seq: Seq { wall_ns: 1, ..Seq::default() },
            value: "vv".into(),
            left: TimeLeft::Ms(5),
        };
        let page = ScanPage { records: vec![record], more: false };
        let asked = Asked { flags: flags::TTL, ..asked(Opcode::Scan) };
        let AnswerBody::Bytes(body) = answer(asked, ReplyBody::Scan(Ok(page))).body else {
            panic!("a page has a body")
        };
        let (record, rest) = wire::scan::split_record(&body).expect("whole").expect("one");
        assert_eq!((record.key, record.value, record.seq.wall_ns, rest.len()), (&b"k"[..], &b"vv"[..], 1, 0));
        assert_eq!(record.ttl_ms, Some(5));
    }

    #[test]
    fn errors_carry_their_numbers() {
        let stale = ReplyBody::Write(Err(WriteError::StaleEpoch { current: Epoch(4) }));
        let stale = answer(asked(Opcode::Put), stale);
        assert!(matches!(stale.body, AnswerBody::Map { current_epoch: wire::Epoch(4) }));
        let failed = WriteError::ConditionFailed { current: Some(Seq { wall_ns: 6, ..Seq::default() }) };
        let failed = answer(asked(Opcode::Put), ReplyBody::Write(Err(failed)));
        assert_eq!(
            (failed.head.status, failed.head.aux, failed.head.seq.wall_ns),
            (Status::ConditionFailed, 1, 6)
        );
        let corrupt = answer(asked(Opcode::Get), ReplyBody::Get(Err(ReadError::Corrupt { at: 77 })));
        assert_eq!((corrupt.head.status, corrupt.head.aux), (Status::Corrupt, 77));
        let upto = Seq { wall_ns: 9, ..Seq::default() };
        for body in [
            ReplyBody::Get(Err(ReadError::Quarantined { upto })),
            ReplyBody::Write(Err(WriteError::Quarantined { upto })),
        ] {
            let answer = answer(asked(Opcode::Get), body);
            assert_eq!((answer.head.status, answer.head.seq.wall_ns), (Status::Quarantined, 9));
            let AnswerBody::Bytes(words) = answer.body else { panic!("in words") };
            assert!(String::from_utf8(words).expect("text").contains("quarantined"));
        }
    }
}
