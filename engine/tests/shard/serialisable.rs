//! Random histories of concurrent transactions and plain writes, explained afterwards: what was committed, in
//! the order of its versions, must have seen exactly what one after the other would have seen; and what only
//! read must have seen one instant. Every seed is printed and replays exactly.

use std::collections::BTreeMap;

use crate::support::Sim;
use crate::support::ask::target;
use crate::support::random::Random;
use lode_engine::{
    BatchWrite, Condition, Geometry, KeyRange, OwnerId, ReadError, Reply, ReplyBody, Request, RequestBody,
    RequestId, ScanWish, Seq, StoreKind, TransactionId, TransactionRead, Ttl, WriteError,
};

const CLIENTS: usize = 8;
const KEYS: u64 = 12;
const DEFAULT_SEEDS: u64 = 60;

type Key = Vec<u8>;
type State = BTreeMap<Key, Vec<u8>>;
type Writes = Vec<(Key, Option<Vec<u8>>)>;

/// A read of a transaction.
#[derive(Debug, Clone)]
enum Read {
    Get(Key),
    Scan { start: Key, end: Option<Key>, reverse: bool, limit: u32, keys_only: bool },
    Count { start: Key, end: Option<Key> },
}

/// What it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Value(Option<Vec<u8>>),
    Records(Vec<(Key, Vec<u8>)>, bool),
    Count(u64),
}

/// What a client waits for.
#[derive(Debug, Clone)]
enum Doing {
    Begin { read_only: bool },
    Read(Read),
    Commit(Writes),
    Rollback,
    Plain(Writes),
}

#[derive(Debug, Default)]
struct Client {
    waits: Option<(RequestId, Doing)>,
    transaction: Option<TransactionId>,
    read_only: bool,
    reads: Vec<(Read, Seen)>,
    /// How many writes were acknowledged when it began.
    begun_after: usize,
    to_read: u64,
}

/// A transaction that is over.
#[derive(Debug)]
struct Done {
    reads: Vec<(Read, Seen)>,
    begun_after: usize,
    /// Its version, where it was committed with writes.
    committed: Option<Seq>,
}

struct History {
    partition: u32,
    clients: Vec<Client>,
    /// What was written, and the version of its last record; in order of acknowledgement.
    written: Vec<(Seq, Writes)>,
    done: Vec<Done>,
    conflicts: usize,
    next_value: u64,
}

fn key(random: &mut Random) -> Key {
    format!("k{:02}", random.below(KEYS)).into_bytes()
}

fn range(random: &mut Random) -> (Key, Option<Key>) {
    let (a, b) = (key(random), key(random));
    match random.below(4) {
        0 => (Vec::new(), None),
        1 => (a, None),
        _ => (a.clone().min(b.clone()), Some(a.max(b))),
    }
}

fn read(random: &mut Random) -> Read {
    match random.below(5) {
        0 | 1 => Read::Get(key(random)),
        2 => {
            let (start, end) = range(random);
            Read::Count { start, end }
        }
        _ => {
            let (start, end) = range(random);
            let limit = if random.percent(50) { 4096 } else { random.below(4) as u32 + 1 };
            Read::Scan { start, end, reverse: random.percent(50), limit, keys_only: random.percent(25) }
        }
    }
}

fn as_range<'a>(start: &'a [u8], end: Option<&'a Key>) -> KeyRange<'a> {
    KeyRange { start, end: end.map(Vec::as_slice) }
}

fn batch(writes: &Writes) -> Vec<BatchWrite<'_>> {
    writes
        .iter()
        .map(|(key, value)| match value {
            Some(value) => BatchWrite::Put { key, value },
            None => BatchWrite::Delete { key },
        })
        .collect()
}

/// What a read sees of a state.
fn look(state: &State, read: &Read) -> Seen {
    let inside = |start: &Key, end: &Option<Key>| {
        let (start, end) = (start.clone(), end.clone());
        move |key: &Key| *key >= start && end.as_ref().is_none_or(|end| key < end)
    };
    match read {
        Read::Get(key) => Seen::Value(state.get(key).cloned()),
        Read::Count { start, end } => {
            let inside = inside(start, end);
            Seen::Count(state.keys().filter(|key| inside(key)).count() as u64)
        }
        Read::Scan { start, end, reverse, limit, keys_only } => {
            let inside = inside(start, end);
            let value = |value: &Vec<u8>| if *keys_only { Vec::new() } else { value.clone() };
            let found = state.iter().filter(|(key, _)| inside(key));
            let mut records: Vec<_> = found.map(|(key, held)| (key.clone(), value(held))).collect();
            if *reverse {
                records.reverse();
            }
            let more = records.len() > *limit as usize;
            records.truncate(*limit as usize);
            Seen::Records(records, more)
        }
    }
}

