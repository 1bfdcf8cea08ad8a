//! What is changed comes back, wherever the machine stops.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::journal::{Journal, JournalError, PATH};
use super::store::Files;
use super::{Done, Outcome, TuneError, apply::apply, revert::revert};
use crate::knob::Severity;
use crate::tests::fixture::{FakeKernel, Fixture};

fn open(machine: &Fixture, kernel: &mut FakeKernel) -> Result<Journal, JournalError> {
    Journal::open(kernel, &machine.probe().path(PATH))
}

fn applied(machine: &Fixture, kernel: &mut FakeKernel) -> Result<Done, TuneError> {
    let mut journal = open(machine, kernel)?;
    machine.look(|cx| apply(cx, kernel, &mut journal))
}

fn reverted(machine: &Fixture, kernel: &mut FakeKernel) -> Result<Done, TuneError> {
    let journal = open(machine, kernel)?;
    revert(&machine.probe(), kernel, journal)
}

fn machines() -> [Fixture; 3] {
    let mut both = Fixture::untuned();
    both.drives = vec!["id:SERIAL-A".to_owned(), "id:SERIAL-B".to_owned()];
    [both, Fixture::azure(), Fixture::untuned().wanting("isolation = \"cpusets\"")]
}

#[test]
fn apply_then_revert_is_the_identity() {
    for machine in machines() {
        let before = machine.files();
        let done = applied(&machine, &mut FakeKernel::default()).unwrap();
        assert!(done.is_well() && done.attempts.len() > 15, "{}", done.to_text("written"));
        assert_ne!(machine.files(), before);
        let short: Vec<_> =
            machine.knobs().into_iter().filter(|k| k.is_short() && !k.change.writes.is_empty()).collect();
        assert!(short.is_empty(), "{short:?}");
        let done = reverted(&machine, &mut FakeKernel::default()).unwrap();
        assert!(done.is_well(), "{}", done.to_text("restored"));
        assert_eq!(machine.files(), before);
        assert!(!machine.path(&PATH[1..]).exists());
    }
}

#[test]
fn applying_twice_keeps_the_oldest_value() {
    let machine = Fixture::untuned();
    let before = machine.files();
    applied(&machine, &mut FakeKernel::default()).unwrap();
    let again = applied(&machine, &mut FakeKernel::default()).unwrap();
    assert!(again.attempts.is_empty(), "{}", again.to_text("written"));
    // Somebody sets one back, another one anew; both are changed once more.
    machine.set("proc/sys/vm/swappiness", "60");
    machine.set("proc/sys/net/core/somaxconn", "256");
    machine.set("sys/block/nvme0n1/queue/scheduler", "none mq-deadline [kyber]");
    let again = applied(&machine, &mut FakeKernel::default()).unwrap();
    assert!(again.attempts.len() >= 3, "{}", again.to_text("written"));
    reverted(&machine, &mut FakeKernel::default()).unwrap();
    assert_eq!(machine.files(), before);
}

#[test]
fn one_change_that_makes_another_needless_is_seen() {
    let machine = Fixture::untuned();
    let done = applied(&machine, &mut FakeKernel::default()).unwrap();
    // With no scheduler the queue takes 1,023 requests, more than was asked for.
    assert_eq!(machine.get("sys/block/nvme0n1/queue/nr_requests"), "1023");
    assert!(
        !done.attempts.iter().any(|attempt| attempt.knob.starts_with("nr_requests")),
        "{}",
        done.to_text("written")
    );
    reverted(&machine, &mut FakeKernel::default()).unwrap();
    assert_eq!(machine.get("sys/block/nvme0n1/queue/nr_requests"), "64");
}

/// Knobs of each kind: keys of sysctl, what the kernel moves along, many files at once, a drive's and an interface's.
const SOME: &str = "swappiness = 1\nmin_free_kbytes = \"auto\"\ntransparent_huge_pages = \"madvise\"\n\
                    governor = \"performance\"\nscheduler = \"none\"\nnr_requests = 128\nwbt = 0\nrps = \"auto\"\n\
                    nic_interrupts = \"spread\"";

