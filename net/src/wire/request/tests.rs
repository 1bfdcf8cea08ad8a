use super::*;
use crate::wire::batch::{BatchBuilder, BatchWrite};
use crate::wire::control::{Placement, Store};
use crate::wire::header::{REQUEST_HEADER_BYTES, checksum_holds};

const TARGET: Target = Target { partition: PartitionId(7), epoch: Epoch(3) };

fn hello() -> RequestView<'static> {
    RequestView::Hello(HelloView {
        oldest_version: 1,
        newest_version: 2,
        hello: Hello { client_name: "test".into(), incarnation: 9 },
    })
}

fn with_every_request(mut see: impl FnMut(RequestView<'_>)) {
    let seq = Seq { wall_ns: 1, counter: 2, node: 3 };
    let mut batch = BatchBuilder::new();
    batch.push(BatchWrite::Put { key: b"k", value: b"v" });
    batch.push(BatchWrite::Delete { key: b"l" });
    let range = RangeView { start: b"a", end: Some(b"m") };
    let scan = ScanView { range, reverse: true, keys_only: true, ttls: true, limit: 10, byte_budget: 4096 };
    let open =
        ScanView { range: RangeView::default(), reverse: false, keys_only: false, ttls: false, ..scan };
    let placement = Placement::Range { splits: vec![b"m".to_vec()] };
    see(hello());
    see(RequestView::Get { target: TARGET, key: b"key" });
    for condition in [Condition::Always, Condition::IfAbsent, Condition::IfSeq(seq)] {
        for ttl in [Ttl::Table, Ttl::Never, Ttl::After { ttl_ms: 1 << 40 }] {
            see(RequestView::Put { target: TARGET, key: b"key", value: b"value", condition, ttl });
            see(RequestView::Put { target: TARGET, key: b"key", value: b"", condition, ttl });
        }
    }
    for condition in [Condition::Always, Condition::IfSeq(seq)] {
        see(RequestView::Delete { target: TARGET, key: b"key", condition });
    }
    for ttl in [Ttl::Table, Ttl::Never, Ttl::After { ttl_ms: 1 }] {
        see(RequestView::Expire { target: TARGET, key: b"key", ttl });
    }
    see(RequestView::TimeToLive { target: TARGET, key: b"key" });
    see(RequestView::TableTtls);
    for (by, initial) in [(1, 0), (-1, i64::MAX), (i64::MIN, -1)] {
        see(RequestView::Increment { target: TARGET, key: b"key", by, initial });
    }
    see(RequestView::Batch { target: TARGET, batch: batch.view() });
    see(RequestView::Scan { target: TARGET, scan });
    see(RequestView::Scan { target: TARGET, scan: open });
    see(RequestView::Scan {
        target: TARGET,
        scan: ScanView { range: RangeView { start: b"", end: Some(b"") }, ..scan },
    });
    let transaction = TransactionId(1 << 50);
    for (read_only, lifetime_ms) in [(false, 0), (true, 60_000)] {
        see(RequestView::Begin { target: TARGET, read_only, lifetime_ms });
    }
    see(RequestView::Commit { target: TARGET, transaction, batch: batch.view() });
    see(RequestView::Commit { target: TARGET, transaction, batch: BatchBuilder::new().view() });
    see(RequestView::Rollback { target: TARGET, transaction });
    let reads = [
        ReadView::Get { key: b"key" },
        ReadView::Scan(scan),
        ReadView::Scan(open),
        ReadView::Count { range },
        ReadView::Count { range: RangeView::default() },
    ];
    reads.into_iter().for_each(|read| see(RequestView::Within { target: TARGET, transaction, read }));
    see(RequestView::Min { target: TARGET });
    see(RequestView::Max { target: TARGET });
    see(RequestView::Count { target: TARGET, range });
    see(RequestView::Count { target: TARGET, range: RangeView::default() });
    with_every_table(placement, &mut see);
    see(RequestView::DropTable(DropTable { name: "t".into() }));
    see(RequestView::ListTables);
    see(RequestView::Map);
    see(RequestView::Stats);
    see(RequestView::Ping { payload: b"pong" });
    see(RequestView::Checkpoint);
    see(RequestView::Scrub);
}

fn with_every_table(placement: Placement, see: &mut impl FnMut(RequestView<'_>)) {
    let table = CreateTable { name: "t".into(), store: Store::Durable, placement };
    see(RequestView::CreateTable(table.clone()));
    see(RequestView::CreateTableTtl { table: table.clone(), ttl_ms: 9 });
    let quota = Quota { requests_per_s: 5, ..Quota::default() };
    for ttl_ms in [None, Some(1 << 40)] {
        see(RequestView::CreateTableQuota { table: table.clone(), ttl_ms, quota });
    }
    for quota in [None, Some(quota)] {
        see(RequestView::SetQuota { table: "t", partition: PartitionId(3), quota });
    }
    see(RequestView::Quotas);
    see(RequestView::Authenticate(Secret(b"s")));
}

fn encoded(request: &RequestView<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    request.encode(RequestId(42), MapVersion(5), &mut frame).expect("small enough");
    frame
}

fn header_of(frame: &[u8]) -> RequestHeader {
    RequestHeader::from_bytes(&array_at(frame, 0))
}

#[test]
fn every_request_comes_back_from_its_frame() {
    with_every_request(|request| {
        let frame = encoded(&request);
        assert!(checksum_holds(&frame));
        let header = header_of(&frame);
        assert_eq!(header.body_len as usize, frame.len() - REQUEST_HEADER_BYTES);
        assert_eq!((header.request_id, header.map_version), (RequestId(42), MapVersion(5)));
        let back = RequestView::decode(&header, &frame[REQUEST_HEADER_BYTES..]);
        assert_eq!(back, Ok(request));
    });
}

#[test]
fn a_body_cut_anywhere_is_an_error_or_another_request_but_never_a_panic() {
    with_every_request(|request| {
        let frame = encoded(&request);
        let header = header_of(&frame);
        for len in 0..header.body_len as usize {
            let cut = RequestView::decode(&header, &frame[REQUEST_HEADER_BYTES..][..len]);
            assert_ne!(cut, Ok(request.clone()));
        }
    });
}

#[test]
fn fields_that_an_operation_does_not_have_are_refused() {
    with_every_request(|request| {
        let frame = encoded(&request);
        let header = header_of(&frame);
        let body = &frame[REQUEST_HEADER_BYTES..];
        for flag in (0..8).map(|bit| 1 << bit) {
            let mut odd = header;
            odd.flags |= flag;
            let is_known = request.opcode().allowed_flags() & flag != 0;
            assert!(is_known || RequestView::decode(&odd, body).is_err(), "{request:?} with {flag:#x}");
        }
        if !request.opcode().is_for_partition() {
            let mut odd = header;
            odd.epoch = Epoch(1);
            assert!(RequestView::decode(&odd, body).is_err());
        }
        let mut odd = header;
        odd.opcode = 0;
        assert_eq!(RequestView::decode(&odd, body), Err(DecodeError::UnknownOpcode(0)));
    });
}

#[test]
fn what_no_frame_can_say_is_not_encoded() {
    let mut out = Vec::new();
    let key = vec![0u8; 65_536];
    let get = RequestView::Get { target: TARGET, key: &key };
    let refused = get.encode(RequestId(1), MapVersion(0), &mut out);
    assert_eq!(refused, Err(EncodeError::KeyLength { len: 65_536 }));
    let payload = vec![0u8; limits::MAX_REQUEST_BODY_BYTES + 1];
    let ping = RequestView::Ping { payload: &payload };
    assert!(ping.encode(RequestId(1), MapVersion(0), &mut out).is_err());
    assert!(out.is_empty());
    let ping = RequestView::Ping { payload: &payload[1..] };
    assert_eq!(ping.encode(RequestId(1), MapVersion(0), &mut out), Ok(()));
}