/// Whether a read may have seen that. Whether there is more behind a full page, a transaction does not learn
/// for good: the page is what it has read.
fn agree(truth: &Seen, seen: &Seen) -> bool {
    match (truth, seen) {
        (Seen::Records(truth, more), Seen::Records(seen, seen_more)) => {
            truth == seen && (*seen_more || !more)
        }
        _ => truth == seen,
    }
}

fn body(partition: u32, transaction: Option<TransactionId>, doing: &Doing) -> RequestBody<'_> {
    let target = target(partition);
    let within = |read| RequestBody::Within { target, transaction: transaction.expect("it began"), read };
    match doing {
        Doing::Begin { read_only } => {
            let (owner, read_only) = (OwnerId(1), *read_only);
            RequestBody::Begin { target, owner, read_only, lifetime_ms: 0 }
        }
        Doing::Read(Read::Get(key)) => within(TransactionRead::Get { key }),
        Doing::Read(Read::Count { start, end }) => {
            within(TransactionRead::Count { range: as_range(start, end.as_ref()) })
        }
        Doing::Read(Read::Scan { start, end, reverse, limit, keys_only }) => {
            let (range, byte_budget) = (as_range(start, end.as_ref()), 1 << 20);
            let (reverse, limit, keys_only) = (*reverse, *limit, *keys_only);
            within(TransactionRead::Scan(ScanWish { range, reverse, limit, byte_budget, keys_only }))
        }
        Doing::Commit(writes) => {
            let transaction = transaction.expect("it began");
            RequestBody::Commit { target, transaction, writes: batch(writes) }
        }
        Doing::Rollback => RequestBody::Rollback { target, transaction: transaction.expect("it began") },
        Doing::Plain(writes) => match &writes[..] {
            [(key, Some(value))] => {
                let (condition, ttl) = (Condition::Always, Ttl::Table);
                RequestBody::Put { target, key, value, condition, ttl }
            }
            [(key, None)] => RequestBody::Delete { target, key, condition: Condition::Always },
            _ => RequestBody::Batch { target, writes: batch(writes) },
        },
    }
}

impl History {
    fn new(partition: u32) -> History {
        let clients = (0..CLIENTS).map(|_| Client::default()).collect();
        History { partition, clients, written: Vec::new(), done: Vec::new(), conflicts: 0, next_value: 0 }
    }

    /// Writes of distinct values: whoever sees one knows whose it is.
    fn writes(&mut self, random: &mut Random) -> Writes {
        let mut writes = Writes::new();
        for _ in 0..=random.below(3) {
            self.next_value += 1;
            let size = if random.percent(20) { 5_000 } else { 20 };
            let value = format!("{:0size$}", self.next_value).into_bytes();
            writes.push((key(random), random.percent(70).then_some(value)));
        }
        writes
    }

    /// What an idle client does next.
    fn next(&mut self, at: usize, random: &mut Random) -> Doing {
        let Client { transaction, to_read, read_only, .. } = self.clients[at];
        if transaction.is_none() {
            // The first ones only write, without a transaction.
            return match at {
                0 => Doing::Plain(self.writes(random)),
                _ => Doing::Begin { read_only: random.percent(30) },
            };
        }
        if to_read > 0 {
            self.clients[at].to_read -= 1;
            return Doing::Read(read(random));
        }
        match random.below(10) {
            0 => Doing::Rollback,
            _ if read_only => Doing::Commit(Writes::new()),
            _ => Doing::Commit(self.writes(random)),
        }
    }

    /// Those that wait for nothing ask for something.
    fn ask(&mut self, sim: &mut Sim) {
        let mut asked = Vec::new();
        for at in 0..CLIENTS {
            if self.clients[at].waits.is_none() && sim.random.percent(60) {
                let doing = self.next(at, &mut sim.random);
                if let Doing::Begin { read_only } = doing {
                    let (begun_after, to_read) = (self.written.len(), sim.random.below(6));
                    self.clients[at] = Client { read_only, begun_after, to_read, ..Client::default() };
                }
                let id = sim.next_id();
                self.clients[at].waits = Some((id, doing.clone()));
                asked.push((id, self.clients[at].transaction, doing));
            }
        }
        let requests = asked.iter().map(|(id, transaction, doing)| Request {
            id: *id,
            body: body(self.partition, *transaction, doing),
        });
        sim.step(&mut requests.collect());
    }

    /// Takes the replies that have come.
    fn take(&mut self, sim: &mut Sim) {
        for reply in std::mem::take(&mut sim.replies) {
            let waits = |client: &Client| client.waits.as_ref().is_some_and(|(id, _)| *id == reply.id);
            let at = self.clients.iter().position(waits).expect("every reply is a client's");
            let (_, doing) = self.clients[at].waits.take().expect("it waits");
            self.took(at, doing, reply, sim);
        }
    }

