use lode_engine::limits::DEFAULT_WEIGHT;
use lode_net::ring::SocketId;

use super::active::{Active, LEAST_SHARE, WINDOW_NS};
use super::*;

const ROOM: usize = 2 << 20;
const MOST_RUNNING: u32 = 128;
const FREE_AMONG_MANY: u32 = 8;

fn share(partition: u32) -> Share {
    Share {
        partition: PartitionId(partition),
        cost: 1,
        class: Class::Get,
        is_large: false,
        gives_much: false,
    }
}

fn ask(partition: u32) -> Ask {
    weighted(partition, DEFAULT_WEIGHT)
}

fn weighted(partition: u32, weight: u32) -> Ask {
    Ask { partition: PartitionId(partition), class: Class::Get, weight, bytes: QUEUED_BYTES, has_room: true }
}

/// Admits so many requests of a partition, numbered; gives those that run at once.
fn admit(fair: &mut Fair<u32>, partition: u32, numbers: std::ops::Range<u32>, now_ns: u64) -> Vec<u32> {
    let mut admitted = |n| match fair.admit(ask(partition), n, |n| n, now_ns, ROOM) {
        Admission::Now(n, share) => {
            assert_eq!(share.cost, 1);
            Some(n)
        }
        Admission::Queued { .. } => None,
        Admission::Full | Admission::NoRoom => panic!("there is room"),
    };
    numbers.filter_map(&mut admitted).collect()
}

/// What is released, where there is room for every answer.
fn each<T>(fair: &mut Fair<T>, room: usize, mut run: impl FnMut(Share, T)) {
    while let Some((share, request)) = fair.release(room, |_| true) {
        run(share.expect("there is room for all"), request);
    }
}

fn released(fair: &mut Fair<u32>) -> Vec<(u32, u32)> {
    let mut all = Vec::new();
    each(fair, ROOM, |share, n| all.push((share.partition.0, n)));
    all
}

/// Marks so many partitions as active: each has asked for something, and has its answer.
fn activate(fair: &mut Fair<u32>, partitions: std::ops::Range<u32>, now_ns: u64) {
    for partition in partitions {
        assert_eq!(admit(fair, partition, 0..1, now_ns), [0]);
        fair.done(share(partition), Some(0));
    }
}

#[test]
fn a_partition_alone_may_keep_a_drive_busy_and_what_is_more_waits_in_order() {
    let mut fair = Fair::new(&IoLimits::default());
    assert_eq!(admit(&mut fair, 1, 0..200, 0).len(), MOST_RUNNING as usize);
    assert_eq!((fair.queued(), fair.queued_bytes()), (72, 72 * QUEUED_BYTES));
    assert_eq!(released(&mut fair), []);
    assert!(!fair.is_ready(), "nothing to do before one is done");
    fair.done(share(1), Some(0));
    assert!(fair.is_ready());
    assert_eq!(released(&mut fair), [(1, 128)]);
    (0..10).for_each(|_| fair.done(share(1), Some(0)));
    assert_eq!(released(&mut fair), (129..139).map(|n| (1, n)).collect::<Vec<_>>());
    // One that comes now may not overtake those that wait.
    fair.done(share(1), Some(0));
    assert!(admit(&mut fair, 1, 200..201, 0).is_empty());
}

#[test]
fn what_was_measured_of_a_drive_bounds_what_runs() {
    let measured = IoLimits { most_running: 40, free_running: 6, free_among_many: 3, ..IoLimits::default() };
    let mut fair = Fair::new(&measured);
    assert_eq!(admit(&mut fair, 1, 0..200, 0).len(), 40);
    let mut fair = Fair::new(&measured);
    activate(&mut fair, 10..20, 0);
    assert_eq!(admit(&mut fair, 1, 0..200, 0).len(), 6, "the free ones are more than a share among eleven");
    let mut fair = Fair::new(&measured);
    activate(&mut fair, 10..1010, 0);
    assert_eq!(admit(&mut fair, 1, 0..200, 0).len(), 3);
    let mut dear = Fair::new(&IoLimits { write_bytes_per_cost: 1024, ..measured });
    let ask = Ask {
        partition: PartitionId(1),
        class: Class::Write(7 * 1024),
        weight: 1,
        bytes: QUEUED_BYTES,
        has_room: true,
    };
    let run = |fair: &mut Fair<u32>| matches!(fair.admit(ask, 0, |n| n, 0, ROOM), Admission::Now(..));
    assert_eq!((0..200).filter(|_| run(&mut dear)).count(), 5, "eight each");
}

