use super::*;

const ROOM: usize = 1 << 20;

fn share(partition: u32) -> Share {
    Share { partition: PartitionId(partition), cost: 1 }
}

fn ask(partition: u32) -> Ask {
    Ask { share: share(partition), bytes: QUEUED_BYTES }
}

/// Admits so many requests of a partition, numbered; gives those that run at once.
fn admit(fair: &mut Fair<u32>, partition: u32, numbers: std::ops::Range<u32>, now_ns: u64) -> Vec<u32> {
    let mut admitted = |n| match fair.admit(ask(partition), n, |n| n, now_ns, ROOM) {
        Admission::Now(n) => Some(n),
        Admission::Queued => None,
        Admission::Full => panic!("there is room"),
    };
    numbers.filter_map(&mut admitted).collect()
}

fn released(fair: &mut Fair<u32>) -> Vec<(u32, u32)> {
    let mut all = Vec::new();
    fair.release(|ask, n| all.push((ask.share.partition.0, n)));
    all
}

/// Marks so many partitions as active: each has asked for something, and has its answer.
fn activate(fair: &mut Fair<u32>, partitions: std::ops::Range<u32>, now_ns: u64) {
    for partition in partitions {
        assert_eq!(admit(fair, partition, 0..1, now_ns), [0]);
        fair.done(share(partition));
    }
}

#[test]
fn a_partition_alone_may_keep_a_drive_busy_and_what_is_more_waits_in_order() {
    let mut fair = Fair::default();
    assert_eq!(admit(&mut fair, 1, 0..200, 0).len(), MOST_RUNNING as usize);
    assert_eq!((fair.queued(), fair.queued_bytes()), (72, 72 * QUEUED_BYTES));
    assert_eq!(released(&mut fair), []);
    assert!(!fair.is_ready(), "nothing to do before one is done");
    fair.done(share(1));
    assert!(fair.is_ready());
    assert_eq!(released(&mut fair), [(1, 128)]);
    (0..10).for_each(|_| fair.done(share(1)));
    assert_eq!(released(&mut fair), (129..139).map(|n| (1, n)).collect::<Vec<_>>());
    // One that comes now may not overtake those that wait.
    fair.done(share(1));
    assert!(admit(&mut fair, 1, 200..201, 0).is_empty());
}

#[test]
fn among_many_one_that_floods_has_its_share_and_the_others_go_at_once() {
    let mut fair = Fair::default();
    activate(&mut fair, 10..1010, 0);
    let running = admit(&mut fair, 1, 0..5000, 0);
    assert_eq!(running.len(), FREE_RUNNING as usize, "so much may run whoever asks");
    for partition in 10..1010 {
        assert_eq!(admit(&mut fair, partition, 0..1, 0), [0], "it has its share, whoever floods");
        assert_eq!(released(&mut fair), []);
    }
    // While the others have much to do, the flood goes on when it is below its share.
    (0..FREE_RUNNING - LEAST_SHARE).for_each(|_| fair.done(share(1)));
    assert_eq!(released(&mut fair), []);
    fair.done(share(1));
    assert_eq!(released(&mut fair), [(1, 16)]);
    // When they have little, it has the rest.
    (10..1010).for_each(|partition| fair.done(share(partition)));
    assert_eq!(released(&mut fair).len(), (FREE_RUNNING - LEAST_SHARE) as usize);
}

#[test]
fn those_that_wait_take_turns() {
    let mut fair = Fair::default();
    activate(&mut fair, 10..1010, 0);
    assert_eq!(admit(&mut fair, 1, 0..16, 0).len(), 16);
    for partition in [2, 3, 4] {
        assert_eq!(admit(&mut fair, partition, 0..5, 0).len(), LEAST_SHARE as usize);
    }
    assert_eq!(released(&mut fair), []);
    for partition in [2, 3, 4] {
        (0..LEAST_SHARE).for_each(|_| fair.done(share(partition)));
    }
    assert_eq!(released(&mut fair), [(2, 2), (3, 2), (4, 2), (2, 3), (3, 3), (4, 3)]);
    // With the flood gone there is room for all that is left.
    (0..16).for_each(|_| fair.done(share(1)));
    assert_eq!(released(&mut fair), [(2, 4), (3, 4), (4, 4)]);
    for partition in [2, 3, 4] {
        (0..3).for_each(|_| fair.done(share(partition)));
    }
    assert!(fair.flows.is_empty() && fair.running == 0 && fair.queued_bytes() == 0, "nothing is left behind");
}

#[test]
fn what_waits_has_so_much_memory_and_no_more() {
    let mut fair: Fair<u32> = Fair::default();
    let room = 3 * QUEUED_BYTES;
    let mut outcomes = (0..MOST_RUNNING + 4).map(|n| fair.admit(ask(1), n, |n| n, 0, room));
    assert!(
        outcomes.by_ref().take(MOST_RUNNING as usize).all(|outcome| matches!(outcome, Admission::Now(_)))
    );
    let rest: Vec<_> = outcomes.collect();
    assert_eq!(rest, [Admission::Queued, Admission::Queued, Admission::Queued, Admission::Full]);
}

#[test]
fn partitions_count_as_active_for_a_window_and_then_no_more() {
    let mut active = Active::default();
    (1..=32).for_each(|partition| active.note(PartitionId(partition), 5));
    (1..=32).for_each(|partition| active.note(PartitionId(partition), 6));
    assert_eq!(active.share(), MOST_RUNNING / 32);
    active.note(PartitionId(1), 5 + WINDOW_NS);
    assert_eq!(active.share(), MOST_RUNNING / 32, "the last window counts");
    active.note(PartitionId(1), 5 + 2 * WINDOW_NS);
    assert_eq!(active.share(), MOST_RUNNING);
    (1..=32).for_each(|partition| active.note(PartitionId(partition), 5 + 2 * WINDOW_NS));
    active.note(PartitionId(1), 5 + 9 * WINDOW_NS);
    assert_eq!(active.share(), MOST_RUNNING, "an old window does not");
}

#[test]
fn ids_in_a_row_do_not_share_bits() {
    let mut active = Active::default();
    (1..=1500).for_each(|partition| active.note(PartitionId(partition), 0));
    assert!(active.count > 1200, "{} of 1500", active.count);
}
