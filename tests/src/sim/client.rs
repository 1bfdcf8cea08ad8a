//! A client: asks, keeps what it was told, and connects again when its connection is gone.

mod transaction;

use std::collections::{BTreeMap, BTreeSet};

use lode_net::client::connection::{Connection, Event, OwnedReply};
use lode_net::wire::control::{CreateTable, DropTable, MapBody};
use lode_net::wire::{
    BatchBuilder, BatchWrite, Condition, MapVersion, PartitionId, PartitionMap, Quota, RangeView, ReplyView,
    RequestView, ScanView, Seq, Status, Target, TransactionId, Ttl,
};

use super::history::History;
use super::link::LinkId;
use super::node::{BURST_MS, CHURNED, QUOTA_PARTITION, name_of, table_count, table_of, table_request};
use super::plan::Plan;
use super::work::{Ask, End, FIRST_BALANCE, Keys, OpId, RegisterWrite, When, account_version};
use crate::value;

/// Most bytes of a page.
const PAGE_BYTES: u32 = 64 << 10;

/// Which request of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The only one.
    Only,
    Begin,
    From,
    To,
    All,
    Count,
    Commit,
    Rollback,
    /// The present map, before the operation is tried once more.
    Map,
}

type Tag = (OpId, Part);

/// An operation under way, and what its transaction has read so far.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// The only request that it takes was made.
    is_whole: bool,
    transaction: TransactionId,
    from: Option<u64>,
    to: Option<u64>,
    /// Records of a list, as they were read, and as they were counted.
    found: Option<u64>,
    counted: Option<u64>,
    is_committing: bool,
}

/// One client.
pub struct SimClient {
    /// Its connection, made or being made.
    pub link: Option<LinkId>,
    connection: Connection<Tag>,
    map: Option<PartitionMap>,
    open: BTreeMap<OpId, Open>,
    /// The node takes no writes: it asks for nothing before it has connected again.
    is_put_off: bool,
    /// It has said that it will send no more; these it had asked for by then, whole.
    finished: Option<BTreeSet<OpId>>,
    /// What it has last read of each register.
    known: BTreeMap<Vec<u8>, (OpId, Seq)>,
    /// Whether the indexes of what is on the drive hold no whole keys.
    is_compact: bool,
    /// The tables that it may make.
    tables: Vec<(CreateTable, Option<u64>)>,
}

impl SimClient {
    /// One that has no connection.
    pub fn new(plan: &Plan) -> SimClient {
        SimClient {
            link: None,
            connection: new_connection(),
            map: None,
            open: BTreeMap::new(),
            is_put_off: false,
            finished: None,
            known: BTreeMap::new(),
            is_compact: plan.is_compact,
            tables: (0..table_count()).map(|table| table_request(table, plan)).collect(),
        }
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// Whether it may ask.
    pub fn is_ready(&self) -> bool {
        self.link.is_some()
            && self.connection.is_open()
            && self.map.is_some()
            && !self.is_put_off
            && self.finished.is_none()
    }

    /// It will send no more.
    pub fn finish(&mut self) {
        let asked = self.open.iter().filter(|(_, open)| open.is_whole).map(|(id, _)| *id);
        self.finished.get_or_insert(asked.collect());
    }

    /// Of what it had asked for when it said that it will send no more, what was not answered.
    pub fn owed(&self) -> Vec<OpId> {
        let asked = self.finished.iter().flatten().copied();
        asked.filter(|id| self.open.contains_key(id)).collect()
    }

    /// What it has waited for longest, of what the node has to answer.
    pub fn oldest(&self) -> Option<OpId> {
        match self.finished {
            // The next request of what takes several is not sent any more.
            Some(_) => self.owed().first().copied(),
            None => self.open.keys().next().copied(),
        }
    }

    /// Begins a connection.
    pub fn connect(&mut self, link: LinkId) {
        self.link = Some(link);
        self.connection = new_connection();
    }

    /// What it has read last of a register.
    pub fn known(&self, key: &[u8]) -> Option<(OpId, Seq)> {
        self.known.get(key).copied()
    }

    /// Bytes to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        self.connection.take_output(&mut output);
        // What would be the next request of an operation has no way any more.
        if self.finished.is_some() { Vec::new() } else { output }
    }

    /// Asks.
    pub fn ask(&mut self, id: OpId, history: &History) {
        self.open.insert(id, Open::default());
        self.begin_to_ask(id, history);
    }