#[test]
fn among_many_one_that_floods_has_its_share_and_the_others_go_at_once() {
    let mut fair = Fair::new(&IoLimits::default());
    activate(&mut fair, 10..1010, 0);
    let running = admit(&mut fair, 1, 0..5000, 0);
    assert_eq!(running.len(), FREE_AMONG_MANY as usize, "so much may run whoever asks");
    for partition in 10..1010 {
        assert_eq!(admit(&mut fair, partition, 0..1, 0), [0], "it has its share, whoever floods");
        assert_eq!(released(&mut fair), []);
    }
    // While the others have much to do, the flood goes on when it is below its share.
    (0..FREE_AMONG_MANY - LEAST_SHARE).for_each(|_| fair.done(share(1), Some(0)));
    assert_eq!(released(&mut fair), []);
    fair.done(share(1), Some(0));
    assert_eq!(released(&mut fair), [(1, FREE_AMONG_MANY)]);
    // When they have little, it has the rest.
    (10..1010).for_each(|partition| fair.done(share(partition), Some(0)));
    assert_eq!(released(&mut fair).len(), (FREE_AMONG_MANY - LEAST_SHARE) as usize);
}

#[test]
fn those_that_wait_take_turns() {
    let mut fair = Fair::new(&IoLimits::default());
    activate(&mut fair, 10..1010, 0);
    assert_eq!(admit(&mut fair, 1, 0..FREE_AMONG_MANY, 0).len(), FREE_AMONG_MANY as usize);
    for partition in [2, 3, 4] {
        assert_eq!(admit(&mut fair, partition, 0..5, 0).len(), LEAST_SHARE as usize);
    }
    assert_eq!(released(&mut fair), []);
    for partition in [2, 3, 4] {
        (0..LEAST_SHARE).for_each(|_| fair.done(share(partition), Some(0)));
    }
    // The third came when the first had had one more than it.
    assert_eq!(released(&mut fair), [(2, 2), (2, 3), (3, 2), (3, 3), (4, 2), (4, 3)]);
    // With the flood gone there is room for more.
    (0..FREE_AMONG_MANY).for_each(|_| fair.done(share(1), Some(0)));
    assert_eq!(released(&mut fair), [(2, 4), (3, 4)], "as much as may run whoever asks");
    fair.done(share(2), Some(0));
    assert_eq!(released(&mut fair), [(4, 4)]);
    for (partition, running) in [(2, 2), (3, 3), (4, 3)] {
        (0..running).for_each(|_| fair.done(share(partition), Some(0)));
    }
    assert!(fair.flows.is_empty() && fair.running == 0 && fair.queued_bytes() == 0, "nothing is left behind");
}

#[test]
fn what_waits_has_so_much_memory_and_one_partition_half_of_it() {
    let mut fair: Fair<u32> = Fair::new(&IoLimits::default());
    let room = 6 * QUEUED_BYTES;
    assert_eq!(admit(&mut fair, 1, 0..MOST_RUNNING, 0).len(), MOST_RUNNING as usize);
    let mut waits = |partition| match fair.admit(ask(partition), 0, |n| n, 0, room) {
        Admission::Now(..) => panic!("nothing more may run"),
        Admission::Queued { .. } => true,
        Admission::Full | Admission::NoRoom => false,
    };
    assert_eq!([(); 4].map(|()| waits(1)), [true, true, true, false]);
    // With two that ask, the share of the second is half.
    for _ in 0..MOST_RUNNING / 2 {
        assert!(matches!(fair.admit(ask(2), 0, |n| n, 0, room), Admission::Now(..)));
    }
    let mut waits =
        |partition| matches!(fair.admit(ask(partition), 0, |n| n, 0, room), Admission::Queued { .. });
    assert_eq!([(); 4].map(|()| waits(2)), [true, true, true, false], "others find room");
}

