//! What is changed comes back, wherever the machine stops.

use super::journal::{Journal, JournalError, PATH};
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
