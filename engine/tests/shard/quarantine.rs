//! What damage may have taken of a partition is told for as long as nobody knows better.

use crate::damage::{NEWEST, find, is_quarantined, sim, value};
use crate::support::Sim;
use lode_engine::check_drive;

/// The damage itself is behind the next start's log, where nobody meets it again; what it may have taken is not.
#[test]
fn what_is_quarantined_is_told_at_every_start_until_it_is_dropped() {
    let mut sim = sim(4);
    sim.put(1, b"k", &value("lost")).unwrap();
    sim.put(1, b"after", &value("after")).unwrap();
    let told = |sim: &Sim| {
        let stats = sim.shard.stats();
        let listed: Vec<_> = stats.scrub.quarantined.iter().map(|found| found.partition.0).collect();
        assert_eq!(stats.partitions_quarantined as usize, listed.len());
        let mut read = |at: u64, buffer: &mut [u8]| {
            buffer.copy_from_slice(&sim.drive.now[at as usize..at as usize + buffer.len()]);
            Ok(())
        };
        let report = check_drive(&mut read, sim.drive.now.len() as u64).expect("it is a drive");
        let checked: Vec<_> = report.shards[0].quarantined.iter().map(|found| found.partition.0).collect();
        assert_eq!((report.is_clean(), &checked), (listed.is_empty(), &listed));
        listed
    };
    assert!(told(&sim).is_empty());
    let at = find(&sim, &value("lost"));
    sim.drive.flip(at);
    sim.reopen();
    sim.put(2, b"other", b"v").unwrap();
    for _ in 0..2 {
        sim.checkpoint().unwrap();
        sim.settle();
        sim.reopen();
        assert_eq!((sim.shard.stats().quarantined_frames, told(&sim)), (0, vec![1]));
        assert!(is_quarantined(&sim.get(1, b"k"), NEWEST));
    }
    sim.drop_table(1).unwrap();
    sim.settle();
    assert!(told(&sim).is_empty());
}