#[test]
fn a_connection_that_brings_too_much_of_a_partition_is_held_up_until_half_of_it_has_gone() {
    let mut fair: Fair<u32> = Fair::new(&IoLimits::default());
    let room = 64 * QUEUED_BYTES;
    assert_eq!(admit(&mut fair, 1, 0..MOST_RUNNING, 0).len(), MOST_RUNNING as usize);
    let crowded: Vec<Option<Crowd>> = (0..5)
        .map(|n| match fair.admit(ask(1), n, |n| n, 0, room) {
            Admission::Queued { crowded } => crowded,
            other => panic!("{other:?}"),
        })
        .collect();
    let of_one = Some(Crowd::Partition(PartitionId(1)));
    assert_eq!(crowded, [None, None, None, None, of_one], "a sixteenth is four");
    let keys = [1, 2, 3].map(|number| ConnectionKey { socket: SocketId(3), number });
    keys.into_iter().for_each(|key| fair.hold_up(Crowd::Partition(PartitionId(1)), key));
    for left in [4, 3, 2] {
        fair.done(share(1), Some(0));
        each(&mut fair, room, |_, _| {});
        assert_eq!((fair.queued(), fair.take_resumed()), (left, vec![]));
    }
    fair.done(share(1), Some(0));
    each(&mut fair, room, |_, _| {});
    assert_eq!((fair.queued(), fair.take_resumed()), (1, vec![keys[0]]), "one at a time");
    fair.done(share(1), Some(0));
    each(&mut fair, room, |_, _| {});
    assert_eq!((fair.queued(), fair.take_resumed()), (0, keys[1..].to_vec()), "nobody stays behind");
}

#[test]
fn where_too_much_waits_of_all_connections_are_held_up_too() {
    let mut fair: Fair<u32> = Fair::new(&IoLimits::default());
    let room = 64 * QUEUED_BYTES;
    // Four partitions that have their share, and three waiting each: none has too much, all have.
    let mut crowds = Vec::new();
    for n in 0..MOST_RUNNING + 12 {
        if let Admission::Queued { crowded } = fair.admit(ask(1 + n % 4), n, |n| n, 0, room) {
            crowds.push(crowded);
        }
    }
    let first = crowds.iter().position(Option::is_some).expect("an eighth is eight");
    assert_eq!((first, crowds[first]), (8, Some(Crowd::All)));
    let keys = [1, 2].map(|number| ConnectionKey { socket: SocketId(3), number });
    keys.into_iter().for_each(|key| fair.hold_up(Crowd::All, key));
    let mut resumed = Vec::new();
    while fair.queued() > 0 {
        (1..=4).for_each(|partition| fair.done(share(partition), Some(0)));
        each(&mut fair, room, |_, _| {});
        resumed.push(fair.take_resumed().len());
    }
    assert_eq!(resumed.iter().sum::<usize>(), 2, "nobody stays behind");
}

#[test]
fn those_that_want_more_than_there_is_get_it_by_weight() {
    // Two floods of weights 1 to 3, alone and among a thousand others: what each has had after a while.
    for others in [0, 1000] {
        let mut fair: Fair<u32> = Fair::new(&IoLimits::default());
        activate(&mut fair, 10..10 + others, 0);
        let weights = [(1, 100), (2, 300)];
        let mut running = VecDeque::new();
        let mut had = [0; 3];
        for n in 0..4000 {
            for (partition, weight) in weights {
                if let Admission::Now(_, share) = fair.admit(weighted(partition, weight), n, |n| n, 0, ROOM) {
                    running.push_back(share);
                }
            }
        }
        for _ in 0..3000 {
            let share: Share = running.pop_front().expect("something runs");
            had[share.partition.0 as usize] += 1;
            fair.done(share, Some(0));
            each(&mut fair, ROOM, |share, _| running.push_back(share));
        }
        let ratio = f64::from(had[2]) / f64::from(had[1]);
        assert!((2.6..=3.4).contains(&ratio), "{had:?} with {others} others");
    }
}