/// Stops after every number of steps until there are enough; returns how many were.
fn stop_everywhere(mut round: impl FnMut(&mut FakeKernel)) -> usize {
    for steps in 0..1000 {
        let mut kernel = FakeKernel::stops_after(steps);
        round(&mut kernel);
        if !kernel.has_stopped {
            return steps;
        }
    }
    panic!("it never ends");
}

#[test]
fn a_crash_at_any_step_of_apply_loses_nothing() {
    let steps = stop_everywhere(|kernel| {
        let machine = Fixture::untuned().wanting_only(SOME);
        let before = machine.files();
        let _ = applied(&machine, kernel);
        let done = reverted(&machine, &mut FakeKernel::default()).unwrap();
        assert!(done.is_well(), "{}", done.to_text("restored"));
        assert_eq!(machine.files(), before, "stopped after {:?} steps", kernel.log.len());
    });
    assert!(steps > 20, "{steps}");
}

#[test]
fn a_crash_at_any_step_of_apply_can_be_gone_on_from() {
    stop_everywhere(|kernel| {
        let machine = Fixture::untuned().wanting_only(SOME);
        let before = machine.files();
        let _ = applied(&machine, kernel);
        let done = applied(&machine, &mut FakeKernel::default()).unwrap();
        assert!(done.is_well(), "{}", done.to_text("written"));
        assert!(!machine.knobs().iter().any(|k| k.is_short() && !k.change.writes.is_empty()));
        reverted(&machine, &mut FakeKernel::default()).unwrap();
        assert_eq!(machine.files(), before);
    });
}

#[test]
fn a_crash_at_any_step_of_revert_can_be_gone_on_from() {
    stop_everywhere(|kernel| {
        let machine = Fixture::untuned().wanting_only(SOME);
        let before = machine.files();
        applied(&machine, &mut FakeKernel::default()).unwrap();
        let _ = reverted(&machine, kernel);
        let done = reverted(&machine, &mut FakeKernel::default()).unwrap();
        assert!(done.is_well(), "{}", done.to_text("restored"));
        assert_eq!(machine.files(), before);
        assert!(!machine.path(&PATH[1..]).exists());
    });
}

#[test]
fn a_crash_of_the_machine_takes_the_settings_along() {
    stop_everywhere(|kernel| {
        let machine = Fixture::untuned().wanting_only(SOME);
        let before = machine.files();
        let _ = applied(&machine, kernel);
        // Another boot: every setting is the kernel's own again, and one is the administrator's by now.
        for (path, text) in &before {
            std::fs::write(path, text).unwrap();
        }
        machine.set("proc/sys/kernel/random/boot_id", "boot-two");
        machine.set("proc/sys/vm/swappiness", "30");
        let before = machine.files();
        let done = reverted(&machine, &mut FakeKernel::default()).unwrap();
        assert!(done.is_well(), "{}", done.to_text("restored"));
        assert_eq!(machine.files(), before);
    });
}

#[test]
fn a_new_boot_begins_with_what_it_finds() {
    let machine = Fixture::untuned();
    let before = machine.files();
    applied(&machine, &mut FakeKernel::default()).unwrap();
    for (path, text) in &before {
        std::fs::write(path, text).unwrap();
    }
    machine.set("proc/sys/kernel/random/boot_id", "boot-two");
    machine.set("proc/sys/vm/swappiness", "30");
    // What is written down for the next boot was there before, so it is still lode-tune's.
    machine.set("proc/sys/net/core/somaxconn", "4096");
    applied(&machine, &mut FakeKernel::default()).unwrap();
    reverted(&machine, &mut FakeKernel::default()).unwrap();
    assert_eq!(machine.get("proc/sys/vm/swappiness"), "30");
    assert_eq!(machine.get("proc/sys/net/core/somaxconn"), "128");
}

/// A machine whose disks have no serial numbers: the first hangs at this PCI function, or at none.
fn without_serials(function: Option<&str>) -> Fixture {
    let mut machine = Fixture::untuned().wanting_only("nomerges = 2");
    for controller in ["nvme0", "nvme1"] {
        std::fs::remove_file(machine.path(&format!("sys/devices/pci/{controller}/serial"))).unwrap();
    }
    std::fs::remove_dir_all(machine.path("dev/disk")).unwrap();
    let home = machine.path(&format!("sys/devices/pci0000:00/{}", function.unwrap_or("else")));
    std::fs::create_dir_all(home.parent().unwrap()).unwrap();
    std::fs::rename(machine.path("sys/devices/pci/nvme0"), &home).unwrap();
    machine.drives = vec!["/dev/nvme0n1".to_owned()];
    name(&machine, "nvme0n1", &home.join("nvme0n1"));
    machine
}