    /// Makes the first request of an operation; before it one for the map, where that does not know the partition.
    fn begin_to_ask(&mut self, id: OpId, history: &History) {
        if self.needs_map(&history.op(id).ask) {
            let submitted = self.connection.submit(&RequestView::Map, (id, Part::Map));
            submitted.expect("a simulated request is within the limits");
            return;
        }
        match &history.op(id).ask {
            Ask::Get { key } => self.submit(key, (id, Part::Only), |target| RequestView::Get { target, key }),
            Ask::Put { write, when } => self.put(id, write, *when),
            Ask::Deposit { key } => {
                let value = &value::make(key, account_version(id, FIRST_BALANCE), 40);
                let (condition, ttl) = (Condition::Always, Ttl::Table);
                let request = |target| RequestView::Put { target, key, value, condition, ttl };
                self.submit(key, (id, Part::Only), request);
            }
            Ask::Delete { key, over } => {
                let condition = over.map_or(Condition::Always, |(_, seq)| Condition::IfSeq(seq));
                self.submit(key, (id, Part::Only), |target| RequestView::Delete { target, key, condition });
            }
            Ask::Batch { writes } => self.batch(id, writes),
            Ask::Scan { first, beyond, limit, reverse, ttls } => {
                let range = RangeView { start: first, end: Some(beyond) };
                let (limit, reverse, ttls, byte_budget) = (*limit, *reverse, *ttls, PAGE_BYTES);
                let scan = ScanView { range, reverse, keys_only: false, ttls, limit, byte_budget };
                self.submit(first, (id, Part::Only), |target| RequestView::Scan { target, scan });
            }
            Ask::Expire { key, ttl_ms } => {
                let ttl = Ttl::After { ttl_ms: *ttl_ms };
                self.submit(key, (id, Part::Only), |target| RequestView::Expire { target, key, ttl });
            }
            Ask::Increment { key, by } => {
                let by = *by as i64;
                let request = |target| RequestView::Increment { target, key, by, initial: 0 };
                self.submit(key, (id, Part::Only), request);
            }
            Ask::Count { first, beyond } => {
                let range = RangeView { start: first, end: Some(beyond) };
                self.submit(first, (id, Part::Only), |target| RequestView::Count { target, range });
            }
            Ask::TimeToLive { key } => {
                self.submit(key, (id, Part::Only), |target| RequestView::TimeToLive { target, key });
            }
            Ask::SignList { list, .. } => self.begin(id, list, false),
            Ask::ReadList { list } => self.begin(id, list, true),
            Ask::Transfer { from, .. } => self.begin(id, from, false),
            Ask::Audit => self.begin(id, Keys::account_range().0, true),
            Ask::MakeTable { table } => {
                let (table, ttl_ms) = self.tables[*table].clone();
                let request = match ttl_ms {
                    None => RequestView::CreateTable(table),
                    Some(ttl_ms) => RequestView::CreateTableTtl { table, ttl_ms },
                };
                self.submit_to_node(id, &request);
            }
            Ask::DropTable => {
                let name = name_of(CHURNED).to_owned();
                self.submit_to_node(id, &RequestView::DropTable(DropTable { name }));
            }
            Ask::SetQuota { requests_per_s } => {
                let limited =
                    |requests_per_s| Quota { requests_per_s, burst_ms: BURST_MS, ..Quota::default() };
                let (partition, quota) = (PartitionId(QUOTA_PARTITION + 1), requests_per_s.map(limited));
                self.submit_to_node(id, &RequestView::SetQuota { table: name_of(0), partition, quota });
            }
        }
    }

    fn submit_to_node(&mut self, id: OpId, request: &RequestView<'_>) {
        let submitted = self.connection.submit(request, (id, Part::Only));
        submitted.expect("a simulated request is within the limits");
        self.open.entry(id).and_modify(|open| open.is_whole = true);
    }

    /// Whether the map that it has does not know the partition of an operation.
    fn needs_map(&self, ask: &Ask) -> bool {
        let tables = self.map.as_ref().expect("a map came with the handshake").tables();
        let is_there =
            |key| tables.iter().any(|table| table.name == table_of(key) && table.route(key).is_some());
        ask.key().is_some_and(|key| !is_there(key))
    }

    /// Takes the map in that a reply carries, if any.
    fn adopt_map(&mut self, view: ReplyView<'_>) -> Result<(), String> {
        let Some(bytes) = view.map_body() else { return Ok(()) };
        let body = MapBody::from_bytes(bytes).map_err(|error| error.to_string())?;
        let map = PartitionMap::new(body).map_err(|error| error.to_string())?;
        let version = map.version();
        if self.map.as_ref().is_none_or(|known| known.version() < version) {
            self.connection.set_map_version(version);
            self.map = Some(map);
        }
        Ok(())
    }