#[test]
fn large_values_count_as_many_small_ones() {
    let mut fair: Fair<u32> = Fair::new(&IoLimits::default());
    let mut running: VecDeque<Share> = VecDeque::new();
    let mut bytes = [0u64; 3];
    let values = [0, 1024, 1 << 20];
    for n in 0..3000 {
        for partition in [1, 2] {
            if let Admission::Now(_, share) = fair.admit(ask(partition), n, |n| n, 0, 1 << 30) {
                running.push_back(share);
            }
        }
    }
    let mut requests = [0u32; 3];
    for _ in 0..2000 {
        let share = running.pop_front().expect("something runs");
        let partition = share.partition.0 as usize;
        requests[partition] += 1;
        bytes[partition] += values[partition];
        fair.done(share, Some(values[partition]));
        each(&mut fair, 1 << 30, |share, _| running.push_back(share));
    }
    assert!(requests[1] > 10 * requests[2], "{requests:?} of 1 KiB and 1 MiB");
}

#[test]
fn partitions_count_as_active_for_a_window_and_then_no_more() {
    let mut active = Active::new(&IoLimits::default());
    (1..=32).for_each(|partition| active.note(PartitionId(partition), 100, 5));
    (1..=32).for_each(|partition| active.note(PartitionId(partition), 100, 6));
    assert_eq!(active.share(100), MOST_RUNNING / 32);
    active.note(PartitionId(1), 100, 5 + WINDOW_NS);
    assert_eq!(active.share(100), MOST_RUNNING / 32, "the last window counts");
    active.note(PartitionId(1), 100, 5 + 2 * WINDOW_NS);
    assert_eq!(active.share(100), MOST_RUNNING);
    (1..=32).for_each(|partition| active.note(PartitionId(partition), 100, 5 + 2 * WINDOW_NS));
    active.note(PartitionId(1), 100, 5 + 9 * WINDOW_NS);
    assert_eq!(active.share(100), MOST_RUNNING, "an old window does not");
}

#[test]
fn ids_in_a_row_do_not_share_bits() {
    let mut active = Active::new(&IoLimits::default());
    (1..=1500).for_each(|partition| active.note(PartitionId(partition), 100, 0));
    assert!(active.count() > 1200, "{} of 1500", active.count());
}

/// Has so many partitions learn that their reads give 1 MiB each, one after the other.
fn learn_large(fair: &mut Fair<u32>, partitions: std::ops::Range<u32>) {
    for partition in partitions {
        for _ in 0..64 {
            let Admission::Now(_, share) = fair.admit(ask(partition), 0, |n| n, 0, ROOM) else {
                panic!("nothing else runs")
            };
            fair.done(share, Some(1 << 20));
        }
    }
}

#[test]
fn large_reads_of_many_partitions_run_one_after_the_other_and_small_ones_pass_them() {
    let mut fair: Fair<u32> = Fair::new(&IoLimits::default());
    activate(&mut fair, 100..200, 0);
    learn_large(&mut fair, 1..9);
    assert!(fair.flows.is_empty(), "they are remembered although they ask for nothing");
    let mut running = VecDeque::new();
    for n in 0..3 {
        for partition in 1..9 {
            if let Admission::Now(_, share) = fair.admit(ask(partition), n, |n| n, 0, ROOM) {
                running.push_back(share);
            }
        }
    }
    assert_eq!(running.len(), 1);
    for partition in 100..200 {
        assert_eq!(admit(&mut fair, partition, 0..1, 0), [0], "who wants little has it at once");
    }
    // All have their turns, and each as many as another.
    let mut order = Vec::new();
    while let Some(share) = running.pop_front() {
        order.push(share.partition.0);
        fair.done(share, Some(1 << 20));
        each(&mut fair, ROOM, |share, _| running.push_back(share));
        assert!(running.len() <= 1 && (running.len() == 1 || fair.queued() == 0), "one runs, and always one");
    }
    let round: Vec<u32> = (1..9).collect();
    assert_eq!(order, [round.clone(), round.clone(), round].concat());
}

