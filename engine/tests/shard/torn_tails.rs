//! What a start cuts off the log stays cut, and what it found damaged before the cut stays damaged.

use crate::damage::{NEWEST, SEGMENT, area_at, find, frames, is_quarantined, sim, value};
use lode_engine::SegmentId;
use lode_engine::format::frame::Stream;

/// Seed 9005340 of the simulator: a start meets damage, cuts the tail behind it, and ends before its journal has noted it.
#[test]
fn what_a_cut_frame_calls_durable_is_damaged_at_the_next_start_too() {
    for is_header in [false, true] {
        let mut sim = sim(14);
        for name in ["old", "durable", "torn"] {
            sim.put(1, b"k", &value(name)).unwrap();
        }
        let headers = frames(&sim, Stream::User);
        let header_at = headers[headers.len() - 2].0;
        let damaged = if is_header { header_at + 12 } else { find(&sim, &value("durable")) };
        let torn = find(&sim, &value("torn"));
        sim.drive.flip(damaged);
        sim.drive.flip(torn);
        let begin = area_at(&sim) + sim.config.geometry.segment_at(SegmentId(0)) as usize;
        let end = begin + (sim.config.geometry.segments_per_shard * SEGMENT) as usize;
        let before = sim.drive.now[begin..end].to_vec();
        sim.reopen();
        assert_eq!(sim.shard.stats().quarantined_frames, 1, "header: {is_header}");
        // Of this life, which ends as it begins to serve, nothing stays but its superblock.
        sim.drive.settle();
        sim.drive.put(begin, &before);
        sim.reopen();
        assert!(is_quarantined(&sim.get(1, b"k"), NEWEST), "header: {is_header}");
        for name in ["1", "2", "3"] {
            sim.put(1, name.as_bytes(), &value(name)).unwrap();
        }
        sim.reopen();
        for name in ["1", "2", "3"] {
            assert_eq!(sim.get(1, name.as_bytes()), Ok(Some(value(name))), "header: {is_header}");
        }
    }
}