/// Gives a disk a name.
fn name(machine: &Fixture, name: &str, directory: &std::path::Path) {
    let link = machine.path(&format!("sys/block/{name}"));
    let _ = std::fs::remove_file(&link);
    let below = directory.strip_prefix(machine.path("sys")).unwrap();
    std::os::unix::fs::symlink(std::path::Path::new("..").join(below), link).unwrap();
}

const MERGES: &str = "sys/block/nvme0n1/queue/nomerges";

#[test]
fn a_disk_that_nothing_tells_from_others_is_left_after_a_boot() {
    let machine = without_serials(None);
    applied(&machine, &mut FakeKernel::default()).unwrap();
    assert_eq!(machine.get(MERGES), "2");
    // As it would be of another disk that has the name by now, and is set like that.
    machine.set("proc/sys/kernel/random/boot_id", "boot-two");
    let done = reverted(&machine, &mut FakeKernel::default()).unwrap();
    let text = done.to_text("restored");
    assert!(done.is_well() && text.contains("another may have its name now"), "{text}");
    assert!(text.contains("is to be 0 again, write it by hand"), "{text}");
    assert_eq!(machine.get(MERGES), "2");
    // In the same boot it is the same disk.
    let machine = without_serials(None);
    applied(&machine, &mut FakeKernel::default()).unwrap();
    reverted(&machine, &mut FakeKernel::default()).unwrap();
    assert_eq!(machine.get(MERGES), "0");
}

#[test]
fn a_disk_without_a_serial_number_is_found_where_it_hangs() {
    let machine = without_serials(Some("0000:00:04.0"));
    applied(&machine, &mut FakeKernel::default()).unwrap();
    let ours = machine.path("sys/devices/pci0000:00/0000:00:04.0/nvme0n1");
    let others = machine.path("sys/devices/pci/nvme1/nvme1n1");
    // After a boot the names are swapped, and something keeps both as they were written.
    machine.set("proc/sys/kernel/random/boot_id", "boot-two");
    for directory in [&ours, &others] {
        std::fs::write(directory.join("queue/nomerges"), "2\n").unwrap();
    }
    std::fs::rename(&others, others.with_file_name("nvme0n1")).unwrap();
    std::fs::rename(&ours, ours.with_file_name("nvme1n1")).unwrap();
    name(&machine, "nvme0n1", &others.with_file_name("nvme0n1"));
    name(&machine, "nvme1n1", &ours.with_file_name("nvme1n1"));
    assert!(reverted(&machine, &mut FakeKernel::default()).unwrap().is_well());
    assert_eq!(machine.get("sys/block/nvme1n1/queue/nomerges"), "0");
    assert_eq!(machine.get(MERGES), "2");
}

#[test]
fn interfaces_that_share_an_address_are_told_apart() {
    for is_bond in [true, false] {
        let machine =
            Fixture::untuned().wanting_only("rps = \"auto\"\nnic_interrupts = \"spread\"\nxps = \"auto\"");
        std::fs::remove_file(machine.path("sys/class/net/ens5")).unwrap();
        for (slot, first) in [(6, 60), (7, 70)] {
            let below = format!("pci0000:00/0000:00:0{slot}.0");
            machine.add_nic_at(&format!("ens{slot}"), &below, ("0a:00:00:00:00:06", "ena"), 2, first);
            if is_bond {
                let own = format!("sys/class/net/ens{slot}/bonding_slave/perm_hwaddr");
                machine.set(&own, &format!("0a:00:00:00:00:0{slot}"));
            }
        }
        let before = machine.files();
        let done = applied(&machine, &mut FakeKernel::default()).unwrap();
        assert!(done.is_well(), "{}", done.to_text("written"));
        for slot in [6, 7] {
            assert_eq!(machine.get(&format!("sys/class/net/ens{slot}/queues/rx-1/rps_cpus")), "f");
        }
        assert!(!machine.knobs().iter().any(|k| k.is_short() && !k.change.writes.is_empty()));
        // Renamed meanwhile, each as the other.
        for (slot, other) in [(6, 7), (7, 6)] {
            let link = machine.path(&format!("sys/class/net/ens{slot}"));
            std::fs::remove_file(&link).unwrap();
            let home = format!("../../devices/pci0000:00/0000:00:0{other}.0/net/ens{other}");
            std::os::unix::fs::symlink(home, link).unwrap();
        }
        assert!(reverted(&machine, &mut FakeKernel::default()).unwrap().is_well());
        assert_eq!(machine.files(), before);
    }
}