#[test]
fn of_reads_that_are_larger_than_their_share_so_many_run_as_keep_a_drive_busy() {
    // Sixteen pages of 8 KiB and one for the request, where a partition may have two.
    for (bytes, most) in [(16 * 8192, MOST_RUNNING / 17), (63 * 8192, 2), (64 * 8192, 1)] {
        let mut fair: Fair<u32> = Fair::new(&IoLimits::default());
        activate(&mut fair, 100..200, 0);
        for partition in 1..40 {
            for _ in 0..200 {
                let Admission::Now(_, share) = fair.admit(ask(partition), 0, |n| n, 0, ROOM) else {
                    panic!("nothing else runs")
                };
                fair.done(share, Some(bytes));
            }
        }
        let mut runs =
            |partition| matches!(fair.admit(ask(partition), 0, |n| n, 0, ROOM), Admission::Now(..));
        let ran = (1..40).filter(|partition| runs(*partition)).count();
        assert!(
            (most as usize..=most as usize + 1).contains(&ran),
            "{ran} of {bytes} bytes, {most} expected"
        );
    }
}

#[test]
fn reads_of_those_who_have_gone_are_taken_out_wherever_they_wait() {
    let mut fair: Fair<u32> = Fair::new(&IoLimits::default());
    activate(&mut fair, 100..200, 0);
    learn_large(&mut fair, 1..4);
    let mut running: Vec<Share> = Vec::new();
    let run = |fair: &mut Fair<u32>, ask: Ask, n: u32| match fair.admit(ask, n, |n| n, 0, ROOM) {
        Admission::Now(_, share) => Some(share),
        Admission::Queued { .. } => None,
        Admission::Full | Admission::NoRoom => panic!("there is room"),
    };
    // Behind a large one, behind its share, and a write behind both.
    for n in 0..4 {
        running.extend((1..4).filter_map(|partition| run(&mut fair, ask(partition), 10 * partition + n)));
    }
    for n in 0..8 {
        running.extend(run(&mut fair, ask(9), 90 + n));
    }
    let write = Ask { class: Class::Write(10), ..ask(9) };
    running.extend(run(&mut fair, write, 99));
    each(&mut fair, ROOM, |share, _| running.push(share));
    let before = fair.queued();
    let key = ConnectionKey { socket: SocketId(3), number: 1 };
    fair.hold_up(Crowd::Partition(PartitionId(2)), key);
    let gone = fair.give_up(|n| (20..30).contains(n) || *n >= 90);
    assert_eq!(gone.iter().filter(|n| **n < 90).count(), 4, "{gone:?}");
    assert!(!gone.contains(&99) && gone.len() > 4, "the write takes place: {gone:?}");
    assert_eq!(fair.queued(), before - gone.len());
    assert_eq!(fair.take_resumed(), [key], "what it was held up for is gone");
    assert!(!fair.flows.contains_key(&PartitionId(2)));
    let mut ran = Vec::new();
    while let Some(share) = running.pop() {
        fair.done(share, Some(if share.is_large { 1 << 20 } else { 0 }));
        each(&mut fair, ROOM, |share, n| {
            running.push(share);
            ran.push(n);
        });
    }
    assert!(ran.contains(&99) && ran.iter().all(|n| !(20..30).contains(n)), "{ran:?}");
    assert!(fair.flows.is_empty() && fair.running == 0 && fair.queued_bytes() == 0, "nothing is left behind");
    assert!(fair.ready.is_empty() && fair.blocked.is_empty() && fair.large.next().is_none());
}

