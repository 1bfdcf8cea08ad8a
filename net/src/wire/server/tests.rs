use super::*;
use crate::testing::Lcg;
use crate::wire::control::{Hello, HelloReply, MapBody};
use crate::wire::reply::ReplyView;
use crate::wire::request::{HelloView, Secret, Target};
use crate::wire::{Epoch, PartitionId, Quota};

fn node() -> NodeInfo {
    NodeInfo {
        name: "n".into(),
        incarnation: 11,
        shards: vec![ShardAddress { shard: 0, port: 4000 }],
        limits: NodeLimits::default(),
    }
}

fn map(version: u32) -> PublishedMap {
    PublishedMap::new(MapBody { version, ..MapBody::default() }).expect("an empty map is a map")
}

fn connection(limits: ConnectionLimits) -> ServerConnection {
    ServerConnection::new(ShardId(2), limits, 0)
}

fn bytes_of(id: u64, map_version: u32, request: &RequestView<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(RequestId(id), MapVersion(map_version), &mut out).expect("small enough");
    out
}

fn hello(id: u64, versions: (u16, u16), map_version: u32, incarnation: u64) -> Vec<u8> {
    let hello = Hello { client_name: "test".into(), incarnation };
    let view = HelloView { oldest_version: versions.0, newest_version: versions.1, hello };
    bytes_of(id, map_version, &RequestView::Hello(view))
}

fn get(id: u64) -> Vec<u8> {
    let target = Target { partition: PartitionId(1), epoch: Epoch(1) };
    bytes_of(id, 0, &RequestView::Get { target, key: b"k" })
}

fn status_of(reply: &[u8]) -> (Status, u64) {
    let view = ReplyView::of_frame(reply);
    (view.status().expect("known"), view.header.request_id.0)
}

fn opened(limits: ConnectionLimits, node: &NodeInfo, map: &PublishedMap) -> ServerConnection {
    let mut connection = connection(limits);
    let context = Context { node: Some(node), map, crowded: false, gate: None, now_ns: 0 };
    let bytes = hello(1, (1, 1), 0, 0);
    let Incoming::Reply(reply) = connection.receive(&mut &bytes[..], &context) else {
        panic!("hello is answered")
    };
    assert_eq!(status_of(&reply), (Status::Ok, 1));
    connection
}

#[test]
fn hello_brings_the_node_and_the_map_only_to_those_who_lack_it() {
    let (node, map) = (node(), map(5));
    let context = Context { node: Some(&node), map: &map, crowded: false, gate: None, now_ns: 0 };
    for (map_version, incarnation, wants_map) in [(0, 0, true), (5, 11, false), (5, 10, true), (4, 11, true)]
    {
        let mut connection = connection(ConnectionLimits::default());
        let bytes = hello(1, (1, 9), map_version, incarnation);
        let Incoming::Reply(reply) = connection.receive(&mut &bytes[..], &context) else {
            panic!("hello is answered")
        };
        let view = ReplyView::of_frame(&reply);
        assert_eq!((view.header.aux, view.header.map_version), (1, MapVersion(5)));
        let body = HelloReply::from_bytes(view.body).expect("own bytes");
        assert_eq!((body.shard, body.incarnation, body.map.is_some()), (2, 11, wants_map));
        assert!(connection.is_open());
    }
}

#[test]
fn what_is_not_a_hello_closes_the_connection() {
    let (node, map) = (node(), map(5));
    let context = Context { node: Some(&node), map: &map, crowded: false, gate: None, now_ns: 0 };
    let too_new = hello(3, (2, 9), 0, 0);
    let too_old = hello(3, (0, 0), 0, 0);
    for (bytes, status) in [
        (get(3), Status::HelloFirst),
        (too_new, Status::VersionUnsupported),
        (too_old, Status::VersionUnsupported),
    ] {
        let mut connection = connection(ConnectionLimits::default());
        let Incoming::Close { reply, violation } = connection.receive(&mut &bytes[..], &context) else {
            panic!("closed")
        };
        assert_eq!((violation.status(), status_of(&reply)), (status, (status, 3)));
        let late = hello(4, (1, 1), 0, 0);
        let again = connection.receive(&mut &late[..], &context);
        assert!(matches!(again, Incoming::NeedMore { .. }), "a closed connection hears nothing");
        assert!(!connection.wants_input());
    }
}