    fn took(&mut self, at: usize, doing: Doing, reply: Reply, sim: &mut Sim) {
        match (doing, reply.body) {
            (Doing::Begin { .. }, ReplyBody::Begin(Ok(id))) => self.clients[at].transaction = Some(id),
            (Doing::Read(read), ReplyBody::Get(Ok(found))) => {
                let value = found.map(|found| sim.value(found.value));
                self.clients[at].reads.push((read, Seen::Value(value)));
            }
            (Doing::Read(read), ReplyBody::Count(Ok(count))) => {
                self.clients[at].reads.push((read, Seen::Count(count)));
            }
            (Doing::Read(read), ReplyBody::Scan(Ok(page))) => {
                let records = page.records.into_iter().map(|r| (r.key.to_vec(), r.value.to_vec())).collect();
                self.clients[at].reads.push((read, Seen::Records(records, page.more)));
            }
            (
                Doing::Read(_),
                ReplyBody::Get(Err(ReadError::Busy)) | ReplyBody::Scan(Err(ReadError::Busy)),
            ) => {}
            (Doing::Commit(writes), ReplyBody::Write(Ok(written))) => {
                let committed = (!writes.is_empty()).then_some(written.seq);
                self.over(at, committed);
                self.written.extend(committed.map(|seq| (seq, writes)));
            }
            (Doing::Commit(_), ReplyBody::Write(Err(WriteError::Conflict { .. }))) => {
                assert!(!self.clients[at].read_only, "what only reads does not conflict");
                self.conflicts += 1;
                self.over(at, None);
            }
            (Doing::Rollback, ReplyBody::Rollback) => self.over(at, None),
            (Doing::Plain(writes), ReplyBody::Write(Ok(written))) => {
                // A delete of nothing writes nothing.
                if written.seq != Seq::default() {
                    self.written.push((written.seq, writes));
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A transaction is over. Its reads count, whatever became of it.
    fn over(&mut self, at: usize, committed: Option<Seq>) {
        let Client { reads, begun_after, .. } = std::mem::take(&mut self.clients[at]);
        self.done.push(Done { reads, begun_after, committed });
    }

    /// Explains everything.
    fn check(&self, seed: u64) {
        let mut order: Vec<&(Seq, Writes)> = self.written.iter().collect();
        order.sort_by_key(|(seq, _)| *seq);
        let mut states = vec![State::new()];
        for (_, writes) in &order {
            let mut state = states.last().expect("there is the first").clone();
            for (key, value) in writes {
                match value {
                    Some(value) => state.insert(key.clone(), value.clone()),
                    None => state.remove(key),
                };
            }
            states.push(state);
        }
        let place_of = |seq: Seq| order.iter().position(|(other, _)| *other == seq).expect("it was written");
        for done in &self.done {
            let explains =
                |at: usize| done.reads.iter().all(|(read, seen)| agree(&look(&states[at], read), seen));
            // Whatever was acknowledged before it began, it saw.
            let before = self.written[..done.begun_after].iter();
            let least = before.map(|(seq, _)| place_of(*seq) + 1).max().unwrap_or(0);
            let instant = (least..states.len()).find(|at| explains(*at));
            assert!(instant.is_some(), "seed {seed}: no instant from {least} explains {done:?}");
            if let Some(seq) = done.committed {
                assert!(explains(place_of(seq)), "seed {seed}: at its commit it saw other things: {done:?}");
            }
        }
    }
}

fn run(seed: u64, partition: u32) -> History {
    let geometry = Geometry::plan(6 << 20, 1, Some(128 << 10), 20_000).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| {
        config.cache_bytes = 16 << 10;
        config.frame_bytes = 8 << 10;
    });
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    sim.create(2, StoreKind::Memory, &[2]).expect("the drive is empty");
    let mut history = History::new(partition);
    for _ in 0..1500 {
        history.ask(&mut sim);
        history.take(&mut sim);
    }
    let is_waiting = |history: &History| history.clients.iter().any(|client| client.waits.is_some());
    for _ in 0..1_000_000 {
        if !is_waiting(&history) {
            break;
        }
        sim.step(&mut Vec::new());
        history.take(&mut sim);
    }
    assert!(!is_waiting(&history), "seed {seed}: a request is never answered");
    history.check(seed);
    for at in 0..CLIENTS {
        if let Some(transaction) = history.clients[at].transaction {
            sim.rollback(partition, transaction);
        }
    }
    sim.settle();
    let stats = sim.shard.stats();
    assert_eq!((stats.transactions_open, stats.transaction_bytes), (0, 0), "seed {seed}");
    history
}

#[test]
fn random_histories_are_serialisable() {
    let seeds = std::env::var("LODE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_SEEDS);
    let (mut committed, mut conflicts) = (0, 0);
    for seed in 1..=seeds {
        for partition in [1, 2] {
            println!("seed {seed}, partition {partition}");
            let history = run(seed, partition);
            committed += history.done.iter().filter(|done| done.committed.is_some()).count();
            conflicts += history.conflicts;
        }
    }
    println!("{committed} committed, {conflicts} conflicts");
    assert!(committed as u64 > 20 * seeds && conflicts as u64 > 20 * seeds, "histories worth a look");
}
