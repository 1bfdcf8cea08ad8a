//! The raw loop on files.

use std::os::unix::fs::FileExt;

use super::*;

/// What takes longer than this has lost something.
const PATIENCE: Duration = Duration::from_secs(20);

fn drive_file() -> File {
    tempfile::tempfile().expect("a file")
}

#[test]
fn the_floor_measures_reads_and_appends() {
    let file = drive_file();
    file.set_len(1 << 20).expect("sized");
    let time = Duration::from_millis(20);
    let reads = random_reads(file.try_clone().expect("cloned"), 1 << 20, 16, 0, time).expect("reads");
    assert!(reads.operations >= 16 && reads.latencies_ns.is_sorted());
    let appends = durable_appends(file, 0, 1 << 20, time).expect("appends");
    assert_eq!(appends.operations as usize, appends.latencies_ns.len());
}

#[test]
fn the_floor_does_what_it_is_told_and_stays_in_its_area() {
    let file = drive_file();
    file.set_len(1 << 20).expect("sized");
    let area = 256 << 10..512 << 10;
    let time = Duration::from_millis(20);
    for operation in [Operation::Read, Operation::Write, Operation::DurableWrite, Operation::Flush] {
        for depth in [1, 8] {
            let spin = Duration::from_micros(50);
            let warmup = Duration::from_millis(5);
            let load = Load { depth, warmup, spin, ..Load::new(operation, area.clone(), time) };
            let load = Load { block_bytes: 16 << 10, ..load };
            let report = run(file.try_clone().expect("cloned"), &load).expect("measured");
            assert!(report.operations > 0 && report.seconds > 0.0, "{operation:?} {report:?}");
            assert_eq!(report.operations as usize, report.latencies_ns.len());
        }
    }
    let load = Load { order: Order::Sequential, ..Load::new(Operation::Write, area.clone(), PATIENCE) };
    let report = run(file.try_clone().expect("cloned"), &Load { most_operations: 64, depth: 3, ..load });
    assert_eq!(report.expect("written").operations, 64, "it ends when all is done");
    let mut bytes = vec![1; 1 << 20];
    file.read_exact_at(&mut bytes, 0).expect("read");
    let (start, end) = (area.start as usize, area.end as usize);
    assert!(bytes[..start].iter().chain(&bytes[end..]).all(|byte| *byte == 0), "the rest is as it was");
    assert!(
        bytes[start..end].chunks(4096).all(|block| block.iter().any(|byte| *byte != 0)),
        "all was written"
    );
}

#[test]
fn the_floor_refuses_loads_at_their_limits() {
    let refused = |load: Load| run(drive_file(), &load).expect_err("refused").to_string();
    let load = |area| Load::new(Operation::Read, area, Duration::ZERO);
    assert!(refused(load(0..4095)).contains("4095 bytes; it needs at least one block of 4096"));
    for depth in [0, MAX_DEPTH + 1] {
        assert!(refused(Load { depth, ..load(0..4096) }).contains("a depth is 1 to 1024"));
    }
    for block_bytes in [0, 2048, 12288, 2 * MAX_BUFFER_BYTES as u32] {
        assert!(
            refused(Load { block_bytes, ..load(0..1 << 30) }).contains("a power of two"),
            "{block_bytes}"
        );
    }
    let most = MAX_IN_FLIGHT_BYTES >> 20;
    let wide = Load { block_bytes: 1 << 20, depth: most + 1, ..load(0..1 << 30) };
    assert!(refused(wide.clone()).contains("take more than"));
    let file = drive_file();
    file.set_len(1 << 20).expect("sized");
    run(file, &Load { depth: most, area: 0..1 << 20, ..wide }).expect("at the limit");
}

#[test]
fn what_is_paced_is_begun_on_time_and_a_stall_is_not_hidden() {
    let file = drive_file();
    file.set_len(1 << 20).expect("sized");
    let stream = |operation, block_bytes, per_second| Stream { operation, block_bytes, per_second };
    let streams = [stream(Operation::Read, 4096, 1000.0), stream(Operation::Write, 128 << 10, 50.0)];
    let area = 0..1 << 20;
    let time = Duration::from_millis(200);
    let none = Duration::ZERO;
    let reports = paced(file.try_clone().expect("cloned"), &area, &streams, none, time).expect("paced");
    assert_eq!(reports.iter().map(|report| report.operations).collect::<Vec<_>>(), [200, 10]);
    let warm = paced(file.try_clone().expect("cloned"), &area, &streams, time / 2, time / 2).expect("paced");
    assert_eq!(warm.iter().map(|report| report.operations).collect::<Vec<_>>(), [100, 5]);
    // More than any drive does: all of it was due, and most of it late.
    let flood = [stream(Operation::DurableWrite, 128 << 10, 1e6)];
    let report = &paced(file, &area, &flood, none, Duration::from_millis(20)).expect("paced")[0];
    assert_eq!(report.operations, 20_000);
    assert!(report.latency_us(0.5) > 5_000.0, "{}", report.latency_us(0.5));
}

#[test]
fn what_the_floor_writes_is_known_again_and_nothing_else_is() {
    let file = drive_file();
    let area_bytes: u64 = 2 << 20;
    file.set_len(area_bytes).expect("sized");
    let time = Duration::from_millis(20);
    let mut bytes = vec![0; area_bytes as usize];
    for block_bytes in [4 << 10, 64 << 10] {
        let load = Load { block_bytes, depth: 4, ..Load::new(Operation::Write, 0..area_bytes, time) };
        run(file.try_clone().expect("cloned"), &load).expect("measured");
        let writes = Stream { operation: Operation::DurableWrite, block_bytes, per_second: 500.0 };
        paced(file.try_clone().expect("cloned"), &(0..area_bytes), &[writes], Duration::ZERO, time)
            .expect("measured");
        file.read_exact_at(&mut bytes, 0).expect("read");
        assert!(bytes.iter().any(|byte| *byte != 0) && is_scratch(&bytes));
    }
    // Another drive's sector in the middle, one byte of somebody's, a first word alone, and what is no sector.
    let noise = bytes.iter().position(|byte| *byte != 0).expect("written") / 4096 * 4096;
    for at in [noise + 9, noise + 600, noise + 4095] {
        bytes[at] ^= 1;
        assert!(!is_scratch(&bytes), "byte {at}");
        bytes[at] ^= 1;
    }
    let mut alone = [0; 512];
    alone[3] = 1;
    assert!(!is_scratch(&alone) && is_scratch(&[0; 1024]) && !is_scratch(&[0; 100]));
    assert!(!is_scratch(&[0xff; 512]) && !is_scratch(b"text ".repeat(1024).get(..512).expect("so long")));
}