/// Once whoever had the highest number waited as long as others came, and so did whoever waited with two.
#[test]
fn none_of_many_that_ask_one_after_the_other_waits_for_more_than_the_others_that_wait() {
    let mut fair: Fair<u32> = Fair::new(&IoLimits::default());
    activate(&mut fair, 100..200, 0);
    learn_large(&mut fair, 1..41);
    let mut running = None;
    let mut waits_since = [[None; 2]; 41];
    let mut longest = [0; 41];
    for turn in 0..4000u32 {
        // Each asks again as soon as it has its answer; the last two always have two that wait.
        for partition in 1..41 {
            let waits = &mut waits_since[partition as usize];
            let places = if partition > 38 { 2 } else { 1 };
            for (place, waits) in
                waits.iter_mut().enumerate().take(places).filter(|(_, waits)| waits.is_none())
            {
                *waits = Some(turn);
                if let Admission::Now(_, share) = fair.admit(ask(partition), place as u32, |n| n, 0, ROOM) {
                    assert!(running.replace((share, place as u32)).is_none(), "one at a time");
                }
            }
        }
        let (share, place): (Share, u32) = running.take().expect("one always runs");
        let partition = share.partition.0 as usize;
        let since = waits_since[partition][place as usize].take().expect("it was asked");
        longest[partition] = longest[partition].max(turn - since);
        fair.done(share, Some(1 << 20));
        each(&mut fair, ROOM, |share, place| running = Some((share, place)));
    }
    assert!(longest[1..39].iter().all(|turns| *turns <= 60), "{longest:?}");
    assert!(longest[39..].iter().all(|turns| *turns <= 120), "with two each waits for both: {longest:?}");
    assert!(longest[1..].iter().all(|turns| *turns > 0));
}

/// Once it waited as long as there were others for which there was room beside those that ran.
#[test]
fn the_largest_is_not_passed_for_ever_by_those_that_are_less_large() {
    for largest in [1, 99] {
        let mut fair: Fair<u32> = Fair::new(&IoLimits::default());
        activate(&mut fair, 100..200, 0);
        learn_large(&mut fair, largest..largest + 1);
        let middling = 60 * 1024;
        let mut running = VecDeque::new();
        for partition in 10..92 {
            let Admission::Now(_, share) = fair.admit(scan(partition), 0, |n| n, 0, ROOM) else {
                panic!("nothing else runs")
            };
            fair.done(share, Some(middling * 16));
            if partition < 12 {
                let Admission::Now(_, share) = fair.admit(scan(partition), 0, |n| n, 0, ROOM) else {
                    panic!("there is room for two")
                };
                assert!(share.is_large && share.cost < MOST_RUNNING / 4, "{share:?}");
                running.push_back(share);
            }
        }
        assert!(matches!(fair.admit(ask(largest), 7, |n| n, 0, ROOM), Admission::Queued { .. }));
        let mut has_run = false;
        for turn in 0..300 {
            if let Admission::Now(_, share) = fair.admit(scan(12 + turn % 80), 0, |n| n, 0, ROOM) {
                running.push_back(share);
            }
            let share: Share = running.pop_front().expect("one always runs");
            fair.done(share, Some(middling));
            each(&mut fair, ROOM, |share, n| {
                running.push_back(share);
                has_run |= n == 7;
            });
        }
        assert!(has_run, "partition {largest}: {} wait", fair.queued());
    }
}

fn scan(partition: u32) -> Ask {
    Ask { class: Class::Scan, ..ask(partition) }
}

#[test]
fn a_scan_of_which_nothing_is_known_is_not_large_and_one_that_finds_no_room_leaves_nothing_behind() {
    let mut fair: Fair<u32> = Fair::new(&IoLimits::default());
    activate(&mut fair, 100..200, 0);
    learn_large(&mut fair, 1..3);
    assert!(matches!(fair.admit(ask(1), 0, |n| n, 0, ROOM), Admission::Now(..)));
    assert!(matches!(fair.admit(scan(50), 0, |n| n, 0, ROOM), Admission::Now(_, share) if !share.is_large));
    assert_eq!(fair.admit(ask(2), 0, |n| n, 0, 0), Admission::Full);
    assert!(!fair.flows.contains_key(&PartitionId(2)));
    let Admission::Queued { .. } = fair.admit(ask(2), 0, |n| n, 0, ROOM) else {
        panic!("it is remembered as dear")
    };
}