    fn submit<'a>(&mut self, key: &[u8], tag: Tag, request: impl FnOnce(Target) -> RequestView<'a>) {
        let tables = self.map.as_ref().expect("a map came with the handshake").tables();
        let table =
            tables.iter().find(|table| table.name == table_of(key)).expect("the tables are all there");
        let target = table.route(key).expect("it was looked for").target;
        let submitted = self.connection.submit(&request(target), tag);
        submitted.expect("a simulated request is within the limits");
        let (id, part) = tag;
        self.open.entry(id).and_modify(|open| open.is_whole = part == Part::Only);
    }

    fn put(&mut self, id: OpId, write: &RegisterWrite, when: When) {
        let key = &write.key;
        let ttl = write.ttl_ms.map_or(Ttl::Table, |ttl_ms| Ttl::After { ttl_ms });
        let value = value::make(key, id.0, write.value_bytes.expect("a put has a value"));
        let condition = match when {
            When::Always => Condition::Always,
            When::Absent => Condition::IfAbsent,
            When::Over(_, seq) => Condition::IfSeq(seq),
        };
        let value = &value;
        self.submit(key, (id, Part::Only), |target| RequestView::Put { target, key, value, condition, ttl });
    }

    fn batch(&mut self, id: OpId, writes: &[RegisterWrite]) {
        let mut batch = BatchBuilder::new();
        for RegisterWrite { key, value_bytes, .. } in writes {
            match value_bytes {
                Some(bytes) => {
                    batch.push(BatchWrite::Put { key, value: &value::make(key, id.0, *bytes) });
                }
                None => batch.push(BatchWrite::Delete { key }),
            }
        }
        let batch = batch.view();
        self.submit(&writes[0].key, (id, Part::Only), |target| RequestView::Batch { target, batch });
    }

    /// Takes bytes that came. Says what is wrong with them, if they are none that a node sends.
    pub fn receive(&mut self, bytes: &[u8], history: &mut History) -> Result<(), String> {
        let mut input = bytes;
        loop {
            let event = match self.connection.next_event(&mut input) {
                Ok(Some(Event::Opened(hello))) => {
                    let map = hello.map.ok_or("the node gave no map")?;
                    self.map = Some(PartitionMap::new(map).map_err(|error| error.to_string())?);
                    continue;
                }
                Ok(Some(Event::Reply { tag, reply, .. })) => Some((tag, reply.into_owned())),
                Ok(None) => None,
                Err(error) => return Err(error.to_string()),
            };
            let Some((tag, reply)) = event else { return Ok(()) };
            self.reply(tag, &reply, history);
        }
    }

    /// The connection is gone: what was under way may have been done, if it was sent.
    pub fn lost(&mut self, history: &mut History) {
        self.link = None;
        self.map = None;
        self.is_put_off = false;
        self.finished = None;
        let unanswered: BTreeMap<OpId, (Part, bool)> = self
            .connection
            .drain(0)
            .into_iter()
            .map(|lost| (lost.tag.0, (lost.tag.1, lost.maybe_sent)))
            .collect();
        for id in std::mem::take(&mut self.open).into_keys() {
            let (part, maybe_sent) = unanswered.get(&id).copied().unwrap_or((Part::Rollback, false));
            let writes = match history.op(id).ask {
                _ if part == Part::Map => false,
                Ask::Get { .. } | Ask::Scan { .. } | Ask::Count { .. } | Ask::TimeToLive { .. } => false,
                Ask::Audit | Ask::ReadList { .. } => false,
                Ask::Transfer { .. } | Ask::SignList { .. } => part == Part::Commit,
                _ => true,
            };
            let end = if writes && maybe_sent { End::Unknown } else { End::Refused(Status::NotReady) };
            history.end(id, end);
        }
    }

    fn reply(&mut self, (id, part): Tag, reply: &OwnedReply, history: &mut History) {
        if !self.open.contains_key(&id) {
            // A transaction that was given up, and rolled back.
            return;
        }
        let status = reply.status();
        if let Err(what) = self.adopt_map(reply.view()) {
            history.violation(id, &what);
        }
        if (part, status) == (Part::Map, Status::Ok) {
            return match self.needs_map(&history.op(id).ask) {
                true => self.end(id, End::IsNot, history),
                false => self.begin_to_ask(id, history),
            };
        }
        self.is_put_off |= status == Status::Poisoned;
        if let Some(end) = refusal(status, part) {
            if matches!(part, Part::From | Part::To | Part::All | Part::Count) {
                self.roll_back(id, history);
            }
            return self.end(id, end, history);
        }
        let view = reply.view();
        let step = match part {
            Part::Only => self.answer(id, status, view, history).map(Some),
            _ => self.transaction(id, part, status, view, history),
        };
        match step {
            Ok(Some(end)) => self.end(id, end, history),
            Ok(None) => {}
            Err(what) => {
                history.violation(id, &what);
                self.end(id, End::Refused(status), history);
            }
        }
    }

    fn end(&mut self, id: OpId, end: End, history: &mut History) {
        self.open.remove(&id);
        history.end(id, end);
    }

    /// How an operation of one request ended.
    fn answer(
        &mut self,
        id: OpId,
        status: Status,
        view: ReplyView<'_>,
        history: &mut History,
    ) -> Result<End, String> {
        let ask = history.op(id).ask.clone();
        let (seq, aux) = (view.header.seq, view.header.aux);
        match (&ask, status) {
            (Ask::Get { .. } | Ask::TimeToLive { .. }, Status::NotFound) => Ok(End::Found(None)),
            (Ask::TimeToLive { key }, Status::Ok) => {
                history.saw_left(id, key, aux);
                Ok(End::Lives)
            }
            (Ask::Count { .. }, Status::Ok) => Ok(End::Counted(aux)),
            (Ask::Get { key }, Status::Ok) => {
                let writer = writer_of(key, view.body)?;
                history.saw_version(writer, key, seq);
                history.saw_left(id, key, aux);
                self.known.insert(key.clone(), (writer, seq));
                Ok(End::Found(Some(writer)))
            }
            (Ask::Put { write, .. }, Status::Ok) => {
                history.saw_version(id, &write.key, seq);
                self.known.insert(write.key.clone(), (id, seq));
                Ok(End::Written { seq, existed: aux == 1 })
            }
            (Ask::Put { when: When::Absent | When::Over(..), .. }, Status::ConditionFailed)
            | (Ask::Delete { over: Some(_), .. }, Status::ConditionFailed) => Ok(End::ConditionFailed),
            (Ask::Expire { .. }, Status::Ok) => Ok(End::Renewed { existed: aux == 1 }),
            (Ask::Delete { .. } | Ask::Batch { .. } | Ask::Deposit { .. }, Status::Ok) => {
                Ok(End::Written { seq, existed: aux == 1 })
            }
            (Ask::Increment { .. }, Status::Ok) => Ok(End::Counted(aux)),
            (Ask::MakeTable { .. } | Ask::DropTable | Ask::SetQuota { .. }, Status::Ok) => Ok(End::Changed),
            // It is dropped; what a shard could not free is freed later.
            (Ask::DropTable, Status::DropUnfinished) => Ok(End::Changed),
            (Ask::MakeTable { .. }, Status::TableExists) => Ok(End::Exists),
            // The partition of the quota may be lost to damage.
            (Ask::DropTable | Ask::SetQuota { .. }, Status::UnknownTable) => Ok(End::IsNot),
            (Ask::Scan { first, beyond, limit, reverse, ttls }, Status::Ok) => {
                let mut page = Vec::new();
                for record in view.records() {
                    let record = record.map_err(|error| error.to_string())?;
                    let writer = writer_of(record.key, record.value)?;
                    history.saw_version(writer, record.key, record.seq);
                    if *ttls {
                        history.saw_left(id, record.key, record.ttl_ms.unwrap_or(0));
                    }
                    page.push((record.key.to_vec(), writer));
                }
                check_page(&page, (first, beyond), *limit, *reverse)?;
                Ok(End::Page(page, view.has_more()))
            }
            (_, status) => Err(format!("it was answered {status:?}: {}", view.message())),
        }
    }
}