#[test]
fn interfaces_that_nothing_tells_apart_are_left() {
    let machine = Fixture::untuned();
    machine.add_nic_at("ens6", "pci/ens6", ("0a:00:00:00:00:01", "ena"), 2, 60);
    let knob = machine.knob("rps");
    assert!(
        knob.severity == Severity::NotApplicable
            && knob.why.contains("another interface has the same address")
    );
}

/// Another boot of a machine: every setting is the kernel's own again.
fn boot(machine: &Fixture, before: &BTreeMap<PathBuf, Vec<u8>>, name: &str) {
    before.iter().for_each(|(path, text)| std::fs::write(path, text).unwrap());
    machine.set("proc/sys/kernel/random/boot_id", name);
}

#[test]
fn a_journal_does_not_grow_with_the_boots() {
    let machine = Fixture::untuned();
    let before = machine.files();
    let length = || std::fs::metadata(machine.path(&PATH[1..])).unwrap().len();
    applied(&machine, &mut FakeKernel::default()).unwrap();
    let first = length();
    for number in 0..8 {
        boot(&machine, &before, &format!("boot-{number}"));
        applied(&machine, &mut FakeKernel::default()).unwrap();
        // What this boot has added is taken out at the next.
        assert!(length() < first * 5 / 2, "{} bytes at first, {} after boot {number}", first, length());
    }
    assert!(reverted(&machine, &mut FakeKernel::default()).unwrap().is_well());
    machine.set("proc/sys/kernel/random/boot_id", "boot-one");
    assert_eq!(machine.files(), before);
}

#[test]
fn a_journal_that_has_grown_is_read_whatever_its_length() {
    let machine = Fixture::untuned();
    let before = machine.files();
    applied(&machine, &mut FakeKernel::default()).unwrap();
    let path = machine.path(&PATH[1..]);
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, lines) = text.split_once('\n').unwrap();
    let times = (17 << 20) / lines.len() + 1;
    std::fs::write(&path, format!("{head}\n{}", lines.repeat(times))).unwrap();
    let mut files = Files::of(&machine.probe());
    let opened = Journal::open(&mut files, &path).unwrap();
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept.len() <= text.len() && kept.lines().all(|line| text.contains(line)), "as before it grew");
    assert!(revert(&machine.probe(), &mut files, opened).unwrap().is_well());
    assert_eq!(machine.files(), before);
}

#[test]
fn a_crash_at_any_step_of_taking_lines_out_loses_nothing() {
    let steps = stop_everywhere(|kernel| {
        let machine = Fixture::untuned().wanting_only(SOME);
        let before = machine.files();
        applied(&machine, &mut FakeKernel::default()).unwrap();
        let path = machine.path(&PATH[1..]);
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, lines) = text.split_once('\n').unwrap();
        std::fs::write(&path, format!("{head}\n{lines}{lines}{{\"torn")).unwrap();
        let _ = open(&machine, kernel);
        let done = reverted(&machine, &mut FakeKernel::default()).unwrap();
        assert!(done.is_well(), "{}", done.to_text("restored"));
        assert_eq!(machine.files(), before);
    });
    assert_eq!(steps, 3, "the torn line is cut, the file is written, and takes the other's place");
}

#[test]
fn interrupts_that_the_kernel_keeps_are_left_and_nothing_fails() {
    let machine = Fixture::untuned();
    let before = machine.files();
    let mut kernel = FakeKernel { managed_interrupts: true, ..FakeKernel::default() };
    let done = applied(&machine, &mut kernel).unwrap();
    assert!(done.is_well(), "{}", done.to_text("written"));
    let left: Vec<_> = done.attempts.iter().filter(|a| matches!(a.outcome, Outcome::Left { .. })).collect();
    assert_eq!(left.len(), 3, "{}", done.to_text("written"));
    assert!(done.to_text("written").contains("the kernel places this interrupt itself"));
    assert!(reverted(&machine, &mut kernel).unwrap().is_well());
    assert_eq!(machine.files(), before);
}