/// Those whose answers are long cost what they cost; where there is no room for such they are put off, and that costs nothing.
#[test]
fn long_reads_without_room_for_their_answers_are_put_off_and_nothing_is_counted_or_learned() {
    let mut fair = Fair::new(&IoLimits::default());
    let long = |has_room| Ask { has_room, ..ask(1) };
    for _ in 0..64 {
        let Admission::Now(_, share) = fair.admit(long(true), 0, |n| n, 0, ROOM) else {
            panic!("it runs alone")
        };
        fair.done(share, Some(1 << 20));
    }
    assert_eq!(fair.admit(long(false), 1, |n| n, 0, ROOM), Admission::NoRoom);
    // As many as may run do, and two wait behind them.
    let mut running = Vec::new();
    let waits = loop {
        match fair.admit(long(true), running.len(), |n| n, 0, ROOM) {
            Admission::Now(_, share) => running.push(share),
            Admission::Queued { .. } => break running.len(),
            other => panic!("{other:?}"),
        }
    };
    assert!(running.iter().all(|share| share.cost > 100 && share.gives_much), "{running:?}");
    assert!(matches!(fair.admit(long(true), waits + 1, |n| n, 0, ROOM), Admission::Queued { .. }));
    let small = fair.admit(Ask { has_room: false, ..ask(2) }, 0, |n| n, 0, ROOM);
    assert!(matches!(small, Admission::Now(_, share) if !share.gives_much), "small ones go on: {small:?}");
    running.iter().for_each(|share| fair.done(*share, None));
    let (now, taken) = (fair.now, fair.running);
    let is_last = |n: &usize| *n > waits;
    assert_eq!(fair.release(ROOM, is_last), Some((None, waits)));
    assert_eq!((fair.now, fair.running, fair.queued()), (now, taken, 1), "what is put off has had nothing");
    let Some((Some(second), _)) = fair.release(ROOM, is_last) else { panic!("there is room for this one") };
    let lost = running[0].cost - second.cost;
    assert!(lost <= 2 * running[0].cost / 64, "what was not read is doubted, and no more: {second:?}");
    assert_eq!(fair.release(ROOM, |_| false), None);
    fair.done(second, Some(1 << 20));
    assert!(!fair.flows.contains_key(&PartitionId(1)) && fair.queued_bytes() == 0);
}

/// Of a partition that has nothing else to do nothing stays when its last one is put off, but that its reads are dear.
#[test]
fn a_partition_whose_requests_are_all_put_off_is_forgotten() {
    let mut fair = Fair::new(&IoLimits::default());
    let mut holds = Vec::new();
    for partition in [1, 2] {
        for _ in 0..64 {
            let Admission::Now(_, share) = fair.admit(ask(partition), 0, |n| n, 0, ROOM) else {
                panic!("it runs alone")
            };
            fair.done(share, Some(1 << 20));
        }
    }
    for (partition, n) in [(1, 1), (2, 2), (2, 3)] {
        if let Admission::Now(_, share) = fair.admit(ask(partition), n, |n| n, 0, ROOM) {
            holds.push(share);
        }
    }
    assert_eq!((holds.len(), fair.queued()), (1, 2), "large ones come one after the other");
    fair.done(holds[0], Some(1 << 20));
    let put_off: Vec<_> = std::iter::from_fn(|| fair.release(ROOM, |_| false)).collect();
    assert_eq!(put_off, [(None, 2), (None, 3)]);
    assert!(
        fair.flows.is_empty() && !fair.is_ready() && fair.queued_bytes() == 0 && fair.waiting_weight == 0
    );
    assert_eq!(fair.admit(Ask { has_room: false, ..ask(2) }, 4, |n| n, 0, ROOM), Admission::NoRoom);
}
