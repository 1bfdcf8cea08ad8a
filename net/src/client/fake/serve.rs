//! One connection of the fake node.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{State, Trick};
use crate::wire::control::PlacementKind;
use crate::wire::control::TableInfo;
use crate::wire::map::{Partition, TableRoutes, hash_of};
use crate::wire::opcode::reply_flags;
use crate::wire::reply::{ReplyHead, encode_reply};
use crate::wire::scan::{RecordView, push_record};
use crate::wire::server::{ConnectionLimits, Context};
use crate::wire::{
    Condition, Epoch, Frame, Incoming, MapVersion, Opcode, RangeView, RequestView, ScanView, Seq,
    ServerConnection, ShardId, Status, TableId, Target,
};

pub(super) fn connection(mut stream: TcpStream, shard: u16, state: &Arc<Mutex<State>>, started: Instant) {
    let mut connection = ServerConnection::new(ShardId(shard), ConnectionLimits::default(), 0);
    let mut buffer = vec![0u8; 10_000];
    let mut late = Vec::new();
    // What is held back goes out after the next answer, or when the client asks nothing more.
    stream.set_read_timeout(Some(Duration::from_millis(10))).expect("a time that is not zero");
    loop {
        let mut output = Vec::new();
        let open = match stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(read) => {
                take_in(&mut connection, &mut &buffer[..read], state, started, &mut output, &mut late)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                output.append(&mut late);
                true
            }
            Err(_) => false,
        };
        if stream.write_all(&output).is_err() || !open {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Whether the connection goes on.
fn take_in(
    connection: &mut ServerConnection,
    input: &mut &[u8],
    state: &Arc<Mutex<State>>,
    started: Instant,
    output: &mut Vec<u8>,
    late: &mut Vec<u8>,
) -> bool {
    loop {
        let mut state = state.lock().expect("no test panics with the lock held");
        let (info, map) = (state.info.clone(), state.map.clone());
        let node = (state.not_ready == 0).then_some(&*info);
        let now_ns = started.elapsed().as_nanos() as u64;
        let was_open = connection.is_open();
        match connection.receive(input, &Context { node, map: &map, crowded: false, gate: None, now_ns }) {
            Incoming::NeedMore { .. } => return true,
            Incoming::Close { reply, .. } => {
                output.extend(reply);
                return false;
            }
            Incoming::Reply(reply) => {
                if !was_open {
                    state.not_ready = state.not_ready.saturating_sub(1);
                }
                output.extend(reply);
            }
            Incoming::Request(frame) => {
                let opcode = Opcode::from_u8(frame.header.opcode).expect("the client sends known opcodes");
                let trick = state.next_trick(opcode);
                *state.served.entry(opcode as u8).or_default() += 1;
                if trick == Trick::HangUp {
                    return false;
                }
                let reply = match trick {
                    Trick::Swallow => Vec::new(),
                    Trick::Busy => reply(&frame, Status::Busy, map.map.version(), &[], |_| {}),
                    _ => answer(&mut state, connection, &frame),
                };
                connection.request_done();
                match trick {
                    Trick::ServeAndHangUp => return false,
                    Trick::AnswerLate => late.extend(reply),
                    _ => {
                        output.extend(reply);
                        output.append(late);
                    }
                }
            }
        }
    }
}

fn reply(
    frame: &Frame<'_>,
    status: Status,
    version: MapVersion,
    body: &[u8],
    set: impl FnOnce(&mut ReplyHead),
) -> Vec<u8> {
    let mut head = ReplyHead::new(frame.header.request_id, frame.header.opcode, status, version);
    set(&mut head);
    let mut out = Vec::new();
    encode_reply(&head, body, &mut out);
    out
}

fn answer(state: &mut State, connection: &mut ServerConnection, frame: &Frame<'_>) -> Vec<u8> {
    let request = frame.view().expect("the client sends well-formed requests");
    let map = state.map.clone();
    if !request.opcode().is_for_partition() {
        return answer_node(state, frame, request);
    }
    let target = Target { partition: frame.header.partition, epoch: frame.header.epoch };
    let found = map.map.partition(target.partition);
    let current = found.map_or(Epoch(0), |(_, p)| p.epoch);
    match found.filter(|_| current == target.epoch) {
        Some((table, partition)) => answer_records(state, frame, request, table, partition),
        None => connection.stale_map_reply(frame.header.request_id, frame.header.opcode, current, &map),
    }
}

fn answer_node(state: &mut State, frame: &Frame<'_>, request: RequestView<'_>) -> Vec<u8> {
    let mut status = Status::Ok;
    let mut body = Vec::new();
    match request {
        RequestView::CreateTable(create) => match state.map.map.table(&create.name) {
            Some(_) => status = Status::TableExists,
            None => {
                let info: TableInfo = state.create(&create.name, &create.placement, create.store);
                body = info.to_bytes();
            }
        },
        RequestView::DropTable(drop) => {
            let id = state.map.map.table(&drop.name).map(|t| t.id);
            let mut map = state.map.map.to_body();
            map.tables.retain(|t| Some(TableId(t.id)) != id);
            map.partitions.retain(|p| Some(TableId(p.table)) != id);
            match id {
                Some(_) => state.publish(map),
                None => status = Status::UnknownTable,
            }
        }
        RequestView::ListTables => body = state.tables().to_bytes(),
        RequestView::Stats => body = b"{\"shards\": 2}".to_vec(),
        RequestView::Checkpoint => status = Status::NoSpace,
        RequestView::Scrub => {}
        other => panic!("not for the node: {other:?}"),
    }
    reply(frame, status, state.map.map.version(), &body, |_| {})
}

fn answer_records(
    state: &mut State,
    frame: &Frame<'_>,
    request: RequestView<'_>,
    table: &TableRoutes,
    partition: &Partition,
) -> Vec<u8> {
    let version = state.map.map.version();
    let done = |seq: Seq, aux: u64| reply(frame, Status::Ok, version, &[], |h| (h.seq, h.aux) = (seq, aux));
    match request {
        RequestView::Get { key, .. } => match state.records.get(&(table.id, key.to_vec())) {
            Some((seq, value)) => reply(frame, Status::Ok, version, value, |h| h.seq = *seq),
            None => reply(frame, Status::NotFound, version, &[], |_| {}),
        },
        RequestView::Put { key, value, condition, .. } => {
            write(state, frame, (table.id, key.to_vec()), Some(value), condition)
        }
        RequestView::Delete { key, condition, .. } => {
            write(state, frame, (table.id, key.to_vec()), None, condition)
        }
        RequestView::Increment { key, by, initial, .. } => {
            let name = (table.id, key.to_vec());
            let present = state.records.get(&name).map(|(_, value)| std::str::from_utf8(value));
            let number = match present {
                None => Some(initial),
                Some(text) => text.ok().and_then(|text| text.parse().ok()),
            };
            let Some(number) = number else {
                return reply(frame, Status::NotANumber, version, &[], |_| {});
            };
            let Some(sum) = i64::checked_add(number, by) else {
                return reply(frame, Status::NumberOverflow, version, &[], |h| {
                    h.aux = number.cast_unsigned()
                });
            };
            let seq = state.next_seq();
            state.records.insert(name, (seq, sum.to_string().into_bytes()));
            done(seq, sum.cast_unsigned())
        }
        RequestView::Batch { batch, .. } => {
            let mut seq = Seq::default();
            for write in batch.writes() {
                seq = state.next_seq();
                match write.parts() {
                    (key, Some(value)) => {
                        state.records.insert((table.id, key.to_vec()), (seq, value.to_vec()));
                    }
                    (key, None) => drop(state.records.remove(&(table.id, key.to_vec()))),
                }
            }
            done(seq, 0)
        }
        RequestView::Scan { scan, .. } => page(state, frame, table, partition, &scan),
        RequestView::Min { .. } => page(state, frame, table, partition, &whole(false)),
        RequestView::Max { .. } => page(state, frame, table, partition, &whole(true)),
        RequestView::Count { range, .. } => {
            let scan = ScanView { range, ..whole(false) };
            done(Seq::default(), matching(state, table, partition, &scan).count() as u64)
        }
        other => panic!("not for a partition: {other:?}"),
    }
}

fn write(
    state: &mut State,
    frame: &Frame<'_>,
    key: (TableId, Vec<u8>),
    value: Option<&[u8]>,
    condition: Condition,
) -> Vec<u8> {
    let version = state.map.map.version();
    let present = state.records.get(&key).map(|(seq, _)| *seq);
    let holds = match condition {
        Condition::Always => true,
        Condition::IfAbsent => present.is_none(),
        Condition::IfSeq(expected) => present == Some(expected),
    };
    if !holds {
        return reply(frame, Status::ConditionFailed, version, &[], |h| {
            (h.seq, h.aux) = (present.unwrap_or_default(), u64::from(present.is_some()));
        });
    }
    let seq = state.next_seq();
    match value {
        Some(value) => drop(state.records.insert(key, (seq, value.to_vec()))),
        None => drop(state.records.remove(&key)),
    }
    reply(frame, Status::Ok, version, &[], |h| (h.seq, h.aux) = (seq, u64::from(present.is_some())))
}

fn whole(reverse: bool) -> ScanView<'static> {
    ScanView {
        range: RangeView::default(),
        reverse,
        keys_only: false,
        ttls: false,
        limit: 1,
        byte_budget: u32::MAX,
    }
}

fn matching<'s>(
    state: &'s State,
    table: &'s TableRoutes,
    partition: &'s Partition,
    scan: &'s ScanView<'_>,
) -> impl DoubleEndedIterator<Item = RecordView<'s>> {
    let inside = move |key: &[u8]| {
        let held = match table.placement {
            PlacementKind::Hash => partition.holds(&hash_of(key)),
            PlacementKind::Range => partition.holds(key),
        };
        held && key >= scan.range.start && scan.range.end.is_none_or(|end| key < end)
    };
    let of_table = state.records.iter().filter(move |((t, key), _)| *t == table.id && inside(key));
    of_table.map(|((_, key), (seq, value))| RecordView { key, seq: *seq, value, ttl_ms: None })
}

fn page(
    state: &State,
    frame: &Frame<'_>,
    table: &TableRoutes,
    partition: &Partition,
    scan: &ScanView<'_>,
) -> Vec<u8> {
    let mut records: Vec<RecordView<'_>> = matching(state, table, partition, scan).collect();
    if scan.reverse {
        records.reverse();
    }
    let more = records.len() > scan.limit as usize;
    records.truncate(scan.limit as usize);
    let single = frame.header.opcode != Opcode::Scan as u8;
    let status = if records.is_empty() && single { Status::NotFound } else { Status::Ok };
    let mut body = Vec::new();
    for record in &records {
        match scan.keys_only {
            true => push_record(&mut body, &RecordView { seq: Seq::default(), value: &[], ..*record }),
            false => push_record(&mut body, record),
        }
    }
    reply(frame, status, state.map.map.version(), &body, |h| {
        h.aux = records.len() as u64;
        h.flags = if more && !single { reply_flags::MORE } else { 0 };
    })
}