#[test]
fn a_node_that_recovers_says_so_and_takes_the_next_hello() {
    let (node, map) = (node(), map(5));
    let mut connection = connection(ConnectionLimits::default());
    let bytes = hello(1, (1, 1), 0, 0);
    let recovering = Context { node: None, map: &map, crowded: false, gate: None, now_ns: 0 };
    let Incoming::Reply(reply) = connection.receive(&mut &bytes[..], &recovering) else { panic!("answered") };
    assert_eq!(status_of(&reply), (Status::NotReady, 1));
    let ready = Context { node: Some(&node), ..recovering };
    assert!(matches!(connection.receive(&mut &bytes[..], &ready), Incoming::Reply(_)));
    assert!(connection.is_open());
}

#[test]
fn one_request_too_many_is_busy() {
    let (node, map) = (node(), map(5));
    let limits = ConnectionLimits { in_flight: 2, ..ConnectionLimits::default() };
    let mut connection = opened(limits, &node, &map);
    let context = Context { node: Some(&node), map: &map, crowded: false, gate: None, now_ns: 0 };
    let bytes = [get(2), get(3), get(4)].concat();
    let mut input = &bytes[..];
    assert!(matches!(connection.receive(&mut input, &context), Incoming::Request(_)));
    assert!(connection.wants_input());
    assert!(matches!(connection.receive(&mut input, &context), Incoming::Request(_)));
    assert!(!connection.wants_input());
    let Incoming::Reply(reply) = connection.receive(&mut input, &context) else { panic!("busy") };
    assert_eq!(status_of(&reply), (Status::Busy, 4));
    connection.request_done();
    assert!(connection.wants_input());
}

#[test]
fn a_stale_request_gets_each_map_once() {
    let (node, old, new) = (node(), map(5), map(6));
    let mut connection = opened(ConnectionLimits::default(), &node, &old);
    let mut stale = |map: &PublishedMap| {
        let reply = connection.stale_map_reply(RequestId(9), 2, Epoch(4), map);
        let view = ReplyView::of_frame(&reply);
        assert_eq!((view.status(), view.header.aux), (Some(Status::StaleMap), 4));
        view.map_body().map(|body| MapBody::from_bytes(body).expect("own bytes").version)
    };
    assert_eq!(stale(&old), None, "came with hello");
    assert_eq!(stale(&new), Some(6));
    assert_eq!(stale(&new), None);
}

#[test]
fn ping_and_map_are_answered_here() {
    let (node, map) = (node(), map(5));
    let mut connection = opened(ConnectionLimits::default(), &node, &map);
    let context = Context { node: Some(&node), map: &map, crowded: false, gate: None, now_ns: 0 };
    let ping = bytes_of(2, 0, &RequestView::Ping { payload: b"abc" });
    let Incoming::Reply(reply) = connection.receive(&mut &ping[..], &context) else { panic!("pong") };
    assert_eq!(ReplyView::of_frame(&reply).body, b"abc");
    for (version, carries) in [(5, false), (4, true)] {
        let fetch = bytes_of(3, version, &RequestView::Map);
        let Incoming::Reply(reply) = connection.receive(&mut &fetch[..], &context) else { panic!("map") };
        assert_eq!(ReplyView::of_frame(&reply).map_body().is_some(), carries);
    }
}

