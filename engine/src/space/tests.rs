use super::reserve::GAIN_SHARE;
use super::*;
use crate::limits::BLOCK_BYTES;

const RECORD_BYTES: u32 = 1000;
const LANES: u32 = 2;

#[test]
fn a_victim_is_only_what_gives_space_back() {
    let geometry = Geometry::plan(64 << 20, 1, Some(1 << 20), 8 << 10).expect("the drive is large enough");
    let mut space = Space::new(geometry, LANES);
    space.finish_recovery();
    let (id, _) = space.take(Claim::Put, Stream::User).expect("all are free");
    let payload = geometry.segment_payload_bytes();
    let begin = geometry.segment_at(id) + BLOCK_BYTES as u64;
    let record = |number: u64| Location::new(begin + number * u64::from(RECORD_BYTES), RECORD_BYTES as usize);
    let count = payload / u64::from(RECORD_BYTES);
    (0..count).for_each(|number| space.add_live(record(number)));
    let frame = FrameNumber(1);
    space.saw_frame(id, frame);
    let settled = Settled { journal: FrameNumber(0), user: FrameNumber(0), cleaning: FrameNumber(0) };
    assert_eq!(space.victim(frame, settled), None, "it is still written to");
    space.opened(id);
    space.seal(id, payload);
    let spare = payload - count * u64::from(RECORD_BYTES);
    let mut freed = 0;
    while space.victim(frame, settled).is_none() {
        space.remove_live(record(freed));
        freed += 1;
        assert!(freed < count, "it is never a victim");
    }
    // What moving the rest may waste: a record behind the last one of a segment, a block in each lane, and then some.
    let gained = spare + freed * u64::from(RECORD_BYTES);
    let least = payload / GAIN_SHARE + u64::from(LANES + 1) * BLOCK_BYTES as u64 + u64::from(RECORD_BYTES);
    assert!((least..least + 2 * u64::from(RECORD_BYTES)).contains(&gained), "{gained} of {least} bytes");
    assert_eq!((space.victim(frame, settled), space.gain_bytes(id)), (Some(id), Some(gained)));
    assert_eq!(space.victim(FrameNumber(0), settled), None, "not all that it holds was applied");
    (freed..count).for_each(|number| space.remove_live(record(number)));
    assert_eq!(space.victim(frame, settled), None, "there is nothing to move");
}