fn new_connection() -> Connection<Tag> {
    Connection::new("simulated", 0, MapVersion(0))
}

/// How an operation ended that the node refused, or might have done; nothing where it did not refuse.
fn refusal(status: Status, part: Part) -> Option<End> {
    let writes = matches!(part, Part::Only | Part::Commit);
    match status {
        Status::Poisoned | Status::MayReturn if writes => Some(End::Unknown),
        Status::Busy
        | Status::Full
        | Status::MemoryFull
        | Status::NotReady
        | Status::DeviceError
        | Status::Corrupt
        | Status::Quarantined
        | Status::StaleMap
        | Status::Poisoned
        | Status::Conflict
        | Status::TransactionEnded
        | Status::ReadSetFull
        | Status::TooManyTransactions
        | Status::Throttled => Some(End::Refused(status)),
        _ => None,
    }
}

/// The operation that wrote this value.
fn writer_of(key: &[u8], value: &[u8]) -> Result<OpId, String> {
    let version = value::version(key, value);
    version
        .map(OpId)
        .ok_or_else(|| format!("the value of {} is damaged, or another key's", key.escape_ascii()))
}

fn check_page(
    page: &[(Vec<u8>, OpId)],
    (first, beyond): (&[u8], &[u8]),
    limit: u32,
    reverse: bool,
) -> Result<(), String> {
    let in_order = page.is_sorted_by(|a, b| if reverse { a.0 > b.0 } else { a.0 < b.0 });
    let in_range = page.iter().all(|(key, _)| key.as_slice() >= first && key.as_slice() < beyond);
    match in_order && in_range && page.len() <= limit as usize {
        true => Ok(()),
        false => Err(format!("a page out of order, out of range or too long: {page:?}")),
    }
}