#[test]
fn deadlines_pass_only_where_something_is_owed() {
    let (node, map) = (node(), map(5));
    let limits = ConnectionLimits::default();
    let at = |now_ns| Context { node: Some(&node), map: &map, crowded: false, gate: None, now_ns };
    let violation = |outcome| match outcome {
        Some(Incoming::Close { violation, .. }) => Some(violation),
        _ => None,
    };
    let mut silent = connection(limits);
    assert_eq!(silent.deadline_ns(), Some(limits.hello_timeout_ns));
    assert_eq!(silent.check_deadlines(&at(limits.hello_timeout_ns - 1)), None);
    let closed = violation(silent.check_deadlines(&at(limits.hello_timeout_ns)));
    assert_eq!(closed, Some(Violation::HelloTimeout));

    let mut half = opened(limits, &node, &map);
    assert_eq!(half.deadline_ns(), None, "an idle connection owes nothing");
    let frame = get(2);
    half.receive(&mut &frame[..3], &at(10));
    half.receive(&mut &frame[3..9], &at(1000));
    assert_eq!(half.deadline_ns(), Some(10 + limits.frame_timeout_ns), "dripping gains nothing");
    let closed = violation(half.check_deadlines(&at(10 + limits.frame_timeout_ns)));
    assert_eq!(closed, Some(Violation::FrameTimeout));

    let timeout_ns = limits.frame_timeout_ns;
    let mut waiting = opened(limits, &node, &map);
    waiting.receive(&mut &frame[..frame.len() / 2], &at(10));
    waiting.paused(15);
    waiting.paused(17);
    assert_eq!(waiting.check_deadlines(&at(10 + 2 * timeout_ns)), None, "the node does not read from it");
    waiting.resumed(15 + 3 * timeout_ns);
    assert_eq!(waiting.deadline_ns(), Some(10 + 4 * timeout_ns), "what it took before still counts");
    let closed = violation(waiting.check_deadlines(&at(10 + 4 * timeout_ns)));
    assert_eq!(closed, Some(Violation::FrameTimeout));
    let mut given_up = opened(limits, &node, &map);
    given_up.receive(&mut &frame[..frame.len() / 2], &at(10));
    assert_eq!((given_up.unfinished_since_ns(), given_up.abandon()), (Some(10), frame.len() / 2));
    assert_eq!(given_up.partial_bytes(), 0);

    let mut deaf = opened(limits, &node, &map);
    deaf.reply_queued(100, 5);
    deaf.reply_sent(60, 7);
    assert_eq!(deaf.deadline_ns(), Some(7 + limits.send_timeout_ns), "progress counts");
    let closed = violation(deaf.check_deadlines(&at(7 + limits.send_timeout_ns)));
    assert_eq!(closed, Some(Violation::SendTimeout));
}

#[test]
fn a_peer_that_does_not_read_is_no_longer_read() {
    let (node, map) = (node(), map(5));
    let limits = ConnectionLimits { queued_reply_bytes: 100, ..ConnectionLimits::default() };
    let mut connection = opened(limits, &node, &map);
    connection.reply_queued(100, 1);
    assert!(!connection.wants_input());
    connection.reply_sent(1, 2);
    assert!(connection.wants_input());
}