#[test]
fn what_is_not_taken_is_said_with_what_to_do_and_the_rest_is_done() {
    for (error, hint) in
        [(1, "run as root"), (13, "run as root"), (30, "read-only"), (22, "does not take this value")]
    {
        let machine = Fixture::untuned();
        let mut kernel = FakeKernel { refused: Some(("vm/swappiness", error)), ..FakeKernel::default() };
        let done = applied(&machine, &mut kernel).unwrap();
        let failed: Vec<_> =
            done.attempts.iter().filter(|a| matches!(a.outcome, Outcome::Failed { .. })).collect();
        assert_eq!(failed.len(), 1, "{}", done.to_text("written"));
        assert!(done.to_text("written").contains(hint), "{}", done.to_text("written"));
        assert_eq!(machine.severity("somaxconn"), Severity::Ok);
        // Something is still to be restored that cannot be: the journal stays.
        machine.set("proc/sys/vm/swappiness", "2");
        assert!(!reverted(&machine, &mut kernel).unwrap().is_well());
        assert!(machine.path(&PATH[1..]).exists());
    }
}

#[test]
fn what_the_kernel_makes_something_else_of_is_a_failure() {
    let machine = Fixture::untuned();
    let before = machine.files();
    let mut kernel = FakeKernel { clamped: Some(("core/somaxconn", "2048")), ..FakeKernel::default() };
    let done = applied(&machine, &mut kernel).unwrap();
    assert!(!done.is_well());
    let text = done.to_text("written");
    assert!(text.contains("\"4096\" was written, but the kernel has made \"2048\" of it"), "{text}");
    reverted(&machine, &mut FakeKernel::default()).unwrap();
    assert_eq!(machine.files(), before);
}

#[test]
fn a_drive_that_is_gone_is_no_failure_of_revert() {
    let machine = Fixture::untuned();
    applied(&machine, &mut FakeKernel::default()).unwrap();
    std::fs::remove_file(machine.path("sys/block/nvme0n1")).unwrap();
    let done = reverted(&machine, &mut FakeKernel::default()).unwrap();
    assert!(done.is_well(), "{}", done.to_text("restored"));
    assert!(done.to_text("restored").contains("its settings went with it"));
}

#[test]
fn revert_without_a_journal_does_nothing() {
    let machine = Fixture::untuned();
    let before = machine.files();
    assert!(reverted(&machine, &mut FakeKernel::default()).unwrap().attempts.is_empty());
    assert_eq!(machine.files(), before);
}

#[test]
fn a_journal_that_cannot_be_trusted_changes_nothing() {
    let damaged = |text: &str| {
        let machine = Fixture::untuned();
        machine.set(&PATH[1..], text);
        let before = machine.files();
        let error = applied(&machine, &mut FakeKernel::default()).unwrap_err().to_string();
        assert_eq!(machine.files(), before, "{text}");
        assert_eq!(reverted(&machine, &mut FakeKernel::default()).unwrap_err().to_string(), error);
        error
    };
    let head = "{\"lode_tune_journal\":1}";
    assert!(damaged("{\"lode_tune_journal\":2}").contains("not a journal of this version"));
    assert!(damaged("something else").contains("move it away"));
    assert!(damaged(&format!("{head}\ngarbage\n{{}}")).contains("line 2"));
    assert!(damaged(&format!("{head}\n{{\"knob\":\"x\"}}")).contains("nothing was changed"));
}

#[test]
fn without_a_journal_nothing_is_changed() {
    let machine = Fixture::untuned();
    let before = machine.files();
    // A file where the directory should be.
    machine.set("var/lib/lode-tune", "in the way");
    let mut kernel = FakeKernel::default();
    assert!(applied(&machine, &mut kernel).is_err());
    assert!(kernel.log.is_empty());
    let mut after = machine.files();
    after.remove(&machine.path("var/lib/lode-tune"));
    assert_eq!(after, before);
}