#[test]
fn hostile_frames_are_answered_or_closed_but_never_panic() {
    let (node, map) = (node(), map(5));
    let context = Context { node: Some(&node), map: &map, crowded: false, gate: None, now_ns: 0 };
    for seed in 0..300 {
        let mut random = Lcg::new(seed);
        let mut connection = opened(ConnectionLimits::default(), &node, &map);
        for _ in 0..30 {
            // Well-sealed frames with random fields and bodies reach the decoder behind the checksum.
            let body: Vec<u8> = (0..random.below(64)).map(|_| random.next() as u8).collect();
            let mut header: [u8; REQUEST_HEADER_BYTES] = std::array::from_fn(|_| random.next() as u8);
            header[0..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
            header[16] %= Opcode::ALL.len() as u8 + 2;
            header[19] = 0;
            crate::wire::header::seal(&mut header, &[&body]);
            let bytes = [&header[..], &body].concat();
            let mut input = &bytes[..];
            match connection.receive(&mut input, &context) {
                Incoming::Request(frame) => {
                    if let Err(error) = frame.view() {
                        let reply = decode_error_reply(&frame.header, &error, MapVersion(5));
                        assert_eq!(status_of(&reply).0, error.status());
                    }
                    connection.request_done();
                }
                Incoming::Reply(_) => {}
                Incoming::Close { .. } => break,
                Incoming::NeedMore { .. } => panic!("the frame was whole"),
            }
        }
    }
}

#[test]
fn a_last_word_has_no_request() {
    assert_eq!(status_of(&unsolicited(Status::TooManyConnections, "full")), (Status::TooManyConnections, 0));
}

#[test]
fn a_crowded_node_makes_no_long_answers() {
    let (node, map) = (node(), map(1));
    let crowded = Context { node: Some(&node), map: &map, crowded: true, gate: None, now_ns: 0 };
    let mut connection = connection(ConnectionLimits::default());
    let bytes = hello(1, (1, 1), 0, 0);
    let Incoming::Reply(reply) = connection.receive(&mut &bytes[..], &crowded) else { panic!("an answer") };
    assert_eq!(status_of(&reply), (Status::NotReady, 1));
    let mut connection = opened(ConnectionLimits::default(), &node, &map);
    for request in [RequestView::Map, RequestView::Ping { payload: b"12345678" }] {
        let bytes = bytes_of(2, 0, &request);
        let Incoming::Reply(reply) = connection.receive(&mut &bytes[..], &crowded) else {
            panic!("an answer")
        };
        assert_eq!((status_of(&reply), reply.len()), ((Status::Busy, 2), REPLY_HEADER_BYTES));
    }
}

/// A sound request of every opcode, and whether any more bytes could be part of its body.
fn one_of_each() -> Vec<(RequestView<'static>, bool)> {
    use crate::wire::control::{CreateTable, DropTable, Placement, Store};
    use crate::wire::{
        BatchBuilder, BatchView, Condition, RangeView, ReadView, ScanView, TransactionId, Ttl,
    };
    let transaction = TransactionId(1);
    let target = Target { partition: PartitionId(1), epoch: Epoch(1) };
    let (key, value, condition) = (&b"k"[..], &b"v"[..], Condition::Always);
    let range = RangeView { start: key, end: None };
    let scan = ScanView { range, reverse: false, keys_only: false, ttls: false, limit: 1, byte_budget: 1 };
    let mut writes = BatchBuilder::new();
    writes.push(crate::wire::BatchWrite::Put { key, value });
    let writes: &'static [u8] = writes.view().as_bytes().to_vec().leak();
    let placement = Placement::Hash { partitions: 1 };
    let hello = Hello { client_name: "test".into(), incarnation: 0 };
    let create = CreateTable { name: "t".into(), store: Store::Durable, placement };
    vec![
        (RequestView::Hello(HelloView { oldest_version: 1, newest_version: 1, hello }), false),
        (RequestView::Get { target, key }, false),
        (RequestView::Put { target, key, value, condition, ttl: Ttl::Table }, true),
        (RequestView::Delete { target, key, condition }, false),
        (RequestView::Batch { target, batch: BatchView::decode(writes).expect("a batch") }, false),
        (RequestView::Scan { target, scan }, false),
        (RequestView::Min { target }, false),
        (RequestView::Max { target }, false),
        (RequestView::Count { target, range }, false),
        (RequestView::CreateTable(create.clone()), false),
        (RequestView::DropTable(DropTable { name: "t".into() }), false),
        (RequestView::ListTables, false),
        (RequestView::Map, false),
        (RequestView::Stats, false),
        (RequestView::Ping { payload: b"p" }, true),
        (RequestView::Checkpoint, false),
        (RequestView::Increment { target, key, by: 1, initial: 0 }, false),
        (RequestView::Expire { target, key, ttl: Ttl::After { ttl_ms: 1 } }, false),
        (RequestView::TimeToLive { target, key }, false),
        (RequestView::TableTtls, false),
        (RequestView::Scrub, false),
        (RequestView::Begin { target, read_only: true, lifetime_ms: 1 }, false),
        (
            RequestView::Commit { target, transaction, batch: BatchView::decode(writes).expect("a batch") },
            false,
        ),
        (RequestView::Rollback { target, transaction }, false),
        (RequestView::Within { target, transaction, read: ReadView::Get { key } }, false),
        (RequestView::Within { target, transaction, read: ReadView::Scan(scan) }, false),
        (RequestView::Within { target, transaction, read: ReadView::Count { range } }, false),
        (RequestView::CreateTableQuota { table: create, ttl_ms: None, quota: Quota::default() }, false),
        (RequestView::SetQuota { table: "t", partition: PartitionId(1), quota: None }, false),
        (RequestView::Quotas, false),
        (RequestView::Authenticate(Secret(b"s")), true),
    ]
}

/// The frame with other fields or body, its length and checksum right again.
fn changed(frame: &[u8], change: impl FnOnce(&mut RequestHeader), surplus: &[u8]) -> Vec<u8> {
    let mut header = RequestHeader::from_bytes(&array_at(frame, 0));
    let mut body = frame[REQUEST_HEADER_BYTES..].to_vec();
    body.extend_from_slice(surplus);
    header.body_len = body.len() as u32;
    header.crc = 0;
    change(&mut header);
    let mut bytes = header.to_bytes();
    crate::wire::header::seal(&mut bytes, &[&body]);
    [&bytes[..], &body].concat()
}

/// How a connection takes a frame: the status of its own answer or of the request's content, and whether it goes on.
fn taken(connection: &mut ServerConnection, frame: &[u8], context: &Context<'_>) -> (Status, bool) {
    match connection.receive(&mut &frame[..], context) {
        Incoming::Request(frame) => (frame.view().map_or_else(|error| error.status(), |_| Status::Ok), true),
        Incoming::Reply(reply) => (status_of(&reply).0, true),
        Incoming::Close { reply, .. } => (status_of(&reply).0, false),
        Incoming::NeedMore { .. } => panic!("the frame is whole"),
    }
}

#[test]
fn every_opcode_refuses_the_name_0_surplus_bytes_and_fields_that_it_does_not_have() {
    let (node, map) = (node(), map(5));
    let context = Context { node: Some(&node), map: &map, crowded: false, gate: None, now_ns: 0 };
    let requests = one_of_each();
    assert_eq!(requests.iter().map(|(view, _)| view.opcode()).collect::<Vec<_>>(), Opcode::ALL);
    for (view, is_open_ended) in requests {
        let opcode = view.opcode();
        let fresh = || opened(ConnectionLimits::default(), &node, &map);
        let frame = bytes_of(7, 0, &view);
        assert_eq!(taken(&mut fresh(), &frame, &context), (Status::Ok, true), "{opcode:?}");
        let nameless = changed(&frame, |header| header.request_id = RequestId(0), &[]);
        assert_eq!(taken(&mut fresh(), &nameless, &context), (Status::Malformed, false), "{opcode:?}");
        // A Hello that makes no sense ends the connection: it may be no client of ours.
        let senseless = match opcode {
            Opcode::Hello => (Status::HelloFirst, false),
            _ => (Status::Malformed, true),
        };
        let expected = if is_open_ended { (Status::Ok, true) } else { senseless };
        let longer = changed(&frame, |_| {}, &[0xff]);
        assert_eq!(taken(&mut fresh(), &longer, &context), expected, "{opcode:?} with a byte more");
        for flag in (0..8).map(|bit| 1 << bit).filter(|flag| opcode.allowed_flags() & flag == 0) {
            let flagged = changed(&frame, |header| header.flags = flag, &[]);
            assert_eq!(taken(&mut fresh(), &flagged, &context), senseless, "{opcode:?} with flag {flag:#x}");
        }
        if !opcode.is_for_partition() {
            let placed = changed(&frame, |header| header.partition = PartitionId(3), &[]);
            assert_eq!(taken(&mut fresh(), &placed, &context), senseless, "{opcode:?} with a partition");
            let keyed = changed(&frame, |header| header.key_len = 1, &[]);
            assert_eq!(taken(&mut fresh(), &keyed, &context), senseless, "{opcode:?} with a key");
        }
    }
}
